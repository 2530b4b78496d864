//! The read side's second layer: tables that are bound to a scope, and the plan
//! node that lets only rows of its lanes out.
//!
//! Architecture invariant: [`GuardExec`] is a leaf. The scan below it is not
//! among its children, so no rule of the optimizer can move a predicate, a
//! limit or a projection of the statement across it, and `EXPLAIN` shows
//! neither the files nor the counts of what is read underneath.

use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{BatchCoalescer, CastOptions, cast_with_options};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, reset_plan_states};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput,
};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties,
    Partitioning, PlanProperties, ReplaceChildrenOptions,
};
use futures::{Stream, StreamExt};

use super::fault::{carried, planning};
use super::held::Held;
use super::stored::StoredTable;
use super::system::SystemTable;
use super::total::is_total;
use crate::error::Error;
use crate::policy::{LaneMask, LanePredicate};
use crate::source::{LaneScan, SourceTable};
use crate::table::{StatementReads, TableScanExec};
use crate::tenant::Scope;

/// A table as one scope sees it: the only kind that a statement can name.
#[derive(Debug)]
pub struct ScopedTable {
    scope: Scope,
    name: String,
    rows: Rows,
}

/// Where a table's rows come from.
#[derive(Debug)]
pub(super) enum Rows {
    /// Files.
    Source(SourceTable),
    /// The catalog's own records.
    System(SystemTable),
    /// Lanes.
    Stored(StoredTable),
    /// Other tables, each bound to the scope by itself.
    View(Box<LogicalPlan>, SchemaRef),
}

impl ScopedTable {
    pub(super) fn new(scope: &Scope, name: String, rows: Rows) -> Self {
        ScopedTable {
            scope: scope.clone(),
            name,
            rows,
        }
    }

    /// The scope that the table is bound to.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Whether rows for which `filters` are true are found by whole unique keys.
    pub(super) fn is_of_keys(&self, filters: &[Expr]) -> bool {
        match &self.rows {
            Rows::Stored(table) => {
                let total = filters.iter().filter(|filter| is_total(filter));
                let total: Vec<Expr> = total.cloned().collect();
                table.is_of_keys(&total)
            }
            Rows::Source(_) | Rows::System(_) | Rows::View(..) => false,
        }
    }

    /// Whether a scan with `filters` yields the rows of a whole unique key and no
    /// others.
    fn finds_key(&self, filters: &[&Expr]) -> bool {
        match &self.rows {
            Rows::Stored(table) => !table.equal(filters).is_empty(),
            Rows::Source(_) | Rows::System(_) | Rows::View(..) => false,
        }
    }

    /// Whether such a scan keeps to `filter`.
    fn is_equal(&self, filter: &Expr) -> bool {
        match &self.rows {
            Rows::Stored(table) => table.is_equal(filter),
            Rows::Source(_) | Rows::System(_) | Rows::View(..) => false,
        }
    }

    /// Whether `filters` choose rows by a whole unique key, and the scan keeps to all
    /// of them by itself, whatever the values of their parameters are.
    pub(super) fn keeps_to(&self, filters: &[Expr]) -> bool {
        let filters: Vec<&Expr> = filters.iter().collect();
        let mut all = filters.iter();
        self.finds_key(&filters)
            && all.all(|filter| self.is_equal(filter) || self.is_lane_predicate(filter))
    }

    /// The name of the temporary table that it is, if it is one.
    pub(super) fn temporary(&self) -> Option<&str> {
        match &self.rows {
            Rows::Stored(table) => table.is_temporary().then(|| table.name()),
            Rows::Source(_) | Rows::System(_) | Rows::View(..) => None,
        }
    }

    /// The tenant column and the predicate over it, where rows carry a tenant.
    pub(super) fn lane_predicate(&self) -> crate::error::Result<Option<(String, LanePredicate)>> {
        match &self.rows {
            Rows::Source(table) => {
                let column = table.source().definition.tenant_column.name();
                let predicate = table.lane_predicate(&self.scope)?;
                Ok(column.map(str::to_owned).zip(predicate))
            }
            Rows::System(table) => table.lane_predicate(&self.scope),
            Rows::Stored(table) => table.lane_predicate(&self.scope),
            Rows::View(..) => Ok(None),
        }
    }

    /// Whether `filter` is what the guard enforces anyway.
    fn is_lane_predicate(&self, filter: &Expr) -> bool {
        let Ok(Some((column, predicate))) = self.lane_predicate() else {
            return false;
        };
        filter
            .column_refs()
            .into_iter()
            .next()
            .is_some_and(|used| used.name == column && *filter == predicate.logical(used.clone()))
    }
}

