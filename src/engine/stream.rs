//! Record batches as they are made.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::fault;
use super::interrupt::interruptible;
use super::turns::{AbandonOnDrop, InTurn, Work};
use super::workers::Workers;
use crate::error::{Error, Result};

/// Groups of batches that are made before the reader asks for them.
const GROUPS_AHEAD: usize = 1;
/// A group is handed over when it has this many bytes, when making it has taken
/// this long, and when there is nothing more to be had at once: to wake the
/// reader for each small batch would cost more than to make it.
const GROUP_BYTES: usize = 1 << 20;
const GROUP_TIME: Duration = Duration::from_millis(1);

type Group = Vec<Result<RecordBatch>>;

/// The rows of a running statement. Dropping it stops the work.
pub struct RecordStream {
    schema: SchemaRef,
    group: std::vec::IntoIter<Result<RecordBatch>>,
    groups: mpsc::Receiver<Group>,
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
        let (sender, groups) = mpsc::channel(GROUPS_AHEAD);
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
            group: Group::new().into_iter(),
            groups,
            task: Some(task),
            _work: Some(abandon),
        })
    }

    /// Rows that are there already.
    pub(super) fn ready(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        // Nothing more comes.
        let (_, groups) = mpsc::channel(1);
        let group: Group = batches.into_iter().map(Ok).collect();
        RecordStream {
            schema,
            group: group.into_iter(),
            groups,
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
    sender: &mpsc::Sender<Group>,
) {
    let made = interruptible(plan, work).and_then(|plan| plan.execute(0, context));
    let made = match made {
        Ok(made) => made,
        Err(error) => {
            let _ = sender.send(vec![Err(fault::execution(error))]).await;
            return;
        }
    };
    let groups = Groups { made, ended: false };
    let mut groups = InTurn::new(work, groups);
    while let Some(group) = groups.next().await {
        if sender.send(group).await.is_err() {
            return;
        }
    }
}

/// Batches in groups, none of which is empty.
struct Groups {
    made: SendableRecordBatchStream,
    ended: bool,
}

impl Stream for Groups {
    type Item = Group;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Group>> {
        let started = Instant::now();
        let mut group = Group::new();
        let mut bytes = 0;
        while !self.ended
            && bytes < GROUP_BYTES
            && (group.is_empty() || started.elapsed() < GROUP_TIME)
        {
            match self.made.poll_next_unpin(cx) {
                Poll::Ready(Some(batch)) => {
                    self.ended = batch.is_err();
                    bytes += batch.as_ref().map_or(0, RecordBatch::get_array_memory_size);
                    group.push(batch.map_err(fault::execution));
                }
                Poll::Ready(None) => self.ended = true,
                Poll::Pending if group.is_empty() => return Poll::Pending,
                // Whoever polls next is told when there is more.
                Poll::Pending => break,
            }
        }
        Poll::Ready((!group.is_empty()).then_some(group))
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
        loop {
            if let Some(batch) = self.group.next() {
                return Poll::Ready(Some(batch));
            }
            match ready!(self.groups.poll_recv(cx)) {
                Some(group) => self.group = group.into_iter(),
                None => break,
            }
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
