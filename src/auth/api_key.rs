//! API keys: credentials that an operator makes, shows once, and revokes.
//!
//! A key is `jammi_<id>_<secret>`: 12 hexadecimal digits by which it is recognised,
//! and 244 random bits in 64. Of the secret only a digest is kept, in `system.db`;
//! with so many random bits a plain SHA-256 is as good as a slow one.
//!
//! Invariant: a key that any process has revoked is refused from the next request on.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::OptionalExtension;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::{AuthenticationError, Credentials, TenantExtension};
use crate::backend::{Backend, LaneVersion};
use crate::error::{Error, Result};
use crate::tenant::{ActsFor, Principal, ROLES, TenantId};

/// What every key begins with, so that tools which look for secrets find one.
const PREFIX: &str = "jammi_";
const ID_DIGITS: usize = 12;
const SECRET_DIGITS: usize = 64;
/// What keys' users are users of.
const REALM: &str = "api-key";
/// Keys that are kept in memory; of others the row is read for each request.
const KNOWN_MAX: usize = 10_000;
const USER_BYTES_MAX: usize = 128;

/// A key, but for its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// What the key is recognised by.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// The tenants that it acts for.
    pub acts_for: ActsFor,
    /// What it may do beside that.
    pub roles: BTreeSet<String>,
    /// Unix time in milliseconds.
    pub created_at_ms: i64,
    /// Unix time in milliseconds from which on it is refused.
    pub expires_at_ms: Option<i64>,
    /// Unix time in milliseconds.
    pub revoked_at_ms: Option<i64>,
}

/// A key that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewApiKey {
    /// Whose it is: a name of the operator's choosing.
    pub user: String,
    /// The tenants that it acts for.
    pub acts_for: ActsFor,
    /// What it may do beside that.
    pub roles: BTreeSet<String>,
    /// Unix time in milliseconds from which on it is refused.
    pub expires_at_ms: Option<i64>,
}

/// A key that was made. Its text is nowhere else.
pub struct IssuedKey {
    /// The key.
    pub key: ApiKey,
    /// What its holder sends.
    pub text: String,
}

// Secrets are not shown.
impl fmt::Debug for IssuedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedKey")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// The keys of an installation. Clones share what they know.
#[derive(Clone)]
pub struct ApiKeys {
    backend: Backend,
    now_ms: fn() -> i64,
    known: Arc<Mutex<Known>>,
}

/// What was read of `system.db` at a version.
#[derive(Default)]
struct Known {
    version: Option<LaneVersion>,
    keys: HashMap<String, Arc<Row>>,
}

/// A key as it is stored.
struct Row {
    key: ApiKey,
    digest: [u8; 32],
    principal: Principal,
}

impl ApiKeys {
    /// The keys that `backend` keeps. `now_ms` tells Unix time in milliseconds.
    pub fn new(backend: Backend, now_ms: fn() -> i64) -> Self {
        ApiKeys {
            backend,
            now_ms,
            known: Arc::default(),
        }
    }

    /// Makes a key.
    ///
    /// # Errors
    /// `InvalidArgument` for a user or role that is none.
    pub async fn create(&self, new: NewApiKey) -> Result<IssuedKey> {
        check(&new)?;
        let issued = issue(new, (self.now_ms)());
        let (key, digest) = (issued.key.clone(), digest_of(&issued.text));
        self.backend
            .system_write(move |transaction| Ok(insert(transaction, &key, &digest)?))
            .await?;
        Ok(issued)
    }

    /// Every key, in the order in which they were made.
    ///
    /// # Errors
    /// The storage's.
    pub async fn list(&self) -> Result<Vec<ApiKey>> {
        let rows = self
            .backend
            .system_read(|transaction| {
                let mut select = transaction
                    .prepare_cached(&format!("SELECT {COLUMNS} FROM api_keys ORDER BY rowid"))?;
                let rows = select.query_map([], StoredKey::read)?;
                Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
            })
            .await?;
        rows.into_iter()
            .map(|row| Ok(row.parse()?.key.clone()))
            .collect()
    }

    /// Makes another key in place of one, which is refused from `old_until_ms` on.
    ///
    /// # Errors
    /// `NotFound` for a key that there is not, or that is revoked or expired already.
    pub async fn rotate(&self, id: &str, old_until_ms: i64) -> Result<IssuedKey> {
        let now_ms = (self.now_ms)();
        let old = self.usable(id, now_ms).await?;
        let issued = issue(
            NewApiKey {
                user: old.key.user.clone(),
                acts_for: old.key.acts_for.clone(),
                roles: old.key.roles.clone(),
                expires_at_ms: old.key.expires_at_ms,
            },
            now_ms,
        );
        let (key, digest) = (issued.key.clone(), digest_of(&issued.text));
        let id = id.to_owned();
        self.backend
            .system_write(move |transaction| {
                insert(transaction, &key, &digest)?;
                transaction
                    .prepare_cached(
                        "UPDATE api_keys
                         SET expires_at_ms = min(coalesce(expires_at_ms, ?2), ?2) WHERE id = ?1",
                    )?
                    .execute((id, old_until_ms))?;
                Ok(())
            })
            .await?;
        Ok(issued)
    }

