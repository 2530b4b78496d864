//! The transactions that clients have open.
//!
//! A transaction is its session's, and what refers to it says so under a seal.
//! Its statements run one after the other. It ends when its client says so, when
//! the connection that began it ends, when the session is bound anew, and when it
//! is idle for too long; but for the first, it is rolled back. One that
//! was idle for too long, or of which a write broke off, is remembered until its
//! client ends it, so that no statement which was meant for it commits by itself.
//!
//! Architecture invariant: no lock here is held across anything that waits.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{counter, gauge};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::JammiConfig;
use crate::engine::SessionTransaction;
use crate::error::{Error, Result};
use crate::server::accept::ConnectionId;
use crate::server::tenant::{Admitted, Clock};
use crate::tenant::{Principal, SessionId, TenantId};

/// Every open transaction. Clones share them.
#[derive(Clone)]
pub struct Transactions(Arc<Shared>);

struct Shared {
    open: Mutex<Register>,
    /// How many there are, for those who would find none.
    count: AtomicUsize,
    clock: Arc<dyn Clock>,
    max: usize,
    session_max: usize,
    idle_timeout_ms: i64,
    unused_timeout_ms: i64,
}

/// The transactions by their numbers, and by whose they are.
#[derive(Default)]
struct Register {
    by_serial: HashMap<u64, Arc<Open>>,
    by_owner: HashMap<Owner, Vec<Arc<Open>>>,
}

impl Register {
    fn of(&self, owner: &Owner) -> &[Arc<Open>] {
        self.by_owner.get(owner).map_or(&[], Vec::as_slice)
    }

    fn add(&mut self, one: Arc<Open>) {
        let own = self.by_owner.entry(one.owner.clone()).or_default();
        own.push(Arc::clone(&one));
        self.by_serial.insert(one.serial, one);
    }

    fn remove(&mut self, serial: u64) -> Option<Arc<Open>> {
        let one = self.by_serial.remove(&serial)?;
        if let Some(own) = self.by_owner.get_mut(&one.owner) {
            own.retain(|other| other.serial != serial);
            if own.is_empty() {
                self.by_owner.remove(&one.owner);
            }
        }
        Some(one)
    }
}

/// An open transaction, or one that ended without its client's doing.
pub(super) struct Open {
    serial: u64,
    owner: Owner,
    generation: u64,
    /// Whether it was begun by `BEGIN`, for every statement of its session.
    by_text: bool,
    state: Mutex<State>,
    turn: Arc<Semaphore>,
    /// Which began it.
    connection: Option<ConnectionId>,
    used_ms: AtomicI64,
    /// Whether anything was read or written in it.
    has_run: AtomicBool,
    running: AtomicUsize,
}

type Owner = (Principal, Option<SessionId>);

enum State {
    Open(SessionTransaction),
    /// Rolled back, and why.
    Ended(&'static str),
}

/// Why a transaction was rolled back.
const IDLE: &str = "it was idle for longer than transactions.idle_timeout_secs";
const BROKEN_OFF: &str = "a statement of it was broken off";
const GONE: &str = "it has ended";

/// Whose transaction a call is about.
pub(super) struct Party {
    owner: Owner,
    generation: u64,
    connection: Option<ConnectionId>,
}

impl Party {
    pub fn of(admitted: &Admitted) -> Self {
        Party {
            owner: (admitted.principal().clone(), admitted.session().cloned()),
            generation: admitted.generation(),
            connection: admitted.connection(),
        }
    }

    /// Whether both are of one session by one connection.
    pub fn is(&self, other: &Party) -> bool {
        self.connection.is_some()
            && self.connection == other.connection
            && self.owner == other.owner
    }
}

impl Transactions {
    /// None yet.
    pub fn new(config: &JammiConfig, clock: Arc<dyn Clock>) -> Self {
        let ms = |secs: u64| i64::try_from(secs.saturating_mul(1_000)).unwrap_or(i64::MAX);
        Transactions(Arc::new(Shared {
            open: Mutex::default(),
            count: AtomicUsize::new(0),
            clock,
            max: config.transactions.max,
            session_max: config.transactions.session_max,
            idle_timeout_ms: ms(config.transactions.idle_timeout_secs),
            unused_timeout_ms: ms(config.sessions.idle_timeout_secs),
        }))
    }

