//! The tables that show the server's own records: `jammi.catalog.sources`,
//! `jammi.catalog.models`, `jammi.catalog.tables`, `jammi.audit.events`, those of `jammi.server` and
//! `information_schema`.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::collect;

use super::activity::{self, Served};
use super::events::{EVENTS, EventsTable, scan_events, sees_all};
use super::fault::carried;
use super::names::TableEntry;
use super::types::type_name;
use crate::catalog::{Catalog, CatalogSnapshot, Model, Relation, RelationBody, Source};
use crate::error::Error;
use crate::policy::LanePredicate;
use crate::source::LaneScan;
use crate::tenant::{Lane, Scope};

/// The catalog that holds the server's own records.
pub(super) const SYSTEM_CATALOG: &str = "jammi";
/// The schema of the catalog's tables.
pub(super) const CATALOG_SCHEMA: &str = "catalog";
/// The schema of what a server does.
pub(super) const SERVER_SCHEMA: &str = "server";
/// The catalog and schema of what a server does, which no other process tells.
pub const SERVER_TABLES: (&str, &str) = (SYSTEM_CATALOG, SERVER_SCHEMA);
/// The schema of the audit trail.
pub(super) const AUDIT_SCHEMA: &str = "audit";

const TENANT_COLUMN: &str = "tenant_id";

/// A table of the server's own.
#[derive(Debug)]
pub(super) enum SystemTable {
    Sources(Arc<CatalogSnapshot>),
    Models(Catalog),
    Tables(Arc<CatalogSnapshot>),
    /// What runs, of which whoever serves shows a scope its part.
    Queries(Served),
    /// The sessions, likewise.
    Sessions(Served),
    Events(EventsTable),
    /// A table of `information_schema`, made over what its scope sees.
    Information(Arc<dyn TableProvider>),
    /// `information_schema.columns`, and the tables that it is about: types have
    /// the names that users know.
    Columns(Arc<dyn TableProvider>, Vec<TableEntry>),
}

static SOURCES: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new(TENANT_COLUMN, DataType::Utf8, true),
        Field::new("location", DataType::Utf8, false),
        Field::new("format", DataType::Utf8, false),
        Field::new("tenant_column", DataType::Utf8, true),
        Field::new("registered_at", instant(), false),
        Field::new("refreshed_at", instant(), false),
    ]))
});

static MODELS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("version", DataType::Utf8, false),
        Field::new(TENANT_COLUMN, DataType::Utf8, true),
        Field::new("uri", DataType::Utf8, false),
        Field::new("metadata", DataType::Utf8, false),
        Field::new("registered_at", instant(), false),
    ]))
});

static TABLES: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new(TENANT_COLUMN, DataType::Utf8, true),
        Field::new("kind", DataType::Utf8, false),
        Field::new("definition", DataType::Utf8, true),
        Field::new("created_at", instant(), false),
        Field::new("altered_at", instant(), false),
    ]))
});

pub(super) fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

/// The tables of the catalog `jammi`: their schemas, names and columns.
pub(super) fn system_tables() -> [(&'static str, &'static str, SchemaRef); 4] {
    [
        (AUDIT_SCHEMA, "events", Arc::clone(&EVENTS)),
        (CATALOG_SCHEMA, "models", Arc::clone(&MODELS)),
        (CATALOG_SCHEMA, "sources", Arc::clone(&SOURCES)),
        (CATALOG_SCHEMA, "tables", Arc::clone(&TABLES)),
    ]
}

impl SystemTable {
    pub(super) fn schema(&self) -> SchemaRef {
        match self {
            SystemTable::Sources(_) => Arc::clone(&SOURCES),
            SystemTable::Models(_) => Arc::clone(&MODELS),
            SystemTable::Tables(_) => Arc::clone(&TABLES),
            SystemTable::Queries(_) => activity::queries_schema(),
            SystemTable::Sessions(_) => activity::sessions_schema(),
            SystemTable::Events(_) => Arc::clone(&EVENTS),
            SystemTable::Information(table) | SystemTable::Columns(table, _) => table.schema(),
        }
    }

