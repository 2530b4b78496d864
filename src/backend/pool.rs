//! The databases that are open, and which of them to close for another.
//!
//! Invariants: at most `open_max` tenants' lanes are open, a database in use is
//! never closed, and one file is opened once at a time. The global lane and the
//! system database are always open and not counted. No SQL runs and no file is
//! opened or closed under the map's lock.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{Notify, OnceCell, OwnedSemaphorePermit};
use tokio::time::Instant;

use super::database::{Database, FileIdentity, Opening};
use super::error::Context;
use super::incarnation::Incarnation;
use super::line::Turn;
use super::schema::{Schema, Schemas};
use super::{BackendError, DatabaseName, LaneVersion, blocking, erasure, read_on};
use crate::config::LanesConfig;
use crate::tenant::Lane;

/// The directory of tenants' lanes below the artifact directory.
pub(super) const TENANTS_DIR: &str = "tenants";

/// The databases of one artifact directory.
#[derive(Debug)]
pub(super) struct Pool {
    artifact_dir: PathBuf,
    config: LanesConfig,
    schemas: Schemas,
    slots: Mutex<HashMap<DatabaseName, Arc<Slot>>>,
    /// Counts leases, to tell which slot was used last.
    uses: AtomicU64,
    /// Counts what a version may be relative to, so that none comes twice.
    generations: AtomicU64,
    released: Notify,
    /// Last, so that others see it end after the databases are closed.
    incarnation: Arc<Incarnation>,
}

/// The place of a database, filled by the first who needs it.
#[derive(Debug, Default)]
struct Slot {
    database: OnceCell<Database>,
    used: AtomicU64,
}

/// Keeps a database open.
#[derive(Debug)]
pub(super) struct Lease {
    /// Taken in `drop` alone.
    slot: Option<Arc<Slot>>,
    pool: Arc<Pool>,
}

impl Lease {
    fn new(pool: &Arc<Pool>, slot: &Arc<Slot>) -> Self {
        slot.used
            .store(pool.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Lease {
            slot: Some(Arc::clone(slot)),
            pool: Arc::clone(pool),
        }
    }

    fn slot(&self) -> &Arc<Slot> {
        self.slot
            .as_ref()
            .expect("the slot is taken only when the lease is dropped")
    }

    /// The database.
    pub fn database(&self) -> &Database {
        self.slot()
            .database
            .get()
            .expect("leases of unfilled slots do not leave this module")
    }

    /// Whether nobody else has the database.
    pub fn is_only(&self) -> bool {
        const MAP_AND_THIS: usize = 2;
        Arc::strong_count(self.slot()) <= MAP_AND_THIS
    }

    /// Runs `f` in a reading transaction. The permit is the database's. Blocks.
    pub fn read<T>(
        &self,
        _permit: &OwnedSemaphorePermit,
        f: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let database = self.database();
        database.read(self.reader()?, self.schema(), f)
    }

    /// A connection to write with: the turn's, or a new one. Blocks.
    pub fn writer(&self, turn: &mut Turn) -> Result<Connection, BackendError> {
        match turn.writer.take() {
            Some(connection) => Ok(connection),
            None => self.pool.with_files(|| self.database().connect()),
        }
    }

    /// A connection to read with. Blocks.
    pub fn reader(&self) -> Result<Connection, BackendError> {
        self.pool.with_files(|| self.database().reader())
    }

    /// Refuses a file that a newer version of Jammi has written meanwhile.
    pub fn check_version(&self, connection: &Connection) -> Result<(), BackendError> {
        self.schema()
            .check_version(connection, self.database().context())
    }

    fn schema(&self) -> &Schema {
        self.pool.schemas.of(self.database().context().database)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // First the slot, so that whoever is woken finds it idle.
        self.slot = None;
        self.pool.released.notify_one();
    }
}

/// A lease of a slot, which may be unfilled, and the database that has to be
/// closed first.
struct Entrance {
    lease: Lease,
    victim: Option<Arc<Slot>>,
}

impl Pool {
    pub fn new(artifact_dir: PathBuf, config: LanesConfig, incarnation: Arc<Incarnation>) -> Self {
        Pool {
            artifact_dir,
            config,
            schemas: Schemas::embedded(),
            slots: Mutex::default(),
            uses: AtomicU64::new(0),
            // 0 is the generation of absence.
            generations: AtomicU64::new(1),
            released: Notify::new(),
            incarnation,
        }
    }

