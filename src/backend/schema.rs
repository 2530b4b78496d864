//! The schema of a database file: which version it has, and how it gets the
//! newest.
//!
//! Every file carries an application id, which says that it is ours and of
//! which kind, and the number of its last migration as `user_version`. Both are
//! in the file's first page, so a file that is up to date costs one read.
//!
//! Invariant: a migration and the version that it makes are one transaction.
//! A crash leaves the old version or the new one, and of two processes that
//! find an old file one migrates and the other waits. (Refinery embeds and
//! checks the migrations; its own runner decides outside the transaction what
//! to apply, so it does not run them.)

use refinery::Migration;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::{BackendError, DatabaseName, error::Context};

mod lane {
    refinery::embed_migrations!("src/backend/migrations/lane");
}
mod system {
    refinery::embed_migrations!("src/backend/migrations/system");
}

/// What a kind of database looks like.
#[derive(Debug)]
pub(super) struct Schema {
    application_id: i32,
    migrations: Vec<Migration>,
}

/// The schemas of this build.
#[derive(Debug)]
pub(super) struct Schemas {
    lane: Schema,
    system: Schema,
}

impl Schemas {
    pub fn embedded() -> Self {
        Schemas {
            lane: Schema::new(*b"JmLn", lane::migrations::runner().get_migrations()),
            system: Schema::new(*b"JmSy", system::migrations::runner().get_migrations()),
        }
    }

    pub fn of(&self, database: DatabaseName) -> &Schema {
        match database {
            DatabaseName::System => &self.system,
            DatabaseName::Lane(_) => &self.lane,
        }
    }
}

/// What is to be done before a file can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Current,
    Behind,
}

impl Schema {
    fn new(application_id: [u8; 4], migrations: &[Migration]) -> Self {
        let mut migrations = migrations.to_vec();
        migrations.sort();
        Schema {
            application_id: i32::from_be_bytes(application_id),
            migrations,
        }
    }

    /// The newest version that this build knows.
    fn newest(&self) -> i64 {
        self.migrations
            .last()
            .map_or(0, |migration| i64::from(migration.version()))
    }

    /// Looks at the file without changing it.
    pub fn inspect(
        &self,
        connection: &Connection,
        context: Context,
    ) -> Result<State, BackendError> {
        let pragma = |name| {
            connection
                .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
                .map_err(|error| context.statement(error))
        };
        let application_id = pragma("application_id")?;
        if application_id != i64::from(self.application_id) {
            let objects: i64 = connection
                .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
                .map_err(|error| context.statement(error))?;
            if application_id != 0 || objects != 0 {
                return Err(context.corrupt(format!(
                    "application id {application_id:#x} instead of {:#x}, with {objects} objects",
                    self.application_id
                )));
            }
        }
        let found = pragma("user_version")?;
        let known = self.newest();
        if found > known {
            return Err(BackendError::NewerVersion {
                database: context.database,
                found,
                known,
            });
        }
        Ok(if found == known {
            State::Current
        } else {
            State::Behind
        })
    }

    /// Refuses a file that another process has moved to a newer version since
    /// it was opened. Cheap enough for every transaction.
    pub fn check_version(
        &self,
        connection: &Connection,
        context: Context,
    ) -> Result<(), BackendError> {
        let found: i64 = connection
            .prepare_cached("PRAGMA user_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(|error| context.statement(error))?;
        let known = self.newest();
        if found > known {
            return Err(BackendError::NewerVersion {
                database: context.database,
                found,
                known,
            });
        }
        Ok(())
    }

    /// Applies what is missing, unless another process was faster.
    pub fn migrate(
        &self,
        connection: &mut Connection,
        context: Context,
    ) -> Result<(), BackendError> {
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| context.statement(error))?;
        if self.inspect(&transaction, context)? == State::Current {
            return Ok(());
        }
        transaction
            .execute_batch(
                "CREATE TABLE IF NOT EXISTS refinery_schema_history (
                     version int4 PRIMARY KEY,
                     name VARCHAR(255),
                     applied_on VARCHAR(255),
                     checksum VARCHAR(255)
                 )",
            )
            .map_err(|error| context.statement(error))?;
        for migration in &self.migrations {
            if !self.is_applied(&transaction, migration, context)? {
                apply(&transaction, migration).map_err(|error| context.statement(error))?;
            }
        }
        transaction
            .pragma_update(None, "application_id", self.application_id)
            .and_then(|()| transaction.pragma_update(None, "user_version", self.newest()))
            .and_then(|()| transaction.commit())
            .map_err(|error| context.statement(error))
    }

    /// Whether the file has the migration, which must be the same one.
    fn is_applied(
        &self,
        connection: &Connection,
        migration: &Migration,
        context: Context,
    ) -> Result<bool, BackendError> {
        let checksum: Option<String> = connection
            .query_row(
                "SELECT checksum FROM refinery_schema_history WHERE version = ?1",
                [migration.version()],
                |row| row.get(0),
            )
            .optional()
            .map_err(|error| context.statement(error))?;
        match checksum {
            None => Ok(false),
            Some(checksum) if checksum == migration.checksum().to_string() => Ok(true),
            Some(_) => Err(context.storage(format!(
                "migration {migration} differs from the one that the file has"
            ))),
        }
    }
}

