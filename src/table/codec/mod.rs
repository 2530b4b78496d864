//! The encoding of Arrow values as SQLite values, and back.
//!
//! Invariant: what is written is read back equal to the bit, in the declared
//! data type; and wherever [`ordering`] says [`Ordering::Total`], SQLite orders
//! the stored values (`BINARY` collation, columns without an affinity) as
//! Arrow's comparison kernels order the values themselves.
//!
//! | type | stored as |
//! |---|---|
//! | Boolean | INTEGER 0 or 1 |
//! | signed integers, Decimal32/64, dates, times, timestamps, durations, year-month intervals | INTEGER, as it is |
//! | UInt8 to UInt32 | INTEGER, as it is |
//! | UInt64 | INTEGER with the sign bit flipped, so that the upper half sorts above |
//! | Float16/32/64 | INTEGER: the bits, those below the sign flipped for negative values (IEEE 754 totalOrder) |
//! | Decimal128/256 | BLOB of 16 or 32 bytes, big-endian, sign bit flipped |
//! | day-time and month-day-nano intervals | BLOB, each part big-endian with its sign bit flipped |
//! | Utf8, LargeUtf8, Utf8View | TEXT |
//! | Binary kinds, FixedSizeBinary | BLOB |
//! | lists, list views, Struct, Map | BLOB in a form of our own (`nested`) |
//! | Dictionary | as its value |
//! | NULL | NULL |
//!
//! [`RowEncoder`] looks at the types of a batch once and then binds value after
//! value to a statement; [`BatchDecoder`] chooses a builder for each column
//! once and then takes row after row. Neither allocates for a value, save what
//! the arrays read take.
//!
//! Absent: table names, row numbers, tenants and SQL text. Those are the
//! business of whoever holds the statement.

mod bytes;
mod cells;
mod columns;
mod decode;
mod dictionary;
mod encode;
mod keys;
mod nested;
mod numbers;
mod types;

pub use decode::{BatchDecoder, ColumnDecoder, Damaged, Decoded, Fault};
pub use encode::{FailedRow, RowEncoder, encode_bounds, encode_scalar};
pub use keys::{FloatKey, key_sql};
pub use types::{LEVELS_MAX, Ordering, SLOT_BYTES_MAX, Storage, Unsupported};
pub use types::{check_type, ordering, storage};

#[cfg(test)]
mod tests;
