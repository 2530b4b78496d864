//! Lanes as databases: each lane is one SQLite file below the artifact
//! directory, and so is what belongs to the operator.
//!
//! ```text
//! <artifact_dir>/global.db            rows that all tenants share
//! <artifact_dir>/tenants/<uuid>.db    rows of one tenant
//! <artifact_dir>/system.db            the operator's: tenants, bindings, credentials
//! <artifact_dir>/server.lock          held by the server that uses the directory
//! <artifact_dir>/sessions/<uuid>.lock held by a process that uses the directory
//! <artifact_dir>/sessions/entered     changed by each process that comes to use it
//! ```
//!
//! A transaction is on one database. Those who write one lane stand in one line
//! (`line`), single writes and transactions that span statements
//! ([`OpenTransaction`]) alike, and what they wrote is on the disk when it is
//! acknowledged; single writes that wait share a commit (`group`). No lane waits
//! for another, except for a place among the open ones. A lane is backed up and
//! restored while it is in use (`backup`), and ends for good in `erasure`. Several processes may use
//! one directory: SQLite's locks keep their writes apart, and
//! [`Backend::version`] tells each what the others commit.
//!
//! Architecture invariant: nothing here knows what the rows of a lane mean, or
//! who asks for them. Whoever calls [`Backend::read`] and [`Backend::write`]
//! took the lane from a scope.

mod backup;
mod database;
mod erasure;
mod error;
mod group;
mod incarnation;
mod line;
mod open_transaction;
mod places;
mod pool;
mod schema;
mod scratch;
mod server_lock;
mod snapshot;
mod transaction;

#[cfg(test)]
pub(crate) mod tests;

pub use erasure::{LaneFile, hex};
pub use error::{BackendError, Cause, DatabaseName};
pub use open_transaction::OpenTransaction;
pub use scratch::Scratch;
pub use server_lock::ServerLock;
pub use transaction::Transaction;

use std::cell::Cell;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::LanesConfig;
use crate::tenant::{Lane, TenantId};
use incarnation::Incarnation;
use pool::{Lease, Pool};

/// The databases of one artifact directory. Clones share them.
#[derive(Clone, Debug)]
pub struct Backend {
    pool: Arc<Pool>,
    incarnation: Arc<Incarnation>,
}

/// What a lane defines, as far as two of the same lane can be compared: equal
/// versions mean that nothing was committed between them which
/// [redefines](Transaction::redefines) something. A version never comes back, also
/// when the lane is closed and opened again or its file is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LaneVersion {
    /// Which opening of which file `data_version` is relative to.
    generation: u64,
    /// SQLite's count of other connections' commits.
    data_version: i64,
}

impl LaneVersion {
    /// The version of a lane that has no database.
    pub const ABSENT: LaneVersion = LaneVersion {
        generation: 0,
        data_version: 0,
    };
}

impl Backend {
    /// Opens the databases below `artifact_dir`, which is made if need be, and
    /// brings those that belong to no tenant to the newest schema.
    pub async fn open(artifact_dir: &Path, config: &LanesConfig) -> Result<Self, BackendError> {
        let given = artifact_dir.to_path_buf();
        let (artifact_dir, incarnation) = blocking(move || {
            let artifact_dir = make_directories(&given)?;
            let incarnation = Incarnation::enter(&artifact_dir)?;
            Ok((artifact_dir, Arc::new(incarnation)))
        })
        .await?;
        let pool = Pool::new(artifact_dir, *config, Arc::clone(&incarnation));
        let backend = Backend {
            pool: Arc::new(pool),
            incarnation,
        };
        for database in [DatabaseName::System, DatabaseName::Lane(Lane::Global)] {
            backend.pool.lease_or_create(database).await?;
        }
        Ok(backend)
    }

    /// The directory, as an absolute path.
    pub fn artifact_dir(&self) -> &Path {
        self.pool.artifact_dir()
    }

