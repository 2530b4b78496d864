//! How far a statement is, and whether it is to go on.
//!
//! Invariant: a statement is ended before it commits, or not at all. Who ends it and
//! what is about to commit decide by one change of one value, so that whoever is told
//! that a statement was ended knows that nothing of it stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::queue::{Place, Queue};
use super::{Engine, SessionTransaction};
use crate::error::{Error, Result};
use crate::tenant::Scope;

/// It may be ended.
const OPEN: u8 = 0;
const ENDED: u8 = 1;
/// It commits, or has.
const COMMITS: u8 = 2;

/// How far one statement is. Whoever started it tells the engine to keep to it by
/// [`Engine::following`].
#[derive(Debug, Default)]
pub struct Progress {
    fate: AtomicU8,
    stage: AtomicU8,
    rows: AtomicU64,
}

/// What a statement is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is read and planned.
    Planning,
    /// It waits for its tenant's turn.
    Queued,
    /// It computes, or writes.
    Running,
    /// Its rows are being fetched.
    Streaming,
}

impl Stage {
    const ALL: [Stage; 4] = [
        Stage::Planning,
        Stage::Queued,
        Stage::Running,
        Stage::Streaming,
    ];

    /// The stage in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Planning => "planning",
            Stage::Queued => "queued",
            Stage::Running => "running",
            Stage::Streaming => "streaming",
        }
    }
}

impl Progress {
    /// What the statement is at.
    pub fn stage(&self) -> Stage {
        let number = usize::from(self.stage.load(Ordering::Relaxed));
        Stage::ALL.get(number).copied().unwrap_or(Stage::Planning)
    }

    /// Notes what the statement is at.
    pub fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// How many rows it has answered with.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Notes rows that it answers with.
    pub fn add_rows(&self, rows: usize) {
        self.set_stage(Stage::Streaming);
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Ends the statement. `false`: it commits, and is not ended. Whoever waits for it
    /// drops what they wait for then.
    #[must_use]
    pub fn end(&self) -> bool {
        self.settle(ENDED)
    }

    /// Keeps the statement from being ended from here on.
    ///
    /// # Errors
    /// `Cancelled` where it has been.
    pub fn commits(&self) -> Result<()> {
        match self.settle(COMMITS) {
            true => Ok(()),
            false => Err(Error::Cancelled("the statement was ended".into())),
        }
    }

    /// Whether the fate is `wanted` from now on.
    fn settle(&self, wanted: u8) -> bool {
        let settled = self
            .fate
            .compare_exchange(OPEN, wanted, Ordering::AcqRel, Ordering::Acquire);
        match settled {
            Ok(_) => true,
            Err(before) => before == wanted,
        }
    }
}

impl Engine {
    /// The engine for one statement, which says by `progress` how far it is and may be
    /// ended by it.
    #[must_use]
    pub fn following(&self, progress: &Arc<Progress>) -> Engine {
        Engine(Arc::clone(&self.0), Some(Arc::clone(progress)))
    }

    /// Says that the statement is about to commit, and cannot be ended any more.
    ///
    /// # Errors
    /// `Cancelled` where it has been ended.
    pub(crate) fn commits(&self) -> Result<()> {
        self.1
            .as_ref()
            .map_or(Ok(()), |progress| progress.commits())
    }

    /// Commits what the statement has written, unless it has been ended.
    pub(super) async fn commit(&self, transaction: &SessionTransaction) -> Result<()> {
        self.commits()?;
        transaction.commit().await
    }

    pub(super) fn is_at(&self, stage: Stage) {
        if let Some(progress) = &self.1 {
            progress.set_stage(stage);
        }
    }

    /// Waits for a place for a statement of `scope`.
    pub(super) async fn enter(&self, queue: &Arc<Queue>, scope: &Scope) -> Result<Place> {
        self.is_at(Stage::Queued);
        let place = queue.enter(scope).await?;
        self.is_at(Stage::Running);
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_ended_or_commits() {
        let ended = Progress::default();
        assert!(ended.end() && ended.end());
        assert!(matches!(ended.commits(), Err(Error::Cancelled(_))));
        let committed = Progress::default();
        assert!(committed.commits().is_ok() && committed.commits().is_ok());
        assert!(!committed.end());
        for stage in Stage::ALL {
            committed.set_stage(stage);
            assert_eq!(committed.stage(), stage);
        }
    }
}
