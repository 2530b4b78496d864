//! Where the rows of a lane are in a Parquet file, found once for each version
//! of the file.
//!
//! A file of many tenants is read by one at a time. Which row groups and pages
//! hold the caller's rows follows from the file and the lane alone, so it is
//! worked out by the first scan and kept: later scans open the file as if it
//! held those row groups and no others, and read rows of other lanes only where
//! they share a page with the caller's. A lane with few rows that is asked for
//! again is kept as a small file of its own: pages are made for large scans, and
//! to decompress those around its rows would cost it several times what they do.
//!
//! Architecture invariant: a view is speed alone. Rows that it leaves in and the
//! caller may not see are dropped by the engine's guard.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use bytes::Bytes;
use datafusion::catalog::Session;
use datafusion::common::cast::as_boolean_array;
use datafusion::common::{Column, DFSchema};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::{FutureExt, TryStreamExt};
use moka::sync::Cache;
use object_store::ObjectMeta;
use object_store::path::Path;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, RowSelection, RowSelector,
};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{
    ArrowWriter, ParquetRecordBatchStreamBuilder, ProjectionMask, parquet_column,
};
use parquet::basic::{ColumnOrder, SortOrder, Type};
use parquet::file::metadata::{
    PageIndexPolicy, ParquetMetaData, ParquetMetaDataBuilder, ParquetMetaDataReader,
};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::properties::WriterProperties;

use super::parquet::viewed;
use crate::policy::{LanePredicate, LaneShare};

/// The memory that the views of all files and lanes may take together.
const VIEWS_BYTES_MAX: u64 = 128 << 20;

/// Rows whose tenants are looked up to make a view exact. Where statistics leave
/// more in doubt, tenants are mixed and a view would not stay small.
const DOUBTFUL_ROWS_MAX: usize = 1 << 17;

/// Runs of rows that a view keeps for one row group.
const RUNS_MAX: usize = 1 << 12;

/// Up to this many compressed bytes, a lane's rows are kept by themselves.
const KEPT_BYTES_MAX: u64 = 2 << 20;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A file as a lane needs it.
#[derive(Debug)]
pub(super) struct LaneView {
    /// The footer and the page index of the row groups that hold rows of the
    /// lane, in order.
    pub metadata: Arc<ParquetMetaData>,
    /// The columns of the file, with the tenants' as a dictionary where it is
    /// text: to compare each distinct tenant takes less than to spell out and
    /// compare each row's.
    pub arrow_schema: SchemaRef,
    /// The row groups of the file.
    pub row_groups: usize,
    /// Which rows of the lane's row groups are read.
    pub access: ParquetAccessPlan,
    /// Whether the rows that are read are all of the lane.
    pub exact: bool,
    /// The compressed bytes of the rows that are read, about.
    pub bytes: u64,
    /// A file of the rows that are read alone, which is read in place of the
    /// other.
    pub kept: Option<Bytes>,
    /// Whether a scan has come back for the view.
    asked_again: AtomicBool,
}

impl LaneView {
    /// All rows of a file. `None` where it cannot be read: then a scan finds out.
    pub(super) async fn whole(
        readers: &dyn ParquetFileReaderFactory,
        file: &ObjectMeta,
    ) -> Option<Arc<LaneView>> {
        // The decoder of damaged files may panic.
        let made = AssertUnwindSafe(async {
            let metrics = ExecutionPlanMetricsSet::new();
            let opened = PartitionedFile::new_from_meta(file.clone());
            let mut reader = readers.create_reader(0, opened, None, &metrics)?;
            let metadata = reader.get_metadata(None).await?;
            let arrow =
                ArrowReaderMetadata::try_new(Arc::clone(&metadata), ArrowReaderOptions::new())?;
            Ok(LaneView {
                access: ParquetAccessPlan::new_all(metadata.num_row_groups()),
                row_groups: metadata.num_row_groups(),
                metadata,
                arrow_schema: Arc::clone(arrow.schema()),
                exact: true,
                bytes: file.size,
                kept: None,
                asked_again: AtomicBool::new(false),
            })
        });
        let made: std::thread::Result<Outcome<_>> = made.catch_unwind().await;
        made.ok()?.ok().map(Arc::new)
    }

