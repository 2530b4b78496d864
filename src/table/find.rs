//! Which rows of a lane a scan reads: those that an index finds, or every run.

use std::sync::Arc;

use rusqlite::types::ToSql;

use super::chunks::{self, Chunk, Parts};
use super::lookup::KeyLookup;
use super::scan::Scan;
use super::storage::{Stored, absent_columns, column_name, exists, tenant_bytes};
use crate::backend::{BackendError, Transaction};

/// Rows that are looked up by key before the whole table is read instead.
const LOOKUP_ROWS_MAX: usize = 8192;

/// What a lane has to offer.
pub(super) enum Found {
    /// Rows that an index found.
    Rows(Vec<FoundRows>),
    /// Runs to be read, and the columns that the lane's storage is older than.
    Chunks(Vec<Chunk>, Arc<[u32]>),
}

/// Rows, and their values of every column but the tenant's.
pub(super) struct FoundRows {
    pub columns: Vec<Parts>,
    pub rows: usize,
}

impl Found {
    pub(super) fn nothing() -> Self {
        Found::Chunks(Vec::new(), Arc::default())
    }
}

impl Scan {
    /// The rows that an index finds, or the runs of the table.
    pub(super) fn find(
        &self,
        transaction: &Transaction<'_>,
        stored: &Stored,
    ) -> Result<Found, BackendError> {
        if !exists(transaction, stored)? {
            return Ok(Found::nothing());
        }
        let is_defined_here = self.relation.lane == transaction.lane();
        if is_defined_here && let Some(columns) = &self.extremes {
            let found = self.extremes(transaction, stored, columns)?;
            return Ok(Found::Rows(found));
        }
        if is_defined_here
            && let Some(lookup) = &self.wanted.lookup
            && let Some(found) = self.look_up(transaction, stored, lookup)?
        {
            return Ok(Found::Rows(vec![found]));
        }
        let numbers = self.columns.iter().map(|column| column.number);
        let absent = match is_defined_here {
            true => Vec::new(),
            false => absent_columns(transaction, stored, numbers)?,
        };
        let chunks = chunks::list(transaction, stored)?;
        Ok(Found::Chunks(chunks, absent.into()))
    }

    /// The rows that meet the lookup's conditions, unless they are many.
    fn look_up(
        &self,
        transaction: &Transaction<'_>,
        stored: &Stored,
        lookup: &KeyLookup,
    ) -> Result<Option<FoundRows>, BackendError> {
        let mut values: Vec<&dyn ToSql> = vec![];
        values.extend(lookup.values().map(|value| value as &dyn ToSql));
        let rest = format!("{} LIMIT {}", lookup.sql(2), LOOKUP_ROWS_MAX + 1);
        let found = self.select(transaction, stored, &rest, &values)?;
        Ok((found.rows <= LOOKUP_ROWS_MAX).then_some(found))
    }

    /// For each of `columns` a row with its least and one with its greatest value.
    fn extremes(
        &self,
        transaction: &Transaction<'_>,
        stored: &Stored,
        columns: &[u32],
    ) -> Result<Vec<FoundRows>, BackendError> {
        let mut found = Vec::with_capacity(2 * columns.len());
        for column in columns {
            let column = column_name(*column);
            for order in ["ASC", "DESC"] {
                let rest = format!(" AND {column} IS NOT NULL ORDER BY {column} {order} LIMIT 1");
                found.push(self.select(transaction, stored, &rest, &[])?);
            }
        }
        Ok(found)
    }

    /// The lane's rows, as `rest` of a SELECT restricts them further by `values`
    /// from `?2` on.
    fn select(
        &self,
        transaction: &Transaction<'_>,
        stored: &Stored,
        rest: &str,
        values: &[&dyn ToSql],
    ) -> Result<FoundRows, BackendError> {
        let columns = self.stored_columns();
        let sql = format!(
            "SELECT {} FROM {} WHERE tenant_id IS ?1{rest}",
            chunks::selected(&columns, &[]),
            stored.as_str(),
        );
        let mut statement = transaction.connection().prepare_cached(&sql)?;
        let tenant = tenant_bytes(transaction.lane());
        let mut all: Vec<&dyn ToSql> = vec![&tenant];
        all.extend(values);
        let rows = statement.query(all.as_slice())?;
        let (columns, rows) = chunks::decode(transaction, stored, &columns, 1, rows)?;
        Ok(FoundRows { columns, rows })
    }
}
