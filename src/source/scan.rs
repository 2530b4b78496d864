//! Planning a scan of a source's files for one scope.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfig, FileScanConfigBuilder, FileSource,
};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use futures::{FutureExt, StreamExt};
use metrics::counter;

use super::files::{self, FileChecks, SourceFile};
use super::lane_view::{LaneView, LaneViews, with_tenants_once};
use super::location::{Location, LocationKind, LocationPolicy};
use super::register::belongs;
use super::row_groups::{LaneRows, RowGroup, RowGroupCache, RowGroupsExec};
use super::{Stores, format, parquet};
use crate::catalog::{Source, SourceFormat};
use crate::error::{Error, Result};
use crate::policy::LanePredicate;
use crate::tenant::Scope;

/// Files of a scan up to which each is looked at for the caller's rows before it
/// is read. Of more, the first may well be all that is read.
const VIEWED_FILES_MAX: usize = 256;

/// Files that are looked at side by side.
const VIEWED_AT_ONCE: usize = 16;

/// A source as the engine reads it.
#[derive(Clone, Debug)]
pub struct SourceTable {
    source: Arc<Source>,
    stores: Stores,
    policy: Arc<LocationPolicy>,
    checks: FileChecks,
    views: LaneViews,
    row_groups: RowGroupCache,
}

/// A plan that still yields rows of other lanes, and what its guard needs.
#[derive(Debug)]
pub struct LaneScan {
    /// Yields the columns asked for, then the tenant column where it was not
    /// among them. Columns are those of `read_schema`, not yet of the table.
    pub plan: Arc<dyn ExecutionPlan>,
    /// The tenant column's place in the plan's output and the predicate over
    /// it, for a source whose rows carry a tenant.
    pub lane: Option<(usize, LanePredicate)>,
    /// The schema that the guard's output is to have: the columns asked for, in
    /// the table's types.
    pub output: SchemaRef,
}

impl SourceTable {
    /// A reader of `source`.
    pub fn new(
        source: Arc<Source>,
        stores: Stores,
        policy: Arc<LocationPolicy>,
        checks: FileChecks,
        views: LaneViews,
        row_groups: RowGroupCache,
    ) -> Self {
        SourceTable {
            source,
            stores,
            policy,
            checks,
            views,
            row_groups,
        }
    }

    /// What the catalog holds of it.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// The columns of a row.
    pub fn schema(&self) -> &SchemaRef {
        &self.source.definition.schema
    }

    /// The predicate that says which rows `scope` reads, where rows carry a
    /// tenant.
    pub fn lane_predicate(&self, scope: &Scope) -> Result<Option<LanePredicate>> {
        let Some(column) = self.source.definition.tenant_column.name() else {
            return Ok(None);
        };
        let field = self.schema().field_with_name(column).map_err(|_| {
            Error::DataLoss(format!(
                "source `{}` has lost its tenant column: refresh it",
                self.source.definition.name
            ))
        })?;
        LanePredicate::new(scope, field.data_type()).map(Some)
    }

    /// Plans a scan of the columns at `projection`, every column where it is
    /// `None`. `pruning` are predicates that cannot fail and have no effect:
    /// they may skip rows of the caller as well as of others, and need not.
    pub async fn scan(
        &self,
        session: &dyn Session,
        scope: &Scope,
        projection: Option<&Vec<usize>>,
        pruning: &[Expr],
    ) -> Result<LaneScan> {
        let schema = self.schema();
        let wanted: Vec<usize> = match projection {
            Some(columns) => columns.clone(),
            None => (0..schema.fields().len()).collect(),
        };
        let output = Arc::new(schema.project(&wanted).map_err(planning)?);
        let mut read = wanted;
        let lane = match self.lane_predicate(scope)? {
            None => None,
            Some(predicate) => {
                let column = self.source.definition.tenant_column.name();
                let column = schema
                    .index_of(column.unwrap_or_default())
                    .map_err(planning)?;
                let at = read.iter().position(|index| *index == column);
                let at = at.unwrap_or_else(|| {
                    read.push(column);
                    read.len() - 1
                });
                Some((at, predicate))
            }
        };
        let files = self.list(session, scope, lane.as_ref(), pruning).await?;
        let plan = self
            .plan(session, lane.as_ref(), &read, pruning, files)
            .await?;
        Ok(LaneScan { plan, lane, output })
    }

