//! Where a lane keeps the rows of a table: an SQLite table and its indexes.

use std::collections::HashSet;

use super::codec;
use crate::backend::{BackendError, Transaction};
use crate::catalog::{IndexKind, Leftovers, Relation, TableDefinition, TableIndex, relations};
use crate::error::Error;
use crate::tenant::Lane;

/// The SQLite column of the row number.
pub(super) const ROW: &str = "_row";

/// The name under which a lane keeps the rows of a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stored(String);

impl Stored {
    /// Where `lane` keeps the rows of `relation`. Ids are a lane's own, so a table
    /// that is shared has another letter in the lanes of tenants.
    pub fn of(relation: &Relation, lane: Lane) -> Self {
        match relation.lane == lane {
            true => Stored::own(relation.id),
            false => Stored(Stored::shared_name(relation.id, relation.created_at_ms)),
        }
    }

    /// Where a lane keeps the rows of its own relation of an id.
    fn own(id: i64) -> Self {
        Stored(format!("t{id}"))
    }

    /// Where tenants keep the rows of a shared table. A global lane that was
    /// restored gives ids again, so when the table was made is in the name: old
    /// rows are never those of a new table.
    pub(super) fn shared_name(id: i64, created_at_ms: i64) -> String {
        format!("g{id}_{:x}", created_at_ms.cast_unsigned())
    }

    /// The id in a name that [`Stored::shared_name`] has made.
    pub(super) fn shared_id(name: &str) -> Option<i64> {
        let (id, created_at_ms) = name.strip_prefix('g')?.split_once('_')?;
        u64::from_str_radix(created_at_ms, 16).ok()?;
        id.parse().ok()
    }

    /// The name of the SQLite table.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the SQLite index.
    pub(super) fn index(&self, index: &TableIndex) -> String {
        format!("{}_i{}", self.0, index.number)
    }
}

/// The SQLite column of a column's number.
pub(super) fn column_name(number: u32) -> String {
    match number {
        0 => "tenant_id".to_owned(),
        number => format!("c{number}"),
    }
}

/// What a key has of a column.
fn key_of(definition: &TableDefinition, number: u32) -> String {
    let name = column_name(number);
    match definition.position(number) {
        Some(at) => codec::key_sql(definition.columns[at].field.data_type(), &name),
        None => name,
    }
}

/// The condition that a row has the key of which `parameter` is a part.
pub(super) fn key_equals(definition: &TableDefinition, number: u32, parameter: &str) -> String {
    let key = key_of(definition, number);
    let value = match definition.position(number) {
        Some(at) => codec::key_sql(definition.columns[at].field.data_type(), parameter),
        None => parameter.to_owned(),
    };
    format!("{key} = {value}")
}

/// What the `tenant_id` of the lane's rows holds.
pub(super) fn tenant_bytes(lane: Lane) -> Option<[u8; 16]> {
    lane.tenant().map(|tenant| *tenant.as_bytes())
}

/// Makes the storage of `relation` in the lane of the transaction.
pub fn create(
    transaction: &Transaction<'_>,
    relation: &Relation,
    definition: &TableDefinition,
) -> Result<(), BackendError> {
    let lane = transaction.lane();
    let stored = Stored::of(relation, lane);
    let tenant = match tenant_bytes(lane) {
        Some(bytes) => blob_literal(&bytes),
        None => "NULL".to_owned(),
    };
    let mut columns = vec![
        format!("{ROW} INTEGER PRIMARY KEY"),
        format!("tenant_id BLOB CHECK (tenant_id IS {tenant})"),
    ];
    columns.extend(
        definition
            .columns
            .iter()
            .filter(|column| column.number != 0)
            .map(|column| column_name(column.number)),
    );
    transaction.connection().execute_batch(&format!(
        "CREATE TABLE {} ({})",
        stored.as_str(),
        columns.join(", ")
    ))?;
    for index in &definition.indexes {
        make_index(transaction, &stored, definition, index)?;
    }
    Ok(())
}

