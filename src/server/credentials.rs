//! The keys and users of an installation, in the words of
//! `jammi.v1.operator.OperatorService`: for that service, and for who works on the
//! directory itself.

use super::proto::operator as proto;
use super::tenant::{Clock, SystemClock};
use crate::auth::{ApiKey, ApiKeys, IssuedKey, NewApiKey, NewUser, User, Users};
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::tenant::{ActsFor, TenantId};

/// The keys and users of an installation.
#[derive(Clone)]
pub struct Credentials {
    keys: ApiKeys,
    users: Users,
    now_ms: fn() -> i64,
}

impl Credentials {
    /// Those that `backend` keeps.
    pub fn new(backend: &Backend) -> Self {
        let now_ms: fn() -> i64 = || SystemClock.now_ms();
        Credentials {
            keys: ApiKeys::new(backend.clone(), now_ms),
            users: Users::new(backend.clone(), now_ms),
            now_ms,
        }
    }

    /// Makes a key.
    ///
    /// # Errors
    /// As of [`ApiKeys::create`].
    pub async fn create_key(
        &self,
        request: proto::CreateKeyRequest,
    ) -> Result<proto::CreateKeyResponse> {
        let new = NewApiKey {
            user: request.user,
            acts_for: acts_for(request.acts_for)?,
            roles: request.roles.into_iter().collect(),
            expires_at_ms: request.expires_at_ms,
        };
        let (key, text) = issued(self.keys.create(new).await?);
        Ok(proto::CreateKeyResponse { key, text })
    }

    /// Every key.
    ///
    /// # Errors
    /// The storage's.
    pub async fn keys(&self) -> Result<Vec<proto::Key>> {
        Ok(self
            .keys
            .list()
            .await?
            .into_iter()
            .map(key_message)
            .collect())
    }

    /// Makes another key in place of one.
    ///
    /// # Errors
    /// As of [`ApiKeys::rotate`].
    pub async fn rotate_key(
        &self,
        request: proto::RotateKeyRequest,
    ) -> Result<proto::RotateKeyResponse> {
        let until_ms = request.old_until_ms.unwrap_or_else(self.now_ms);
        let (key, text) = issued(self.keys.rotate(&request.id, until_ms).await?);
        Ok(proto::RotateKeyResponse { key, text })
    }

    /// Has a key refused.
    ///
    /// # Errors
    /// As of [`ApiKeys::revoke`].
    pub async fn revoke_key(&self, id: &str) -> Result<()> {
        self.keys.revoke(id).await
    }

    /// Makes a user.
    ///
    /// # Errors
    /// As of [`Users::create`].
    pub async fn create_user(&self, request: proto::CreateUserRequest) -> Result<()> {
        let new = NewUser {
            name: request.name,
            acts_for: acts_for(request.acts_for)?,
            roles: request.roles.into_iter().collect(),
        };
        self.users.create(new, &secret(request.password)).await
    }

    /// Every user.
    ///
    /// # Errors
    /// The storage's.
    pub async fn users(&self) -> Result<Vec<proto::User>> {
        let users = self.users.list().await?;
        Ok(users.into_iter().map(user_message).collect())
    }

    /// Gives a user another password.
    ///
    /// # Errors
    /// As of [`Users::set_password`].
    pub async fn set_password(&self, request: proto::SetPasswordRequest) -> Result<()> {
        let password = secret(request.password);
        self.users.set_password(&request.name, &password).await
    }

    /// Has a user refused.
    ///
    /// # Errors
    /// As of [`Users::drop_user`].
    pub async fn drop_user(&self, name: &str) -> Result<()> {
        self.users.drop_user(name).await
    }
}

/// The tenants of a request. One that says none is of a credential for what is shared.
fn acts_for(message: Option<proto::ActsFor>) -> Result<ActsFor> {
    let proto::ActsFor { all, tenants } = message.unwrap_or_default();
    if all && !tenants.is_empty() {
        return Err(Error::InvalidArgument(
            "acts_for says all and names tenants too: say one of them".into(),
        ));
    }
    if all {
        return Ok(ActsFor::All);
    }
    let tenants = tenants.iter().map(|tenant| tenant.parse::<TenantId>());
    Ok(ActsFor::only(tenants.collect::<Result<Vec<_>>>()?))
}

/// The tenants of a credential as clients see them.
fn acts_for_message(acts_for: &ActsFor) -> Option<proto::ActsFor> {
    Some(match acts_for {
        ActsFor::All => proto::ActsFor {
            all: true,
            tenants: Vec::new(),
        },
        ActsFor::Only(tenants) => proto::ActsFor {
            all: false,
            tenants: tenants.iter().map(ToString::to_string).collect(),
        },
    })
}

fn secret(message: Option<proto::Secret>) -> String {
    message.map(|secret| secret.text).unwrap_or_default()
}

fn issued(issued: IssuedKey) -> (Option<proto::Key>, Option<proto::Secret>) {
    let text = proto::Secret { text: issued.text };
    (Some(key_message(issued.key)), Some(text))
}

fn key_message(key: ApiKey) -> proto::Key {
    proto::Key {
        acts_for: acts_for_message(&key.acts_for),
        id: key.id,
        user: key.user,
        roles: key.roles.into_iter().collect(),
        created_at_ms: key.created_at_ms,
        expires_at_ms: key.expires_at_ms,
        revoked_at_ms: key.revoked_at_ms,
    }
}

fn user_message(user: User) -> proto::User {
    proto::User {
        acts_for: acts_for_message(&user.acts_for),
        name: user.name,
        roles: user.roles.into_iter().collect(),
        created_at_ms: user.created_at_ms,
        changed_at_ms: user.changed_at_ms,
    }
}
