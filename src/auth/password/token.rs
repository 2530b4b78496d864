//! The tokens that those who have shaken hands go on with.
//!
//! A token says its user, the mark of the password that it was given for, and when it
//! ends, under a MAC whose key lives as long as the process.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

use super::Mark;

/// What every token begins with: other kinds of bearers do not.
const PREFIX: &str = "jammi-token.";
const MAC_BYTES: usize = 32;
const FIXED_BYTES: usize = 8 + 16;

/// Seals and opens tokens.
pub(super) struct Sealer {
    keyed: Hmac<Sha256>,
}

/// A MAC under a key of its own.
pub(super) fn random_key() -> Hmac<Sha256> {
    // Four random UUIDs hold 488 random bits, well over the 256 that count.
    let mut key = [0_u8; 64];
    for part in key.chunks_exact_mut(16) {
        part.copy_from_slice(Uuid::new_v4().as_bytes());
    }
    Hmac::new_from_slice(&key).expect("HMAC takes a key of any length")
}

/// Whether a bearer is a token of this kind.
pub(super) fn is_like_one(text: &str) -> bool {
    text.starts_with(PREFIX)
}

impl Sealer {
    pub fn new() -> Self {
        Sealer {
            keyed: random_key(),
        }
    }

    /// A token of `user` until a Unix time in milliseconds.
    pub fn seal(&self, user: &str, mark: Mark, until_ms: i64) -> String {
        let mut content = Vec::with_capacity(FIXED_BYTES + user.len() + MAC_BYTES);
        content.extend_from_slice(&until_ms.to_be_bytes());
        content.extend_from_slice(&mark);
        content.extend_from_slice(user.as_bytes());
        let mut keyed = self.keyed.clone();
        keyed.update(&content);
        content.extend_from_slice(&keyed.finalize().into_bytes());
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(content))
    }

    /// Of a token that was sealed here and lasts at `now_ms`, the user and the mark.
    pub fn open(&self, token: &str, now_ms: i64) -> Option<(String, Mark)> {
        let sealed = URL_SAFE_NO_PAD.decode(token.strip_prefix(PREFIX)?).ok()?;
        let (content, mac) = sealed.split_at_checked(sealed.len().checked_sub(MAC_BYTES)?)?;
        let mut keyed = self.keyed.clone();
        keyed.update(content);
        keyed.verify_slice(mac).ok()?;
        let (until_ms, rest) = content.split_first_chunk::<8>()?;
        let (mark, user) = rest.split_first_chunk::<16>()?;
        let user = String::from_utf8(user.to_vec()).ok()?;
        (now_ms < i64::from_be_bytes(*until_ms)).then_some((user, *mark))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_here_unchanged_and_in_time() {
        let sealer = Sealer::new();
        let token = sealer.seal("alice", [7; 16], 1_000);
        assert_eq!(sealer.open(&token, 999), Some(("alice".into(), [7; 16])));
        assert_eq!(sealer.open(&token, 1_000), None);
        assert_eq!(Sealer::new().open(&token, 0), None);
        for at in PREFIX.len()..token.len() {
            let mut edited = token.clone().into_bytes();
            edited[at] = if edited[at] == b'A' { b'B' } else { b'A' };
            let edited = String::from_utf8(edited).unwrap();
            assert_eq!(sealer.open(&edited, 0), None, "{at}");
            assert_eq!(sealer.open(&token[..at], 0), None, "{at}");
        }
    }
}