    /// How many tenants' lanes are open at most: what a cache with an entry for
    /// each lane is sized by.
    pub fn lanes_open_max(&self) -> usize {
        self.pool.open_max()
    }

    /// Claims the directory for a server, which no second one can until this
    /// is dropped or the process ends.
    pub fn lock_for_server(&self) -> Result<ServerLock, BackendError> {
        ServerLock::take(self.artifact_dir())
    }

    /// Runs `f` on one state of the lane. `None`: the lane has no database yet,
    /// and gets none by this.
    pub async fn read<T: Send + 'static>(
        &self,
        lane: Lane,
        f: impl FnOnce(&Transaction<'_>) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<Option<T>, BackendError> {
        let read = self.read_versioned(lane, f).await?;
        Ok(read.map(|(_version, value)| value))
    }

    /// As [`Backend::read`], with a version of the lane. The state is the one
    /// of that version or a later one, never an earlier one.
    pub async fn read_versioned<T: Send + 'static>(
        &self,
        lane: Lane,
        f: impl FnOnce(&Transaction<'_>) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<Option<(LaneVersion, T)>, BackendError> {
        let Some(lease) = self.pool.lease(DatabaseName::Lane(lane), false).await? else {
            return Ok(None);
        };
        let version = self.pool.version_of(lease.database())?;
        let value = read_on(lease, move |inner| f(&Transaction::new(inner, lane))).await?;
        Ok(Some((version, value)))
    }

    /// Runs `f` on the lane, alone among the lane's writers, and commits what
    /// it did if it returns `Ok`. Makes the lane's database if there is none.
    /// What is committed survives a crash of the process and of the machine.
    ///
    /// Writes are run in the order in which they come. Those that wait for one
    /// lane share a commit, but not their failures: one that returns an error or
    /// panics is undone alone. So a write that takes long is better off in
    /// [`Backend::begin`], where it holds up the acknowledgement of no other.
    ///
    /// Dropping the future does not stop a write that has begun.
    pub async fn write<T: Send + 'static>(
        &self,
        lane: Lane,
        f: impl FnOnce(&Transaction<'_>) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, BackendError> {
        let lease = self.pool.lease_or_create(DatabaseName::Lane(lane)).await?;
        let line = Arc::clone(lease.database().line());
        let write =
            move |inner: &rusqlite::Transaction<'_>| f(&Transaction::to_write(inner, lane, &line));
        group::write(lease, write).await
    }

    /// The tenants whose lanes have a database.
    pub async fn tenants(&self) -> Result<Vec<TenantId>, BackendError> {
        let path = self.artifact_dir().join(pool::TENANTS_DIR);
        blocking(move || {
            let unusable = |source| BackendError::ArtifactDir {
                path: path.clone(),
                source,
            };
            let mut tenants = Vec::new();
            for entry in fs::read_dir(&path).map_err(unusable)? {
                let name = entry.map_err(unusable)?.file_name();
                // Beside them are their logs.
                let tenant = name.to_str().and_then(|name| name.strip_suffix(".db"));
                tenants.extend(tenant.and_then(|text| text.parse::<TenantId>().ok()));
            }
            Ok(tenants)
        })
        .await
    }

    /// Brings what the lane's log holds to the lane's file, and empties the log,
    /// so that nothing that was deleted is in either. `false`: somebody reads an
    /// older state, or another process is in the way.
    pub async fn empty_log(&self, lane: Lane) -> Result<bool, BackendError> {
        let Some(lease) = self.pool.lease(DatabaseName::Lane(lane), false).await? else {
            return Ok(true);
        };
        let context = lease.database().context();
        let mut turn = lease.database().line().turn(context).await?;
        blocking(move || {
            let connection = lease.writer(&mut turn)?;
            database::empty_log(turn.writer.insert(connection), context)
        })
        .await
    }

