//! Reads the rows of a stored table from the lanes of a scope.
//!
//! A lookup by key goes to SQLite's index. Everything else goes through the runs
//! of the table, of which those that were decoded before are in memory, and which
//! several partitions may share among them. The state that is read is the
//! statement's: [`TableScanExec::attach`] gives it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::array::{
    ArrayRef, DictionaryArray, Int8Array, RecordBatch, RecordBatchOptions, StringArray,
    new_null_array,
};
use arrow::datatypes::{DataType, Field, Int8Type, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::OnceCell;

use super::chunks::{self, Chunk, ChunkCache, Parts, ROW_NUMBER, ReadColumn};
use super::codec;
use super::equal::{self, Equal};
use super::find::Found;
use super::lookup::KeyLookup;
use super::reads::StatementReads;
use super::storage::Stored;
use crate::catalog::{Relation, TENANT_COLUMN, TableDefinition};
use crate::error::Error;
use crate::tenant::Lane;

/// The column of the row number, which only the engine's own writes ask for.
pub const ROW_COLUMN: &str = "_jammi_row";

/// The table's columns and, last, the row number.
pub fn scan_schema(definition: &TableDefinition) -> SchemaRef {
    let schema = definition.schema();
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(ROW_COLUMN, DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}

/// Yields the columns that are asked for of the rows of some lanes.
#[derive(Debug)]
pub struct TableScanExec {
    scan: Arc<Scan>,
    reads: OnceLock<StatementReads>,
    /// What each of the lanes has to offer, once a partition has looked.
    found: Arc<[OnceCell<Found>]>,
    properties: Arc<PlanProperties>,
}

/// A partition, and how many there are.
#[derive(Clone, Copy, Debug)]
struct Partition {
    number: usize,
    of: usize,
}

/// Which rows are asked for. A scan may yield others of the same lanes as well, but
/// for those that do not meet `equal`.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Those that an index finds.
    pub lookup: Option<KeyLookup>,
    /// Those that meet all of these.
    pub equal: Vec<Equal>,
    /// So many of them, whichever.
    pub limit: Option<usize>,
}

#[derive(Clone, Debug)]
pub(super) struct Scan {
    pub relation: Arc<Relation>,
    lanes: Vec<Lane>,
    /// The columns of the output, of which the tenant's is a dictionary.
    schema: SchemaRef,
    pub columns: Vec<ReadColumn>,
    /// Whether an index finds the least and the greatest value of each.
    has_extremes: Vec<bool>,
    pub wanted: Wanted,
    /// The columns of which rows with the least and the greatest value are asked
    /// for, and no others.
    pub extremes: Option<Vec<u32>>,
    cache: ChunkCache,
}

impl TableScanExec {
    /// A scan of the columns at `projection` in [`scan_schema`].
    pub fn new(
        relation: Arc<Relation>,
        definition: &TableDefinition,
        lanes: Vec<Lane>,
        projection: &[usize],
        wanted: Wanted,
        cache: ChunkCache,
    ) -> Self {
        let all = scan_schema(definition);
        let mut fields = Vec::with_capacity(projection.len());
        let mut columns = Vec::with_capacity(projection.len());
        let mut has_extremes = Vec::with_capacity(projection.len());
        for &at in projection {
            let field = &all.fields()[at];
            let column = definition.columns.get(at);
            let number = column.map_or(ROW_NUMBER, |column| column.number);
            fields.push(match number {
                0 => Arc::new(Field::new(TENANT_COLUMN, tenant_type(), true)),
                _ => Arc::clone(field),
            });
            has_extremes
                .push(column.is_some_and(|column| finds_extremes(definition, column.number)));
            columns.push(ReadColumn {
                number,
                data_type: field.data_type().clone(),
                filler: column.and_then(|column| column.filler.clone()),
            });
        }
        TableScanExec::of(Scan {
            relation,
            lanes,
            schema: Arc::new(Schema::new(fields)),
            columns,
            has_extremes,
            wanted,
            extremes: None,
            cache,
        })
    }

    fn of(scan: Scan) -> Self {
        TableScanExec::in_partitions(Arc::new(scan), 1)
    }

    fn in_partitions(scan: Arc<Scan>, partitions: usize) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&scan.schema)),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        TableScanExec {
            found: unknown(&scan),
            scan,
            reads: OnceLock::new(),
            properties: Arc::new(properties),
        }
    }

    /// The same scan in so many partitions, each of which reads some of the runs;
    /// `None` where it has as many already, and where it may read few rows.
    pub fn split(&self, partitions: usize) -> Option<Self> {
        let wanted = &self.scan.wanted;
        let is_of_all = wanted.lookup.is_none()
            && wanted.equal.is_empty()
            && wanted.limit.is_none()
            && self.scan.extremes.is_none();
        let more = partitions > self.properties.partitioning.partition_count();
        (is_of_all && more)
            .then(|| TableScanExec::in_partitions(Arc::clone(&self.scan), partitions))
    }

    /// A scan that yields rows with the least and the greatest value of each of
    /// the columns at `projected`, where an index finds them.
    pub fn offering_extremes(&self, projected: &[usize]) -> Option<Self> {
        let scan = &self.scan;
        let columns = projected.iter().map(|&at| {
            let number = scan.columns.get(at)?.number;
            scan.has_extremes.get(at)?.then_some(number)
        });
        let columns: Vec<u32> = columns.collect::<Option<_>>()?;
        let wanted = &scan.wanted;
        if wanted.lookup.is_some() || !wanted.equal.is_empty() || wanted.limit.is_some() {
            return None;
        }
        Some(TableScanExec::of(Scan {
            extremes: Some(columns),
            ..Scan::clone(scan)
        }))
    }

    /// The same scan where parameters have `values`, to be attached anew.
    pub fn given(&self, values: &[ScalarValue]) -> crate::error::Result<Self> {
        let scan = &self.scan;
        let equal = scan.wanted.equal.iter();
        let equal = equal
            .map(|equal| equal.given(values))
            .collect::<crate::error::Result<Vec<_>>>()?;
        let lookup = match scan.relation.table() {
            Some(definition) => KeyLookup::of_equal(definition, &equal)?,
            None => None,
        };
        let wanted = Wanted {
            lookup,
            equal,
            limit: scan.wanted.limit,
        };
        Ok(TableScanExec {
            scan: Arc::new(Scan {
                wanted,
                ..Scan::clone(scan)
            }),
            reads: OnceLock::new(),
            found: unknown(scan),
            properties: Arc::clone(&self.properties),
        })
    }

    /// The columns by which rows are looked up, if they are.
    pub fn lookup_columns(&self) -> Vec<&str> {
        let Some((lookup, definition)) = self
            .scan
            .wanted
            .lookup
            .as_ref()
            .zip(self.scan.relation.table())
        else {
            return Vec::new();
        };
        let columns = lookup
            .columns()
            .filter_map(|number| definition.position(number))
            .map(|at| definition.columns[at].field.name().as_str());
        columns.collect()
    }

    /// Says what to read from, before the scan is executed.
    pub fn attach(&self, reads: &StatementReads) {
        let _ = self.reads.set(reads.clone());
    }
}

