//! Which Arrow types a column may have, how each is stored and what its order
//! is worth.
//!
//! Invariant: a type that [`check_type`] accepts is written and read by every
//! part of the codec; one that it refuses is refused by every part, so that
//! no table can hold a value that nothing reads back.

use std::fmt;

use arrow::array::types::{Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type};
use arrow::array::types::{DecimalType, validate_decimal_precision_and_scale};
use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};

use crate::error::Error;

/// How deep a column's type may nest, the outermost type counted.
pub const LEVELS_MAX: usize = 32;

/// How many bytes one value of a fixed size may take in memory, for Arrow
/// reserves that much for a NULL too.
pub const SLOT_BYTES_MAX: usize = 1 << 20;

/// A type that no column may have: declare another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} cannot be stored in a table: {mend}")]
pub struct Unsupported {
    what: String,
    mend: &'static str,
}

impl Unsupported {
    fn new(data_type: &DataType, mend: &'static str) -> Self {
        Unsupported {
            what: format!("type {data_type}"),
            mend,
        }
    }
}

impl From<Unsupported> for Error {
    fn from(unsupported: Unsupported) -> Self {
        Error::InvalidArgument(unsupported.to_string())
    }
}

/// The kind of SQLite value that holds a type's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Storage {
    /// `typeof(..) = 'integer'`.
    Integer,
    /// `typeof(..) = 'text'`.
    Text,
    /// `typeof(..) = 'blob'`.
    Blob,
}

impl Storage {
    /// The name that SQLite's `typeof` gives it.
    pub fn as_str(self) -> &'static str {
        match self {
            Storage::Integer => "integer",
            Storage::Text => "text",
            Storage::Blob => "blob",
        }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What SQLite's comparison of stored values says about the values themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ordering {
    /// `=`, `<`, `<=`, `>`, `>=`, BETWEEN, IN, MIN, MAX and ORDER BY hold of
    /// the values exactly when they hold of what is stored, by the order of
    /// Arrow's comparison kernels.
    ///
    /// SQL holds the two zeros of a float equal where the kernels do not:
    /// compare with what [`encode_bounds`](super::encode_bounds) gives, which
    /// is exact for every type of this kind.
    Total,
    /// Equal values, and only those, are stored alike. Their order means
    /// nothing.
    Equality,
    /// Neither: compare after reading.
    None,
}

/// Says whether a column may have the type.
///
/// Refused by name: `Null`, unions, run-end encoding, dictionaries of anything
/// but plain values, types that nest deeper than [`LEVELS_MAX`], values of a
/// fixed size above [`SLOT_BYTES_MAX`], and malformed types (a precision out of
/// range, a map whose keys may be NULL).
pub fn check_type(data_type: &DataType) -> Result<(), Unsupported> {
    check_level(data_type, 1)
}

/// The kind of SQLite value that holds the type's values.
pub fn storage(data_type: &DataType) -> Result<Storage, Unsupported> {
    check_type(data_type)?;
    Ok(storage_of(data_type))
}

/// What SQLite's comparison of stored values is worth for the type.
pub fn ordering(data_type: &DataType) -> Ordering {
    if check_type(data_type).is_err() {
        return Ordering::None;
    }
    match data_type {
        // Whether the two zeros of a float in a dictionary are equal depends
        // on how an expression happens to unpack the dictionary.
        DataType::Dictionary(_, value) if value.is_floating() => Ordering::None,
        DataType::Dictionary(_, value) => ordering(value),
        data_type if is_nested(data_type) => Ordering::Equality,
        _ => Ordering::Total,
    }
}

/// As [`storage`], of a type already checked.
pub(super) fn storage_of(data_type: &DataType) -> Storage {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Storage::Text,
        DataType::Decimal128(..)
        | DataType::Decimal256(..)
        | DataType::Interval(IntervalUnit::DayTime | IntervalUnit::MonthDayNano)
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => Storage::Blob,
        DataType::Dictionary(_, value) => storage_of(value),
        data_type if is_nested(data_type) => Storage::Blob,
        _ => Storage::Integer,
    }
}

/// Whether values have the nested form. Arrow counts dictionaries in where
/// their values are nested; none is here.
pub(super) fn is_nested(data_type: &DataType) -> bool {
    data_type.is_nested() && !matches!(data_type, DataType::Dictionary(..))
}

/// The refusal of a type that a match below [`check_type`] does not know.
pub(super) fn unknown(data_type: &DataType) -> Unsupported {
    Unsupported::new(data_type, "declare the column with another type")
}