    /// Reads the first rows and forgets them: what cannot be read is found out
    /// when a source is registered, not when it is first asked.
    pub async fn try_read(&self, session: &dyn Session, scope: &Scope) -> Result<()> {
        let scan = self.scan(session, scope, None, &[]).await?;
        let mut rows = scan.plan.execute(0, session.task_ctx()).map_err(planning)?;
        match AssertUnwindSafe(rows.next()).catch_unwind().await {
            Ok(None | Some(Ok(_))) => Ok(()),
            Ok(Some(Err(error))) => Err(Error::DataLoss(format!(
                "the files cannot be read as {}: mend them, or name another format ({})",
                self.source.definition.format,
                error.strip_backtrace()
            ))),
            Err(_) => Err(Error::DataLoss(format!(
                "the files cannot be read as {}: mend them, or name another format",
                self.source.definition.format
            ))),
        }
    }

    /// The files that may hold rows of the caller.
    async fn list(
        &self,
        session: &dyn Session,
        scope: &Scope,
        lane: Option<&(usize, LanePredicate)>,
        pruning: &[Expr],
    ) -> Result<Vec<SourceFile>> {
        let definition = &self.source.definition;
        let location = Location::from_canonical(&definition.location)?;
        self.policy.check(location.canonical())?;
        let store = self.stores.open(&location)?;
        let below = lane.and_then(|_| self.own_directories(scope, &location));
        let mut files = files::list(&store, &location, &self.policy, below.as_deref()).await?;
        files.retain(|file| belongs(location.kind(), definition.format, file));
        for file in &files {
            files::check_partitions(file, &definition.partition_columns)
                .map_err(|error| self.named(error))?;
        }
        let listed = files.len();
        if let Some((_, predicate)) = lane {
            self.retain_own(&mut files, predicate);
        }
        let files = self.prune_partitions(session, files, pruning)?;
        count("jammi_scan_files_total", files.len(), listed);
        for file in &files {
            self.checks
                .check(session, &store, &location, definition, file)
                .await?;
        }
        Ok(files)
    }

    /// Where the first directory level is the tenant, the directories that hold
    /// the caller's rows and the shared ones, so that the others are not even
    /// listed.
    fn own_directories(&self, scope: &Scope, location: &Location) -> Option<Vec<String>> {
        let column = self.source.definition.tenant_column.name()?;
        let first = self.source.definition.partition_columns.first()?;
        if first != column || *location.kind() != LocationKind::Directory {
            return None;
        }
        let own = scope.tenants().flat_map(|tenant| {
            let lower = tenant.to_string();
            let upper = lower.to_ascii_uppercase();
            [format!("{column}={lower}"), format!("{column}={upper}")]
        });
        let shared = format!("{column}=__HIVE_DEFAULT_PARTITION__");
        Some(own.chain([shared]).collect())
    }

    /// Leaves out files whose directory names another tenant.
    fn retain_own(&self, files: &mut Vec<SourceFile>, predicate: &LanePredicate) {
        let column = self.source.definition.tenant_column.name();
        files.retain(|file| {
            file.partitions
                .iter()
                .filter(|(name, _)| Some(name.as_str()) == column)
                .all(|(_, value)| predicate.admits(value.as_deref().map(str::as_bytes)))
        });
    }