/// What the lanes of a scan have to offer, before anybody has looked.
fn unknown(scan: &Scan) -> Arc<[OnceCell<Found>]> {
    scan.lanes.iter().map(|_| OnceCell::new()).collect()
}

/// Whether an index of the table begins with a column whose values SQLite orders
/// as Arrow does. Floats it does too, but which of their zeros and of their NaNs
/// is an extreme is for the aggregate to say.
fn finds_extremes(definition: &TableDefinition, number: u32) -> bool {
    let mut indexes = definition.indexes.iter();
    let leads = indexes.any(|index| index.columns.first() == Some(&number));
    let mut columns = definition.columns.iter();
    let column = columns.find(|column| column.number == number);
    leads
        && column.is_some_and(|column| {
            let data_type = column.field.data_type();
            let is_float = data_type.is_floating();
            !is_float && codec::ordering(data_type) == codec::Ordering::Total
        })
}

/// One value for every row of a lane: the keys take a byte each.
fn tenant_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8))
}

impl DisplayAs for TableScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TableScanExec: table={}", self.scan.relation.name)
    }
}

impl ExecutionPlan for TableScanExec {
    fn name(&self) -> &str {
        "TableScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(
        &self,
        partition: usize,
        _context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let partition = Partition {
            number: partition,
            of: self.properties.partitioning.partition_count(),
        };
        let reads = self.reads.get().cloned().ok_or_else(|| {
            carried(Error::internal(
                "the statement failed inside the engine: see the server's log under this \
                 request's id",
                "a table is scanned without a state to read",
            ))
        })?;
        let scan = Arc::clone(&self.scan);
        let lanes = match scan.finds_nothing().map_err(carried)? {
            true => 0,
            false => scan.lanes.len(),
        };
        let found = Arc::clone(&self.found);
        let batches = stream::iter(0..lanes)
            .then(move |at| {
                LaneRows::open(Arc::clone(&scan), reads.clone(), at, Arc::clone(&found))
            })
            .map_ok(move |rows| rows.batches(partition))
            .try_flatten()
            .map_err(carried);
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&self.scan.schema),
            batches,
        )))
    }
}