fn apply(connection: &Connection, migration: &Migration) -> rusqlite::Result<()> {
    let sql = migration
        .sql()
        .expect("an embedded migration always has its text");
    connection.execute_batch(sql)?;
    connection.execute(
        "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
         VALUES (?1, ?2, strftime('%Y-%m-%dT%H:%M:%SZ', 'now'), ?3)",
        rusqlite::params![
            migration.version(),
            migration.name(),
            migration.checksum().to_string()
        ],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::Lane;

    const CONTEXT: Context = Context {
        database: DatabaseName::Lane(Lane::Global),
        busy_timeout_ms: 0,
    };

    fn schema(migrations: &[(&str, &str)]) -> Schema {
        let migrations: Vec<_> = migrations
            .iter()
            .map(|(name, sql)| Migration::unapplied(name, sql).unwrap())
            .collect();
        Schema::new(*b"Test", &migrations)
    }

    fn tables(connection: &Connection) -> Vec<String> {
        connection
            .prepare("SELECT name FROM sqlite_schema WHERE name NOT LIKE '%history%' ORDER BY name")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<rusqlite::Result<_>>()
            .unwrap()
    }

    const FIRST: (&str, &str) = ("V1__first", "CREATE TABLE a (x)");
    const SECOND: (&str, &str) = ("V2__second", "CREATE TABLE b (x); INSERT INTO a VALUES (1)");

    #[test]
    fn an_old_file_gets_what_is_missing() {
        let mut connection = Connection::open_in_memory().unwrap();
        let (old, new) = (schema(&[FIRST]), schema(&[FIRST, SECOND]));
        assert_eq!(old.inspect(&connection, CONTEXT).unwrap(), State::Behind);
        old.migrate(&mut connection, CONTEXT).unwrap();
        assert_eq!(old.inspect(&connection, CONTEXT).unwrap(), State::Current);
        assert_eq!(new.inspect(&connection, CONTEXT).unwrap(), State::Behind);
        for _again in 0..2 {
            new.migrate(&mut connection, CONTEXT).unwrap();
            assert_eq!(tables(&connection), ["a", "b"]);
        }
        let rows: i64 = connection
            .query_row("SELECT count(*) FROM a", [], |row| row.get(0))
            .unwrap();
        assert_eq!(rows, 1);
        let newer = old.inspect(&connection, CONTEXT).unwrap_err();
        assert!(
            matches!(
                newer,
                BackendError::NewerVersion {
                    found: 2,
                    known: 1,
                    ..
                }
            ),
            "{newer:?}"
        );
    }

    #[test]
    fn migrations_are_applied_together_or_not_at_all() {
        let mut connection = Connection::open_in_memory().unwrap();
        let failing = schema(&[FIRST, ("V2__second", "CREATE TABLE b (x); SELECT nonsense")]);
        failing.migrate(&mut connection, CONTEXT).unwrap_err();
        assert!(tables(&connection).is_empty());
        schema(&[FIRST, SECOND])
            .migrate(&mut connection, CONTEXT)
            .unwrap();
        assert_eq!(tables(&connection), ["a", "b"]);
    }

    #[test]
    fn a_migration_that_was_edited_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        schema(&[FIRST]).migrate(&mut connection, CONTEXT).unwrap();
        let edited = schema(&[("V1__first", "CREATE TABLE other (x)"), SECOND]);
        edited.migrate(&mut connection, CONTEXT).unwrap_err();
        assert_eq!(tables(&connection), ["a"]);
    }

    /// Refinery's own tools read the history as if its runner had written it.
    #[test]
    fn the_history_is_refinerys() {
        let mut connection = Connection::open_in_memory().unwrap();
        let schemas = Schemas::embedded();
        schemas.lane.migrate(&mut connection, CONTEXT).unwrap();
        let report = lane::migrations::runner().run(&mut connection).unwrap();
        assert!(report.applied_migrations().is_empty());
    }
}
