//! Credentials, and what else `system.db` keeps by name, as they are now.
//!
//! The names are in memory, and read again when one has changed, in whichever process:
//! a credential that there is not is refused without a look at the disk, however many
//! of them are tried.
//!
//! Invariant: what any process has committed is seen by the next call.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::OptionalExtension;

use crate::backend::{Backend, BackendError, LaneVersion};
use crate::error::{Error, Result};
use crate::tenant::{ActsFor, ROLES};

/// Rows that are kept in memory; others are read when they are asked for.
const ROWS_MAX: usize = 10_000;
/// What `acts_for` holds of one that acts for any tenant.
const ALL_TENANTS: &str = "*";

/// What a table holds.
pub(crate) trait Stored: Sized + Send + Sync + 'static {
    /// The table, and what its changes are counted as.
    const TABLE: &'static str;
    /// The column of the name.
    const NAME: &'static str;
    /// All that is read, in this order.
    const COLUMNS: &'static str;
    /// A row as it is stored.
    type Raw: Send + 'static;

    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self::Raw>;

    /// # Errors
    /// `DataLoss` for a row that nothing of ours has written.
    fn parse(raw: Self::Raw) -> Result<Self>;
}

/// The rows of a table. Clones share what they know.
pub(crate) struct Registry<R> {
    backend: Backend,
    known: Arc<Mutex<Known<R>>>,
    /// Held by whoever looks what has changed.
    looking: Arc<tokio::sync::Mutex<()>>,
}

struct Known<R> {
    version: Option<LaneVersion>,
    changes: Option<i64>,
    names: HashSet<String>,
    rows: HashMap<String, Arc<R>>,
}

impl<R> Clone for Registry<R> {
    fn clone(&self) -> Self {
        Registry {
            backend: self.backend.clone(),
            known: Arc::clone(&self.known),
            looking: Arc::clone(&self.looking),
        }
    }
}

impl<R: Stored> Registry<R> {
    pub fn new(backend: Backend) -> Self {
        Registry {
            backend,
            known: Arc::new(Mutex::new(Known {
                version: None,
                changes: None,
                names: HashSet::new(),
                rows: HashMap::new(),
            })),
            looking: Arc::default(),
        }
    }

    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Runs `f`, the only way in which rows are written, and commits it together with
    /// the count of changes that everybody looks at.
    pub async fn write<T: Send + 'static>(
        &self,
        f: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T> {
        let written = self.backend.system_write(move |transaction| {
            let value = f(transaction)?;
            transaction
                .prepare_cached(
                    "UPDATE credential_changes SET changes = changes + 1 WHERE kind = ?1",
                )?
                .execute([R::TABLE])?;
            Ok(value)
        });
        Ok(written.await?)
    }

    /// The row of a name, if there is one.
    pub async fn find(&self, name: &str) -> Result<Option<Arc<R>>> {
        let version = self.look().await?;
        {
            let known = self.known.lock();
            match known.rows.get(name) {
                _ if known.version != Some(version) => {}
                Some(row) => return Ok(Some(Arc::clone(row))),
                None if !known.names.contains(name) => return Ok(None),
                None => {}
            }
        }
        // As new as the version, or newer.
        let row = self.read(name).await?;
        let mut known = self.known.lock();
        if known.version == Some(version)
            && let Some(row) = &row
        {
            if known.rows.len() >= ROWS_MAX {
                known.rows.clear();
            }
            known.rows.insert(name.to_owned(), Arc::clone(row));
        }
        Ok(row)
    }

    /// Every row, in the order in which they were made.
    pub async fn all(&self) -> Result<Vec<R>> {
        let sql = format!("SELECT {} FROM {} ORDER BY rowid", R::COLUMNS, R::TABLE);
        let rows = self
            .backend
            .system_read(move |transaction| {
                let mut select = transaction.prepare_cached(&sql)?;
                let rows = select.query_map([], R::read)?;
                Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
            })
            .await?;
        rows.into_iter().map(R::parse).collect()
    }