/// Puts one of our errors into DataFusion's.
fn carried(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The rows of one lane.
struct LaneRows {
    scan: Arc<Scan>,
    reads: StatementReads,
    lane: Lane,
    stored: Stored,
    /// Those of every lane of the scan.
    found: Arc<[OnceCell<Found>]>,
    /// Which of them is this one's.
    at: usize,
}

/// Where a run is read.
struct Place {
    lane: Lane,
    stored: Stored,
    absent: Arc<[u32]>,
}

impl LaneRows {
    /// The rows of the lane at `at`, for which it is looked once.
    async fn open(
        scan: Arc<Scan>,
        reads: StatementReads,
        at: usize,
        found: Arc<[OnceCell<Found>]>,
    ) -> crate::error::Result<Self> {
        let lane = scan.lanes[at];
        let stored = Stored::of(&scan.relation, lane);
        let looking = async || {
            let (looking, name) = (Arc::clone(&scan), stored.clone());
            let found = reads.read(lane, move |transaction| looking.find(transaction, &name));
            Ok::<_, Error>(found.await?.unwrap_or_else(Found::nothing))
        };
        found[at].get_or_try_init(looking).await?;
        Ok(LaneRows {
            scan,
            reads,
            lane,
            stored,
            found,
            at,
        })
    }

    /// Those of a partition: rows that an index found are the first one's.
    fn batches(
        self,
        partition: Partition,
    ) -> impl futures::Stream<Item = crate::error::Result<RecordBatch>> + Send + 'static {
        let LaneRows {
            scan,
            reads,
            lane,
            stored,
            found,
            at,
        } = self;
        let (ready, chunks, absent) = match found[at].get() {
            Some(Found::Rows(found)) if partition.number == 0 => {
                let batches = found
                    .iter()
                    .map(|rows| scan.batches(lane, &rows.columns, rows.rows));
                (batches.flatten().collect(), Vec::new(), Arc::default())
            }
            Some(Found::Chunks(chunks, absent)) => {
                let chunks = chunks.iter().skip(partition.number).step_by(partition.of);
                (Vec::new(), chunks.copied().collect(), Arc::clone(absent))
            }
            Some(Found::Rows(_)) | None => (Vec::new(), Vec::new(), Arc::default()),
        };
        let shared: Arc<str> = stored.as_str().into();
        let filtered = match Filtered::new(&scan) {
            Ok(filtered) => filtered,
            Err(error) => return stream::iter(vec![Err(error)]).left_stream(),
        };
        let read = stream::iter(chunks).then(move |chunk| {
            let (filtered, reads) = (filtered.clone(), reads.clone());
            let shared = Arc::clone(&shared);
            let place = Place {
                lane,
                stored: stored.clone(),
                absent: Arc::clone(&absent),
            };
            async move {
                let scan = &filtered.scan;
                let parts = scan.chunk_columns(&reads, place, &shared, chunk).await;
                let batches = match parts {
                    Ok((parts, rows)) => scan.batches(lane, &parts, rows),
                    Err(error) => vec![Err(error)],
                };
                let batches = batches.into_iter();
                batches
                    .map(|batch| filtered.rows_of(batch?))
                    .collect::<Vec<_>>()
            }
        });
        let read = read.map(stream::iter).flatten();
        stream::iter(ready).chain(read).right_stream()
    }
}

