//! The read side's first layer: the lane predicate on every scan of a plan.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, Result};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{LogicalPlan, TableScan};
use datafusion::optimizer::AnalyzerRule;

use super::ScopedTable;
use super::fault::carried;
use crate::error::Error;
use crate::tenant::Scope;

/// Adds `tenant_id = $current OR tenant_id IS NULL` to every scan of a table
/// that has the column, wherever in the plan it is: subqueries of expressions
/// included. For a scope without a tenant it adds `tenant_id IS NULL`.
///
/// The predicate becomes a filter of the scan itself, which no predicate of
/// the statement can widen. Adding it twice changes nothing. A table that is
/// bound to another scope is refused.
#[derive(Debug)]
pub struct TenantScopeAnalyzerRule {
    scope: Scope,
}

impl TenantScopeAnalyzerRule {
    /// The rule of one statement.
    pub fn new(scope: Scope) -> Self {
        TenantScopeAnalyzerRule { scope }
    }

    fn scoped(&self, mut scan: TableScan) -> Result<Transformed<LogicalPlan>> {
        let Ok(provider) = source_as_provider(&scan.source) else {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        };
        let Some(table) = provider.downcast_ref::<ScopedTable>() else {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        };
        if table.scope() != &self.scope {
            return Err(carried(Error::internal(
                "a table is bound to another scope than its statement",
                format!("table {}", scan.table_name),
            )));
        }
        let Some((column, predicate)) = table.lane_predicate().map_err(carried)? else {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        };
        let column = Column::new(Some(scan.table_name.clone()), column);
        let predicate = predicate.logical(column);
        if scan.filters.contains(&predicate) {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        }
        scan.filters.insert(0, predicate);
        Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
    }
}

impl AnalyzerRule for TenantScopeAnalyzerRule {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::TableScan(scan) => self.scoped(scan),
            other => Ok(Transformed::no(other)),
        })
        .map(|transformed| transformed.data)
    }

    fn name(&self) -> &str {
        "tenant_scope"
    }
}
