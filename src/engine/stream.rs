//! Record batches as they are made.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::ExecutionPlan;
use futures::stream::CatchUnwind;
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::bound::affected_by;
use super::fault;
use super::interrupt::{interruptible, offering};
use super::queue::Place;
use super::short::{Here, Places, panicked, run_here};
use super::turns::{AbandonOnDrop, Due, InTurn, Work};
use super::workers::Workers;
use crate::audit::{self, Entry, OK, Written};
use crate::error::{Error, Result};
use crate::tenancy::Meter;

/// Groups of batches that are made before the reader asks for them.
const GROUPS_AHEAD: usize = 1;
/// A group is handed over when it has this many bytes, when making it has taken
/// this long, and when there is nothing more to be had at once: to wake the
/// reader for each small batch would cost more than to make it.
const GROUP_BYTES: usize = 4 << 20;
const GROUP_TIME: Duration = Duration::from_millis(1);

/// Batches that are handed over together.
#[derive(Default)]
struct Group {
    batches: Vec<Result<RecordBatch>>,
    /// Whether there is nothing after them.
    is_last: bool,
}

/// What is known of a result as soon as anything is.
struct Started {
    schema: SchemaRef,
    /// What there was at once.
    first: Group,
}

/// The rows of a running statement. Dropping it stops the work.
pub struct RecordStream {
    schema: SchemaRef,
    group: std::vec::IntoIter<Result<RecordBatch>>,
    /// Whether nothing comes after the group.
    is_last: bool,
    rest: Rest,
    meter: Option<Meter>,
    record: Option<Record>,
}

/// The audit record of a statement, which ends with its rows.
struct Record {
    entry: Entry,
    has_written: bool,
    /// The end of the rows, which waits for the record to be on the disk.
    held: Option<Written>,
}

/// Where the groups after the first come from.
enum Rest {
    Nothing,
    /// From a task on the plan threads.
    Task {
        groups: mpsc::Receiver<Group>,
        task: AbortOnDropHandle<Result<()>>,
        _work: AbandonOnDrop,
        late: Option<Late>,
    },
    /// From the thread that asks for them.
    Here(Here<CatchUnwind<AssertUnwindSafe<Groups>>>),
}

/// Until when the rows of a task are waited for.
struct Late {
    due: Due,
    timer: Pin<Box<Sleep>>,
}

