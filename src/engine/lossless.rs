//! Values in another type, or not at all: what a type cannot hold as it is, as
//! 1.5 for an integer, is an error and never rounded.

use arrow::array::ArrayRef;
use arrow::compute::{CastOptions, can_cast_types, cast, cast_with_options};
use arrow::datatypes::DataType;

/// What a text is worth where another type is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Texts {
    /// It is read as a value of that type.
    Parsed,
    /// Nothing: only values of one kind are converted into each other, such as
    /// integers into wider ones.
    Kept,
}

/// `column` in type `wanted`, or what to say after the two types.
pub fn converted(column: &ArrayRef, wanted: &DataType, texts: Texts) -> Result<ArrayRef, String> {
    let given = column.data_type();
    // A statement that does not tell a parameter's type takes any.
    if given == wanted || *wanted == DataType::Null {
        return Ok(column.clone());
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
            let made = converted(&column, &wanted, Texts::Kept);
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
        assert!(converted(&text, &DataType::Int32, Texts::Parsed).is_ok());
    }
}
