//! The builders of arrays of lists, structs and maps.
//!
//! Invariant: nothing is reserved by a count that was read, only by the bytes
//! that bear it out.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, GenericListArray};
use arrow::array::{
    GenericListViewArray, MapArray, NullBufferBuilder, OffsetSizeTrait, StructArray,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, FieldRef, Fields};
use arrow::error::ArrowError;
use rusqlite::types::ValueRef;

use super::super::columns::{Column, column};
use super::super::decode::{Fault, Refusal, wrong_kind};
use super::super::types::{Storage, Unsupported, unknown};
use super::Reader;

/// A builder of arrays of lists, structs or maps.
pub(in super::super) fn nested_column(
    data_type: &DataType,
    rows: usize,
) -> Result<Box<dyn Column>, Unsupported> {
    Ok(match data_type {
        DataType::List(item) => Box::new(ListColumn::<i32>::new(item, Shape::List, rows)?),
        DataType::LargeList(item) => Box::new(ListColumn::<i64>::new(item, Shape::List, rows)?),
        DataType::ListView(item) => Box::new(ListColumn::<i32>::new(item, Shape::View, rows)?),
        DataType::LargeListView(item) => Box::new(ListColumn::<i64>::new(item, Shape::View, rows)?),
        DataType::Map(entries, ordered) => {
            Box::new(ListColumn::<i32>::new(entries, Shape::Map(*ordered), rows)?)
        }
        DataType::FixedSizeList(item, size) => Box::new(FixedListColumn {
            item: item.clone(),
            size: *size,
            width: usize::try_from(*size).map_err(|_| unknown(data_type))?,
            items: column(item.data_type(), 0)?,
            nulls: NullBufferBuilder::new(rows),
        }),
        DataType::Struct(fields) => Box::new(StructColumn {
            fields: fields.clone(),
            columns: fields
                .iter()
                .map(|field| column(field.data_type(), rows))
                .collect::<Result<_, _>>()?,
            nulls: NullBufferBuilder::new(rows),
        }),
        data_type => return Err(unknown(data_type)),
    })
}

/// Takes a value in the stored form.
fn append(column: &mut impl Column, value: ValueRef<'_>) -> Result<(), Refusal> {
    match value {
        ValueRef::Null => {
            column.append_nulls(1);
            Ok(())
        }
        ValueRef::Blob(blob) => {
            let mut reader = Reader::new(blob)?;
            column.take(&mut reader, 1)?;
            reader.end()
        }
        value => Err(wrong_kind(value, Storage::Blob)),
    }
}

/// Takes the items of a list, some of which are NULL if `nulls` says so.
fn take_items(
    items: &mut dyn Column,
    reader: &mut Reader<'_>,
    count: usize,
    nulls: bool,
) -> Result<(), Refusal> {
    if !nulls {
        return items.take(reader, count);
    }
    let bits = reader.take(count.div_ceil(8))?;
    let mut start = 0;
    while start < count {
        let valid = bit(bits, start);
        let end = (start..count)
            .find(|index| bit(bits, *index) != valid)
            .unwrap_or(count);
        match valid {
            true => items.take(reader, end - start)?,
            false => items.append_nulls(end - start),
        }
        start = end;
    }
    Ok(())
}

fn bit(bits: &[u8], index: usize) -> bool {
    bits[index / 8] >> (index % 8) & 1 == 1
}

/// An array, of which the parts are right unless there is a NULL where the
/// type has none.
fn finished(array: Result<impl Array + 'static, ArrowError>) -> Result<ArrayRef, Fault> {
    array
        .map(|array| Arc::new(array) as ArrayRef)
        .map_err(|_| Fault::NestedNull)
}

/// What kind of lists an array holds.
enum Shape {
    List,
    View,
    /// A map, whose keys are sorted if the flag says so.
    Map(bool),
}

/// Lists of any length.
struct ListColumn<O> {
    item: FieldRef,
    shape: Shape,
    offsets: Vec<O>,
    items: Box<dyn Column>,
    nulls: NullBufferBuilder,
}

impl<O: OffsetSizeTrait> ListColumn<O> {
    fn new(item: &FieldRef, shape: Shape, rows: usize) -> Result<Self, Unsupported> {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(O::usize_as(0));
        Ok(ListColumn {
            item: item.clone(),
            shape,
            offsets,
            items: column(item.data_type(), rows)?,
            nulls: NullBufferBuilder::new(rows),
        })
    }

    fn end(&self) -> O {
        self.offsets[self.offsets.len() - 1]
    }
}

impl<O: OffsetSizeTrait> Column for ListColumn<O> {
    fn append(&mut self, value: ValueRef<'_>) -> Result<(), Refusal> {
        append(self, value)
    }

    fn append_nulls(&mut self, count: usize) {
        self.offsets.resize(self.offsets.len() + count, self.end());
        self.nulls.append_n_nulls(count);
    }