    /// Whether the file holds no row of the lane.
    pub fn is_empty(&self) -> bool {
        self.metadata.num_row_groups() == 0
    }

    /// Whether the rows are few and share their pages with others', so that most
    /// of what is decompressed and decoded would be thrown away.
    fn is_worth_keeping(&self) -> bool {
        let selected = |access| matches!(access, &RowGroupAccess::Selection(_));
        let mut columns = self
            .metadata
            .file_metadata()
            .schema_descr()
            .columns()
            .iter();
        self.exact
            && self.kept.is_none()
            && self.bytes <= KEPT_BYTES_MAX
            && self.access.inner().iter().any(selected)
            // What comes back is to have the types that the file's columns have.
            && columns.all(|column| {
                column.path().parts().len() == 1 && column.physical_type() != Type::INT96
            })
    }

    fn memory_size(&self) -> usize {
        let runs = self.access.inner().iter().map(|access| match access {
            RowGroupAccess::Selection(selection) => selection.iter().count(),
            RowGroupAccess::Scan | RowGroupAccess::Skip => 1,
        });
        let kept = self.kept.as_ref().map_or(0, Bytes::len);
        let known = self.metadata.memory_size() + self.arrow_schema.fields().size();
        kept + known + runs.sum::<usize>() * size_of::<RowSelector>()
    }
}

/// The views that were made, `None` where a file has none.
#[derive(Clone, Debug)]
pub struct LaneViews(Cache<ViewKey, Option<Arc<LaneView>>>);

/// A version of a file, and the rows of it that are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ViewKey {
    store: String,
    path: Path,
    modified_ns: Option<i64>,
    size: u64,
    e_tag: Option<String>,
    column: String,
    predicate: LanePredicate,
}

impl Default for LaneViews {
    fn default() -> Self {
        let weigh = |key: &ViewKey, view: &Option<Arc<LaneView>>| {
            let view = view.as_ref().map_or(0, |view| view.memory_size());
            let key = size_of::<ViewKey>() + key.path.as_ref().len() + key.column.len();
            u32::try_from(key + view).unwrap_or(u32::MAX)
        };
        LaneViews(
            Cache::builder()
                .max_capacity(VIEWS_BYTES_MAX)
                .weigher(weigh)
                .build(),
        )
    }
}

impl LaneViews {
    /// Keeps none of them any longer.
    pub fn forget(&self) {
        self.0.invalidate_all();
    }

    /// The rows for which `predicate` is true of `column` in a version of a file
    /// of `store`. `None` where the file does not say enough about where they
    /// are, or cannot be read: then a scan finds out.
    pub(super) async fn view(
        &self,
        session: &dyn Session,
        readers: &dyn ParquetFileReaderFactory,
        store: &str,
        file: &ObjectMeta,
        lane: (&str, &LanePredicate),
    ) -> Option<Arc<LaneView>> {
        let key = ViewKey {
            store: store.to_owned(),
            path: file.location.clone(),
            modified_ns: file.last_modified.timestamp_nanos_opt(),
            size: file.size,
            e_tag: file.e_tag.clone(),
            column: lane.0.to_owned(),
            predicate: lane.1.clone(),
        };
        let known = self.0.get(&key);
        match &known {
            // What is asked for once is not worth the memory.
            Some(Some(view))
                if view.is_worth_keeping() && !view.asked_again.swap(true, Ordering::Relaxed) => {}
            Some(view) => return view.clone(),
            None => {}
        }
        // The decoder of damaged files may panic.
        let made = AssertUnwindSafe(async {
            match known.flatten() {
                Some(view) => Ok(Some(keep(readers, file, &view).await?.unwrap_or(view))),
                None => Ok(make(session, readers, file, lane).await?.map(Arc::new)),
            }
        });
        let view: std::thread::Result<Outcome<_>> = made.catch_unwind().await;
        let view = match view {
            Ok(Ok(view)) => view,
            Ok(Err(_)) | Err(_) => {
                // The text of the error may quote another lane's row.
                tracing::debug!(
                    file = file.location.as_ref(),
                    "a file's lanes are not known before it is read"
                );
                None
            }
        };
        self.0.insert(key, view.clone());
        view
    }
}

/// Rows of one row group and what is known about them.
struct Stretch {
    rows: Range<usize>,
    share: LaneShare,
}