    /// A row as it is on the disk.
    pub async fn read(&self, name: &str) -> Result<Option<Arc<R>>> {
        let sql = format!(
            "SELECT {} FROM {} WHERE {} = ?1",
            R::COLUMNS,
            R::TABLE,
            R::NAME
        );
        let name = name.to_owned();
        let stored = self
            .backend
            .system_read(move |transaction| {
                let mut select = transaction.prepare_cached(&sql)?;
                Ok(select.query_row([name], R::read).optional()?)
            })
            .await?;
        stored.map(|raw| R::parse(raw).map(Arc::new)).transpose()
    }

    /// Knows the names of a version that is the current one, or was when this began.
    async fn look(&self) -> Result<LaneVersion> {
        let is_known = |version| self.known.lock().version == Some(version);
        let version = self.backend.system_version()?;
        if is_known(version) {
            return Ok(version);
        }
        let _looking = self.looking.lock().await;
        // The version is older than what is read below, or as old.
        let version = self.backend.system_version()?;
        if is_known(version) {
            return Ok(version);
        }
        let before = self.known.lock().changes;
        let (changes, names) = self
            .backend
            .system_read(move |transaction| {
                let changes: i64 = transaction
                    .prepare_cached("SELECT changes FROM credential_changes WHERE kind = ?1")?
                    .query_row([R::TABLE], |row| row.get(0))?;
                if before == Some(changes) {
                    return Ok((changes, None));
                }
                let sql = format!("SELECT {} FROM {}", R::NAME, R::TABLE);
                let mut select = transaction.prepare_cached(&sql)?;
                let names = select.query_map([], |row| row.get(0))?;
                Ok((changes, Some(names.collect::<rusqlite::Result<_>>()?)))
            })
            .await?;
        let mut known = self.known.lock();
        known.version = Some(version);
        known.changes = Some(changes);
        if let Some(names) = names {
            known.names = names;
            known.rows.clear();
        }
        Ok(version)
    }
}

/// The tenants and roles of a credential as they are stored.
pub(super) fn rights_text<'a>(
    acts_for: &ActsFor,
    roles: impl IntoIterator<Item = &'a String>,
) -> (String, String) {
    let acts_for = match acts_for {
        ActsFor::All => ALL_TENANTS.to_owned(),
        ActsFor::Only(tenants) => {
            let tenants: Vec<String> = tenants.iter().map(ToString::to_string).collect();
            tenants.join(" ")
        }
    };
    let roles: Vec<&str> = roles.into_iter().map(String::as_str).collect();
    (acts_for, roles.join(" "))
}

/// The tenants of a credential from how they are stored; none for a text that is
/// damaged.
pub(super) fn acts_for_of(text: &str) -> Option<ActsFor> {
    match text {
        ALL_TENANTS => Some(ActsFor::All),
        list => list
            .split_ascii_whitespace()
            .map(|tenant| tenant.parse().ok())
            .collect::<Option<_>>()
            .map(ActsFor::Only),
    }
}

/// Refuses rights that are none, of `what`, such as a key.
pub(super) fn check_rights<'a>(
    what: &str,
    acts_for: &ActsFor,
    roles: impl IntoIterator<Item = &'a String>,
) -> Result<()> {
    let mut roles = roles.into_iter().peekable();
    if let ActsFor::Only(tenants) = acts_for
        && tenants.is_empty()
        && roles.peek().is_none()
    {
        return Err(Error::InvalidArgument(format!(
            "a {what} that acts for no tenant and has no role may do nothing: name a tenant or a \
             role"
        )));
    }
    match roles.find(|role| !ROLES.contains(&role.as_str())) {
        None => Ok(()),
        Some(role) => Err(Error::InvalidArgument(format!(
            "there is no role {role:?}: choose of {}",
            ROLES.join(", ")
        ))),
    }
}
