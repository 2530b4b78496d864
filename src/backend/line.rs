//! The line of those who want to write one database.
//!
//! Invariants: one turn exists at a time, and turns are given in order of
//! arrival, to single writes and to transactions alike. A turn that is dropped,
//! however that comes about, goes to the next in line. No SQL runs and no
//! connection is closed under the line's lock.
//!
//! Deliberately absent: other processes. They are kept apart by SQLite's lock,
//! which knows no order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::BackendError;
use super::error::Context;

/// Those who wait to write one database, and the connection to write with while
/// nobody does.
pub(super) struct Line {
    state: Mutex<State>,
    /// How many may wait; one more is refused at once.
    waiting_max: usize,
    /// Counts the commits that redefined what the database holds.
    definitions: AtomicU64,
    /// Whether whoever has the turn has redefined something since the last count.
    redefined: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Whether somebody has the turn.
    taken: bool,
    writer: Option<Connection>,
    waiting: VecDeque<Waiter>,
    /// Numbers those who wait.
    arrivals: u64,
}

struct Waiter {
    number: u64,
    wants: Wants,
}

/// What is done with the turn.
pub(super) enum Wants {
    /// Whoever waits for it keeps it.
    Turn(oneshot::Sender<Turn>),
    /// A single write, which whoever has the turn may do on the way.
    Job(Box<dyn Job>),
}

/// A single write that waits in line.
pub(super) trait Job: Send {
    /// Does the work in a transaction, where it may be one of several. Says
    /// whether what it did is to stay.
    fn run(&mut self, transaction: &rusqlite::Transaction<'_>, context: Context) -> bool;

    /// Why it failed, once it has.
    fn failure(&self) -> Option<BackendError>;

    /// Answers whoever waits for it, by what became of the transaction.
    fn settle(self: Box<Self>, transaction: Result<(), BackendError>);

    /// Gives the turn to whoever waits for it, to do the work itself.
    fn lead(self: Box<Self>, turn: Turn);
}

/// The right to write a database.
pub(super) struct Turn {
    line: Arc<Line>,
    /// The connection to write with, once there is one.
    pub writer: Option<Connection>,
}

/// A place in the line, which is given up when this is dropped.
pub(super) struct Place {
    line: Arc<Line>,
    number: u64,
}

/// What somebody gets who comes to the line.
pub(super) enum Arrival {
    /// Nobody was there.
    Turn(Turn),
    /// Others are first.
    Place(Place),
}

impl Line {
    pub fn new(waiting_max: usize) -> Self {
        Line {
            state: Mutex::default(),
            waiting_max,
            definitions: AtomicU64::new(0),
            redefined: AtomicBool::new(false),
        }
    }

    /// Notes that a transaction redefines what the database holds, whose turn it is.
    pub fn redefine(&self) {
        self.redefined.store(true, Ordering::Release);
    }

    /// Counts what was redefined, once it is committed or undone and before anybody
    /// is told so.
    fn count(&self) {
        if self.redefined.swap(false, Ordering::AcqRel) {
            self.definitions.fetch_add(1, Ordering::Release);
        }
    }

    /// Differs from what it was before a commit that redefined something, once that
    /// is acknowledged.
    pub fn definitions(&self) -> u64 {
        self.definitions.load(Ordering::Acquire)
    }

    /// The turn, or a place in the line for what `wants` gives.
    pub fn arrive(
        self: &Arc<Self>,
        context: Context,
        wants: impl FnOnce() -> Wants,
    ) -> Result<Arrival, BackendError> {
        let mut state = self.state.lock();
        if !state.taken {
            state.taken = true;
            return Ok(Arrival::Turn(Turn {
                line: Arc::clone(self),
                writer: state.writer.take(),
            }));
        }
        if state.waiting.len() >= self.waiting_max {
            return Err(BackendError::LineExhausted {
                database: context.database,
                writers_waiting_max: self.waiting_max,
            });
        }
        let number = state.arrivals;
        state.arrivals += 1;
        state.waiting.push_back(Waiter {
            number,
            wants: wants(),
        });
        Ok(Arrival::Place(Place {
            line: Arc::clone(self),
            number,
        }))
    }

    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// Waits for the turn.
    pub async fn turn(self: &Arc<Self>, context: Context) -> Result<Turn, BackendError> {
        let (give, given) = oneshot::channel();
        match self.arrive(context, || Wants::Turn(give))? {
            Arrival::Turn(turn) => Ok(turn),
            Arrival::Place(place) => place.wait(given, context).await,
        }
    }
}

impl Place {
    /// Waits for `answer`, which comes once it is this place's turn. Until then
    /// for as long as anybody waits for the database, and not longer.
    pub async fn wait<T>(
        self,
        mut answer: oneshot::Receiver<T>,
        context: Context,
    ) -> Result<T, BackendError> {
        let patience = Duration::from_millis(context.busy_timeout_ms);
        let answered = match tokio::time::timeout(patience, &mut answer).await {
            Ok(answered) => answered,
            Err(_elapsed) if self.leave() => return Err(context.busy()),
            // It was called up meanwhile.
            Err(_elapsed) => answer.await,
        };
        answered.map_err(|_dropped| BackendError::Stopping)
    }

    /// Leaves the line; `false` when it is not in it any more.
    fn leave(&self) -> bool {
        let mut state = self.line.state.lock();
        let found = state
            .waiting
            // They are in the order of their numbers.
            .binary_search_by_key(&self.number, |waiter| waiter.number);
        let waiter = found.ok().and_then(|index| state.waiting.remove(index));
        drop(state);
        waiter.is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Turn {
    /// Notes that what the database holds is redefined.
    pub fn redefine(&self) {
        self.line.redefine();
    }

    /// What was noted is committed, or undone, and may be told.
    pub fn settle(&self) {
        self.line.count();
    }

    /// The write that is next in line, if it is one.
    pub fn next_job(&mut self) -> Option<Box<dyn Job>> {
        let mut state = self.line.state.lock();
        match state.waiting.pop_front()? {
            Waiter {
                wants: Wants::Job(job),
                ..
            } => Some(job),
            other => {
                state.waiting.push_front(other);
                None
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // A connection whose transaction did not end is not kept.
        let (writer, unusable) = match self.writer.take() {
            Some(writer) if writer.is_autocommit() => (Some(writer), None),
            other => (None, other),
        };
        // Closes it, which ends its transaction, before the next one begins.
        drop(unusable);
        self.line.count();
        let mut state = self.line.state.lock();
        let Some(next) = state.waiting.pop_front() else {
            state.taken = false;
            state.writer = writer;
            return;
        };
        drop(state);
        let turn = Turn {
            line: Arc::clone(&self.line),
            writer,
        };
        // One who does not wait any more drops it, and so passes it on.
        match next.wants {
            Wants::Turn(give) => drop(give.send(turn)),
            Wants::Job(job) => job.lead(turn),
        }
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}
