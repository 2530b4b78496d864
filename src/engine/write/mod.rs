//! Statements that write rows.
//!
//! A write is a query that yields row numbers and new rows, then one keyed
//! commit: `insert`, `change` and `merge` make the query from the statement,
//! `checks` holds the new rows to the table's constraints, `conflict` decides about
//! taken keys, `run` brings the rows to the lane, and `returning` answers them.
//! Rows that the statement gives as they are need no query: `direct`. The query names the table that is written to as [`TARGET`], which reads
//! the writable lane alone and shows row numbers; every other name in it means
//! what it means in a SELECT.
//!
//! Architecture invariant: nothing is written while a statement is planned, and
//! every predicate is DataFusion's to evaluate: one that folds to false or that
//! no index can answer decides over rows like any other.

mod change;
mod checks;
mod conflict;
mod direct;
mod fitting;
mod insert;
mod merge;
mod outputs;
mod returning;
mod run;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Projection};
use datafusion::sql::sqlparser::ast;

use super::RecordStream;
use super::fault::planning;
use super::names::Resolver;
use super::statement::{parse_one, query_plan};
use crate::catalog::{Relation, TableDefinition};
use crate::error::{Error, Result};
use crate::tenant::Scope;

pub(super) use checks::{RowChecks, refuse_beyond_row};
pub(super) use conflict::OnConflict;
pub(super) use direct::{DirectRows, Rows};
pub(super) use fitting::for_column;
pub(super) use returning::Returning;
pub(super) use run::{Ingest, Query, run};

/// The name of the table that is written to, in the query that a write is made
/// into.
pub(super) const TARGET: [&str; 3] = ["jammi", "write", "target"];

/// The name of the rows that were written, in RETURNING.
pub(super) const WRITTEN: [&str; 3] = ["jammi", "write", "written"];

/// What a statement does to the rows of a table.
#[derive(Clone, Debug)]
pub(super) struct Write {
    /// The table as it was when the statement was planned.
    pub relation: Arc<Relation>,
    /// What becomes of the rows that the query yields.
    pub effect: Effect,
    /// What becomes of a new row whose key is taken; without it, an error.
    pub conflict: Option<OnConflict>,
    /// What the statement answers of the rows that it wrote.
    pub returning: Option<Returning>,
}

/// What becomes of the rows of a write's query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// They are added: the table's columns in order.
    Insert,
    /// They take the place of others: a row number, then the table's columns.
    Update,
    /// They are the numbers of rows to be removed.
    Delete,
    /// What becomes of them is said by a number in front: [`MERGE_UPDATE`] and its
    /// like. Then a row number, where there is a row, and the table's columns.
    Merge,
    /// There is no query: all rows go.
    Truncate,
}

/// The row is changed.
const MERGE_UPDATE: i64 = 0;
/// The row is removed.
const MERGE_DELETE: i64 = 1;
/// A row is added.
const MERGE_INSERT: i64 = 2;

impl Write {
    fn new(relation: &Arc<Relation>, effect: Effect) -> Self {
        Write {
            relation: Arc::clone(relation),
            effect,
            conflict: None,
            returning: None,
        }
    }

    /// Rows are added to `relation`.
    pub fn insert(relation: &Arc<Relation>) -> Self {
        Write::new(relation, Effect::Insert)
    }

    /// The columns of the answer.
    pub fn schema(&self) -> SchemaRef {
        match &self.returning {
            Some(returning) => returning.schema(),
            None => count_schema(),
        }
    }

    pub fn definition(&self) -> Result<&TableDefinition> {
        self.relation.table().ok_or_else(|| {
            Error::internal(
                "the statement is not about a table",
                self.relation.name.clone(),
            )
        })
    }
}

/// The answer to a statement that writes: how many rows it wrote.
pub(super) fn count_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(
        "count",
        DataType::Int64,
        false,
    )]))
}

/// What a write did.
#[derive(Default)]
pub(super) struct Written {
    /// How many rows it wrote.
    pub count: u64,
    /// The answer of RETURNING.
    pub returned: Vec<RecordBatch>,
}

/// The answer to a write.
pub(super) fn answer(write: &Write, written: Written) -> Result<RecordStream> {
    if let Some(returning) = &write.returning {
        return Ok(RecordStream::ready(returning.schema(), written.returned));
    }
    let written = written.count;
    let count = Int64Array::from(vec![i64::try_from(written).unwrap_or(i64::MAX)]);
    let schema = count_schema();
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(count)])
        .map_err(|error| Error::internal("the count of rows cannot be told", error))?;
    Ok(RecordStream::ready(schema, vec![batch]))
}

/// The tenant of `rows` new rows of the scope's writable lane.
pub(super) fn stamped(scope: &Scope, rows: usize) -> ArrayRef {
    match scope.tenant() {
        None => new_null_array(&DataType::Utf8, rows),
        Some(tenant) => {
            let tenant = tenant.to_string();
            Arc::new(StringArray::from_iter_values(std::iter::repeat_n(
                tenant, rows,
            )))
        }
    }
}

/// The query that a writing statement is made into.
pub(super) enum Source {
    /// A statement whose rows are as the effect needs them.
    Insert {
        /// With a column list, and no more than columns and a source.
        statement: Box<ast::Statement>,
    },
    /// A query whose columns have to be cast to the table's.
    Change(Box<ast::Query>),
    /// None.
    Nothing,
}

