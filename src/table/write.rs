//! Writes the rows of one statement to a stored table.
//!
//! A row is written under its number, and only after its tenant has been compared
//! with the lane of the transaction. Constraints that SQLite holds are its
//! indexes; NULL and CHECK are for whoever makes the rows.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use rusqlite::{ffi, named_params};

use super::chunks::{self, CHUNK_ROWS, ReadColumn};
use super::codec::RowEncoder;
use super::new_stamp;
use super::storage::{self, ROW, Stored, column_name, tenant_bytes};
use crate::backend::{BackendError, Transaction};
use crate::catalog::{IndexKind, Relation, TableDefinition, TableIndex, relations};
use crate::error::Error;
use crate::tenant::TenantId;

/// Writes to one table in one transaction.
pub struct TableWriter<'a> {
    transaction: &'a Transaction<'a>,
    relation: &'a Relation,
    definition: &'a TableDefinition,
    stored: Stored,
    /// By run: how many rows it has more than before.
    touched: BTreeMap<i64, i64>,
    next_row: Option<i64>,
    affected: u64,
}

impl<'a> TableWriter<'a> {
    /// Looks whether the table still is what the statement was planned for, and
    /// makes its storage where the lane has none yet.
    pub fn open(
        transaction: &'a Transaction<'a>,
        relation: &'a Relation,
        definition: &'a TableDefinition,
    ) -> Result<Self, BackendError> {
        let stored = Stored::of(relation, transaction.lane());
        if relation.lane == transaction.lane() {
            match relations::revision_of(transaction, relation.id)? {
                Some(revision) if revision == relation.revision => {}
                Some(_) => return Err(changed(relation, "altered")),
                None => return Err(changed(relation, "dropped")),
            }
        } else {
            storage::adopt(transaction, relation, definition)?;
        }
        Ok(TableWriter {
            transaction,
            relation,
            definition,
            stored,
            touched: BTreeMap::new(),
            next_row: None,
            affected: 0,
        })
    }

    /// Adds the rows of `batch`, which has the table's columns in order.
    ///
    /// # Errors
    /// `TenantMismatch` for a row of another lane, `AlreadyExists` for one whose
    /// key is taken. The caller undoes what was written before.
    pub fn insert(&mut self, batch: &RecordBatch) -> Result<(), BackendError> {
        let first = match self.next_row {
            Some(next) => next,
            None => self.first_free_row()?,
        };
        let rows = batch.num_rows();
        self.write_rows(batch, |row| first + row as i64)?;
        self.next_row = Some(first + rows as i64);
        self.affected += rows as u64;
        Ok(())
    }

    /// Gives the rows of these numbers the values of `batches`, which have the
    /// table's columns in order and together as many rows.
    pub fn update(&mut self, rows: &[i64], batches: &[RecordBatch]) -> Result<(), BackendError> {
        // All of them go before any comes back, so that a key may move from one
        // row of the statement to another.
        self.remove(rows)?;
        let mut rest = rows;
        for batch in batches {
            let (numbers, others) = rest
                .split_at_checked(batch.num_rows())
                .ok_or_else(|| self.defect(&"rows without a number"))?;
            self.write_rows(batch, |row| numbers[row])?;
            rest = others;
        }
        self.affected += rows.len() as u64;
        Ok(())
    }

    /// Removes the rows of these numbers.
    pub fn delete(&mut self, rows: &[i64]) -> Result<(), BackendError> {
        self.remove(rows)?;
        self.affected += rows.len() as u64;
        Ok(())
    }

    /// Removes every row that the lane has of the table.
    pub fn truncate(&mut self) -> Result<(), BackendError> {
        let connection = self.transaction.connection();
        let deleted = connection.execute(
            &format!(
                "DELETE FROM {} WHERE tenant_id IS :tenant",
                self.stored.as_str()
            ),
            named_params! {":tenant": tenant_bytes(self.transaction.lane())},
        )?;
        connection
            .prepare_cached("DELETE FROM table_chunks WHERE stored = ?1")?
            .execute([self.stored.as_str()])?;
        self.touched.clear();
        self.next_row = None;
        self.affected += deleted as u64;
        Ok(())
    }

