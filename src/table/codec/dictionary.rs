//! The builder of dictionary arrays.
//!
//! Invariant: each value is in the dictionary once, in the order of its first
//! appearance. Which keys stood for the values when they were written is not
//! kept.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::types::ArrowDictionaryKeyType;
use arrow::array::{ArrayRef, DictionaryArray, NullBufferBuilder, PrimitiveArray};
use arrow::datatypes::{ArrowNativeType, DataType};
use rusqlite::types::ValueRef;

use super::columns::{Column, column};
use super::decode::{Fault, Refusal};
use super::nested::Reader;
use super::types::Unsupported;

/// Values that keys stand for.
pub(super) struct DictionaryColumn<K: ArrowDictionaryKeyType> {
    keys: Vec<K::Native>,
    nulls: NullBufferBuilder,
    values: Box<dyn Column>,
    /// The key of each value by the value's form: the stored one, or the
    /// nested one where the dictionary is part of a nested value.
    seen: HashMap<Box<[u8]>, K::Native>,
}

impl<K: ArrowDictionaryKeyType> DictionaryColumn<K> {
    /// A builder of dictionaries of values of the type.
    pub(super) fn new(values: &DataType, rows: usize) -> Result<Self, Unsupported> {
        Ok(DictionaryColumn {
            keys: Vec::with_capacity(rows),
            nulls: NullBufferBuilder::new(rows),
            values: column(values, 0)?,
            seen: HashMap::new(),
        })
    }

    /// Takes the value of the form, which `push` adds to the dictionary's
    /// values if it is new.
    fn push(
        &mut self,
        form: &[u8],
        push: impl FnOnce(&mut dyn Column) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let key = match self.seen.get(form) {
            Some(key) => *key,
            None => {
                let key = K::Native::from_usize(self.seen.len()).ok_or(Refusal::Full)?;
                push(self.values.as_mut())?;
                self.seen.insert(form.into(), key);
                key
            }
        };
        self.keys.push(key);
        self.nulls.append_non_null();
        Ok(())
    }
}

impl<K: ArrowDictionaryKeyType> Column for DictionaryColumn<K> {
    fn append(&mut self, value: ValueRef<'_>) -> Result<(), Refusal> {
        let push = |values: &mut dyn Column| values.append(value);
        match value {
            ValueRef::Null => {
                self.append_nulls(1);
                Ok(())
            }
            ValueRef::Integer(integer) => self.push(&integer.to_le_bytes(), push),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => self.push(bytes, push),
            ValueRef::Real(_) => self.values.append(value),
        }
    }

    fn append_nulls(&mut self, count: usize) {
        let unused = K::Native::default();
        self.keys.resize(self.keys.len() + count, unused);
        self.nulls.append_n_nulls(count);
    }

    fn take(&mut self, reader: &mut Reader<'_>, count: usize) -> Result<(), Refusal> {
        for _ in 0..count {
            // Only taking the value tells where its form ends.
            let before = reader.rest();
            self.values.take(reader, 1)?;
            let form = &before[..before.len() - reader.rest().len()];
            self.values.truncate(self.seen.len());
            self.push(form, |values| values.take(&mut Reader::again(form), 1))?;
        }
        Ok(())
    }

    fn truncate(&mut self, rows: usize) {
        self.keys.truncate(rows);
        self.nulls.truncate(rows);
        // What a refused row added stays: no key has to point to it.
        self.values.truncate(self.seen.len());
    }

    fn bytes(&self) -> usize {
        size_of_val(self.keys.as_slice()) + self.values.bytes()
    }

    fn finish(mut self: Box<Self>) -> Result<ArrayRef, Fault> {
        self.keys.shrink_to_fit();
        let keys = PrimitiveArray::<K>::new(self.keys.into(), self.nulls.build());
        DictionaryArray::try_new(keys, self.values.finish()?)
            .map(|array| Arc::new(array) as ArrayRef)
            .map_err(|_| Fault::Size)
    }
}
