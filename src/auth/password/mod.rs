//! Users with passwords of their own.
//!
//! A password is hashed by Argon2id, which takes tens of milliseconds and memory by
//! design. So one that was right is remembered for a while, under a keyed hash, and
//! clients that shake hands go on by a token that this process has sealed.
//!
//! Invariant: a password, and whatever was given for it, is refused from the next
//! request on once any process has changed it or dropped its user.
//!
//! Invariant: who is no user costs what a wrong password costs.

mod hashing;
mod token;
mod users;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hmac::{Hmac, Mac};
use moka::sync::Cache;
use sha2::Sha256;

use self::hashing::Hasher;
use self::token::Sealer;
pub use self::users::{NewUser, User, Users};
use super::attempts::{Failures, site};
use super::credentials::{Shown, UserAndPassword};
use super::{AuthenticationError, Credentials, TenantExtension};
use crate::backend::Backend;
use crate::config::PasswordConfig;
use crate::error::{Error, Result};
use crate::tenant::{Principal, TenantId};

/// What these users are users of.
const REALM: &str = "password";
/// How long a password that was right is taken for right.
const REMEMBERED: Duration = Duration::from_secs(300);
/// How many of them are remembered.
const REMEMBERED_MAX: u64 = 10_000;

/// What changes with the password, and says nothing of it.
type Mark = [u8; 16];

/// Principals by their passwords.
pub struct Passwords {
    users: Users,
    hasher: Arc<Hasher>,
    /// By the network and the user that it names, under a hash.
    failures: Failures<(Option<IpAddr>, u64)>,
    hashing: RandomState,
    sealer: Sealer,
    /// The mark of the password that was right, by a keyed hash of user and password.
    remembered: Cache<[u8; 32], Mark>,
    keyed: Hmac<Sha256>,
    token_ms: i64,
    now_ms: fn() -> i64,
}

impl Passwords {
    /// The users that `backend` keeps. `now_ms` tells Unix time in milliseconds.
    pub fn new(backend: Backend, config: &PasswordConfig, now_ms: fn() -> i64) -> Self {
        Passwords {
            users: Users::new(backend, now_ms),
            hasher: Arc::default(),
            failures: Failures::new(config.failures_max, now_ms),
            hashing: RandomState::new(),
            sealer: Sealer::new(),
            remembered: Cache::builder()
                .max_capacity(REMEMBERED_MAX)
                .time_to_live(REMEMBERED)
                .build(),
            keyed: token::random_key(),
            token_ms: i64::try_from(config.token_secs).map_or(i64::MAX, |secs| secs * 1_000),
            now_ms,
        }
    }

    async fn find(&self, user: &str) -> Result<Option<Arc<users::Row>>, AuthenticationError> {
        self.users.find(user).await.map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "no user is read");
            AuthenticationError::Unavailable
        })
    }

    async fn by_password(
        &self,
        UserAndPassword { user, password }: &UserAndPassword,
        credentials: &Credentials<'_>,
    ) -> Result<Principal, AuthenticationError> {
        let row = self.find(user).await?;
        let digest = self.digest(user, password);
        let known = self.remembered.get(&digest);
        if let Some(row) = &row
            && known == Some(row.mark())
        {
            return Ok(row.principal.clone());
        }
        // Counted before the work, so that many at a time are not let by.
        credentials.attempt()?;
        let of_user = (site(credentials.peer()), self.hashing.hash_one(user));
        self.failures.count(of_user)?;
        let hashed = row.as_ref().map(|row| row.hashed.clone());
        let is_right = match self.hasher.verify(password, hashed).await {
            Ok(is_right) => is_right,
            Err(error) => {
                // Nothing was learnt of the password.
                self.failures.take_back(&of_user);
                return Err(error);
            }
        };
        match row.filter(|_| is_right) {
            None => Err(AuthenticationError::Refused),
            Some(row) => {
                self.failures.take_back(&of_user);
                self.remembered.insert(digest, row.mark());
                Ok(row.principal.clone())
            }
        }
    }

    async fn by_token(&self, token: &str) -> Result<Principal, AuthenticationError> {
        let opened = self.sealer.open(token, (self.now_ms)());
        let (user, mark) = opened.ok_or(AuthenticationError::Refused)?;
        let row = self.find(&user).await?;
        row.filter(|row| row.mark() == mark)
            .map(|row| row.principal.clone())
            .ok_or(AuthenticationError::Refused)
    }

    fn digest(&self, user: &str, password: &str) -> [u8; 32] {
        let mut keyed = self.keyed.clone();
        keyed.update(&(user.len() as u64).to_le_bytes());
        keyed.update(user.as_bytes());
        keyed.update(password.as_bytes());
        keyed.finalize().into_bytes().into()
    }
}

#[async_trait]
impl TenantExtension for Passwords {
    /// A user's password is sent by the `Basic` scheme, on each call or to shake
    /// hands, which gives a bearer token.
    async fn authenticate(
        &self,
        credentials: &Credentials<'_>,
    ) -> Result<Principal, AuthenticationError> {
        match credentials.shown(token::is_like_one, users::is_password)? {
            Shown::Bearer(token) => self.by_token(token).await,
            Shown::Basic(basic) => self.by_password(&basic, credentials).await,
        }
    }

    async fn list_tenants(&self) -> Result<Vec<TenantId>> {
        Ok(self.users.backend().tenants().await?)
    }

    async fn token(
        &self,
        credentials: &Credentials<'_>,
        principal: &Principal,
    ) -> Result<Option<String>, AuthenticationError> {
        let Some(basic) = credentials.basic()? else {
            return Ok(None);
        };
        let is_ours = users::is_password(&basic.password)
            && principal.name() == format!("{REALM}:{}", basic.user);
        if !is_ours {
            return Ok(None);
        }
        let row = self.find(&basic.user).await?;
        let row = row.ok_or(AuthenticationError::Refused)?;
        let until_ms = (self.now_ms)().saturating_add(self.token_ms);
        Ok(Some(self.sealer.seal(&basic.user, row.mark(), until_ms)))
    }
}

/// An error of the machine's, for the operator.
fn unhashable(error: argon2::Error) -> Error {
    Error::Internal {
        message: "the password cannot be hashed".into(),
        source: Some(error.to_string().into()),
    }
}

#[cfg(test)]
mod tests;
