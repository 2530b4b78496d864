//! Which run of a process this is, as others who use the directory can tell.
//!
//! A run that leaves something behind holds a lock on a file of its own for as
//! long as it lives; the operating system frees it with the process, however that
//! ends. A run whose file is not locked is over.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use super::{Backend, BackendError, blocking};
use crate::tenant::{Lane, TenantId};

const DIRECTORY: &str = "sessions";
const GLOBAL: &str = "global";

impl Backend {
    /// What tells this opening of the directory from every other.
    pub fn incarnation(&self) -> Uuid {
        self.incarnation.id()
    }

    /// Notes that this opening may leave something in `lane`, before it does.
    pub async fn note_leftovers(&self, lane: Lane) -> Result<(), BackendError> {
        let incarnation = Arc::clone(&self.incarnation);
        blocking(move || incarnation.show()).await?;
        let id = text(self.incarnation());
        self.system_write(move |transaction| {
            transaction
                .prepare_cached(
                    "INSERT INTO temporary_lanes (incarnation, lane) VALUES (?1, ?2)
                     ON CONFLICT DO NOTHING",
                )?
                .execute((id, lane_text(lane)))?;
            Ok(())
        })
        .await
    }

    /// Where openings that are over may have left something: of this process and of
    /// others.
    pub async fn leftovers(&self) -> Result<BTreeMap<Uuid, Vec<Lane>>, BackendError> {
        let rows: Vec<(String, String)> = self
            .system_read(|transaction| {
                let mut select =
                    transaction.prepare_cached("SELECT incarnation, lane FROM temporary_lanes")?;
                let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok(rows.collect::<rusqlite::Result<_>>()?)
            })
            .await?;
        let (artifact_dir, own) = (self.artifact_dir().to_path_buf(), self.incarnation());
        blocking(move || {
            let mut over = BTreeMap::<Uuid, Vec<Lane>>::new();
            for (id, lane) in rows {
                // What is not ours to read is nobody's to sweep.
                let (Ok(id), Some(lane)) = (Uuid::try_parse(&id), parse_lane(&lane)) else {
                    continue;
                };
                if over.contains_key(&id) || (id != own && is_over(&artifact_dir, id)?) {
                    over.entry(id).or_default().push(lane);
                }
            }
            Ok(over)
        })
        .await
    }

    /// Forgets an opening that is over and has left nothing.
    pub async fn forget_leftovers(&self, id: Uuid) -> Result<(), BackendError> {
        self.system_write(move |transaction| {
            transaction
                .prepare_cached("DELETE FROM temporary_lanes WHERE incarnation = ?1")?
                .execute([text(id)])?;
            Ok(())
        })
        .await?;
        let artifact_dir = self.artifact_dir().to_path_buf();
        blocking(move || forget(&artifact_dir, id)).await
    }
}

fn text(id: Uuid) -> String {
    id.simple().to_string()
}

fn lane_text(lane: Lane) -> String {
    lane.tenant()
        .map_or_else(|| GLOBAL.to_owned(), |tenant| tenant.to_string())
}

fn parse_lane(text: &str) -> Option<Lane> {
    match text {
        GLOBAL => Some(Lane::Global),
        tenant => TenantId::from_str(tenant).ok().map(Lane::Tenant),
    }
}

/// A run of a process on one artifact directory.
#[derive(Debug)]
pub(super) struct Incarnation {
    id: Uuid,
    artifact_dir: PathBuf,
    /// Held from the first thing that the run may leave behind.
    lock: Mutex<Option<File>>,
}

impl Incarnation {
    pub fn new(artifact_dir: &Path) -> Self {
        Incarnation {
            id: Uuid::new_v4(),
            artifact_dir: artifact_dir.to_path_buf(),
            lock: Mutex::new(None),
        }
    }

    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Shows others that the run is not over. Blocks.
    pub fn show(&self) -> Result<(), BackendError> {
        let mut lock = self.lock.lock();
        if lock.is_some() {
            return Ok(());
        }
        let directory = self.artifact_dir.join(DIRECTORY);
        let path = path(&self.artifact_dir, self.id);
        let make = || -> io::Result<File> {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700).create(&directory)?;
            let file = OpenOptions::new()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(&path)?;
            file.try_lock()?;
            Ok(file)
        };
        *lock = Some(make().map_err(|source| unusable(&path, source))?);
        Ok(())
    }
}

impl Drop for Incarnation {
    fn drop(&mut self) {
        // What is left of the run is told by the system database, not by the file.
        if self.lock.get_mut().take().is_some() {
            let _ = forget(&self.artifact_dir, self.id);
        }
    }
}

/// Whether a run is over that has shown itself. Blocks.
fn is_over(artifact_dir: &Path, id: Uuid) -> Result<bool, BackendError> {
    let path = path(artifact_dir, id);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(unusable(&path, error)),
    };
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(unusable(&path, error)),
    }
}

/// Removes the file of a run that is over. Blocks.
fn forget(artifact_dir: &Path, id: Uuid) -> Result<(), BackendError> {
    let path = path(artifact_dir, id);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unusable(&path, error)),
        _ => Ok(()),
    }
}

fn path(artifact_dir: &Path, id: Uuid) -> PathBuf {
    artifact_dir
        .join(DIRECTORY)
        .join(format!("{}.lock", id.simple()))
}

fn unusable(path: &Path, source: io::Error) -> BackendError {
    BackendError::ArtifactDir {
        path: path.to_path_buf(),
        source,
    }
}
