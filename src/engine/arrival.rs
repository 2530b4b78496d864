//! A table of rows that arrive while they are read: values of parameters.
//!
//! Invariant: it is read once, by one statement, and no name means it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use super::fault::carried;
use crate::error::Error;

/// Rows of values as they come, a column for each parameter.
pub type ParameterRows = BoxStream<'static, crate::error::Result<RecordBatch>>;

type Source = Arc<Mutex<Option<ParameterRows>>>;

/// The table.
pub(super) struct Arrival {
    schema: SchemaRef,
    rows: Source,
}

impl Arrival {
    /// Rows that all have the columns of `schema`.
    pub fn new(schema: &SchemaRef, rows: ParameterRows) -> Self {
        Arrival {
            schema: Arc::clone(schema),
            rows: Arc::new(Mutex::new(Some(rows))),
        }
    }
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrival").finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for Arrival {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = match projection {
            Some(columns) => columns.clone(),
            None => (0..self.schema.fields().len()).collect(),
        };
        let output = Arc::new(self.schema.project(&columns)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&output)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Arc::new(ArrivalExec {
            rows: Arc::clone(&self.rows),
            columns,
            output,
            properties: Arc::new(properties),
        }))
    }
}

/// Yields the rows of an [`Arrival`].
pub(super) struct ArrivalExec {
    rows: Source,
    columns: Vec<usize>,
    output: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl fmt::Debug for ArrivalExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArrivalExec").finish_non_exhaustive()
    }
}

impl DisplayAs for ArrivalExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ArrivalExec")
    }
}

impl ExecutionPlan for ArrivalExec {
    fn name(&self) -> &str {
        "ArrivalExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = rows.take().unwrap_or_else(|| {
            let again = Error::internal("the rows cannot be read", "they were read before");
            stream::iter([Err(again)]).boxed()
        });
        let columns = self.columns.clone();
        let rows = rows
            .map_err(carried)
            .and_then(move |batch| std::future::ready(batch.project(&columns).map_err(Into::into)));
        let output = Arc::clone(&self.output);
        Ok(Box::pin(RecordBatchStreamAdapter::new(output, rows)))
    }
}