    /// Leaves out files whose directories' values cannot satisfy `pruning`.
    fn prune_partitions(
        &self,
        session: &dyn Session,
        files: Vec<SourceFile>,
        pruning: &[Expr],
    ) -> Result<Vec<SourceFile>> {
        let names: HashSet<&str> = self
            .source
            .definition
            .partition_columns
            .iter()
            .map(String::as_str)
            .collect();
        let of_partitions: Vec<Expr> = pruning
            .iter()
            .filter(|expr| {
                let columns = expr.column_refs();
                !columns.is_empty() && columns.iter().all(|c| names.contains(c.name.as_str()))
            })
            .cloned()
            .map(unqualified)
            .collect::<Result<_>>()?;
        let Some(predicate) = conjunction(of_partitions) else {
            return Ok(files);
        };
        if files.is_empty() {
            return Ok(files);
        }
        let fields = self.partition_fields();
        let columns = fields
            .iter()
            .enumerate()
            .map(|(index, field)| {
                let values = files
                    .iter()
                    .map(|file| {
                        files::partition_value(
                            file.partitions[index].1.as_deref(),
                            field.data_type(),
                        )
                    })
                    .collect::<Result<Vec<_>>>()?;
                ScalarValue::iter_to_array(values).map_err(planning)
            })
            .collect::<Result<Vec<ArrayRef>>>()?;
        let schema = Arc::new(Schema::new(fields));
        let df_schema = DFSchema::try_from(Arc::clone(&schema)).map_err(planning)?;
        let predicate = session
            .create_physical_expr(predicate, &df_schema)
            .map_err(planning)?;
        let rows = RecordBatch::try_new(schema, columns).map_err(planning)?;
        let kept = predicate
            .evaluate(&rows)
            .and_then(|value| value.into_array(files.len()))
            .map_err(planning)?;
        let kept = datafusion::common::cast::as_boolean_array(&kept).map_err(planning)?;
        Ok(files
            .into_iter()
            .zip(kept)
            .filter(|(_, kept)| *kept == Some(true))
            .map(|(file, _)| file)
            .collect())
    }

    /// The tenant column, where files have it and not their directories.
    fn tenant_in_file(&self) -> Option<&str> {
        let definition = &self.source.definition;
        let column = definition.tenant_column.name()?;
        let mut of_directories = definition.partition_columns.iter();
        (!of_directories.any(|name| name == column)).then_some(column)
    }

    fn partition_fields(&self) -> Vec<FieldRef> {
        let columns = &self.source.definition.partition_columns;
        self.schema()
            .fields()
            .iter()
            .filter(|field| columns.contains(field.name()))
            .cloned()
            .collect()
    }

    /// The columns that are in the files, as they are to be read.
    fn file_schema(&self, lane: Option<&(usize, LanePredicate)>) -> SchemaRef {
        let definition = &self.source.definition;
        let in_file: Vec<FieldRef> = self
            .schema()
            .fields()
            .iter()
            .filter(|field| !definition.partition_columns.contains(field.name()))
            .cloned()
            .collect();
        let schema = Arc::new(Schema::new(in_file));
        match lane {
            None => schema,
            Some(_) => format::fail_safe_schema(definition.format, &schema),
        }
    }

