//! The chain: lines of JSON, each of which holds the hash of the one before.
//!
//! A line is hashed as it stands in the file, without its line feed, so that
//! `sha256sum` of a line is the `previous` of the next.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Event;

/// A SHA-256 hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 32]);

impl Hash {
    /// What the first line holds in place of the hash of one before.
    pub const NONE: Hash = Hash([0; 32]);

    /// The hash of a line, without its line feed.
    pub fn of(line: &[u8]) -> Self {
        let mut hash = Hash::NONE;
        hash.0.copy_from_slice(digest(&SHA256, line).as_ref());
        hash
    }

    /// The hash that 64 hexadecimal digits in lower case spell.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        let mut hash = Hash::NONE;
        if digits.len() != 2 * hash.0.len() {
            return None;
        }
        for (byte, pair) in hash.0.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(hash)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.position, self.previous)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once(':')
            .and_then(|(position, previous)| {
                Some(Place {
                    position: position.parse().ok()?,
                    previous: Hash::parse(previous)?,
                })
            })
            .ok_or_else(|| "write it as `jammi audit verify` does: POSITION:HASH".to_owned())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        Hash::parse(&text).ok_or_else(|| serde::de::Error::custom("no hash"))
    }
}

/// `bytes` in hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| {
        [
            DIGITS[usize::from(byte >> 4)],
            DIGITS[usize::from(byte & 15)],
        ]
    });
    digits.map(char::from).collect()
}

/// A place between two lines: how many lines are before it, and the hash of the last
/// of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The lines before, which is the position of the line after.
    pub position: u64,
    /// The hash of the line before.
    pub previous: Hash,
}

impl Place {
    /// The beginning of every chain.
    pub const START: Place = Place {
        position: 0,
        previous: Hash::NONE,
    };

    /// The place after a line that stands here.
    pub(super) fn after(self, line: &[u8]) -> Place {
        Place {
            position: self.position + 1,
            previous: Hash::of(line),
        }
    }
}

/// A line of the trail.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line<E> {
    pub position: u64,
    pub previous: Hash,
    /// When it was written, in microseconds since 1970.
    pub written: i64,
    pub entry: E,
}

impl<E> Line<E> {
    /// Where the line says that it stands.
    pub fn place(&self) -> Place {
        Place {
            position: self.position,
            previous: self.previous,
        }
    }
}

/// What a line holds.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    /// What was asked.
    Event(Box<Event>),
    /// A signature over the place that the line stands at, and so over every line
    /// before it.
    Checkpoint { signature: String },
    /// The first segments were dropped for their age. Each is named by its number and
    /// by the place after its last line; the signature is over all of them.
    Retention {
        dropped: Vec<Dropped>,
        signature: String,
    },
    /// A process was ended while it wrote, and a part of a line was cut off. It belonged to
    /// no record that was promised to be on the disk.
    Torn {},
}

/// As [`Entry`], to write one without giving the event away.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum NewEntry<'a> {
    Event(&'a Event),
    Checkpoint {
        signature: &'a str,
    },
    Retention {
        dropped: &'a [Dropped],
        signature: &'a str,
    },
    Torn {
        bytes: u64,
    },
}

/// A segment that was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Dropped {
    pub segment: u64,
    pub end: Place,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_as_it_is_written() {
        let hash = Hash::of(b"abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.to_string(), text);
        assert_eq!(Hash::parse(text), Some(hash));
        for wrong in [
            "",
            &text[1..],
            &text.to_uppercase(),
            &text.replace('b', "g"),
        ] {
            assert_eq!(Hash::parse(wrong), None, "{wrong}");
        }
    }
}
