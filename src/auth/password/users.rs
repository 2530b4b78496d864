//! The users of an installation.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::hashing::Hashed;
use super::{Mark, REALM};
use crate::auth::registry::{Registry, Stored, acts_for_of, check_rights, rights_text};
use crate::auth::{api_key, jwt};
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::tenant::{ActsFor, Principal};

const NAME_BYTES_MAX: usize = 128;
/// NIST SP 800-63B asks for eight characters, and for no rules of what they are.
const PASSWORD_BYTES_MIN: usize = 8;
const PASSWORD_BYTES_MAX: usize = 1_024;

/// A user, but for the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name to sign in by.
    pub name: String,
    /// The tenants that the user acts for.
    pub acts_for: ActsFor,
    /// What the user may do beside that.
    pub roles: BTreeSet<String>,
    /// Unix time in milliseconds.
    pub created_at_ms: i64,
    /// Unix time in milliseconds at which the password was last set.
    pub changed_at_ms: i64,
}

/// A user to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUser {
    /// The name to sign in by.
    pub name: String,
    /// The tenants that the user acts for.
    pub acts_for: ActsFor,
    /// What the user may do beside that.
    pub roles: BTreeSet<String>,
}

/// The users of an installation. Clones share what they know.
#[derive(Clone)]
pub struct Users {
    rows: Registry<Row>,
    now_ms: fn() -> i64,
}

/// A user as it is stored.
pub(super) struct Row {
    pub user: User,
    pub hashed: Hashed,
    pub principal: Principal,
}

impl Row {
    pub fn mark(&self) -> Mark {
        self.hashed.mark()
    }
}

/// Whether a text can be the password of a user at all. Drivers send credentials of
/// other kinds as passwords too.
pub(super) fn is_password(text: &str) -> bool {
    (PASSWORD_BYTES_MIN..=PASSWORD_BYTES_MAX).contains(&text.len())
        && !api_key::is_like_one(text)
        && !jwt::is_like_one(text)
}

impl Users {
    /// The users that `backend` keeps. `now_ms` tells Unix time in milliseconds.
    pub fn new(backend: Backend, now_ms: fn() -> i64) -> Self {
        Users {
            rows: Registry::new(backend),
            now_ms,
        }
    }

    pub(super) fn backend(&self) -> &Backend {
        self.rows.backend()
    }

    pub(super) async fn find(&self, name: &str) -> Result<Option<Arc<Row>>> {
        self.rows.find(name).await
    }

    /// Makes a user with a password.
    ///
    /// # Errors
    /// `InvalidArgument` for a name, password or role that is none; `AlreadyExists`.
    pub async fn create(&self, new: NewUser, password: &str) -> Result<()> {
        check_name(&new.name)?;
        check_rights("user", &new.acts_for, &new.roles)?;
        let hashed = hash(password).await?;
        let now_ms = (self.now_ms)();
        let (acts_for, roles) = rights_text(&new.acts_for, &new.roles);
        let name = new.name.clone();
        let made = self
            .rows
            .write(move |transaction| {
                let sql = format!(
                    "INSERT INTO users ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)
                     ON CONFLICT DO NOTHING"
                );
                Ok(transaction.prepare_cached(&sql)?.execute((
                    name,
                    acts_for,
                    roles,
                    hashed.salt,
                    hashed.hash,
                    hashed.memory_kib,
                    hashed.passes,
                    now_ms,
                ))?)
            })
            .await?;
        match made {
            0 => Err(Error::AlreadyExists(format!(
                "user `{}` exists: choose another name, or give it another password with `jammi \
                 users passwd`",
                new.name
            ))),
            _ => Ok(()),
        }
    }

    /// Every user, in the order in which they were made.
    ///
    /// # Errors
    /// The storage's.
    pub async fn list(&self) -> Result<Vec<User>> {
        let rows = self.rows.all().await?;
        Ok(rows.into_iter().map(|row| row.user).collect())
    }

