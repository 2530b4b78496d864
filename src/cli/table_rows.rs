//! Stored tables and views as rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, ListArray, RecordBatch, StringArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field};

use super::catalog_rows::{NamedColumns, flags, lane_name, sheet_of, texts, times};
use super::failure::Outcome;
use crate::server::proto::catalog::{Column, IndexKind, Table, TableIndex, TableKind};

/// A row a table, with the number of its columns.
pub fn list(tables: &[Table]) -> Outcome<RecordBatch> {
    let mut columns = facts(tables);
    let counts = tables.iter().map(|table| table.columns.len() as i64);
    columns.push(("columns", Arc::new(Int64Array::from_iter_values(counts))));
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// One row with everything of a table: its columns, indexes and checks as
/// lists.
pub fn whole(table: &Table) -> Outcome<RecordBatch> {
    let mut all = facts(std::slice::from_ref(table));
    all.push(("query", queries(std::slice::from_ref(table))));
    all.push(("columns", one_list(columns(&table.columns)?)?));
    let indexes = &table.indexes;
    let indexes = RecordBatch::try_from_iter([
        ("name", texts(indexes, |index| &index.name)),
        ("kind", texts(indexes, |index| index_kind(index.kind()))),
        ("columns", index_columns(indexes)?),
    ])?;
    all.push(("indexes", one_list(indexes)?));
    let checks = RecordBatch::try_from_iter([
        ("name", texts(&table.checks, |check| &check.name)),
        ("condition", texts(&table.checks, |check| &check.sql)),
    ])?;
    all.push(("checks", one_list(checks)?));
    Ok(RecordBatch::try_from_iter(all)?)
}

/// A row a fact of a table, without its columns and constraints.
pub fn sheet(table: &Table) -> Outcome<RecordBatch> {
    let table = std::slice::from_ref(table);
    let mut facts = facts(table);
    facts.push(("query", queries(table)));
    sheet_of(&facts)
}

/// A row a column of a table.
pub fn columns(columns: &[Column]) -> Outcome<RecordBatch> {
    let defaults = columns.iter().map(|column| column.default_sql.as_deref());
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("column", texts(columns, |column| &column.name), false),
        ("type", texts(columns, |column| &column.r#type), false),
        ("nullable", flags(columns, |column| column.nullable), false),
        (
            "default",
            Arc::new(defaults.collect::<StringArray>()) as ArrayRef,
            true,
        ),
    ])?)
}

/// A row a key, an index and a condition.
pub fn constraints(table: &Table) -> Outcome<RecordBatch> {
    let indexes = table.indexes.iter().map(|index| {
        let columns = index.columns.join(", ");
        (index.name.clone(), index_kind(index.kind()), columns)
    });
    let checks = table
        .checks
        .iter()
        .map(|check| (check.name.clone(), "check", check.sql.clone()));
    let rows: Vec<(String, &str, String)> = indexes.chain(checks).collect();
    Ok(RecordBatch::try_from_iter([
        ("constraint", texts(&rows, |row| &row.0)),
        ("kind", texts(&rows, |row| row.1)),
        ("on", texts(&rows, |row| &row.2)),
    ])?)
}

fn facts(tables: &[Table]) -> NamedColumns {
    let keys = tables.iter().map(|table| {
        let key = |index: &&TableIndex| index.kind() == IndexKind::PrimaryKey;
        let index = table.indexes.iter().find(key)?;
        Some(index.columns.join(", "))
    });
    vec![
        ("name", texts(tables, |table| &table.name)),
        ("sql_name", texts(tables, |table| &table.sql_name)),
        ("lane", texts(tables, |table| lane_name(table.lane()))),
        ("kind", texts(tables, |table| table_kind(table))),
        ("primary_key", Arc::new(keys.collect::<StringArray>())),
        ("created_at", times(tables, |table| table.created_at_ms)),
        ("altered_at", times(tables, |table| table.altered_at_ms)),
    ]
}

fn queries(tables: &[Table]) -> ArrayRef {
    let queries = tables
        .iter()
        .map(|table| (table.kind() == TableKind::View).then_some(table.query.as_str()));
    Arc::new(queries.collect::<StringArray>())
}

/// A list of one value, which holds every row of `rows`.
fn one_list(rows: RecordBatch) -> Outcome<ArrayRef> {
    let lengths = OffsetBuffer::from_lengths([rows.num_rows()]);
    let items = StructArray::from(rows);
    let item = Field::new_list_field(items.data_type().clone(), false);
    let list = ListArray::try_new(Arc::new(item), lengths, Arc::new(items), None)?;
    Ok(Arc::new(list))
}

fn index_columns(indexes: &[TableIndex]) -> Outcome<ArrayRef> {
    let lengths = OffsetBuffer::from_lengths(indexes.iter().map(|index| index.columns.len()));
    let names: Vec<&String> = indexes.iter().flat_map(|index| &index.columns).collect();
    let names = StringArray::from_iter_values(names);
    let item = Field::new_list_field(DataType::Utf8, false);
    let list = ListArray::try_new(Arc::new(item), lengths, Arc::new(names), None)?;
    Ok(Arc::new(list))
}

fn table_kind(table: &Table) -> &'static str {
    match table.kind() {
        TableKind::Table if table.temporary => "temporary table",
        TableKind::Table => "table",
        TableKind::View => "view",
        TableKind::Unspecified => "unknown",
    }
}

fn index_kind(kind: IndexKind) -> &'static str {
    match kind {
        IndexKind::PrimaryKey => "primary key",
        IndexKind::Unique => "unique",
        IndexKind::Plain => "index",
        IndexKind::Unspecified => "unknown",
    }
}
