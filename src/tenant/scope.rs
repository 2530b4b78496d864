//! What one request may touch.

use std::fmt;
use std::sync::Arc;

use super::principal::{GLOBAL_WRITER, Principal};
use super::{SessionKey, TenantId};
use crate::error::{Error, Result};

/// The rows that belong to one tenant, or those shared by all
/// (`tenant_id IS NULL`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Shared rows.
    Global,
    /// One tenant's rows.
    Tenant(TenantId),
}

impl Lane {
    /// The tenant whose lane this is, or `None` for the global one: the value
    /// that a `tenant_id` column holds.
    pub fn tenant(self) -> Option<TenantId> {
        match self {
            Lane::Global => None,
            Lane::Tenant(tenant) => Some(tenant),
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lane::Global => f.write_str("global"),
            Lane::Tenant(tenant) => write!(f, "tenant {tenant}"),
        }
    }
}

/// What one request may touch: the lanes it reads, the one lane it writes, the
/// session whose own tables it sees there, and the principal behind it.
/// Immutable: a later rebinding of the session makes another scope for the next
/// request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    principal: Principal,
    writable: Lane,
    readable: ReadableLanes,
    session: Option<SessionKey>,
    is_bypass: bool,
}

/// The lanes in the order in which names are looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum ReadableLanes {
    GlobalOnly([Lane; 1]),
    OwnAndGlobal([Lane; 2]),
    /// The own one, those of the tenants above that share, from the nearest on, and
    /// the global one.
    WithAbove(Arc<[Lane]>),
}

impl Scope {
    /// The scope of a request bound to `tenant`: it reads the tenant's lane and
    /// the global one, and writes the tenant's.
    pub fn tenant_bound(principal: Principal, tenant: TenantId) -> Self {
        let own = Lane::Tenant(tenant);
        Scope {
            principal,
            writable: own,
            readable: ReadableLanes::OwnAndGlobal([own, Lane::Global]),
            session: None,
            is_bypass: false,
        }
    }

    /// The scope of a request bound to `tenant` that reads also the lanes of `above`,
    /// tenants who share with it, from the nearest on.
    pub fn tenant_below(
        principal: Principal,
        tenant: TenantId,
        above: impl IntoIterator<Item = TenantId>,
    ) -> Self {
        let scope = Scope::tenant_bound(principal, tenant);
        let own = scope.writable;
        let above = above.into_iter().map(Lane::Tenant);
        let mut above = above.filter(|lane| *lane != own).peekable();
        if above.peek().is_none() {
            return scope;
        }
        let lanes = std::iter::once(own).chain(above).chain([Lane::Global]);
        Scope {
            readable: ReadableLanes::WithAbove(lanes.collect()),
            ..scope
        }
    }

    /// The scope of a request bound to no tenant: it reads and writes the
    /// global lane alone.
    pub fn global(principal: Principal) -> Self {
        Scope {
            principal,
            writable: Lane::Global,
            readable: ReadableLanes::GlobalOnly([Lane::Global]),
            session: None,
            is_bypass: false,
        }
    }

    /// The scope of one request that reads the lanes of `tenant` and `others`, for whom
    /// its principal need not act, and writes nothing. Names mean the objects of those
    /// tenants in this order.
    pub fn bypassing(
        principal: Principal,
        tenant: TenantId,
        others: impl IntoIterator<Item = TenantId>,
    ) -> Self {
        Scope {
            is_bypass: true,
            ..Scope::tenant_below(principal, tenant, others)
        }
    }

    /// The scope of a request that is made in `session`. Without one, a request
    /// sees no table that belongs to a session.
    #[must_use]
    pub fn in_session(self, session: Option<SessionKey>) -> Self {
        Scope { session, ..self }
    }

    /// The scope of the same request made in no session.
    #[must_use]
    pub fn without_session(&self) -> Self {
        self.clone().in_session(None)
    }

    /// Whether what was made for this scope shows `caller` no more than its own
    /// scope does: it is the same scope, or the same but made for no session.
    pub fn covers(&self, caller: &Scope) -> bool {
        self.principal == caller.principal
            && self.writable == caller.writable
            && self.readable == caller.readable
            && self.is_bypass == caller.is_bypass
            && (self.session.is_none() || self.session == caller.session)
    }

    /// The session that the request is made in.
    pub fn session(&self) -> Option<SessionKey> {
        self.session
    }

    /// Who is asking.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The tenant that the request is bound to.
    pub fn tenant(&self) -> Option<TenantId> {
        self.writable.tenant()
    }

    /// The tenant that the request is counted for, and whose share of the engine it
    /// takes: nobody pays for what others look up in its rows.
    pub fn payer(&self) -> Option<TenantId> {
        self.tenant().filter(|_| !self.is_bypass)
    }

    /// Whether it reads rows of tenants for whom its principal need not act.
    pub fn is_bypass(&self) -> bool {
        self.is_bypass
    }

    /// The one lane that the request writes, if it may: see
    /// [`Scope::require_writing`].
    pub fn writable(&self) -> Lane {
        self.writable
    }

    /// Whether the request may write its lane. A tenant's rows are its own; those
    /// that every tenant reads are written by whoever has the right.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`].
    pub fn require_writing(&self) -> Result<()> {
        if self.is_bypass {
            return Err(Error::PermissionDenied(
                "a request that bypasses tenants reads and does nothing else: send it without \
                 jammi-bypass-reason, in a session that is bound to the tenant"
                    .into(),
            ));
        }
        match self.writable {
            Lane::Tenant(_) => Ok(()),
            Lane::Global if self.principal.has_role(GLOBAL_WRITER) => Ok(()),
            Lane::Global => Err(Error::PermissionDenied(format!(
                "what is shared by every tenant is written with the role {GLOBAL_WRITER}, which \
                 the credential does not have: bind a tenant to write its own rows"
            ))),
        }
    }

    /// The lanes that the request reads, in the order in which names are
    /// looked up: a tenant's own, then those of tenants above that share, from the
    /// nearest on, and then the global one.
    pub fn readable(&self) -> &[Lane] {
        match &self.readable {
            ReadableLanes::GlobalOnly(lanes) => lanes,
            ReadableLanes::OwnAndGlobal(lanes) => lanes,
            ReadableLanes::WithAbove(lanes) => lanes,
        }
    }

    /// The lanes of tenants above that the request reads, from the nearest on.
    pub fn above(&self) -> &[Lane] {
        match &self.readable {
            ReadableLanes::WithAbove(lanes) => &lanes[1..lanes.len() - 1],
            ReadableLanes::GlobalOnly(_) | ReadableLanes::OwnAndGlobal(_) => &[],
        }
    }

    /// The policies by which the scope came to be, as the audit trail names them.
    pub fn policies(&self) -> &'static [&'static str] {
        match &self.readable {
            _ if self.is_bypass => &["bypass", "shared"],
            ReadableLanes::GlobalOnly(_) => &["shared"],
            ReadableLanes::OwnAndGlobal(_) => &["own", "shared"],
            ReadableLanes::WithAbove(_) => &["own", "above", "shared"],
        }
    }

    /// The tenants whose rows the request reads, its own first.
    pub fn tenants(&self) -> impl Iterator<Item = TenantId> {
        self.readable().iter().filter_map(|lane| lane.tenant())
    }

    /// Whether the request reads rows of `lane`.
    pub fn reads(&self, lane: Lane) -> bool {
        self.readable().contains(&lane)
    }
}
