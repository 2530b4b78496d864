//! Decoded columns of the row groups of Parquet files, kept in memory.
//!
//! To decompress and decode a row group takes many times as long as to look at
//! its values. A scan that reads all rows of a lane in some files goes by their
//! row groups: those whose columns are kept are read from memory, others from the
//! file, and are kept as they pass.
//!
//! Invariant: what is kept is found by the version of its file and the rows of it
//! that are the lane's, so that nothing has to be told to forget, and no lane is
//! served what another's scan has read. The engine's guard looks at every row all
//! the same.

mod scan;

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use moka::sync::Cache;
use object_store::ObjectMeta;
use object_store::path::Path;

use super::lane_view::LaneView;
use crate::policy::LanePredicate;

pub(super) use scan::{RowGroup, RowGroupsExec};

/// What an entry takes beside its values.
const ENTRY_OVERHEAD_BYTES: usize = 200;

/// The values of a column in a row group, in arrays of a batch's rows each: whoever
/// reckons what a batch takes finds the memory of its rows and not of all.
type Parts = Arc<[ArrayRef]>;

/// Decoded columns of row groups, the most used ones, within a budget of bytes.
#[derive(Clone, Debug)]
pub struct RowGroupCache {
    columns: Cache<CachedColumn, Parts>,
    bytes_max: u64,
}

/// The rows of one lane in a version of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LaneRows {
    store: String,
    path: Path,
    modified_ns: Option<i64>,
    size: u64,
    e_tag: Option<String>,
    lane: Option<(String, LanePredicate)>,
    /// Whether they are read from a file of their own, which has other row groups.
    is_kept: bool,
}

impl LaneRows {
    /// The rows of `file` of `store` that `view` is of: those for which a predicate
    /// is true of a column, or all where `lane` is `None`.
    pub(super) fn new(
        store: &str,
        file: &ObjectMeta,
        lane: Option<(&str, &LanePredicate)>,
        view: &LaneView,
    ) -> Self {
        LaneRows {
            store: store.to_owned(),
            path: file.location.clone(),
            modified_ns: file.last_modified.timestamp_nanos_opt(),
            size: file.size,
            e_tag: file.e_tag.clone(),
            lane: lane.map(|(column, predicate)| (column.to_owned(), predicate.clone())),
            is_kept: view.kept.is_some(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct CachedColumn {
    rows: Arc<LaneRows>,
    row_group: usize,
    name: Arc<str>,
    data_type: DataType,
}

impl RowGroupCache {
    /// Keeps up to `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        RowGroupCache {
            columns: Cache::builder()
                .max_capacity(bytes_max)
                .weigher(|_: &CachedColumn, parts: &Parts| {
                    let values = parts.iter().map(|array| array.get_array_memory_size());
                    let bytes = values.sum::<usize>() + ENTRY_OVERHEAD_BYTES;
                    u32::try_from(bytes).unwrap_or(u32::MAX)
                })
                .build(),
            bytes_max,
        }
    }

    /// Keeps none of them any longer.
    pub fn forget(&self) {
        self.columns.invalidate_all();
    }

    /// The bytes that it keeps at most.
    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// The named columns of a row group, where all of them are kept.
    fn get(&self, group: &RowGroup, columns: &[(Arc<str>, DataType)]) -> Option<Vec<Parts>> {
        let kept = columns.iter();
        kept.map(|column| self.columns.get(&key(group, column)))
            .collect()
    }

    /// Whether all of the columns are kept, by the look of it.
    fn has(&self, group: &RowGroup, columns: &[(Arc<str>, DataType)]) -> bool {
        let mut columns = columns.iter();
        columns.all(|column| self.columns.contains_key(&key(group, column)))
    }

    fn put(&self, group: &RowGroup, column: &(Arc<str>, DataType), parts: Parts) {
        self.columns.insert(key(group, column), parts);
    }
}

fn key(group: &RowGroup, (name, data_type): &(Arc<str>, DataType)) -> CachedColumn {
    CachedColumn {
        rows: Arc::clone(&group.of),
        row_group: group.index,
        name: Arc::clone(name),
        data_type: data_type.clone(),
    }
}
