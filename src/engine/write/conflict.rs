//! ON CONFLICT: what becomes of a new row whose key is taken.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::{Field, Schema};
use datafusion::common::{DFSchema, TableReference};
use datafusion::logical_expr::ExprSchemable;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::sql::sqlparser::ast;

use super::change::assigned;
use super::{RowChecks, refuse_beyond_row};
use crate::backend::BackendError;
use crate::catalog::{IndexKind, TableDefinition, TableIndex};
use crate::engine::define::folded;
use crate::engine::fault::{execution, planning};
use crate::engine::names::Resolver;
use crate::error::{Error, Result};
use crate::table::TableWriter;

/// The name of the row that was to be added, in DO UPDATE.
const EXCLUDED: &str = "excluded";

/// What becomes of a new row whose key is taken.
#[derive(Clone, Debug)]
pub(in crate::engine) struct OnConflict {
    /// The keys that are looked at: one that is named, or all.
    arbiters: Vec<TableIndex>,
    action: Action,
}

#[derive(Clone, Debug)]
enum Action {
    /// It is left out.
    Nothing,
    /// The row that is there changes.
    Update {
        /// The new value of every column, over the row that is there and the new
        /// one side by side.
        columns: Vec<Arc<dyn PhysicalExpr>>,
        /// Whether it changes at all.
        condition: Option<Arc<dyn PhysicalExpr>>,
        row: Arc<Schema>,
    },
}

impl OnConflict {
    /// Reads an ON CONFLICT of a table that the statement calls `name`.
    pub fn plan(
        on: ast::OnInsert,
        definition: &TableDefinition,
        name: &str,
        resolver: &Resolver<'_>,
    ) -> Result<Self> {
        let ast::OnInsert::OnConflict(conflict) = on else {
            return Err(Error::Unimplemented(
                "ON DUPLICATE KEY UPDATE is not served: write ON CONFLICT (column) DO UPDATE SET"
                    .into(),
            ));
        };
        let arbiters = arbiters(conflict.conflict_target, definition)?;
        let action = match conflict.action {
            ast::OnConflictAction::DoNothing => Action::Nothing,
            ast::OnConflictAction::DoUpdate(_) if arbiters.len() != 1 => {
                return Err(Error::InvalidArgument(
                    "ON CONFLICT DO UPDATE has to name its key: write ON CONFLICT (column)".into(),
                ));
            }
            ast::OnConflictAction::DoUpdate(update) => {
                Action::update(update, definition, name, resolver)?
            }
        };
        Ok(OnConflict { arbiters, action })
    }

    /// Adds the rows of `batch` whose keys are free, and deals with the others.
    /// `written` are the row numbers that the statement has written before.
    /// Answers the rows as they were written.
    pub fn insert(
        &self,
        writer: &mut TableWriter<'_>,
        batch: &RecordBatch,
        checks: &RowChecks,
        written: &mut HashSet<i64>,
    ) -> Result<Vec<RecordBatch>, BackendError> {
        let mut added = Vec::new();
        let mut changed = Vec::new();
        let mut numbers = Vec::new();
        {
            let mut adding = writer.adding(batch)?;
            for row in 0..batch.num_rows() {
                let mut taken = None;
                for arbiter in &self.arbiters {
                    taken = adding.taken_by(arbiter, row)?;
                    if taken.is_some() {
                        break;
                    }
                }
                match (taken, &self.action) {
                    (None, _) => {
                        written.insert(adding.add(row)?);
                        added.push(row as u32);
                    }
                    (Some(_), Action::Nothing) => {}
                    (Some(number), Action::Update { .. }) => {
                        if !written.insert(number) {
                            return Err(BackendError::refused(Error::InvalidArgument(
                                "two rows of the statement have one key, and ON CONFLICT DO \
                                 UPDATE would change a row twice: leave one out"
                                    .into(),
                            )));
                        }
                        changed.push(row as u32);
                        numbers.push(number);
                    }
                }
            }
        }
        let rows_at = |rows: Vec<u32>| {
            take_record_batch(batch, &UInt32Array::from(rows)).map_err(|error| {
                BackendError::refused(Error::internal("the new rows cannot be read", error))
            })
        };
        let mut result = vec![rows_at(added)?];
        if let Action::Update {
            columns,
            condition,
            row,
        } = &self.action
            && !numbers.is_empty()
        {
            let there = writer.rows(&numbers)?;
            let new = rows_at(changed)?;
            let (numbers, rows) = updated(
                numbers,
                there,
                &new,
                columns,
                condition.as_ref(),
                row,
                checks,
            )
            .map_err(BackendError::refused)?;
            writer.update(&numbers, std::slice::from_ref(&rows))?;
            result.push(rows);
        }
        Ok(result)
    }
}

