//! What storage refuses or fails with, by what to do next.
//!
//! Invariant: the text of every kind is public. It names the caller's own
//! database at most, never a path below the artifact directory; what SQLite or
//! the operating system said is the source, which is for the log.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;

use rusqlite::ErrorCode;
use rusqlite::ffi;

use super::pool::TENANTS_DIR;
use crate::error::Error;
use crate::tenant::Lane;

/// The cause of an error, for the log alone.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// Which database an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DatabaseName {
    /// What belongs to the operator.
    System,
    /// The rows of one lane.
    Lane(Lane),
}

impl DatabaseName {
    /// Its file, from the artifact directory.
    pub fn file(self) -> String {
        match self {
            DatabaseName::System => "system.db".to_owned(),
            DatabaseName::Lane(Lane::Global) => "global.db".to_owned(),
            DatabaseName::Lane(Lane::Tenant(tenant)) => format!("{TENANTS_DIR}/{tenant}.db"),
        }
    }
}

impl fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatabaseName::System => f.write_str("the system database"),
            DatabaseName::Lane(Lane::Global) => f.write_str("the global lane"),
            DatabaseName::Lane(Lane::Tenant(tenant)) => {
                write!(f, "the lane of tenant {tenant}")
            }
        }
    }
}

/// What the storage of a lane refuses or fails with.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// A row for another lane than the transaction's: a defect of the caller,
    /// or an attempt to write elsewhere. Nothing was written.
    #[error("the row belongs to another tenant than the transaction's ({lane})")]
    TenantMismatch {
        /// The lane of the transaction.
        lane: Lane,
    },
    /// A later version of Jammi wrote the database: upgrade. Nothing was touched.
    #[error(
        "{database} was written by a newer version of jammi (schema {found}, this one knows \
         {known}): upgrade jammi"
    )]
    NewerVersion {
        /// The database.
        database: DatabaseName,
        /// The version of its schema.
        found: i64,
        /// The newest version that this build knows.
        known: i64,
    },
    /// The file is damaged, or is not one of ours: restore it.
    #[error("{database} is damaged or is not a jammi database: restore it from a backup")]
    Corrupt {
        /// The database.
        database: DatabaseName,
        /// What was found.
        #[source]
        source: Cause,
    },
    /// No room on the disk: free some. Nothing was written.
    #[error("the disk of {database} is full: free some space and send the request again")]
    Full {
        /// The database.
        database: DatabaseName,
        /// What SQLite said.
        #[source]
        source: Cause,
    },
    /// The file or its directory cannot be opened for writing: mend its
    /// permissions.
    #[error(
        "{database} cannot be opened for writing: give jammi's user write permission on the \
         artifact directory and the files in it"
    )]
    ReadOnly {
        /// The database.
        database: DatabaseName,
        /// What SQLite said.
        #[source]
        source: Cause,
    },
    /// Others held the database for too long: send the request again.
    #[error(
        "{database} is busy: send the request again, or raise lanes.busy_timeout_ms (now \
         {busy_timeout_ms})"
    )]
    Busy {
        /// The database.
        database: DatabaseName,
        /// The setting.
        busy_timeout_ms: u64,
    },
    /// As many wait to write the database as may: send the request again.
    #[error(
        "as many wait to write {database} as may: send the request again, or raise \
         lanes.writers_waiting_max (now {writers_waiting_max})"
    )]
    LineExhausted {
        /// The database.
        database: DatabaseName,
        /// The limit.
        writers_waiting_max: usize,
    },
    /// Another committed to the database after the transaction had read it: roll
    /// back and run the transaction again. Nothing of it was written.
    #[error("{database} changed since the transaction began: roll back and run it again")]
    Conflict {
        /// The database.
        database: DatabaseName,
    },
    /// No savepoint of that name is open in the transaction: name another.
    #[error("savepoint `{name}` does not exist: open it with SAVEPOINT first")]
    NoSavepoint {
        /// What was asked for.
        name: String,
    },
    /// The transaction has as many savepoints as may be open: release some.
    #[error(
        "{savepoints_max} savepoints are open, which is the most: release some first, or raise \
         lanes.savepoints_max"
    )]
    SavepointsExhausted {
        /// The limit.
        savepoints_max: usize,
    },
    /// One who shares the database with others has as much open on it as may be:
    /// end some.
    #[error(
        "{held} statements and transactions of yours are reading {database}, which is the most: \
         end some first, or raise {setting} (now {max})"
    )]
    PlacesExhausted {
        /// The database.
        database: DatabaseName,
        /// How many the caller has.
        held: usize,
        /// The setting.
        setting: &'static str,
        /// What it is.
        max: usize,
    },
    /// The lane was never written: there is nothing to do.
    #[error("{database} has no database yet: there is nothing to back up")]
    NothingToBackUp {
        /// The database.
        database: DatabaseName,
    },
    /// The file to back up to, or to restore from, cannot be used: name another.
    #[error("file {path:?} cannot be used ({source}): name another")]
    BackupFile {
        /// What the caller named.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a backup that may be restored into the lane, which was
    /// not touched: name another.
    #[error("the file cannot be restored into {database}: {reason}")]
    BackupRefused {
        /// The database that was to be restored.
        database: DatabaseName,
        /// What is wrong with the file, and the mend.
        reason: &'static str,
        /// What was found.
        #[source]
        source: Option<Cause>,
    },
    /// The file was replaced or erased while it was in use: send the request
    /// again. Nothing was written.
    #[error("{database} was replaced while it was in use: send the request again")]
    Replaced {
        /// The database.
        database: DatabaseName,
    },
    /// The tenant is being erased, and gets no database before that is done.
    #[error("{database} is being erased: ask the operator of the server")]
    Erasing {
        /// The database.
        database: DatabaseName,
    },
    /// More lanes are in use at once than may be open: send the request again.
    #[error(
        "all {open_max} lanes that may be open are in use: send the request again, or raise \
         lanes.open_max"
    )]
    LanesExhausted {
        /// The setting.
        open_max: usize,
    },
    /// The process has too many open files: raise its limit.
    #[error(
        "too many open files: raise the limit of the process (ulimit -n), or lower lanes.open_max"
    )]
    FilesExhausted {
        /// What SQLite said.
        #[source]
        source: Cause,
    },
    /// The artifact directory cannot be used: name another, or mend it. Met
    /// when a process starts, so the text goes to the operator.
    #[error("artifact directory {path:?} cannot be used: name one that jammi's user may write")]
    ArtifactDir {
        /// The directory, or what in it is in the way.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// A server has the artifact directory: stop it, or use another. Met when a
    /// server starts, so the text goes to the operator.
    #[error(
        "another jammi server uses artifact directory {path:?}: stop it, or give this one an \
         artifact directory of its own"
    )]
    ServerRunning {
        /// The directory.
        path: PathBuf,
    },
    /// The transaction has ended: begin another.
    #[error("the transaction has ended: begin another")]
    Ended,
    /// What was to be run on the database refused what it was given. Nothing of
    /// it was written.
    #[error("{0}")]
    Refused(Box<Error>),
    /// The process is stopping: send the request again, to its successor.
    #[error("jammi is stopping: send the request again")]
    Stopping,
    /// A statement failed, before it is known in which database. Transactions
    /// give it to the caller of [`Backend::read`] or [`Backend::write`] as
    /// another kind.
    ///
    /// [`Backend::read`]: crate::backend::Backend::read
    /// [`Backend::write`]: crate::backend::Backend::write
    #[error("a statement of the storage failed: the log of jammi has the cause")]
    Statement(#[from] rusqlite::Error),
    /// A defect, or a fault of the machine: report it.
    #[error("{database} failed: the log of jammi has the cause")]
    Storage {
        /// The database.
        database: DatabaseName,
        /// What happened.
        #[source]
        source: Cause,
    },
}