/// Makes the storage of a table that another lane defines, or brings it up to
/// date, so that the lane of the transaction can have rows of it.
pub(super) fn adopt(
    transaction: &Transaction<'_>,
    relation: &Relation,
    definition: &TableDefinition,
) -> Result<(), BackendError> {
    let stored = Stored::of(relation, transaction.lane());
    let Shape { columns, indexes } = shape(transaction, &stored)?;
    if columns.is_empty() {
        return create(transaction, relation, definition);
    }
    for column in &definition.columns {
        if !columns.contains(&column_name(column.number)) {
            extend(
                transaction,
                &stored,
                column.number,
                column.filler.as_deref(),
            )?;
        }
    }
    for index in &definition.indexes {
        if !indexes.contains(&stored.index(index)) {
            make_index(transaction, &stored, definition, index)?;
        }
    }
    for gone in indexes {
        let known = |index: &TableIndex| stored.index(index) == gone;
        if !definition.indexes.iter().any(known) {
            transaction
                .connection()
                .execute_batch(&format!("DROP INDEX {gone}"))?;
        }
    }
    Ok(())
}

/// The names of what the lane has of a table: no columns where it has none.
struct Shape {
    columns: Vec<String>,
    indexes: Vec<String>,
}

/// What SQLite knows of the table without reading its schema again: each write of a
/// shared table asks for it.
fn shape(transaction: &Transaction<'_>, stored: &Stored) -> Result<Shape, BackendError> {
    let mut statement = transaction.connection().prepare_cached(
        "SELECT name, 0 FROM pragma_table_info(?1)
         UNION ALL SELECT name, 1 FROM pragma_index_list(?1)",
    )?;
    let mut rows = statement.query([stored.as_str()])?;
    let (mut columns, mut indexes) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        match row.get(1)? {
            false => columns.push(row.get(0)?),
            true => indexes.push(row.get(0)?),
        }
    }
    Ok(Shape { columns, indexes })
}

/// Which of the columns the lane's storage of a table is older than.
pub(super) fn absent_columns(
    transaction: &Transaction<'_>,
    stored: &Stored,
    numbers: impl Iterator<Item = u32>,
) -> Result<Vec<u32>, BackendError> {
    let has = names(
        transaction,
        "SELECT name FROM pragma_table_info(?1)",
        stored.as_str(),
    )?;
    Ok(numbers
        .filter(|number| !has.contains(&column_name(*number)))
        .collect())
}

fn names(
    transaction: &Transaction<'_>,
    sql: &str,
    stored: &str,
) -> Result<Vec<String>, BackendError> {
    let mut statement = transaction.connection().prepare_cached(sql)?;
    let names = statement.query_map([stored], |row| row.get(0))?;
    Ok(names.collect::<rusqlite::Result<_>>()?)
}

/// The names of the table's indexes in the lane; `None` where the lane has no rows
/// of the table, and had none.
pub(super) fn indexes(
    transaction: &Transaction<'_>,
    stored: &Stored,
) -> Result<Option<HashSet<String>>, BackendError> {
    let sql = "SELECT name FROM sqlite_schema WHERE tbl_name = ?1";
    let mut names: HashSet<String> = names(transaction, sql, stored.as_str())?
        .into_iter()
        .collect();
    Ok(names.remove(stored.as_str()).then_some(names))
}

/// Removes the rows of `relation` from the lane of the transaction.
pub fn drop(transaction: &Transaction<'_>, relation: &Relation) -> Result<(), BackendError> {
    drop_stored(transaction, &Stored::of(relation, transaction.lane()))
}

/// Forgets temporary tables of the lane of the transaction, and removes their rows.
pub fn drop_temporary(
    transaction: &Transaction<'_>,
    which: &Leftovers,
) -> Result<(), BackendError> {
    for id in relations::take(transaction, which)? {
        drop_stored(transaction, &Stored::own(id))?;
    }
    Ok(())
}

fn drop_stored(transaction: &Transaction<'_>, stored: &Stored) -> Result<(), BackendError> {
    let connection = transaction.connection();
    connection.execute_batch(&format!("DROP TABLE IF EXISTS {}", stored.as_str()))?;
    connection
        .prepare_cached("DELETE FROM table_chunks WHERE stored = ?1")?
        .execute([stored.as_str()])?;
    Ok(())
}

