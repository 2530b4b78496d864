//! Who is registered, and who may be used.
//!
//! Invariant: a tenant that is suspended or being erased gets no scope, and a change
//! of that in any process is seen by the next request.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{OptionalExtension, Transaction};

use super::Usage;
use crate::auth::registry::{Registry, Stored};
use crate::backend::{Backend, BackendError};
use crate::catalog::{Catalog, Clock};
use crate::config::TenancyConfig;
use crate::error::{Error, Result};
use crate::tenant::{Principal, Scope, TenantId, not_ones_own};

/// The longest name of a tenant.
pub const NAME_BYTES_MAX: usize = 256;

/// The tenants of an installation. Clones share what they know.
#[derive(Clone)]
pub struct Tenants(Arc<Parts>);

struct Parts {
    rows: Registry<Row>,
    catalog: Catalog,
    usage: Usage,
    registered_only: bool,
    now_ms: Clock,
    /// Had by whoever imports or erases.
    turn: tokio::sync::Mutex<()>,
}

/// A tenant as the operator has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Which.
    pub id: TenantId,
    /// What the operator calls it. Nothing goes by it.
    pub name: String,
    /// Whether it may be used.
    pub state: TenantState,
    /// Unix time in milliseconds. None: it is not registered, and has a lane alone.
    pub created_at_ms: Option<i64>,
    /// Unix time in milliseconds at which the state was last another one.
    pub state_at_ms: Option<i64>,
}

/// Whether a tenant may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantState {
    /// It may.
    Active,
    /// Its requests are refused, and what it has is kept.
    Suspended,
    /// What it has is being removed.
    Erasing,
}

impl TenantState {
    /// The state in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            TenantState::Active => "active",
            TenantState::Suspended => "suspended",
            TenantState::Erasing => "erasing",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Active, Self::Suspended, Self::Erasing]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// How a tenant stands with the operator, for one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It may be used.
    #[default]
    Good,
    /// It may not, by the operator's word.
    Suspended,
    /// It is none of those who may.
    Unregistered,
}

impl Standing {
    /// Refuses a tenant that may not be used.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`].
    pub fn require(self) -> Result<()> {
        match self {
            Standing::Good => Ok(()),
            Standing::Suspended => Err(Error::PermissionDenied(
                "the tenant is suspended: ask the operator of the server".into(),
            )),
            Standing::Unregistered => Err(not_ones_own()),
        }
    }
}

/// A registered tenant, as it is kept in memory.
pub(super) struct Row(pub Tenant);