impl RecordStream {
    /// Runs what `planning` makes, as `work` on `workers`, in `place` but for when
    /// the reader does not keep up.
    pub(super) async fn start(
        planning: impl Future<Output = Result<Arc<dyn ExecutionPlan>>> + Send + 'static,
        workers: &Workers,
        work: Arc<Work>,
        mut place: Option<Place>,
    ) -> Result<Self> {
        let (sender, groups) = mpsc::channel(GROUPS_AHEAD);
        let (planned, is_planned) = oneshot::channel();
        let abandon = AbandonOnDrop(Arc::clone(&work));
        let run = Arc::clone(&work);
        let run = async move {
            let work = run;
            let planning = InTurn::new(&work, Box::pin(planning)).await;
            let started = planning.and_then(|plan| {
                let schema = plan.schema();
                let plan = offering(plan).map_err(fault::execution)?;
                Groups::of(plan, &work).map(|groups| (schema, groups))
            });
            let (schema, groups) = match started {
                Ok(started) => started,
                Err(error) => {
                    // Without a reader there is nobody to tell.
                    let _ = planned.send(Err(error));
                    return Ok(());
                }
            };
            let mut groups = InTurn::new(&work, groups);
            // The rows of a small result go with its schema, so that the reader is
            // woken once for all of it.
            let first = match futures::poll!(groups.next()) {
                Poll::Ready(first) => first.unwrap_or_default(),
                Poll::Pending => Group::default(),
            };
            let mut is_last = first.is_last;
            let _ = planned.send(Ok(Started { schema, first }));
            while !is_last && let Some(group) = groups.next().await {
                is_last = group.is_last;
                let sent = match sender.try_send(group) {
                    Ok(()) => continue,
                    Err(TrySendError::Full(group)) => sender.send(group),
                    Err(TrySendError::Closed(_)) => break,
                };
                if Place::while_away(&mut place, sent).await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        // By itself too, for a reader that does not ask for more.
        let timed = Arc::clone(&work);
        let mut task = workers.spawn(async move { timed.in_time(run).await });
        let started = work.in_time(async {
            match is_planned.await {
                Ok(started) => started,
                Err(_) => Err(match (&mut task).await {
                    Ok(Err(error)) => error,
                    ended => ended_early(ended.err()),
                }),
            }
        });
        let Started { schema, first } = started.await?;
        Ok(RecordStream {
            schema,
            group: first.batches.into_iter(),
            is_last: first.is_last,
            meter: None,
            rest: Rest::Task {
                groups,
                task,
                _work: abandon,
                late: work.due().map(|due| Late {
                    due,
                    timer: Box::pin(sleep_until(due.at)),
                }),
            },
            record: None,
        })
    }

    /// Runs what `planning` makes on the thread that asks for the rows.
    pub(super) async fn start_here(
        planning: impl Future<Output = Result<Arc<dyn ExecutionPlan>>> + Send,
        work: &Arc<Work>,
        places: &Arc<Places>,
    ) -> Result<Self> {
        let plan = run_here(places, planning).await?;
        let schema = plan.schema();
        let groups = AssertUnwindSafe(Groups::of(plan, work)?).catch_unwind();
        let mut stream = RecordStream {
            schema,
            group: Vec::new().into_iter(),
            is_last: false,
            meter: None,
            rest: Rest::Here(Here::new(places, groups)),
            record: None,
        };
        // All of it, nearly always.
        poll_fn(|cx| stream.poll_group(cx)).await;
        Ok(stream)
    }

    /// Waits for the next group. `false`: there is none.
    fn poll_group(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let group = match &mut self.rest {
            Rest::Nothing => None,
            Rest::Task { groups, .. } => ready!(groups.poll_recv(cx)),
            Rest::Here(groups) => match ready!(groups.poll_next_unpin(cx)) {
                Some(Ok(group)) => Some(group),
                Some(Err(panic)) => Some(Group {
                    batches: vec![Err(panicked(panic.as_ref()))],
                    is_last: true,
                }),
                None => None,
            },
        };
        let Some(group) = group else {
            return Poll::Ready(false);
        };
        self.is_last = group.is_last;
        self.group = group.batches.into_iter();
        Poll::Ready(true)
    }

    /// Waits until the rows are waited for no longer.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        match &mut self.rest {
            Rest::Task {
                late: Some(late), ..
            } => late.timer.poll_unpin(cx).map(|()| late.due.missed()),
            _ => Poll::Pending,
        }
    }

    /// Rows that are there already.
    pub(super) fn ready(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        let group: Vec<_> = batches.into_iter().map(Ok).collect();
        RecordStream {
            schema,
            group: group.into_iter(),
            is_last: true,
            meter: None,
            rest: Rest::Nothing,
            record: None,
        }
    }

    /// The rows, counted by `meter` until the last is fetched.
    pub(super) fn metered(self, meter: Option<Meter>) -> Self {
        RecordStream { meter, ..self }
    }

    /// The same rows, whose end is that of `entry`.
    pub(super) fn recorded(self, entry: Entry, has_written: bool) -> Self {
        let record = Some(Record {
            entry,
            has_written,
            held: None,
        });
        RecordStream { record, ..self }
    }

    /// No rows.
    pub fn empty(schema: SchemaRef) -> Self {
        RecordStream::ready(schema, Vec::new())
    }

    /// Whether nothing comes after what was read, as far as is known.
    pub fn is_whole(&self) -> bool {
        self.is_last && self.group.len() == 0
    }