    /// Records which runs have other content now, and says how many rows were
    /// written.
    pub fn finish(self) -> Result<u64, BackendError> {
        let stamp = new_stamp();
        let mut statement = self.transaction.connection().prepare_cached(
            "INSERT INTO table_chunks (stored, chunk, rows, stamp)
             VALUES (:stored, :chunk, :rows, :stamp)
             ON CONFLICT (stored, chunk) DO UPDATE SET rows = rows + :rows, stamp = :stamp",
        )?;
        for (chunk, rows) in &self.touched {
            statement.execute(named_params! {
                ":stored": self.stored.as_str(),
                ":chunk": chunk,
                ":rows": rows,
                ":stamp": stamp,
            })?;
        }
        Ok(self.affected)
    }

    fn first_free_row(&self) -> Result<i64, BackendError> {
        let last: Option<i64> = self
            .transaction
            .connection()
            .prepare_cached(&format!("SELECT max({ROW}) FROM {}", self.stored.as_str()))?
            .query_row([], |row| row.get(0))?;
        Ok(last.map_or(0, |last| last + 1))
    }

    fn write_rows(
        &mut self,
        batch: &RecordBatch,
        row_number: impl Fn(usize) -> i64,
    ) -> Result<(), BackendError> {
        let mut adding = self.adding(batch)?;
        for row in 0..batch.num_rows() {
            adding.write(row, row_number(row))?;
        }
        Ok(())
    }

