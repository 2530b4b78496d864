//! Record batches as they are made.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::fault;
use super::workers::Workers;
use crate::error::{Error, Result};

/// Batches that are made before the reader asks for them.
const BATCHES_AHEAD: usize = 2;

/// The rows of a running statement. Dropping it stops the work.
pub struct RecordStream {
    schema: SchemaRef,
    batches: mpsc::Receiver<Result<RecordBatch>>,
    work: Option<AbortOnDropHandle<()>>,
}

impl RecordStream {
    /// Starts `plan` on `workers`.
    pub(super) fn start(
        plan: Arc<dyn ExecutionPlan>,
        task: Arc<TaskContext>,
        workers: &Workers,
    ) -> Self {
        let schema = plan.schema();
        let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
        let work = workers.spawn(async move {
            let mut made = match execute_stream(plan, task) {
                Ok(made) => made,
                Err(error) => {
                    // Without a reader there is nobody to tell.
                    let _ = sender.send(Err(fault::execution(error))).await;
                    return;
                }
            };
            while let Some(batch) = made.next().await {
                let sent = sender.send(batch.map_err(fault::execution)).await;
                if sent.is_err() {
                    return;
                }
            }
        });
        RecordStream {
            schema,
            batches,
            work: Some(work),
        }
    }

    /// The columns of every batch.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

impl Stream for RecordStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(batch) = ready!(self.batches.poll_recv(cx)) {
            return Poll::Ready(Some(batch));
        }
        // A plan that panicked closes the channel too, and its rows so far must
        // not pass for all of them.
        let Some(work) = &mut self.work else {
            return Poll::Ready(None);
        };
        let ended = ready!(work.poll_unpin(cx));
        self.work = None;
        Poll::Ready(ended.err().map(|error| {
            tracing::error!(%error, "a plan ended early");
            Err(Error::internal(
                "the statement failed inside the engine: see the server's log under this \
                 request's id",
                error,
            ))
        }))
    }
}
