//! Runs of a stored table's rows, decoded, and the memory that keeps them.
//!
//! Invariant: what is kept was committed, and is found by the stamp of its
//! content alone: a writer of any process gives what it touches another stamp,
//! so nothing has to be told to forget.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use moka::sync::Cache;
use rusqlite::named_params;

use super::codec::ColumnDecoder;
use super::storage::{ROW, Stored, column_name};
use crate::backend::{BackendError, Transaction};
use crate::tenant::Lane;

/// Row numbers in a run.
pub const CHUNK_ROWS: i64 = 8192;

/// What an entry of the memory takes beside its values.
const ENTRY_OVERHEAD_BYTES: usize = 160;

/// A run of row numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Its first row number is this times [`CHUNK_ROWS`].
    pub number: i64,
    /// How many of its row numbers have a row.
    pub rows: usize,
    /// What its content is.
    pub stamp: i64,
}

/// The runs of a table that have rows, in order. None where the lane has nothing
/// of the table.
pub(super) fn list(
    transaction: &Transaction<'_>,
    stored: &Stored,
) -> Result<Vec<Chunk>, BackendError> {
    let mut statement = transaction.connection().prepare_cached(
        "SELECT chunk, rows, stamp FROM table_chunks WHERE stored = ?1 AND rows > 0 ORDER BY chunk",
    )?;
    let chunks = statement.query_map([stored.as_str()], |row| {
        Ok(Chunk {
            number: row.get(0)?,
            rows: row.get::<_, u32>(1)? as usize,
            stamp: row.get(2)?,
        })
    })?;
    Ok(chunks.collect::<rusqlite::Result<_>>()?)
}

/// A column that is read: the number under which it is stored, and its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReadColumn {
    pub number: u32,
    pub data_type: DataType,
    /// SQLite's literal for its value where the lane's storage is older than the
    /// column.
    pub filler: Option<String>,
}

/// The values of a column in some rows: most often one array, more where its type
/// cannot hold them in one.
pub(super) type Parts = Arc<[ArrayRef]>;

/// The values of `columns` in the first rows of a run.
pub(super) fn load(
    transaction: &Transaction<'_>,
    stored: &Stored,
    chunk: Chunk,
    columns: &[ReadColumn],
    absent: &[u32],
    rows_wanted: usize,
) -> Result<Vec<Parts>, BackendError> {
    let sql = format!(
        "SELECT {} FROM {} WHERE tenant_id IS :tenant AND {ROW} >= :first AND {ROW} < :end \
         ORDER BY {ROW} LIMIT :wanted",
        selected(columns, absent),
        stored.as_str()
    );
    let first = chunk.number * CHUNK_ROWS;
    let tenant = super::storage::tenant_bytes(transaction.lane());
    let mut statement = transaction.connection().prepare_cached(&sql)?;
    let rows = statement.query(named_params! {
        ":tenant": tenant,
        ":first": first,
        ":end": first + CHUNK_ROWS,
        // Of a whole run there is no limit, so that too many rows are seen.
        ":wanted": match rows_wanted < chunk.rows {
            true => rows_wanted as i64,
            false => CHUNK_ROWS,
        },
    })?;
    let wanted = rows_wanted.min(chunk.rows);
    let (parts, found) = decode(transaction, stored, columns, wanted, rows)?;
    if found != wanted {
        return Err(transaction.corrupt(format!(
            "run {} of table {} is to have {} rows and has {found}",
            chunk.number,
            stored.as_str(),
            chunk.rows
        )));
    }
    Ok(parts)
}

/// The columns of a SELECT, of which those that are `absent` from the storage have
/// one value. Something is selected where nothing is asked for.
pub(super) fn selected(columns: &[ReadColumn], absent: &[u32]) -> String {
    if columns.is_empty() {
        return ROW.to_owned();
    }
    let names: Vec<String> = columns
        .iter()
        .map(|column| match column.number {
            ROW_NUMBER => ROW.to_owned(),
            number if absent.contains(&number) => {
                column.filler.clone().unwrap_or_else(|| "NULL".to_owned())
            }
            number => column_name(number),
        })
        .collect();
    names.join(", ")
}

/// Stands for the row number among the numbers of columns.
pub(super) const ROW_NUMBER: u32 = u32::MAX;

/// The values of the selected columns, and how many rows there are.
pub(super) fn decode(
    transaction: &Transaction<'_>,
    stored: &Stored,
    columns: &[ReadColumn],
    capacity: usize,
    mut rows: rusqlite::Rows<'_>,
) -> Result<(Vec<Parts>, usize), BackendError> {
    let damaged = |column: &ReadColumn, error: &dyn std::fmt::Display| {
        transaction.corrupt(format!(
            "column {} of table {}: {error}",
            column_name(column.number),
            stored.as_str()
        ))
    };
    let mut decoders = columns
        .iter()
        .map(|column| {
            ColumnDecoder::new(&column.data_type, capacity).map_err(|error| damaged(column, &error))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut found = 0;
    while let Some(row) = rows.next()? {
        for (at, decoder) in decoders.iter_mut().enumerate() {
            decoder
                .append(row.get_ref(at)?)
                .map_err(|error| damaged(&columns[at], &error))?;
        }
        found += 1;
    }
    let parts = decoders
        .iter_mut()
        .zip(columns)
        .map(|(decoder, column)| match decoder.finish() {
            Ok(arrays) => Ok(arrays.into()),
            Err(error) => Err(damaged(column, &error)),
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok((parts, found))
}

/// Decoded columns of runs, the most used ones, within a budget of bytes.
#[derive(Clone, Debug)]
pub struct ChunkCache {
    columns: Cache<CachedColumn, Parts>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct CachedColumn {
    lane: Lane,
    stored: Arc<str>,
    chunk: i64,
    stamp: i64,
    column: u32,
}

impl ChunkCache {
    /// Keeps up to `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        ChunkCache {
            columns: Cache::builder()
                .max_capacity(bytes_max)
                .weigher(|key: &CachedColumn, parts: &Parts| {
                    let values: usize = parts
                        .iter()
                        .map(|array| array.get_array_memory_size())
                        .sum();
                    let bytes = values + key.stored.len() + ENTRY_OVERHEAD_BYTES;
                    u32::try_from(bytes).unwrap_or(u32::MAX)
                })
                .build(),
        }
    }

    /// Keeps none of them any longer.
    pub fn forget(&self) {
        self.columns.invalidate_all();
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn entries(&self) -> u64 {
        self.columns.run_pending_tasks();
        self.columns.entry_count()
    }

    fn key(lane: Lane, stored: &Arc<str>, chunk: Chunk, column: u32) -> CachedColumn {
        CachedColumn {
            lane,
            stored: Arc::clone(stored),
            chunk: chunk.number,
            stamp: chunk.stamp,
            column,
        }
    }

    pub(super) fn get(
        &self,
        lane: Lane,
        stored: &Arc<str>,
        chunk: Chunk,
        column: u32,
    ) -> Option<Parts> {
        self.columns.get(&Self::key(lane, stored, chunk, column))
    }

    pub(super) fn put(
        &self,
        lane: Lane,
        stored: &Arc<str>,
        chunk: Chunk,
        column: u32,
        parts: Parts,
    ) {
        self.columns
            .insert(Self::key(lane, stored, chunk, column), parts);
    }
}
