//! How Parquet files are read: which row groups, pages and rows are skipped
//! before the guard sees them, and what of a file is kept between scans.
//!
//! A row group is skipped by its statistics, a page by the page index, and what
//! is left is filtered while it is decoded, so that columns are decoded for rows
//! that pass and for no others. Where the caller's rows are known already, the
//! file is opened at those.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::common::config::TableParquetOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{
    FileScanConfig, FileScanConfigBuilder, ParquetFileReaderFactory, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{
    BinaryExpr, Column, IsNotNullExpr, IsNullExpr, Literal, lit,
};
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use metrics::counter;
use object_store::ObjectStore;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};

use super::lane_view::LaneView;

/// A reader of rows of `table_schema` that may leave out rows for which
/// `predicate` is not true. Evaluating `predicate` must have no effect and
/// cannot fail.
pub(super) fn source(
    session: &dyn Session,
    store: &Arc<dyn ObjectStore>,
    table_schema: TableSchema,
    predicate: Option<Arc<dyn PhysicalExpr>>,
) -> ParquetSource {
    let options = TableParquetOptions {
        global: session.config_options().execution.parquet.clone(),
        ..TableParquetOptions::default()
    };
    let source = ParquetSource::new(table_schema)
        .with_table_parquet_options(options)
        .with_pushdown_filters(true)
        .with_parquet_file_reader_factory(Arc::new(readers(session, store)));
    match predicate {
        Some(predicate) => source.with_predicate(predicate),
        None => source,
    }
}

/// Readers of the files of `store`.
pub(super) fn readers(
    session: &dyn Session,
    store: &Arc<dyn ObjectStore>,
) -> impl ParquetFileReaderFactory + use<> {
    let cache = &session.runtime_env().cache_manager;
    IndexedReaders(CachedParquetFileReaderFactory::new(
        Arc::clone(store),
        cache.get_file_metadata_cache(),
    ))
}

/// `file` with the rows that `view` is of.
pub(super) fn viewed(file: PartitionedFile, view: &Arc<LaneView>) -> PartitionedFile {
    file.with_extension(view.access.clone())
        .with_extension(Arc::clone(view))
}

/// A scan by [`source`].
pub(super) fn config(config: FileScanConfigBuilder) -> FileScanConfig {
    config.with_expr_adapter(Some(Arc::new(FileExprs))).build()
}

/// The plan of a scan by [`source`].
pub(super) fn plan(scan: FileScanConfig) -> Arc<dyn ExecutionPlan> {
    let config = config(FileScanConfigBuilder::from(scan));
    DataSourceExec::from_data_source(config)
}

/// Readers that keep the page index with the footer. The ones below them keep
/// what was asked for first, which is the footer alone, and then read the index
/// anew for each scan. A file that was [`viewed`] is opened with the metadata of
/// its view.
#[derive(Debug)]
struct IndexedReaders(CachedParquetFileReaderFactory);

impl ParquetFileReaderFactory for IndexedReaders {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let view = file.extension::<Arc<LaneView>>().map(Arc::clone);
        let reader = self
            .0
            .create_reader(partition_index, file, metadata_size_hint, metrics)?;
        Ok(Box::new(IndexedReader { reader, view }))
    }
}

struct IndexedReader {
    reader: Box<dyn AsyncFileReader + Send>,
    view: Option<Arc<LaneView>>,
}

impl IndexedReader {
    fn kept(&self) -> Option<&Bytes> {
        self.view.as_ref()?.kept.as_ref()
    }
}

fn kept_bytes(kept: &Bytes, range: &Range<u64>) -> ParquetResult<Bytes> {
    let (start, end) = (range.start as usize, range.end as usize);
    if start > end || end > kept.len() {
        return Err(ParquetError::IndexOutOfBound(end, kept.len()));
    }
    Ok(kept.slice(start..end))
}

/// Of all scans together: which lanes they are of is nobody's to see.
fn count_bytes(bytes: u64) {
    counter!("jammi_scan_bytes_total").increment(bytes);
}

impl AsyncFileReader for IndexedReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        match self.kept() {
            Some(kept) => ready(kept_bytes(kept, &range)).boxed(),
            None => {
                count_bytes(range.end.saturating_sub(range.start));
                self.reader.get_bytes(range)
            }
        }
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        match self.kept() {
            Some(kept) => {
                let bytes = ranges.iter().map(|range| kept_bytes(kept, range));
                ready(bytes.collect()).boxed()
            }
            None => {
                let bytes = ranges.iter().map(|r| r.end.saturating_sub(r.start));
                count_bytes(bytes.sum());
                self.reader.get_byte_ranges(ranges)
            }
        }
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            if let Some(view) = &self.view {
                return Ok(Arc::clone(&view.metadata));
            }
            let footer = self.reader.get_metadata(options).await?;
            if footer.column_index().is_some() || !has_page_index(&footer) {
                return Ok(footer);
            }
            let options = options.cloned().unwrap_or_default();
            let options = options.with_page_index_policy(PageIndexPolicy::Optional);
            self.reader.get_metadata(Some(&options)).await
        }
        .boxed()
    }
}

fn has_page_index(footer: &ParquetMetaData) -> bool {
    footer
        .row_groups()
        .iter()
        .flat_map(|group| group.columns())
        .any(|column| column.column_index_offset().is_some())
}

