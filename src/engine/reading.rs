//! A query under a scope, optimized once where it can be.

use std::sync::{Arc, OnceLock};

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Volatility};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_plan::ExecutionPlan;

use super::context::Planner;
use super::fault::planning;
use super::guard;
use super::params;
use super::short;
use super::total::{compares, connects};
use super::{ScopedTable, TenantScopeAnalyzerRule};
use crate::error::{Error, Result};
use crate::tenant::Scope;

/// A query under a scope.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    scope: Scope,
    plan: LogicalPlan,
    /// Kept where every run of the statement optimizes to the same plan, but for
    /// the values of its parameters.
    optimized: Option<LogicalPlan>,
    parameters: SchemaRef,
    /// The values of the parameters, where the statement's text has them.
    given: Option<Vec<ScalarValue>>,
    schema: SchemaRef,
    /// Whether the order of the source's rows is kept.
    in_order: bool,
    /// Whether it does so little to each row that it is short where it reads few.
    is_simple: bool,
    /// What runs it for any values of its parameters, where that is one plan: made
    /// by its first run.
    of_key: Option<Arc<OnceLock<Arc<dyn ExecutionPlan>>>>,
}

impl Reading {
    /// Puts `plan` under `scope`.
    pub(super) fn new(scope: &Scope, plan: LogicalPlan, planner: &Planner) -> Result<Self> {
        require_query(&plan)?;
        let plan = TenantScopeAnalyzerRule::new(scope.clone())
            .analyze(plan, planner.state().config_options())
            .map_err(planning)?;
        let parameters = params::parameter_schema(&plan)?;
        let immutable = is_immutable(&plan)?;
        let (schema, optimized) = if parameters.fields().is_empty() {
            let optimized = match immutable {
                true => Some(planner.optimize(plan.clone())?),
                false => None,
            };
            (plan.schema().inner().clone(), optimized)
        } else {
            let nulls = plan
                .clone()
                .replace_params_with_values(&params::nulls(&parameters)?)
                .map_err(planning)?;
            let optimized = match immutable {
                true => optimized_open(&plan, &parameters, planner)?,
                false => None,
            };
            (nulls.schema().inner().clone(), optimized)
        };
        let is_simple = match &optimized {
            Some(optimized) => short::is_simple(optimized)?,
            None => false,
        };
        let of_key = match &optimized {
            Some(optimized) if is_simple && short::is_of_key(optimized)? => Some(Arc::default()),
            _ => None,
        };
        Ok(Reading {
            scope: scope.clone(),
            plan,
            optimized,
            parameters,
            given: None,
            schema: without_metadata(&schema),
            in_order: false,
            is_simple,
            of_key,
        })
    }

    /// A query under `scope` already, without parameters, that keeps the order of
    /// its source.
    pub(super) fn in_order(scope: &Scope, plan: LogicalPlan) -> Self {
        Reading {
            scope: scope.clone(),
            schema: without_metadata(plan.schema().inner()),
            plan,
            optimized: None,
            parameters: Arc::new(Schema::empty()),
            given: None,
            in_order: true,
            is_simple: false,
            of_key: None,
        }
    }

    /// The query with `values`, which are of the parameters' types, for good.
    pub(super) fn given(&self, values: Vec<ScalarValue>) -> Self {
        Reading {
            given: Some(values),
            ..self.clone()
        }
    }

    /// Whether its plan is simple: see [`short::is_simple`].
    pub(super) fn is_simple(&self) -> bool {
        self.is_simple
    }

    pub(super) fn is_in_order(&self) -> bool {
        self.in_order
    }

    /// The scope that it is under.
    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Whether it is optimized before it is bound.
    #[cfg(test)]
    pub(super) fn is_optimized(&self) -> bool {
        self.optimized.is_some()
    }

    pub(super) fn plan(&self) -> &LogicalPlan {
        &self.plan
    }

    /// The columns of the query.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The types of the query's parameters.
    pub(super) fn parameters(&self) -> &SchemaRef {
        &self.parameters
    }

    /// The values of the parameters in their types, where the caller has bound `bound`.
    fn values(&self, bound: &[ScalarValue]) -> Result<Vec<ScalarValue>> {
        match &self.given {
            None => params::typed_scalars(&self.parameters, bound),
            Some(given) => {
                // There is nothing left to bind.
                params::typed_scalars(&Schema::empty(), bound)?;
                Ok(given.clone())
            }
        }
    }

    /// The physical plan with `values` for the parameters, where it is of rows of a
    /// whole key: it is made once.
    pub(super) async fn plan_of_key(
        &self,
        planner: &Planner,
        values: &[ScalarValue],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(kept), Some(optimized)) = (&self.of_key, &self.optimized) else {
            return Err(Error::internal(
                "the statement cannot be run",
                "a plan of a key is asked for where there is none",
            ));
        };
        let values = self.values(values)?;
        let plan = match kept.get() {
            Some(plan) => plan,
            None => {
                let plan = planner.physical_of_simple(optimized).await?;
                kept.get_or_init(|| plan)
            }
        };
        guard::given(plan, &values)
    }

    /// Whether it is planned physically once.
    pub(super) fn is_of_key(&self) -> bool {
        self.of_key.is_some()
    }

    /// The optimized plan with `values` for the parameters.
    pub(super) fn bind(&self, planner: &Planner, values: &[ScalarValue]) -> Result<LogicalPlan> {
        let values = self.values(values)?;
        let plan = self.optimized.as_ref().unwrap_or(&self.plan).clone();
        let plan = match self.parameters.fields().is_empty() {
            true => plan,
            false => plan
                .replace_params_with_values(&ParamValues::from(values))
                .map_err(planning)?,
        };
        match self.optimized {
            Some(_) => Ok(plan),
            None => planner.optimize(plan),
        }
    }
}

