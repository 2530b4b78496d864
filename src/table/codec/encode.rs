//! Writing: Arrow arrays as the SQLite values that statements bind.
//!
//! Invariant: once an encoder is made, nothing about the values can fail; what
//! may fail from then on is SQLite.

use arrow::array::types::{ArrowPrimitiveType, Float16Type, Float32Type, Float64Type};
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::DataType;
use rusqlite::Statement;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};

use super::cells::{Cells, cells};
use super::types::{Unsupported, check_type};

/// A row that SQLite did not take.
#[derive(Debug, thiserror::Error)]
#[error("row {row}: {source}")]
pub struct FailedRow {
    /// The row, counted from 0 within the arrays.
    pub row: usize,
    /// What SQLite said.
    #[source]
    pub source: rusqlite::Error,
}

/// The rows of some arrays of one length, as SQLite values.
///
/// Making one looks at the types once. Values are borrowed from the arrays;
/// only wide numbers and nested values are copied, all of them when the encoder
/// is made.
///
/// ```text
/// let encoder = RowEncoder::new(batch.columns())?;
/// let mut insert = transaction.prepare_cached("INSERT INTO t1 (_row, c1, c2) VALUES (?1, ?2, ?3)")?;
/// encoder.insert_rows(&mut insert, 1, next_row, 2)?;
/// ```
pub struct RowEncoder<'a> {
    columns: Vec<Box<dyn Cells + 'a>>,
    rows: usize,
}

impl<'a> RowEncoder<'a> {
    /// An encoder of the arrays. Where one is shorter than the others, the rows
    /// end with it.
    pub fn new(arrays: &'a [ArrayRef]) -> Result<Self, Unsupported> {
        let columns = arrays
            .iter()
            .map(|array| {
                check_type(array.data_type())?;
                cells(array.as_ref())
            })
            .collect::<Result<_, _>>()?;
        Ok(RowEncoder {
            columns,
            rows: arrays.iter().map(|array| array.len()).min().unwrap_or(0),
        })
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many columns there are.
    pub fn columns(&self) -> usize {
        self.columns.len()
    }

    /// The stored form of a value.
    ///
    /// # Panics
    ///
    /// If there is no such row or column.
    #[inline]
    pub fn value(&self, row: usize, column: usize) -> ValueRef<'_> {
        self.columns[column].value(row)
    }

    /// Binds a value to a parameter, counted from 1.
    ///
    /// # Panics
    ///
    /// If there is no such row or column.
    pub fn bind(
        &self,
        statement: &mut Statement<'_>,
        parameter: usize,
        row: usize,
        column: usize,
    ) -> rusqlite::Result<()> {
        let value = self.columns[column].value(row);
        statement.raw_bind_parameter(parameter, ToSqlOutput::Borrowed(value))
    }

    /// Binds a row to as many parameters as there are columns, from
    /// `parameter` on, counted from 1.
    ///
    /// # Panics
    ///
    /// If there is no such row.
    pub fn bind_row(
        &self,
        statement: &mut Statement<'_>,
        parameter: usize,
        row: usize,
    ) -> rusqlite::Result<()> {
        for (offset, column) in self.columns.iter().enumerate() {
            let value = ToSqlOutput::Borrowed(column.value(row));
            statement.raw_bind_parameter(parameter + offset, value)?;
        }
        Ok(())
    }

    /// Executes the statement once for each row, in order, with a row number
    /// that counts up from `first_row` bound to the parameter `row_parameter`
    /// and the row's values to those from `parameter` on.
    ///
    /// Other parameters keep what the caller bound to them before.
    pub fn insert_rows(
        &self,
        statement: &mut Statement<'_>,
        row_parameter: usize,
        first_row: i64,
        parameter: usize,
    ) -> Result<(), FailedRow> {
        for (row, number) in (0..self.rows).zip(first_row..) {
            statement
                .raw_bind_parameter(row_parameter, number)
                .and_then(|()| self.bind_row(statement, parameter, row))
                .and_then(|()| statement.raw_execute())
                .map_err(|source| FailedRow { row, source })?;
        }
        Ok(())
    }
}

/// The stored form of one value, owned.
///
/// # Panics
///
/// If there is no such row.
pub fn encode_scalar(array: &dyn Array, row: usize) -> Result<Value, Unsupported> {
    check_type(array.data_type())?;
    let array = array.slice(row, 1);
    let value = Value::try_from(cells(array.as_ref())?.value(0));
    Ok(value.expect("arrow's texts are UTF-8"))
}

/// The least and the greatest stored form of the values that SQL holds equal to
/// this one; none if it is NULL.
///
/// The two differ for the zeros of floats alone: SQL holds `-0.0` and `0.0`
/// equal, and they are stored next to each other. With `low` and `high`, a
/// predicate on the values is, exactly:
///
/// | of the values | of what is stored |
/// |---|---|
/// | `c = v` | `c BETWEEN low AND high` |
/// | `c < v` | `c < low` |
/// | `c <= v` | `c <= high` |
/// | `c > v` | `c > high` |
/// | `c >= v` | `c >= low` |
///
/// # Panics
///
/// If there is no such row.
pub fn encode_bounds(array: &dyn Array, row: usize) -> Result<Option<(Value, Value)>, Unsupported> {
    macro_rules! zeros {
        ($t:ty) => {{
            let array = array.as_primitive::<$t>();
            let value = array.value(row);
            if array.is_valid(row) && value == -value {
                let zero = <$t as ArrowPrimitiveType>::Native::default();
                let zeros = PrimitiveArray::<$t>::from_iter_values([-zero, zero]);
                return Ok(Some((encode_scalar(&zeros, 0)?, encode_scalar(&zeros, 1)?)));
            }
        }};
    }
    match array.data_type() {
        DataType::Float16 => zeros!(Float16Type),
        DataType::Float32 => zeros!(Float32Type),
        DataType::Float64 => zeros!(Float64Type),
        _ => {}
    }
    Ok(match encode_scalar(array, row)? {
        Value::Null => None,
        value => Some((value.clone(), value)),
    })
}
