//! A transaction of one lane that spans statements.
//!
//! Invariants: all that is read comes from the state that the lane had at the
//! first use, and from what the transaction wrote itself. It writes only while
//! it has the lane's turn and only if nobody committed to the lane since that
//! state, so of two transactions that overlap the first to write wins, and what
//! is committed is as if the transactions had run one after the other.
//!
//! However it ends (committed, rolled back, dropped, an operation on it dropped
//! midway, a panic in an operation), its connection goes back or is closed, and
//! the turn goes to the next in line.
//!
//! Deliberately absent: a limit on how long it stays open. An open one keeps its
//! lane from being closed, and the lane's log from being emptied, so whoever
//! gives transactions to clients ends idle ones.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::line::Turn;
use super::pool::Pool;
use super::snapshot::{Place, Snapshot};
use super::{BackendError, DatabaseName, Transaction, blocking, may_block, reading};
use crate::tenant::Lane;

/// A transaction of one lane that spans statements, made by
/// [`Backend::begin`](super::Backend::begin). Several tasks may use it; what
/// they ask of it is done one after the other. Dropped, it is rolled back.
///
/// An operation that has begun goes on when its future is dropped, and the next
/// one waits for it.
pub struct OpenTransaction {
    pool: Arc<Pool>,
    lane: Lane,
    /// The lane that whoever has it writes.
    holder: Lane,
    wrote: Arc<AtomicBool>,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    state: State,
    /// The names of the open savepoints. SQLite knows each by its index here,
    /// so that names are compared as they are.
    savepoints: Vec<String>,
}

#[derive(Default)]
enum State {
    /// Nothing was asked of it.
    #[default]
    Unused,
    /// The lane had no database at the first use.
    Absent,
    Open(Box<Snapshot>),
    /// SQLite gave the transaction up.
    Lost(BackendError),
    /// It was committed or rolled back.
    Ended,
}

/// What it takes to write.
enum Admission {
    /// It may write already.
    Held,
    /// It has read.
    Upgrade(Turn),
    Begin {
        place: Place,
        turn: Turn,
        /// Whether it has found the lane without a database.
        absent: bool,
    },
}

type Guard = OwnedMutexGuard<Inner>;

impl OpenTransaction {
    pub(super) fn new(pool: Arc<Pool>, lane: Lane, holder: Lane) -> Self {
        OpenTransaction {
            pool,
            lane,
            holder,
            wrote: Arc::default(),
            inner: Arc::default(),
        }
    }

    /// The lane that it is on.
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// Whether a [`write`](Self::write) has been run, be it rolled back since.
    pub fn wrote(&self) -> bool {
        self.wrote.load(Ordering::Relaxed)
    }