    fn take(&mut self, reader: &mut Reader<'_>, count: usize) -> Result<(), Refusal> {
        for _ in 0..count {
            let header = reader.varint()?;
            let (items, nulls) = (header >> 1, header & 1 == 1);
            let end = O::from_usize(self.end().as_usize() + items).ok_or(Refusal::Full)?;
            take_items(self.items.as_mut(), reader, items, nulls)?;
            self.offsets.push(end);
            self.nulls.append_non_null();
        }
        Ok(())
    }

    fn truncate(&mut self, rows: usize) {
        self.offsets.truncate(rows + 1);
        self.items.truncate(self.end().as_usize());
        self.nulls.truncate(rows);
    }

    fn bytes(&self) -> usize {
        size_of_val(self.offsets.as_slice()) + self.items.bytes()
    }

    fn finish(mut self: Box<Self>) -> Result<ArrayRef, Fault> {
        self.offsets.shrink_to_fit();
        let items = self.items.finish()?;
        let nulls = self.nulls.build();
        match self.shape {
            Shape::List => {
                let offsets = OffsetBuffer::new(self.offsets.into());
                finished(GenericListArray::try_new(self.item, offsets, items, nulls))
            }
            Shape::View => {
                let sizes: ScalarBuffer<O> =
                    self.offsets.windows(2).map(|of| of[1] - of[0]).collect();
                self.offsets.truncate(sizes.len());
                let offsets = self.offsets.into();
                finished(GenericListViewArray::try_new(
                    self.item, offsets, sizes, items, nulls,
                ))
            }
            Shape::Map(ordered) => {
                let offsets = self
                    .offsets
                    .iter()
                    .map(|offset| offset.as_usize() as i32)
                    .collect();
                let offsets = OffsetBuffer::new(offsets);
                let entries = items.as_struct().clone();
                finished(MapArray::try_new(
                    self.item, offsets, entries, nulls, ordered,
                ))
            }
        }
    }
}

/// Lists of one length.
struct FixedListColumn {
    item: FieldRef,
    size: i32,
    width: usize,
    items: Box<dyn Column>,
    nulls: NullBufferBuilder,
}

impl Column for FixedListColumn {
    fn append(&mut self, value: ValueRef<'_>) -> Result<(), Refusal> {
        append(self, value)
    }

    fn append_nulls(&mut self, count: usize) {
        self.items.append_nulls(count * self.width);
        self.nulls.append_n_nulls(count);
    }

    fn take(&mut self, reader: &mut Reader<'_>, count: usize) -> Result<(), Refusal> {
        for _ in 0..count {
            let nulls = reader.flag()?;
            take_items(self.items.as_mut(), reader, self.width, nulls)?;
            self.nulls.append_non_null();
        }
        Ok(())
    }

    fn truncate(&mut self, rows: usize) {
        self.items.truncate(rows * self.width);
        self.nulls.truncate(rows);
    }

    fn bytes(&self) -> usize {
        self.items.bytes()
    }

    fn finish(self: Box<Self>) -> Result<ArrayRef, Fault> {
        let rows = self.nulls.len();
        let items = self.items.finish()?;
        let nulls = self.nulls.build();
        finished(FixedSizeListArray::try_new_with_length(
            self.item, self.size, items, nulls, rows,
        ))
    }
}

/// Structs.
struct StructColumn {
    fields: Fields,
    columns: Vec<Box<dyn Column>>,
    nulls: NullBufferBuilder,
}

impl Column for StructColumn {
    fn append(&mut self, value: ValueRef<'_>) -> Result<(), Refusal> {
        append(self, value)
    }

    fn append_nulls(&mut self, count: usize) {
        for column in &mut self.columns {
            column.append_nulls(count);
        }
        self.nulls.append_n_nulls(count);
    }

    fn take(&mut self, reader: &mut Reader<'_>, count: usize) -> Result<(), Refusal> {
        if self.columns.is_empty() {
            reader.take_empty(count)?;
            self.nulls.append_n_non_nulls(count);
            return Ok(());
        }
        for _ in 0..count {
            let bits = reader.take(self.columns.len().div_ceil(8))?;
            for (index, column) in self.columns.iter_mut().enumerate() {
                match bit(bits, index) {
                    true => column.take(reader, 1)?,
                    false => column.append_nulls(1),
                }
            }
            self.nulls.append_non_null();
        }
        Ok(())
    }

    fn truncate(&mut self, rows: usize) {
        for column in &mut self.columns {
            column.truncate(rows);
        }
        self.nulls.truncate(rows);
    }

    fn bytes(&self) -> usize {
        self.columns.iter().map(|column| column.bytes()).sum()
    }

    fn finish(self: Box<Self>) -> Result<ArrayRef, Fault> {
        let rows = self.nulls.len();
        let nulls = self.nulls.build();
        let arrays = self
            .columns
            .into_iter()
            .map(|column| column.finish())
            .collect::<Result<_, _>>()?;
        finished(StructArray::try_new_with_length(
            self.fields,
            arrays,
            nulls,
            rows,
        ))
    }
}
