//! The plan node that reads row groups from memory and from their files.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::concat;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig, FileScanConfigBuilder};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::{StreamExt, stream};
use metrics::counter;

use super::{LaneRows, Parts, RowGroupCache};
use crate::source::lane_view::LaneView;
use crate::source::parquet;

/// Of the memory, what the columns of one row group may take. A larger one would
/// push out most of the others, and is read from its file each time.
const SHARE_OF_ONE: u64 = 4;

/// A row group that has rows of the lane.
#[derive(Clone, Debug)]
pub(in crate::source) struct RowGroup {
    /// The lane's rows in its file.
    pub(super) of: Arc<LaneRows>,
    file: Arc<ViewedFile>,
    /// Its place among the row groups of the view.
    pub(super) index: usize,
    /// How many of its rows are the lane's.
    pub(super) rows: usize,
    /// Its bytes in memory, about.
    bytes: u64,
}

/// A file as it is opened.
#[derive(Debug)]
struct ViewedFile {
    file: PartitionedFile,
    view: Arc<LaneView>,
}

impl RowGroup {
    /// The row groups of `view`, which is exact, of `file`.
    pub(in crate::source) fn all(
        file: PartitionedFile,
        view: &Arc<LaneView>,
        of: LaneRows,
    ) -> Vec<RowGroup> {
        let of = Arc::new(of);
        let file = Arc::new(ViewedFile {
            file,
            view: Arc::clone(view),
        });
        let groups = view.metadata.row_groups().iter().enumerate();
        groups
            .zip(view.access.inner())
            .map(|((index, group), access)| {
                let all = usize::try_from(group.num_rows()).unwrap_or(0);
                let rows = match access {
                    RowGroupAccess::Skip => 0,
                    RowGroupAccess::Scan => all,
                    RowGroupAccess::Selection(selection) => selection.row_count(),
                };
                let whole = u64::try_from(group.total_byte_size()).unwrap_or(u64::MAX);
                RowGroup {
                    of: Arc::clone(&of),
                    file: Arc::clone(&file),
                    index,
                    rows,
                    bytes: whole.saturating_mul(rows as u64) / (all as u64).max(1),
                }
            })
            .filter(|group| group.rows > 0)
            .collect()
    }
}

/// A column of the output.
#[derive(Clone, Debug)]
enum OutputColumn {
    /// The column of this place among those that are read from the file.
    File(usize),
    /// The value of this place among those of the file's directories.
    Directory(usize),
}

/// Yields the rows of row groups.
#[derive(Debug)]
pub(in crate::source) struct RowGroupsExec {
    scan: Arc<Scan>,
    properties: Arc<PlanProperties>,
}

#[derive(Debug)]
struct Scan {
    /// A scan of no file, with all that is not of the files.
    template: FileScanConfig,
    schema: SchemaRef,
    output: Vec<OutputColumn>,
    /// The columns that are read from files.
    columns: Vec<(Arc<str>, DataType)>,
    /// The row groups of each partition.
    partitions: Vec<Vec<RowGroup>>,
    cache: RowGroupCache,
}

impl RowGroupsExec {
    /// A scan of `groups`, of each of which `template` reads the columns at `read`,
    /// where those from `file_columns` on are of the directories. `None` where no
    /// column is read from the files.
    pub(in crate::source) fn new(
        template: FileScanConfig,
        read: &[usize],
        file_columns: usize,
        groups: Vec<RowGroup>,
        partitions: usize,
        cache: RowGroupCache,
    ) -> Option<Self> {
        let schema = parquet::plan(template.clone()).schema();
        let mut columns = vec![];
        let output = read.iter().zip(schema.fields()).map(|(&at, field)| {
            if at >= file_columns {
                return OutputColumn::Directory(at - file_columns);
            }
            columns.push((field.name().as_str().into(), field.data_type().clone()));
            OutputColumn::File(columns.len() - 1)
        });
        let output: Vec<OutputColumn> = output.collect();
        if columns.is_empty() {
            return None;
        }
        let partitions = dealt(groups, partitions);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(partitions.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Some(RowGroupsExec {
            scan: Arc::new(Scan {
                template,
                schema,
                output,
                columns,
                partitions,
                cache,
            }),
            properties: Arc::new(properties),
        })
    }
}

/// `groups` in up to `hands` hands, by turns: which of them are kept has no order,
/// and files are read by all hands at once.
fn dealt(groups: Vec<RowGroup>, hands: usize) -> Vec<Vec<RowGroup>> {
    let hands = hands.min(groups.len()).max(1);
    let mut dealt = vec![vec![]; hands];
    for (at, group) in groups.into_iter().enumerate() {
        dealt[at % hands].push(group);
    }
    dealt
}

impl DisplayAs for RowGroupsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.scan.partitions.iter().map(Vec::len).sum::<usize>();
        write!(f, "RowGroupsExec: row_groups={groups}")
    }
}

