//! Single writes, which share a commit with those that wait behind them.
//!
//! Whoever gets the turn runs its write, then those that came meanwhile, in one
//! SQLite transaction, commits it, and answers each. The cost of making a
//! commit durable is so paid once for all of them, and a write that nobody
//! waits behind is committed at once.
//!
//! Invariants: a write is acknowledged after the commit that holds it, and one
//! that fails or panics leaves nothing and takes nothing of the others with it.
//! Only when SQLite itself gives the transaction up (the disk is full, or
//! fails) do all of it fail.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use super::error::Context;
use super::line::{Arrival, Job, Turn, Wants};
use super::pool::Lease;
use super::{BackendError, DatabaseName};

/// How many writes share a commit at most.
const GROUP_WRITES_MAX: usize = 256;
/// How long a commit is put off for writes that came later.
const GROUP_TIME_MAX: Duration = Duration::from_millis(10);

/// Runs `f` on the database of the lease, when it is its turn, and commits what
/// it did if it returns `Ok`. A panic of `f` goes on here.
pub(super) async fn write<T, F>(lease: Lease, f: F) -> Result<T, BackendError>
where
    T: Send + 'static,
    F: FnOnce(&rusqlite::Transaction<'_>) -> Result<T, BackendError> + Send + 'static,
{
    let context = lease.database().context();
    let (reply, answer) = oneshot::channel();
    let mut write = Some(Write::new(f, reply));
    let arrival = lease.database().line().arrive(context, || {
        let write = write.take().expect("it is asked for once");
        Wants::Job(Box::new(write))
    })?;
    let (turn, f) = match arrival {
        Arrival::Turn(turn) => match write.take().and_then(|write| write.f) {
            Some(f) => (turn, f),
            None => return Err(BackendError::Stopping),
        },
        Arrival::Place(place) => match place.wait(answer, context).await? {
            Answer::Lead(turn, f) => (turn, f),
            Answer::Done(outcome) => return outcome.unwrap_or_panic(),
        },
    };
    let (reply, answer) = oneshot::channel();
    let first = Box::new(Write::new(f, reply));
    tokio::task::spawn_blocking(move || lead(lease, turn, first));
    match answer.await {
        Ok(Answer::Done(outcome)) => outcome.unwrap_or_panic(),
        // The runtime is shutting down.
        Ok(Answer::Lead(..)) | Err(_) => Err(BackendError::Stopping),
    }
}

/// Runs `first`, and those that follow in the line until it is a transaction's
/// turn or nobody's. Blocks.
fn lead(lease: Lease, mut turn: Turn, first: Box<dyn Job>) {
    let mut next = Some(first);
    while let Some(first) = next {
        let settled = commit_group(&lease, &mut turn, first);
        next = turn.next_job();
        if next.is_none() {
            // Whoever is answered finds the lane as free as it is now.
            drop(turn);
            drop(lease);
            return settled.answer();
        }
        settled.answer();
    }
}

/// Writes that are over, and what came of the transaction that they were in.
struct Settled {
    group: Vec<Box<dyn Job>>,
    result: Result<(), BackendError>,
}

impl Settled {
    fn answer(self) {
        let mut group = self.group.into_iter();
        match self.result {
            Ok(()) => group.for_each(|job| job.settle(Ok(()))),
            Err(error) => {
                let last = group.next_back();
                group.for_each(|job| job.settle(Err(error.restated())));
                if let Some(last) = last {
                    last.settle(Err(error));
                }
            }
        }
    }
}

/// Runs `first`, and those that come meanwhile, in one transaction.
fn commit_group(lease: &Lease, turn: &mut Turn, first: Box<dyn Job>) -> Settled {
    let mut group = vec![first];
    let mut writer = match lease.writer(turn) {
        Ok(writer) => writer,
        Err(error) => {
            return Settled {
                group,
                result: Err(error),
            };
        }
    };
    let result = run_group(lease, turn, &mut writer, &mut group);
    if lease.database().context().database == DatabaseName::System {
        turn.redefine();
    }
    turn.settle();
    turn.writer = writer.is_autocommit().then_some(writer);
    Settled { group, result }
}

/// As [`commit_group`]; who is to be answered by its result is in `group`.
fn run_group(
    lease: &Lease,
    turn: &mut Turn,
    writer: &mut Connection,
    group: &mut Vec<Box<dyn Job>>,
) -> Result<(), BackendError> {
    let context = lease.database().context();
    let statement = |error| context.statement(error);
    let transaction = writer
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(statement)?;
    lease.check_version(&transaction)?;
    let began = Instant::now();
    // What the first one does is all that there is to undo, so that a write
    // that is alone needs no savepoint.
    if let Some(first) = group.first_mut() {
        let stays = first.run(&transaction, context);
        if transaction.is_autocommit() {
            return Err(given_up(first.as_ref(), context));
        }
        if !stays {
            return Ok(());
        }
    }
    while group.len() < GROUP_WRITES_MAX && began.elapsed() < GROUP_TIME_MAX {
        let Some(mut job) = turn.next_job() else {
            break;
        };
        let ran = run_in_savepoint(&transaction, job.as_mut(), context);
        match ran {
            Ok(false) => job.settle(Ok(())),
            Ok(true) => group.push(job),
            Err(error) => {
                group.push(job);
                return Err(error);
            }
        }
    }
    lease.database().check_path()?;
    transaction.commit().map_err(statement)
}

/// Whether the work is to stay; an error when the transaction is lost by it.
fn run_in_savepoint(
    transaction: &rusqlite::Transaction<'_>,
    job: &mut dyn Job,
    context: Context,
) -> Result<bool, BackendError> {
    let run = |sql| {
        transaction
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute([]))
            .map_err(|error| context.statement(error))
    };
    run("SAVEPOINT \"jammi write\"")?;
    let stays = job.run(transaction, context);
    if transaction.is_autocommit() {
        return Err(given_up(job, context));
    }
    if !stays {
        run("ROLLBACK TO \"jammi write\"")?;
    }
    run("RELEASE \"jammi write\"")?;
    Ok(stays)
}