    pub fn artifact_dir(&self) -> &Path {
        &self.artifact_dir
    }

    pub fn config(&self) -> &LanesConfig {
        &self.config
    }

    /// How many tenants' lanes are open at most: one is what any work needs.
    pub fn open_max(&self) -> usize {
        self.config.open_max.max(1)
    }

    /// The database, opened if need be; `None` when it has no file and `create`
    /// does not ask for one.
    pub async fn lease(
        self: &Arc<Self>,
        name: DatabaseName,
        create: bool,
    ) -> Result<Option<Lease>, BackendError> {
        let context = self.context(name);
        let path = self.path(name);
        let deadline = Instant::now() + Duration::from_millis(self.config.busy_timeout_ms);
        // Once: to look is to let go of a lease, which wakes whoever waits for one.
        let mut may_make = false;
        loop {
            if FileIdentity::of(&path, context)?.is_none() {
                self.forget(name);
                if !create {
                    return Ok(None);
                }
                if !may_make {
                    self.check_may_make(name).await?;
                    may_make = true;
                }
            }
            let released = self.released.notified();
            let Some(entrance) = self.enter(name) else {
                if tokio::time::timeout_at(deadline, released).await.is_err() {
                    return Err(BackendError::LanesExhausted {
                        open_max: self.open_max(),
                    });
                }
                continue;
            };
            let lease = match self.fill(entrance, name, create).await {
                Ok(lease) => lease,
                // Erased since it was looked for.
                Err(_) if !create && FileIdentity::of(&path, context)?.is_none() => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            if lease.database().is_at_its_path()? {
                return Ok(Some(lease));
            }
            self.discard(name, lease.slot());
            if Instant::now() >= deadline {
                return Err(BackendError::Replaced { database: name });
            }
        }
    }

    /// The database, opened if need be, and made first if need be.
    pub async fn lease_or_create(
        self: &Arc<Self>,
        database: DatabaseName,
    ) -> Result<Lease, BackendError> {
        self.lease(database, true)
            .await?
            .ok_or(BackendError::Replaced { database })
    }

    /// Refuses to make the database of a tenant who is being erased.
    async fn check_may_make(self: &Arc<Self>, name: DatabaseName) -> Result<(), BackendError> {
        let DatabaseName::Lane(Lane::Tenant(tenant)) = name else {
            return Ok(());
        };
        let system = Box::pin(self.lease_or_create(DatabaseName::System)).await?;
        read_on(system, move |transaction| {
            erasure::check(transaction, tenant)
        })
        .await
    }

    /// The version of the content of a database. Looks at the file, but neither
    /// opens it nor waits.
    pub fn version(self: &Arc<Self>, name: DatabaseName) -> Result<LaneVersion, BackendError> {
        let slot = self.slots.lock().get(&name).cloned();
        // The lease tells those who wait for an idle slot that this one is.
        let lease = slot.as_ref().map(|slot| Lease::new(self, slot));
        drop(slot);
        let open = lease.as_ref().and_then(|lease| {
            lease
                .slot()
                .database
                .get()
                .map(|database| (lease, database))
        });
        if let Some((lease, database)) = open {
            if database.is_at_its_path()? {
                return self.version_of(database);
            }
            self.discard(name, lease.slot());
        }
        match FileIdentity::of(&self.path(name), self.context(name))? {
            None => Ok(LaneVersion::ABSENT),
            Some(_) => Ok(self.unknown_version()),
        }
    }

    /// The version of what an open database defines. Does not wait.
    pub fn version_of(&self, database: &Database) -> Result<LaneVersion, BackendError> {
        let version = database.version(self.incarnation.alone())?;
        Ok(version.unwrap_or_else(|| self.unknown_version()))
    }

    /// A version that equals no other.
    fn unknown_version(&self) -> LaneVersion {
        LaneVersion {
            generation: self.generations.fetch_add(1, Ordering::Relaxed),
            data_version: 0,
        }
    }

    /// How many tenants' lanes have a slot.
    #[cfg(test)]
    pub fn tenants_open(&self) -> usize {
        self.slots
            .lock()
            .keys()
            .filter(|name| is_counted(**name))
            .count()
    }

    /// How many wait to write a database that is open.
    #[cfg(test)]
    pub fn waiting(&self, name: DatabaseName) -> usize {
        let slots = self.slots.lock();
        let database = slots.get(&name).and_then(|slot| slot.database.get());
        database.map_or(0, |database| database.line().waiting())
    }

    pub fn path(&self, name: DatabaseName) -> PathBuf {
        self.artifact_dir.join(name.file())
    }

    pub fn context(&self, database: DatabaseName) -> Context {
        Context {
            database,
            busy_timeout_ms: self.config.busy_timeout_ms,
        }
    }

    pub fn schema(&self, name: DatabaseName) -> &Schema {
        self.schemas.of(name)
    }

    /// The slot of a database, made if need be; `None` when every slot is in
    /// use.
    fn enter(self: &Arc<Self>, name: DatabaseName) -> Option<Entrance> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(&name) {
            return Some(Entrance {
                lease: Lease::new(self, slot),
                victim: None,
            });
        }
        let mut victim = None;
        // The two that are not counted are in the map too.
        let counted = slots.keys().filter(|name| is_counted(**name)).count();
        if is_counted(name) && counted >= self.open_max() {
            victim = Some(take_idle(&mut slots)?);
        }
        let slot = slots.entry(name).or_default();
        Some(Entrance {
            lease: Lease::new(self, slot),
            victim,
        })
    }

