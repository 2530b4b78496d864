//! API keys: credentials that an operator makes, shows once, and revokes.
//!
//! A key is `jammi_<id>_<secret>`: 12 hexadecimal digits by which it is recognised,
//! and 244 random bits in 64. Of the secret only a digest is kept, in `system.db`;
//! with so many random bits a plain SHA-256 is as good as a slow one.
//!
//! Invariant: a key that any process has revoked is refused from the next request on.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::registry::{Registry, Stored, acts_for_of, check_rights, rights_text};
use super::{AuthenticationError, Credentials, TenantExtension};
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::tenant::{ActsFor, Principal, TenantId};

/// What every key begins with, so that tools which look for secrets find one.
const PREFIX: &str = "jammi_";
const ID_DIGITS: usize = 12;
const SECRET_DIGITS: usize = 64;
/// What keys' users are users of.
const REALM: &str = "api-key";
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
    rows: Registry<Row>,
    now_ms: fn() -> i64,
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
            rows: Registry::new(backend),
            now_ms,
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
        self.rows
            .write(move |transaction| Ok(insert(transaction, &key, &digest)?))
            .await?;
        Ok(issued)
    }

    /// Every key, in the order in which they were made.
    ///
    /// # Errors
    /// The storage's.
    pub async fn list(&self) -> Result<Vec<ApiKey>> {
        let rows = self.rows.all().await?;
        Ok(rows.into_iter().map(|row| row.key).collect())
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
        self.rows
            .write(move |transaction| {
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
        self.rows
            .write(move |transaction| {
                transaction
                    .prepare_cached("UPDATE api_keys SET revoked_at_ms = ?2 WHERE id = ?1")?
                    .execute((id, now_ms))?;
                Ok(())
            })
            .await?;
        Ok(())
    }

    async fn usable(&self, id: &str, now_ms: i64) -> Result<Arc<Row>> {
        let found = self
            .rows
            .read(id)
            .await?
            .filter(|row| row.is_usable(now_ms));
        found.ok_or_else(|| {
            Error::NotFound(format!(
                "there is no API key `{id}` in use: see `jammi keys list`"
            ))
        })
    }

    /// Who holds the key of this text.
    async fn holder(&self, text: &str) -> Result<Principal, AuthenticationError> {
        let id = id_of(text).ok_or(AuthenticationError::Refused)?;
        let row = self.rows.find(id).await.map_err(|error| {
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
}

#[async_trait]
impl TenantExtension for ApiKeys {
    /// A key is sent as a bearer token, or as the password of its user.
    async fn authenticate(
        &self,
        credentials: &Credentials<'_>,
    ) -> Result<Principal, AuthenticationError> {
        let shown = credentials.shown(is_like_one, is_like_one)?;
        shown.by(self.holder(shown.text()).await?)
    }

    async fn list_tenants(&self) -> Result<Vec<TenantId>> {
        Ok(self.rows.backend().tenants().await?)
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
    check_rights("key", &new.acts_for, &new.roles)
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

/// Whether a text says that it is a key.
pub(super) fn is_like_one(text: &str) -> bool {
    text.starts_with(PREFIX)
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

impl Stored for Row {
    const TABLE: &'static str = "api_keys";
    const NAME: &'static str = "id";
    const COLUMNS: &'static str = COLUMNS;
    type Raw = StoredKey;

    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredKey> {
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

    fn parse(stored: StoredKey) -> Result<Row> {
        let damaged = || {
            Error::DataLoss(format!(
                "API key `{}` is damaged: revoke it and make another",
                stored.id
            ))
        };
        let acts_for = acts_for_of(&stored.acts_for).ok_or_else(damaged)?;
        let roles: BTreeSet<String> = stored
            .roles
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect();
        let digest = stored.digest.as_slice().try_into().map_err(|_| damaged())?;
        let principal = Principal::new(REALM, &stored.user, acts_for.clone());
        Ok(Row {
            digest,
            principal: principal.with_roles(roles.iter().cloned()),
            key: ApiKey {
                id: stored.id,
                user: stored.user,
                acts_for,
                roles,
                created_at_ms: stored.created_at_ms,
                expires_at_ms: stored.expires_at_ms,
                revoked_at_ms: stored.revoked_at_ms,
            },
        })
    }
}

fn insert(
    connection: &rusqlite::Connection,
    key: &ApiKey,
    digest: &[u8; 32],
) -> rusqlite::Result<()> {
    let (acts_for, roles) = rights_text(&key.acts_for, &key.roles);
    connection
        .prepare_cached(&format!(
            "INSERT INTO api_keys ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL)"
        ))?
        .execute((
            &key.id,
            &key.user,
            acts_for,
            roles,
            digest,
            key.created_at_ms,
            key.expires_at_ms,
        ))?;
    Ok(())
}