impl Tenants {
    /// The tenants in the databases of `backend`, with what `catalog` says of their
    /// lanes.
    pub fn new(backend: Backend, catalog: Catalog, config: &TenancyConfig, now_ms: Clock) -> Self {
        Tenants(Arc::new(Parts {
            usage: Usage::new(backend.clone(), now_ms),
            rows: Registry::new(backend),
            catalog,
            registered_only: config.registered_only,
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
            None => Standing::Good,
            Some(Row(tenant)) => match tenant.state {
                TenantState::Active => Standing::Good,
                TenantState::Suspended | TenantState::Erasing => Standing::Suspended,
            },
        })
    }

    /// Refuses to bind a tenant who may not be used now. To bind none is no matter.
    ///
    /// # Errors
    /// As of [`Standing::require`].
    pub async fn require_good(&self, tenant: Option<TenantId>) -> Result<()> {
        match tenant {
            Some(tenant) => self.standing(tenant).await?.require(),
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
        self.standing(tenant).await?.require()?;
        Ok(Scope::tenant_bound(principal, tenant))
    }

    /// Registers a tenant: `id`, or one of its own.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is none; `AlreadyExists`.
    pub async fn create(&self, id: Option<TenantId>, name: &str) -> Result<Tenant> {
        check_name(name)?;
        let tenant = self.registered(id.unwrap_or_else(TenantId::random), name);
        let row = tenant.clone();
        let made = self
            .0
            .rows
            .write(move |system| Ok(insert(system, &row)?))
            .await?;
        match made {
            true => Ok(tenant),
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
        match self.backend().tenants().await?.contains(&id) {
            true => Ok(unregistered(id)),
            false => Err(missing(id)),
        }
    }

    /// Gives a registered tenant another name.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is none; `NotFound`.
    pub async fn rename(&self, id: TenantId, name: &str) -> Result<Tenant> {
        check_name(name)?;
        self.find(id).await?;
        let row = self.registered(id, name);
        self.0
            .rows
            .write(move |system| {
                if !insert(system, &row)? {
                    system
                        .prepare_cached("UPDATE tenants SET name = ?2 WHERE id = ?1")?
                        .execute((row.id.to_string(), &row.name))?;
                }
                Ok(())
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
        }
    }
}

fn unregistered(id: TenantId) -> Tenant {
    Tenant {
        id,
        name: String::new(),
        state: TenantState::Active,
        created_at_ms: None,
        state_at_ms: None,
    }
}

pub(super) fn missing(id: TenantId) -> Error {
    Error::NotFound(format!("there is no tenant {id}: see `jammi tenants list`"))
}

pub(super) fn erasing(id: TenantId) -> Error {
    Error::FailedPrecondition(format!(
        "tenant {id} is being erased: end that with `jammi tenants erase` first"
    ))
}

/// Refuses a name that lists and lines of a terminal cannot show.
pub(super) fn check_name(name: &str) -> Result<()> {
    let is_shown = |character: char| !character.is_control();
    match name.len() <= NAME_BYTES_MAX && name.chars().all(is_shown) {
        true => Ok(()),
        false => Err(Error::InvalidArgument(format!(
            "the name of a tenant has up to {NAME_BYTES_MAX} bytes and no control characters: \
             choose another"
        ))),
    }
}

/// Records a tenant; `false` where there is one of its id.
pub(super) fn insert(system: &Transaction<'_>, tenant: &Tenant) -> rusqlite::Result<bool> {
    let inserted = system
        .prepare_cached(&format!(
            "INSERT INTO tenants ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING"
        ))?
        .execute((
            tenant.id.to_string(),
            &tenant.name,
            tenant.state.as_str(),
            tenant.created_at_ms,
            tenant.state_at_ms,
        ))?;
    Ok(inserted > 0)
}

/// The state of a registered tenant.
pub(super) fn state_of(
    system: &Transaction<'_>,
    id: TenantId,
) -> rusqlite::Result<Option<TenantState>> {
    let state: Option<String> = system
        .prepare_cached("SELECT state FROM tenants WHERE id = ?1")?
        .query_row([id.to_string()], |row| row.get(0))
        .optional()?;
    Ok(state.as_deref().and_then(TenantState::parse))
}

const COLUMNS: &str = "id, name, state, created_at_ms, state_at_ms";

pub(super) struct StoredTenant {
    id: String,
    name: String,
    state: String,
    created_at_ms: i64,
    state_at_ms: i64,
}

impl Stored for Row {
    const TABLE: &'static str = "tenants";
    const NAME: &'static str = "id";
    const COLUMNS: &'static str = COLUMNS;
    type Raw = StoredTenant;

    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredTenant> {
        Ok(StoredTenant {
            id: row.get(0)?,
            name: row.get(1)?,
            state: row.get(2)?,
            created_at_ms: row.get(3)?,
            state_at_ms: row.get(4)?,
        })
    }

    fn parse(stored: StoredTenant) -> Result<Row> {
        let (Ok(id), Some(state)) = (stored.id.parse(), TenantState::parse(&stored.state)) else {
            return Err(Error::DataLoss(format!(
                "what is registered of tenant {:?} is damaged: restore system.db",
                stored.id
            )));
        };
        Ok(Row(Tenant {
            id,
            name: stored.name,
            state,
            created_at_ms: Some(stored.created_at_ms),
            state_at_ms: Some(stored.state_at_ms),
        }))
    }
}
