//! One state of a database, as a connection with an open SQLite transaction,
//! and the right to write on from it.
//!
//! Invariant: a closure that reads cannot write, and one that writes has the
//! turn. The connection goes back to where it came from when this is dropped,
//! after its transaction has ended and before the turn is free.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

use super::BackendError;
use super::database::RETRY_INTERVAL;
use super::error::Context;
use super::line::{Line, Turn};
use super::places::HeldPlace;
use super::pool::Lease;
use crate::tenant::Lane;

/// Takes SQLite's lock for writers, or finds that the state is not the newest
/// one, and changes nothing.
const TAKE_WRITE_LOCK: &str = "DELETE FROM refinery_schema_history WHERE 0";

/// A place for an open transaction in a database, which is kept open by it.
pub(super) struct Place {
    lease: Lease,
    _held: HeldPlace,
}

impl Place {
    /// Waits for a place, for whoever writes `holder`.
    pub async fn take(lease: Lease, holder: Lane) -> Result<Self, BackendError> {
        let held = lease.database().place(holder).await?;
        Ok(Place { lease, _held: held })
    }

    /// Waits for the turn to write.
    pub async fn turn(&self) -> Result<Turn, BackendError> {
        let database = self.lease.database();
        database.line().turn(database.context()).await
    }
}

/// One state of a database.
pub(super) struct Snapshot {
    /// Taken when it ends.
    connection: Option<Connection>,
    writing: Option<Writing>,
    /// Whether SQLite keeps the connection from writing.
    query_only: bool,
    place: Place,
}

struct Writing {
    turn: Turn,
    /// Whether the connection is the turn's, and not one to read with.
    is_turns: bool,
}

impl Snapshot {
    /// The newest state, to read. Blocks, as all that follows.
    pub fn to_read(place: Place) -> Result<Self, BackendError> {
        let connection = place.lease.reader()?;
        let snapshot = Snapshot {
            connection: Some(connection),
            writing: None,
            query_only: true,
            place,
        };
        snapshot.run("BEGIN DEFERRED")?;
        // The state is that of the first read, which this is.
        snapshot.check_version()?;
        Ok(snapshot)
    }

    /// The newest state, which stays the newest one until this is dropped.
    pub fn to_write(place: Place, mut turn: Turn) -> Result<Self, BackendError> {
        let connection = place.lease.writer(&mut turn)?;
        let snapshot = Snapshot {
            connection: Some(connection),
            writing: Some(Writing {
                turn,
                is_turns: true,
            }),
            query_only: false,
            place,
        };
        snapshot.run("BEGIN IMMEDIATE")?;
        snapshot.check_version()?;
        Ok(snapshot)
    }

    /// Lets it write, if the state is still the newest one.
    pub fn upgrade(&mut self, turn: Turn) -> Result<(), BackendError> {
        self.place.lease.database().check_path()?;
        self.set_query_only(false)?;
        let taken = self.take_write_lock();
        if taken.is_err() {
            self.set_query_only(true)?;
            return taken;
        }
        self.writing = Some(Writing {
            turn,
            is_turns: false,
        });
        Ok(())
    }

    /// SQLite does not wait for other processes here, so this does.
    fn take_write_lock(&self) -> Result<(), BackendError> {
        let context = self.context();
        let deadline = Instant::now() + Duration::from_millis(context.busy_timeout_ms);
        loop {
            match self.connection().execute(TAKE_WRITE_LOCK, []) {
                Ok(_none) => return Ok(()),
                Err(error) if is_locked(&error) && Instant::now() < deadline => {
                    std::thread::sleep(RETRY_INTERVAL);
                }
                Err(error) => return Err(context.statement(error)),
            }
        }
    }

    /// Runs `f`, which cannot write.
    pub fn read<T>(
        &mut self,
        f: impl FnOnce(&Connection) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        self.enable_writing(false)?;
        f(self.connection()).map_err(|error| self.context().explain(error))
    }