async fn make(
    session: &dyn Session,
    readers: &dyn ParquetFileReaderFactory,
    file: &ObjectMeta,
    (column, predicate): (&str, &LanePredicate),
) -> Outcome<Option<LaneView>> {
    let metrics = ExecutionPlanMetricsSet::new();
    let open = || {
        let file = PartitionedFile::new_from_meta(file.clone());
        readers.create_reader(0, file, None, &metrics)
    };
    let metadata = open()?.get_metadata(None).await?;
    let arrow = ArrowReaderMetadata::try_new(Arc::clone(&metadata), ArrowReaderOptions::new())?;
    let Some((leaf, field)) = parquet_column(arrow.parquet_schema(), arrow.schema(), column) else {
        return Ok(None);
    };
    let order = metadata.file_metadata().column_order(leaf);
    // The table's type may be another spelling of the file's.
    let (Some(predicate), ColumnOrder::TYPE_DEFINED_ORDER(SortOrder::UNSIGNED)) =
        (predicate.over(field.data_type()), order)
    else {
        return Ok(None);
    };
    let predicate = &predicate;
    let mut groups: Vec<(usize, Vec<Stretch>)> = (0..metadata.num_row_groups())
        .map(|group| (group, stretches(&metadata, group, leaf, predicate)))
        .filter(|(_, rows)| rows.iter().any(|rows| rows.share != LaneShare::None))
        .collect();
    let doubtful: usize = groups
        .iter()
        .flat_map(|(_, rows)| rows)
        .filter(|rows| rows.share == LaneShare::Unknown)
        .map(|rows| rows.rows.len())
        .sum();
    let arrow_schema = with_tenants_once(arrow.schema(), column);
    let mut exact = doubtful == 0;
    if !exact && doubtful <= DOUBTFUL_ROWS_MAX {
        let schema = DFSchema::try_from(arrow.schema().as_ref().clone())?;
        let logical = predicate.logical(Column::new_unqualified(column));
        let test = session.create_physical_expr(logical, &schema)?;
        let reader = open()?;
        exact = settle(reader, arrow, leaf, test, &mut groups).await?;
    }
    let selections: Vec<(usize, RowSelection)> = groups
        .into_iter()
        .map(|(group, rows)| (group, selection(&metadata, group, &rows)))
        .filter(|(_, selection)| selection.selects_any())
        .collect();
    let row_groups = metadata.num_row_groups();
    let metadata = sliced(&metadata, &selections);
    let mut bytes = 0;
    let access = metadata.row_groups().iter().zip(selections);
    let access = access.map(|(group, (_, selection))| {
        let (rows, selected) = (group.num_rows().max(1) as u64, selection.row_count() as u64);
        bytes += (group.compressed_size().max(0) as u64).saturating_mul(selected) / rows;
        if selected == rows {
            RowGroupAccess::Scan
        } else {
            RowGroupAccess::Selection(selection)
        }
    });
    Ok(Some(LaneView {
        access: ParquetAccessPlan::new(access.collect()),
        metadata: Arc::new(metadata),
        arrow_schema,
        row_groups,
        exact,
        bytes,
        kept: None,
        asked_again: AtomicBool::new(false),
    }))
}

/// How a column of tenants is read, of which each is there once in a page.
pub(super) fn tenants_once() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// `schema` with the column of text as [`tenants_once`].
pub(super) fn with_tenants_once(schema: &SchemaRef, column: &str) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        let is_text = matches!(
            field.data_type(),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
        );
        match is_text && field.name() == column {
            true => Arc::new(field.as_ref().clone().with_data_type(tenants_once())),
            false => Arc::clone(field),
        }
    });
    let fields: Vec<FieldRef> = fields.collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// `view` with its rows in a file of their own, unless that is too large.
