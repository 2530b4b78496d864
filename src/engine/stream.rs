//! Record batches as they are made.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::fault;
use super::interrupt::interruptible;
use super::turns::{AbandonOnDrop, InTurn, Work};
use super::workers::Workers;
use crate::error::{Error, Result};

/// Batches that are made before the reader asks for them.
const BATCHES_AHEAD: usize = 2;

/// The rows of a running statement. Dropping it stops the work.
pub struct RecordStream {
    schema: SchemaRef,
    batches: mpsc::Receiver<Result<RecordBatch>>,
    task: Option<AbortOnDropHandle<()>>,
    _work: Option<AbandonOnDrop>,
}

impl RecordStream {
    /// Runs what `planning` makes, as `work` on `workers`.
    pub(super) async fn start(
        planning: impl Future<Output = Result<Arc<dyn ExecutionPlan>>> + Send + 'static,
        context: Arc<TaskContext>,
        workers: &Workers,
        work: Arc<Work>,
    ) -> Result<Self> {
        let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
        let (planned, is_planned) = oneshot::channel();
        let abandon = AbandonOnDrop(Arc::clone(&work));
        let task = workers.spawn(async move {
            let plan = match InTurn::new(&work, Box::pin(planning)).await {
                Ok(plan) => plan,
                Err(error) => {
                    // Without a reader there is nobody to tell.
                    let _ = planned.send(Err(error));
                    return;
                }
            };
            let _ = planned.send(Ok(plan.schema()));
            run(plan, context, &work, &sender).await;
        });
        let schema = match is_planned.await {
            Ok(schema) => schema?,
            Err(_) => return Err(ended_early(task.await.err())),
        };
        Ok(RecordStream {
            schema,
            batches,
            task: Some(task),
            _work: Some(abandon),
        })
    }

    /// Rows that are there already.
    pub(super) fn ready(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        let (sender, receiver) = mpsc::channel(batches.len().max(1));
        for batch in batches {
            // As many places as batches.
            let _ = sender.try_send(Ok(batch));
        }
        RecordStream {
            schema,
            batches: receiver,
            task: None,
            _work: None,
        }
    }

    /// No rows.
    pub fn empty(schema: SchemaRef) -> Self {
        RecordStream::ready(schema, Vec::new())
    }

    /// The columns of every batch.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

async fn run(
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    work: &Arc<Work>,
    sender: &mpsc::Sender<Result<RecordBatch>>,
) {
    let made = interruptible(plan, work).and_then(|plan| plan.execute(0, context));
    let made = match made {
        Ok(made) => made,
        Err(error) => {
            let _ = sender.send(Err(fault::execution(error))).await;
            return;
        }
    };
    let mut made = InTurn::new(work, made);
    while let Some(batch) = made.next().await {
        let sent = sender.send(batch.map_err(fault::execution)).await;
        if sent.is_err() {
            return;
        }
    }
}

/// The error of a task that ended without its result: it panicked, or the
/// engine is gone.
pub(super) fn ended_early(error: Option<tokio::task::JoinError>) -> Error {
    tracing::error!(?error, "a plan ended early");
    let message = "the statement failed inside the engine: see the server's log under this \
                   request's id";
    match error {
        Some(error) => Error::internal(message, error),
        None => Error::internal(message, "its task ended without a result"),
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
        let Some(task) = &mut self.task else {
            return Poll::Ready(None);
        };
        let ended = ready!(task.poll_unpin(cx));
        self.task = None;
        Poll::Ready(ended.err().map(|error| Err(ended_early(Some(error)))))
    }
}