    /// Runs `f` on the state of the lane at the transaction's first use, with
    /// the transaction's own writes. `None`: the lane had no database then, and
    /// gets none by this.
    pub async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Transaction<'_>) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<Option<T>, BackendError> {
        let mut inner = self.enter().await;
        let place = match &mut inner.state {
            State::Unused => match self.pool.lease(self.name(), false).await? {
                Some(lease) => Some(Place::take(lease, self.holder).await?),
                None => {
                    inner.state = State::Absent;
                    return Ok(None);
                }
            },
            State::Absent => return Ok(None),
            State::Open(_) => None,
            State::Lost(error) => return Err(error.restated()),
            State::Ended => return Err(BackendError::Ended),
        };
        let lane = self.lane;
        let read = reading(move || {
            if let Some(place) = place {
                inner.open(Snapshot::to_read(place)?)?;
            }
            inner
                .with(|snapshot| snapshot.read(|connection| f(&Transaction::new(connection, lane))))
        });
        read.await.map(Some)
    }

    /// Takes the lane's turn to write, and keeps it to the end of the
    /// transaction. Makes the lane's database if there is none.
    ///
    /// Turns are given in order of arrival; whoever waits longer than
    /// `lanes.busy_timeout_ms` gets [`BackendError::Busy`].
    /// [`BackendError::Conflict`]: the lane was committed to since the
    /// transaction's first use, so that it can go on reading but never write.
    pub async fn lock(&self) -> Result<(), BackendError> {
        let mut inner = self.enter().await;
        let admission = self.admission(&mut inner).await?;
        on_pool(inner, move |inner| inner.lock(admission)).await
    }

    /// Runs `f` after [`lock`](Self::lock), which it does if need be. When `f`
    /// returns an error or panics, what it did is undone and the transaction
    /// goes on.
    pub async fn write<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Transaction<'_>) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, BackendError> {
        let mut inner = self.enter().await;
        let admission = self.admission(&mut inner).await?;
        let (lane, wrote) = (self.lane, Arc::clone(&self.wrote));
        let write = on_pool(inner, move |inner| {
            inner.lock(admission)?;
            wrote.store(true, Ordering::Relaxed);
            inner.with(|snapshot| {
                let line = snapshot.database_line();
                snapshot.write(|connection| f(&Transaction::to_write(connection, lane, &line)))
            })
        });
        write.await
    }

    /// Opens a savepoint, which hides an open one of the same name.
    pub async fn savepoint(&self, name: &str) -> Result<(), BackendError> {
        let name = name.to_owned();
        let savepoints_max = self.pool.config().savepoints_max;
        on_pool(self.enter().await, move |inner| {
            if inner.savepoints.len() >= savepoints_max {
                return Err(BackendError::SavepointsExhausted { savepoints_max });
            }
            inner.run(&format!("SAVEPOINT s{}", inner.savepoints.len()))?;
            inner.savepoints.push(name);
            Ok(())
        })
        .await
    }

    /// Undoes what was written since the newest savepoint of that name was
    /// opened, and closes those that were opened after it. It stays open.
    pub async fn rollback_to(&self, name: &str) -> Result<(), BackendError> {
        let name = name.to_owned();
        on_pool(self.enter().await, move |inner| {
            let index = inner.find(name)?;
            inner.run(&format!("ROLLBACK TO s{index}"))?;
            inner.savepoints.truncate(index + 1);
            Ok(())
        })
        .await
    }

    /// Closes the newest savepoint of that name and those that were opened after
    /// it. What was written stays.
    pub async fn release(&self, name: &str) -> Result<(), BackendError> {
        let name = name.to_owned();
        on_pool(self.enter().await, move |inner| {
            let index = inner.find(name)?;
            inner.run(&format!("RELEASE s{index}"))?;
            inner.savepoints.truncate(index);
            Ok(())
        })
        .await
    }

    /// Commits what was written; when it returns `Ok`, that is on the disk.
    /// After an error nothing of it is there, except that what the disk holds
    /// after a failure of the disk itself is found out when the lane is read.
    pub async fn commit(&self) -> Result<(), BackendError> {
        match self.end().await {
            State::Open(snapshot) => blocking(move || snapshot.commit()).await,
            State::Lost(error) => Err(error),
            State::Ended => Err(BackendError::Ended),
            State::Unused | State::Absent => Ok(()),
        }
    }

    /// Undoes what was written. The turn is free when it returns, which it is
    /// soon after a drop.
    pub async fn rollback(&self) -> Result<(), BackendError> {
        match self.end().await {
            State::Open(snapshot) => {
                blocking(move || {
                    drop(snapshot);
                    Ok(())
                })
                .await
            }
            State::Lost(_) | State::Unused | State::Absent | State::Ended => Ok(()),
        }
    }

    fn name(&self) -> DatabaseName {
        DatabaseName::Lane(self.lane)
    }

    async fn enter(&self) -> Guard {
        Arc::clone(&self.inner).lock_owned().await
    }

    async fn end(&self) -> State {
        std::mem::replace(&mut self.enter().await.state, State::Ended)
    }

    /// Waits for the turn, unless it is had.
    async fn admission(&self, inner: &mut Inner) -> Result<Admission, BackendError> {
        let absent = match &mut inner.state {
            State::Open(snapshot) => {
                let Some((line, context)) = snapshot.line() else {
                    return Ok(Admission::Held);
                };
                return Ok(Admission::Upgrade(line.turn(context).await?));
            }
            State::Lost(error) => return Err(error.restated()),
            State::Ended => return Err(BackendError::Ended),
            State::Absent => true,
            State::Unused => false,
        };
        let lease = self.pool.lease_or_create(self.name()).await?;
        let place = Place::take(lease, self.holder).await?;
        let turn = place.turn().await?;
        Ok(Admission::Begin {
            place,
            turn,
            absent,
        })
    }
}

