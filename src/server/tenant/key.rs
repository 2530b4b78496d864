//! The key of the session map, and how it is looked up without being made.
//!
//! Invariant: a session id means nothing without its principal, so a guessed
//! or replayed id under another principal finds nothing.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

use crate::tenant::SessionId;

/// A session of a principal, by the principal's name: what it may do may change while
/// its sessions last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionKey {
    pub principal: String,
    pub session: SessionId,
}

// Must hash as the borrowed form does, because the map looks one up by the
// other.
impl Hash for SessionKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self as &dyn KeyParts).hash(state);
    }
}

/// What a key is made of, borrowed.
pub(super) trait KeyParts {
    fn principal(&self) -> &str;
    fn session(&self) -> &SessionId;
}

impl KeyParts for SessionKey {
    fn principal(&self) -> &str {
        &self.principal
    }

    fn session(&self) -> &SessionId {
        &self.session
    }
}

impl KeyParts for (&str, &SessionId) {
    fn principal(&self) -> &str {
        self.0
    }

    fn session(&self) -> &SessionId {
        self.1
    }
}

impl<'a> Borrow<dyn KeyParts + 'a> for SessionKey {
    fn borrow(&self) -> &(dyn KeyParts + 'a) {
        self
    }
}

impl Hash for dyn KeyParts + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.principal().hash(state);
        self.session().hash(state);
    }
}

impl PartialEq for dyn KeyParts + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.session() == other.session() && self.principal() == other.principal()
    }
}

impl Eq for dyn KeyParts + '_ {}