    /// Runs `f`, and undoes what it did when it returns an error or panics.
    pub fn write<T>(
        &mut self,
        f: impl FnOnce(&Connection) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        self.enable_writing(true)?;
        self.run("SAVEPOINT \"jammi write\"")?;
        let result = catch_unwind(AssertUnwindSafe(|| f(self.connection())));
        let undone = match &result {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => self.run("ROLLBACK TO \"jammi write\""),
        };
        let released = undone.and_then(|()| self.run("RELEASE \"jammi write\""));
        if released.is_err() && !self.is_lost() {
            // Half of what `f` did must not be committed with the rest.
            self.run("ROLLBACK")?;
        }
        let value = result
            .unwrap_or_else(|panic| resume_unwind(panic))
            .map_err(|error| self.context().explain(error))?;
        released.map(|()| value)
    }

    /// Runs a statement that only ends or divides the transaction.
    pub fn run(&self, sql: &str) -> Result<(), BackendError> {
        self.connection()
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute([]))
            .map(|_none| ())
            .map_err(|error| self.context().statement(error))
    }

    /// Makes what was written durable and visible.
    pub fn commit(self) -> Result<(), BackendError> {
        if self.writing.is_some() {
            self.place.lease.database().check_path()?;
        }
        self.run("COMMIT")
    }

    /// Those who want to write its database.
    pub fn database_line(&self) -> Arc<Line> {
        Arc::clone(self.place.lease.database().line())
    }

    /// Those who want to write, unless this may already.
    pub fn line(&self) -> Option<(Arc<Line>, Context)> {
        let database = self.place.lease.database();
        match self.writing {
            Some(_) => None,
            None => Some((Arc::clone(database.line()), database.context())),
        }
    }

    /// Whether the database holds what one without a file does: nothing.
    pub fn is_pristine(&self) -> Result<bool, BackendError> {
        let pristine = || -> rusqlite::Result<bool> {
            let connection = self.connection();
            let mut tables = connection.prepare(
                "SELECT name FROM sqlite_schema
                 WHERE type = 'table' AND name NOT IN ('refinery_schema_history', 'catalog_stamp')
                     AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
            )?;
            let tables = tables
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<Vec<String>>>()?;
            for table in tables {
                let quoted = table.replace('"', "\"\"");
                let filled = format!("SELECT EXISTS (SELECT 1 FROM \"{quoted}\")");
                if connection.query_row(&filled, [], |row| row.get(0))? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        pristine().map_err(|error| self.context().statement(error))
    }

    /// Whether SQLite has given the transaction up.
    pub fn is_lost(&self) -> bool {
        self.connection().is_autocommit()
    }

    /// What to say of a closure that ended the transaction.
    pub fn ended(&self) -> BackendError {
        self.context()
            .storage("a statement ended the transaction that it is in")
    }

    pub fn conflict(&self) -> BackendError {
        BackendError::Conflict {
            database: self.context().database,
        }
    }

    pub fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("taken only when it ends")
    }

    pub fn context(&self) -> Context {
        self.place.lease.database().context()
    }

    fn check_version(&self) -> Result<(), BackendError> {
        self.place.lease.check_version(self.connection())
    }

    fn enable_writing(&mut self, enabled: bool) -> Result<(), BackendError> {
        match self.writing {
            Some(_) => self.set_query_only(!enabled),
            // One that may not write is opened so that it cannot.
            None => Ok(()),
        }
    }

    fn set_query_only(&mut self, query_only: bool) -> Result<(), BackendError> {
        if self.query_only != query_only {
            set_query_only(self.connection(), query_only)
                .map_err(|error| self.context().statement(error))?;
            self.query_only = query_only;
        }
        Ok(())
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        let rollback = || connection.prepare_cached("ROLLBACK")?.execute([]);
        let ended = connection.is_autocommit() || rollback().is_ok();
        let is_turns = self
            .writing
            .as_ref()
            .is_some_and(|writing| writing.is_turns);
        let as_it_came =
            self.query_only != is_turns || set_query_only(&connection, !is_turns).is_ok();
        // One that is not as it came is closed.
        if !ended || !as_it_came {
            return;
        }
        match &mut self.writing {
            Some(writing) if is_turns => writing.turn.writer = Some(connection),
            _ => self.place.lease.database().keep_reader(connection),
        }
    }
}

fn set_query_only(connection: &Connection, query_only: bool) -> rusqlite::Result<()> {
    connection.pragma_update(None, "query_only", query_only)
}

/// Whether another process writes.
fn is_locked(error: &rusqlite::Error) -> bool {
    let extended = error.sqlite_error().map(|error| error.extended_code);
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
        && extended != Some(rusqlite::ffi::SQLITE_BUSY_SNAPSHOT)
}
