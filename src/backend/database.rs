//! One open database file: its connections, and what version its content has.
//!
//! Invariants: connections of one `Database` are of one file, also when another
//! file takes its path meanwhile, and its file's inode is not given to another
//! file while it is open. The watching connection never writes, so that
//! `PRAGMA data_version` on it counts every commit of every other connection,
//! of this process too; what is known of a version without it is that nobody else
//! could commit, and that this process has redefined nothing.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::Context;
use super::incarnation::Mark;
use super::line::Line;
use super::places::{HeldPlace, Places};
use super::schema::{Schema, State};
use super::{BackendError, DatabaseName, LaneVersion};
use crate::config::LanesConfig;
use crate::tenant::Lane;

/// How many connections to read with are kept: each takes two of the files that
/// the process may open. What everyone reads is read by several at a time.
const IDLE_READERS_MAX: usize = 1;
const IDLE_SHARED_READERS_MAX: usize = 8;
/// What a write-ahead log is cut to after a checkpoint.
const WAL_BYTES_KEPT: i64 = 4 << 20;
/// How often an attempt is repeated that SQLite does not wait for.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// Which file a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// The file at `path`, if there is one.
    pub fn of(path: &Path, context: Context) -> Result<Option<Self>, BackendError> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(FileIdentity {
                device: metadata.dev(),
                inode: metadata.ino(),
            })),
            Ok(_) => Err(context.corrupt("it is not a file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(context.io(error)),
        }
    }
}

/// Where a database is and how it is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening<'a> {
    pub path: &'a Path,
    pub schema: &'a Schema,
    pub context: Context,
    pub config: LanesConfig,
    pub generation: u64,
    /// Whether a missing file is made.
    pub create: bool,
}

/// One open database file.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    context: Context,
    identity: FileIdentity,
    generation: u64,
    watching: Mutex<Watching>,
    reading: Mutex<Vec<Connection>>,
    read_permits: Arc<Semaphore>,
    places: Arc<Places>,
    line: Arc<Line>,
}

/// The connection that watches others' commits, and what it saw last.
#[derive(Debug)]
struct Watching {
    connection: Connection,
    seen: Option<Seen>,
}

/// A version, and what tells that it is the newest one without a look at the file.
#[derive(Clone, Copy, Debug)]
struct Seen {
    version: LaneVersion,
    /// Nobody else used the directory from before the version was asked for.
    alone: Mark,
    /// What this process had redefined before that.
    definitions: u64,
}

impl Database {
    /// Opens the file, gives it the newest schema, and makes it first where
    /// that is asked for. Blocks.
    pub fn open(opening: Opening<'_>) -> Result<Self, BackendError> {
        let Opening {
            path,
            schema,
            context,
            config,
            ..
        } = opening;
        let replaced = BackendError::Replaced {
            database: context.database,
        };
        let before = FileIdentity::of(path, context)?;
        let mut connection = connect(path, opening.create, context)?;
        let Some(identity) = FileIdentity::of(path, context)? else {
            return Err(replaced);
        };
        if before.is_some_and(|before| before != identity) {
            return Err(replaced);
        }
        // Nothing is written before the file is known to be ours.
        if schema.inspect(&connection, context)? == State::Behind {
            restrict(path).map_err(|error| context.io(error))?;
            use_wal(&connection, context)?;
            configure(&connection).map_err(|error| context.statement(error))?;
            schema.migrate(&mut connection, context)?;
            connection = connect(path, false, context)?;
        }
        use_wal(&connection, context)?;
        configure(&connection)
            .and_then(|()| connection.pragma_update(None, "query_only", true))
            // The version is asked for where nothing may wait.
            .and_then(|()| connection.busy_timeout(Duration::ZERO))
            .map_err(|error| context.statement(error))?;
        if FileIdentity::of(path, context)? != Some(identity) {
            return Err(replaced);
        }
        Ok(Database {
            path: path.to_path_buf(),
            context,
            identity,
            generation: opening.generation,
            watching: Mutex::new(Watching {
                connection,
                seen: None,
            }),
            reading: Mutex::default(),
            read_permits: Arc::new(Semaphore::new(config.reads_max)),
            places: Arc::new(Places::new(context.database, &config)),
            line: Arc::new(Line::new(config.writers_waiting_max)),
        })
    }

    pub fn context(&self) -> Context {
        self.context
    }

    /// Whether the path still leads to the file that is open.
    pub fn is_at_its_path(&self) -> Result<bool, BackendError> {
        Ok(FileIdentity::of(&self.path, self.context)? == Some(self.identity))
    }

    /// Refuses what would be acknowledged and gone: a commit to a file that has
    /// lost its path.
    pub fn check_path(&self) -> Result<(), BackendError> {
        if self.is_at_its_path()? {
            Ok(())
        } else {
            Err(self.replaced())
        }
    }

