//! Copies of one lane, and a lane from a copy, while it and others are in use.
//!
//! A backup is one state of the lane as a single SQLite file. Restoring puts the
//! pages of such a file into the lane in one SQLite transaction, so for whoever
//! uses the lane, in this or another process, it is a commit like any other:
//! writers wait their turn, what was read before stays readable to the end of
//! its transaction, which then conflicts, and a crash leaves the lane as it was
//! or as the backup is. A lane that is damaged past opening is restored the same
//! way, without looking at what it holds.
//!
//! Invariants: a backup has its name once it is whole and on the disk, and no
//! existing file is ever overwritten by one. Nothing of a file reaches a lane
//! before all of it is known to be sound and to belong to that lane.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};

use super::database;
use super::error::Context;
use super::line::Turn;
use super::pool::{Lease, Pool};
use super::schema::{Schema, State};
use super::snapshot::{Place, Snapshot};
use super::{Backend, BackendError, DatabaseName, Transaction, blocking};
use crate::tenant::Lane;

const DAMAGED: &str = "it is damaged or is not a backup of a lane: name another file";
const NEWER: &str = "a newer version of jammi wrote it: upgrade jammi";
const FOREIGN: &str = "it holds rows of another tenant: name a backup of this lane";
const UNKNOWN: &str = "it holds what no lane does: name a file that jammi wrote";

impl Backend {
    /// Copies one state of the lane to a new file, which is whole and on the
    /// disk when this returns `Ok`. An existing file is refused. The lane's
    /// readers and writers go on meanwhile.
    ///
    /// A crash midway leaves an empty file of that name, and what there was of
    /// the copy beside it, with `.partial` at the end of its name.
    pub async fn backup(&self, lane: Lane, to: &Path) -> Result<(), BackendError> {
        let database = DatabaseName::Lane(lane);
        let Some(lease) = self.pool.lease(database, false).await? else {
            return Err(BackendError::NothingToBackUp { database });
        };
        let place = Place::take(lease, lane).await?;
        let to = to.to_path_buf();
        blocking(move || back_up(Snapshot::to_read(place)?, &to)).await
    }