fn check_level(data_type: &DataType, level: usize) -> Result<(), Unsupported> {
    let refuse = |mend| Err(Unsupported::new(data_type, mend));
    if level > LEVELS_MAX {
        // The type itself is left out: naming it would walk down all of it.
        return Err(Unsupported {
            what: format!("a type of more than {LEVELS_MAX} levels"),
            mend: "nest less deeply, or keep the inner part as JSON text",
        });
    }
    match data_type {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Float16
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32
        | DataType::Date64
        | DataType::Timestamp(..)
        | DataType::Duration(_)
        | DataType::Interval(_)
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::Time32(TimeUnit::Second | TimeUnit::Millisecond)
        | DataType::Time64(TimeUnit::Microsecond | TimeUnit::Nanosecond) => Ok(()),
        DataType::Time32(_) => refuse("use Time64 for microseconds and nanoseconds"),
        DataType::Time64(_) => refuse("use Time32 for seconds and milliseconds"),
        DataType::Decimal32(precision, scale) => {
            check_decimal::<Decimal32Type>(data_type, *precision, *scale)
        }
        DataType::Decimal64(precision, scale) => {
            check_decimal::<Decimal64Type>(data_type, *precision, *scale)
        }
        DataType::Decimal128(precision, scale) => {
            check_decimal::<Decimal128Type>(data_type, *precision, *scale)
        }
        DataType::Decimal256(precision, scale) => {
            check_decimal::<Decimal256Type>(data_type, *precision, *scale)
        }
        DataType::FixedSizeBinary(size) if *size < 0 => refuse("give a size of 0 or more"),
        DataType::FixedSizeBinary(_) if slot_bytes(data_type) > SLOT_BYTES_MAX => {
            refuse("a fixed size may take at most 1 MiB, use Binary")
        }
        DataType::FixedSizeBinary(_) => Ok(()),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => check_level(item.data_type(), level + 1),
        DataType::FixedSizeList(_, size) if *size < 0 => refuse("give a size of 0 or more"),
        DataType::FixedSizeList(item, _) => {
            check_level(item.data_type(), level + 1)?;
            if slot_bytes(data_type) > SLOT_BYTES_MAX {
                return refuse("a fixed size may take at most 1 MiB, use List");
            }
            Ok(())
        }
        DataType::Struct(fields) => fields
            .iter()
            .try_for_each(|field| check_level(field.data_type(), level + 1)),
        DataType::Map(entries, _) => check_map(data_type, entries, level),
        DataType::Dictionary(key, value) => check_dictionary(data_type, key, value, level),
        DataType::Null => refuse("declare the column with the type of its values"),
        DataType::Union(..) => refuse("use a Struct with a nullable field for each alternative"),
        DataType::RunEndEncoded(..) => refuse("declare the column with the type of its values"),
    }
}

fn check_decimal<T: DecimalType>(
    data_type: &DataType,
    precision: u8,
    scale: i8,
) -> Result<(), Unsupported> {
    validate_decimal_precision_and_scale::<T>(precision, scale).map_err(|_| {
        Unsupported::new(
            data_type,
            "give a precision that the type has and a scale of at most the precision",
        )
    })
}

/// A map is a list of entries (key, value), of which neither an entry nor a
/// key may be NULL. Arrow refuses arrays of any other shape.
fn check_map(data_type: &DataType, entries: &Field, level: usize) -> Result<(), Unsupported> {
    match entries.data_type() {
        DataType::Struct(fields)
            if fields.len() == 2 && !entries.is_nullable() && !fields[0].is_nullable() =>
        {
            check_level(entries.data_type(), level + 1)
        }
        _ => Err(Unsupported::new(
            data_type,
            "declare its entries as a Struct of key and value, entries and keys NOT NULL",
        )),
    }
}

fn check_dictionary(
    data_type: &DataType,
    key: &DataType,
    value: &DataType,
    level: usize,
) -> Result<(), Unsupported> {
    if !key.is_dictionary_key_type() {
        return Err(Unsupported::new(data_type, "use an integer type for keys"));
    }
    if value.is_nested() || matches!(value, DataType::Dictionary(..)) {
        return Err(Unsupported::new(
            data_type,
            "use a dictionary of plain values, or declare the column with the type of its values",
        ));
    }
    check_level(value, level + 1)
}

/// What one value takes in the arrays themselves, apart from what it refers to.
fn slot_bytes(data_type: &DataType) -> usize {
    match data_type {
        DataType::FixedSizeBinary(size) => usize::try_from(*size).unwrap_or(0),
        DataType::FixedSizeList(item, size) => usize::try_from(*size)
            .unwrap_or(0)
            .saturating_mul(slot_bytes(item.data_type()).max(1)),
        DataType::Struct(fields) => fields.iter().fold(0, |bytes, field| {
            slot_bytes(field.data_type()).saturating_add(bytes)
        }),
        data_type => data_type.primitive_width().unwrap_or(16),
    }
}
