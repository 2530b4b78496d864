//! What a session's own things are kept under.

use std::fmt;

use uuid::{Builder, Uuid, Version};

/// Tells one session from another, where something belongs to a session alone.
/// Nobody can guess one, or tell from one what the client calls its session.
///
/// Whoever makes scopes makes it: at random for a session that is a value of this
/// process, and from the client's session id, under a key that is never stored,
/// for one that a header names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(Uuid);

impl SessionKey {
    /// The key of a session that is a value of this process, and ends with it.
    pub fn random() -> Self {
        SessionKey(Uuid::new_v4())
    }

    /// The key of a session that a client names: a keyed digest of the name, but for
    /// six bits.
    pub fn from_digest(digest: [u8; 16]) -> Self {
        SessionKey(Builder::from_custom_bytes(digest).into_uuid())
    }

    /// Whether a client names the session, so that nobody is told when it is given up.
    pub fn is_of_client(self) -> bool {
        self.0.get_version() == Some(Version::Custom)
    }

    /// The key in hexadecimal digits, as lanes record it.
    pub fn to_hex(self) -> String {
        self.0.simple().to_string()
    }
}

// Plans and scopes are shown in logs, where no session is named.
impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(..)")
    }
}