    /// Gives a user another password. Whoever is signed in by the old one is no more.
    ///
    /// # Errors
    /// `InvalidArgument` for a password that is none; `NotFound`.
    pub async fn set_password(&self, name: &str, password: &str) -> Result<()> {
        let hashed = hash(password).await?;
        let (now_ms, user) = ((self.now_ms)(), name.to_owned());
        let changed = self.rows.write(move |transaction| {
            Ok(transaction
                .prepare_cached(
                    "UPDATE users SET salt = ?2, hash = ?3, memory_kib = ?4, passes = ?5,
                            changed_at_ms = ?6
                     WHERE name = ?1",
                )?
                .execute((
                    user,
                    hashed.salt,
                    hashed.hash,
                    hashed.memory_kib,
                    hashed.passes,
                    now_ms,
                ))?)
        });
        found(changed.await?, name)
    }

    /// Has a user refused from the next request on.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn drop_user(&self, name: &str) -> Result<()> {
        let user = name.to_owned();
        let dropped = self.rows.write(move |transaction| {
            Ok(transaction
                .prepare_cached("DELETE FROM users WHERE name = ?1")?
                .execute([user])?)
        });
        found(dropped.await?, name)
    }
}

fn found(rows: usize, name: &str) -> Result<()> {
    match rows {
        0 => Err(Error::NotFound(format!(
            "there is no user `{name}`: see `jammi users list`"
        ))),
        _ => Ok(()),
    }
}

async fn hash(password: &str) -> Result<Hashed> {
    if !is_password(password) {
        return Err(Error::InvalidArgument(format!(
            "a password has {PASSWORD_BYTES_MIN} to {PASSWORD_BYTES_MAX} bytes, and is no key and no \
             token: choose another"
        )));
    }
    let password = password.to_owned();
    let hashed = tokio::task::spawn_blocking(move || Hashed::of(&password));
    hashed
        .await
        .map_err(|error| Error::internal("the password cannot be hashed", error))?
}

fn check_name(name: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b':';
    match (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain) {
        true => Ok(()),
        false => Err(Error::InvalidArgument(format!(
            "the name of a user is 1 to {NAME_BYTES_MAX} characters of printable ASCII without \
             blanks and colons: choose another name"
        ))),
    }
}

const COLUMNS: &str = "name, acts_for, roles, salt, hash, memory_kib, passes, created_at_ms, \
                       changed_at_ms";

pub(super) struct StoredUser {
    name: String,
    acts_for: String,
    roles: String,
    hashed: Hashed,
    created_at_ms: i64,
    changed_at_ms: i64,
}

impl Stored for Row {
    const TABLE: &'static str = "users";
    const NAME: &'static str = "name";
    const COLUMNS: &'static str = COLUMNS;
    type Raw = StoredUser;

    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredUser> {
        Ok(StoredUser {
            name: row.get(0)?,
            acts_for: row.get(1)?,
            roles: row.get(2)?,
            hashed: Hashed {
                salt: row.get(3)?,
                hash: row.get(4)?,
                memory_kib: row.get(5)?,
                passes: row.get(6)?,
            },
            created_at_ms: row.get(7)?,
            changed_at_ms: row.get(8)?,
        })
    }

    fn parse(stored: StoredUser) -> Result<Row> {
        let acts_for = acts_for_of(&stored.acts_for).ok_or_else(|| {
            Error::DataLoss(format!(
                "user `{}` is damaged: drop it and make it again",
                stored.name
            ))
        })?;
        let roles: BTreeSet<String> = stored
            .roles
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect();
        let principal = Principal::new(REALM, &stored.name, acts_for.clone());
        Ok(Row {
            hashed: stored.hashed,
            principal: principal.with_roles(roles.iter().cloned()),
            user: User {
                name: stored.name,
                acts_for,
                roles,
                created_at_ms: stored.created_at_ms,
                changed_at_ms: stored.changed_at_ms,
            },
        })
    }
}
