//! What a process still has of tenants who may not be used, or are no more: open
//! transactions, bindings, and what is kept in memory.
//!
//! The register says who they are, whichever process has written it, so that it is
//! looked at from time to time, and at once when this process has.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::flight::Transactions;
use super::tenant::SessionMap;
use crate::engine::Engine;
use crate::error::Result;
use crate::tenant::TenantId;

/// Ends what a process still has of tenants who may not be used, or are no more.
/// Clones share what they know.
#[derive(Clone)]
pub(super) struct Evictions {
    engine: Engine,
    sessions: SessionMap,
    transactions: Transactions,
    /// The last erasure that is known.
    seen: Arc<AtomicI64>,
}

impl Evictions {
    /// Those after what is erased already.
    pub(super) async fn new(
        engine: Engine,
        sessions: SessionMap,
        transactions: Transactions,
    ) -> Result<Self> {
        let erased = engine.tenants().erased_after(0).await?;
        let seen = erased.last().map_or(0, |erased| erased.number);
        Ok(Evictions {
            engine,
            sessions,
            transactions,
            seen: Arc::new(AtomicI64::new(seen)),
        })
    }

    /// Refuses to bind a tenant who may not be used, and forgets an earlier one of its id
    /// first.
    ///
    /// # Errors
    /// `PermissionDenied`.
    pub(super) async fn let_in(&self, tenant: TenantId) -> Result<()> {
        self.look().await?;
        self.engine.tenants().require_good(Some(tenant)).await
    }

    /// Rolls back the transactions of tenants who are suspended, and forgets those who
    /// are erased, whichever process has said so.
    pub(super) async fn look(&self) -> Result<()> {
        let tenants = self.engine.tenants();
        let with_open: BTreeSet<TenantId> = self.transactions.tenants();
        for tenant in with_open {
            if !tenants.standing(tenant).await?.is_good() {
                self.transactions.suspended(tenant);
            }
        }
        let erased = tenants
            .erased_after(self.seen.load(Ordering::Relaxed))
            .await?;
        let Some(last) = erased.last() else {
            return Ok(());
        };
        for one in &erased {
            self.transactions.suspended(one.tenant);
            self.sessions.unbind(one.tenant).await?;
        }
        self.engine.forget_cached();
        self.seen.fetch_max(last.number, Ordering::Relaxed);
        Ok(())
    }
}
