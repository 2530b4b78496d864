//! A transaction and the lane that it is for.

use rusqlite::Connection;

use super::line::Line;
use super::{BackendError, DatabaseName, error::Cause};
use crate::tenant::{Lane, TenantId};

/// A transaction on the database of one lane. It ends with the closure that it
/// is given to: committed when that returns `Ok`, rolled back otherwise.
pub struct Transaction<'a> {
    inner: &'a Connection,
    lane: Lane,
    /// Where it writes.
    line: Option<&'a Line>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(inner: &'a Connection, lane: Lane) -> Self {
        Transaction {
            inner,
            lane,
            line: None,
        }
    }

    /// One that may write, by the turn of `line`.
    pub(super) fn to_write(inner: &'a Connection, lane: Lane, line: &'a Line) -> Self {
        Transaction {
            inner,
            lane,
            line: Some(line),
        }
    }

    /// Notes that it changes what [`Backend::version`](super::Backend::version) is the
    /// version of.
    pub fn redefines(&self) {
        if let Some(line) = self.line {
            line.redefine();
        }
    }

    /// The lane whose database this is.
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// What the `tenant_id` column of the lane's rows holds: the predicate of
    /// every read is `tenant_id IS ?` with this value.
    pub fn tenant_id(&self) -> Option<String> {
        self.lane.tenant().map(|tenant| tenant.to_string())
    }

    /// Refuses a row that belongs to another lane than the transaction's. Every
    /// write calls it with the tenant of the row that it is about to write, and
    /// an update with the old row's and the new one's.
    pub fn assert_tenant_matches(&self, row_tenant: Option<TenantId>) -> Result<(), BackendError> {
        if row_tenant == self.lane.tenant() {
            Ok(())
        } else {
            Err(BackendError::TenantMismatch { lane: self.lane })
        }
    }

    /// The connection, to run statements on. The transaction stays open: a
    /// statement that would end it is a defect.
    pub fn connection(&self) -> &Connection {
        self.inner
    }

    /// The error for a row of this lane that cannot be what we wrote.
    pub fn corrupt(&self, cause: impl Into<Cause>) -> BackendError {
        BackendError::Corrupt {
            database: DatabaseName::Lane(self.lane),
            source: cause.into(),
        }
    }
}
