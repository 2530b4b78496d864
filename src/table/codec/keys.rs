//! What tells rows apart in a key: SQL's equality, where that is not of the bits.
//!
//! SQL holds the two zeros of a float equal, and a key holds every NaN equal to
//! every other, as in Postgres. Values stay as they are stored; an index that is to
//! be unique is over an expression that makes these alike.

use arrow::array::PrimitiveArray;
use arrow::array::types::{ArrowPrimitiveType, Float16Type, Float32Type, Float64Type};
use arrow::datatypes::DataType;
use rusqlite::types::Value;

use super::encode_scalar;

/// The stored form of `-0.0` in every width, next to that of `0.0`, which is 0.
const NEGATIVE_ZERO: i64 = -1;

/// How a key holds a float.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatKey {
    /// The stored form of the least number.
    lowest: i64,
    /// The stored form of the greatest number.
    highest: i64,
    /// The stored form of the NaN that stands for all.
    nan: i64,
}

impl FloatKey {
    /// `None` for types whose equal values are stored alike.
    pub fn of(data_type: &DataType) -> Option<Self> {
        macro_rules! ends {
            ($t:ty) => {{
                type Native = <$t as ArrowPrimitiveType>::Native;
                let ends = [Native::NEG_INFINITY, Native::INFINITY, Native::NAN];
                let ends = PrimitiveArray::<$t>::from_iter_values(ends);
                let stored = |row| match encode_scalar(&ends, row) {
                    Ok(Value::Integer(stored)) => Some(stored),
                    _ => None,
                };
                Some(FloatKey {
                    lowest: stored(0)?,
                    highest: stored(1)?,
                    nan: stored(2)?,
                })
            }};
        }
        match data_type {
            DataType::Float16 => ends!(Float16Type),
            DataType::Float32 => ends!(Float32Type),
            DataType::Float64 => ends!(Float64Type),
            _ => None,
        }
    }

    /// SQLite's expression for the key's form of a stored value.
    pub fn sql(&self, value: &str) -> String {
        let FloatKey {
            lowest,
            highest,
            nan,
        } = self;
        format!(
            "CASE WHEN {value} = {NEGATIVE_ZERO} THEN 0 \
             WHEN {value} < {lowest} OR {value} > {highest} THEN {nan} ELSE {value} END"
        )
    }

    /// The key's form of a stored value.
    pub fn form(&self, stored: Value) -> Value {
        match stored {
            Value::Integer(NEGATIVE_ZERO) => Value::Integer(0),
            Value::Integer(bits) if bits < self.lowest || bits > self.highest => {
                Value::Integer(self.nan)
            }
            other => other,
        }
    }
}

/// SQLite's expression for the key's form of what `value` means, of a type.
pub fn key_sql(data_type: &DataType, value: &str) -> String {
    match FloatKey::of(data_type) {
        Some(key) => key.sql(value),
        None => value.to_owned(),
    }
}