    /// The columns of every batch.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// Batches in groups, the last of which says that it is.
struct Groups {
    /// Until it has ended: what it holds is let go by the thread that polls it.
    made: Option<SendableRecordBatchStream>,
}

impl Groups {
    /// The rows of a plan that is run as `work`.
    fn of(plan: Arc<dyn ExecutionPlan>, work: &Arc<Work>) -> Result<Self> {
        let made = interruptible(plan, work).and_then(|plan| plan.execute(0, work.context()));
        Ok(Groups {
            made: Some(made.map_err(fault::execution)?),
        })
    }
}

impl Stream for Groups {
    type Item = Group;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Group>> {
        let this = self.get_mut();
        let Some(made) = &mut this.made else {
            return Poll::Ready(None);
        };
        let started = Instant::now();
        let mut group = Group::default();
        let batches = &mut group.batches;
        let mut bytes = 0;
        while !group.is_last
            && bytes < GROUP_BYTES
            && (batches.is_empty() || started.elapsed() < GROUP_TIME)
        {
            match made.poll_next_unpin(cx) {
                Poll::Ready(Some(batch)) => {
                    group.is_last = batch.is_err();
                    bytes += batch.as_ref().map_or(0, RecordBatch::get_array_memory_size);
                    batches.push(batch.map_err(fault::execution));
                }
                Poll::Ready(None) => group.is_last = true,
                Poll::Pending if batches.is_empty() => return Poll::Pending,
                // Whoever polls next is told when there is more.
                Poll::Pending => break,
            }
        }
        if group.is_last {
            this.made = None;
        }
        Poll::Ready(Some(group))
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
        if self
            .record
            .as_ref()
            .is_none_or(|record| record.held.is_none())
        {
            let next = ready!(self.poll_rows(cx));
            match &next {
                Some(Ok(batch)) => {
                    if let Some(meter) = &mut self.meter {
                        meter.add_rows(batch.num_rows());
                    }
                }
                // It is counted before its reader knows that it has ended.
                None | Some(Err(_)) => self.meter = None,
            }
            let Some(record) = &mut self.record else {
                return Poll::Ready(next);
            };
            match &next {
                Some(Ok(batch)) => {
                    record.entry.add_rows(match record.has_written {
                        true => affected_by(batch),
                        false => batch.num_rows() as u64,
                    });
                    return Poll::Ready(next);
                }
                Some(Err(error)) => {
                    record.entry.finish(error.code());
                    return Poll::Ready(next);
                }
                None => record.held = record.entry.finish(OK),
            }
        }
        let Some(held) = self.record.as_mut().and_then(|record| record.held.as_mut()) else {
            return Poll::Ready(None);
        };
        let written = ready!(Pin::new(held).poll(cx));
        self.record = None;
        Poll::Ready(match written {
            Ok(true) => None,
            _ => Some(Err(audit::unwritable())),
        })
    }
}

impl RecordStream {
    fn poll_rows(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        loop {
            if let Some(batch) = self.group.next() {
                return Poll::Ready(Some(batch));
            }
            if self.is_last {
                return Poll::Ready(None);
            }
            match self.poll_group(cx) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => break,
                Poll::Pending => {
                    let missed = ready!(self.poll_late(cx));
                    // Which ends its task.
                    self.rest = Rest::Nothing;
                    self.is_last = true;
                    return Poll::Ready(Some(Err(missed)));
                }
            }
        }
        // A plan that panicked closes the channel too, and its rows so far must
        // not pass for all of them.
        let Rest::Task { task, .. } = &mut self.rest else {
            return Poll::Ready(None);
        };
        let ended = ready!(task.poll_unpin(cx));
        self.rest = Rest::Nothing;
        self.is_last = true;
        Poll::Ready(match ended {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(error)),
            Err(error) => Some(Err(ended_early(Some(error)))),
        })
    }
}