/// Reads runs, of which a scan wants some rows alone.
#[derive(Clone)]
struct Filtered {
    /// A scan of the columns that are asked for and, after them, of those that rows
    /// are chosen by.
    scan: Arc<Scan>,
    /// What columns of that scan have to be.
    values: Arc<[(usize, ScalarValue)]>,
    /// How many columns are asked for.
    width: usize,
}

impl Filtered {
    fn new(scan: &Arc<Scan>) -> crate::error::Result<Self> {
        let width = scan.columns.len();
        if scan.wanted.equal.is_empty() {
            return Ok(Filtered {
                scan: Arc::clone(scan),
                values: Arc::default(),
                width,
            });
        }
        let mut wide = Scan::clone(scan);
        // So many of all rows are not so many of those that are chosen.
        wide.wanted.limit = None;
        let mut fields: Vec<_> = wide.schema.fields().iter().cloned().collect();
        let mut values = Vec::with_capacity(scan.wanted.equal.len());
        let definition = scan.relation.table();
        for equal in &scan.wanted.equal {
            let mut columns = wide.columns.iter();
            let known = columns.position(|column| column.number == equal.column);
            let column = definition.and_then(|definition| {
                Some(&definition.columns[definition.position(equal.column)?])
            });
            let column = column.ok_or_else(|| {
                Error::internal(
                    "a stored table cannot be read",
                    format!("it has no column {}, which a key is of", equal.column),
                )
            })?;
            let at = known.unwrap_or_else(|| {
                fields.push(Arc::clone(&column.field));
                wide.columns.push(ReadColumn {
                    number: column.number,
                    data_type: column.field.data_type().clone(),
                    filler: column.filler.clone(),
                });
                wide.columns.len() - 1
            });
            values.push((at, equal.value()?.clone()));
        }
        wide.schema = Arc::new(Schema::new(fields));
        Ok(Filtered {
            scan: Arc::new(wide),
            values: values.into(),
            width,
        })
    }

    /// The rows of a batch that are asked for, and their columns.
    fn rows_of(&self, batch: RecordBatch) -> crate::error::Result<RecordBatch> {
        if self.values.is_empty() {
            return Ok(batch);
        }
        let columns: Vec<usize> = (0..self.width).collect();
        equal::rows_with(&batch, &self.values)
            .and_then(|rows| rows.project(&columns))
            .map_err(|error| Error::internal("a stored table cannot be read", error))
    }
}

impl Scan {
    /// Whether a column is to equal NULL, which none does.
    fn finds_nothing(&self) -> crate::error::Result<bool> {
        let mut nothing = false;
        for equal in &self.wanted.equal {
            nothing |= equal.value()?.is_null();
        }
        Ok(nothing)
    }

    /// What is decoded: every column but the tenant's, whose value is known.
    pub(super) fn stored_columns(&self) -> Vec<ReadColumn> {
        self.columns
            .iter()
            .filter(|column| column.number != 0)
            .cloned()
            .collect()
    }