#[async_trait]
impl TableProvider for ScopedTable {
    fn schema(&self) -> SchemaRef {
        match &self.rows {
            Rows::Source(table) => Arc::clone(table.schema()),
            Rows::System(table) => table.schema(),
            Rows::Stored(table) => table.schema(),
            Rows::View(_, schema) => Arc::clone(schema),
        }
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        match &self.rows {
            Rows::Stored(table) => table.default(column),
            Rows::Source(_) | Rows::System(_) | Rows::View(..) => None,
        }
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        match &self.rows {
            Rows::View(plan, _) => Some(Cow::Borrowed(plan)),
            Rows::Source(_) | Rows::System(_) | Rows::Stored(_) => None,
        }
    }

    fn table_type(&self) -> TableType {
        match self.rows {
            Rows::View(..) => TableType::View,
            Rows::Source(_) | Rows::System(_) | Rows::Stored(_) => TableType::Base,
        }
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let scan = match &self.rows {
            Rows::Source(table) => {
                // Only what cannot fail may be evaluated below the guard, on
                // rows of whichever lane.
                let pruning: Vec<Expr> = filters
                    .iter()
                    .filter(|filter| is_total(filter) && !self.is_lane_predicate(filter))
                    .cloned()
                    .collect();
                table
                    .scan(session, &self.scope, projection, &pruning)
                    .await
                    .map_err(carried)?
            }
            Rows::System(table) => {
                let scan = table.scan(session, &self.scope, projection, filters);
                scan.await?
            }
            Rows::Stored(table) => {
                let keys: Vec<Expr> = filters
                    .iter()
                    .filter(|filter| is_total(filter) && !self.is_lane_predicate(filter))
                    .cloned()
                    .collect();
                // Every row of a stored table that is read is the scope's, so
                // that the guard keeps as many.
                table
                    .scan(&self.scope, projection, &keys, limit)
                    .map_err(carried)?
            }
            Rows::View(..) => {
                return Err(carried(Error::internal(
                    "the statement was refused: a view was to be read as a table",
                    self.name.clone(),
                )));
            }
        };
        Ok(Arc::new(GuardExec::new(
            self.scope.clone(),
            self.name.clone(),
            scan,
        )))
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let finds_key = self.finds_key(filters);
        Ok(filters
            .iter()
            .map(|filter| {
                if self.is_lane_predicate(filter) || (finds_key && self.is_equal(filter)) {
                    TableProviderFilterPushDown::Exact
                } else if is_total(filter) {
                    TableProviderFilterPushDown::Inexact
                } else {
                    TableProviderFilterPushDown::Unsupported
                }
            })
            .collect())
    }
}

