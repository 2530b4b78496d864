//! The numbers of Arrow's primitive types, and the order-preserving forms that
//! SQLite gets of them.
//!
//! Invariant: each form is a bijection between the number's bits and the forms
//! that reading accepts, and keeps the order of Arrow's comparison kernels.

use arrow::array::PrimitiveArray;
use arrow::array::types::*;
use arrow::datatypes::i256;
use rusqlite::types::ValueRef;

use super::cells::{Integers, Plain, Wides};
use super::decode::{Fault, Refusal, wrong_kind};
use super::types::Storage;

/// A primitive type of Arrow.
pub(super) trait Number: ArrowPrimitiveType + Sized {
    /// How many bytes the nested form takes.
    const WIDTH: usize;

    /// The cells of an array.
    fn cells(array: &PrimitiveArray<Self>) -> Box<dyn Plain + '_>;

    /// The number of a stored form.
    fn from_stored(value: ValueRef<'_>) -> Result<Self::Native, Refusal>;

    /// Appends the nested form.
    fn put(number: Self::Native, out: &mut Vec<u8>);

    /// The number of a nested form of exactly [`WIDTH`](Number::WIDTH) bytes.
    fn take(form: &[u8]) -> Option<Self::Native>;
}

/// A type whose numbers an INTEGER holds.
pub(super) trait Integer: Number {
    /// The stored form.
    fn to_integer(number: Self::Native) -> i64;
}

/// A type whose numbers take a BLOB. The stored and the nested form are one.
pub(super) trait Wide: Number {
    /// As many bytes as a number has.
    type Bytes: AsRef<[u8]> + Send + Sync;

    /// The stored form.
    fn to_bytes(number: Self::Native) -> Self::Bytes;
}

macro_rules! integer {
    ($t:ty, $bits:ty, to $to:expr, from $from:expr, bits $to_bits:expr, unbits $from_bits:expr) => {
        impl Number for $t {
            const WIDTH: usize = size_of::<$bits>();

            fn cells(array: &PrimitiveArray<Self>) -> Box<dyn Plain + '_> {
                Box::new(Integers(array))
            }

            #[inline]
            fn from_stored(value: ValueRef<'_>) -> Result<Self::Native, Refusal> {
                match value {
                    ValueRef::Integer(integer) => Ok($from(integer).ok_or(Fault::Range)?),
                    value => Err(wrong_kind(value, Storage::Integer)),
                }
            }

            #[inline]
            fn put(number: Self::Native, out: &mut Vec<u8>) {
                let bits: $bits = $to_bits(number);
                out.extend_from_slice(&bits.to_le_bytes());
            }

            #[inline]
            fn take(form: &[u8]) -> Option<Self::Native> {
                let bits = <$bits>::from_le_bytes(form.try_into().ok()?);
                Some($from_bits(bits))
            }
        }

        impl Integer for $t {
            #[inline]
            fn to_integer(number: Self::Native) -> i64 {
                $to(number)
            }
        }
    };
}

macro_rules! signed {
    ($native:ty, $bits:ty: $($t:ty),+) => { $(
        integer!($t, $bits,
            to i64::from,
            from |integer: i64| <$native>::try_from(integer).ok(),
            bits <$native>::cast_unsigned,
            unbits <$bits>::cast_signed);
    )+ };
}

macro_rules! unsigned {
    ($native:ty: $t:ty) => {
        integer!($t, $native,
            to i64::from,
            from |integer: i64| <$native>::try_from(integer).ok(),
            bits |number: $native| number,
            unbits |bits: $native| bits);
    };
}

// The bits as a signed integer order positive floats as they are and negative
// ones the wrong way round, which flipping the bits below the sign mends. That
// is its own inverse; `f64::total_cmp` does the same.
macro_rules! float {
    ($t:ty, $signed:ty, $bits:ty) => {
        integer!($t, $bits,
            to |number: Self::Native| {
                let bits = number.to_bits().cast_signed();
                i64::from(bits ^ ((bits >> (<$signed>::BITS - 1)) & <$signed>::MAX))
            },
            from |integer: i64| {
                let bits = <$signed>::try_from(integer).ok()?;
                let bits = bits ^ ((bits >> (<$signed>::BITS - 1)) & <$signed>::MAX);
                Some(Self::Native::from_bits(bits.cast_unsigned()))
            },
            bits |number: Self::Native| number.to_bits(),
            unbits Self::Native::from_bits);
    };
}