    /// Puts the content of a backup in the place of the lane's, which is made if
    /// need be; when this returns `Ok`, that is on the disk. A backup of an
    /// older version of Jammi is brought up to date on the way. The file is not
    /// changed, and what `strip` removes of its content does not come along.
    /// [`BackendError::BackupRefused`]: it is not one of this lane, or not sound,
    /// and the lane is as it was.
    ///
    /// Waits for the lane's turn as [`Backend::write`] does. Transactions that
    /// have read the lane before go on reading what they saw, and conflict when
    /// they write.
    pub async fn restore(
        &self,
        lane: Lane,
        from: &Path,
        strip: fn(&Transaction<'_>) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let database = DatabaseName::Lane(lane);
        let (pool, from) = (self.pool.clone(), from.to_path_buf());
        let staged = blocking(move || {
            let staged = stage(&pool, lane, &from)?;
            strip(&Transaction::new(&staged, lane))?;
            Ok(staged)
        })
        .await?;
        let lease = match self.pool.lease_or_create(database).await {
            Ok(lease) => lease,
            Err(BackendError::Corrupt { .. }) => {
                let pool = self.pool.clone();
                return blocking(move || replace_damaged(&pool, database, &staged)).await;
            }
            Err(error) => return Err(error),
        };
        let context = lease.database().context();
        let turn = lease.database().line().turn(context).await?;
        let pool = self.pool.clone();
        blocking(move || {
            let mut turn = turn;
            match replace(&lease, &mut turn, &staged) {
                Err(BackendError::Corrupt { .. }) => replace_damaged(&pool, database, &staged),
                result => result,
            }
        })
        .await
    }
}

fn back_up(snapshot: Snapshot, to: &Path) -> Result<(), BackendError> {
    let context = snapshot.context();
    let unusable = |source| BackendError::BackupFile {
        path: to.to_path_buf(),
        source,
    };
    // Takes the name, so that nobody else does meanwhile.
    create_new(to).map_err(unusable)?;
    let partial = with_ending(to, ".partial");
    let written = remove(&partial)
        .and_then(|()| create_new(&partial))
        .map_err(unusable)
        .and_then(|()| copy_to_file(&snapshot, &partial, context))
        .and_then(|()| {
            // What is renamed is on the disk before its name is.
            File::open(&partial)
                .and_then(|file| file.sync_all())
                .and_then(|()| fs::rename(&partial, to))
                .and_then(|()| sync_directory(to))
                .map_err(unusable)
        });
    if written.is_err() {
        // The first error is the one to tell.
        let _ = remove(&partial);
        let _ = fs::remove_file(to);
    }
    written
}

fn copy_to_file(snapshot: &Snapshot, to: &Path, context: Context) -> Result<(), BackendError> {
    let statement = |error| context.statement(error);
    let mut file = Connection::open_with_flags(
        to,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(statement)?;
    copy(snapshot.connection(), &mut file, context)?;
    // One file, without a log beside it.
    file.pragma_update_and_check(None, "journal_mode", "DELETE", |_row| Ok(()))
        .map_err(statement)?;
    // A copy that could not be restored is none.
    if is_sound(&file).map_err(statement)? {
        Ok(())
    } else {
        Err(context.corrupt("the copy of the lane is not sound"))
    }
}

/// A copy of the file that nobody else sees, which is sound, of the newest
/// schema and of this lane. It has no name, so nothing stays of it.
fn stage(pool: &Pool, lane: Lane, from: &Path) -> Result<Connection, BackendError> {
    let context = pool.context(DatabaseName::Lane(lane));
    let schema = pool.schema(DatabaseName::Lane(lane));
    let refused = |reason, source: Option<BackendError>| BackendError::BackupRefused {
        database: context.database,
        reason,
        source: source.map(Into::into),
    };
    let examine = || -> Result<Result<Connection, &'static str>, BackendError> {
        let statement = |error| context.statement(error);
        let source = open_backup(from)?.map_err(statement)?;
        let mut staged = Connection::open("").map_err(statement)?;
        database::harden(&staged).map_err(statement)?;
        copy(&source, &mut staged, context)?;
        drop(source);
        let own: i64 = staged
            .pragma_query_value(None, "application_id", |row| row.get(0))
            .map_err(statement)?;
        // An empty file is a lane that is not made yet to others.
        if own == 0 || !is_sound(&staged).map_err(statement)? {
            return Ok(Err(DAMAGED));
        }
        if schema.inspect(&staged, context)? == State::Behind {
            schema.migrate(&mut staged, context)?;
        }
        let objection = objection(&staged, schema, lane, context).map_err(statement)?;
        Ok(match objection {
            None => Ok(staged),
            Some(reason) => Err(reason),
        })
    };
    match examine() {
        Ok(Ok(staged)) => Ok(staged),
        Ok(Err(reason)) => Err(refused(reason, None)),
        Err(error @ BackendError::Corrupt { .. }) => Err(refused(DAMAGED, Some(error))),
        Err(error @ BackendError::NewerVersion { .. }) => Err(refused(NEWER, Some(error))),
        Err(error) => Err(error),
    }
}

/// Opens a file without changing anything beside it, if that can be done.
fn open_backup(from: &Path) -> Result<rusqlite::Result<Connection>, BackendError> {
    let unusable = |source| BackendError::BackupFile {
        path: from.to_path_buf(),
        source,
    };
    let path = fs::canonicalize(from).map_err(unusable)?;
    // What the operating system has to say is clearer from itself.
    let metadata = File::open(&path).and_then(|file| file.metadata());
    if !metadata.map_err(unusable)?.is_file() {
        return Err(unusable(io::Error::other("it is not a file")));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let has_log = fs::metadata(with_ending(&path, "-wal")).is_ok_and(|log| log.len() > 0);
    let open = || {
        let source = if has_log {
            Connection::open_with_flags(&path, flags)?
        } else {
            let mut uri = String::from("file:");
            for byte in path.as_os_str().as_encoded_bytes() {
                uri.push_str(&format!("%{byte:02x}"));
            }
            uri.push_str("?immutable=1");
            Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?
        };
        database::harden(&source)?;
        Ok(source)
    };
    Ok(open())
}

/// Why the content cannot be that of the lane.
fn objection(
    staged: &Connection,
    schema: &Schema,
    lane: Lane,
    context: Context,
) -> rusqlite::Result<Option<&'static str>> {
    let odd: bool = staged.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema
                        WHERE type NOT IN ('table', 'index') OR sql LIKE 'CREATE VIRTUAL%')",
        [],
        |row| row.get(0),
    )?;
    if odd {
        return Ok(Some(UNKNOWN));
    }
    let mut fresh = Connection::open_in_memory()?;
    if schema.migrate(&mut fresh, context).is_err() {
        return Ok(Some(UNKNOWN));
    }
    let without_tenants = tables(&fresh, false)?;
    if tables(staged, false)?
        .iter()
        .any(|table| !without_tenants.contains(table))
    {
        return Ok(Some(UNKNOWN));
    }
    for layout in ["page_size", "encoding", "auto_vacuum"] {
        let of = |connection: &Connection| {
            connection.pragma_query_value(None, layout, |row| row.get::<_, Value>(0))
        };
        if of(staged)? != of(&fresh)? {
            return Ok(Some(UNKNOWN));
        }
    }
    // As tables of the catalog hold the tenant, and as tables of rows do.
    let tenant = lane.tenant();
    let text = tenant.map(|tenant| tenant.to_string());
    let bytes = tenant.as_ref().map(|tenant| &tenant.as_bytes()[..]);
    for table in tables(staged, true)? {
        let quoted = table.replace('"', "\"\"");
        let foreign: bool = staged.query_row(
            &format!(
                "SELECT EXISTS (SELECT 1 FROM \"{quoted}\"
                                WHERE tenant_id IS NOT ?1 AND tenant_id IS NOT ?2)"
            ),
            (&text, bytes),
            |row| row.get(0),
        )?;
        if foreign {
            return Ok(Some(FOREIGN));
        }
    }
    Ok(None)
}