impl ExecutionPlan for RowGroupsExec {
    fn name(&self) -> &str {
        "RowGroupsExec"
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

    // It remembers nothing of having been executed.
    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let Some(groups) = self.scan.partitions.get(partition) else {
            return internal_err!("a scan of row groups has no partition {partition}");
        };
        let reading = Reading {
            scan: Arc::clone(&self.scan),
            left: groups.iter().cloned().collect(),
            now: Now::Between,
            context,
        };
        let batches = stream::try_unfold(reading, |mut reading| async move {
            let batch = reading.next().await?;
            Ok(batch.map(|batch| (batch, reading)))
        });
        let schema = Arc::clone(&self.scan.schema);
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}

/// A partition that is being read.
struct Reading {
    scan: Arc<Scan>,
    left: VecDeque<RowGroup>,
    now: Now,
    context: Arc<TaskContext>,
}

enum Now {
    Between,
    /// From memory: the parts from here on.
    Kept {
        group: RowGroup,
        columns: Vec<Parts>,
        part: usize,
    },
    /// From files: row groups that follow each other.
    Read {
        batches: SendableRecordBatchStream,
        run: VecDeque<RowGroup>,
        keeping: Keeping,
    },
}

impl Reading {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            match &mut self.now {
                Now::Between => match self.left.pop_front() {
                    None => return Ok(None),
                    Some(group) => self.begin(group)?,
                },
                Now::Kept {
                    group,
                    columns,
                    part,
                } => {
                    let batch = self.scan.rows(group, columns, *part)?;
                    *part += 1;
                    match batch {
                        Some(batch) => return Ok(Some(batch)),
                        None => self.now = Now::Between,
                    }
                }
                Now::Read {
                    batches,
                    run,
                    keeping,
                } => match batches.next().await {
                    None => self.now = Now::Between,
                    Some(batch) => {
                        let batch = batch?;
                        keeping.see(&self.scan, run, &batch)?;
                        return Ok(Some(batch));
                    }
                },
            }
        }
    }

    fn begin(&mut self, group: RowGroup) -> Result<()> {
        let scan = &self.scan;
        if let Some(columns) = scan.cache.get(&group, &scan.columns) {
            count("hit", 1);
            self.now = Now::Kept {
                group,
                columns,
                part: 0,
            };
            return Ok(());
        }
        let mut run = VecDeque::from([group]);
        while let Some(next) = self.left.front() {
            if scan.cache.has(next, &scan.columns) {
                break;
            }
            run.extend(self.left.pop_front());
        }
        count("miss", run.len());
        let batches = scan.read(&run, &self.context)?;
        self.now = Now::Read {
            batches,
            run,
            keeping: Keeping::new(&self.context),
        };
        Ok(())
    }
}

/// Of all scans together: which lanes they are of is nobody's to see.
fn count(outcome: &'static str, groups: usize) {
    counter!("jammi_row_group_cache_total", "outcome" => outcome).increment(groups as u64);
}

