//! The builders of arrays of texts and binaries.
//!
//! Invariant: texts are checked to be UTF-8 when the array is made, all at
//! once; until then they are bytes.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryViewArray, FixedSizeBinaryArray, GenericBinaryArray};
use arrow::array::{GenericStringArray, NullBufferBuilder, OffsetSizeTrait, StringViewArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use rusqlite::types::ValueRef;

use super::columns::Column;
use super::decode::{Fault, Refusal, wrong_kind};
use super::nested::Reader;
use super::types::Storage;

/// Makes an array of offsets, the bytes between them, and what is NULL.
type MakeArray<O> = fn(OffsetBuffer<O>, Vec<u8>, Option<NullBuffer>) -> Result<ArrayRef, Fault>;

/// Texts or binaries of any length.
pub(super) struct BytesColumn<O: OffsetSizeTrait> {
    storage: Storage,
    offsets: Vec<O>,
    bytes: Vec<u8>,
    nulls: NullBufferBuilder,
    array: MakeArray<O>,
}

impl<O: OffsetSizeTrait> BytesColumn<O> {
    /// A builder of arrays that the function makes of the values.
    pub(super) fn new(storage: Storage, array: MakeArray<O>, rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(O::usize_as(0));
        BytesColumn {
            storage,
            offsets,
            bytes: Vec::new(),
            nulls: NullBufferBuilder::new(rows),
            array,
        }
    }

    fn push(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let end = O::from_usize(self.bytes.len() + value.len()).ok_or(Refusal::Full)?;
        self.bytes.extend_from_slice(value);
        self.offsets.push(end);
        self.nulls.append_non_null();
        Ok(())
    }
}

impl<O: OffsetSizeTrait> Column for BytesColumn<O> {
    fn append(&mut self, value: ValueRef<'_>) -> Result<(), Refusal> {
        match (value, self.storage) {
            (ValueRef::Text(value), Storage::Text) => self.push(value),
            (ValueRef::Blob(value), Storage::Blob) => self.push(value),
            (ValueRef::Null, _) => {
                self.append_nulls(1);
                Ok(())
            }
            (value, storage) => Err(wrong_kind(value, storage)),
        }
    }

    fn append_nulls(&mut self, count: usize) {
        let end = self.offsets[self.offsets.len() - 1];
        self.offsets.resize(self.offsets.len() + count, end);
        self.nulls.append_n_nulls(count);
    }

    fn take(&mut self, reader: &mut Reader<'_>, count: usize) -> Result<(), Refusal> {
        for _ in 0..count {
            self.push(reader.take_bytes()?)?;
        }
        Ok(())
    }

    fn truncate(&mut self, rows: usize) {
        self.offsets.truncate(rows + 1);
        self.bytes
            .truncate(self.offsets[self.offsets.len() - 1].as_usize());
        self.nulls.truncate(rows);
    }

    fn bytes(&self) -> usize {
        self.bytes.len() + size_of_val(self.offsets.as_slice())
    }

    fn finish(mut self: Box<Self>) -> Result<ArrayRef, Fault> {
        self.offsets.shrink_to_fit();
        self.bytes.shrink_to_fit();
        let offsets = OffsetBuffer::new(self.offsets.into());
        (self.array)(offsets, self.bytes, self.nulls.build())
    }
}

/// An array of Utf8 or LargeUtf8.
pub(super) fn text<O: OffsetSizeTrait>(
    offsets: OffsetBuffer<O>,
    bytes: Vec<u8>,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, Fault> {
    Ok(Arc::new(strings(offsets, bytes, nulls)?))
}

/// An array of Utf8View.
pub(super) fn text_view(
    offsets: OffsetBuffer<i64>,
    bytes: Vec<u8>,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, Fault> {
    let array = StringViewArray::from(&strings(offsets, bytes, nulls)?);
    let array = match hides_bytes(array.data_buffers(), array.total_buffer_bytes_used()) {
        true => array.gc(),
        false => array,
    };
    Ok(Arc::new(array))
}

/// An array of Binary or LargeBinary.
pub(super) fn binary<O: OffsetSizeTrait>(
    offsets: OffsetBuffer<O>,
    bytes: Vec<u8>,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, Fault> {
    Ok(Arc::new(GenericBinaryArray::new(
        offsets,
        bytes.into(),
        nulls,
    )))
}

/// An array of BinaryView.
pub(super) fn binary_view(
    offsets: OffsetBuffer<i64>,
    bytes: Vec<u8>,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, Fault> {
    let array = GenericBinaryArray::<i64>::new(offsets, bytes.into(), nulls);
    let array = BinaryViewArray::from(&array);
    let array = match hides_bytes(array.data_buffers(), array.total_buffer_bytes_used()) {
        true => array.gc(),
        false => array,
    };
    Ok(Arc::new(array))
}

fn strings<O: OffsetSizeTrait>(
    offsets: OffsetBuffer<O>,
    bytes: Vec<u8>,
    nulls: Option<NullBuffer>,
) -> Result<GenericStringArray<O>, Fault> {
    GenericStringArray::try_new(offsets, bytes.into(), nulls).map_err(|_| Fault::Utf8)
}

/// Whether most of what an array of views holds is never looked at, because
/// the views hold their short values themselves.
fn hides_bytes(buffers: &[Buffer], used: usize) -> bool {
    used < buffers.iter().map(Buffer::len).sum::<usize>() / 2
}

/// Binaries of one size.
pub(super) struct FixedColumn {
    size: i32,
    width: usize,
    bytes: Vec<u8>,
    nulls: NullBufferBuilder,
}

impl FixedColumn {
    /// A builder of arrays of values of so many bytes, which is not negative.
    pub(super) fn new(size: i32, rows: usize) -> Self {
        let width = usize::try_from(size).unwrap_or(0);
        FixedColumn {
            size,
            width,
            bytes: Vec::with_capacity(rows * width),
            nulls: NullBufferBuilder::new(rows),
        }
    }
}

impl Column for FixedColumn {
    fn append(&mut self, value: ValueRef<'_>) -> Result<(), Refusal> {
        match value {
            ValueRef::Blob(value) if value.len() == self.width => {
                self.bytes.extend_from_slice(value);
                self.nulls.append_non_null();
                Ok(())
            }
            ValueRef::Blob(value) => {
                let (found, expected) = (value.len(), self.width);
                Err(Fault::Length { found, expected }.into())
            }
            ValueRef::Null => {
                self.append_nulls(1);
                Ok(())
            }
            value => Err(wrong_kind(value, Storage::Blob)),
        }
    }

    fn append_nulls(&mut self, count: usize) {
        self.bytes.resize(self.bytes.len() + count * self.width, 0);
        self.nulls.append_n_nulls(count);
    }

    fn take(&mut self, reader: &mut Reader<'_>, count: usize) -> Result<(), Refusal> {
        match self.width {
            0 => reader.take_empty(count)?,
            width => self
                .bytes
                .extend_from_slice(reader.take_each(count, width)?),
        }
        self.nulls.append_n_non_nulls(count);
        Ok(())
    }

    fn truncate(&mut self, rows: usize) {
        self.bytes.truncate(rows * self.width);
        self.nulls.truncate(rows);
    }

    fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn finish(mut self: Box<Self>) -> Result<ArrayRef, Fault> {
        self.bytes.shrink_to_fit();
        let rows = self.nulls.len();
        let (bytes, nulls) = (self.bytes.into(), self.nulls.build());
        FixedSizeBinaryArray::try_new_with_len(self.size, bytes, nulls, rows)
            .map(|array| Arc::new(array) as ArrayRef)
            .map_err(|_| Fault::Size)
    }
}