/// The rows that are there as they will be, and their numbers.
fn updated(
    numbers: Vec<i64>,
    there: RecordBatch,
    new: &RecordBatch,
    columns: &[Arc<dyn PhysicalExpr>],
    condition: Option<&Arc<dyn PhysicalExpr>>,
    row: &Arc<Schema>,
    checks: &RowChecks,
) -> Result<(Vec<i64>, RecordBatch)> {
    let side_by_side: Vec<ArrayRef> = there
        .columns()
        .iter()
        .chain(new.columns())
        .cloned()
        .collect();
    let fault = |error| Error::internal("the new rows cannot be read", error);
    let mut rows = RecordBatch::try_new(Arc::clone(row), side_by_side).map_err(fault)?;
    let mut numbers = numbers;
    if let Some(condition) = condition {
        let met = condition
            .evaluate(&rows)
            .and_then(|met| met.into_array(rows.num_rows()))
            .map_err(execution)?;
        let met: BooleanArray = met
            .as_boolean()
            .iter()
            .map(|met| Some(met.unwrap_or(false)))
            .collect();
        rows = filter_record_batch(&rows, &met).map_err(fault)?;
        numbers = numbers
            .into_iter()
            .zip(met.values())
            .filter_map(|(number, met)| met.then_some(number))
            .collect();
    }
    let values = columns
        .iter()
        .map(|expr| expr.evaluate(&rows)?.into_array(rows.num_rows()))
        .collect::<datafusion::common::Result<Vec<_>>>()
        .map_err(execution)?;
    Ok((numbers, checks.check(values, rows.num_rows())?))
}

/// The keys of a conflict target, or every key where there is none.
fn arbiters(
    target: Option<ast::ConflictTarget>,
    definition: &TableDefinition,
) -> Result<Vec<TableIndex>> {
    let keys = definition
        .indexes
        .iter()
        .filter(|index| index.kind != IndexKind::Plain);
    let found = match &target {
        None => return Ok(keys.cloned().collect()),
        Some(ast::ConflictTarget::Columns(columns)) => {
            let mut wanted: Vec<String> = columns.iter().map(folded).collect();
            for column in &wanted {
                if definition.column(column).is_none() {
                    return Err(definition.no_column(column));
                }
            }
            wanted.sort();
            keys.clone().find(|key| {
                let mut has = definition.index_columns(key);
                has.sort_unstable();
                has == wanted
            })
        }
        Some(ast::ConflictTarget::OnConstraint(name)) => {
            let name = name.0.last().and_then(|part| part.as_ident()).map(folded);
            keys.clone().find(|key| Some(&key.name) == name.as_ref())
        }
    };
    match found {
        Some(key) => Ok(vec![key.clone()]),
        None => {
            let names: Vec<String> = keys
                .map(|key| format!("({})", definition.index_columns(key).join(", ")))
                .collect();
            Err(Error::InvalidArgument(format!(
                "no primary key or unique constraint is over just what ON CONFLICT names: the \
                 table has {}",
                match names.is_empty() {
                    true => "none".to_owned(),
                    false => names.join(", "),
                }
            )))
        }
    }
}

impl Action {
    fn update(
        update: ast::DoUpdate,
        definition: &TableDefinition,
        name: &str,
        resolver: &Resolver<'_>,
    ) -> Result<Self> {
        let schema = definition.schema();
        let mut fields = Vec::with_capacity(schema.fields().len() * 2);
        for qualifier in [name, EXCLUDED] {
            for field in schema.fields() {
                fields.push((Some(TableReference::bare(qualifier)), Arc::clone(field)));
            }
        }
        let row = DFSchema::new_with_metadata(fields, Default::default()).map_err(planning)?;
        let mut assigned = assigned(definition, update.assignments)?;
        let mut columns = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let expr = match assigned.remove(field.name().as_str()) {
                Some(expr) => resolver.expression(expr, &row)?,
                None => datafusion::logical_expr::Expr::Column(datafusion::common::Column::new(
                    Some(name),
                    field.name(),
                )),
            };
            refuse_beyond_row(&expr, "DO UPDATE SET")?;
            let expr = expr.cast_to(field.data_type(), &row).map_err(planning)?;
            columns.push(resolver.physical(expr, &row)?);
        }
        let condition = match update.selection {
            None => None,
            Some(expr) => {
                let expr = resolver.expression(expr, &row)?;
                refuse_beyond_row(&expr, "DO UPDATE ... WHERE")?;
                let expr = expr
                    .cast_to(&arrow::datatypes::DataType::Boolean, &row)
                    .map_err(planning)?;
                Some(resolver.physical(expr, &row)?)
            }
        };
        let nullable: Vec<Field> = row
            .fields()
            .iter()
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect();
        Ok(Action::Update {
            columns,
            condition,
            row: Arc::new(Schema::new(nullable)),
        })
    }
}