impl BackendError {
    /// What makes a transaction undo what it did, and the caller get `error`.
    pub fn refused(error: Error) -> Self {
        BackendError::Refused(Box::new(error))
    }

    /// The same kind and text again, for one more of those whom a failure
    /// concerns. The text of the source goes with it.
    pub(crate) fn restated(&self) -> Self {
        use BackendError as E;
        let text = |source: &Cause| Cause::from(source.to_string());
        match self {
            E::TenantMismatch { lane } => E::TenantMismatch { lane: *lane },
            E::NewerVersion {
                database,
                found,
                known,
            } => E::NewerVersion {
                database: *database,
                found: *found,
                known: *known,
            },
            E::Corrupt { database, source } => E::Corrupt {
                database: *database,
                source: text(source),
            },
            E::Full { database, source } => E::Full {
                database: *database,
                source: text(source),
            },
            E::ReadOnly { database, source } => E::ReadOnly {
                database: *database,
                source: text(source),
            },
            E::Busy {
                database,
                busy_timeout_ms,
            } => E::Busy {
                database: *database,
                busy_timeout_ms: *busy_timeout_ms,
            },
            E::Conflict { database } => E::Conflict {
                database: *database,
            },
            E::NoSavepoint { name } => E::NoSavepoint { name: name.clone() },
            E::LineExhausted {
                database,
                writers_waiting_max,
            } => E::LineExhausted {
                database: *database,
                writers_waiting_max: *writers_waiting_max,
            },
            E::SavepointsExhausted { savepoints_max } => E::SavepointsExhausted {
                savepoints_max: *savepoints_max,
            },
            E::PlacesExhausted {
                database,
                held,
                setting,
                max,
            } => E::PlacesExhausted {
                database: *database,
                held: *held,
                setting,
                max: *max,
            },
            E::NothingToBackUp { database } => E::NothingToBackUp {
                database: *database,
            },
            E::BackupFile { path, source } => E::BackupFile {
                path: path.clone(),
                source: restated_io(source),
            },
            E::BackupRefused {
                database,
                reason,
                source,
            } => E::BackupRefused {
                database: *database,
                reason,
                source: source.as_ref().map(text),
            },
            E::Replaced { database } => E::Replaced {
                database: *database,
            },
            E::Erasing { database } => E::Erasing {
                database: *database,
            },
            E::LanesExhausted { open_max } => E::LanesExhausted {
                open_max: *open_max,
            },
            E::FilesExhausted { source } => E::FilesExhausted {
                source: text(source),
            },
            E::ArtifactDir { path, source } => E::ArtifactDir {
                path: path.clone(),
                source: restated_io(source),
            },
            E::ServerRunning { path } => E::ServerRunning { path: path.clone() },
            E::Ended => E::Ended,
            E::Refused(error) => E::refused(error.restated()),
            E::Stopping => E::Stopping,
            // It does not say in which database, nor can it be made again.
            E::Statement(error) => E::Statement(rusqlite::Error::ToSqlConversionFailure(
                error.to_string().into(),
            )),
            E::Storage { database, source } => E::Storage {
                database: *database,
                source: text(source),
            },
        }
    }
}

