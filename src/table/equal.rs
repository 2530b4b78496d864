//! Conditions that a column has one value, which a scan keeps to by itself: no
//! filter is needed above it, and nothing of a plan but these values is another
//! when it is run for another key.

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::kernels::cmp::eq;
use arrow::compute::{and, filter_record_batch};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

use super::codec::{self, FloatKey, Ordering};
use super::lookup::column_of;
use crate::catalog::{IndexKind, TableDefinition};
use crate::error::{Error, Result};

/// That a column, by number, has a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Equal {
    pub(super) column: u32,
    value: Given,
}

#[derive(Clone, Debug, PartialEq)]
enum Given {
    Value(ScalarValue),
    /// The parameter at this place, which has no value yet.
    Parameter(usize),
}

impl Equal {
    /// Those of `filters` that a scan keeps to by itself: where they are of a whole
    /// unique key of the table, so that few rows are found, each that is on a column
    /// of an index. A superset of `filters` has a superset of these.
    pub fn all(definition: &TableDefinition, filters: &[&Expr]) -> Vec<Equal> {
        let conjuncts = filters.iter().flat_map(|filter| split_conjunction(filter));
        let equal: Vec<Equal> = conjuncts
            .filter_map(|filter| Equal::of(definition, filter))
            .collect();
        let has = |column: &u32| equal.iter().any(|equal| equal.column == *column);
        let mut indexes = definition.indexes.iter();
        match indexes.any(|index| index.kind != IndexKind::Plain && index.columns.iter().all(has)) {
            true => equal,
            false => Vec::new(),
        }
    }

    /// What `filter` says, if it is that an indexed column equals a value of its type
    /// which SQLite compares as Arrow does.
    pub fn of(definition: &TableDefinition, filter: &Expr) -> Option<Self> {
        let Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Eq,
            right,
        }) = filter
        else {
            return None;
        };
        let ((column, data_type), value) = match column_of(definition, left) {
            Some(column) => (column, right),
            None => (column_of(definition, right)?, left),
        };
        let value = match value.as_ref() {
            Expr::Literal(value, _) if value.data_type() == *data_type => {
                Given::Value(value.clone())
            }
            Expr::Placeholder(Placeholder {
                id,
                field: Some(field),
            }) if field.data_type() == data_type => {
                let number: usize = id.strip_prefix('$')?.parse().ok()?;
                Given::Parameter(number.checked_sub(1)?)
            }
            _ => return None,
        };
        let mut indexes = definition.indexes.iter();
        let is_indexed = indexes.any(|index| index.columns.contains(&column));
        (is_indexed && is_plain(data_type)).then_some(Equal { column, value })
    }

    /// With the value that it has where the parameters have `values`.
    pub(super) fn given(&self, values: &[ScalarValue]) -> Result<Self> {
        let value = match &self.value {
            Given::Value(value) => value.clone(),
            Given::Parameter(at) => values.get(*at).cloned().ok_or_else(|| {
                Error::internal("the statement cannot be run", "a parameter has no value")
            })?,
        };
        Ok(Equal {
            column: self.column,
            value: Given::Value(value),
        })
    }

    /// The value.
    ///
    /// # Errors
    /// A defect: it is a parameter's still.
    pub(super) fn value(&self) -> Result<&ScalarValue> {
        match &self.value {
            Given::Value(value) => Ok(value),
            Given::Parameter(at) => Err(Error::internal(
                "the statement cannot be run",
                format!("parameter {} has no value", at + 1),
            )),
        }
    }
}

/// Whether equal values of the type are stored alike and compared alike: all but
/// floats, whose zeros are not, and what Arrow compares only part by part.
fn is_plain(data_type: &DataType) -> bool {
    let is_compared = match data_type {
        DataType::Dictionary(..) | DataType::FixedSizeBinary(0) => false,
        other => codec::ordering(other) != Ordering::None,
    };
    is_compared && FloatKey::of(data_type).is_none()
}

/// The rows of `batch` whose columns have the values.
pub(super) fn rows_with(
    batch: &RecordBatch,
    values: &[(usize, ScalarValue)],
) -> Result<RecordBatch, ArrowError> {
    let mut mask: Option<BooleanArray> = None;
    for (at, value) in values {
        let column: &ArrayRef = batch.column(*at);
        let equals = eq(column, &value.to_scalar().map_err(ArrowError::from)?)?;
        mask = Some(match mask {
            Some(mask) => and(&mask, &equals)?,
            None => equals,
        });
    }
    match mask {
        Some(mask) => filter_record_batch(batch, &mask),
        None => Ok(batch.clone()),
    }
}