    /// The version of what it defines, or `None` when another process keeps the file
    /// from being looked at. It is not looked at where nobody else uses the directory,
    /// as `alone` says, and this process has redefined nothing since the last time.
    pub fn version(&self, alone: Option<Mark>) -> Result<Option<LaneVersion>, BackendError> {
        let definitions = self.line.definitions();
        let mut watching = self.watching.lock();
        if let (Some(seen), Some(alone)) = (watching.seen, alone)
            && (seen.alone, seen.definitions) == (alone, definitions)
        {
            return Ok(Some(seen.version));
        }
        watching.seen = None;
        let version = watching
            .connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)));
        match version {
            Ok(data_version) => {
                let version = LaneVersion {
                    generation: self.generation,
                    data_version,
                };
                watching.seen = alone.map(|alone| Seen {
                    version,
                    alone,
                    definitions,
                });
                Ok(Some(version))
            }
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(None),
            Err(error) => Err(self.context.statement(error)),
        }
    }

    /// Waits until one more short read may be done.
    pub async fn read_permit(&self) -> Result<OwnedSemaphorePermit, BackendError> {
        let permit = Arc::clone(&self.read_permits).acquire_owned();
        match tokio::time::timeout(self.busy_timeout(), permit).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_elapsed) => Err(self.context.busy()),
        }
    }

    /// Waits for a place for a transaction that spans statements, for whoever
    /// writes `holder`.
    pub async fn place(&self, holder: Lane) -> Result<HeldPlace, BackendError> {
        self.places.take(holder, self.busy_timeout()).await
    }

    /// Those who want to write.
    pub fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// A connection to read with. Blocks.
    pub fn reader(&self) -> Result<Connection, BackendError> {
        let idle = self.reading.lock().pop();
        if let Some(connection) = idle {
            return Ok(connection);
        }
        let connection = self.connect()?;
        connection
            .pragma_update(None, "query_only", true)
            .map_err(|error| self.context.statement(error))?;
        Ok(connection)
    }

    /// Runs `f` in a reading transaction: it sees one state of the database.
    /// Blocks.
    pub fn read<T>(
        &self,
        mut reader: Connection,
        schema: &Schema,
        f: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let transaction = reader
            .transaction_with_behavior(TransactionBehavior::Deferred)
            .map_err(|error| self.context.statement(error))?;
        schema.check_version(&transaction, self.context)?;
        let value = f(&transaction).map_err(|error| self.context.explain(error))?;
        drop(transaction);
        self.keep_reader(reader);
        Ok(value)
    }

    /// Keeps a connection that [`Database::reader`] gave for another reader.
    pub fn keep_reader(&self, connection: Connection) {
        let max = match self.context.database {
            DatabaseName::Lane(Lane::Tenant(_)) => IDLE_READERS_MAX,
            DatabaseName::Lane(Lane::Global) | DatabaseName::System => IDLE_SHARED_READERS_MAX,
        };
        let mut idle = self.reading.lock();
        if connection.is_autocommit() && idle.len() < max {
            idle.push(connection);
            return;
        }
        drop(idle);
        // Closes outside the lock.
        drop(connection);
    }

    /// Another connection to the file that is open. Blocks.
    pub fn connect(&self) -> Result<Connection, BackendError> {
        let connection = connect(&self.path, false, self.context)?;
        self.check_path()?;
        configure(&connection).map_err(|error| self.context.statement(error))?;
        Ok(connection)
    }

    fn replaced(&self) -> BackendError {
        BackendError::Replaced {
            database: self.context.database,
        }
    }

    fn busy_timeout(&self) -> Duration {
        Duration::from_millis(self.context.busy_timeout_ms)
    }
}

/// Opens the file with what must be set before its content is looked at.
pub(super) fn connect(
    path: &Path,
    create: bool,
    context: Context,
) -> Result<Connection, BackendError> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if create {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let prepare = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_millis(context.busy_timeout_ms))?;
        harden(&connection)?;
        Ok(connection)
    };
    prepare().map_err(|error| context.statement(error))
}

/// Sets what must be before the content of a file is looked at: it may be
/// damaged, or made to attack whoever opens it.
pub(super) fn harden(connection: &Connection) -> rusqlite::Result<()> {
    for (setting, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
        (DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true),
    ] {
        connection.set_db_config(setting, on)?;
    }
    connection.pragma_update(None, "cell_size_check", true)
}

/// Statements that a connection keeps: those of a transaction, and of some tables.
const STATEMENTS_KEPT: usize = 64;

/// What every connection to a file that is ours has.
fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // What is deleted is overwritten, and not only forgotten.
    connection.pragma_update_and_check(None, "secure_delete", true, |_row| Ok(()))?;
    connection.pragma_update_and_check(
        None,
        "journal_size_limit",
        WAL_BYTES_KEPT,
        |_row| Ok(()),
    )?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(())
}

/// Moves the log into the file and empties it, without waiting for those who are
/// in the way: then `false`.
pub(super) fn empty_log(connection: &Connection, context: Context) -> Result<bool, BackendError> {
    let empty = || {
        connection.busy_timeout(Duration::ZERO)?;
        let is_busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
        connection.busy_timeout(Duration::from_millis(context.busy_timeout_ms))?;
        is_busy
    };
    let is_busy: bool = empty().map_err(|error| context.statement(error))?;
    Ok(!is_busy)
}

/// Switches the file to a write-ahead log, if it has none yet. SQLite does not
/// wait in every case where others are in the way, so this does.
fn use_wal(connection: &Connection, context: Context) -> Result<(), BackendError> {
    let deadline = Instant::now() + Duration::from_millis(context.busy_timeout_ms);
    loop {
        let mode = connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0));
        match mode {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                return Err(context.storage(format!(
                    "the file system of the artifact directory allows journal mode {mode} \
                     instead of WAL"
                )));
            }
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(RETRY_INTERVAL);
            }
            Err(error) => return Err(context.statement(error)),
        }
    }
}

/// Lets only the owner read a file that is about to be filled, and makes the
/// file's name as durable as its content will be. The file is never opened here:
/// closing it would drop the locks that SQLite holds on it in this process.
pub(super) fn restrict(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}
