//! Sources, models and what SQL can name as rows, so that lists leave through the
//! same writers as results do.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
    TimestampMillisecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::Field;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::failure::Outcome;
use super::target::TableRecord;
use crate::server::proto::catalog::{Column, Lane, Model, Source, SourceFormat};

pub(super) type NamedColumns = Vec<(&'static str, ArrayRef)>;

/// A row a source, with the number of its columns.
pub fn sources(sources: &[Source]) -> Outcome<RecordBatch> {
    let mut columns = source_facts(sources);
    let counts = sources.iter().map(|source| source.columns.len() as i64);
    columns.push(("columns", Arc::new(Int64Array::from_iter_values(counts))));
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// One row with everything of a source, its columns as a list.
pub fn source(source: &Source) -> Outcome<RecordBatch> {
    let mut columns = source_facts(std::slice::from_ref(source));
    let items = StructArray::from(source_columns(&source.columns)?);
    let item = Field::new_list_field(items.data_type().clone(), false);
    let lengths = OffsetBuffer::from_lengths([source.columns.len()]);
    let list = ListArray::try_new(Arc::new(item), lengths, Arc::new(items), None)?;
    columns.push(("columns", Arc::new(list)));
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// A row a fact of a source, without its columns.
pub fn source_sheet(source: &Source) -> Outcome<RecordBatch> {
    sheet_of(&source_facts(std::slice::from_ref(source)))
}

/// A row a column of `facts`, which have one row.
pub(super) fn sheet_of(facts: &NamedColumns) -> Outcome<RecordBatch> {
    let options = FormatOptions::default();
    let mut values = Vec::with_capacity(facts.len());
    for (_, column) in facts {
        let is_known = !column.is_null(0);
        let formatter = ArrayFormatter::try_new(column, &options)?;
        values.push(is_known.then(|| formatter.value(0).to_string()));
    }
    let names = facts.iter().map(|(name, _)| *name);
    let columns: NamedColumns = vec![
        ("property", Arc::new(StringArray::from_iter_values(names))),
        ("value", Arc::new(StringArray::from(values))),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// A row a column of a source.
pub fn source_columns(columns: &[Column]) -> Outcome<RecordBatch> {
    Ok(RecordBatch::try_from_iter([
        ("column", texts(columns, |column| &column.name)),
        ("type", texts(columns, |column| &column.r#type)),
        ("nullable", flags(columns, |column| column.nullable)),
        ("partition", flags(columns, |column| column.partition)),
    ])?)
}

/// A row a version of a model.
pub fn models(models: &[Model]) -> Outcome<RecordBatch> {
    Ok(RecordBatch::try_from_iter([
        ("name", texts(models, |model| &model.name)),
        ("version", texts(models, |model| &model.version)),
        ("lane", texts(models, |model| lane_name(model.lane()))),
        ("uri", texts(models, |model| &model.uri)),
        ("metadata", texts(models, |model| &model.metadata)),
        (
            "registered_at",
            times(models, |model| model.registered_at_ms),
        ),
    ])?)
}

/// A row a table.
pub fn tables(tables: &[TableRecord]) -> Outcome<RecordBatch> {
    Ok(RecordBatch::try_from_iter([
        ("catalog", texts(tables, |table| &table.catalog)),
        ("schema", texts(tables, |table| &table.schema)),
        ("table", texts(tables, |table| &table.name)),
        ("kind", texts(tables, |table| &table.kind)),
    ])?)
}

/// A row a column of a table.
pub fn table_columns(table: &TableRecord) -> Outcome<RecordBatch> {
    let fields = table.columns.fields();
    let types: Vec<String> = fields
        .iter()
        .map(|field| field.data_type().to_string())
        .collect();
    Ok(RecordBatch::try_from_iter([
        ("column", texts(fields, |field| field.name())),
        ("type", texts(&types, |name| name)),
        ("nullable", flags(fields, |field| field.is_nullable())),
    ])?)
}

fn source_facts(sources: &[Source]) -> NamedColumns {
    let tenant_columns = sources.iter().map(|source| {
        let column = source.tenant_column.as_str();
        (!column.is_empty()).then_some(column)
    });
    vec![
        ("name", texts(sources, |source| &source.name)),
        ("sql_name", texts(sources, |source| &source.sql_name)),
        ("lane", texts(sources, |source| lane_name(source.lane()))),
        (
            "format",
            texts(sources, |source| format_name(source.format())),
        ),
        ("location", texts(sources, |source| &source.location)),
        (
            "tenant_column",
            Arc::new(tenant_columns.collect::<StringArray>()),
        ),
        (
            "registered_at",
            times(sources, |source| source.registered_at_ms),
        ),
        (
            "refreshed_at",
            times(sources, |source| source.refreshed_at_ms),
        ),
    ]
}

pub(super) fn texts<T>(items: &[T], text: impl for<'a> Fn(&'a T) -> &'a str) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(items.iter().map(text)))
}

pub(super) fn flags<T>(items: &[T], flag: impl Fn(&T) -> bool) -> ArrayRef {
    let flags: Vec<bool> = items.iter().map(flag).collect();
    Arc::new(BooleanArray::from(flags))
}

/// Unix times in milliseconds as instants.
pub(super) fn times<T>(items: &[T], time_ms: impl Fn(&T) -> i64) -> ArrayRef {
    let times = TimestampMillisecondArray::from_iter_values(items.iter().map(time_ms));
    Arc::new(times.with_timezone_utc())
}

pub(super) fn lane_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Tenant => "tenant",
        Lane::Global => "global",
        Lane::Above => "above",
        Lane::Unspecified => "unknown",
    }
}

fn format_name(format: SourceFormat) -> &'static str {
    match format {
        SourceFormat::Parquet => "parquet",
        SourceFormat::Csv => "csv",
        SourceFormat::Json => "json",
        SourceFormat::Ndjson => "ndjson",
        SourceFormat::Unspecified => "unknown",
    }
}
