//! Tables whose rows are stored in lanes: where a lane keeps them, and how they
//! are read and written.
//!
//! The rows of a table are in one SQLite table for each lane that has any: the
//! lane that defines the table, and, for a table that is shared, every tenant
//! who wrote to it. They go by numbers (`t12`, `c3`), so that a name is never
//! more than a name; `codec` says how a value is stored. Rows are numbered, and
//! every run of [`CHUNK_ROWS`] row numbers has a stamp that changes with its
//! content: what is decoded is kept by the stamp, and is right under writers of
//! any process.
//!
//! Architecture invariant: a lane's rows are read and written through a
//! [`Transaction`] of that lane alone. Every statement holds `tenant_id IS ?`,
//! every row that is written passes [`Transaction::assert_tenant_matches`], and
//! SQLite itself holds each row to the lane by a CHECK.
//!
//! [`Transaction`]: crate::backend::Transaction
//! [`Transaction::assert_tenant_matches`]: crate::backend::Transaction::assert_tenant_matches

mod chunks;
pub mod codec;
mod equal;
mod find;
mod leftovers;
mod lookup;
mod reads;
mod scan;
mod storage;
mod write;

pub use chunks::{CHUNK_ROWS, ChunkCache};
pub use equal::Equal;
pub use leftovers::sweep;
pub use lookup::{KeyCondition, KeyLookup};
pub use reads::StatementReads;
pub use scan::{ROW_COLUMN, TableScanExec, Wanted, scan_schema};
pub use storage::{
    Stored, add_column, create, create_index, drop, drop_column, drop_index, drop_temporary,
    literal,
};
pub use write::{AddingRows, TableWriter, key_text};

use uuid::Uuid;

/// A number that nothing else has had: what tells two states of a thing apart.
pub fn new_stamp() -> i64 {
    let (high, _) = Uuid::new_v4().as_u64_pair();
    i64::try_from(high >> 1).expect("the highest bit is clear")
}
