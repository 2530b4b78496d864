//! The tables of `jammi.v1.catalog.CatalogService`: their messages, and the calls
//! about them.

use std::sync::Arc;

use super::catalog::lane;
use super::proto::catalog as proto;
use crate::catalog::{IndexKind, Relation, RelationBody, TableDefinition, schema_ipc};
use crate::engine::{Engine, NewTable, type_name};
use crate::error::{Error, Result};
use crate::tenant::Scope;

/// Makes a table and answers it.
pub(crate) async fn create(
    engine: &Engine,
    scope: &Scope,
    request: proto::CreateTableRequest,
) -> Result<proto::Table> {
    let relation = engine.create_table(scope, new_table(request)?).await?;
    Ok(table_message(scope, &relation))
}

/// The table or view that a name means.
pub(crate) async fn describe(engine: &Engine, scope: &Scope, name: &str) -> Result<proto::Table> {
    let relation = engine.describe_table(scope, name).await?;
    Ok(table_message(scope, &relation))
}

/// Every table and view that a name means.
pub(crate) async fn list(engine: &Engine, scope: &Scope) -> Result<Vec<proto::Table>> {
    let relations = engine.stored_tables(scope).await?;
    Ok(relations
        .iter()
        .map(|relation| table_message(scope, relation))
        .collect())
}

pub(super) fn new_table(request: proto::CreateTableRequest) -> Result<NewTable> {
    let schema = schema_ipc::decode_message(&request.schema).map_err(|why| {
        Error::InvalidArgument(format!(
            "the schema cannot be read ({why}): send it as an Arrow IPC schema message, as \
             pyarrow.Schema.serialize() makes it"
        ))
    })?;
    Ok(NewTable {
        name: request.name,
        schema: Arc::new(schema),
        primary_key: request.primary_key,
        unique: request
            .unique
            .into_iter()
            .map(|constraint| constraint.columns)
            .collect(),
        if_not_exists: request.if_not_exists,
    })
}

/// A table or a view as clients see it.
fn table_message(scope: &Scope, relation: &Arc<Relation>) -> proto::Table {
    let (kind, query) = match &relation.body {
        RelationBody::Table(_) => (proto::TableKind::Table, String::new()),
        RelationBody::View(view) => (proto::TableKind::View, view.sql.clone()),
    };
    let definition = relation.table();
    proto::Table {
        name: relation.name.clone(),
        lane: lane(scope, relation.lane).into(),
        kind: kind.into(),
        columns: columns(relation, definition),
        indexes: definition.map(indexes).unwrap_or_default(),
        checks: definition.map(checks).unwrap_or_default(),
        query,
        created_at_ms: relation.created_at_ms,
        altered_at_ms: relation.altered_at_ms,
        sql_name: relation.sql_name(),
        temporary: relation.is_temporary(),
    }
}

fn columns(relation: &Relation, definition: Option<&TableDefinition>) -> Vec<proto::Column> {
    let schema = relation.schema();
    let columns = schema.fields().iter().enumerate();
    columns
        .map(|(at, field)| proto::Column {
            name: field.name().clone(),
            r#type: type_name(field),
            nullable: field.is_nullable(),
            partition: false,
            default_sql: definition.and_then(|table| table.columns[at].default.clone()),
        })
        .collect()
}

fn indexes(definition: &TableDefinition) -> Vec<proto::TableIndex> {
    let kind = |kind| match kind {
        IndexKind::Primary => proto::IndexKind::PrimaryKey,
        IndexKind::Unique => proto::IndexKind::Unique,
        IndexKind::Plain => proto::IndexKind::Plain,
    };
    definition
        .indexes
        .iter()
        .map(|index| proto::TableIndex {
            name: index.name.clone(),
            kind: kind(index.kind).into(),
            columns: definition
                .index_columns(index)
                .into_iter()
                .map(str::to_owned)
                .collect(),
        })
        .collect()
}

fn checks(definition: &TableDefinition) -> Vec<proto::TableCheck> {
    definition
        .checks
        .iter()
        .map(|check| proto::TableCheck {
            name: check.name.clone(),
            sql: check.sql.clone(),
        })
        .collect()
}