/// The tables whose rows hold a tenant, or those whose rows do not.
fn tables(connection: &Connection, with_tenant: bool) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare(
            "SELECT name FROM sqlite_schema
             WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
                 AND EXISTS (SELECT 1 FROM pragma_table_info(sqlite_schema.name) AS info
                             WHERE info.name = 'tenant_id') = ?1",
        )?
        .query_map([with_tenant], |row| row.get(0))?
        .collect()
}

/// Commits the pages of `staged` to the lane, whose turn is had.
fn replace(lease: &Lease, turn: &mut Turn, staged: &Connection) -> Result<(), BackendError> {
    let database = lease.database();
    let mut connection = lease.writer(turn)?;
    lease.check_version(&connection)?;
    database.check_path()?;
    turn.redefine();
    copy(staged, &mut connection, database.context())?;
    turn.writer = Some(connection);
    // Whoever replaced the file meanwhile has undone this.
    database.check_path()
}

/// As [`replace`], for a file that is no database any more.
fn replace_damaged(
    pool: &Pool,
    database: DatabaseName,
    staged: &Connection,
) -> Result<(), BackendError> {
    let context = pool.context(database);
    let path = pool.path(database);
    let mut connection = database::connect(&path, false, context)?;
    // What is there is overwritten unseen, and comes back whole if this fails.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_RESET_DATABASE, true)
        .map_err(|error| context.statement(error))?;
    copy(staged, &mut connection, context)?;
    database::restrict(&path).map_err(|error| context.io(error))
}

/// Makes `to` a copy of one state of `from`, in one transaction.
fn copy(from: &Connection, to: &mut Connection, context: Context) -> Result<(), BackendError> {
    let copied = Backup::new(from, to).and_then(|backup| backup.step(-1));
    match copied.map_err(|error| context.statement(error))? {
        StepResult::Done => Ok(()),
        _ => Err(context.busy()),
    }
}

fn is_sound(connection: &Connection) -> rusqlite::Result<bool> {
    let found: String = connection.pragma_query_value(None, "integrity_check", |row| row.get(0))?;
    Ok(found == "ok")
}

fn create_new(path: &Path) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map(|_file| ())
}

/// Removes a database that may be there, with what SQLite keeps beside it.
fn remove(path: &Path) -> io::Result<()> {
    for ending in ["", "-journal", "-wal", "-shm"] {
        match fs::remove_file(with_ending(path, ending)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

pub(super) fn sync_directory(of: &Path) -> io::Result<()> {
    let directory = match of.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}