    /// A transaction on the lane that spans statements. Nothing is opened or
    /// locked before it is used.
    pub fn begin(&self, lane: Lane) -> OpenTransaction {
        OpenTransaction::new(Arc::clone(&self.pool), lane, lane)
    }

    /// As [`Backend::begin`], for somebody who writes `holder`: how many of these
    /// one holder has at a time on a lane of others is limited.
    pub fn begin_for(&self, holder: Lane, lane: Lane) -> OpenTransaction {
        OpenTransaction::new(Arc::clone(&self.pool), lane, holder)
    }

    /// Runs `f` on one state of the system database.
    pub async fn system_read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, BackendError> {
        read_on(self.pool.lease_or_create(DatabaseName::System).await?, f).await
    }

    /// Runs `f` on the system database and commits what it did if it returns
    /// `Ok`, as durably as [`Backend::write`].
    pub async fn system_write<T: Send + 'static>(
        &self,
        f: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, BackendError> {
        group::write(self.pool.lease_or_create(DatabaseName::System).await?, f).await
    }

    /// The version of what a lane defines, which differs from every earlier one
    /// once any process has committed something to the lane that
    /// [redefines](Transaction::redefines) it; other commits may change it too.
    /// Takes a few microseconds and waits for nothing. A lane with a database that is not open has a version
    /// that equals no other; [`Backend::read_versioned`] opens it.
    pub fn version(&self, lane: Lane) -> Result<LaneVersion, BackendError> {
        self.pool.version(DatabaseName::Lane(lane))
    }

    /// As [`Backend::version`], of the system database, of which every commit
    /// redefines something.
    pub fn system_version(&self) -> Result<LaneVersion, BackendError> {
        self.pool.version(DatabaseName::System)
    }
}

async fn read_on<T: Send + 'static>(
    lease: Lease,
    f: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T, BackendError> + Send + 'static,
) -> Result<T, BackendError> {
    let permit = lease.database().read_permit().await?;
    reading(move || lease.read(&permit, f)).await
}

/// Runs `f` where it may block. A panic of `f` goes on in the caller.
async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, BackendError> + Send + 'static,
) -> Result<T, BackendError> {
    match tokio::task::spawn_blocking(f).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => Err(BackendError::Stopping),
        },
    }
}

thread_local! {
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };
}

/// Says that this thread may wait for a disk: what is asked of the backend on it
/// and only reads is done on it, without the way to another thread and back.
pub fn let_thread_block() {
    MAY_BLOCK.set(true);
}

/// Runs `f` on a thread that may wait for a disk as long as `f` runs, as one may
/// after [`let_thread_block`].
pub fn while_thread_blocks<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            MAY_BLOCK.set(self.0);
        }
    }
    let _restore = Restore(MAY_BLOCK.replace(true));
    f()
}

pub(crate) fn may_block() -> bool {
    MAY_BLOCK.get()
}

/// As [`blocking`], of a short read: on this thread if it may block.
async fn reading<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, BackendError> + Send + 'static,
) -> Result<T, BackendError> {
    match may_block() {
        true => f(),
        false => blocking(f).await,
    }
}

/// Makes the directories that are missing, for their owner alone, and their
/// names durable.
fn make_directories(artifact_dir: &Path) -> Result<PathBuf, BackendError> {
    let unusable = |path: &Path, source: io::Error| BackendError::ArtifactDir {
        path: path.to_path_buf(),
        source,
    };
    let make = |path: &Path| -> io::Result<()> {
        let existed = path.is_dir();
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        match path.canonicalize()?.parent() {
            Some(parent) if !existed => File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    };
    make(artifact_dir).map_err(|source| unusable(artifact_dir, source))?;
    let artifact_dir =
        fs::canonicalize(artifact_dir).map_err(|source| unusable(artifact_dir, source))?;
    let tenants = artifact_dir.join(pool::TENANTS_DIR);
    make(&tenants).map_err(|source| unusable(&tenants, source))?;
    Ok(artifact_dir)
}