/// Takes a writing statement apart.
pub(super) fn take_apart(
    statement: ast::Statement,
    resolver: &Resolver<'_>,
) -> Result<(Write, Source)> {
    match statement {
        ast::Statement::Insert(insert) => insert::take_apart(insert, resolver),
        ast::Statement::Update(update) => change::update(update, resolver),
        ast::Statement::Delete(delete) => change::delete(delete, resolver),
        ast::Statement::Truncate(truncate) => change::truncate(truncate, resolver),
        ast::Statement::Merge(merge) => merge::take_apart(merge, resolver),
        other => Err(Error::internal(
            "the statement cannot be planned",
            format!("{other} writes no rows"),
        )),
    }
}

/// Refuses words of a statement that have no meaning here.
fn refuse_if(present: bool, words: &str) -> Result<()> {
    if present {
        Err(Error::Unimplemented(format!(
            "{words} is not served here: leave it out"
        )))
    } else {
        Ok(())
    }
}

impl Source {
    /// The plan of the query, with columns as the write's effect needs them.
    pub fn plan(self, write: &Write, resolver: &Resolver<'_>) -> Result<Option<LogicalPlan>> {
        match self {
            Source::Nothing => Ok(None),
            Source::Insert { statement } => {
                resolver.insert(&write.relation)?;
                match query_plan(*statement, resolver)? {
                    LogicalPlan::Dml(insert) => Ok(Some(Arc::unwrap_or_clone(insert.input))),
                    other => Err(Error::internal(
                        "the statement cannot be planned",
                        format!("INSERT became {}", other.display()),
                    )),
                }
            }
            Source::Change(query) => {
                resolver.change(&write.relation);
                let plan = query_plan(ast::Statement::Query(query), resolver)?;
                match write.effect {
                    Effect::Update => in_types_of(write.definition()?, plan, 1).map(Some),
                    Effect::Delete if write.returning.is_some() => {
                        in_types_of(write.definition()?, plan, 1).map(Some)
                    }
                    Effect::Merge => in_types_of(write.definition()?, plan, 2).map(Some),
                    Effect::Insert | Effect::Delete | Effect::Truncate => Ok(Some(plan)),
                }
            }
        }
    }
}

/// `plan`, which yields `others` and then the table's columns, with the columns in
/// the table's types.
fn in_types_of(
    definition: &TableDefinition,
    plan: LogicalPlan,
    others: usize,
) -> Result<LogicalPlan> {
    let plan = with_typed_parameters(definition, plan)?;
    let columns = plan.schema().columns();
    let mut exprs: Vec<Expr> = columns
        .iter()
        .take(others)
        .map(|column| Expr::Column(column.clone()))
        .collect();
    for (from, to) in columns.into_iter().skip(others).zip(&definition.columns) {
        let expr = Expr::Column(from)
            .cast_to(to.field.data_type(), plan.schema())
            .map_err(planning)?;
        exprs.push(expr.alias(to.field.name()));
    }
    LogicalPlanBuilder::from(plan)
        .project(exprs)
        .and_then(LogicalPlanBuilder::build)
        .map_err(planning)
}

/// `plan` with the column's type for each parameter that is a column's new value
/// by itself.
fn with_typed_parameters(definition: &TableDefinition, plan: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Projection(projection) = plan else {
        return Ok(plan);
    };
    let exprs = projection
        .expr
        .into_iter()
        .map(|expr| match expr {
            Expr::Alias(mut alias) => {
                if let Expr::Placeholder(placeholder) = alias.expr.as_mut()
                    && placeholder.field.is_none()
                    && let Some(column) = definition.column(&alias.name)
                {
                    placeholder.field = Some(Arc::clone(&column.field));
                }
                Expr::Alias(alias)
            }
            other => other,
        })
        .collect();
    Projection::try_new(exprs, projection.input)
        .map(LogicalPlan::Projection)
        .map_err(planning)
}

/// `SELECT items FROM table AS alias, from WHERE selection`.
fn select_from(
    table: [&str; 3],
    alias: &ast::Ident,
    items: Vec<ast::SelectItem>,
    from: Vec<ast::TableWithJoins>,
    selection: Option<ast::Expr>,
) -> Result<ast::Query> {
    let mut query = parsed_query("SELECT 1 FROM t AS a")?;
    let ast::SetExpr::Select(select) = query.body.as_mut() else {
        return Err(not_a_select());
    };
    let Some(ast::TableFactor::Table {
        name, alias: slot, ..
    }) = select.from.first_mut().map(|table| &mut table.relation)
    else {
        return Err(not_a_select());
    };
    *name = ast::ObjectName::from(table.map(quoted).to_vec());
    if let Some(slot) = slot {
        slot.name = alias.clone();
    }
    select.projection = items;
    select.from.extend(from);
    select.selection = selection;
    Ok(query)
}

fn parsed_query(sql: &str) -> Result<ast::Query> {
    match parse_one(sql)? {
        ast::Statement::Query(query) => Ok(*query),
        _ => Err(not_a_select()),
    }
}

fn not_a_select() -> Error {
    Error::internal("the statement cannot be planned", "a template is no SELECT")
}

fn quoted(name: &str) -> ast::Ident {
    ast::Ident::with_quote('"', name)
}