    /// Opens the database of a slot, unless somebody did or does.
    async fn fill(
        self: &Arc<Self>,
        entrance: Entrance,
        name: DatabaseName,
        create: bool,
    ) -> Result<Lease, BackendError> {
        let Entrance { lease, victim } = entrance;
        let pool = Arc::clone(self);
        let opened = lease
            .slot()
            .database
            .get_or_try_init(|| {
                blocking(move || {
                    drop(victim);
                    let opening = Opening {
                        path: &pool.path(name),
                        schema: pool.schemas.of(name),
                        context: pool.context(name),
                        config: pool.config,
                        generation: pool.generations.fetch_add(1, Ordering::Relaxed),
                        create,
                    };
                    pool.with_files(|| Database::open(opening))
                })
            })
            .await
            .map(|_database| ());
        match opened {
            Ok(()) => Ok(lease),
            Err(error) => {
                self.discard_unfilled(name, lease.slot());
                Err(error)
            }
        }
    }

    /// Opens a file; when the process may open no more, closes lanes for it that
    /// nobody uses. Blocks.
    fn with_files<T>(
        &self,
        mut open: impl FnMut() -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        loop {
            let error = match open() {
                Err(error @ BackendError::FilesExhausted { .. }) => error,
                result => return result,
            };
            let idle = take_idle(&mut self.slots.lock());
            match idle {
                Some(idle) => drop(idle),
                None => return Err(error),
            }
        }
    }

    /// Takes a database out of the map because its path leads elsewhere now; it
    /// closes with its last lease.
    fn discard(&self, name: DatabaseName, slot: &Arc<Slot>) {
        let mut slots = self.slots.lock();
        if slots
            .get(&name)
            .is_some_and(|found| Arc::ptr_eq(found, slot))
        {
            slots.remove(&name);
        }
    }

    /// Takes a slot out of the map that could not be filled, unless others are
    /// still trying.
    fn discard_unfilled(&self, name: DatabaseName, slot: &Arc<Slot>) {
        let mut slots = self.slots.lock();
        let ours_alone = slots.get(&name).is_some_and(|found| {
            Arc::ptr_eq(found, slot)
                && !found.database.initialized()
                // The map's and the caller's lease.
                && Arc::strong_count(found) == 2
        });
        if ours_alone {
            slots.remove(&name);
        }
    }

    /// Takes a database out of the map that has no file any more.
    pub fn forget(&self, name: DatabaseName) {
        let mut slots = self.slots.lock();
        // One that is being opened may be about to make its file.
        if slots
            .get(&name)
            .is_some_and(|slot| slot.database.initialized())
        {
            slots.remove(&name);
        }
    }
}

/// Takes the lane out of the map that was used longest ago, of those that nobody
/// uses. Slots are leased under the map's lock alone, so one that nobody has
/// now stays idle until it is out.
fn take_idle(slots: &mut HashMap<DatabaseName, Arc<Slot>>) -> Option<Arc<Slot>> {
    let idle = slots
        .iter()
        .filter(|(name, slot)| is_counted(**name) && Arc::strong_count(slot) == 1)
        .min_by_key(|(_, slot)| slot.used.load(Ordering::Relaxed))
        .map(|(name, _)| *name)?;
    slots.remove(&idle)
}

/// Whether the cap on open lanes is about this database.
fn is_counted(name: DatabaseName) -> bool {
    matches!(name, DatabaseName::Lane(Lane::Tenant(_)))
}