    /// Keeps `transaction` under a number that it alone has.
    pub(super) fn begin(
        &self,
        party: Party,
        serial: u64,
        transaction: SessionTransaction,
        by_text: bool,
    ) -> Result<()> {
        let mut open = self.0.open();
        if open.by_serial.len() >= self.0.max {
            return Err(Error::ResourceExhausted(format!(
                "{} transactions are open, as many as may be: try again later, or raise \
                 transactions.max",
                self.0.max
            )));
        }
        let of_session = open.of(&party.owner);
        if of_session.len() >= self.0.session_max {
            return Err(Error::ResourceExhausted(format!(
                "{} transactions are open in this session, as many as may be: end one, or raise \
                 transactions.session_max",
                self.0.session_max
            )));
        }
        if by_text && of_session.iter().any(|one| one.by_text) {
            return Err(Error::FailedPrecondition(
                "a transaction is open in this session: send COMMIT or ROLLBACK first".into(),
            ));
        }
        let begun = Open {
            serial,
            owner: party.owner,
            generation: party.generation,
            by_text,
            state: Mutex::new(State::Open(transaction)),
            turn: Arc::new(Semaphore::new(1)),
            connection: party.connection,
            used_ms: AtomicI64::new(self.0.clock.now_ms()),
            has_run: AtomicBool::new(false),
            running: AtomicUsize::new(0),
        };
        open.add(Arc::new(begun));
        self.0.counted(&open);
        Ok(())
    }

    /// The transaction of a number, which its holder's seal vouched for.
    pub(super) fn named(&self, party: &Party, serial: u64) -> Result<Arc<Open>> {
        let found = self.0.open().by_serial.get(&serial).cloned();
        let found = found.filter(|one| one.is_of(party)).ok_or_else(missing)?;
        found.touch(&self.0);
        Ok(found)
    }

    /// The transaction that `BEGIN` opened in the session.
    pub(super) fn of_session(&self, party: &Party) -> Option<Arc<Open>> {
        // Most requests come when none is open at all.
        if self.0.count.load(Ordering::Acquire) == 0 || party.owner.1.is_none() {
            return None;
        }
        let open = self.0.open();
        let mut own = open.of(&party.owner).iter();
        let found = own.find(|one| one.by_text && one.is_of(party)).cloned()?;
        found.touch(&self.0);
        Some(found)
    }

    /// The one transaction that the session has open on the connection: what a
    /// call means that cannot name its transaction.
    pub(super) fn of_connection(&self, party: &Party) -> Result<Option<Arc<Open>>> {
        if let Some(found) = self.of_session(party) {
            return Ok(Some(found));
        }
        if self.0.count.load(Ordering::Acquire) == 0 || party.connection.is_none() {
            return Ok(None);
        }
        let open = self.0.open();
        let mut on_connection = open
            .of(&party.owner)
            .iter()
            .filter(|one| one.is_of(party) && one.connection == party.connection);
        let found = on_connection.next().cloned();
        if on_connection.next().is_some() {
            return Err(Error::InvalidArgument(
                "several transactions are open on this connection: name one by transaction_id"
                    .into(),
            ));
        }
        if let Some(found) = &found {
            found.touch(&self.0);
        }
        Ok(found)
    }

    /// Notes that `one` is in use.
    pub(super) fn touch(&self, one: &Open) {
        one.touch(&self.0);
    }

    /// Commits or rolls back, after the statements that run.
    pub(super) async fn end(&self, one: &Arc<Open>, commits: bool) -> Result<()> {
        let running = match self.enter(one).await {
            Ok(running) => running,
            Err(error) => {
                // Its client knows of its end now.
                self.forget(one);
                return if commits { Err(error) } else { Ok(()) };
            }
        };
        let transaction = running.transaction.clone();
        let ended = match commits {
            true => transaction.commit().await,
            false => transaction.rollback().await,
        };
        one.close(GONE);
        running.finish();
        self.forget(one);
        let how = match (&ended, commits) {
            (Ok(()), true) => "committed",
            (Ok(()), false) => "rolled_back",
            (Err(_), _) => "failed",
        };
        counter!("jammi_transactions_ended_total", "how" => how).increment(1);
        ended
    }

