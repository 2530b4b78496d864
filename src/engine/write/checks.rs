//! The constraints that new rows are held to before they are written: NOT NULL,
//! JSON and CHECK. Keys are the lane's to hold.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::Field;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;
use serde::de::IgnoredAny;

use crate::catalog::{Relation, TableDefinition};
use crate::engine::fault::{execution, planning};
use crate::engine::names::Resolver;
use crate::engine::types::is_json;
use crate::error::{Error, Result};
use crate::table::key_text;

/// The constraints of one table.
#[derive(Clone, Debug)]
pub(in crate::engine) struct RowChecks {
    relation: Arc<Relation>,
    definition: TableDefinition,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug)]
struct Condition {
    name: String,
    sql: String,
    expr: Arc<dyn PhysicalExpr>,
}

impl RowChecks {
    /// The constraints of `relation`, which is a table.
    pub fn new(
        relation: &Arc<Relation>,
        definition: &TableDefinition,
        resolver: &Resolver<'_>,
    ) -> Result<Self> {
        let schema = DFSchema::try_from(definition.schema()).map_err(planning)?;
        let conditions = definition
            .checks
            .iter()
            .map(|check| {
                let expr = resolver.row_expression(&check.sql, &schema)?;
                let expr = resolver.physical(expr, &schema)?;
                Ok(Condition {
                    name: check.name.clone(),
                    sql: check.sql.clone(),
                    expr,
                })
            })
            .collect::<Result<_>>()?;
        Ok(RowChecks {
            relation: Arc::clone(relation),
            definition: definition.clone(),
            conditions,
        })
    }

    /// The constraints of a table that has no CHECK.
    pub fn without_conditions(relation: &Arc<Relation>, definition: &TableDefinition) -> Self {
        RowChecks {
            relation: Arc::clone(relation),
            definition: definition.clone(),
            conditions: Vec::new(),
        }
    }

    /// Whether there is a CHECK, which may compute for long.
    pub fn compute(&self) -> bool {
        !self.conditions.is_empty()
    }

    /// The rows in the table's schema.
    ///
    /// # Errors
    /// `InvalidArgument` that names the constraint which a row does not meet, and
    /// the row's key.
    pub fn check(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let schema = self.definition.schema();
        let columns = columns
            .into_iter()
            .zip(schema.fields())
            .map(|(column, field)| self.in_type_of(column, field))
            .collect::<Result<Vec<_>>>()?;
        for (field, column) in schema.fields().iter().zip(&columns) {
            if !field.is_nullable() && column.logical_null_count() > 0 {
                return Err(Error::InvalidArgument(format!(
                    "column `{}` of table `{}` cannot be NULL: give it a value in every row",
                    field.name(),
                    self.relation.name
                )));
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(schema, columns, &options)
            .map_err(|error| Error::internal("the new rows do not fit the table", error))?;
        self.check_json(&batch)?;
        for condition in &self.conditions {
            self.check_condition(condition, &batch)?;
        }
        Ok(batch)
    }

    /// The values in the column's type. DataFusion settles the type of an expression
    /// such as CASE later than it looks whether a cast is needed.
    fn in_type_of(&self, column: ArrayRef, field: &Field) -> Result<ArrayRef> {
        if column.data_type() == field.data_type() {
            return Ok(column);
        }
        let strict = CastOptions {
            safe: false,
            ..CastOptions::default()
        };
        cast_with_options(&column, field.data_type(), &strict).map_err(|error| {
            Error::InvalidArgument(format!(
                "a value does not fit column `{}` of table `{}`, which is {}: {error}",
                field.name(),
                self.relation.name,
                field.data_type()
            ))
        })
    }

    fn check_json(&self, batch: &RecordBatch) -> Result<()> {
        for (at, column) in self.definition.columns.iter().enumerate() {
            if !is_json(&column.field) {
                continue;
            }
            let texts = arrow::compute::cast(batch.column(at), &arrow::datatypes::DataType::Utf8)
                .map_err(|error| Error::internal("the new rows cannot be read", error))?;
            for (row, text) in texts.as_string::<i32>().iter().enumerate() {
                let Some(text) = text else { continue };
                if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
                    return Err(Error::InvalidArgument(format!(
                        "column `{}` of table `{}` holds JSON and the value{} is none: {error}",
                        column.field.name(),
                        self.relation.name,
                        self.of_row(batch, row)
                    )));
                }
            }
        }
        Ok(())
    }

    /// A condition that is NULL is met.
    fn check_condition(&self, condition: &Condition, batch: &RecordBatch) -> Result<()> {
        let met = condition
            .expr
            .evaluate(batch)
            .and_then(|value| value.into_array(batch.num_rows()))
            .map_err(execution)?;
        let met = met.as_boolean_opt().ok_or_else(|| {
            Error::internal(
                "a condition of the table has no truth value",
                condition.sql.clone(),
            )
        })?;
        match (0..met.len()).find(|row| met.is_valid(*row) && !met.value(*row)) {
            None => Ok(()),
            Some(row) => Err(Error::InvalidArgument(format!(
                "a row of table `{}`{} does not meet its condition `{}` ({}): change the row",
                self.relation.name,
                self.of_row(batch, row),
                condition.name,
                condition.sql
            ))),
        }
    }

    /// Which row it is, where rows have a key.
    fn of_row(&self, batch: &RecordBatch, row: usize) -> String {
        match self.definition.primary_key() {
            None => String::new(),
            Some(key) => format!(" of {}", key_text(&self.definition, key, batch, row)),
        }
    }
}

/// Refuses an expression that does not decide over one row by itself.
pub(in crate::engine) fn refuse_beyond_row(expr: &Expr, what: &str) -> Result<()> {
    let looks_beyond = expr
        .exists(|expr| {
            Ok(matches!(
                expr,
                Expr::ScalarSubquery(_)
                    | Expr::Exists(_)
                    | Expr::InSubquery(_)
                    | Expr::SetComparison(_)
                    | Expr::AggregateFunction(_)
                    | Expr::WindowFunction(_)
                    | Expr::Placeholder(_)
            ))
        })
        .map_err(planning)?;
    if looks_beyond {
        return Err(Error::InvalidArgument(format!(
            "{what} looks beyond its row: use no subquery, aggregate or parameter in it"
        )));
    }
    Ok(())
}