/// Whether every table that `plan` reads is read at whole unique keys: to divide
/// such rows among the cores would take longer than to read them.
pub(super) fn reads_keys(plan: &LogicalPlan) -> Result<bool> {
    let mut scans = 0;
    let mut by_key = 0;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            scans += 1;
            let provider = source_as_provider(&scan.source)?;
            let table = provider.downcast_ref::<ScopedTable>();
            by_key += usize::from(table.is_some_and(|table| table.is_of_keys(&scan.filters)));
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(planning)?;
    Ok(scans > 0 && scans == by_key)
}

/// `plan` optimized before the values of its parameters are known, where that
/// takes nothing from the plan: each parameter is compared with a column, so
/// that there is nothing to fold, or is a column of the result.
fn optimized_open(
    plan: &LogicalPlan,
    parameters: &Schema,
    planner: &Planner,
) -> Result<Option<LogicalPlan>> {
    let typed = params::with_types(plan.clone(), parameters)?;
    // Some rules ask for values. What they say without them is not said to the
    // caller, whose values are optimized with the plan then.
    let Ok(optimized) = planner.optimize(typed) else {
        return Ok(None);
    };
    let mut open = true;
    optimized
        .apply_with_subqueries(|node| {
            node.apply_expressions(|expr| {
                open &= match node {
                    LogicalPlan::Filter(_) | LogicalPlan::TableScan(_) => has_nothing_to_fold(expr),
                    LogicalPlan::Projection(_) => is_parameter(expr) || !params::is_in(expr),
                    _ => !params::is_in(expr),
                };
                Ok(if_open(open))
            })?;
            Ok(if_open(open))
        })
        .map_err(planning)?;
    Ok(open.then_some(optimized))
}

fn if_open(open: bool) -> TreeNodeRecursion {
    match open {
        true => TreeNodeRecursion::Continue,
        false => TreeNodeRecursion::Stop,
    }
}

/// Whether `expr` stays as it is when its parameters become literals.
fn has_nothing_to_fold(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if connects(*op) => {
            has_nothing_to_fold(left) && has_nothing_to_fold(right)
        }
        expr => !params::is_in(expr) || compares_column(expr),
    }
}

/// Whether `expr` compares a column with literals and parameters alone.
fn compares_column(expr: &Expr) -> bool {
    let is_column = |expr: &Expr| matches!(expr, Expr::Column(_));
    let is_value = |expr: &Expr| matches!(expr, Expr::Literal(..) | Expr::Placeholder(_));
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            compares(*op)
                && (is_column(left) && is_value(right) || is_value(left) && is_column(right))
        }
        Expr::Between(between) => {
            is_column(&between.expr) && is_value(&between.low) && is_value(&between.high)
        }
        Expr::InList(list) => is_column(&list.expr) && list.list.iter().all(is_value),
        _ => false,
    }
}

fn is_parameter(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => is_parameter(&alias.expr),
        expr => matches!(expr, Expr::Placeholder(_)),
    }
}

fn without_metadata(schema: &SchemaRef) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().clone()))
}

/// Refuses a plan that does more than read, wherever in it: the parser admits
/// INSERT and its like inside a query too.
fn require_query(plan: &LogicalPlan) -> Result<()> {
    let mut refused = None;
    plan.apply_with_subqueries(|node| {
        refused = match node {
            // DataFusion plans these rows without running a query for them.
            LogicalPlan::Values(values) if values.values.iter().flatten().any(has_subquery) => {
                Some("a subquery in VALUES".to_owned())
            }
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::Repartition(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::TableScan(_)
            | LogicalPlan::EmptyRelation(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Values(_)
            | LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::Distinct(_)
            | LogicalPlan::DescribeTable(_)
            | LogicalPlan::Unnest(_)
            | LogicalPlan::RecursiveQuery(_) => return Ok(TreeNodeRecursion::Continue),
            LogicalPlan::Statement(statement) => Some(statement.name().to_owned()),
            LogicalPlan::Dml(dml) => Some(dml.name().to_owned()),
            LogicalPlan::Ddl(ddl) => Some(ddl.name().to_owned()),
            LogicalPlan::Copy(_) => Some("COPY".to_owned()),
            LogicalPlan::Extension(extension) => Some(extension.node.name().to_owned()),
        };
        Ok(TreeNodeRecursion::Stop)
    })
    .map_err(planning)?;
    match refused {
        None => Ok(()),
        Some(kind) => Err(Error::Unimplemented(format!(
            "{kind} is not served: write the statement as a SELECT"
        ))),
    }
}

fn has_subquery(expr: &Expr) -> bool {
    expr.exists(|expr| {
        Ok(matches!(
            expr,
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_)
        ))
    })
    .unwrap_or(true)
}

/// Whether every function in the plan answers the same for the same arguments
/// at any time, so that a plan with them folded may be kept.
fn is_immutable(plan: &LogicalPlan) -> Result<bool> {
    if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_)) {
        return Ok(false);
    }
    let mut immutable = true;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr
                    && call.func.signature().volatility != Volatility::Immutable
                {
                    immutable = false;
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })
    .map_err(planning)?;
    Ok(immutable)
}
