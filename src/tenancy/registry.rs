//! Who is registered, and who may be used.
//!
//! Tenants may be below each other. Who is below reads, beside its own rows, those of
//! tenants above that say so; nothing else follows from it.
//!
//! Invariant: a tenant that is suspended or being erased gets no scope, and a change
//! of that in any process is seen by the next request.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rusqlite::Transaction;

use super::record::{Row, check_name, erasing, insert, missing, state_of, unregistered};
use super::{Tenant, TenantChange, TenantState, Usage, tree};
use crate::auth::registry::Registry;
use crate::backend::{Backend, BackendError};
use crate::catalog::{Catalog, Clock};
use crate::config::TenancyConfig;
use crate::error::{Error, Result};
use crate::tenant::{Principal, Scope, TenantId, not_ones_own};

/// The most levels that `tenancy.depth_max` may allow.
const DEPTH_MAX: usize = 64;

/// The tenants of an installation. Clones share what they know.
#[derive(Clone)]
pub struct Tenants(Arc<Parts>);

impl fmt::Debug for Tenants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tenants(..)")
    }
}

struct Parts {
    rows: Registry<Row>,
    catalog: Catalog,
    usage: Usage,
    registered_only: bool,
    depth_max: usize,
    now_ms: Clock,
    /// Had by whoever imports or erases.
    turn: tokio::sync::Mutex<()>,
}

/// How a tenant stands with the operator, for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may be used, and reads the rows of these tenants above too, from the nearest
    /// on.
    Good(Vec<TenantId>),
    /// It may not, by the operator's word.
    Suspended,
    /// It is none of those who may.
    Unregistered,
}

impl Default for Standing {
    fn default() -> Self {
        Standing::Good(Vec::new())
    }
}

impl Standing {
    /// Whether the tenant may be used.
    pub fn is_good(&self) -> bool {
        matches!(self, Standing::Good(_))
    }

    /// The tenants above that are read. Refuses a tenant that may not be used.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`].
    pub fn require(&self) -> Result<&[TenantId]> {
        match self {
            Standing::Good(above) => Ok(above),
            Standing::Suspended => Err(Error::PermissionDenied(
                "the tenant is suspended: ask the operator of the server".into(),
            )),
            Standing::Unregistered => Err(not_ones_own()),
        }
    }
}

impl Tenants {
    /// The tenants in the databases of `backend`, with what `catalog` says of their
    /// lanes.
    pub fn new(backend: Backend, catalog: Catalog, config: &TenancyConfig, now_ms: Clock) -> Self {
        Tenants(Arc::new(Parts {
            usage: Usage::new(backend.clone(), now_ms),
            rows: Registry::new(backend),
            catalog,
            registered_only: config.registered_only,
            depth_max: config.depth_max,
            now_ms,
            turn: tokio::sync::Mutex::default(),
        }))
    }

    /// How a tenant stands now. Cheap while nothing has changed.
    ///
    /// # Errors
    /// The storage's.
    pub async fn standing(&self, tenant: TenantId) -> Result<Standing> {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let row = self.0.rows.find(tenant.encode(&mut text)).await?;
        Ok(match row.as_deref() {
            None if self.0.registered_only => Standing::Unregistered,
            None => Standing::default(),
            Some(Row(tenant)) => match tenant.state {
                TenantState::Active => Standing::Good(self.above(tenant).await?),
                TenantState::Suspended | TenantState::Erasing => Standing::Suspended,
            },
        })
    }

    /// The tenants above that share, from the nearest on. Of one who may not be used
    /// itself nobody reads anything.
    async fn above(&self, tenant: &Tenant) -> Result<Vec<TenantId>> {
        let mut above = Vec::new();
        let mut next = tenant.parent;
        let mut levels = 1;
        while let Some(id) = next {
            levels += 1;
            if levels > DEPTH_MAX {
                return Err(Error::DataLoss(format!(
                    "tenant {} has more than {DEPTH_MAX} levels of tenants above: restore system.db",
                    tenant.id
                )));
            }
            let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
            let Some(row) = self.0.rows.find(id.encode(&mut text)).await? else {
                break;
            };
            if row.0.shares && row.0.state == TenantState::Active {
                above.push(id);
            }
            next = row.0.parent;
        }
        Ok(above)
    }

    /// Refuses to bind a tenant who may not be used now. To bind none is no matter.
    ///
    /// # Errors
    /// As of [`Standing::require`].
    pub async fn require_good(&self, tenant: Option<TenantId>) -> Result<()> {
        match tenant {
            Some(tenant) => self.standing(tenant).await?.require().map(drop),
            None => Ok(()),
        }
    }

    /// The scope of a request that is made as `tenant` now, or as none.
    ///
    /// # Errors
    /// As of [`Standing::require`].
    pub async fn scope(&self, principal: Principal, tenant: Option<TenantId>) -> Result<Scope> {
        let Some(tenant) = tenant else {
            return Ok(Scope::global(principal));
        };
        let standing = self.standing(tenant).await?;
        let above = standing.require()?.iter().copied();
        Ok(Scope::tenant_below(principal, tenant, above))
    }