    pub(super) fn lane_predicate(
        &self,
        scope: &Scope,
    ) -> crate::error::Result<Option<(String, LanePredicate)>> {
        match self {
            // Of everybody, for one who may see that.
            SystemTable::Events(_) if sees_all(scope) => Ok(None),
            SystemTable::Sources(_)
            | SystemTable::Models(_)
            | SystemTable::Tables(_)
            | SystemTable::Events(_) => {
                let predicate = LanePredicate::new(scope, &DataType::Utf8)?;
                Ok(Some((TENANT_COLUMN.to_owned(), predicate)))
            }
            SystemTable::Queries(_)
            | SystemTable::Sessions(_)
            | SystemTable::Information(_)
            | SystemTable::Columns(..) => Ok(None),
        }
    }

    pub(super) async fn scan(
        &self,
        session: &dyn Session,
        scope: &Scope,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
    ) -> Result<LaneScan> {
        let rows = match self {
            SystemTable::Information(table) => {
                let plan = table.scan(session, projection, &[], None).await?;
                let output = plan.schema();
                return Ok(LaneScan {
                    plan,
                    lane: None,
                    output,
                });
            }
            SystemTable::Events(table) => {
                let Columns { read, output, lane } = self.columns(scope, projection)?;
                let plan = scan_events(table, scope, &read, filters).await?;
                return Ok(LaneScan { plan, lane, output });
            }
            SystemTable::Columns(table, entries) => {
                let plan = table.scan(session, None, &[], None).await?;
                let rows = collect(plan, session.task_ctx()).await?;
                with_type_names(&concat_batches(&table.schema(), &rows)?, entries)
            }
            SystemTable::Queries(served) => Ok(served.queries(scope).map_err(carried)?),
            SystemTable::Sessions(served) => Ok(served.sessions(scope).map_err(carried)?),
            SystemTable::Sources(snapshot) => source_rows(snapshot.sources()),
            SystemTable::Tables(snapshot) => table_rows(snapshot.relations()),
            SystemTable::Models(catalog) => {
                model_rows(&catalog.models(scope, None).await.map_err(carried)?)
            }
        }
        .map_err(|error| carried(Error::internal("the catalog cannot be shown", error)))?;
        let Columns { read, output, lane } = self.columns(scope, projection)?;
        let plan = MemorySourceConfig::try_new_exec(&[vec![rows]], self.schema(), Some(read))?;
        Ok(LaneScan { plan, lane, output })
    }

    /// What is to be read for `projection`, and guarded.
    fn columns(&self, scope: &Scope, projection: Option<&Vec<usize>>) -> Result<Columns> {
        let schema = self.schema();
        let mut read = match projection {
            Some(columns) => columns.clone(),
            None => (0..schema.fields().len()).collect(),
        };
        let output = Arc::new(schema.project(&read)?);
        let lane = match self.lane_predicate(scope).map_err(carried)? {
            None => None,
            Some((column, predicate)) => {
                let column = schema.index_of(&column)?;
                let at = read.iter().position(|index| *index == column);
                Some((
                    at.unwrap_or_else(|| {
                        read.push(column);
                        read.len() - 1
                    }),
                    predicate,
                ))
            }
        };
        Ok(Columns { read, output, lane })
    }
}

/// The columns of a scan: see [`LaneScan`].
struct Columns {
    read: Vec<usize>,
    output: SchemaRef,
    lane: Option<(usize, LanePredicate)>,
}

