//! Reading: rows of SQLite values into Arrow arrays.
//!
//! Invariant: an array has exactly the declared data type, and a stored value
//! that the declared type cannot have is an error, never a panic and never a
//! guess.

use std::mem;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use rusqlite::Row;
use rusqlite::types::{Type, ValueRef};

use super::columns::{Column, column};
use super::types::{Storage, Unsupported, check_type};

/// A stored value that the codec did not write: the file is damaged, or the
/// caller reads a column as another type than it was written with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column} holds {fault}")]
pub struct Damaged {
    /// The column, counted from 0 in the order that the decoder was given.
    pub column: usize,
    /// What is wrong with the value.
    pub fault: Fault,
}

/// What is wrong with a stored value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The value is of another kind than the type's values are stored as.
    #[error("{found} where {expected} is stored")]
    Kind {
        /// What is there.
        found: Type,
        /// What the type's values are stored as.
        expected: Storage,
    },
    /// The row ends before the column.
    #[error("nothing: the row ends before it")]
    Absent,
    /// An integer that the type does not have.
    #[error("an integer outside its type")]
    Range,
    /// A text that is not UTF-8.
    #[error("text that is not UTF-8")]
    Utf8,
    /// A blob of another length than the type's values have.
    #[error("a blob of {found} bytes where {expected} are stored")]
    Length {
        /// How long it is.
        found: usize,
        /// How long the type's values are.
        expected: usize,
    },
    /// A nested value of an unknown version.
    #[error("a nested value of an unknown version")]
    NestedVersion,
    /// A nested value that does not follow its form.
    #[error("a nested value that is malformed")]
    NestedForm,
    /// A nested value with a NULL where its type has none.
    #[error("a nested value with a null where its type has none")]
    NestedNull,
    /// One value that is larger than an array of its type can hold.
    #[error("a value larger than its type can hold")]
    Size,
}

/// Why a column does not take a value.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The array can hold no more, but a new one might: an offset or a
    /// dictionary key would overflow.
    Full,
    /// No array of the type can hold the value.
    Fault(Fault),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Refusal::Fault(fault)
    }
}

impl Refusal {
    /// The fault of a value that a new array refuses.
    fn into_fault(self) -> Fault {
        match self {
            Refusal::Full => Fault::Size,
            Refusal::Fault(fault) => fault,
        }
    }
}

/// The refusal of a value of another kind than is stored.
pub(super) fn wrong_kind(value: ValueRef<'_>, expected: Storage) -> Refusal {
    let found = value.data_type();
    Fault::Kind { found, expected }.into()
}

/// Some rows, as arrays of one length.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// How many rows there are, also where no column was asked for.
    pub rows: usize,
    /// An array for each column, in the order that the decoder was given.
    pub columns: Vec<ArrayRef>,
}

/// Builds the arrays of some columns, row by row.
///
/// The rows come back as one batch, save where a type cannot hold them in one
/// array: more than 128 distinct values under `Int8` dictionary keys, or 2 GiB
/// of text under 32-bit offsets. Then they come back as several, in order, and
/// reading never fails for what writing took.
///
/// ```text
/// let mut decoder = BatchDecoder::new([&DataType::Int64, &DataType::Utf8], 8192)?;
/// let mut rows = statement.raw_query();
/// while let Some(row) = rows.next()? {
///     decoder.append(row, 1)?; // the result's first column is the row number
/// }
/// for batch in decoder.finish()? { .. }
/// ```
pub struct BatchDecoder {
    types: Vec<DataType>,
    columns: Vec<Box<dyn Column>>,
    capacity: usize,
    rows: usize,
    complete: Vec<Decoded>,
}