    /// Registers a tenant: `id`, or one of its own.
    ///
    /// # Errors
    /// As of [`Tenants::update`]; `AlreadyExists`.
    pub async fn create(&self, id: Option<TenantId>, change: TenantChange) -> Result<Tenant> {
        let name = change.name.clone().unwrap_or_default();
        check_name(&name)?;
        let tenant = self.registered(id.unwrap_or_else(TenantId::random), &name);
        let (row, depth_max) = (tenant.clone(), self.0.depth_max);
        let made = self
            .0
            .rows
            .write(move |system| {
                let made = insert(system, &row)?;
                if made {
                    tree::change(system, row.id, &change, depth_max)?;
                }
                Ok(made)
            })
            .await?;
        match made {
            true => self.find(tenant.id).await,
            false => Err(Error::AlreadyExists(format!(
                "tenant {} is registered: see `jammi tenants describe`",
                tenant.id
            ))),
        }
    }

    /// Every tenant that is registered, in the order in which that was done, and then
    /// those who have a lane alone.
    ///
    /// # Errors
    /// The storage's.
    pub async fn list(&self) -> Result<Vec<Tenant>> {
        let mut others: BTreeMap<TenantId, Tenant> = BTreeMap::new();
        for id in self.backend().tenants().await? {
            others.insert(id, unregistered(id));
        }
        let mut tenants: Vec<Tenant> = Vec::new();
        for Row(tenant) in self.0.rows.all().await? {
            others.remove(&tenant.id);
            tenants.push(tenant);
        }
        tenants.extend(others.into_values());
        Ok(tenants)
    }

    /// One of those.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn find(&self, id: TenantId) -> Result<Tenant> {
        if let Some(row) = self.0.rows.read(&id.to_string()).await? {
            return Ok(row.0.clone());
        }
        match self.backend().lane_bytes(id).await? {
            0 => Err(missing(id)),
            _ => Ok(unregistered(id)),
        }
    }

    /// Changes what is registered of a tenant, who is by this, where it was not.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is none, a tenant above that is below, and more
    /// levels than `tenancy.depth_max`; `NotFound`.
    pub async fn update(&self, id: TenantId, change: TenantChange) -> Result<Tenant> {
        if let Some(name) = &change.name {
            check_name(name)?;
        }
        self.find(id).await?;
        let (row, depth_max) = (self.registered(id, ""), self.0.depth_max);
        self.0
            .rows
            .write(move |system| {
                insert(system, &row)?;
                tree::change(system, id, &change, depth_max)
            })
            .await?;
        self.find(id).await
    }

    /// Has the tenant's requests refused from the next one on. It is registered by
    /// this, where it was not.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` while it is being erased.
    pub async fn suspend(&self, id: TenantId) -> Result<Tenant> {
        self.set_state(id, TenantState::Suspended).await
    }

    /// Lets the tenant be used again.
    ///
    /// # Errors
    /// As of [`Tenants::suspend`].
    pub async fn resume(&self, id: TenantId) -> Result<Tenant> {
        self.set_state(id, TenantState::Active).await
    }

    async fn set_state(&self, id: TenantId, state: TenantState) -> Result<Tenant> {
        self.find(id).await?;
        let now_ms = self.now_ms();
        let row = self.registered(id, "");
        let is_erasing = self.0.rows.write(move |system| {
            insert(system, &row)?;
            if state_of(system, id)? == Some(TenantState::Erasing) {
                return Ok(true);
            }
            system
                .prepare_cached(
                    "UPDATE tenants SET state = ?2, state_at_ms = ?3
                     WHERE id = ?1 AND state <> ?2",
                )?
                .execute((id.to_string(), state.as_str(), now_ms))?;
            Ok(false)
        });
        match is_erasing.await? {
            false => self.find(id).await,
            true => Err(erasing(id)),
        }
    }

    /// What tenants use.
    pub fn usage(&self) -> &Usage {
        &self.0.usage
    }

    pub(super) fn backend(&self) -> &Backend {
        self.0.rows.backend()
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.0.catalog
    }

    pub(super) fn now_ms(&self) -> i64 {
        (self.0.now_ms)()
    }

    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.turn.lock().await
    }

    /// Changes what is registered.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Transaction<'_>) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T> {
        self.0.rows.write(f).await
    }

    /// An active tenant as it is registered now.
    pub(super) fn registered(&self, id: TenantId, name: &str) -> Tenant {
        let now_ms = self.now_ms();
        Tenant {
            id,
            name: name.to_owned(),
            state: TenantState::Active,
            created_at_ms: Some(now_ms),
            state_at_ms: Some(now_ms),
            parent: None,
            shares: false,
        }
    }
}