    async fn plan(
        &self,
        session: &dyn Session,
        lane: Option<&(usize, LanePredicate)>,
        read: &[usize],
        pruning: &[Expr],
        files: Vec<SourceFile>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let definition = &self.source.definition;
        let partition_fields = self.partition_fields();
        // What is left out of a scan otherwise depends on more than the lane.
        let is_whole = pruning.is_empty() && definition.format == SourceFormat::Parquet;
        let files = self.view(session, lane, is_whole, files).await?;
        let known = files
            .iter()
            .all(|(_, view)| view.as_ref().is_some_and(|view| view.exact));
        let mut file_schema = self.file_schema(lane);
        // Only the guard looks at the tenants then.
        let tenants_once = self.tenant_in_file().filter(|tenant| {
            let is_tenant = |expr: &Expr| expr.column_refs().iter().any(|c| c.name == **tenant);
            known && !pruning.iter().any(is_tenant)
        });
        if let Some(column) = tenants_once {
            file_schema = with_tenants_once(&file_schema, column);
        }
        let file_columns = file_schema.fields().len();
        let table_schema = TableSchema::builder(file_schema)
            .with_table_partition_cols(partition_fields.clone())
            .build();
        if files.is_empty() {
            let schema = table_schema
                .table_schema()
                .project(read)
                .map_err(planning)?;
            return Ok(Arc::new(EmptyExec::new(Arc::new(schema))));
        }
        let compression = format::common_compression(
            definition.format,
            files.iter().map(|(file, _)| file.relative.as_str()),
        )?;
        let bytes = files.iter().map(|(file, view)| match view {
            Some(view) => view.bytes,
            None => file.meta.size,
        });
        let is_small = bytes.sum::<u64>() < split_bytes_min(session);
        let location = Location::from_canonical(&definition.location)?;
        let reader = format::reader(definition.format, compression);
        let file_source: Arc<dyn FileSource> = match definition.format {
            SourceFormat::Parquet => {
                let lane = lane.filter(|_| !known);
                let predicate = self.parquet_predicate(session, lane, pruning)?;
                let store = self.stores.open(&location)?;
                Arc::new(parquet::source(session, &store, table_schema, predicate))
            }
            SourceFormat::Csv | SourceFormat::Json | SourceFormat::Ndjson => {
                reader.file_source(table_schema)
            }
        };
        let partitions = session.config().target_partitions();
        let config = FileScanConfigBuilder::new(location.store().clone(), file_source)
            .with_projection_indices(Some(read.to_vec()))
            .map_err(planning)?;
        let lane = self.tenant_in_file().zip(lane.map(|(_, lane)| lane));
        let mut groups = vec![];
        let mut opened = Vec::with_capacity(files.len());
        for (file, view) in files {
            let meta = file.meta.clone();
            let file = partitioned(file, &partition_fields)?;
            let file = view.iter().fold(file, parquet::viewed);
            let file = match (&view, tenants_once) {
                (Some(view), Some(_)) => file.with_arrow_schema(Arc::clone(&view.arrow_schema)),
                _ => file,
            };
            if let Some(view) = view.as_ref().filter(|_| is_whole && known) {
                let of = LaneRows::new(location.store().as_str(), &meta, lane, view);
                groups.extend(RowGroup::all(file.clone(), view, of));
            }
            opened.push(file);
        }
        if is_whole && known {
            let hands = if is_small { 1 } else { partitions };
            let template = parquet::config(config.clone());
            let cache = self.row_groups.clone();
            let plan = RowGroupsExec::new(template, read, file_columns, groups, hands, cache);
            if let Some(plan) = plan {
                return Ok(Arc::new(plan));
            }
        }
        let config = config
            .with_file_groups(FileGroup::new(opened).split_files(partitions))
            .build();
        let plan = self.create(session, reader.as_ref(), config).await?;
        if is_small {
            return Ok(plan);
        }
        // The guard hides the scan from the optimizer, which would otherwise
        // split large files among the cores.
        let split = plan
            .repartitioned(partitions, session.config_options())
            .map_err(planning)?;
        Ok(split.unwrap_or(plan))
    }

    /// Where in each file the caller's rows are, as far as that is known: with
    /// `is_whole` of files of one lane too, whose rows are all the caller's. Files
    /// without any are left out.
    async fn view(
        &self,
        session: &dyn Session,
        lane: Option<&(usize, LanePredicate)>,
        is_whole: bool,
        files: Vec<SourceFile>,
    ) -> Result<Vec<(SourceFile, Option<Arc<LaneView>>)>> {
        let definition = &self.source.definition;
        let lane = self.tenant_in_file().zip(lane.map(|(_, lane)| lane));
        if definition.format != SourceFormat::Parquet
            || files.len() > VIEWED_FILES_MAX
            || !(lane.is_some() || is_whole)
        {
            return Ok(files.into_iter().map(|file| (file, None)).collect());
        }
        let location = Location::from_canonical(&definition.location)?;
        let readers = parquet::readers(session, &self.stores.open(&location)?);
        let (readers, store) = (&readers, location.store().as_str());
        let viewed = futures::stream::iter(files).map(|file| async move {
            let view = match lane {
                Some(lane) => {
                    let view = self.views.view(session, readers, store, &file.meta, lane);
                    view.await
                }
                None => LaneView::whole(readers, &file.meta).await,
            };
            (file, view)
        });
        let viewed: Vec<_> = viewed.buffered(VIEWED_AT_ONCE).collect().await;
        for view in viewed.iter().filter_map(|(_, view)| view.as_ref()) {
            if lane.is_none() {
                break;
            }
            let read = view.metadata.num_row_groups();
            count(
                "jammi_scan_row_groups_total",
                read,
                view.row_groups.max(read),
            );
        }
        let has_rows = |view: &Option<Arc<LaneView>>| view.as_ref().is_none_or(|v| !v.is_empty());
        let viewed = viewed.into_iter().filter(|(_, view)| has_rows(view));
        Ok(viewed.collect())
    }