/// The rows of `information_schema.columns` with the names of types that users
/// know.
fn with_type_names(
    rows: &RecordBatch,
    entries: &[TableEntry],
) -> std::result::Result<RecordBatch, arrow::error::ArrowError> {
    let text = |name: &str| {
        let column = rows.column_by_name(name);
        column.and_then(|column| column.as_string_opt::<i32>())
    };
    let (Some(catalogs), Some(schemas), Some(tables), Some(columns), Some(types)) = (
        text("table_catalog"),
        text("table_schema"),
        text("table_name"),
        text("column_name"),
        text("data_type"),
    ) else {
        return Ok(rows.clone());
    };
    let entries: HashMap<_, _> = entries
        .iter()
        .map(|entry| {
            let name = (&*entry.catalog, &*entry.schema, &*entry.name);
            (name, &entry.arrow_schema)
        })
        .collect();
    let names: StringArray = (0..rows.num_rows())
        .map(|row| {
            let table = (catalogs.value(row), schemas.value(row), tables.value(row));
            let schema = entries.get(&table);
            let field = schema.and_then(|schema| schema.field_with_name(columns.value(row)).ok());
            Some(match field {
                Some(field) => type_name(field),
                None => types.value(row).to_owned(),
            })
        })
        .collect();
    let mut arrays = rows.columns().to_vec();
    arrays[rows.schema_ref().index_of("data_type")?] = Arc::new(names);
    RecordBatch::try_new(rows.schema(), arrays)
}

fn tenant(lane: Lane) -> Option<String> {
    lane.tenant().map(|tenant| tenant.to_string())
}

fn instants(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from_iter_values(values).with_timezone("UTC"))
}

fn texts<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn source_rows<'a>(
    sources: impl Iterator<Item = &'a Arc<Source>>,
) -> std::result::Result<RecordBatch, arrow::error::ArrowError> {
    let rows: Vec<&Arc<Source>> = sources.collect();
    let of = || rows.iter().map(|row| &row.definition);
    RecordBatch::try_new(
        Arc::clone(&SOURCES),
        vec![
            texts(of().map(|row| row.name.as_str())),
            Arc::new(StringArray::from_iter(
                rows.iter().map(|row| tenant(row.lane)),
            )),
            texts(of().map(|row| row.location.as_str())),
            texts(of().map(|row| row.format.as_str())),
            Arc::new(StringArray::from_iter(
                of().map(|row| row.tenant_column.name()),
            )),
            instants(rows.iter().map(|row| row.registered_at_ms)),
            instants(rows.iter().map(|row| row.refreshed_at_ms)),
        ],
    )
}

fn model_rows(rows: &[Model]) -> std::result::Result<RecordBatch, arrow::error::ArrowError> {
    let of = || rows.iter().map(|row| &row.definition);
    RecordBatch::try_new(
        Arc::clone(&MODELS),
        vec![
            texts(of().map(|row| row.name.as_str())),
            texts(of().map(|row| row.version.as_str())),
            Arc::new(StringArray::from_iter(
                rows.iter().map(|row| tenant(row.lane)),
            )),
            texts(of().map(|row| row.uri.as_str())),
            texts(of().map(|row| row.metadata.as_str())),
            instants(rows.iter().map(|row| row.registered_at_ms)),
        ],
    )
}

fn table_rows<'a>(
    relations: impl Iterator<Item = &'a Arc<Relation>>,
) -> std::result::Result<RecordBatch, arrow::error::ArrowError> {
    let rows: Vec<&Arc<Relation>> = relations.collect();
    let kind = |row: &&Arc<Relation>| match row.body {
        RelationBody::Table(_) if row.is_temporary() => "temporary table",
        RelationBody::Table(_) => "table",
        RelationBody::View(_) => "view",
    };
    let definition = |row: &&'a Arc<Relation>| match &row.body {
        RelationBody::Table(_) => None,
        RelationBody::View(view) => Some(view.sql.as_str()),
    };
    RecordBatch::try_new(
        Arc::clone(&TABLES),
        vec![
            texts(rows.iter().map(|row| row.name.as_str())),
            Arc::new(StringArray::from_iter(
                rows.iter().map(|row| tenant(row.lane)),
            )),
            texts(rows.iter().map(kind)),
            Arc::new(StringArray::from_iter(rows.iter().map(definition))),
            instants(rows.iter().map(|row| row.created_at_ms)),
            instants(rows.iter().map(|row| row.altered_at_ms)),
        ],
    )
}