/// Why SQLite gave up the transaction while it did the work.
fn given_up(job: &dyn Job, context: Context) -> BackendError {
    job.failure()
        .unwrap_or_else(|| context.storage("a write ended the transaction that it is in"))
}

/// A write, and whoever waits for it.
struct Write<T, F> {
    /// Until it has run.
    f: Option<F>,
    /// Once it has.
    outcome: Option<Outcome<T>>,
    reply: oneshot::Sender<Answer<T, F>>,
}

/// What one who waits in line hears.
enum Answer<T, F> {
    /// It is its turn.
    Lead(Turn, F),
    /// Another did it on the way.
    Done(Outcome<T>),
}

/// What came of running a write.
enum Outcome<T> {
    Returned(Result<T, BackendError>),
    Panicked(Box<dyn Any + Send>),
}

impl<T> Outcome<T> {
    fn unwrap_or_panic(self) -> Result<T, BackendError> {
        match self {
            Outcome::Returned(result) => result,
            Outcome::Panicked(panic) => resume_unwind(panic),
        }
    }
}

impl<T, F> Write<T, F> {
    fn new(f: F, reply: oneshot::Sender<Answer<T, F>>) -> Self {
        Write {
            f: Some(f),
            outcome: None,
            reply,
        }
    }
}

impl<T, F> Job for Write<T, F>
where
    T: Send + 'static,
    F: FnOnce(&rusqlite::Transaction<'_>) -> Result<T, BackendError> + Send + 'static,
{
    fn run(&mut self, transaction: &rusqlite::Transaction<'_>, context: Context) -> bool {
        let Some(f) = self.f.take() else {
            return false;
        };
        // What a panic may have left half done is undone with the savepoint.
        let outcome = match catch_unwind(AssertUnwindSafe(|| f(transaction))) {
            Ok(result) => Outcome::Returned(result.map_err(|error| context.explain(error))),
            Err(panic) => Outcome::Panicked(panic),
        };
        let stays = matches!(outcome, Outcome::Returned(Ok(_)));
        self.outcome = Some(outcome);
        stays
    }

    fn failure(&self) -> Option<BackendError> {
        match &self.outcome {
            Some(Outcome::Returned(Err(error))) => Some(error.restated()),
            _ => None,
        }
    }

    fn settle(self: Box<Self>, transaction: Result<(), BackendError>) {
        let outcome = match (self.outcome, transaction) {
            (Some(Outcome::Returned(Ok(_))) | None, Err(error)) => Outcome::Returned(Err(error)),
            (Some(outcome), _) => outcome,
            // Whoever waits learns that nothing was done.
            (None, Ok(())) => return,
        };
        // One who does not wait any more wanted no answer.
        drop(self.reply.send(Answer::Done(outcome)));
    }

    fn lead(self: Box<Self>, turn: Turn) {
        let Write { f, reply, .. } = *self;
        if let Some(f) = f {
            drop(reply.send(Answer::Lead(turn, f)));
        }
    }
}
