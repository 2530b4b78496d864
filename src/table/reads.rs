//! What one statement reads tables from: one state of each lane.

use std::collections::HashMap;
use std::sync::Arc;

use crate::backend::{Backend, BackendError, OpenTransaction, Transaction};
use crate::error::{Error, Result};
use crate::tenant::{Lane, Scope};

/// One state of each lane that a scope reads. Every scan of a statement reads
/// from the same, and so do the statements of a transaction.
#[derive(Clone)]
pub struct StatementReads {
    lanes: Arc<HashMap<Lane, Arc<OpenTransaction>>>,
}

impl StatementReads {
    /// The state that each lane has when it is first read.
    pub fn new(backend: &Backend, scope: &Scope) -> Self {
        StatementReads::with(backend, scope, Arc::new(backend.begin(scope.writable())))
    }

    /// As [`StatementReads::new`], with the writable lane as `own` sees it: what
    /// it wrote too.
    pub fn with(backend: &Backend, scope: &Scope, own: Arc<OpenTransaction>) -> Self {
        let mut lanes: HashMap<Lane, Arc<OpenTransaction>> = scope
            .readable()
            .iter()
            .filter(|lane| **lane != scope.writable())
            .map(|lane| {
                let reading = backend.begin_for(scope.writable(), *lane);
                (*lane, Arc::new(reading))
            })
            .collect();
        lanes.insert(scope.writable(), own);
        StatementReads {
            lanes: Arc::new(lanes),
        }
    }

    /// Reads from a lane; `None` when it has no database. A lane that the scope
    /// does not read is a defect.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        lane: Lane,
        f: impl FnOnce(&Transaction<'_>) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<Option<T>> {
        Ok(self.of(lane)?.read(f).await?)
    }

    /// Whether what is read of the lane is not committed yet.
    pub(super) fn is_dirty(&self, lane: Lane) -> Result<bool> {
        Ok(self.of(lane)?.wrote())
    }

    fn of(&self, lane: Lane) -> Result<&Arc<OpenTransaction>> {
        self.lanes.get(&lane).ok_or_else(|| {
            Error::internal(
                "the statement was refused: it reads a lane that is not the caller's",
                format!("lane {lane}"),
            )
        })
    }
}

impl std::fmt::Debug for StatementReads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.lanes.keys()).finish()
    }
}
