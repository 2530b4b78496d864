//! A statement over many rows of values for its parameters, planned once.
//!
//! An INSERT of one row of values becomes an INSERT of a query over a table with a
//! column for each parameter, whose rows come as the statement runs. Any other
//! statement is run for each row. Either way all rows are written or none.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result as PlanResult, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Values};
use futures::{StreamExt, TryStreamExt};

use super::arrival::{Arrival, ParameterRows};
use super::fault::planning;
use super::lossless::{Texts, converted};
use super::params;
use super::reading::Reading;
use super::types::type_name;
use super::{Action, Engine, SessionTransaction, Statement};
use crate::error::{Error, Result};
use crate::tenant::Scope;

/// What the table of the rows is called in a plan, which no statement can spell.
const BOUND: &str = "bound rows";

impl Engine {
    /// Runs a statement that writes for each of `rows`, whose columns are the
    /// values of `$1`, `$2` and so on, and says how many rows it wrote. `texts` says
    /// what is made of texts where a parameter has another type.
    ///
    /// # Errors
    /// As of [`Engine::execute`]; nothing of any row is written then.
    pub async fn execute_rows(
        &self,
        scope: &Scope,
        statement: &Arc<Statement>,
        rows: ParameterRows,
        texts: Texts,
        within: Option<&SessionTransaction>,
    ) -> Result<u64> {
        let parameters = statement.parameter_schema();
        let rows = {
            let parameters = Arc::clone(&parameters);
            rows.map(move |batch| in_types(&parameters, &batch?, texts))
                .boxed()
        };
        let rows = match only_row(rows).await? {
            Peeked::One(row) => {
                let values = values_of(&row, 0)?;
                let answer = self.execute_within(scope, statement, &values, within);
                let batches: Vec<_> = answer.await?.try_collect().await?;
                return Ok(affected(&batches));
            }
            Peeked::Rows(rows) => rows,
        };
        let _meter = self.tenants().usage().begin(scope.payer());
        let rows = match statement.over_rows(&parameters, rows)? {
            Over::Rows(statement) => {
                let answer = self.execute_within(scope, &statement, &[], within).await?;
                let batches: Vec<_> = answer.try_collect().await?;
                return Ok(affected(&batches));
            }
            Over::EachRow(rows) => rows,
        };
        let own;
        let transaction = match within {
            Some(transaction) => transaction,
            None => {
                own = self.begin(scope);
                &own
            }
        };
        let run = transaction
            .statement(self.execute_each(scope, statement, rows, transaction))
            .await;
        match (within, run) {
            (Some(_), run) => run,
            (None, Ok(count)) => self.commit(transaction).await.map(|()| count),
            (None, Err(error)) => {
                transaction.rollback().await?;
                Err(error)
            }
        }
    }

    async fn execute_each(
        &self,
        scope: &Scope,
        statement: &Arc<Statement>,
        mut rows: ParameterRows,
        transaction: &SessionTransaction,
    ) -> Result<u64> {
        let mut count = 0;
        while let Some(batch) = rows.try_next().await? {
            for row in 0..batch.num_rows() {
                let values = values_of(&batch, row)?;
                let answer = self
                    .execute_within(scope, statement, &values, Some(transaction))
                    .await?;
                let batches: Vec<_> = answer.try_collect().await?;
                count += affected(&batches);
            }
        }
        Ok(count)
    }
}

/// Rows, of which it is known whether they are one.
enum Peeked {
    One(RecordBatch),
    Rows(ParameterRows),
}

/// Looks whether `rows` are one row: for that, no plan over many is worth making.
async fn only_row(mut rows: ParameterRows) -> Result<Peeked> {
    let mut ahead = Vec::with_capacity(2);
    while let Some(batch) = rows.try_next().await? {
        if batch.num_rows() == 0 {
            continue;
        }
        ahead.push(batch);
        if ahead.len() > 1 || ahead[0].num_rows() > 1 {
            let ahead = futures::stream::iter(ahead.into_iter().map(Ok));
            return Ok(Peeked::Rows(ahead.chain(rows).boxed()));
        }
    }
    Ok(match ahead.pop() {
        Some(row) => Peeked::One(row),
        None => Peeked::Rows(rows),
    })
}

/// The values of a row.
fn values_of(batch: &RecordBatch, row: usize) -> Result<Vec<ScalarValue>> {
    let columns = batch.columns().iter();
    columns
        .map(|column| ScalarValue::try_from_array(column, row).map_err(planning))
        .collect()
}

/// How many rows a statement that answers with `batches` wrote: the count that it
/// is, or the rows of RETURNING.
pub fn affected(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(affected_by).sum()
}