/// Fits expressions over a table's columns to the columns of one file.
///
/// As DataFusion does it, except that a file's column which differs from the
/// table's in nullability or metadata alone is used as it is: a cast around it
/// would do nothing but keep the file's statistics from being used. And in a
/// column that cannot be NULL nothing is: what a writer leaves out of such a
/// column's statistics would otherwise keep every page.
#[derive(Debug)]
struct FileExprs;

impl PhysicalExprAdapterFactory for FileExprs {
    fn create(&self, table: SchemaRef, file: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let fields = table
            .fields()
            .iter()
            .map(|field| match file.fields().find(field.name()) {
                Some((_, same)) if same.data_type() == field.data_type() => Arc::clone(same),
                _ => Arc::clone(field),
            });
        let metadata = table.metadata().clone();
        let table = Schema::new_with_metadata(fields.collect::<Vec<_>>(), metadata);
        let inner = DefaultPhysicalExprAdapterFactory.create(Arc::new(table), Arc::clone(&file))?;
        Ok(Arc::new(FileExprAdapter { inner, file }))
    }
}

struct FileExprAdapter {
    inner: Arc<dyn PhysicalExprAdapter>,
    file: SchemaRef,
}

impl fmt::Debug for FileExprAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileExprAdapter").finish_non_exhaustive()
    }
}

impl PhysicalExprAdapter for FileExprAdapter {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        self.inner
            .rewrite(expr)?
            .transform_up(|expr| {
                Ok(match self.without_null_tests(&expr) {
                    Some(simpler) => Transformed::yes(simpler),
                    None => Transformed::no(expr),
                })
            })
            .map(|transformed| transformed.data)
    }
}

impl FileExprAdapter {
    /// `expr` without a test for NULL that has one outcome, if it is one or
    /// connects one with something else.
    fn without_null_tests(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<Arc<dyn PhysicalExpr>> {
        if let Some(test) = expr.downcast_ref::<IsNullExpr>() {
            return self.is_never_null(test.arg()).then(|| lit(false));
        }
        if let Some(test) = expr.downcast_ref::<IsNotNullExpr>() {
            return self.is_never_null(test.arg()).then(|| lit(true));
        }
        let connective = expr.downcast_ref::<BinaryExpr>()?;
        // What changes nothing on either side of the connective.
        let neutral = match connective.op() {
            Operator::Or => false,
            Operator::And => true,
            _ => return None,
        };
        let is_neutral = |side: &Arc<dyn PhysicalExpr>| {
            side.downcast_ref::<Literal>()
                .is_some_and(|literal| *literal.value() == neutral.into())
        };
        if is_neutral(connective.right()) {
            return Some(Arc::clone(connective.left()));
        }
        is_neutral(connective.left()).then(|| Arc::clone(connective.right()))
    }

    fn is_never_null(&self, expr: &Arc<dyn PhysicalExpr>) -> bool {
        expr.downcast_ref::<Column>()
            .and_then(|column| self.file.fields().get(column.index()))
            .is_some_and(|field| !field.is_nullable())
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};
    use datafusion::common::DFSchema;
    use datafusion::logical_expr::{Expr, col, lit};
    use datafusion::prelude::SessionContext;

    use super::*;

    /// `expr` over a table of nullable columns, as it is asked of `file`.
    fn check(file: &Schema, expr: Expr, expected: &str) {
        let fields = file.fields().iter();
        let fields: Vec<_> = fields
            .map(|field| Field::new(field.name(), DataType::Utf8, true))
            .collect();
        let table = Arc::new(Schema::new(fields));
        let columns = DFSchema::try_from(Arc::clone(&table)).unwrap();
        let expr = SessionContext::new()
            .create_physical_expr(expr, &columns)
            .unwrap();
        let adapter = FileExprs.create(table, Arc::new(file.clone())).unwrap();
        assert_eq!(adapter.rewrite(expr).unwrap().to_string(), expected);
    }

    fn lane() -> Expr {
        col("tenant_id")
            .eq(lit("a"))
            .or(col("tenant_id").eq(lit("A")))
            .or(col("tenant_id").is_null())
    }

    #[test]
    fn a_file_is_asked_about_its_columns_as_they_are() {
        let column = |nullable| Field::new("tenant_id", DataType::Utf8, nullable);
        let file = |field| Schema::new(vec![Field::new("id", DataType::Utf8, true), field]);
        let noted = column(true).with_metadata([("PARQUET:field_id".into(), "1".into())].into());
        let whole = "tenant_id@1 = a OR tenant_id@1 = A OR tenant_id@1 IS NULL";
        check(&file(column(true)), lane(), whole);
        check(&file(noted), lane(), whole);
    }

    #[test]
    fn no_null_is_looked_for_in_a_column_that_has_none() {
        let field = |name: &str| Field::new(name, DataType::Utf8, false);
        let file = Schema::new(vec![field("tenant_id"), field("id")]);
        check(&file, lane(), "tenant_id@0 = a OR tenant_id@0 = A");
        check(&file, col("id").is_null(), "false");
        let all = col("id").is_not_null().and(col("id").eq(lit("1")));
        check(&file, all, "id@1 = 1");
    }

    #[test]
    fn a_type_that_differs_is_still_cast() {
        let file = Schema::new(vec![Field::new("tenant_id", DataType::LargeUtf8, false)]);
        let cast = "CAST(tenant_id@0 AS Utf8)";
        let whole = format!("{cast} = a OR {cast} = A OR {cast} IS NULL");
        check(&file, lane(), &whole);
    }
}
