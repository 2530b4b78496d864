//! Who asks: from what a request carries to a [`Principal`], or a refusal.
//!
//! [`TenantExtension`] is the one contract. What is built in keeps to it, and so does
//! an extension of one's own:
//!
//! ```
//! use async_trait::async_trait;
//! use jammi_db::TenantId;
//! use jammi_db::auth::{AuthenticationError, Credentials, TenantExtension};
//! use jammi_db::error::Result;
//! use jammi_db::tenant::{ActsFor, Principal};
//!
//! /// A gateway before the server has authenticated the caller, and names the tenant.
//! struct Gateway {
//!     tenants: Vec<TenantId>,
//! }
//!
//! #[async_trait]
//! impl TenantExtension for Gateway {
//!     async fn authenticate(
//!         &self,
//!         credentials: &Credentials<'_>,
//!     ) -> Result<Principal, AuthenticationError> {
//!         let named = credentials
//!             .header("x-gateway-tenant")?
//!             .ok_or(AuthenticationError::Absent)?;
//!         let tenant = named.parse().map_err(|_| AuthenticationError::Refused)?;
//!         match self.tenants.contains(&tenant) {
//!             true => Ok(Principal::new("gateway", named, ActsFor::only([tenant]))),
//!             false => Err(AuthenticationError::Refused),
//!         }
//!     }
//!
//!     async fn list_tenants(&self) -> Result<Vec<TenantId>> {
//!         Ok(self.tenants.clone())
//!     }
//! }
//! ```
//!
//! Architecture invariant: nothing here decides what a principal may touch. That is
//! the scope's, which is made from the principal where a request is admitted.

mod api_key;
mod attempts;
mod certificate;
mod credentials;
mod jwt;
mod mtls;
mod password;
pub(crate) mod registry;
mod withdrawal;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;

pub use api_key::{ApiKey, ApiKeys, IssuedKey, NewApiKey};
pub(crate) use attempts::Attempts;
pub use certificate::PeerCertificate;
pub use credentials::{Credentials, Transport};
pub use jwt::{JwtAlgorithm, Jwts};
pub use mtls::ClientCertificates;
pub use password::{NewUser, Passwords, User, Users};
pub use withdrawal::Withdrawn;
pub(crate) use withdrawal::withdraw;

use crate::backend::Backend;
use crate::error::Result;
use crate::tenant::{Principal, TenantId};

/// Says who asks.
#[async_trait]
pub trait TenantExtension: Send + Sync + 'static {
    /// Who the request's credential proves to ask.
    ///
    /// # Errors
    /// [`AuthenticationError::Absent`] for a request without a credential of the kind
    /// that is looked for: where there are several extensions, the next one is asked.
    /// Any other error ends the request. [`AuthenticationError::Refused`] is counted by
    /// the peer's network; where a credential could be guessed, ask
    /// [`Credentials::attempt`] before looking at it.
    async fn authenticate(
        &self,
        credentials: &Credentials<'_>,
    ) -> Result<Principal, AuthenticationError>;

    /// Every tenant that there is work to do for when nobody asks.
    ///
    /// # Errors
    /// Whatever keeps them from being listed.
    async fn list_tenants(&self) -> Result<Vec<TenantId>>;

    /// What a client sends as a bearer token from now on, once it has shaken hands as
    /// `principal`, whom these credentials have proved. None leaves it with what it
    /// has sent: its token, or its password where that is a token.
    ///
    /// # Errors
    /// As of [`TenantExtension::authenticate`].
    async fn token(
        &self,
        _credentials: &Credentials<'_>,
        _principal: &Principal,
    ) -> Result<Option<String>, AuthenticationError> {
        Ok(None)
    }
}

/// Why a request has no principal. The texts go to whoever asks, so they tell
/// nothing of credentials, of who issues them, or of tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationError {
    /// It carries no credential.
    #[error("the request carries no credential: send one in its metadata `authorization`")]
    Absent,
    /// Its credential is not accepted, for whatever reason.
    #[error("the request's credential is not accepted: send a valid one")]
    Refused,
    /// It cannot be told now.
    #[error("the request cannot be authenticated now: send it again")]
    Unavailable,
    /// Too many credentials from the same network were not accepted.
    #[error("too many credentials from here were not accepted: send the request again in a minute")]
    Throttled,
}

/// Authenticates nobody: whoever reaches the server is
/// [`Principal::trusted_network`].
#[derive(Clone, Debug)]
pub struct DefaultTenantExtension {
    backend: Backend,
}

impl DefaultTenantExtension {
    /// Lists the tenants that have a lane in `backend`.
    pub fn new(backend: Backend) -> Self {
        DefaultTenantExtension { backend }
    }
}

#[async_trait]
impl TenantExtension for DefaultTenantExtension {
    async fn authenticate(
        &self,
        _credentials: &Credentials<'_>,
    ) -> Result<Principal, AuthenticationError> {
        Ok(Principal::trusted_network())
    }

    async fn list_tenants(&self) -> Result<Vec<TenantId>> {
        Ok(self.backend.tenants().await?)
    }
}

/// Several extensions, the first of which that finds a credential of its kind
/// decides.
pub struct InOrder(Vec<Arc<dyn TenantExtension>>);

impl InOrder {
    /// Asks `extensions` one after the other.
    pub fn new(extensions: Vec<Arc<dyn TenantExtension>>) -> Self {
        InOrder(extensions)
    }
}

#[async_trait]
impl TenantExtension for InOrder {
    async fn authenticate(
        &self,
        credentials: &Credentials<'_>,
    ) -> Result<Principal, AuthenticationError> {
        for extension in &self.0 {
            match extension.authenticate(credentials).await {
                Err(AuthenticationError::Absent) => {}
                decided => return decided,
            }
        }
        // A credential that is of nobody's kind is not accepted by anybody.
        Err(match credentials.has_authorization() {
            true => AuthenticationError::Refused,
            false => AuthenticationError::Absent,
        })
    }

    async fn token(
        &self,
        credentials: &Credentials<'_>,
        principal: &Principal,
    ) -> Result<Option<String>, AuthenticationError> {
        for extension in &self.0 {
            if let Some(token) = extension.token(credentials, principal).await? {
                return Ok(Some(token));
            }
        }
        Ok(None)
    }

    async fn list_tenants(&self) -> Result<Vec<TenantId>> {
        let mut tenants = BTreeSet::new();
        for extension in &self.0 {
            tenants.extend(extension.list_tenants().await?);
        }
        Ok(tenants.into_iter().collect())
    }
}