fn restated_io(error: &std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), error.to_string())
}

/// What is needed to say what a failed statement means.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    pub database: DatabaseName,
    pub busy_timeout_ms: u64,
}

impl Context {
    /// The error that `error` is in this database.
    pub fn explain(&self, error: BackendError) -> BackendError {
        match error {
            BackendError::Statement(error) => self.statement(error),
            other => other,
        }
    }

    /// The error that a failed statement is in this database.
    pub fn statement(&self, error: rusqlite::Error) -> BackendError {
        let database = self.database;
        let rusqlite::Error::SqliteFailure(failure, _) = &error else {
            return match error {
                // A value that does not fit the column: STRICT tables rule
                // this out in a file that we wrote.
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::Utf8Error(..) => self.corrupt(error),
                other => self.storage(other),
            };
        };
        match (failure.code, failure.extended_code) {
            (ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase, _) => self.corrupt(error),
            (ErrorCode::DiskFull, _) | (_, ffi::SQLITE_IOERR_SHMSIZE) => BackendError::Full {
                database,
                source: error.into(),
            },
            (_, ffi::SQLITE_BUSY_SNAPSHOT) => BackendError::Conflict { database },
            (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => self.busy(),
            (ErrorCode::CannotOpen, _) if files_exhausted() => BackendError::FilesExhausted {
                source: error.into(),
            },
            (ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen, _) => {
                BackendError::ReadOnly {
                    database,
                    source: error.into(),
                }
            }
            _ => self.storage(error),
        }
    }

    /// What the operating system said about the file.
    pub fn io(&self, error: std::io::Error) -> BackendError {
        use std::io::ErrorKind;
        let database = self.database;
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => BackendError::Full {
                database,
                source: error.into(),
            },
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => BackendError::ReadOnly {
                database,
                source: error.into(),
            },
            _ => self.storage(error),
        }
    }

    pub fn busy(&self) -> BackendError {
        BackendError::Busy {
            database: self.database,
            busy_timeout_ms: self.busy_timeout_ms,
        }
    }

    pub fn corrupt(&self, source: impl Into<Cause>) -> BackendError {
        BackendError::Corrupt {
            database: self.database,
            source: source.into(),
        }
    }

    pub fn storage(&self, source: impl Into<Cause>) -> BackendError {
        BackendError::Storage {
            database: self.database,
            source: source.into(),
        }
    }
}

/// Whether the process can hardly open another file. SQLite says "cannot open"
/// for this as for a missing permission, so it is tried on a file of no
/// concern; several times at once, because SQLite has closed some by now.
fn files_exhausted() -> bool {
    const PROBES: usize = 4;
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    let mut probes = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        match std::fs::File::open("/dev/null") {
            Ok(file) => probes.push(file),
            Err(error) => return matches!(error.raw_os_error(), Some(EMFILE | ENFILE)),
        }
    }
    false
}
