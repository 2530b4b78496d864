//! Which run of a process this is, as others who use the directory can tell, and
//! whether there are any.
//!
//! A run holds a lock on a file of its own for as long as it lives; the operating
//! system frees it with the process, however that ends. A run whose file is not
//! locked is over. Whoever enters the directory changes the mark in [`MARK`] before
//! it opens a database: as long as one who found itself alone sees the mark that it
//! saw then, it is alone still, and nobody else has committed anything.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

use super::{Backend, BackendError, blocking};
use crate::tenant::{Lane, TenantId};

const DIRECTORY: &str = "sessions";
/// The file below it that says who entered the directory last.
const MARK: &str = "entered";
/// How long others who were there are taken to be there still: to look for them
/// takes longer than to ask SQLite what they did.
const OTHERS_KNOWN: Duration = Duration::from_millis(200);
const GLOBAL: &str = "global";

impl Backend {
    /// What tells this opening of the directory from every other.
    pub fn incarnation(&self) -> Uuid {
        self.incarnation.id()
    }

    /// Notes that this opening may leave something in `lane`, before it does.
    pub async fn note_leftovers(&self, lane: Lane) -> Result<(), BackendError> {
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
    /// Locked as long as the run lives.
    _lock: File,
    mark: File,
    others: Mutex<Others>,
}

/// What whoever entered last has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark([u8; 16]);

/// What was found out about other runs.
#[derive(Debug, Default)]
struct Others {
    /// The mark under which there were none.
    alone: Option<Mark>,
    /// The mark under which there were some, and when.
    met: Option<(Mark, Instant)>,
}

impl Incarnation {
    /// Enters the directory, before a database of it is opened. Blocks.
    pub fn enter(artifact_dir: &Path) -> Result<Self, BackendError> {
        let directory = artifact_dir.join(DIRECTORY);
        let id = Uuid::new_v4();
        let enter = || {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700).create(&directory)?;
            let lock = lock_anew(&path(artifact_dir, id))?;
            let mark = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .mode(0o600)
                .open(directory.join(MARK))?;
            mark.write_all_at(id.as_bytes(), 0)?;
            Ok((lock, mark))
        };
        let (lock, mark) = enter().map_err(|source| unusable(&directory, source))?;
        Ok(Incarnation {
            id,
            artifact_dir: artifact_dir.to_path_buf(),
            _lock: lock,
            mark,
            others: Mutex::default(),
        })
    }

    pub fn id(&self) -> Uuid {
        self.id
    }

    /// A mark under which no other run lives: as long as it is the same, nobody else
    /// has entered. `None` where others live, or it cannot be told.
    pub fn alone(&self) -> Option<Mark> {
        // Before others are looked for: whoever comes after that changes it.
        let mark = self.mark()?;
        let mut others = self.others.lock();
        if others.alone == Some(mark) {
            return Some(mark);
        }
        let is_known = |(met, at): &(Mark, Instant)| *met == mark && at.elapsed() < OTHERS_KNOWN;
        if others.met.as_ref().is_some_and(is_known) {
            return None;
        }
        match self.has_others() {
            Ok(false) => others.alone = Some(mark),
            Ok(true) | Err(_) => others.met = Some((mark, Instant::now())),
        }
        (others.alone == Some(mark)).then_some(mark)
    }

    fn mark(&self) -> Option<Mark> {
        let mut mark = [0; 16];
        self.mark.read_exact_at(&mut mark, 0).ok()?;
        // One that has lost its name tells nothing.
        let is_named = self.mark.metadata().ok()?.nlink() > 0;
        is_named.then_some(Mark(mark))
    }

    /// Whether another run lives. Files of runs that are over are removed.
    fn has_others(&self) -> io::Result<bool> {
        let mut has_others = false;
        for entry in fs::read_dir(self.artifact_dir.join(DIRECTORY))? {
            let path = entry?.path();
            let name = path.file_stem().and_then(|stem| stem.to_str());
            let id = name.and_then(|name| Uuid::try_parse(name).ok());
            if id.is_none_or(|id| id == self.id) {
                continue;
            }
            let file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            match file.try_lock() {
                // Whoever is about to lock it makes another.
                Ok(()) => match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                },
                Err(TryLockError::WouldBlock) => has_others = true,
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(has_others)
    }
}

/// Makes a file and locks it. Another run may find it before it is locked, take it
/// for one that is over, and remove it.
fn lock_anew(path: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(path)?;
        file.lock()?;
        let has_name = file.metadata()?.nlink() > 0;
        if has_name {
            return Ok(file);
        }
    }
}

impl Drop for Incarnation {
    fn drop(&mut self) {
        // What is left of the run is told by the system database, not by the file.
        let _ = forget(&self.artifact_dir, self.id);
    }
}

/// Whether a run is over. Blocks.
pub(super) fn is_over(artifact_dir: &Path, id: Uuid) -> Result<bool, BackendError> {
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
