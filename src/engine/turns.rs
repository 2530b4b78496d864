//! Whose work the plan threads do: one tenant never has all of them, nor all memory,
//! and work that nobody waits for any more ends.
//!
//! Operators compute inside one poll, some of them for minutes: a join whose
//! filter lets no row out looks for one until there is nothing left. No runtime
//! can take the thread back from such a poll. So there are more threads than
//! cores, between which the kernel divides the cores; a tenant polls on a few of
//! them at a time; and what can compute for long asks [`check`] now and then,
//! which offers the core to others too.
//!
//! Deliberately not `tokio::task::block_in_place`: it switches tokio's budget
//! off for all that is polled inside, so that leaves would no longer give way.

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use datafusion::execution::TaskContext;
use datafusion::prelude::SessionConfig;
use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::PollSemaphore;

use super::cores;
use super::fault::carried;
use super::shares::Shares;
use crate::config::EngineConfig;
use crate::error::{Error, Result};
use crate::tenant::{Scope, TenantId};

/// The threads that each tenant may have at a time, and its shares of memory and disk.
pub(super) struct Turns {
    each: usize,
    /// How long each piece of work may take.
    timeout: Option<Duration>,
    shares: Shares,
    session: SessionConfig,
    // As many entries as tenants have work, and those that ended since the
    // last purge.
    tenants: Mutex<Tenants>,
}

#[derive(Default)]
struct Tenants {
    running: HashMap<Option<TenantId>, Weak<Tenant>>,
    purge_at: usize,
}

/// What a tenant's work has in common, as long as there is any.
#[derive(Debug)]
struct Tenant {
    turns: Arc<Semaphore>,
    context: Arc<TaskContext>,
}

impl Turns {
    pub(super) fn new(
        each: usize,
        config: &EngineConfig,
        shares: Shares,
        session: &SessionConfig,
    ) -> Self {
        let timeout = Some(config.statement_timeout_ms).filter(|ms| *ms > 0);
        Turns {
            each,
            timeout: timeout.map(Duration::from_millis),
            shares,
            session: session.clone(),
            tenants: Mutex::default(),
        }
    }

    /// Starts a piece of work for `scope`.
    pub(super) fn begin(&self, scope: &Scope) -> Arc<Work> {
        Arc::new(Work {
            tenant: self.of(scope.payer()),
            abandoned: AtomicBool::new(false),
            due: self.timeout.map(|timeout| Due {
                timeout,
                at: Instant::now() + timeout,
            }),
        })
    }

    fn of(&self, tenant: Option<TenantId>) -> Arc<Tenant> {
        let mut tenants = self.tenants.lock();
        if let Some(known) = tenants.running.get(&tenant).and_then(Weak::upgrade) {
            return known;
        }
        if tenants.running.len() >= tenants.purge_at {
            tenants.running.retain(|_, known| known.strong_count() > 0);
            tenants.purge_at = 2 * tenants.running.len() + 16;
        }
        let new = Arc::new(Tenant {
            turns: Arc::new(Semaphore::new(self.each)),
            context: self.shares.context(&self.session),
        });
        tenants.running.insert(tenant, Arc::downgrade(&new));
        new
    }
}

/// The planning or the run of one statement, in as many tasks as it has.
#[derive(Debug)]
pub(super) struct Work {
    tenant: Arc<Tenant>,
    abandoned: AtomicBool,
    due: Option<Due>,
}

/// When work has to be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    timeout: Duration,
    pub at: Instant,
}

impl Due {
    pub(super) fn missed(self) -> Error {
        Error::DeadlineExceeded(format!(
            "the statement took longer than the setting engine.statement_timeout_ms (now {}) \
             allows: ask for less, or raise it",
            self.timeout.as_millis()
        ))
    }
}

impl Work {
    /// What its plan runs in: its tenant's memory and disk.
    pub(super) fn context(&self) -> Arc<TaskContext> {
        Arc::clone(&self.tenant.context)
    }

    pub(super) fn due(&self) -> Option<Due> {
        self.due
    }

    /// Gives `part` up when the work is due.
    pub(super) async fn in_time<T>(&self, part: impl Future<Output = Result<T>>) -> Result<T> {
        match self.due {
            None => part.await,
            Some(due) => match timeout_at(due.at, part).await {
                Ok(done) => done,
                Err(_) => Err(due.missed()),
            },
        }
    }

    fn check(&self) -> Result<()> {
        if self.abandoned.load(Ordering::Relaxed) {
            return Err(Error::Cancelled("the statement was given up".into()));
        }
        match self.due {
            Some(due) if due.at <= Instant::now() => Err(due.missed()),
            _ => Ok(()),
        }
    }
}

/// Abandons a piece of work as it is dropped.
pub(super) struct AbandonOnDrop(pub Arc<Work>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.abandoned.store(true, Ordering::Relaxed);
    }
}

thread_local! {
    /// The work that this thread polls.
    static POLLED: RefCell<Option<Arc<Work>>> = const { RefCell::new(None) };
}

/// Fails where nobody waits for the work that this thread polls, or where it is due.
/// Offers the core first.
pub(super) fn check() -> datafusion::common::Result<()> {
    cores::offer();
    POLLED.with_borrow(|work| match work {
        Some(work) => work.check().map_err(carried),
        None => Ok(()),
    })
}

/// Says which work a thread polls, for as long as it lives.
struct Polling;

impl Polling {
    fn of(work: &Arc<Work>) -> Self {
        POLLED.set(Some(Arc::clone(work)));
        Polling
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        POLLED.set(None);
    }
}

/// Polls a future or a stream in its tenant's turns. Inside of another one, as
/// where an operator polls its input, it is in that one's turn.
pub(super) struct InTurn<T> {
    work: Arc<Work>,
    turn: PollSemaphore,
    inner: T,
}

impl<T: Unpin> InTurn<T> {
    pub(super) fn new(work: &Arc<Work>, inner: T) -> Self {
        InTurn {
            work: Arc::clone(work),
            turn: PollSemaphore::new(Arc::clone(&work.tenant.turns)),
            inner,
        }
    }

    fn poll_inner<R>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        if POLLED.with_borrow(Option::is_some) {
            cores::offer();
            return poll(Pin::new(&mut self.inner), cx);
        }
        // The semaphore is never closed, so this is a turn.
        let _turn = ready!(self.turn.poll_acquire(cx));
        let _polling = Polling::of(&self.work);
        cores::offer();
        poll(Pin::new(&mut self.inner), cx)
    }
}

impl<F: Future + Unpin> Future for InTurn<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.poll_inner(cx, |inner, cx| inner.poll(cx))
    }
}

impl<S: Stream + Unpin> Stream for InTurn<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.poll_inner(cx, |inner, cx| inner.poll_next(cx))
    }
}