    /// The values of every column but the tenant's in a run, from memory where
    /// they are, and how many rows they are of: where few are asked for, as many.
    async fn chunk_columns(
        &self,
        reads: &StatementReads,
        place: Place,
        shared: &Arc<str>,
        chunk: Chunk,
    ) -> crate::error::Result<(Vec<Parts>, usize)> {
        let lane = place.lane;
        let columns = self.stored_columns();
        let mut parts: Vec<Option<Parts>> = columns
            .iter()
            .map(|column| self.cache.get(lane, shared, chunk, column.number))
            .collect();
        let missing: Vec<ReadColumn> = columns
            .iter()
            .zip(&parts)
            .filter(|(_, parts)| parts.is_none())
            .map(|(column, _)| column.clone())
            .collect();
        let limit = self.wanted.limit.unwrap_or(usize::MAX);
        if !missing.is_empty() && limit < chunk.rows {
            // A part of a run is not kept.
            let first = reads
                .read(lane, move |transaction| {
                    let Place { stored, absent, .. } = &place;
                    chunks::load(transaction, stored, chunk, &columns, absent, limit)
                })
                .await?;
            return Ok((first.unwrap_or_default(), limit));
        }
        if !missing.is_empty() {
            let wanted = missing.clone();
            let loaded = reads
                .read(lane, move |transaction| {
                    let Place { stored, absent, .. } = &place;
                    chunks::load(transaction, stored, chunk, &wanted, absent, chunk.rows)
                })
                .await?
                .unwrap_or_default();
            let keep = !reads.is_dirty(lane)?;
            let mut loaded = missing.iter().zip(loaded);
            for slot in parts.iter_mut().filter(|slot| slot.is_none()) {
                if let Some((column, read)) = loaded.next() {
                    if keep {
                        self.cache
                            .put(lane, shared, chunk, column.number, Arc::clone(&read));
                    }
                    *slot = Some(read);
                }
            }
        }
        Ok((parts.into_iter().flatten().collect(), chunk.rows))
    }

    /// The columns as batches: one, unless a column is in several parts.
    fn batches(
        &self,
        lane: Lane,
        columns: &[Parts],
        rows: usize,
    ) -> Vec<crate::error::Result<RecordBatch>> {
        let mut batches = Vec::with_capacity(1);
        let mut done = 0;
        while done < rows {
            let mut length = rows - done;
            let mut arrays = Vec::with_capacity(columns.len());
            for parts in columns {
                let Some((array, offset)) = part_at(parts, done) else {
                    let error = "a column has fewer values than its rows";
                    return vec![Err(Error::internal("a stored table cannot be read", error))];
                };
                length = length.min(array.len() - offset);
                arrays.push((array, offset));
            }
            let arrays = arrays
                .into_iter()
                .map(|(array, offset)| array.slice(offset, length))
                .collect();
            batches.push(self.batch(lane, arrays, length));
            done += length;
        }
        batches
    }

    /// A batch of the output's columns, the lane's tenant among them.
    fn batch(
        &self,
        lane: Lane,
        arrays: Vec<ArrayRef>,
        rows: usize,
    ) -> crate::error::Result<RecordBatch> {
        let mut stored = arrays.into_iter();
        let columns: Vec<ArrayRef> = self
            .columns
            .iter()
            .filter_map(|column| match column.number {
                0 => Some(tenants(lane, rows)),
                _ => stored.next(),
            })
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|error| Error::internal("a stored table cannot be read", error))
    }
}

/// The part that has the value at `at`, and where in it.
fn part_at(parts: &Parts, at: usize) -> Option<(&ArrayRef, usize)> {
    let mut offset = at;
    for part in parts.iter() {
        if offset < part.len() {
            return Some((part, offset));
        }
        offset -= part.len();
    }
    None
}

/// The tenant of `rows` rows of a lane.
fn tenants(lane: Lane, rows: usize) -> ArrayRef {
    match lane.tenant() {
        None => new_null_array(&tenant_type(), rows),
        Some(tenant) => {
            let keys = Int8Array::from(vec![0; rows]);
            let values = StringArray::from(vec![tenant.to_string()]);
            let tenants: DictionaryArray<Int8Type> = DictionaryArray::new(keys, Arc::new(values));
            Arc::new(tenants)
        }
    }
}