    /// Waits until the statements that run have ended, and begins one.
    pub(super) async fn enter(&self, one: &Arc<Open>) -> Result<Running> {
        one.running.fetch_add(1, Ordering::Relaxed);
        let counted = Counted {
            open: Arc::clone(one),
            shared: Arc::clone(&self.0),
        };
        let turn = Arc::clone(&one.turn).acquire_owned().await;
        let turn = turn.map_err(|_| one.ended(GONE))?;
        let transaction = one.transaction()?;
        one.has_run.store(true, Ordering::Relaxed);
        Ok(Running {
            transaction,
            is_whole: true,
            _turn: turn,
            counted,
        })
    }

    /// Rolls back what `principal` has open in `session` under another binding than
    /// that of `generation`.
    pub fn rebound(&self, principal: &Principal, session: &SessionId, generation: u64) {
        self.roll_back("rebound", |one| {
            one.owner.0 == *principal
                && one.owner.1.as_ref() == Some(session)
                && one.generation != generation
        });
    }

    /// Rolls back what a session has open, of the principal of this name.
    pub(in crate::server) fn session_ended(&self, principal: &str, session: &SessionId) {
        self.roll_back("killed", |one| {
            one.owner.0.name() == principal && one.owner.1.as_ref() == Some(session)
        });
    }

    /// The session of each open transaction that has one.
    pub(in crate::server) fn owners(&self) -> Vec<(Principal, SessionId)> {
        let open = self.0.open();
        let owners = open.by_serial.values().filter(|one| one.is_open());
        owners
            .filter_map(|one| Some((one.owner.0.clone(), one.owner.1.clone()?)))
            .collect()
    }

    /// Rolls back what the session has open on a connection that it leaves. What
    /// it has open on others stays.
    pub(super) fn closed(&self, party: &Party) {
        if party.connection.is_some() {
            self.roll_back("closed", |one| {
                one.owner == party.owner && one.connection == party.connection
            });
        }
    }

    /// Rolls back what was begun on a connection that is gone.
    pub fn connection_ended(&self, connection: ConnectionId) {
        self.roll_back("vanished", |one| one.connection == Some(connection));
    }

    /// The tenants who have any open.
    pub fn tenants(&self) -> BTreeSet<TenantId> {
        if self.0.count.load(Ordering::Acquire) == 0 {
            return BTreeSet::new();
        }
        let open = self.0.open();
        open.by_serial
            .values()
            .filter_map(|one| one.tenant())
            .collect()
    }

    /// Rolls back what was begun for a tenant.
    pub fn suspended(&self, tenant: TenantId) {
        self.roll_back("suspended", |one| one.tenant() == Some(tenant));
    }

    /// Rolls back everything.
    pub fn stop(&self) {
        self.roll_back("stopped", |_| true);
    }

    /// Rolls back what has been idle for too long.
    pub fn sweep(&self) {
        let now_ms = self.0.clock.now_ms();
        let idle: Vec<_> = {
            let open = self.0.open();
            open.by_serial
                .values()
                .filter(|one| self.0.is_idle(one, now_ms))
                .cloned()
                .collect()
        };
        for one in idle {
            if one.has_run.load(Ordering::Relaxed) && one.close(IDLE) {
                counter!("jammi_transactions_ended_total", "how" => "expired").increment(1);
            }
            // Its session is as good as gone.
            if self.0.idle_ms(&one, now_ms) > self.0.unused_timeout_ms {
                one.close(IDLE);
                self.forget(&one);
            }
        }
    }

    fn roll_back(&self, how: &'static str, which: impl Fn(&Open) -> bool) {
        if self.0.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let ended: Vec<_> = {
            let mut open = self.0.open();
            let serials: Vec<u64> = open
                .by_serial
                .values()
                .filter(|one| which(one))
                .map(|one| one.serial)
                .collect();
            let ended = serials.iter().filter_map(|serial| open.remove(*serial));
            let ended = ended.collect();
            self.0.counted(&open);
            ended
        };
        for one in ended {
            one.turn.close();
            if one.close(GONE) {
                counter!("jammi_transactions_ended_total", "how" => how).increment(1);
            }
        }
    }