async fn keep(
    readers: &dyn ParquetFileReaderFactory,
    file: &ObjectMeta,
    view: &Arc<LaneView>,
) -> Outcome<Option<Arc<LaneView>>> {
    let metrics = ExecutionPlanMetricsSet::new();
    let file = viewed(PartitionedFile::new_from_meta(file.clone()), view);
    let reader: Box<dyn AsyncFileReader> = readers.create_reader(0, file, None, &metrics)?;
    let rows = ParquetRecordBatchStreamBuilder::new(reader).await?;
    let groups = view.metadata.row_groups();
    let selection = view.access.clone().into_overall_row_selection(groups)?;
    let rows = match selection {
        Some(selection) => rows.with_row_selection(selection),
        None => rows,
    };
    let mut rows = rows.build()?;
    let properties = WriterProperties::builder()
        // For columns of few values; it would slow the others down.
        .set_dictionary_page_size_limit(4 << 10)
        .build();
    let mut kept = ArrowWriter::try_new(vec![], Arc::clone(rows.schema()), Some(properties))?;
    while let Some(batch) = rows.try_next().await? {
        kept.write(&batch)?;
        // Without compression it may be several times as large, and no more.
        if (kept.bytes_written() + kept.in_progress_size()) as u64 > 8 * KEPT_BYTES_MAX {
            return Ok(None);
        }
    }
    let kept = Bytes::from(kept.into_inner()?);
    let metadata = ParquetMetaDataReader::new()
        .with_page_index_policy(PageIndexPolicy::Optional)
        .parse_and_finish(&kept)?;
    Ok(Some(Arc::new(LaneView {
        access: ParquetAccessPlan::new_all(metadata.num_row_groups()),
        metadata: Arc::new(metadata),
        arrow_schema: Arc::clone(&view.arrow_schema),
        row_groups: view.row_groups,
        exact: true,
        bytes: kept.len() as u64,
        kept: Some(kept),
        asked_again: AtomicBool::new(true),
    })))
}

/// The pages of a row group's tenant column, or the whole where there is no page
/// index.
fn stretches(
    metadata: &ParquetMetaData,
    group: usize,
    leaf: usize,
    predicate: &LanePredicate,
) -> Vec<Stretch> {
    let rows = metadata.row_group(group).num_rows().max(0) as usize;
    let chunk = metadata.row_group(group).column(leaf);
    let never_null = chunk.column_descr().max_def_level() == 0;
    let share = |bounds: Option<(&[u8], &[u8])>, nulls: Option<u64>| {
        let has_nulls = !never_null && nulls != Some(0);
        bounds.map_or(LaneShare::Unknown, |(least, greatest)| {
            predicate.share(least, greatest, has_nulls)
        })
    };
    let whole = chunk.statistics().map_or(LaneShare::Unknown, |known| {
        let bounds = known.min_bytes_opt().zip(known.max_bytes_opt());
        let bounds = bounds.filter(|_| !known.is_min_max_deprecated());
        share(bounds, known.null_count_opt())
    });
    let pages = metadata
        .column_index()
        .and_then(|index| index.get(group)?.get(leaf))
        .zip(locations(metadata, group, leaf));
    let (index, locations) = match pages {
        Some((
            ColumnIndexMetaData::BYTE_ARRAY(index)
            | ColumnIndexMetaData::FIXED_LEN_BYTE_ARRAY(index),
            locations,
        )) if whole == LaneShare::Unknown && index.num_pages() == locations.len() as u64 => {
            (index, locations)
        }
        _ => {
            return vec![Stretch {
                rows: 0..rows,
                share: whole,
            }];
        }
    };
    page_rows(locations, rows)
        .enumerate()
        .map(|(page, rows)| {
            let bounds = index.min_value(page).zip(index.max_value(page));
            let nulls = index.null_count(page).and_then(|n| u64::try_from(n).ok());
            let share = match index.is_null_page(page) {
                true => LaneShare::All,
                false => share(bounds, nulls),
            };
            Stretch { rows, share }
        })
        .collect()
}

fn locations(metadata: &ParquetMetaData, group: usize, leaf: usize) -> Option<&Vec<PageLocation>> {
    let index = metadata.offset_index()?.get(group)?.get(leaf)?;
    Some(index.page_locations()).filter(|locations| !locations.is_empty())
}

/// The rows of each page of a row group of `rows` rows.
fn page_rows(locations: &[PageLocation], rows: usize) -> impl Iterator<Item = Range<usize>> {
    let first = move |page: usize| match locations.get(page) {
        Some(location) => (location.first_row_index.max(0) as usize).min(rows),
        None => rows,
    };
    (0..locations.len()).map(move |page| first(page)..first(page + 1))
}