    async fn create(
        &self,
        session: &dyn Session,
        reader: &dyn datafusion::datasource::file_format::FileFormat,
        config: FileScanConfig,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match self.source.definition.format {
            SourceFormat::Parquet => Ok(parquet::plan(config)),
            SourceFormat::Csv | SourceFormat::Json | SourceFormat::Ndjson => reader
                .create_physical_plan(session, config)
                .await
                .map_err(planning),
        }
    }

    /// What the Parquet reader skips row groups, pages and rows by: the lane
    /// first, so that what follows is evaluated on the caller's rows.
    fn parquet_predicate(
        &self,
        session: &dyn Session,
        lane: Option<&(usize, LanePredicate)>,
        pruning: &[Expr],
    ) -> Result<Option<Arc<dyn datafusion::physical_expr::PhysicalExpr>>> {
        let definition = &self.source.definition;
        let in_file = |name: &str| !definition.partition_columns.iter().any(|p| p == name);
        let lane = lane.and_then(|(_, predicate)| {
            let column = definition.tenant_column.name()?;
            in_file(column)
                .then(|| predicate.logical(datafusion::common::Column::new_unqualified(column)))
        });
        let pruning = pruning
            .iter()
            .filter(|expr| expr.column_refs().iter().all(|c| in_file(&c.name)))
            .cloned()
            .map(unqualified)
            .collect::<Result<Vec<_>>>()?;
        let Some(predicate) = conjunction(lane.into_iter().chain(pruning)) else {
            return Ok(None);
        };
        let schema = DFSchema::try_from(Arc::clone(self.schema())).map_err(planning)?;
        session
            .create_physical_expr(predicate, &schema)
            .map(Some)
            .map_err(planning)
    }

    fn named(&self, error: Error) -> Error {
        match error {
            Error::DataLoss(text) => {
                Error::DataLoss(format!("source `{}`: {text}", self.source.definition.name))
            }
            other => other,
        }
    }
}

/// Counts what scans read and what they need not, of all lanes together.
fn count(name: &'static str, read: usize, of: usize) {
    counter!(name, "outcome" => "read").increment(read as u64);
    counter!(name, "outcome" => "skipped").increment((of - read) as u64);
}

/// The bytes from which a scan is split among the cores.
fn split_bytes_min(session: &dyn Session) -> u64 {
    let bytes = session.config_options().optimizer.repartition_file_min_size;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn partitioned(file: SourceFile, fields: &[FieldRef]) -> Result<PartitionedFile> {
    let values = file
        .partitions
        .iter()
        .zip(fields)
        .map(|((_, value), field)| files::partition_value(value.as_deref(), field.data_type()))
        .collect::<Result<Vec<_>>>()?;
    Ok(PartitionedFile::new_from_meta(file.meta).with_partition_values(values))
}

/// `expr` with its columns named as in the files, without the table.
fn unqualified(expr: Expr) -> Result<Expr> {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    expr.transform(|expr| match expr {
        Expr::Column(mut column) if column.relation.is_some() => {
            column.relation = None;
            Ok(Transformed::yes(Expr::Column(column)))
        }
        other => Ok(Transformed::no(other)),
    })
    .map(|transformed| transformed.data)
    .map_err(planning)
}

fn planning(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::internal("a source's scan cannot be planned", error)
}
