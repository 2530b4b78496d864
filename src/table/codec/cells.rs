//! The cells of one array: each value in the form that SQLite stores, borrowed
//! from the array wherever the array holds it in that form.
//!
//! Invariant: everything that can fail has failed by the time [`cells`] returns.

use std::marker::PhantomData;
use std::ops::Range;

use arrow::array::types::ArrowDictionaryKeyType;
use arrow::array::{Array, ArrayAccessor, AsArray, BooleanArray, DictionaryArray};
use arrow::array::{FixedSizeBinaryArray, PrimitiveArray, downcast_integer, downcast_primitive};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{ArrowNativeType, DataType};
use rusqlite::types::ValueRef;

use super::nested::{self, NestedCells, nested_forms};
use super::numbers::{Integer, Number, Wide};
use super::types::{Unsupported, is_nested, unknown};

/// The cells of one array, as SQLite stores them.
pub(super) trait Cells: Send + Sync {
    /// The stored form of the cell.
    fn value(&self, row: usize) -> ValueRef<'_>;
}

/// The cells of one array, as parts of a nested value.
pub(super) trait Forms: Send + Sync {
    /// Which cells are NULL, if any is.
    fn nulls(&self) -> Option<&NullBuffer>;

    /// Appends the nested forms of the cells, none of which is NULL.
    fn put(&self, rows: Range<usize>, out: &mut Vec<u8>);
}

/// The cells of a plain array, which may be either.
pub(super) trait Plain: Cells + Forms {}

impl<T: Cells + Forms> Plain for T {}

/// The cells of an array, of a type already checked.
pub(super) fn cells<'a>(array: &'a dyn Array) -> Result<Box<dyn Cells + 'a>, Unsupported> {
    match is_nested(array.data_type()) {
        true => Ok(Box::new(NestedCells::new(array)?)),
        false => Ok(plain(array)?),
    }
}

/// The cells of an array inside a nested value, of a type already checked.
pub(super) fn forms<'a>(array: &'a dyn Array) -> Result<Box<dyn Forms + 'a>, Unsupported> {
    match is_nested(array.data_type()) {
        true => nested_forms(array),
        false => Ok(plain(array)?),
    }
}

fn plain<'a>(array: &'a dyn Array) -> Result<Box<dyn Plain + 'a>, Unsupported> {
    macro_rules! primitive {
        ($t:ty) => {
            Ok(<$t>::cells(array.as_primitive()))
        };
    }
    macro_rules! dictionary {
        ($t:ty) => {
            Ok(Box::new(Dictionaries::new(array.as_dictionary::<$t>())?))
        };
    }
    downcast_primitive! {
        array.data_type() => (primitive),
        DataType::Boolean => Ok(Box::new(Booleans(array.as_boolean()))),
        DataType::Utf8 => Ok(Box::new(Texts(array.as_string::<i32>(), PhantomData))),
        DataType::LargeUtf8 => Ok(Box::new(Texts(array.as_string::<i64>(), PhantomData))),
        DataType::Utf8View => Ok(Box::new(Texts(array.as_string_view(), PhantomData))),
        DataType::Binary => Ok(Box::new(Blobs(array.as_binary::<i32>(), PhantomData))),
        DataType::LargeBinary => Ok(Box::new(Blobs(array.as_binary::<i64>(), PhantomData))),
        DataType::BinaryView => Ok(Box::new(Blobs(array.as_binary_view(), PhantomData))),
        DataType::FixedSizeBinary(_) => Ok(Box::new(FixedBlobs(array.as_fixed_size_binary()))),
        DataType::Dictionary(key, _) => downcast_integer! {
            key.as_ref() => (dictionary),
            _ => Err(unknown(array.data_type())),
        },
        data_type => Err(unknown(data_type)),
    }
}

/// Whether the cell is NULL.
#[inline]
pub(super) fn is_null(nulls: Option<&NullBuffer>, row: usize) -> bool {
    nulls.is_some_and(|nulls| nulls.is_null(row))
}

/// Numbers that an INTEGER holds.
pub(super) struct Integers<'a, T: Integer>(pub(super) &'a PrimitiveArray<T>);

impl<T: Integer> Cells for Integers<'_, T> {
    fn value(&self, row: usize) -> ValueRef<'_> {
        match self.0.is_null(row) {
            true => ValueRef::Null,
            false => ValueRef::Integer(T::to_integer(self.0.value(row))),
        }
    }
}

impl<T: Integer> Forms for Integers<'_, T> {
    fn nulls(&self) -> Option<&NullBuffer> {
        self.0.nulls()
    }

    fn put(&self, rows: Range<usize>, out: &mut Vec<u8>) {
        out.reserve(rows.len() * T::WIDTH);
        let numbers = &self.0.values()[rows];
        numbers.iter().for_each(|number| T::put(*number, out));
    }
}

/// Numbers that take a BLOB. Arrow holds them in the machine's form, so the
/// stored forms are made here, all at once.
pub(super) struct Wides<'a, T: Wide> {
    values: Vec<T::Bytes>,
    nulls: Option<&'a NullBuffer>,
}

