//! The cells of lists, structs and maps.
//!
//! Invariant: what a NULL hides is never written.

use std::ops::Range;

use arrow::array::{Array, AsArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use rusqlite::types::ValueRef;

use super::super::cells::{Cells, Forms, forms, is_null};
use super::super::types::{Unsupported, unknown};
use super::{VERSION, put_varint};

/// The cells of an array of lists, structs or maps, in the stored form. It is
/// made for all of them at once, so that a cell can be borrowed.
pub(in super::super) struct NestedCells<'a> {
    nulls: Option<&'a NullBuffer>,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl<'a> NestedCells<'a> {
    pub(in super::super) fn new(array: &'a dyn Array) -> Result<Self, Unsupported> {
        let cells = nested_forms(array)?;
        let nulls = array.nulls();
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(array.len());
        for row in 0..array.len() {
            if !is_null(nulls, row) {
                bytes.push(VERSION);
                cells.put(row..row + 1, &mut bytes);
            }
            ends.push(bytes.len());
        }
        Ok(NestedCells { nulls, bytes, ends })
    }
}

impl Cells for NestedCells<'_> {
    fn value(&self, row: usize) -> ValueRef<'_> {
        if is_null(self.nulls, row) {
            return ValueRef::Null;
        }
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        ValueRef::Blob(&self.bytes[start..self.ends[row]])
    }
}

/// The cells of an array of lists, structs or maps, as parts of another.
pub(in super::super) fn nested_forms<'a>(
    array: &'a dyn Array,
) -> Result<Box<dyn Forms + 'a>, Unsupported> {
    let nulls = array.nulls();
    let lists = |items: &'a dyn Array, spans| -> Result<Box<dyn Forms + 'a>, Unsupported> {
        Ok(Box::new(Lists {
            nulls,
            spans,
            items: forms(items)?,
        }))
    };
    match array.data_type() {
        DataType::List(_) => {
            let array = array.as_list::<i32>();
            lists(array.values(), Spans::Offsets(array.value_offsets()))
        }
        DataType::LargeList(_) => {
            let array = array.as_list::<i64>();
            lists(array.values(), Spans::LargeOffsets(array.value_offsets()))
        }
        DataType::ListView(_) => {
            let array = array.as_list_view::<i32>();
            let spans = Spans::Views(array.offsets(), array.sizes());
            lists(array.values(), spans)
        }
        DataType::LargeListView(_) => {
            let array = array.as_list_view::<i64>();
            let spans = Spans::LargeViews(array.offsets(), array.sizes());
            lists(array.values(), spans)
        }
        DataType::FixedSizeList(_, size) => {
            let array = array.as_fixed_size_list();
            lists(array.values(), Spans::Fixed(*size as usize))
        }
        DataType::Map(..) => {
            let array = array.as_map();
            lists(array.entries(), Spans::Offsets(array.value_offsets()))
        }
        DataType::Struct(_) => Ok(Box::new(Structs {
            nulls,
            fields: array
                .as_struct()
                .columns()
                .iter()
                .map(|field| forms(field))
                .collect::<Result<_, _>>()?,
        })),
        data_type => Err(unknown(data_type)),
    }
}

/// Where the items of each list are.
enum Spans<'a> {
    Offsets(&'a [i32]),
    LargeOffsets(&'a [i64]),
    Views(&'a [i32], &'a [i32]),
    LargeViews(&'a [i64], &'a [i64]),
    Fixed(usize),
}

impl Spans<'_> {
    fn items(&self, row: usize) -> Range<usize> {
        match self {
            Spans::Offsets(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
            Spans::LargeOffsets(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
            Spans::Views(offsets, sizes) => {
                let start = offsets[row] as usize;
                start..start + sizes[row] as usize
            }
            Spans::LargeViews(offsets, sizes) => {
                let start = offsets[row] as usize;
                start..start + sizes[row] as usize
            }
            Spans::Fixed(size) => row * size..(row + 1) * size,
        }
    }
}

struct Lists<'a> {
    nulls: Option<&'a NullBuffer>,
    spans: Spans<'a>,
    items: Box<dyn Forms + 'a>,
}

impl Forms for Lists<'_> {
    fn nulls(&self) -> Option<&NullBuffer> {
        self.nulls
    }

    fn put(&self, rows: Range<usize>, out: &mut Vec<u8>) {
        for row in rows {
            let items = self.spans.items(row);
            let nulls = self
                .items
                .nulls()
                .filter(|nulls| items.clone().any(|item| nulls.is_null(item)));
            match self.spans {
                Spans::Fixed(_) => out.push(u8::from(nulls.is_some())),
                _ => put_varint(
                    ((items.len() as u64) << 1) | u64::from(nulls.is_some()),
                    out,
                ),
            }
            match nulls {
                None => self.items.put(items, out),
                Some(nulls) => {
                    put_bits(items.clone().map(|item| nulls.is_valid(item)), out);
                    for item in items.filter(|item| nulls.is_valid(*item)) {
                        self.items.put(item..item + 1, out);
                    }
                }
            }
        }
    }
}

struct Structs<'a> {
    nulls: Option<&'a NullBuffer>,
    fields: Vec<Box<dyn Forms + 'a>>,
}

impl Forms for Structs<'_> {
    fn nulls(&self) -> Option<&NullBuffer> {
        self.nulls
    }

    fn put(&self, rows: Range<usize>, out: &mut Vec<u8>) {
        for row in rows {
            if self.fields.is_empty() {
                out.push(super::EMPTY);
            }
            put_bits(
                self.fields.iter().map(|field| !is_null(field.nulls(), row)),
                out,
            );
            for field in self
                .fields
                .iter()
                .filter(|field| !is_null(field.nulls(), row))
            {
                field.put(row..row + 1, out);
            }
        }
    }
}

/// Appends bits, the least significant of each byte first.
fn put_bits(bits: impl Iterator<Item = bool>, out: &mut Vec<u8>) {
    for (index, bit) in bits.enumerate() {
        if index % 8 == 0 {
            out.push(0);
        }
        if bit && let Some(byte) = out.last_mut() {
            *byte |= 1 << (index % 8);
        }
    }
}
