//! The `models` table of a lane.
//!
//! Invariant: every statement holds the lane's predicate, `tenant_id IS ?`, so
//! a row of another tenant in the lane's file is neither read nor changed.

use rusqlite::{OptionalExtension, Row, named_params};

use super::{Model, NewModel};
use crate::backend::{BackendError, Transaction};
use crate::tenant::Lane;

const COLUMNS: &str = "name, version, uri, metadata, registered_at_ms";

/// The models of the lane, or those of one name, by name and then in the order
/// of registration.
pub(super) fn all(
    transaction: &Transaction<'_>,
    name: Option<&str>,
) -> Result<Vec<Model>, BackendError> {
    let lane = transaction.lane();
    let mut statement = transaction.connection().prepare_cached(&format!(
        "SELECT {COLUMNS} FROM models
         WHERE tenant_id IS :tenant_id AND (:name IS NULL OR name = :name) ORDER BY name, id"
    ))?;
    let rows = statement.query_map(
        named_params! {":tenant_id": transaction.tenant_id(), ":name": name},
        |row| read(row, lane),
    )?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// One version of a model of the lane, or the one that was registered last.
pub(super) fn find(
    transaction: &Transaction<'_>,
    name: &str,
    version: Option<&str>,
) -> Result<Option<Model>, BackendError> {
    let lane = transaction.lane();
    Ok(transaction
        .connection()
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM models
             WHERE tenant_id IS :tenant_id AND name = :name
               AND (:version IS NULL OR version = :version)
             ORDER BY id DESC LIMIT 1"
        ))?
        .query_row(
            named_params! {
                ":tenant_id": transaction.tenant_id(),
                ":name": name,
                ":version": version,
            },
            |row| read(row, lane),
        )
        .optional()?)
}

/// Records a model, unless the lane has that version of it: then `None`.
pub(super) fn insert(
    transaction: &Transaction<'_>,
    model: &Model,
) -> Result<Option<()>, BackendError> {
    transaction.assert_tenant_matches(model.lane.tenant())?;
    let new = &model.definition;
    if find(transaction, &new.name, Some(&new.version))?.is_some() {
        return Ok(None);
    }
    transaction
        .connection()
        .prepare_cached(
            "INSERT INTO models (tenant_id, name, version, uri, metadata, registered_at_ms)
             VALUES (:tenant_id, :name, :version, :uri, :metadata, :registered_at_ms)",
        )?
        .execute(named_params! {
            ":tenant_id": model.lane.tenant().map(|tenant| tenant.to_string()),
            ":name": new.name,
            ":version": new.version,
            ":uri": new.uri,
            ":metadata": new.metadata,
            ":registered_at_ms": model.registered_at_ms,
        })?;
    Ok(Some(()))
}

/// Forgets a version of a model; `false` when the lane does not have it.
pub(super) fn delete(
    transaction: &Transaction<'_>,
    name: &str,
    version: &str,
) -> Result<bool, BackendError> {
    let deleted = transaction
        .connection()
        .prepare_cached(
            "DELETE FROM models
             WHERE tenant_id IS :tenant_id AND name = :name AND version = :version",
        )?
        .execute(named_params! {
            ":tenant_id": transaction.tenant_id(),
            ":name": name,
            ":version": version,
        })?;
    Ok(deleted > 0)
}

fn read(row: &Row<'_>, lane: Lane) -> rusqlite::Result<Model> {
    Ok(Model {
        lane,
        definition: NewModel {
            name: row.get(0)?,
            version: row.get(1)?,
            uri: row.get(2)?,
            metadata: row.get(3)?,
        },
        registered_at_ms: row.get(4)?,
    })
}