    /// Has a key refused from the next request on.
    ///
    /// # Errors
    /// `NotFound` for a key that there is not, or that is revoked or expired already.
    pub async fn revoke(&self, id: &str) -> Result<()> {
        let now_ms = (self.now_ms)();
        self.usable(id, now_ms).await?;
        let id = id.to_owned();
        self.backend
            .system_write(move |transaction| {
                transaction
                    .prepare_cached("UPDATE api_keys SET revoked_at_ms = ?2 WHERE id = ?1")?
                    .execute((id, now_ms))?;
                Ok(())
            })
            .await?;
        Ok(())
    }

    async fn usable(&self, id: &str, now_ms: i64) -> Result<Arc<Row>> {
        let found = self.read(id).await?.filter(|row| row.is_usable(now_ms));
        found.ok_or_else(|| {
            Error::NotFound(format!(
                "there is no API key `{id}` in use: see `jammi keys list`"
            ))
        })
    }

    /// Who holds the key of this text.
    async fn holder(&self, text: &str) -> Result<Principal, AuthenticationError> {
        let id = id_of(text).ok_or(AuthenticationError::Refused)?;
        let row = self.find(id).await.map_err(|error| {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "no API key is read"
            );
            AuthenticationError::Unavailable
        })?;
        let row = row.ok_or(AuthenticationError::Refused)?;
        let is_right: bool = row.digest.ct_eq(&digest_of(text)).into();
        match is_right && row.is_usable((self.now_ms)()) {
            true => Ok(row.principal.clone()),
            false => Err(AuthenticationError::Refused),
        }
    }

    /// A key as it is now, from memory where nothing was written since.
    async fn find(&self, id: &str) -> Result<Option<Arc<Row>>> {
        let version = self.backend.system_version()?;
        {
            let known = self.known.lock();
            if known.version == Some(version)
                && let Some(row) = known.keys.get(id)
            {
                return Ok(Some(Arc::clone(row)));
            }
        }
        // The version is older than what is read, or as old.
        let row = self.read(id).await?;
        let mut known = self.known.lock();
        if known.version != Some(version) || known.keys.len() >= KNOWN_MAX {
            known.version = Some(version);
            known.keys.clear();
        }
        if let Some(row) = &row {
            known.keys.insert(id.to_owned(), Arc::clone(row));
        }
        Ok(row)
    }

    async fn read(&self, id: &str) -> Result<Option<Arc<Row>>> {
        let id = id.to_owned();
        let stored = self
            .backend
            .system_read(move |transaction| {
                let mut select = transaction
                    .prepare_cached(&format!("SELECT {COLUMNS} FROM api_keys WHERE id = ?1"))?;
                Ok(select.query_row([id], StoredKey::read).optional()?)
            })
            .await?;
        stored
            .map(|stored| stored.parse().map(Arc::new))
            .transpose()
    }
}

#[async_trait]
impl TenantExtension for ApiKeys {
    /// A key is sent as a bearer token, or as the password of its user.
    async fn authenticate(
        &self,
        credentials: &Credentials<'_>,
    ) -> Result<Principal, AuthenticationError> {
        if let Some(token) = credentials.bearer()? {
            return match token.starts_with(PREFIX) {
                true => self.holder(token).await,
                // Of another kind.
                false => Err(AuthenticationError::Absent),
            };
        }
        match credentials.basic()? {
            Some(basic) if basic.password.starts_with(PREFIX) => {
                let holder = self.holder(&basic.password).await?;
                match holder.user() == basic.user {
                    true => Ok(holder),
                    false => Err(AuthenticationError::Refused),
                }
            }
            _ => Err(AuthenticationError::Absent),
        }
    }

    async fn list_tenants(&self) -> Result<Vec<TenantId>> {
        Ok(self.backend.tenants().await?)
    }
}

impl Row {
    fn is_usable(&self, now_ms: i64) -> bool {
        self.key.revoked_at_ms.is_none()
            && self
                .key
                .expires_at_ms
                .is_none_or(|expires| now_ms < expires)
    }
}