signed!(i8, u8: Int8Type);
signed!(i16, u16: Int16Type);
signed!(i32, u32: Int32Type, Date32Type, Time32SecondType, Time32MillisecondType);
signed!(i32, u32: IntervalYearMonthType, Decimal32Type);
signed!(i64, u64: Int64Type, Date64Type, Time64MicrosecondType, Time64NanosecondType);
signed!(i64, u64: TimestampSecondType, TimestampMillisecondType);
signed!(i64, u64: TimestampMicrosecondType, TimestampNanosecondType);
signed!(i64, u64: DurationSecondType, DurationMillisecondType);
signed!(i64, u64: DurationMicrosecondType, DurationNanosecondType, Decimal64Type);
unsigned!(u8: UInt8Type);
unsigned!(u16: UInt16Type);
unsigned!(u32: UInt32Type);
integer!(UInt64Type, u64,
    to |number: u64| (number ^ (1 << 63)).cast_signed(),
    from |integer: i64| Some(integer.cast_unsigned() ^ (1 << 63)),
    bits |number: u64| number,
    unbits |bits: u64| bits);
float!(Float16Type, i16, u16);
float!(Float32Type, i32, u32);
float!(Float64Type, i64, u64);

macro_rules! wide {
    ($t:ty, $width:literal, to $to:expr, from $from:expr) => {
        impl Number for $t {
            const WIDTH: usize = $width;

            fn cells(array: &PrimitiveArray<Self>) -> Box<dyn Plain + '_> {
                Box::new(Wides::new(array))
            }

            #[inline]
            fn from_stored(value: ValueRef<'_>) -> Result<Self::Native, Refusal> {
                match value {
                    ValueRef::Blob(bytes) => Ok(Self::take(bytes).ok_or(Fault::Length {
                        found: bytes.len(),
                        expected: $width,
                    })?),
                    value => Err(wrong_kind(value, Storage::Blob)),
                }
            }

            #[inline]
            fn put(number: Self::Native, out: &mut Vec<u8>) {
                out.extend_from_slice(&Self::to_bytes(number));
            }

            #[inline]
            fn take(form: &[u8]) -> Option<Self::Native> {
                let bytes: [u8; $width] = form.try_into().ok()?;
                Some($from(bytes))
            }
        }

        impl Wide for $t {
            type Bytes = [u8; $width];

            #[inline]
            fn to_bytes(number: Self::Native) -> [u8; $width] {
                $to(number)
            }
        }
    };
}

wide!(Decimal128Type, 16,
    to |number: i128| (number ^ i128::MIN).to_be_bytes(),
    from |bytes| i128::from_be_bytes(bytes) ^ i128::MIN);
wide!(Decimal256Type, 32,
    to |number: i256| (number ^ i256::MIN).to_be_bytes(),
    from |bytes| i256::from_be_bytes(bytes) ^ i256::MIN);
wide!(IntervalDayTimeType, 8,
to |interval: IntervalDayTime| {
    let parts = (part(interval.days) << 32) | part(interval.milliseconds);
    parts.to_be_bytes()
},
from |bytes| {
    let parts = u64::from_be_bytes(bytes);
    IntervalDayTime::new(unpart(parts >> 32), unpart(parts))
});
wide!(IntervalMonthDayNanoType, 16,
to |interval: IntervalMonthDayNano| {
    let calendar = (part(interval.months) << 32) | part(interval.days);
    let nanoseconds = (interval.nanoseconds ^ i64::MIN).cast_unsigned();
    ((u128::from(calendar) << 64) | u128::from(nanoseconds)).to_be_bytes()
},
from |bytes| {
    let parts = u128::from_be_bytes(bytes);
    let calendar = (parts >> 64) as u64;
    let nanoseconds = (parts as u64).cast_signed() ^ i64::MIN;
    IntervalMonthDayNano::new(unpart(calendar >> 32), unpart(calendar), nanoseconds)
});

/// A part of an interval with its sign bit flipped.
#[inline]
fn part(part: i32) -> u64 {
    u64::from((part ^ i32::MIN).cast_unsigned())
}

/// The part that the lower 32 bits hold.
#[inline]
fn unpart(bits: u64) -> i32 {
    (bits as u32).cast_signed() ^ i32::MIN
}
