//! The audit trail: who asked for what, as whom, with which scopes, and how it ended.
//!
//! ```text
//! request -> entry    room for its record, or it waits; filled in while it runs
//!         -> writer   the queue, and the one thread that empties it
//!         -> store    lines of a chain, on the disk; checkpoints, signed
//!         -> read     records again, for SQL
//!         -> verify   whether the chain is as it was written
//! ```
//!
//! Invariants: a request that cannot be recorded is not run; a record that has room is
//! written, however its request ends; nothing that was written is changed. Values of
//! statements are not in a record unless `audit.statements` says `full`, and
//! credentials and the names of sessions never are.

mod chain;
mod entry;
mod event;
mod key;
mod read;
mod store;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::{AuditConfig, AuditDurability, AuditStatements};
use crate::error::{Error, Result};

pub use chain::{Hash, Place};
pub use entry::{Entry, Written};
pub use event::{BYPASS, CANCELLED, Event, OK};
pub use key::PublicKey;
pub use read::{Events, Whose};
pub use verify::{Fault, Report, verify};

use key::Key;
use store::Store;
use writer::{Clock, Queue, Queued, Thread};

/// The directory of the trail, below the artifact directory.
const DIRECTORY: &str = "audit";

/// The directory of the trail of `artifact_dir`.
pub fn directory(artifact_dir: &Path) -> PathBuf {
    artifact_dir.join(DIRECTORY)
}

/// The public key of the trail in `directory`, if it has one.
pub fn public_key(directory: &Path) -> Result<Option<PublicKey>> {
    let key = Key::open(directory).map_err(|error| unusable(directory, &error))?;
    Ok(key.map(|key| key.public()))
}

/// The trail of an artifact directory. Clones share it; the last one that is dropped
/// waits until every record is written.
#[derive(Clone)]
pub struct Audit(Arc<Trail>);

struct Trail {
    queue: Arc<Queue>,
    masking: fn(&str) -> String,
    key: OnceLock<Key>,
    /// Started by the first record.
    thread: Mutex<Option<Thread>>,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Audit(..)")
    }
}

impl Audit {
    /// The trail of `artifact_dir`, whose times are `now_us`. Nothing is opened before
    /// there is a record. `masking` takes the literals out of a statement's text.
    pub fn new(
        artifact_dir: &Path,
        config: &AuditConfig,
        now_us: Clock,
        masking: fn(&str) -> String,
    ) -> Self {
        let queue = Queue::new(config.clone(), directory(artifact_dir), now_us);
        Audit(Arc::new(Trail {
            queue: Arc::new(queue),
            masking,
            key: OnceLock::new(),
            thread: Mutex::default(),
        }))
    }

    /// Opens the trail now, for what is to say at its start that it cannot, and for
    /// records that name sessions. Blocks.
    ///
    /// # Errors
    /// [`Error::FailedPrecondition`] that names the directory and the mend.
    pub fn open(&self) -> Result<()> {
        let queue = &self.0.queue;
        if !queue.config.enabled {
            return Ok(());
        }
        let directory = &queue.directory;
        let open = || {
            let store = Store::open(directory, &queue.config, (queue.now_us)())?;
            if let Some(key) = Key::open(directory)? {
                let _ = self.0.key.set(key);
            }
            self.start(Some(store))
        };
        open().map_err(|error| unusable(directory, &error))
    }

    /// A record of what is about to run, for which there is room from here on; nothing
    /// where records are not made. Waits while there is no room.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while records cannot be written.
    pub async fn begin(&self, method: &str) -> Result<Option<Entry>> {
        let queue = &self.0.queue;
        if !queue.config.enabled {
            return Ok(None);
        }
        self.start(None)
            .map_err(|error| Error::internal("the audit trail cannot be written", error))?;
        if queue.is_failing() {
            return Err(unwritable());
        }
        let room = Arc::clone(&queue.room);
        let room = match room.try_acquire_owned() {
            Ok(room) => Ok(room),
            Err(_) => tokio::select! {
                room = Arc::clone(&queue.room).acquire_owned() => room,
                () = queue.fails() => return Err(unwritable()),
            },
        };
        let room =
            room.map_err(|error| Error::internal("the audit trail cannot be written", error))?;
        Ok(Some(Entry::new(self, method, room)))
    }

    /// Completes when all that has ended is on the disk, or cannot be.
    pub async fn flush(&self) {
        self.written(false).await;
    }

    /// Completes when all that has ended is on the disk and signed, or cannot be; what
    /// still runs is waited for as long as `patience`.
    pub async fn settle(&self, patience: Duration) {
        let all = u32::try_from(self.0.queue.config.queue_max).unwrap_or(u32::MAX);
        // Those that end have their room until they are written.
        self.flush().await;
        let ended = self.0.queue.room.acquire_many(all);
        let _ = tokio::time::timeout(patience, ended).await;
        self.written(true).await;
    }

    async fn written(&self, signed: bool) {
        if self.0.thread.lock().is_none() {
            return;
        }
        // A thread that has ended has written what it could.
        let _ = self.0.queue.written(signed).await;
    }

    /// The records that are on the disk now; of those that ended before `since_us` some
    /// may be left out. Blocks, and so does what it answers.
    ///
    /// # Errors
    /// [`Error::DataLoss`] where they cannot be read.
    pub fn events(&self, whose: Whose, since_us: Option<i64>) -> Result<Events> {
        let events = Events::of(&self.0.queue.directory, whose, since_us);
        events.map_err(|error| unreadable(&error))
    }

    fn start(&self, store: Option<Store>) -> std::io::Result<()> {
        let mut thread = self.0.thread.lock();
        if thread.is_none() {
            *thread = Some(writer::start(Arc::clone(&self.0.queue), store)?);
        }
        Ok(())
    }

    fn push(&self, record: Queued) {
        self.0.queue.push(record);
    }

    fn now_us(&self) -> i64 {
        (self.0.queue.now_us)()
    }

    fn durability(&self) -> AuditDurability {
        self.0.queue.config.durability
    }

    fn statements(&self) -> AuditStatements {
        self.0.queue.config.statements
    }

    fn masking(&self) -> fn(&str) -> String {
        self.0.masking
    }

    fn session_hash(&self, principal: &str, session: &str) -> Option<String> {
        let key = self.0.key.get()?;
        Some(key.session(principal, session))
    }
}

/// What clients are told while records cannot be written.
pub fn unwritable() -> Error {
    Error::Unavailable(
        "the audit trail cannot be written, and nothing is done that is not recorded: free some \
         space on the server's disk, or mend it, and send the request again"
            .into(),
    )
}

/// What whoever reads records is told. It names no file.
pub fn unreadable(error: &std::io::Error) -> Error {
    tracing::error!(%error, "the audit trail cannot be read");
    Error::DataLoss("the audit trail cannot be read: the log of jammi has the cause".into())
}

/// What the operator is told, who names the directory.
fn unusable(directory: &Path, error: &std::io::Error) -> Error {
    Error::FailedPrecondition(format!(
        "the audit trail in {} cannot be used: {error}",
        directory.display()
    ))
}