fn check(new: &NewApiKey) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b':';
    if new.user.is_empty() || new.user.len() > USER_BYTES_MAX || !new.user.bytes().all(is_plain) {
        return Err(Error::InvalidArgument(format!(
            "the user of a key is 1 to {USER_BYTES_MAX} characters of printable ASCII without \
             blanks and colons: choose another name"
        )));
    }
    if let ActsFor::Only(tenants) = &new.acts_for
        && tenants.is_empty()
        && new.roles.is_empty()
    {
        return Err(Error::InvalidArgument(
            "a key that acts for no tenant and has no role may do nothing: name a tenant or a role"
                .into(),
        ));
    }
    match new
        .roles
        .iter()
        .find(|role| !ROLES.contains(&role.as_str()))
    {
        None => Ok(()),
        Some(role) => Err(Error::InvalidArgument(format!(
            "there is no role {role:?}: choose of {}",
            ROLES.join(", ")
        ))),
    }
}

fn issue(new: NewApiKey, now_ms: i64) -> IssuedKey {
    let random = || Uuid::new_v4().simple().to_string();
    let mut id = random();
    id.truncate(ID_DIGITS);
    IssuedKey {
        text: format!("{PREFIX}{id}_{}{}", random(), random()),
        key: ApiKey {
            id,
            user: new.user,
            acts_for: new.acts_for,
            roles: new.roles,
            created_at_ms: now_ms,
            expires_at_ms: new.expires_at_ms,
            revoked_at_ms: None,
        },
    }
}

/// The id in a text that has the form of a key.
fn id_of(text: &str) -> Option<&str> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    let is_hex = |digits: &str| {
        let mut bytes = digits.bytes();
        bytes.all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let fits = id.len() == ID_DIGITS && secret.len() == SECRET_DIGITS;
    (fits && is_hex(id) && is_hex(secret)).then_some(id)
}

fn digest_of(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

const COLUMNS: &str = "id, user, acts_for, roles, digest, created_at_ms, expires_at_ms, \
                       revoked_at_ms";
/// What `acts_for` holds of a key that acts for any tenant.
const ALL_TENANTS: &str = "*";

struct StoredKey {
    id: String,
    user: String,
    acts_for: String,
    roles: String,
    digest: Vec<u8>,
    created_at_ms: i64,
    expires_at_ms: Option<i64>,
    revoked_at_ms: Option<i64>,
}

impl StoredKey {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(StoredKey {
            id: row.get(0)?,
            user: row.get(1)?,
            acts_for: row.get(2)?,
            roles: row.get(3)?,
            digest: row.get(4)?,
            created_at_ms: row.get(5)?,
            expires_at_ms: row.get(6)?,
            revoked_at_ms: row.get(7)?,
        })
    }

    fn parse(self) -> Result<Row> {
        let damaged = || {
            Error::DataLoss(format!(
                "API key `{}` is damaged: revoke it and make another",
                self.id
            ))
        };
        let acts_for = match self.acts_for.as_str() {
            ALL_TENANTS => ActsFor::All,
            list => ActsFor::Only(
                list.split_ascii_whitespace()
                    .map(|tenant| tenant.parse().map_err(|_| damaged()))
                    .collect::<Result<_>>()?,
            ),
        };
        let roles: BTreeSet<String> = self
            .roles
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect();
        let digest = self.digest.as_slice().try_into().map_err(|_| damaged())?;
        let principal = Principal::new(REALM, &self.user, acts_for.clone());
        Ok(Row {
            digest,
            principal: principal.with_roles(roles.iter().cloned()),
            key: ApiKey {
                id: self.id,
                user: self.user,
                acts_for,
                roles,
                created_at_ms: self.created_at_ms,
                expires_at_ms: self.expires_at_ms,
                revoked_at_ms: self.revoked_at_ms,
            },
        })
    }
}

fn insert(
    connection: &rusqlite::Connection,
    key: &ApiKey,
    digest: &[u8; 32],
) -> rusqlite::Result<()> {
    let acts_for = match &key.acts_for {
        ActsFor::All => ALL_TENANTS.to_owned(),
        ActsFor::Only(tenants) => {
            let tenants: Vec<String> = tenants.iter().map(ToString::to_string).collect();
            tenants.join(" ")
        }
    };
    let roles: Vec<&str> = key.roles.iter().map(String::as_str).collect();
    connection
        .prepare_cached(&format!(
            "INSERT INTO api_keys ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL)"
        ))?
        .execute((
            &key.id,
            &key.user,
            acts_for,
            roles.join(" "),
            digest,
            key.created_at_ms,
            key.expires_at_ms,
        ))?;
    Ok(())
}
