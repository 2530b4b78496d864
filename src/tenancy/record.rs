//! What is registered of a tenant, and how the system database stores it.

use rusqlite::{OptionalExtension, Transaction};

use crate::auth::registry::Stored;
use crate::error::{Error, Result};
use crate::tenant::TenantId;

/// The longest name of a tenant.
pub const NAME_BYTES_MAX: usize = 256;

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
    /// The tenant above.
    pub parent: Option<TenantId>,
    /// Whether those below read its rows.
    pub shares: bool,
}

/// What is to be another of a tenant. What is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantChange {
    /// What the operator calls it.
    pub name: Option<String>,
    /// The tenant above, or that there is none.
    pub parent: Option<Option<TenantId>>,
    /// Whether those below read its rows.
    pub shares: Option<bool>,
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

/// A registered tenant, as it is kept in memory.
pub(super) struct Row(pub Tenant);

pub(super) fn unregistered(id: TenantId) -> Tenant {
    Tenant {
        id,
        name: String::new(),
        state: TenantState::Active,
        created_at_ms: None,
        state_at_ms: None,
        parent: None,
        shares: false,
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
            "INSERT INTO tenants ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, NULL, 0) ON CONFLICT DO NOTHING"
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

const COLUMNS: &str = "id, name, state, created_at_ms, state_at_ms, parent, shares";

pub(super) struct StoredTenant {
    id: String,
    name: String,
    state: String,
    created_at_ms: i64,
    state_at_ms: i64,
    parent: Option<String>,
    shares: bool,
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
            parent: row.get(5)?,
            shares: row.get(6)?,
        })
    }

    fn parse(stored: StoredTenant) -> Result<Row> {
        let parent = stored.parent.map(|parent| parent.parse()).transpose();
        let state = TenantState::parse(&stored.state);
        let (Ok(id), Some(state), Ok(parent)) = (stored.id.parse(), state, parent) else {
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
            parent,
            shares: stored.shares,
        }))
    }
}
