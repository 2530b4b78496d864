//! Values in another type, or not at all: what a type cannot hold as it is, as
//! 1.5 for an integer, is an error and never rounded.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, UInt64Array, make_array};
use arrow::compute::{CastOptions, can_cast_types, cast, cast_with_options, take};
use arrow::datatypes::{DataType, Field};
use datafusion::common::{DataFusionError, ScalarValue};

use super::types::is_uuid;
use super::uuid;

/// What a text is worth where another type is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Texts {
    /// It is read as a value of that type.
    Parsed,
    /// Nothing: only values of one kind are converted into each other, such as
    /// integers into wider ones.
    Kept,
}

/// `column` in the type of `field`, or what to say after the two types.
pub fn converted(column: &ArrayRef, field: &Field, texts: Texts) -> Result<ArrayRef, String> {
    let (given, wanted) = (column.data_type(), field.data_type());
    // A statement that does not tell a parameter's type takes any.
    if given == wanted || *wanted == DataType::Null {
        return Ok(column.clone());
    }
    if texts == Texts::Parsed && is_uuid(field) && plain(given).is_string() {
        return uuid::array_of(column, false).map_err(|error| format!(": {error}"));
    }
    if let DataType::Dictionary(keys, values) = wanted
        && !matches!(given, DataType::Dictionary(..))
        && !values.is_string()
    {
        let values = field.clone().with_data_type(values.as_ref().clone());
        let values = converted(column, &values, texts)?;
        return dictionary(&values, keys).map_err(|error| format!(": {error}"));
    }
    let of_one_kind = texts == Texts::Parsed || given.is_null() || kind(given) == kind(wanted);
    if !of_one_kind || !can_cast_types(given, wanted) {
        return Err(": bind a value of that type".to_owned());
    }
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let unfit = || ", and the value does not fit it: bind a value of that type".to_owned();
    let value = cast_with_options(column, wanted, &strict).map_err(|_| unfit())?;
    if is_exact_by_nature(given, wanted, texts) {
        return Ok(value);
    }
    match cast(&value, given) {
        Ok(back) if back.to_data() == column.to_data() => Ok(value),
        _ => Err(unfit()),
    }
}

/// `values` with each value once, and keys to them. Arrow makes dictionaries of
/// some types only.
fn dictionary(values: &ArrayRef, keys: &DataType) -> Result<ArrayRef, DataFusionError> {
    let mut places = HashMap::new();
    let mut firsts = Vec::new();
    let mut rows = Vec::with_capacity(values.len());
    for row in 0..values.len() {
        if values.is_null(row) {
            rows.push(None);
            continue;
        }
        let value = ScalarValue::try_from_array(values, row)?;
        let place = *places.entry(value).or_insert_with(|| {
            firsts.push(row as u64);
            firsts.len() as u64 - 1
        });
        rows.push(Some(place));
    }
    let once = take(values, &UInt64Array::from(firsts), None)?;
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let places = cast_with_options(&UInt64Array::from(rows), keys, &strict)?;
    Ok(make_array(
        places
            .to_data()
            .into_builder()
            .data_type(DataType::Dictionary(
                Box::new(keys.clone()),
                Box::new(once.data_type().clone()),
            ))
            .add_child_data(once.to_data())
            .build()?,
    ))
}

/// Whether a conversion either fails or keeps what was meant: a text is parsed,
/// and a float of another width is the nearest one.
fn is_exact_by_nature(given: &DataType, wanted: &DataType, texts: Texts) -> bool {
    let (given, wanted) = (plain(given), plain(wanted));
    given.is_null()
        || given.is_string()
        || given.is_binary()
        || (texts == Texts::Parsed && given.is_floating() && wanted.is_floating())
}

fn plain(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => values,
        other => other,
    }
}

/// Types whose values mean the same kind of thing.
#[derive(PartialEq, Eq)]
enum Of<'a> {
    Number,
    Text,
    Bytes,
    Moment,
    Time,
    Duration,
    Itself(&'a DataType),
    Nested,
}

fn kind(data_type: &DataType) -> Of<'_> {
    match plain(data_type) {
        number if number.is_numeric() => Of::Number,
        text if text.is_string() => Of::Text,
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => Of::Bytes,
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(_, _) => Of::Moment,
        DataType::Time32(_) | DataType::Time64(_) => Of::Time,
        DataType::Duration(_) => Of::Duration,
        nested if nested.is_nested() => Of::Nested,
        other => Of::Itself(other),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int32Array, Int64Array, StringArray};

    use super::*;

    #[test]
    fn values_of_one_kind_are_converted_where_none_is_lost() {
        let check = |column: ArrayRef, wanted: DataType, fits: bool| {
            let made = converted(&column, &Field::new("c", wanted.clone(), true), Texts::Kept);
            assert_eq!(made.is_ok(), fits, "{} to {wanted}", column.data_type());
        };
        let int: ArrayRef = Arc::new(Int32Array::from(vec![7]));
        let large: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX]));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["7"]));
        let float: ArrayRef = Arc::new(Float64Array::from(vec![0.1]));
        check(int.clone(), DataType::Int64, true);
        check(int.clone(), DataType::Float64, true);
        check(large.clone(), DataType::Int32, false);
        check(large, DataType::Float64, false);
        check(text.clone(), DataType::LargeUtf8, true);
        check(text.clone(), DataType::Int32, false);
        check(int, DataType::Utf8, false);
        check(float, DataType::Float32, false);
        let int = Field::new("c", DataType::Int32, true);
        assert!(converted(&text, &int, Texts::Parsed).is_ok());
    }
}