/// As [`affected`], of one batch.
pub fn affected_by(batch: &RecordBatch) -> u64 {
    if batch.schema_ref() != &super::write::count_schema() {
        return batch.num_rows() as u64;
    }
    let counts = batch.column(0).as_primitive::<Int64Type>();
    counts.iter().flatten().sum::<i64>().unsigned_abs()
}

/// `batch` in the types of `parameters`.
fn in_types(parameters: &SchemaRef, batch: &RecordBatch, texts: Texts) -> Result<RecordBatch> {
    let (want, have) = (parameters.fields().len(), batch.num_columns());
    if want != have {
        let s = |count: usize| if count == 1 { "" } else { "s" };
        return Err(Error::InvalidArgument(format!(
            "the statement has {want} parameter{} and rows of {have} value{} were sent: send one \
             for each",
            s(want),
            s(have)
        )));
    }
    let columns = parameters
        .fields()
        .iter()
        .zip(batch.columns())
        .enumerate()
        .map(|(at, (field, column))| {
            converted(column, field, texts).map_err(|why| {
                let what = match texts {
                    Texts::Parsed => format!("parameter {}", at + 1),
                    Texts::Kept => format!("column `{}`", batch.schema_ref().field(at).name()),
                };
                Error::InvalidArgument(format!(
                    "{what} is {} where {} is expected{why}",
                    column.data_type(),
                    type_name(field)
                ))
            })
        })
        .collect::<Result<Vec<ArrayRef>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(parameters), columns, &options)
        .map_err(|error| Error::internal("the rows do not fit the parameters", error))
}

/// How a statement is run over rows.
enum Over {
    /// By one that has them as its source.
    Rows(Arc<Statement>),
    /// By itself, for each.
    EachRow(ParameterRows),
}

impl Statement {
    fn over_rows(&self, parameters: &SchemaRef, rows: ParameterRows) -> Result<Over> {
        let Action::Write(write, checks, Some(source)) = self.action() else {
            return Ok(Over::EachRow(rows));
        };
        let plan = source.plan().filter(|plan| is_row_of_values(plan));
        let (super::write::Effect::Insert, Some(plan)) = (write.effect, plan) else {
            return Ok(Over::EachRow(rows));
        };
        let bound = bound_rows(parameters, rows)?;
        let plan = plan
            .clone()
            .transform_up(|node| match node {
                LogicalPlan::Values(values) => over(&bound, values).map(Transformed::yes),
                other => other.recompute_schema().map(Transformed::yes),
            })
            .map_err(planning)?
            .data;
        let mut write = write.as_ref().clone();
        // The count is what is asked for.
        write.returning = None;
        let reading = Reading::in_order(self.scope(), plan);
        let statement = self.with_write(write, checks, reading);
        Ok(Over::Rows(Arc::new(statement)))
    }
}

/// Whether a plan yields one row, all of whose parameters are among VALUES.
fn is_row_of_values(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Values(values) => values.values.len() == 1,
        LogicalPlan::Projection(projection) => {
            !projection.expr.iter().any(params::is_in) && is_row_of_values(&projection.input)
        }
        LogicalPlan::SubqueryAlias(alias) => is_row_of_values(&alias.input),
        _ => false,
    }
}

/// One row of `values` for each row of `bound`.
fn over(bound: &LogicalPlan, values: Values) -> PlanResult<LogicalPlan> {
    let columns = bound.schema().columns();
    let row = values.values.into_iter().next().unwrap_or_default();
    let exprs = row
        .into_iter()
        .zip(values.schema.fields())
        .map(|(expr, field)| {
            let expr = expr.transform_up(|expr| match &expr {
                Expr::Placeholder(parameter) => {
                    let column = columns.iter().find(|column| column.name == parameter.id);
                    Ok(match column {
                        Some(column) => Transformed::yes(Expr::Column(column.clone())),
                        None => Transformed::no(expr),
                    })
                }
                _ => Ok(Transformed::no(expr)),
            })?;
            Ok(expr.data.alias(field.name()))
        })
        .collect::<PlanResult<Vec<_>>>()?;
    LogicalPlanBuilder::from(bound.clone())
        .project(exprs)?
        .build()
}

/// The scan of a table of `rows`, which is read once.
fn bound_rows(parameters: &SchemaRef, rows: ParameterRows) -> Result<LogicalPlan> {
    let table = provider_as_source(Arc::new(Arrival::new(parameters, rows)));
    LogicalPlanBuilder::scan(BOUND, table, None)
        .and_then(LogicalPlanBuilder::build)
        .map_err(planning)
}