impl Scan {
    /// All columns of a part of a row group, of which those of its file are `kept`.
    /// `None` after the last part.
    fn rows(&self, group: &RowGroup, kept: &[Parts], part: usize) -> Result<Option<RecordBatch>> {
        let Some(first) = kept.first().and_then(|parts| parts.get(part)) else {
            return Ok(None);
        };
        let rows = first.len();
        let columns = self.output.iter().map(|column| match column {
            OutputColumn::File(column) => match kept[*column].get(part) {
                Some(values) => Ok(Arc::clone(values)),
                None => internal_err!("the columns of a row group have other parts"),
            },
            OutputColumn::Directory(value) => match group.file.file.partition_values.get(*value) {
                Some(value) => ScalarValue::to_array_of_size(value, rows),
                None => internal_err!("a file's directories lack value {value}"),
            },
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let schema = Arc::clone(&self.schema);
        Ok(Some(RecordBatch::try_new(schema, columns)?))
    }

    /// Reads a run of row groups from their files, in order.
    fn read(
        &self,
        run: &VecDeque<RowGroup>,
        context: &Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let mut files: Vec<(&Arc<ViewedFile>, ParquetAccessPlan)> = vec![];
        for group in run {
            let access = &group.file.view.access.inner()[group.index];
            match files.last_mut() {
                Some((file, plan)) if Arc::ptr_eq(file, &group.file) => {
                    plan.set(group.index, access.clone());
                }
                _ => {
                    let mut plan = ParquetAccessPlan::new_none(group.file.view.access.len());
                    plan.set(group.index, access.clone());
                    files.push((&group.file, plan));
                }
            }
        }
        let files = files.into_iter().map(|(viewed, access)| {
            let file = parquet::viewed(viewed.file.clone(), &viewed.view);
            file.with_extension(access)
        });
        let config = FileScanConfigBuilder::from(self.template.clone())
            .with_file_groups(vec![FileGroup::new(files.collect())])
            .build();
        parquet::plan(config).execute(0, Arc::clone(context))
    }
}

/// The rows of a row group that were read so far, to be kept when it is whole.
struct Keeping {
    batch_rows: usize,
    /// The rows of which there are enough for a part, by column.
    parts: Vec<Vec<ArrayRef>>,
    /// Rows that do not fill a part yet.
    short: Vec<RecordBatch>,
    short_rows: usize,
    rows: usize,
    /// Of the tenant's memory: what is kept for later is never worth failing for.
    reservation: MemoryReservation,
    /// Whether the row group is too large to be kept, or memory ran short.
    has_given_up: bool,
}

impl Keeping {
    fn new(context: &TaskContext) -> Self {
        let consumer = MemoryConsumer::new("row groups to be kept");
        Keeping {
            batch_rows: context.session_config().batch_size().max(1),
            parts: vec![],
            short: vec![],
            short_rows: 0,
            rows: 0,
            reservation: consumer.register(context.memory_pool()),
            has_given_up: false,
        }
    }

    /// Takes note of the next rows of `run`, from which those row groups are taken
    /// that end in them.
    fn see(
        &mut self,
        scan: &Scan,
        run: &mut VecDeque<RowGroup>,
        batch: &RecordBatch,
    ) -> Result<()> {
        let mut at = 0;
        while at < batch.num_rows() {
            let Some(group) = run.front() else {
                return internal_err!("a file has more rows than its row groups");
            };
            let missing = (group.rows - self.rows).min(self.batch_rows - self.short_rows);
            let taken = missing.min(batch.num_rows() - at);
            self.add(scan, group, batch.slice(at, taken));
            (self.rows, at) = (self.rows + taken, at + taken);
            if self.rows == group.rows {
                self.keep(scan, group);
                run.pop_front();
            }
        }
        Ok(())
    }

    fn add(&mut self, scan: &Scan, group: &RowGroup, batch: RecordBatch) {
        let is_large = group.bytes > scan.cache.bytes_max() / SHARE_OF_ONE;
        let bytes = batch.get_array_memory_size();
        self.has_given_up |= is_large || self.reservation.try_grow(bytes).is_err();
        self.short_rows += batch.num_rows();
        self.short.push(batch);
        if self.has_given_up {
            self.clear();
        } else if self.short_rows == self.batch_rows {
            self.fill(scan);
        }
    }

    /// Makes a part of the rows that are short of one.
    fn fill(&mut self, scan: &Scan) {
        self.parts.resize(scan.output.len(), vec![]);
        for (column, parts) in self.parts.iter_mut().enumerate() {
            let short = self.short.iter();
            let short: Vec<_> = short.map(|batch| batch.column(column).as_ref()).collect();
            match concat(&short) {
                Ok(part) => parts.push(part),
                // Text of more bytes than one array holds is not kept.
                Err(_) => self.has_given_up = true,
            }
        }
        self.short.clear();
        self.short_rows = 0;
    }

    /// Keeps the row group, which is whole unless it was given up, and begins another.
    fn keep(&mut self, scan: &Scan, group: &RowGroup) {
        if self.short_rows > 0 {
            self.fill(scan);
        }
        if !self.has_given_up {
            let parts = std::mem::take(&mut self.parts);
            for (output, parts) in scan.output.iter().zip(parts) {
                if let OutputColumn::File(column) = output {
                    let column = &scan.columns[*column];
                    scan.cache.put(group, column, parts.into());
                }
            }
        }
        self.clear();
        (self.rows, self.has_given_up) = (0, false);
    }

    fn clear(&mut self) {
        self.parts.clear();
        self.short.clear();
        self.short_rows = 0;
        self.reservation.free();
    }
}