/// Adds a column, which rows that are there have `filler` in.
pub fn add_column(
    transaction: &Transaction<'_>,
    relation: &Relation,
    number: u32,
    filler: Option<&str>,
) -> Result<(), BackendError> {
    let stored = Stored::of(relation, transaction.lane());
    extend(transaction, &stored, number, filler)
}

fn extend(
    transaction: &Transaction<'_>,
    stored: &Stored,
    number: u32,
    filler: Option<&str>,
) -> Result<(), BackendError> {
    let default = filler.map_or_else(String::new, |literal| format!(" DEFAULT {literal}"));
    Ok(transaction.connection().execute_batch(&format!(
        "ALTER TABLE {} ADD COLUMN {}{default}",
        stored.as_str(),
        column_name(number)
    ))?)
}

/// Removes a column and its values.
pub fn drop_column(
    transaction: &Transaction<'_>,
    relation: &Relation,
    number: u32,
) -> Result<(), BackendError> {
    let stored = Stored::of(relation, transaction.lane());
    Ok(transaction.connection().execute_batch(&format!(
        "ALTER TABLE {} DROP COLUMN {}",
        stored.as_str(),
        column_name(number)
    ))?)
}

/// Makes an index over the rows that are there.
///
/// # Errors
/// `AlreadyExists` when it is to be unique and two rows are alike.
pub fn create_index(
    transaction: &Transaction<'_>,
    relation: &Relation,
    definition: &TableDefinition,
    index: &TableIndex,
) -> Result<(), BackendError> {
    let stored = Stored::of(relation, transaction.lane());
    make_index(transaction, &stored, definition, index).map_err(|error| match error {
        BackendError::Statement(rusqlite::Error::SqliteFailure(failure, _))
            if failure.code == rusqlite::ErrorCode::ConstraintViolation =>
        {
            BackendError::refused(Error::AlreadyExists(format!(
                "index `{}` cannot be unique: rows have the same {} already: delete all but one \
                 of them first",
                index.name,
                definition.index_columns(index).join(", ")
            )))
        }
        other => other,
    })
}

fn make_index(
    transaction: &Transaction<'_>,
    stored: &Stored,
    definition: &TableDefinition,
    index: &TableIndex,
) -> Result<(), BackendError> {
    let unique = match index.kind {
        IndexKind::Primary | IndexKind::Unique => "UNIQUE ",
        IndexKind::Plain => "",
    };
    let columns: Vec<String> = index
        .columns
        .iter()
        .map(|number| match index.kind {
            IndexKind::Plain => column_name(*number),
            IndexKind::Primary | IndexKind::Unique => key_of(definition, *number),
        })
        .collect();
    Ok(transaction.connection().execute_batch(&format!(
        "CREATE {unique}INDEX {} ON {} ({})",
        stored.index(index),
        stored.as_str(),
        columns.join(", ")
    ))?)
}

/// Removes an index.
pub fn drop_index(
    transaction: &Transaction<'_>,
    relation: &Relation,
    index: &TableIndex,
) -> Result<(), BackendError> {
    let stored = Stored::of(relation, transaction.lane());
    Ok(transaction
        .connection()
        .execute_batch(&format!("DROP INDEX {}", stored.index(index)))?)
}

/// SQLite's literal for row `row` of `array`, as a column of its type is stored.
pub fn literal(array: &dyn arrow::array::Array, row: usize) -> Result<String, Error> {
    use rusqlite::types::Value;
    Ok(match codec::encode_scalar(array, row)? {
        Value::Null => "NULL".to_owned(),
        Value::Integer(value) => value.to_string(),
        Value::Real(_) => unreachable!("no type is stored as a float"),
        // SQLite's text literals end at a NUL, and a default must be a literal.
        Value::Text(text) if text.contains('\0') => {
            return Err(Error::InvalidArgument(
                "the default has a NUL character: leave it out".into(),
            ));
        }
        Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Value::Blob(bytes) => blob_literal(&bytes),
    })
}

fn blob_literal(bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("x'{hex}'")
}