impl BatchDecoder {
    /// A decoder of columns of these types, with room for so many rows. More
    /// may follow; room for fewer saves memory where few are expected.
    pub fn new<'a>(
        types: impl IntoIterator<Item = &'a DataType>,
        capacity: usize,
    ) -> Result<Self, Unsupported> {
        let types: Vec<DataType> = types.into_iter().cloned().collect();
        types.iter().try_for_each(check_type)?;
        Ok(BatchDecoder {
            columns: columns(&types, capacity)?,
            types,
            capacity,
            rows: 0,
            complete: Vec::new(),
        })
    }

    /// Takes a row, whose columns from `first` on are those of the decoder.
    ///
    /// A row that is refused leaves no trace; those before it stay. Damage that
    /// shows only in the array as a whole, as text that is not UTF-8 does, is
    /// told by [`finish`](BatchDecoder::finish).
    pub fn append(&mut self, row: &Row<'_>, first: usize) -> Result<(), Damaged> {
        self.append_with(|column| row.get_ref(first + column).ok())
    }

    /// As [`append`](BatchDecoder::append), of values that the function gives
    /// by column.
    pub fn append_with<'v>(
        &mut self,
        value: impl Fn(usize) -> Option<ValueRef<'v>>,
    ) -> Result<(), Damaged> {
        match self.try_append(&value) {
            Ok(()) => Ok(()),
            Err((_, Refusal::Full)) if self.rows > 0 => {
                self.complete_batch()?;
                self.try_append(&value).map_err(damaged)
            }
            Err(refusal) => Err(damaged(refusal)),
        }
    }

    /// How many rows were taken since the last [`finish`](BatchDecoder::finish).
    pub fn rows(&self) -> usize {
        self.rows + self.complete.iter().map(|batch| batch.rows).sum::<usize>()
    }

    /// About how many bytes the rows take that are not yet in a batch.
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(|column| column.bytes()).sum()
    }

    /// The rows taken so far, leaving none: at least one batch, also of no row.
    pub fn finish(&mut self) -> Result<Vec<Decoded>, Damaged> {
        if self.rows > 0 || self.complete.is_empty() {
            self.complete_batch()?;
        }
        Ok(mem::take(&mut self.complete))
    }

    fn try_append<'v>(
        &mut self,
        value: &impl Fn(usize) -> Option<ValueRef<'v>>,
    ) -> Result<(), (usize, Refusal)> {
        for (index, column) in self.columns.iter_mut().enumerate() {
            let taken = match value(index) {
                Some(value) => column.append(value),
                None => Err(Fault::Absent.into()),
            };
            if let Err(refusal) = taken {
                for column in &mut self.columns[..=index] {
                    column.truncate(self.rows);
                }
                return Err((index, refusal));
            }
        }
        self.rows += 1;
        Ok(())
    }

    fn complete_batch(&mut self) -> Result<(), Damaged> {
        let next =
            columns(&self.types, self.capacity).expect("the first columns were of these types");
        let rows = mem::take(&mut self.rows);
        let columns = mem::replace(&mut self.columns, next)
            .into_iter()
            .enumerate()
            .map(|(index, column)| {
                column.finish().map_err(|fault| Damaged {
                    column: index,
                    fault,
                })
            })
            .collect::<Result<_, _>>()?;
        self.complete.push(Decoded { rows, columns });
        Ok(())
    }
}

/// Builds the arrays of one column, value by value. See [`BatchDecoder`] for
/// why there may be more than one.
pub struct ColumnDecoder {
    decoder: BatchDecoder,
}

impl ColumnDecoder {
    /// A decoder of a column of the type, with room for so many values.
    pub fn new(data_type: &DataType, capacity: usize) -> Result<Self, Unsupported> {
        Ok(ColumnDecoder {
            decoder: BatchDecoder::new([data_type], capacity)?,
        })
    }

    /// Takes a value.
    pub fn append(&mut self, value: ValueRef<'_>) -> Result<(), Fault> {
        self.decoder
            .append_with(|_| Some(value))
            .map_err(|damaged| damaged.fault)
    }

    /// The values taken so far, leaving none.
    pub fn finish(&mut self) -> Result<Vec<ArrayRef>, Fault> {
        let batches = self.decoder.finish().map_err(|damaged| damaged.fault)?;
        Ok(batches
            .into_iter()
            .flat_map(|batch| batch.columns)
            .collect())
    }
}

fn columns(types: &[DataType], capacity: usize) -> Result<Vec<Box<dyn Column>>, Unsupported> {
    types
        .iter()
        .map(|data_type| column(data_type, capacity))
        .collect()
}

fn damaged((column, refusal): (usize, Refusal)) -> Damaged {
    Damaged {
        column,
        fault: refusal.into_fault(),
    }
}
