//! The identifiers that arrive from outside, parsed once into types that
//! nothing below has to check again.

use std::fmt;
use std::str::FromStr;

use uuid::{Uuid, Variant};

use crate::error::Error;

/// The longest `jammi-session-id` that is accepted, in bytes.
pub const SESSION_ID_BYTES_MAX: usize = 128;

/// A tenant: a UUID of version 4 or 7.
///
/// Parsing accepts the 36-character hyphenated form in either case and keeps
/// the lower-case form. Braces, `urn:uuid:`, missing hyphens, surrounding
/// blanks, the nil and max UUIDs, and other versions are refused.
///
/// ```
/// use std::str::FromStr;
/// use jammi_db::TenantId;
///
/// let alice = TenantId::from_str("018F5A0E-C4C8-7E10-9C4F-3B6F7C5A8E9A")?;
/// assert_eq!(alice.to_string(), "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a");
/// assert!(TenantId::from_str("00000000-0000-0000-0000-000000000000").is_err());
/// # Ok::<(), jammi_db::error::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Uuid);

impl TenantId {
    /// The 16 bytes of the UUID in network order.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// A tenant that nobody else has: a UUID of version 4.
    pub fn random() -> Self {
        TenantId(Uuid::new_v4())
    }

    /// Writes the canonical text into `buffer` without allocating.
    pub fn encode<'a>(&self, buffer: &'a mut [u8; uuid::fmt::Hyphenated::LENGTH]) -> &'a str {
        self.0.as_hyphenated().encode_lower(buffer)
    }
}

impl FromStr for TenantId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |why: &str| {
            Err(Error::InvalidArgument(format!(
                "tenant id {} {why}: send a UUID of version 4 or 7 in hyphenated form, \
                 as in 018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a",
                quoted(text)
            )))
        };
        // Uuid::try_parse also takes the simple, braced and URN forms, which
        // all differ from the hyphenated one in length.
        if text.len() != 36 {
            return refuse("is not a hyphenated UUID");
        }
        let Ok(uuid) = Uuid::try_parse(text) else {
            return refuse("is not a hyphenated UUID");
        };
        if uuid.is_nil() {
            return refuse("is the nil UUID");
        }
        if uuid.is_max() {
            return refuse("is the max UUID");
        }
        if uuid.get_variant() != Variant::RFC4122 || !matches!(uuid.get_version_num(), 4 | 7) {
            return refuse("is a UUID of another version");
        }
        Ok(TenantId(uuid))
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.as_hyphenated(), f)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name that a client gives its session: 1 to 128 printable ASCII
/// characters without blanks.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(Box<str>);

impl SessionId {
    /// The text as the client sent it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A session that nobody else can name.
    pub fn random() -> Self {
        SessionId(Uuid::new_v4().to_string().into())
    }

    /// The session that `text` names. Errors tell it as `source`.
    pub fn parse(text: &str, source: &str) -> Result<Self, Error> {
        let refuse = |why: String| {
            Err(Error::InvalidArgument(format!(
                "{source} {why}: send 1 to {SESSION_ID_BYTES_MAX} printable ASCII \
                 characters without blanks, such as a UUID"
            )))
        };
        if text.is_empty() {
            return refuse("is empty".into());
        }
        if text.len() > SESSION_ID_BYTES_MAX {
            return refuse(format!("has {} bytes", text.len()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return refuse("has a blank, a control character or a non-ASCII character".into());
        }
        Ok(SessionId(text.into()))
    }
}

impl FromStr for SessionId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        SessionId::parse(text, "jammi-session-id")
    }
}

// A session id lets whoever knows it act as the session, so it is kept out of
// logs and debug output.
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(..)")
    }
}

/// `text` in quotes, escaped and cut to a length that fits an error message.
fn quoted(text: &str) -> String {
    const SHOWN_MAX: usize = 64;
    if text.chars().count() <= SHOWN_MAX {
        return format!("{text:?}");
    }
    let head: String = text.chars().take(SHOWN_MAX).collect();
    format!("{head:?}...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hyphenated_v4_and_v7_are_tenants() {
        for (text, ok) in [
            ("018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a", true),
            ("018F5A0E-C4C8-7E10-9C4F-3B6F7C5A8E9A", true),
            ("9b2e4f1c-5a70-4c1d-8e2f-0123456789ab", true),
            ("00000000-0000-0000-0000-000000000000", false),
            ("ffffffff-ffff-ffff-ffff-ffffffffffff", false),
            ("{018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a}", false),
            ("urn:uuid:018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a", false),
            ("018f5a0ec4c87e109c4f3b6f7c5a8e9a", false),
            ("018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a\n", false),
            (" 018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a", false),
            ("018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9g", false),
            // Version 1, and version 7 with the wrong variant.
            ("018f5a0e-c4c8-1e10-9c4f-3b6f7c5a8e9a", false),
            ("018f5a0e-c4c8-7e10-1c4f-3b6f7c5a8e9a", false),
            ("", false),
            ("\u{1F600}18f5a0e-c4c8-7e10-9c4f-3b6f7c5a8", false),
        ] {
            assert_eq!(TenantId::from_str(text).is_ok(), ok, "{text:?}");
        }
    }

    #[test]
    fn session_ids_are_short_printable_ascii() {
        let longest = "x".repeat(SESSION_ID_BYTES_MAX);
        let too_long = "x".repeat(SESSION_ID_BYTES_MAX + 1);
        for (text, ok) in [
            ("my-client-uuid", true),
            (longest.as_str(), true),
            (too_long.as_str(), false),
            ("", false),
            (" ", false),
            ("a b", false),
            ("a\tb", false),
            ("a\u{7f}", false),
            ("s\u{e9}ance", false),
        ] {
            assert_eq!(SessionId::from_str(text).is_ok(), ok, "{text:?}");
        }
    }
}