impl<'a, T: Wide> Wides<'a, T> {
    pub(super) fn new(array: &'a PrimitiveArray<T>) -> Self {
        let numbers = array.values().iter();
        Wides {
            values: numbers.map(|number| T::to_bytes(*number)).collect(),
            nulls: array.nulls(),
        }
    }
}

impl<T: Wide> Cells for Wides<'_, T> {
    fn value(&self, row: usize) -> ValueRef<'_> {
        match is_null(self.nulls, row) {
            true => ValueRef::Null,
            false => ValueRef::Blob(self.values[row].as_ref()),
        }
    }
}

impl<T: Wide> Forms for Wides<'_, T> {
    fn nulls(&self) -> Option<&NullBuffer> {
        self.nulls
    }

    fn put(&self, rows: Range<usize>, out: &mut Vec<u8>) {
        for value in &self.values[rows] {
            out.extend_from_slice(value.as_ref());
        }
    }
}

struct Booleans<'a>(&'a BooleanArray);

impl Cells for Booleans<'_> {
    fn value(&self, row: usize) -> ValueRef<'_> {
        match self.0.is_null(row) {
            true => ValueRef::Null,
            false => ValueRef::Integer(i64::from(self.0.value(row))),
        }
    }
}

impl Forms for Booleans<'_> {
    fn nulls(&self) -> Option<&NullBuffer> {
        self.0.nulls()
    }

    fn put(&self, rows: Range<usize>, out: &mut Vec<u8>) {
        out.extend(rows.map(|row| u8::from(self.0.value(row))));
    }
}

struct Texts<'a, A>(A, PhantomData<&'a str>);

impl<'a, A: ArrayAccessor<Item = &'a str> + Send + Sync> Cells for Texts<'a, A> {
    fn value(&self, row: usize) -> ValueRef<'_> {
        match self.0.is_null(row) {
            true => ValueRef::Null,
            false => ValueRef::Text(self.0.value(row).as_bytes()),
        }
    }
}

impl<'a, A: ArrayAccessor<Item = &'a str> + Send + Sync> Forms for Texts<'a, A> {
    fn nulls(&self) -> Option<&NullBuffer> {
        self.0.nulls()
    }

    fn put(&self, rows: Range<usize>, out: &mut Vec<u8>) {
        rows.for_each(|row| nested::put_bytes(self.0.value(row).as_bytes(), out));
    }
}

struct Blobs<'a, A>(A, PhantomData<&'a [u8]>);

impl<'a, A: ArrayAccessor<Item = &'a [u8]> + Send + Sync> Cells for Blobs<'a, A> {
    fn value(&self, row: usize) -> ValueRef<'_> {
        match self.0.is_null(row) {
            true => ValueRef::Null,
            false => ValueRef::Blob(self.0.value(row)),
        }
    }
}

impl<'a, A: ArrayAccessor<Item = &'a [u8]> + Send + Sync> Forms for Blobs<'a, A> {
    fn nulls(&self) -> Option<&NullBuffer> {
        self.0.nulls()
    }

    fn put(&self, rows: Range<usize>, out: &mut Vec<u8>) {
        rows.for_each(|row| nested::put_bytes(self.0.value(row), out));
    }
}

/// Binaries of one size, whose nested forms go without a length.
struct FixedBlobs<'a>(&'a FixedSizeBinaryArray);

impl Cells for FixedBlobs<'_> {
    fn value(&self, row: usize) -> ValueRef<'_> {
        match self.0.is_null(row) {
            true => ValueRef::Null,
            false => ValueRef::Blob(self.0.value(row)),
        }
    }
}

impl Forms for FixedBlobs<'_> {
    fn nulls(&self) -> Option<&NullBuffer> {
        self.0.nulls()
    }

    fn put(&self, rows: Range<usize>, out: &mut Vec<u8>) {
        for row in rows {
            match self.0.value(row) {
                [] => out.push(nested::EMPTY),
                bytes => out.extend_from_slice(bytes),
            }
        }
    }
}

/// Values that keys stand for. A key may point to a NULL.
struct Dictionaries<'a, K: ArrowDictionaryKeyType> {
    keys: &'a [K::Native],
    values: Box<dyn Plain + 'a>,
    nulls: Option<NullBuffer>,
}

impl<'a, K: ArrowDictionaryKeyType> Dictionaries<'a, K> {
    fn new(array: &'a DictionaryArray<K>) -> Result<Self, Unsupported> {
        Ok(Dictionaries {
            keys: array.keys().values(),
            values: plain(array.values().as_ref())?,
            nulls: array.logical_nulls().filter(|nulls| nulls.null_count() > 0),
        })
    }
}

impl<K: ArrowDictionaryKeyType> Cells for Dictionaries<'_, K> {
    fn value(&self, row: usize) -> ValueRef<'_> {
        match is_null(self.nulls.as_ref(), row) {
            true => ValueRef::Null,
            false => self.values.value(self.keys[row].as_usize()),
        }
    }
}

impl<K: ArrowDictionaryKeyType> Forms for Dictionaries<'_, K> {
    fn nulls(&self) -> Option<&NullBuffer> {
        self.nulls.as_ref()
    }

    fn put(&self, rows: Range<usize>, out: &mut Vec<u8>) {
        for row in rows {
            let key = self.keys[row].as_usize();
            self.values.put(key..key + 1, out);
        }
    }
}
