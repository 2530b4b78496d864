//! Bindings on disk, so that a restart of the server keeps them.
//!
//! They are the operator's, not a tenant's: they live in `system.db`.

use std::str::FromStr;

use async_trait::async_trait;

use crate::backend::{Backend, BackendError};
use crate::tenant::{SessionId, TenantId};

/// A binding as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBinding {
    /// The name of the principal whose session it is.
    pub principal: String,
    /// The session's id.
    pub session_id: String,
    /// The tenant in canonical form.
    pub tenant_id: String,
    /// Unix time in milliseconds.
    pub bound_at_ms: i64,
    /// Unix time in milliseconds.
    pub last_used_ms: i64,
}

/// A change of what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Stores a binding in place of the session's earlier one.
    Put {
        /// The name of the principal whose session it is.
        principal: String,
        /// The session.
        session: SessionId,
        /// The tenant that it is bound to.
        tenant: TenantId,
        /// Unix time in milliseconds.
        bound_at_ms: i64,
    },
    /// Notes when a session was last used.
    Touch {
        /// The name of the principal whose session it is.
        principal: String,
        /// The session.
        session: SessionId,
        /// Unix time in milliseconds.
        last_used_ms: i64,
    },
    /// Forgets a session's binding.
    Remove {
        /// The name of the principal whose session it is.
        principal: String,
        /// The session.
        session: SessionId,
    },
}

/// Where bindings are kept.
#[async_trait]
pub trait BindingStore: Send + Sync + 'static {
    /// Every binding that is stored.
    async fn load(&self) -> Result<Vec<StoredBinding>, BackendError>;

    /// Makes every change in order, or none of them. They are durable when
    /// this returns.
    async fn apply(&self, changes: Vec<Change>) -> Result<(), BackendError>;
}

/// The table `session_bindings` of `system.db`.
pub struct SystemBindings {
    backend: Backend,
}

impl SystemBindings {
    /// The bindings kept by `backend`.
    pub fn new(backend: Backend) -> Self {
        SystemBindings { backend }
    }
}

#[async_trait]
impl BindingStore for SystemBindings {
    async fn load(&self) -> Result<Vec<StoredBinding>, BackendError> {
        self.backend
            .system_read(|transaction| {
                let mut select = transaction.prepare_cached(
                    "SELECT principal, session_id, tenant_id, bound_at_ms, last_used_ms \
                     FROM session_bindings",
                )?;
                let rows = select.query_map([], |row| {
                    Ok(StoredBinding {
                        principal: row.get(0)?,
                        session_id: row.get(1)?,
                        tenant_id: row.get(2)?,
                        bound_at_ms: row.get(3)?,
                        last_used_ms: row.get(4)?,
                    })
                })?;
                Ok(rows.collect::<Result<Vec<_>, _>>()?)
            })
            .await
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<(), BackendError> {
        self.backend
            .system_write(move |transaction| {
                for change in &changes {
                    apply(transaction, change)?;
                }
                Ok(())
            })
            .await
    }
}

fn apply(connection: &rusqlite::Connection, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::Put {
            principal,
            session,
            tenant,
            bound_at_ms,
        } => connection
            .prepare_cached(
                "INSERT INTO session_bindings \
                 (principal, session_id, tenant_id, bound_at_ms, last_used_ms) \
                 VALUES (?1, ?2, ?3, ?4, ?4) \
                 ON CONFLICT (principal, session_id) DO UPDATE SET \
                 tenant_id = excluded.tenant_id, bound_at_ms = excluded.bound_at_ms, \
                 last_used_ms = excluded.last_used_ms",
            )?
            .execute((principal, session.as_str(), tenant.to_string(), bound_at_ms))?,
        Change::Touch {
            principal,
            session,
            last_used_ms,
        } => connection
            .prepare_cached(
                "UPDATE session_bindings SET last_used_ms = max(last_used_ms, ?3) \
                 WHERE principal = ?1 AND session_id = ?2",
            )?
            .execute((principal, session.as_str(), last_used_ms))?,
        Change::Remove { principal, session } => connection
            .prepare_cached(
                "DELETE FROM session_bindings WHERE principal = ?1 AND session_id = ?2",
            )?
            .execute((principal, session.as_str()))?,
    };
    Ok(())
}

impl StoredBinding {
    /// The binding in the types that the map holds, if it is well-formed.
    pub(super) fn parse(&self) -> Option<(SessionId, TenantId)> {
        let session = SessionId::from_str(&self.session_id).ok()?;
        let tenant = TenantId::from_str(&self.tenant_id).ok()?;
        Some((session, tenant))
    }
}