impl Drop for OpenTransaction {
    fn drop(&mut self) {
        // Where an operation still runs, the last that it does is to drop the
        // transaction.
        let Ok(mut inner) = self.inner.try_lock() else {
            return;
        };
        let State::Open(snapshot) = std::mem::take(&mut inner.state) else {
            return;
        };
        if snapshot.line().is_some() && may_block() {
            // There is nothing to undo.
            drop(snapshot);
            return;
        }
        // Rolling back may block.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(snapshot))),
            Err(_outside) => drop(snapshot),
        }
    }
}

impl fmt::Debug for OpenTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenTransaction")
            .field("lane", &self.lane)
            .field("wrote", &self.wrote())
            .finish_non_exhaustive()
    }
}

/// Runs `f` where it may block. The transaction goes with it, so that it is
/// whole again for the next operation when this one's future is dropped.
async fn on_pool<T: Send + 'static>(
    mut inner: Guard,
    f: impl FnOnce(&mut Inner) -> Result<T, BackendError> + Send + 'static,
) -> Result<T, BackendError> {
    blocking(move || f(&mut inner)).await
}

impl Inner {
    /// Goes on with a snapshot, in which the savepoints that are open are made.
    fn open(&mut self, snapshot: Snapshot) -> Result<(), BackendError> {
        for index in 0..self.savepoints.len() {
            snapshot.run(&format!("SAVEPOINT s{index}"))?;
        }
        self.state = State::Open(Box::new(snapshot));
        Ok(())
    }

    fn lock(&mut self, admission: Admission) -> Result<(), BackendError> {
        match admission {
            Admission::Held => Ok(()),
            Admission::Upgrade(turn) => self.with(|snapshot| snapshot.upgrade(turn)),
            Admission::Begin {
                place,
                turn,
                absent,
            } => {
                let snapshot = Snapshot::to_write(place, turn)?;
                if absent && !snapshot.is_pristine()? {
                    return Err(snapshot.conflict());
                }
                self.open(snapshot)
            }
        }
    }

    /// Runs `f` on the snapshot, which is given up if `f` shows that SQLite has
    /// done so.
    fn with<T>(
        &mut self,
        f: impl FnOnce(&mut Snapshot) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let snapshot = match &mut self.state {
            State::Open(snapshot) => snapshot,
            State::Lost(error) => return Err(error.restated()),
            State::Ended => return Err(BackendError::Ended),
            // Nothing else comes here without a snapshot.
            State::Unused | State::Absent => return Err(BackendError::Stopping),
        };
        let result = match snapshot.is_lost() {
            // By an operation that panicked.
            true => Err(snapshot.ended()),
            false => f(snapshot),
        };
        if !snapshot.is_lost() {
            return result;
        }
        let error = result.err().unwrap_or_else(|| snapshot.ended());
        self.state = State::Lost(error.restated());
        Err(error)
    }

    /// Runs a statement about savepoints, of which none exist in SQLite before
    /// there is a snapshot.
    fn run(&mut self, sql: &str) -> Result<(), BackendError> {
        match &self.state {
            State::Unused | State::Absent => Ok(()),
            State::Open(_) | State::Lost(_) | State::Ended => {
                self.with(|snapshot| snapshot.run(sql))
            }
        }
    }

    fn find(&self, name: String) -> Result<usize, BackendError> {
        self.savepoints
            .iter()
            .rposition(|open| *open == name)
            .ok_or(BackendError::NoSavepoint { name })
    }
}
