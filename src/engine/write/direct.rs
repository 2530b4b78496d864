//! Rows that a statement gives as they are: values and parameters.
//!
//! Most INSERTs are of this kind, and planning a query for them would take longer
//! than writing them. Anything that has to be computed is a query.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::common::{Column, DataFusionError, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::engine::fault::execution;
use crate::engine::params;
use crate::engine::types::type_name;
use crate::error::{Error, Result};

/// Values that are given in one statement at most; more of them are a query.
const VALUES_MAX: usize = 65_536;

/// Values of a statement that are few.
const FEW_VALUES: usize = 256;

/// Rows of values and parameters.
#[derive(Debug)]
pub(in crate::engine) struct DirectRows {
    rows: Vec<Vec<Given>>,
    /// The columns that the values are for.
    columns: SchemaRef,
    parameters: SchemaRef,
    /// The query that yields them, where they are one row that may be run for many.
    plan: Option<Box<LogicalPlan>>,
}

/// One value of a row, to be cast to types in turn.
#[derive(Clone, Debug)]
struct Given {
    value: Value,
    casts: Vec<DataType>,
}

#[derive(Clone, Debug)]
enum Value {
    Literal(ScalarValue),
    /// The parameter at this place.
    Parameter(usize),
}

impl DirectRows {
    /// The rows of `plan`, a projection of VALUES, if they are given as they are.
    pub fn of(plan: &LogicalPlan) -> Result<Option<Self>> {
        let LogicalPlan::Projection(projection) = plan else {
            return Ok(None);
        };
        let LogicalPlan::Values(values) = projection.input.as_ref() else {
            return Ok(None);
        };
        if values.values.len().saturating_mul(projection.expr.len()) > VALUES_MAX {
            return Ok(None);
        }
        let names = values.schema.columns();
        let mut rows = Vec::with_capacity(values.values.len());
        for given in &values.values {
            let row: Option<Vec<Given>> = projection
                .expr
                .iter()
                .map(|expr| Given::of(expr, &names, given))
                .collect();
            match row {
                Some(row) => rows.push(row),
                None => return Ok(None),
            }
        }
        let columns = Arc::clone(projection.schema.inner());
        let parameters = params::parameter_schema(plan)?;
        let runs_for_many = rows.len() == 1 && !parameters.fields().is_empty();
        Ok(Some(DirectRows {
            rows,
            columns,
            parameters,
            plan: runs_for_many.then(|| Box::new(plan.clone())),
        }))
    }

    /// The types of the parameters.
    pub fn parameters(&self) -> &SchemaRef {
        &self.parameters
    }

    /// Whether the values are few.
    pub fn are_few(&self) -> bool {
        self.rows.len() * self.columns.fields().len() <= FEW_VALUES
    }

    /// The columns with `values` for the parameters, and how many rows there are.
    pub fn columns(&self, values: &[ScalarValue]) -> Result<(Vec<ArrayRef>, usize)> {
        let values = params::typed_scalars(&self.parameters, values)?;
        let columns = self
            .columns
            .fields()
            .iter()
            .enumerate()
            .map(|(at, field)| {
                let column = self
                    .rows
                    .iter()
                    .map(|row| row[at].evaluate(&values, field))
                    .collect::<Result<Vec<_>>>()?;
                ScalarValue::iter_to_array(column).map_err(execution)
            })
            .collect::<Result<_>>()?;
        Ok((columns, self.rows.len()))
    }
}

impl Given {
    /// What `expr` means in a row of VALUES with these columns.
    fn of(expr: &Expr, names: &[Column], row: &[Expr]) -> Option<Self> {
        match expr {
            Expr::Alias(alias) => Given::of(&alias.expr, names, row),
            Expr::Column(column) => {
                let at = names.iter().position(|name| name == column)?;
                // The expressions of VALUES have no columns of their own.
                Given::of(row.get(at)?, &[], &[])
            }
            Expr::Cast(cast) => {
                let mut given = Given::of(&cast.expr, names, row)?;
                given.casts.push(cast.field.data_type().clone());
                Some(given)
            }
            Expr::Literal(value, _) => Some(Given {
                value: Value::Literal(value.clone()),
                casts: Vec::new(),
            }),
            Expr::Negative(inner) => match inner.as_ref() {
                Expr::Literal(value, _) => Some(Given {
                    value: Value::Literal(value.arithmetic_negate().ok()?),
                    casts: Vec::new(),
                }),
                _ => None,
            },
            Expr::Placeholder(placeholder) => {
                let number: usize = placeholder.id.strip_prefix('$')?.parse().ok()?;
                Some(Given {
                    value: Value::Parameter(number.checked_sub(1)?),
                    casts: Vec::new(),
                })
            }
            _ => None,
        }
    }

    fn evaluate(&self, parameters: &[ScalarValue], field: &Field) -> Result<ScalarValue> {
        let mut value = match &self.value {
            Value::Literal(value) => value.clone(),
            Value::Parameter(at) => parameters.get(*at).cloned().ok_or_else(|| {
                Error::internal("the statement cannot be run", "a parameter has no value")
            })?,
        };
        for cast in self.casts.iter().chain([field.data_type()]) {
            if value.data_type() != *cast {
                value = value.cast_to(cast).map_err(|error| unfit(field, &error))?;
            }
        }
        Ok(value)
    }
}

fn unfit(field: &Field, error: &DataFusionError) -> Error {
    let text = error.strip_backtrace();
    let (_, why) = text.split_once(" error: ").unwrap_or(("", &text));
    Error::InvalidArgument(format!(
        "a value does not fit column `{}`, which is {}: {why}: send one that fits, or declare the \
         column with a wider type",
        field.name(),
        type_name(field)
    ))
}

/// Where the rows of a write come from.
#[derive(Debug)]
pub(in crate::engine) enum Rows {
    /// The statement itself.
    Direct(Box<DirectRows>),
    /// A query.
    Query(Arc<crate::engine::reading::Reading>),
}

impl Rows {
    /// The query that yields them, unless they are more than a row of values.
    pub fn plan(&self) -> Option<&LogicalPlan> {
        match self {
            Rows::Direct(rows) => rows.plan.as_deref(),
            Rows::Query(reading) => Some(reading.plan()),
        }
    }

    /// The types of the parameters.
    pub fn parameters(&self) -> &SchemaRef {
        match self {
            Rows::Direct(rows) => rows.parameters(),
            Rows::Query(reading) => reading.parameters(),
        }
    }
}
