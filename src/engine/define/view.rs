//! CREATE VIEW: a query that is planned anew, as whoever reads it.

use arrow::datatypes::Schema;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast;

use super::CreateView;
use super::create::folded;
use crate::catalog::{ViewDefinition, check_column_name, check_relation_name, shown};
use crate::engine::ScopedTable;
use crate::engine::context::Planner;
use crate::engine::fault::planning;
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
    if temporary {
        return Err(Error::Unimplemented(
            "CREATE TEMPORARY VIEW is not served: make a view that stays, or a temporary table \
             with CREATE TEMPORARY TABLE AS"
                .into(),
        ));
    }
    if or_alter
        || materialized
        || secure
        || options != ast::CreateTableOptions::None
        || !cluster_by.is_empty()
        || comment.is_some()
        || with_no_schema_binding
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
    let plan = query_plan(statement, resolver)?;
    if let Some(table) = temporary_in(&plan)? {
        return Err(Error::InvalidArgument(format!(
            "view {} would outlive `{table}`, which is a temporary table of this session: make it \
             of tables that stay",
            shown(&name)
        )));
    }
    let reading = Reading::new(scope, plan, planner)?;
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

/// A temporary table that a query reads, if it reads one.
fn temporary_in(plan: &LogicalPlan) -> Result<Option<String>> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Ok(provider) = source_as_provider(&scan.source)
            && let Some(name) = provider
                .downcast_ref::<ScopedTable>()
                .and_then(ScopedTable::temporary)
        {
            found = Some(name.to_owned());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(planning)?;
    Ok(found)
}
