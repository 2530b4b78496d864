//! The end of a tenant's database: its files, with what tells later what they held.
//!
//! The files are removed while nobody writes them, by SQLite's lock as others see it,
//! so that whoever commits to them meanwhile, in any process, finds that they have lost
//! their path and is refused. As long as an erasure is noted as not done, a lane gets
//! no database: what still runs for the tenant makes none after the old one is gone.
//!
//! Invariant: a file is removed after what it held is on record.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::OptionalExtension;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::backup::{sync_directory, with_ending};
use super::pool::Lease;
use super::{Backend, BackendError, DatabaseName, blocking, database};
use crate::tenant::{Lane, TenantId};

/// What SQLite keeps beside a database, after the database.
const ENDINGS: [&str; 3] = ["", "-wal", "-shm"];
/// How much of a file is read at a time.
const READ_BYTES: usize = 1 << 20;
/// How often it is looked whether others have let go of a lane.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// A file of a lane, as it was when it was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneFile {
    /// Its path below the artifact directory.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// Of its content, in hexadecimal digits.
    pub sha256: String,
}

impl Backend {
    /// Removes the database of a tenant, of which an erasure is noted, with its log.
    /// `record` is given what is removed, and nothing is where it fails. A database
    /// that is not there is no error: there is nothing to record.
    ///
    /// Waits for those in this process who use the lane, who have to be kept from
    /// coming meanwhile, for `lanes.busy_timeout_ms`.
    ///
    /// # Errors
    /// [`BackendError::Busy`]: the lane is used still.
    pub async fn erase<F>(
        &self,
        tenant: TenantId,
        record: impl FnOnce(Vec<LaneFile>) -> F,
    ) -> Result<(), BackendError>
    where
        F: Future<Output = Result<(), BackendError>>,
    {
        let database = DatabaseName::Lane(Lane::Tenant(tenant));
        let (path, context) = (self.pool.path(database), self.pool.context(database));
        let unusable = move |error| context.io(error);
        let lease = match self.pool.lease(database, false).await {
            Ok(lease) => lease,
            // What is no database has no writers.
            Err(BackendError::Corrupt { .. } | BackendError::NewerVersion { .. }) => None,
            Err(error) => return Err(error),
        };
        let held = match lease {
            Some(lease) => Some(self.hold(lease).await?),
            None => None,
        };
        let (files, directory) = (path.clone(), self.artifact_dir().to_path_buf());
        let found = blocking(move || look(&files, &directory).map_err(unusable)).await?;
        let (found, open): (Vec<LaneFile>, Vec<File>) = found.into_iter().unzip();
        if !found.is_empty() {
            record(found).await?;
        }
        blocking(move || {
            remove(&path).map_err(unusable)?;
            // To close one gives up the locks that SQLite has on it in this process.
            drop(open);
            drop(held);
            Ok(())
        })
        .await?;
        self.pool.forget(database);
        Ok(())
    }

    /// The length of the database of a tenant with its log: 0 where there is none.
    pub async fn lane_bytes(&self, tenant: TenantId) -> Result<u64, BackendError> {
        let database = DatabaseName::Lane(Lane::Tenant(tenant));
        let (path, context) = (self.pool.path(database), self.pool.context(database));
        blocking(move || {
            let mut bytes = 0;
            for ending in &ENDINGS[..2] {
                bytes += match fs::metadata(with_ending(&path, ending)) {
                    Ok(metadata) => metadata.len(),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                    Err(error) => return Err(context.io(error)),
                };
            }
            Ok(bytes)
        })
        .await
    }

    /// Waits until nobody else in this process has the lane, and keeps others from
    /// writing it.
    async fn hold(&self, lease: Lease) -> Result<Held, BackendError> {
        let context = lease.database().context();
        let deadline = Instant::now() + Duration::from_millis(context.busy_timeout_ms);
        while !lease.is_only() {
            if Instant::now() >= deadline {
                return Err(context.busy());
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        let mut turn = lease.database().line().turn(context).await?;
        blocking(move || {
            let connection = lease.writer(&mut turn)?;
            // What is in the log comes to the file, unless another process reads it.
            database::empty_log(&connection, context)?;
            connection
                .execute_batch("BEGIN IMMEDIATE")
                .map_err(|error| context.statement(error))?;
            // It closes with the turn, which ends its transaction.
            turn.writer = Some(connection);
            Ok(Held {
                _turn: turn,
                _lease: lease,
            })
        })
        .await
    }
}

/// A lane that nobody else can write.
struct Held {
    _turn: super::line::Turn,
    _lease: Lease,
}

/// Refuses to make the database of a tenant who is being erased.
pub(super) fn check(
    system: &rusqlite::Transaction<'_>,
    tenant: TenantId,
) -> Result<(), BackendError> {
    let going_on = system
        .prepare_cached("SELECT 1 FROM erasures WHERE tenant_id = ?1 AND ended_at_ms IS NULL")?
        .query_row([tenant.to_string()], |_row| Ok(()))
        .optional()?;
    match going_on {
        None => Ok(()),
        Some(()) => Err(BackendError::Erasing {
            database: DatabaseName::Lane(Lane::Tenant(tenant)),
        }),
    }
}

/// The files that there are, which stay open.
fn look(database: &Path, directory: &Path) -> io::Result<Vec<(LaneFile, File)>> {
    let mut found = Vec::new();
    for path in ENDINGS.map(|ending| with_ending(database, ending)) {
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        found.push((measure(&mut file, &path, directory)?, file));
    }
    Ok(found)
}

fn measure(file: &mut File, path: &Path, directory: &Path) -> io::Result<LaneFile> {
    let (mut digest, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        digest.update(&buffer[..read]);
        bytes += read as u64;
    }
    let relative: PathBuf = path.strip_prefix(directory).unwrap_or(path).into();
    Ok(LaneFile {
        file: relative.to_string_lossy().into_owned(),
        bytes,
        sha256: hex(&digest.finalize()),
    })
}

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Removes the files, the database first: what it has beside it means nothing without
/// it, and it would be another without that.
fn remove(database: &Path) -> io::Result<()> {
    for path in ENDINGS.map(|ending| with_ending(database, ending)) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    sync_directory(database)
}