/// Yields the rows of a scan that belong to the lanes of a scope.
#[derive(Debug)]
pub struct GuardExec {
    scope: Scope,
    table: String,
    scan: LaneScan,
    /// What is evaluated above it and not below: to be shown.
    held: Arc<[Held]>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl GuardExec {
    pub(super) fn new(scope: Scope, table: String, scan: LaneScan) -> Self {
        let partitions = scan.plan.output_partitioning().partition_count();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&scan.output)),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        GuardExec {
            scope,
            table,
            scan,
            held: Arc::default(),
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// The scope whose lanes' rows come out.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The guard of a scan that offers the rows with the least and the greatest
    /// values of some columns alone; `None` where no index finds them.
    pub(super) fn offering_extremes(&self, columns: &[usize]) -> Option<Self> {
        let scan = self.scan.plan.downcast_ref::<TableScanExec>()?;
        let scan = self.over(Arc::new(scan.offering_extremes(columns)?));
        Some(GuardExec::new(self.scope.clone(), self.table.clone(), scan))
    }

    /// The same guard, which shows what is held above it.
    pub(super) fn holding(&self, held: &[Held]) -> Self {
        GuardExec {
            held: held.into(),
            ..self.with_scan(Arc::clone(&self.scan.plan))
        }
    }

    fn over(&self, plan: Arc<dyn ExecutionPlan>) -> LaneScan {
        LaneScan {
            plan,
            lane: self.scan.lane.clone(),
            output: Arc::clone(&self.scan.output),
        }
    }

    /// The guard of another plan of the same scan, which has not run.
    fn with_scan(&self, plan: Arc<dyn ExecutionPlan>) -> Self {
        GuardExec {
            scope: self.scope.clone(),
            table: self.table.clone(),
            scan: self.over(plan),
            held: Arc::clone(&self.held),
            properties: Arc::clone(&self.properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// The guard of the same scan where parameters have `values`.
    fn given(&self, values: &[ScalarValue]) -> crate::error::Result<Self> {
        let scan = match self.scan.plan.downcast_ref::<TableScanExec>() {
            Some(scan) => Arc::new(scan.given(values)?) as Arc<dyn ExecutionPlan>,
            None => {
                return Err(Error::internal(
                    "the statement cannot be run",
                    format!("the plan of a scan of {} was kept", self.table),
                ));
            }
        };
        Ok(self.with_scan(scan))
    }

    /// Says what state of the lanes the scan reads, before it is executed.
    pub(super) fn attach(&self, reads: &StatementReads) {
        if let Some(scan) = self.scan.plan.downcast_ref::<TableScanExec>() {
            scan.attach(reads);
        }
    }
}

/// The plan, which is of guarded scans that keep to their keys by themselves, where
/// parameters have `values`: one that has not run.
pub(super) fn given(
    plan: &Arc<dyn ExecutionPlan>,
    values: &[ScalarValue],
) -> crate::error::Result<Arc<dyn ExecutionPlan>> {
    if let Some(guard) = plan.downcast_ref::<GuardExec>() {
        return Ok(Arc::new(guard.given(values)?));
    }
    let children = plan.children().into_iter();
    let children = children
        .map(|child| given(child, values))
        .collect::<crate::error::Result<Vec<_>>>()?;
    let keep = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep);
    Arc::clone(plan)
        .replace_children(children, keep)
        .map_err(planning)
}

/// The plan with what `change` makes of the guard whose rows it yields as they come,
/// and with the properties of operators between them as `mode` says; `None` where it
/// is no such plan, or the guard is not changed.
pub(super) fn with_guard_below(
    plan: &Arc<dyn ExecutionPlan>,
    mode: ChildrenPropertiesMode,
    change: &dyn Fn(&GuardExec) -> Option<GuardExec>,
) -> Option<Arc<dyn ExecutionPlan>> {
    if let Some(guard) = plan.downcast_ref::<GuardExec>() {
        return Some(Arc::new(change(guard)?));
    }
    let passes_through = plan.is::<RepartitionExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<CooperativeExec>();
    if !passes_through {
        return None;
    }
    let input = with_guard_below(plan.children().first()?, mode, change)?;
    let options = ReplaceChildrenOptions::new(mode);
    Arc::clone(plan).replace_children(vec![input], options).ok()
}

/// Says to every guard of a plan what state of the lanes its scan reads.
pub(super) fn attach(plan: &Arc<dyn ExecutionPlan>, reads: &StatementReads) {
    if let Some(guard) = plan.downcast_ref::<GuardExec>() {
        guard.attach(reads);
    }
    for child in plan.children() {
        attach(child, reads);
    }
}

impl DisplayAs for GuardExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<&str> = self
            .scan
            .output
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        let lanes = match (self.scan.lane.is_some(), self.scope.tenant()) {
            (false, _) => "whole".to_owned(),
            (true, None) => "global".to_owned(),
            (true, Some(_)) => {
                let tenants: Vec<String> = self.scope.tenants().map(|id| id.to_string()).collect();
                format!("{}, global", tenants.join(", "))
            }
        };
        write!(
            f,
            "GuardExec: table={}, columns=[{}], lanes=[{lanes}]",
            self.table,
            columns.join(", ")
        )?;
        let stored = self.scan.plan.downcast_ref::<TableScanExec>();
        match stored.map(TableScanExec::lookup_columns) {
            Some(lookup) if !lookup.is_empty() => write!(f, ", lookup=[{}]", lookup.join(", "))?,
            _ => {}
        }
        match &*self.held {
            [] => Ok(()),
            held => {
                let held: Vec<String> = held.iter().map(Held::to_string).collect();
                write!(f, ", held above=[{}]", held.join(", "))
            }
        }
    }
}

impl ExecutionPlan for GuardExec {
    fn name(&self) -> &str {
        "GuardExec"
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

    fn repartitioned(
        &self,
        target_partitions: usize,
        _config: &ConfigOptions,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let scan = self.scan.plan.downcast_ref::<TableScanExec>();
        let split = scan.and_then(|scan| scan.split(target_partitions));
        Ok(split.map(|scan| {
            let scan = self.over(Arc::new(scan));
            let guard = GuardExec::new(self.scope.clone(), self.table.clone(), scan);
            Arc::new(guard) as _
        }))
    }

    // A recursive query executes its plan anew for each step, and a scan of files
    // remembers which of them it has read.
    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        let scan = reset_plan_states(Arc::clone(&self.scan.plan))?;
        Ok(Arc::new(GuardExec {
            metrics: self.metrics.clone(),
            ..self.with_scan(scan)
        }))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let batch_rows = context.session_config().batch_size();
        let input = self.scan.plan.execute(partition, context)?;
        Ok(Box::pin(GuardStream {
            input,
            table: self.table.clone(),
            lane: self.scan.lane.clone(),
            output: Arc::clone(&self.scan.output),
            partial: BatchCoalescer::new(Arc::clone(&self.scan.output), batch_rows),
            whole_rows: match self.scan.lane.is_some() && !self.scan.plan.is::<TableScanExec>() {
                true => Some(batch_rows),
                false => None,
            },
            metrics: BaselineMetrics::new(&self.metrics, partition),
            ended: false,
        }))
    }

