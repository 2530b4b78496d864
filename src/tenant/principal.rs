//! Who is asking, and what they may ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::TenantId;
use crate::error::{Error, Result};

/// The role that writes what every tenant reads.
pub const GLOBAL_WRITER: &str = "global-writer";

/// The role that runs the installation: its keys, users, sessions, queries and audit
/// trail. It reads no tenant's rows.
pub const OPERATOR: &str = "operator";

/// The role that may read other tenants' rows, for one request at a time and on record.
pub const SUPER_ADMIN: &str = "super-admin";

/// Every role there is.
pub const ROLES: [&str; 3] = [GLOBAL_WRITER, OPERATOR, SUPER_ADMIN];

/// What is answered for a tenant that the caller does not act for, and for one that
/// there is not.
pub fn not_ones_own() -> Error {
    Error::PermissionDenied(
        "the credential does not act for the tenant: bind one that it acts for".into(),
    )
}

/// Who is asking, as a credential proves it. Clones share it. Two are equal that may
/// do the same under one name.
///
/// ```
/// use std::str::FromStr;
/// use jammi_db::TenantId;
/// use jammi_db::tenant::{ActsFor, Principal};
///
/// let alice = TenantId::from_str("018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a")?;
/// let principal = Principal::new("api-key", "nightly-export", ActsFor::only([alice]));
/// assert_eq!(principal.name(), "api-key:nightly-export");
/// assert!(principal.acts_for(alice));
/// assert!(!principal.has_role("global-writer"));
/// # Ok::<(), jammi_db::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Principal(Arc<Identity>);

// By the name alone, which equal ones share: some act for thousands of tenants.
impl Hash for Principal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    name: String,
    user: String,
    acts_for: ActsFor,
    roles: BTreeSet<String>,
    attributes: BTreeMap<String, String>,
}

/// The tenants that a principal may act as.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ActsFor {
    /// Any.
    All,
    /// These.
    Only(BTreeSet<TenantId>),
}

impl ActsFor {
    /// These tenants and no other.
    pub fn only(tenants: impl IntoIterator<Item = TenantId>) -> Self {
        ActsFor::Only(tenants.into_iter().collect())
    }
}

impl Principal {
    /// A user as `realm` knows it: users of two realms are never the same, whatever
    /// they are called.
    pub fn new(realm: &str, user: &str, acts_for: ActsFor) -> Self {
        Principal(Arc::new(Identity {
            name: format!("{realm}:{user}"),
            user: user.to_owned(),
            acts_for,
            roles: BTreeSet::new(),
            attributes: BTreeMap::new(),
        }))
    }

    /// Whoever can reach the server or open the artifact directory, when nothing
    /// authenticates: they act as any tenant, write what is shared, and run the
    /// installation.
    pub fn trusted_network() -> Self {
        const NAME: &str = "trusted-network";
        Principal(Arc::new(Identity {
            name: NAME.to_owned(),
            user: NAME.to_owned(),
            acts_for: ActsFor::All,
            roles: ROLES.map(str::to_owned).into(),
            attributes: BTreeMap::new(),
        }))
    }

    /// The principal with these roles.
    #[must_use]
    pub fn with_roles(mut self, roles: impl IntoIterator<Item = String>) -> Self {
        Arc::make_mut(&mut self.0).roles = roles.into_iter().collect();
        self
    }

    /// The principal with these attributes, for policies to look at.
    #[must_use]
    pub fn with_attributes(
        mut self,
        attributes: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        Arc::make_mut(&mut self.0).attributes = attributes.into_iter().collect();
        self
    }

    /// The principal's stable name, which tells it from every other: sessions and
    /// handles are its own by this.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What its realm calls it.
    pub fn user(&self) -> &str {
        &self.0.user
    }

    /// Whether it may act as `tenant`.
    pub fn acts_for(&self, tenant: TenantId) -> bool {
        match &self.0.acts_for {
            ActsFor::All => true,
            ActsFor::Only(tenants) => tenants.contains(&tenant),
        }
    }

    /// Refuses a tenant that it may not act as.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`], in the same words whether or not there is such a
    /// tenant.
    pub fn require_acting_for(&self, tenant: TenantId) -> Result<()> {
        match self.acts_for(tenant) {
            true => Ok(()),
            false => Err(not_ones_own()),
        }
    }

    /// The tenant that it acts as, where that is exactly one.
    pub fn only_tenant(&self) -> Option<TenantId> {
        match &self.0.acts_for {
            ActsFor::Only(tenants) if tenants.len() == 1 => tenants.first().copied(),
            ActsFor::All | ActsFor::Only(_) => None,
        }
    }

    /// What it may do beside acting as its tenants.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.0.roles.iter().map(String::as_str)
    }

    /// Whether it has the role.
    pub fn has_role(&self, role: &str) -> bool {
        self.0.roles.contains(role)
    }

    /// Whether it runs the installation.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`].
    pub fn require_operator(&self) -> Result<()> {
        self.require(OPERATOR)
    }

    /// Refuses whoever does not have `role`.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`].
    pub fn require(&self, role: &str) -> Result<()> {
        match self.has_role(role) {
            true => Ok(()),
            false => Err(Error::PermissionDenied(format!(
                "this takes the role {role}, which the credential does not have: ask the operator \
                 of the server"
            ))),
        }
    }

    /// What its credential says of it beside that.
    pub fn attributes(&self) -> &BTreeMap<String, String> {
        &self.0.attributes
    }
}
