//! Statements that are committed together.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::sweep::Sweeper;
use crate::backend::{Backend, OpenTransaction};
use crate::error::Result;
use crate::table::StatementReads;
use crate::tenant::{Lane, Scope};

/// The savepoint around a statement, which undoes it alone when it fails.
const STATEMENT: &str = "jammi statement";

/// A transaction of a scope: it writes one lane, and its statements read one
/// state of each. Nothing is opened or locked before the first statement.
/// Dropping the last clone rolls back.
#[derive(Clone, Debug)]
pub struct SessionTransaction {
    scope: Scope,
    own: Arc<OpenTransaction>,
    reads: StatementReads,
    /// Whether it has changed what tables there are.
    has_defined: Arc<AtomicBool>,
    /// Whether it has dropped some.
    has_dropped: Arc<AtomicBool>,
    /// Who removes tenants' rows of those once it is committed.
    sweeper: Option<Sweeper>,
}

impl SessionTransaction {
    pub(super) fn new(backend: &Backend, scope: &Scope) -> Self {
        let own = Arc::new(backend.begin(scope.writable()));
        SessionTransaction {
            reads: StatementReads::with(backend, scope, Arc::clone(&own)),
            scope: scope.clone(),
            own,
            has_defined: Arc::default(),
            has_dropped: Arc::default(),
            sweeper: None,
        }
    }

    /// As it is, with somebody to remove tenants' rows of what it drops.
    pub(super) fn swept_by(self, sweeper: &Sweeper) -> Self {
        SessionTransaction {
            sweeper: Some(sweeper.clone()),
            ..self
        }
    }

    /// The scope of every statement in it.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The lane that it writes.
    pub fn lane(&self) -> Lane {
        self.own.lane()
    }

    pub(super) fn own(&self) -> &OpenTransaction {
        &self.own
    }

    /// Notes that what tables there are is about to change.
    pub(super) fn defines(&self) {
        self.has_defined.store(true, Ordering::Relaxed);
    }

    /// Notes that a table is about to be dropped.
    pub(super) fn drops(&self) {
        self.has_dropped.store(true, Ordering::Relaxed);
    }

    /// Whether what it sees may differ from what others see.
    pub(super) fn has_defined(&self) -> bool {
        self.has_defined.load(Ordering::Relaxed)
    }

    pub(super) fn reads(&self) -> StatementReads {
        self.reads.clone()
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// Nothing is written when it fails.
    pub async fn commit(&self) -> Result<()> {
        self.own.commit().await?;
        if self.lane() == Lane::Global
            && self.has_dropped.load(Ordering::Relaxed)
            && let Some(sweeper) = &self.sweeper
        {
            sweeper.sweep_all();
        }
        Ok(())
    }

    /// Undoes what was written.
    pub async fn rollback(&self) -> Result<()> {
        Ok(self.own.rollback().await?)
    }

    /// Sets a savepoint.
    pub async fn savepoint(&self, name: &str) -> Result<()> {
        Ok(self.own.savepoint(name).await?)
    }

    /// Undoes what was written since the savepoint, which stays.
    pub async fn rollback_to(&self, name: &str) -> Result<()> {
        Ok(self.own.rollback_to(name).await?)
    }

    /// Forgets a savepoint and keeps what was written since.
    pub async fn release(&self, name: &str) -> Result<()> {
        Ok(self.own.release(name).await?)
    }

    pub(super) async fn begin_statement(&self) -> Result<()> {
        self.savepoint(STATEMENT).await
    }

    pub(super) async fn end_statement(&self) -> Result<()> {
        self.release(STATEMENT).await
    }

    pub(super) async fn undo_statement(&self) -> Result<()> {
        self.rollback_to(STATEMENT).await?;
        self.release(STATEMENT).await
    }

    /// Runs a statement: when it fails, what it wrote is undone, and the
    /// transaction goes on.
    pub(super) async fn statement<T>(
        &self,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.begin_statement().await?;
        match work.await {
            Ok(value) => {
                self.end_statement().await?;
                Ok(value)
            }
            Err(error) => {
                self.undo_statement().await?;
                Err(error)
            }
        }
    }
}