/// Reads the tenants of the rows that are in doubt and puts what they are in
/// their place. `false` where that would be too many runs, which stay in doubt.
async fn settle(
    reader: Box<dyn AsyncFileReader>,
    arrow: ArrowReaderMetadata,
    leaf: usize,
    test: Arc<dyn PhysicalExpr>,
    groups: &mut [(usize, Vec<Stretch>)],
) -> Outcome<bool> {
    let doubtful = groups.iter().flat_map(|(_, rows)| rows).map(|rows| {
        let length = rows.rows.len();
        match rows.share {
            LaneShare::Unknown => RowSelector::select(length),
            LaneShare::All | LaneShare::None => RowSelector::skip(length),
        }
    });
    let doubtful: RowSelection = doubtful.collect();
    let projection = ProjectionMask::leaves(arrow.parquet_schema(), [leaf]);
    // The test is over the file's columns, of which this is the only one read.
    let test = at_first(test)?;
    let mut batches = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, arrow)
        .with_projection(projection)
        .with_row_groups(groups.iter().map(|(group, _)| *group).collect())
        .with_row_selection(doubtful)
        .build()?;
    let mut own = vec![];
    while let Some(batch) = batches.try_next().await? {
        let rows = batch.num_rows();
        let passed = test.evaluate(&batch)?.into_array(rows)?;
        own.extend(
            as_boolean_array(&passed)?
                .iter()
                .map(|row| row == Some(true)),
        );
    }
    let mut own = own.into_iter();
    let mut exact = true;
    for (_, rows) in groups {
        let mut settled = vec![];
        for stretch in rows.iter() {
            if stretch.share != LaneShare::Unknown {
                settled.push((stretch.rows.clone(), stretch.share));
                continue;
            }
            for row in stretch.rows.clone() {
                let share = match own.next().ok_or("fewer rows than the footer says")? {
                    true => LaneShare::All,
                    false => LaneShare::None,
                };
                match settled.last_mut() {
                    Some((rows, same)) if *same == share => rows.end = row + 1,
                    _ => settled.push((row..row + 1, share)),
                }
            }
        }
        if settled.len() > RUNS_MAX {
            exact = false;
            continue;
        }
        let settled = settled.into_iter();
        *rows = settled
            .map(|(rows, share)| Stretch { rows, share })
            .collect();
    }
    Ok(exact)
}

/// `test` with its column at the first place.
fn at_first(test: Arc<dyn PhysicalExpr>) -> Outcome<Arc<dyn PhysicalExpr>> {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    use datafusion::physical_expr::expressions::Column;
    let moved = test.transform(|expr| {
        Ok(match expr.downcast_ref::<Column>() {
            Some(column) if column.index() != 0 => {
                Transformed::yes(Arc::new(Column::new(column.name(), 0)) as _)
            }
            _ => Transformed::no(expr),
        })
    })?;
    Ok(moved.data)
}

/// The rows of a row group that may be the lane's.
fn selection(metadata: &ParquetMetaData, group: usize, rows: &[Stretch]) -> RowSelection {
    let total = metadata.row_group(group).num_rows().max(0) as usize;
    let kept = rows.iter().filter(|rows| rows.share != LaneShare::None);
    RowSelection::from_consecutive_ranges(kept.map(|rows| rows.rows.clone()), total)
}

/// The metadata of the row groups in `selections` alone.
fn sliced(metadata: &ParquetMetaData, selections: &[(usize, RowSelection)]) -> ParquetMetaData {
    let groups = selections.iter();
    let groups = groups.map(|(group, _)| metadata.row_group(*group).clone());
    let groups = groups.collect();
    let columns = metadata.column_index().map(|index| {
        let kept = selections.iter();
        kept.filter_map(|(group, _)| index.get(*group).cloned())
            .collect::<Vec<_>>()
    });
    let offsets = metadata.offset_index().map(|index| {
        let kept = selections.iter();
        kept.filter_map(|(group, _)| index.get(*group).cloned())
            .collect::<Vec<_>>()
    });
    // An index is of all row groups or it is none.
    let whole = selections.len();
    ParquetMetaDataBuilder::new(metadata.file_metadata().clone())
        .set_row_groups(groups)
        .set_column_index(columns.filter(|index| index.len() == whole))
        .set_offset_index(offsets.filter(|index| index.len() == whole))
        .build()
}

#[cfg(test)]
mod tests;
