//! The builders of arrays of plain values.
//!
//! Invariant: a builder holds whole values only after `truncate`, which its
//! owner calls whenever a value was refused; a builder that refuses may hold a
//! part of it until then.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, BooleanBufferBuilder, NullBufferBuilder};
use arrow::array::{PrimitiveArray, downcast_integer, downcast_primitive};
use arrow::datatypes::DataType;
use rusqlite::types::ValueRef;

use super::bytes::{BytesColumn, FixedColumn, binary, binary_view, text, text_view};
use super::decode::{Fault, Refusal, wrong_kind};
use super::dictionary::DictionaryColumn;
use super::nested::{Reader, nested_column};
use super::numbers::Number;
use super::types::{Storage, Unsupported, unknown};

/// The builder of one array.
pub(super) trait Column: Send {
    /// Takes a value in the stored form, or NULL.
    fn append(&mut self, value: ValueRef<'_>) -> Result<(), Refusal>;

    /// Takes NULLs.
    fn append_nulls(&mut self, count: usize);

    /// Takes values in the nested form, none of which is NULL.
    fn take(&mut self, reader: &mut Reader<'_>, count: usize) -> Result<(), Refusal>;

    /// Forgets what follows the first so many values.
    fn truncate(&mut self, rows: usize);

    /// About how many bytes the values take.
    fn bytes(&self) -> usize;

    /// The array of the values.
    fn finish(self: Box<Self>) -> Result<ArrayRef, Fault>;
}

/// A builder of arrays of the type, which was checked, with room for so many
/// values.
pub(super) fn column(data_type: &DataType, rows: usize) -> Result<Box<dyn Column>, Unsupported> {
    macro_rules! primitive {
        ($t:ty) => {
            Ok(Box::new(NumberColumn::<$t>::new(data_type, rows)))
        };
    }
    macro_rules! dictionary {
        ($t:ty, $value:ident) => {
            Ok(Box::new(DictionaryColumn::<$t>::new($value, rows)?))
        };
    }
    downcast_primitive! {
        data_type => (primitive),
        DataType::Boolean => Ok(Box::new(BooleanColumn::new(rows))),
        DataType::Utf8 => Ok(Box::new(BytesColumn::<i32>::new(Storage::Text, text, rows))),
        DataType::LargeUtf8 => Ok(Box::new(BytesColumn::<i64>::new(Storage::Text, text, rows))),
        DataType::Utf8View => Ok(Box::new(BytesColumn::<i64>::new(Storage::Text, text_view, rows))),
        DataType::Binary => Ok(Box::new(BytesColumn::<i32>::new(Storage::Blob, binary, rows))),
        DataType::LargeBinary => Ok(Box::new(BytesColumn::<i64>::new(Storage::Blob, binary, rows))),
        DataType::BinaryView => Ok(Box::new(BytesColumn::<i64>::new(Storage::Blob, binary_view, rows))),
        DataType::FixedSizeBinary(size) => Ok(Box::new(FixedColumn::new(*size, rows))),
        DataType::Dictionary(key, value) => downcast_integer! {
            key.as_ref() => (dictionary, value),
            _ => Err(unknown(data_type)),
        },
        data_type => nested_column(data_type, rows),
    }
}

/// Numbers.
struct NumberColumn<T: Number> {
    data_type: DataType,
    values: Vec<T::Native>,
    nulls: NullBufferBuilder,
}

impl<T: Number> NumberColumn<T> {
    fn new(data_type: &DataType, rows: usize) -> Self {
        NumberColumn {
            data_type: data_type.clone(),
            values: Vec::with_capacity(rows),
            nulls: NullBufferBuilder::new(rows),
        }
    }
}

impl<T: Number> Column for NumberColumn<T> {
    fn append(&mut self, value: ValueRef<'_>) -> Result<(), Refusal> {
        match value {
            ValueRef::Null => self.append_nulls(1),
            value => {
                self.values.push(T::from_stored(value)?);
                self.nulls.append_non_null();
            }
        }
        Ok(())
    }

    fn append_nulls(&mut self, count: usize) {
        self.values
            .resize(self.values.len() + count, T::Native::default());
        self.nulls.append_n_nulls(count);
    }

    fn take(&mut self, reader: &mut Reader<'_>, count: usize) -> Result<(), Refusal> {
        let width = T::WIDTH;
        let numbers = reader.take_each(count, width)?.chunks_exact(width);
        self.values.extend(numbers.filter_map(T::take));
        self.nulls.append_n_non_nulls(count);
        Ok(())
    }

    fn truncate(&mut self, rows: usize) {
        self.values.truncate(rows);
        self.nulls.truncate(rows);
    }

    fn bytes(&self) -> usize {
        size_of_val(self.values.as_slice())
    }

    fn finish(mut self: Box<Self>) -> Result<ArrayRef, Fault> {
        self.values.shrink_to_fit();
        let array = PrimitiveArray::<T>::new(self.values.into(), self.nulls.build());
        Ok(Arc::new(array.with_data_type(self.data_type)))
    }
}

/// Booleans.
struct BooleanColumn {
    values: BooleanBufferBuilder,
    nulls: NullBufferBuilder,
}

impl BooleanColumn {
    fn new(rows: usize) -> Self {
        BooleanColumn {
            values: BooleanBufferBuilder::new(rows),
            nulls: NullBufferBuilder::new(rows),
        }
    }
}

impl Column for BooleanColumn {
    fn append(&mut self, value: ValueRef<'_>) -> Result<(), Refusal> {
        match value {
            ValueRef::Integer(integer @ (0 | 1)) => {
                self.values.append(integer == 1);
                self.nulls.append_non_null();
            }
            ValueRef::Null => self.append_nulls(1),
            ValueRef::Integer(_) => return Err(Fault::Range.into()),
            value => return Err(wrong_kind(value, Storage::Integer)),
        }
        Ok(())
    }

    fn append_nulls(&mut self, count: usize) {
        self.values.append_n(count, false);
        self.nulls.append_n_nulls(count);
    }

    fn take(&mut self, reader: &mut Reader<'_>, count: usize) -> Result<(), Refusal> {
        for byte in reader.take(count)? {
            match byte {
                0 | 1 => self.values.append(*byte == 1),
                _ => return Err(Fault::NestedForm.into()),
            }
        }
        self.nulls.append_n_non_nulls(count);
        Ok(())
    }

    fn truncate(&mut self, rows: usize) {
        self.values.truncate(rows);
        self.nulls.truncate(rows);
    }

    fn bytes(&self) -> usize {
        self.values.len().div_ceil(8)
    }

    fn finish(self: Box<Self>) -> Result<ArrayRef, Fault> {
        let values = self.values.build();
        Ok(Arc::new(BooleanArray::new(values, self.nulls.build())))
    }
}