    fn forget(&self, one: &Open) {
        let mut open = self.0.open();
        open.remove(one.serial);
        self.0.counted(&open);
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Register> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counted(&self, open: &Register) {
        let count = open.by_serial.len();
        self.count.store(count, Ordering::Release);
        gauge!("jammi_transactions").set(count as f64);
    }

    fn idle_ms(&self, one: &Open, now_ms: i64) -> i64 {
        match one.running.load(Ordering::Relaxed) {
            0 => now_ms.saturating_sub(one.used_ms.load(Ordering::Relaxed)),
            _ => 0,
        }
    }

    fn is_idle(&self, one: &Open, now_ms: i64) -> bool {
        let timeout_ms = match one.has_run.load(Ordering::Relaxed) {
            true => self.idle_timeout_ms.min(self.unused_timeout_ms),
            false => self.unused_timeout_ms,
        };
        self.idle_ms(one, now_ms) > timeout_ms
    }
}

impl Open {
    /// The number that it is known by.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Whether it was begun by `BEGIN`.
    pub fn is_by_text(&self) -> bool {
        self.by_text
    }

    /// The transaction, to plan statements in.
    pub fn transaction(&self) -> Result<SessionTransaction> {
        match &*self.state() {
            State::Open(transaction) => Ok(transaction.clone()),
            State::Ended(why) => Err(self.ended(why)),
        }
    }

    fn ended(&self, why: &'static str) -> Error {
        if why == GONE {
            return missing();
        }
        let mend = match self.by_text {
            true => "send ROLLBACK, then BEGIN another",
            false => "roll back, and begin another",
        };
        Error::FailedPrecondition(format!(
            "the transaction was rolled back, since {why}: {mend}"
        ))
    }

    /// Whom it writes for.
    fn tenant(&self) -> Option<TenantId> {
        match &*self.state() {
            State::Open(transaction) => transaction.scope().tenant(),
            State::Ended(_) => None,
        }
    }

    fn is_open(&self) -> bool {
        matches!(&*self.state(), State::Open(_))
    }

    fn is_of(&self, party: &Party) -> bool {
        self.owner == party.owner && self.generation == party.generation
    }

    fn touch(&self, shared: &Shared) {
        self.used_ms
            .fetch_max(shared.clock.now_ms(), Ordering::Relaxed);
    }

    /// Rolls back, unless it has ended.
    fn close(&self, why: &'static str) -> bool {
        let state = std::mem::replace(&mut *self.state(), State::Ended(why));
        match state {
            State::Open(transaction) => {
                // Readers of the transaction may hold it still. Whoever has committed
                // it finds nothing to roll back.
                match Handle::try_current() {
                    Ok(runtime) => drop(runtime.spawn(async move {
                        if let Err(error) = transaction.rollback().await {
                            tracing::warn!(%error, "a transaction was not rolled back in order");
                        }
                    })),
                    Err(_outside) => drop(transaction),
                }
                true
            }
            State::Ended(before) => {
                *self.state() = State::Ended(before);
                false
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A statement that runs in a transaction. Dropped while what it has written is
/// in pieces, it ends the transaction.
pub(super) struct Running {
    transaction: SessionTransaction,
    is_whole: bool,
    _turn: OwnedSemaphorePermit,
    counted: Counted,
}

impl Running {
    pub fn transaction(&self) -> &SessionTransaction {
        &self.transaction
    }

    /// From here to [`Running::finish`] the statement writes.
    pub fn writes(&mut self) {
        self.is_whole = false;
    }

    /// The statement has ended, be it in an error.
    pub fn finish(mut self) {
        self.is_whole = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_whole && self.counted.open.close(BROKEN_OFF) {
            counter!("jammi_transactions_ended_total", "how" => "broken_off").increment(1);
        }
    }
}

/// One among the statements that run or wait.
struct Counted {
    open: Arc<Open>,
    shared: Arc<Shared>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.touch(&self.shared);
        self.open.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is answered for an id that means nothing to the caller.
pub(super) fn missing() -> Error {
    Error::NotFound("the transaction does not exist, or has ended: begin another".into())
}
