//! What lanes keep of shared tables that were dropped, and its end.
//!
//! A shared table is dropped in the global lane alone, in one commit; the rows
//! that tenants have of it are then found by no name, and removed lane by lane.
//! A crash in between leaves them to be found again: what was dropped is what the
//! global lane has given a number and has no more.
//!
//! Invariant: nothing is removed that the global lane does not know. A lane of
//! another directory's global lane, or of a later state than it was restored to,
//! keeps its rows.

use std::collections::HashSet;

use rusqlite::OptionalExtension;

use super::storage::Stored;
use crate::backend::{Backend, BackendError, Transaction};
use crate::catalog::relations;
use crate::tenant::Lane;

/// The shared tables at one moment.
struct SharedTables {
    /// The highest number that one has had.
    last_id: i64,
    /// Where tenants keep rows of those that there are.
    stored: HashSet<String>,
}

impl SharedTables {
    fn read(transaction: &Transaction<'_>) -> Result<Self, BackendError> {
        let last_id: Option<i64> = transaction
            .connection()
            .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'relations'")?
            .query_row([], |row| row.get(0))
            .optional()?;
        let stored = relations::ages(transaction)?
            .into_iter()
            .map(|(id, created_at_ms)| Stored::shared_name(id, created_at_ms))
            .collect();
        Ok(SharedTables {
            last_id: last_id.unwrap_or(0),
            stored,
        })
    }

    /// Whether rows under this name are of a table that was dropped.
    fn has_dropped(&self, stored: &str) -> bool {
        Stored::shared_id(stored).is_some_and(|id| id <= self.last_id)
            && !self.stored.contains(stored)
    }
}

/// Removes the rows that a tenant's lane has of shared tables that were dropped,
/// and says of how many tables there were any. What is left in the lane's file
/// has no trace of them once [`Backend::empty_log`] has returned `true`.
pub async fn sweep(backend: &Backend, lane: Lane) -> Result<usize, BackendError> {
    // Before the shared tables are read, so that each was made before that.
    let names = backend.read(lane, shared_names).await?.unwrap_or_default();
    if names.is_empty() {
        return Ok(0);
    }
    let Some(shared) = backend.read(Lane::Global, SharedTables::read).await? else {
        return Ok(0);
    };
    let dropped: Vec<String> = names
        .into_iter()
        .filter(|name| shared.has_dropped(name))
        .collect();
    let count = dropped.len();
    if count > 0 {
        let transaction = backend.begin(lane);
        let remove =
            move |lane: &Transaction<'_>| dropped.iter().try_for_each(|name| remove(lane, name));
        transaction.write(remove).await?;
        transaction.commit().await?;
    }
    Ok(count)
}

/// Where the lane keeps rows of shared tables.
fn shared_names(transaction: &Transaction<'_>) -> Result<Vec<String>, BackendError> {
    let mut statement = transaction.connection().prepare_cached(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 'g[0-9]*'",
    )?;
    let names = statement.query_map([], |row| row.get(0))?;
    Ok(names.collect::<rusqlite::Result<_>>()?)
}

fn remove(transaction: &Transaction<'_>, stored: &str) -> Result<(), BackendError> {
    let connection = transaction.connection();
    connection.execute_batch(&format!("DROP TABLE IF EXISTS {stored}"))?;
    connection
        .prepare_cached("DELETE FROM table_chunks WHERE stored = ?1")?
        .execute([stored])?;
    Ok(())
}
