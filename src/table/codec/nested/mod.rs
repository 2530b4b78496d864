//! The form of lists, structs and maps: one BLOB a value.
//!
//! The first byte says which version of the form follows; the rest follows
//! from the declared type alone:
//!
//! ```text
//! value        = VERSION, form of the value
//! list, map    = varint(items * 2 + any NULL), items
//! fixed list   = 0 or 1 (any NULL), items
//! items        = [a bit for each item, least significant first, 1 where it is
//!                not NULL], the forms of those that are not NULL
//! struct       = a bit for each field, likewise (one byte at least), the
//!                forms of those fields that are not NULL
//! map entry    = struct of key and value
//! boolean      = 0 or 1
//! number       = its bits, little-endian; wide ones as they are stored
//! text, binary = varint(bytes), bytes
//! fixed binary = its bytes, or 0 if it has none
//! dictionary   = the form of its value
//! ```
//!
//! Invariant: equal values have equal forms. Every form takes a byte at least
//! and a NULL takes a bit at least, so that what a reader builds is bounded by
//! the bytes it has read, times the width of the type: a damaged count runs
//! out of bytes before it has cost anything. Recursion is as deep as the
//! declared type, which `check_type` bounds.

mod cells;
mod columns;

pub(super) use cells::{NestedCells, nested_forms};
pub(super) use columns::nested_column;

use super::decode::{Fault, Refusal};

/// The version of the form that is written, and the only one that is read.
const VERSION: u8 = 1;

/// The form of a value that has no bytes of its own.
pub(super) const EMPTY: u8 = 0;

/// Appends a number, seven bits a byte, the least significant first.
fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends bytes after their number.
pub(super) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// What is left to read of a value.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of one value's form.
    fn new(blob: &'a [u8]) -> Result<Self, Refusal> {
        match blob.split_first() {
            Some((&VERSION, rest)) => Ok(Reader { rest }),
            _ => Err(Fault::NestedVersion.into()),
        }
    }

    /// Says that the value ends here.
    fn end(self) -> Result<(), Refusal> {
        match self.rest {
            [] => Ok(()),
            _ => Err(Fault::NestedForm.into()),
        }
    }

    /// What is left, to learn later what a form took.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Fault::NestedForm)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A reader of a form that was read before.
    pub(super) fn again(form: &'a [u8]) -> Self {
        Reader { rest: form }
    }

    /// The next values of a width.
    pub(super) fn take_each(&mut self, count: usize, width: usize) -> Result<&'a [u8], Refusal> {
        self.take(count.checked_mul(width).ok_or(Fault::NestedForm)?)
    }

    /// The next values that have no bytes of their own.
    pub(super) fn take_empty(&mut self, count: usize) -> Result<(), Refusal> {
        match self.take(count)?.iter().all(|byte| *byte == EMPTY) {
            true => Ok(()),
            false => Err(Fault::NestedForm.into()),
        }
    }

    /// The next bytes, after their number.
    pub(super) fn take_bytes(&mut self) -> Result<&'a [u8], Refusal> {
        let count = self.varint()?;
        self.take(count)
    }

    /// The next flag.
    fn flag(&mut self) -> Result<bool, Refusal> {
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Fault::NestedForm.into()),
        }
    }

    /// The next number.
    fn varint(&mut self) -> Result<usize, Refusal> {
        let mut number = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.take(1)?[0];
            let bits = u64::from(byte & 0x7F);
            if bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(usize::try_from(number).map_err(|_| Fault::NestedForm)?);
            }
        }
        Err(Fault::NestedForm.into())
    }
}
