//! Which rows of a lane a scan reads: those that an index finds, or every run.

use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::types::ToSql;

use super::chunks::{self, Chunk, Parts};
use super::lookup::KeyLookup;
use super::scan::Scan;
use super::storage::{Stored, absent_columns, column_name, indexes, tenant_bytes};
use crate::backend::{BackendError, Transaction};
use crate::catalog::IndexKind;

/// Rows that are looked up by key before the whole table is read instead.
const LOOKUP_ROWS_MAX: usize = 8192;

/// What a lane has to offer.
#[derive(Debug)]
pub(super) enum Found {
    /// Rows that an index found.
    Rows(Vec<FoundRows>),
    /// Runs to be read, and the columns that the lane's storage is older than.
    Chunks(Vec<Chunk>, Arc<[u32]>),
}

/// Rows, and their values of every column but the tenant's.
#[derive(Debug)]
pub(super) struct FoundRows {
    pub columns: Vec<Parts>,
    pub rows: usize,
}

/// The storage of the table in a lane.
struct Storage<'a> {
    transaction: &'a Transaction<'a>,
    stored: &'a Stored,
    /// The names of the indexes that are there.
    indexes: HashSet<String>,
    /// Of the columns that are asked for, those that it is older than.
    absent: &'a [u32],
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
        if let Some(found) = self.find_key(transaction, stored)? {
            return Ok(Found::Rows(vec![found]));
        }
        let Some(indexes) = indexes(transaction, stored)? else {
            return Ok(Found::nothing());
        };
        let numbers = self.columns.iter().map(|column| column.number);
        // The lane that defines a table has its storage up to date.
        let absent = match self.relation.lane == transaction.lane() {
            true => Vec::new(),
            false => {
                let asked = self.wanted.lookup.iter().flat_map(KeyLookup::columns);
                absent_columns(transaction, stored, numbers.chain(asked))?
            }
        };
        let lane = Storage {
            transaction,
            stored,
            indexes,
            absent: &absent,
        };
        if let Some(columns) = &self.extremes
            && columns.iter().all(|column| self.is_indexed(&lane, *column))
        {
            return Ok(Found::Rows(self.extremes(&lane, columns)?));
        }
        if let Some(lookup) = &self.wanted.lookup
            && !lookup.columns().any(|column| absent.contains(&column))
            && lookup
                .columns()
                .any(|column| self.is_indexed(&lane, column))
            && let Some(found) = self.look_up(&lane, lookup)?
        {
            return Ok(Found::Rows(vec![found]));
        }
        let chunks = chunks::list(transaction, stored)?;
        Ok(Found::Chunks(chunks, absent.into()))
    }

    /// The rows of a whole key, found by its index; `None` where no key is asked for
    /// and where the lane's storage of the table is older than the key or a column.
    fn find_key(
        &self,
        transaction: &Transaction<'_>,
        stored: &Stored,
    ) -> Result<Option<FoundRows>, BackendError> {
        let equal = &self.wanted.equal;
        let (Some(lookup), Some(table)) = (&self.wanted.lookup, self.relation.table()) else {
            return Ok(None);
        };
        let has = |column: &u32| equal.iter().any(|equal| equal.column == *column);
        let mut indexes = table.indexes.iter();
        let key =
            indexes.find(|index| index.kind != IndexKind::Plain && index.columns.iter().all(has));
        let Some(key) = key else {
            return Ok(None);
        };
        let lane = Storage {
            transaction,
            stored,
            indexes: HashSet::new(),
            absent: &[],
        };
        let from = format!("{} INDEXED BY {}", stored.as_str(), stored.index(key));
        let values: Vec<&dyn ToSql> = lookup.values().map(|value| value as _).collect();
        match self.select_from(&lane, &from, &lookup.sql(2), &values) {
            Ok(found) => Ok(Some(found)),
            Err(BackendError::Statement(error)) if names_nothing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the lane has an index that begins with a column.
    fn is_indexed(&self, lane: &Storage<'_>, column: u32) -> bool {
        let indexes = self.relation.table().map(|table| table.indexes.iter());
        indexes.into_iter().flatten().any(|index| {
            index.columns.first() == Some(&column)
                && lane.indexes.contains(&lane.stored.index(index))
        })
    }

    /// The rows that meet the lookup's conditions, unless they are many.
    fn look_up(
        &self,
        lane: &Storage<'_>,
        lookup: &KeyLookup,
    ) -> Result<Option<FoundRows>, BackendError> {
        let mut values: Vec<&dyn ToSql> = vec![];
        values.extend(lookup.values().map(|value| value as &dyn ToSql));
        let rest = format!("{} LIMIT {}", lookup.sql(2), LOOKUP_ROWS_MAX + 1);
        let found = self.select(lane, &rest, &values)?;
        Ok((found.rows <= LOOKUP_ROWS_MAX).then_some(found))
    }

    /// For each of `columns` a row with its least and one with its greatest value.
    fn extremes(
        &self,
        lane: &Storage<'_>,
        columns: &[u32],
    ) -> Result<Vec<FoundRows>, BackendError> {
        let mut found = Vec::with_capacity(2 * columns.len());
        for column in columns {
            let column = column_name(*column);
            for order in ["ASC", "DESC"] {
                let rest = format!(" AND {column} IS NOT NULL ORDER BY {column} {order} LIMIT 1");
                found.push(self.select(lane, &rest, &[])?);
            }
        }
        Ok(found)
    }

    /// The lane's rows, as `rest` of a SELECT restricts them further by `values`
    /// from `?2` on.
    fn select(
        &self,
        lane: &Storage<'_>,
        rest: &str,
        values: &[&dyn ToSql],
    ) -> Result<FoundRows, BackendError> {
        self.select_from(lane, lane.stored.as_str(), rest, values)
    }

    /// As [`Scan::select`], with the table and what of it is read as `from` says.
    fn select_from(
        &self,
        lane: &Storage<'_>,
        from: &str,
        rest: &str,
        values: &[&dyn ToSql],
    ) -> Result<FoundRows, BackendError> {
        let Storage {
            transaction,
            stored,
            absent,
            ..
        } = lane;
        let columns = self.stored_columns();
        let sql = format!(
            "SELECT {} FROM {from} WHERE tenant_id IS ?1{rest}",
            chunks::selected(&columns, absent),
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

/// Whether SQLite says that the statement names a table, a column or an index which
/// is not there.
fn names_nothing(error: &rusqlite::Error) -> bool {
    let (rusqlite::Error::SqliteFailure(failure, Some(text))
    | rusqlite::Error::SqlInputError {
        error: failure,
        msg: text,
        ..
    }) = error
    else {
        return false;
    };
    failure.extended_code == rusqlite::ffi::SQLITE_ERROR && text.starts_with("no such ")
}