    // Of the rows that came out alone: what was read underneath may be others'.
    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

struct GuardStream {
    input: SendableRecordBatchStream,
    table: String,
    lane: Option<(usize, LanePredicate)>,
    output: SchemaRef,
    /// Rows of batches that were let out in part, until they fill a batch.
    partial: BatchCoalescer,
    /// How many rows a batch has that may be let out as it came, where rows of several
    /// lanes lie together: batches that end where others' rows begin would tell where
    /// those are.
    whole_rows: Option<usize>,
    metrics: BaselineMetrics,
    ended: bool,
}

impl GuardStream {
    fn next_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        loop {
            if let Some(batch) = self.partial.next_completed_batch() {
                return Poll::Ready(Some(Ok(batch)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match ready!(self.input.poll_next_unpin(cx)) {
                None => {
                    self.ended = true;
                    self.partial.finish_buffered_batch()?;
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(self.discreet(error))));
                }
                Some(Ok(batch)) => {
                    let elapsed = self.metrics.elapsed_compute().clone();
                    let _timer = elapsed.timer();
                    if let Some(whole) = self.admit(&batch)? {
                        return Poll::Ready(Some(Ok(whole)));
                    }
                }
            }
        }
    }

    /// Lets the rows of the scope's lanes out: a batch that is wholly so and as long
    /// as those are that `partial` makes at once, others by way of it.
    fn admit(&mut self, batch: &RecordBatch) -> Result<Option<RecordBatch>> {
        let mask = match &self.lane {
            None => LaneMask::All,
            Some((column, predicate)) => predicate.mask(batch.column(*column)).map_err(carried)?,
        };
        match mask {
            LaneMask::None => Ok(None),
            LaneMask::All => {
                let batch = self.project(batch)?;
                let is_whole = self.whole_rows.is_none_or(|rows| batch.num_rows() == rows);
                if is_whole && self.partial.is_empty() {
                    return Ok(Some(batch));
                }
                self.partial.push_batch(batch)?;
                Ok(None)
            }
            LaneMask::Some(mask) => {
                // The rows go first and the types after, so that no value of
                // another lane is ever converted.
                let kept = arrow::compute::filter_record_batch(batch, &mask)?;
                let kept = self.project(&kept)?;
                self.partial.push_batch(kept)?;
                Ok(None)
            }
        }
    }

    /// The columns asked for, in the table's types.
    fn project(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let strict = CastOptions {
            safe: false,
            ..CastOptions::default()
        };
        let columns = self
            .output
            .fields()
            .iter()
            .zip(batch.columns())
            .map(|(field, column)| {
                if column.data_type() == field.data_type() {
                    return Ok(Arc::clone(column));
                }
                cast_with_options(column, field.data_type(), &strict).map_err(|error| {
                    carried(Error::DataLoss(format!(
                        "table {} has a value in column {:?} that is no {}: mend the file, \
                         or refresh the source ({error})",
                        self.table,
                        field.name(),
                        field.data_type()
                    )))
                })
            })
            .collect::<Result<Vec<ArrayRef>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(
            Arc::clone(&self.output),
            columns,
            &options,
        )?)
    }

    /// An error of the scan below the guard. Where rows carry a tenant its text
    /// may quote another lane's row, so neither the caller nor the log gets it.
    fn discreet(&self, error: DataFusionError) -> DataFusionError {
        let table = &self.table;
        let detail = match (&self.lane, super::fault::execution(error)) {
            // Of a lane's own storage, whose errors quote no row.
            (_, storage @ Error::Backend(_)) => return carried(storage),
            (Some(_), _) => String::new(),
            (None, Error::Internal { .. }) => String::new(),
            (None, shown) => format!(" ({shown})"),
        };
        tracing::warn!(table, "a table's files could not be read to their end");
        carried(Error::DataLoss(format!(
            "table {table} cannot be read to its end: a file of it is damaged, was changed while \
             it was read, or does not match its registered schema: mend the file, or refresh the \
             source{detail}"
        )))
    }
}

impl Stream for GuardStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let batch = ready!(self.next_batch(cx));
        Poll::Ready(batch.map(|batch| batch.record_output(&self.metrics)))
    }
}

impl RecordBatchStream for GuardStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.output)
    }
}