    /// Adds rows of `batch` one by one.
    pub fn adding<'w>(
        &'w mut self,
        batch: &'w RecordBatch,
    ) -> Result<AddingRows<'w, 'a>, BackendError> {
        self.check_tenants(batch)?;
        let stored: Vec<usize> = (0..self.definition.columns.len())
            .filter(|at| self.definition.columns[*at].number != 0)
            .collect();
        let insertion = self.insertion(&stored)?;
        Ok(AddingRows {
            tenant: tenant_bytes(self.transaction.lane()),
            stored,
            insertion,
            encoder: RowEncoder::new(batch.columns()).map_err(|error| self.defect(&error))?,
            batch,
            writer: self,
        })
    }

    /// The rows of these numbers, in their order, in the table's schema.
    pub fn rows(&self, numbers: &[i64]) -> Result<RecordBatch, BackendError> {
        let columns: Vec<ReadColumn> = self
            .definition
            .columns
            .iter()
            .filter(|column| column.number != 0)
            .map(|column| ReadColumn {
                number: column.number,
                data_type: column.field.data_type().clone(),
                filler: column.filler.clone(),
            })
            .collect();
        let sql = format!(
            "SELECT {} FROM {} WHERE {ROW} = ?1 AND tenant_id IS ?2",
            chunks::selected(&columns, &[]),
            self.stored.as_str()
        );
        let mut statement = self.transaction.connection().prepare_cached(&sql)?;
        let tenant = tenant_bytes(self.transaction.lane());
        let mut batches = Vec::with_capacity(numbers.len());
        let schema = self.definition.schema();
        for number in numbers {
            let rows = statement.query(rusqlite::params![number, tenant])?;
            let (parts, found) = chunks::decode(self.transaction, &self.stored, &columns, 1, rows)?;
            if found != 1 {
                return Err(BackendError::TenantMismatch {
                    lane: self.transaction.lane(),
                });
            }
            let mut values = parts.iter().filter_map(|parts| parts.first());
            let own = self.transaction.tenant_id();
            let arrays: Vec<ArrayRef> = self
                .definition
                .columns
                .iter()
                .filter_map(|column| match column.number {
                    0 => Some(Arc::new(StringArray::from(vec![own.as_deref()])) as ArrayRef),
                    _ => values.next().cloned(),
                })
                .collect();
            batches.push(
                RecordBatch::try_new(Arc::clone(&schema), arrays)
                    .map_err(|error| self.defect(&error))?,
            );
        }
        concat_batches(&schema, &batches).map_err(|error| self.defect(&error))
    }

    fn insertion(
        &self,
        stored_columns: &[usize],
    ) -> Result<rusqlite::CachedStatement<'a>, BackendError> {
        let mut sql = format!("INSERT INTO {} ({ROW}, tenant_id", self.stored.as_str());
        for at in stored_columns {
            let number = self.definition.columns[*at].number;
            let _ = write!(sql, ", {}", column_name(number));
        }
        sql.push_str(") VALUES (?, ?");
        sql.push_str(&", ?".repeat(stored_columns.len()));
        sql.push(')');
        Ok(self.transaction.connection().prepare_cached(&sql)?)
    }

    /// Removes rows, each of which the lane must have.
    fn remove(&mut self, rows: &[i64]) -> Result<(), BackendError> {
        let tenant = tenant_bytes(self.transaction.lane());
        let mut statement = self.transaction.connection().prepare_cached(&format!(
            "DELETE FROM {} WHERE {ROW} = ?1 AND tenant_id IS ?2",
            self.stored.as_str()
        ))?;
        for &number in rows {
            if statement.execute(rusqlite::params![number, tenant])? != 1 {
                return Err(BackendError::TenantMismatch {
                    lane: self.transaction.lane(),
                });
            }
            *self
                .touched
                .entry(number.div_euclid(CHUNK_ROWS))
                .or_default() -= 1;
        }
        Ok(())
    }

    /// Compares the tenant of every row with the lane.
    fn check_tenants(&self, batch: &RecordBatch) -> Result<(), BackendError> {
        let Some(at) = self.definition.position(0) else {
            return Err(self.defect(&"the table has no tenant column"));
        };
        let own = self.transaction.tenant_id();
        let tenants = batch
            .column(at)
            .as_string_opt::<i32>()
            .ok_or_else(|| self.defect(&"the tenant column is no text"))?;
        for tenant in tenants {
            if tenant == own.as_deref() {
                continue;
            }
            let row_tenant =
                match tenant {
                    None => None,
                    Some(text) => Some(text.parse::<TenantId>().map_err(|_| {
                        BackendError::TenantMismatch {
                            lane: self.transaction.lane(),
                        }
                    })?),
                };
            self.transaction.assert_tenant_matches(row_tenant)?;
        }
        Ok(())
    }

    /// The error for a row that SQLite refused.
    fn explain(&self, error: rusqlite::Error, batch: &RecordBatch, row: usize) -> BackendError {
        let rusqlite::Error::SqliteFailure(failure, Some(text)) = &error else {
            return error.into();
        };
        if failure.extended_code == ffi::SQLITE_CONSTRAINT_CHECK {
            return BackendError::TenantMismatch {
                lane: self.transaction.lane(),
            };
        }
        if failure.extended_code != ffi::SQLITE_CONSTRAINT_UNIQUE {
            return error.into();
        }
        match self.violated(text) {
            Some(index) => BackendError::refused(self.taken(index, batch, row)),
            None => error.into(),
        }
    }

    /// The unique index that SQLite's message is about.
    fn violated(&self, text: &str) -> Option<&TableIndex> {
        let (_, columns) = text.split_once(": ")?;
        // An index over an expression is named itself.
        if let Some(name) = columns.strip_prefix("index '") {
            let name = name.strip_suffix('\'')?;
            let mut indexes = self.definition.indexes.iter();
            return indexes.find(|index| self.stored.index(index) == name);
        }
        let numbers: Vec<u32> = columns
            .split(", ")
            .map(|column| column.rsplit_once(".c")?.1.parse().ok())
            .collect::<Option<_>>()?;
        self.definition
            .indexes
            .iter()
            .find(|index| index.kind != IndexKind::Plain && index.columns == numbers)
    }

    fn taken(&self, index: &TableIndex, batch: &RecordBatch, row: usize) -> Error {
        let what = match index.kind {
            IndexKind::Primary => "primary key",
            IndexKind::Unique | IndexKind::Plain => "unique constraint",
        };
        Error::AlreadyExists(format!(
            "table `{}` has a row with {} already ({what} `{}`): change the key, or say what to \
             do with ON CONFLICT",
            self.relation.name,
            key_text(self.definition, index, batch, row),
            index.name,
        ))
    }

    fn defect(&self, error: &dyn std::fmt::Display) -> BackendError {
        BackendError::refused(Error::internal(
            format!("rows of table `{}` cannot be stored", self.relation.name),
            error.to_string(),
        ))
    }
}

