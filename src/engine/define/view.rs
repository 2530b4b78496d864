//! CREATE VIEW: a query that is planned anew, as whoever reads it.

use arrow::datatypes::Schema;
use datafusion::sql::sqlparser::ast;

use super::CreateView;
use super::create::folded;
use crate::catalog::{ViewDefinition, check_column_name, check_relation_name};
use crate::engine::context::Planner;
use crate::engine::names::{NameDefaults, Resolver};
use crate::engine::reading::Reading;
use crate::engine::statement::query_plan;
use crate::error::{Error, Result};
use crate::tenant::Scope;

/// Reads CREATE VIEW.
pub(super) fn plan(
    create: ast::CreateView,
    scope: &Scope,
    planner: &Planner,
    resolver: &Resolver<'_>,
) -> Result<CreateView> {
    let ast::CreateView {
        or_alter,
        or_replace,
        materialized,
        secure,
        name,
        name_before_not_exists: _,
        columns,
        query,
        options,
        cluster_by,
        comment,
        with_no_schema_binding,
        if_not_exists,
        temporary,
        copy_grants,
        to,
        params,
    } = create;
    if or_alter
        || materialized
        || secure
        || options != ast::CreateTableOptions::None
        || !cluster_by.is_empty()
        || comment.is_some()
        || with_no_schema_binding
        || temporary
        || copy_grants
        || to.is_some()
        || params.is_some()
    {
        return Err(Error::Unimplemented(
            "CREATE VIEW takes a name, columns and a query, OR REPLACE and IF NOT EXISTS: leave \
             the rest out"
                .into(),
        ));
    }
    let name = resolver.new_name(&name)?;
    check_relation_name(&name)?;
    let mut sql = query.to_string();
    if !columns.is_empty() {
        let mut names = Vec::with_capacity(columns.len());
        for column in &columns {
            if column.data_type.is_some() || column.options.is_some() {
                return Err(Error::Unimplemented(
                    "the columns of a view have names alone: cast in its query".into(),
                ));
            }
            check_column_name(&folded(&column.name))?;
            names.push(column.name.to_string());
        }
        sql = format!("SELECT * FROM ({sql}) AS v ({})", names.join(", "));
    }
    let statement = crate::engine::statement::parse_one(&sql)?;
    let reading = Reading::new(scope, query_plan(statement, resolver)?, planner)?;
    if !reading.parameters().fields().is_empty() {
        return Err(Error::InvalidArgument(
            "a view has no parameters: write values into its query".into(),
        ));
    }
    let NameDefaults { catalog, schema } = resolver.defaults().clone();
    Ok(CreateView {
        name,
        or_replace,
        if_not_exists,
        definition: ViewDefinition {
            sql,
            catalog,
            schema_name: schema,
            schema: std::sync::Arc::new(Schema::new(reading.schema().fields().clone())),
        },
    })
}