/// Rows of one batch on their way into the table.
pub struct AddingRows<'w, 'a> {
    writer: &'w mut TableWriter<'a>,
    batch: &'w RecordBatch,
    encoder: RowEncoder<'w>,
    /// The places of the columns that have a value of their own.
    stored: Vec<usize>,
    insertion: rusqlite::CachedStatement<'a>,
    tenant: Option<[u8; 16]>,
}

impl AddingRows<'_, '_> {
    /// Adds a row of the batch and says its number.
    pub fn add(&mut self, row: usize) -> Result<i64, BackendError> {
        let number = match self.writer.next_row {
            Some(next) => next,
            None => self.writer.first_free_row()?,
        };
        self.write(row, number)?;
        self.writer.next_row = Some(number + 1);
        self.writer.affected += 1;
        Ok(number)
    }

    /// The number of the row that has the key of a row of the batch. A key with a
    /// NULL is nobody's.
    pub fn taken_by(&self, key: &TableIndex, row: usize) -> Result<Option<i64>, BackendError> {
        let mut sql = format!(
            "SELECT {ROW} FROM {} WHERE tenant_id IS ?1",
            self.writer.stored.as_str()
        );
        for (offset, number) in key.columns.iter().enumerate() {
            let parameter = format!("?{}", offset + 2);
            let equals = storage::key_equals(self.writer.definition, *number, &parameter);
            let _ = write!(sql, " AND {equals}");
        }
        let connection = self.writer.transaction.connection();
        let mut statement = connection.prepare_cached(&sql)?;
        statement.raw_bind_parameter(1, self.tenant)?;
        for (offset, number) in key.columns.iter().enumerate() {
            let Some(at) = self.writer.definition.position(*number) else {
                return Err(self.writer.defect(&"a key without its column"));
            };
            self.encoder.bind(&mut statement, offset + 2, row, at)?;
        }
        let mut rows = statement.raw_query();
        match rows.next()? {
            Some(found) => Ok(Some(found.get(0)?)),
            None => Ok(None),
        }
    }

    fn write(&mut self, row: usize, number: i64) -> Result<(), BackendError> {
        self.insertion.raw_bind_parameter(1, number)?;
        self.insertion.raw_bind_parameter(2, self.tenant)?;
        for (offset, at) in self.stored.iter().enumerate() {
            self.encoder
                .bind(&mut self.insertion, offset + 3, row, *at)?;
        }
        if let Err(error) = self.insertion.raw_execute() {
            return Err(self.writer.explain(error, self.batch, row));
        }
        let chunk = number.div_euclid(CHUNK_ROWS);
        *self.writer.touched.entry(chunk).or_default() += 1;
        Ok(())
    }
}

/// The key of a row, as in `id = 5, day = 2024-01-01`.
pub fn key_text(
    definition: &TableDefinition,
    index: &TableIndex,
    batch: &RecordBatch,
    row: usize,
) -> String {
    const VALUE_CHARS_MAX: usize = 64;
    let options = FormatOptions::default().with_null("NULL");
    let mut parts = Vec::with_capacity(index.columns.len());
    for at in index.columns.iter().filter_map(|n| definition.position(*n)) {
        let value = ArrayFormatter::try_new(batch.column(at), &options)
            .map(|format| format.value(row).to_string())
            .unwrap_or_default();
        let mut shown: String = value.chars().take(VALUE_CHARS_MAX).collect();
        if shown.len() < value.len() {
            shown.push_str("...");
        }
        parts.push(format!("{} = {shown}", definition.columns[at].field.name()));
    }
    parts.join(", ")
}

fn changed(relation: &Relation, how: &str) -> BackendError {
    BackendError::refused(Error::FailedPrecondition(format!(
        "table `{}` was {how} since the statement was prepared: prepare it again",
        relation.name
    )))
}
