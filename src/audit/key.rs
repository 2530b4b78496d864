//! The key of a trail: it signs checkpoints, and hashes the names of sessions.
//!
//! It is made once for an artifact directory, in a file that its owner alone may read.
//! Whoever holds it can write another trail that is as good as this one: what it
//! signed is proof to those who have kept the public key, or a checkpoint, elsewhere.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use uuid::Uuid;

use super::chain::{Dropped, Place, hex};
use super::store::sync_directory;

const FILE_NAME: &str = "key";
/// What is signed begins with, so that a signature of one kind is none of another.
const CHECKPOINT: &[u8] = b"jammi audit checkpoint\0";
const RETENTION: &[u8] = b"jammi audit retention\0";
const SESSION: &[u8] = b"jammi audit session\0";
/// The bytes of a session's hash that are kept: enough to tell sessions apart.
const SESSION_BYTES: usize = 16;

/// The private key of a trail. It has no debug output.
pub(super) struct Key {
    pair: Ed25519KeyPair,
    sessions: hmac::Key,
}

impl Key {
    /// The key of the trail in `directory`, which is made where there is none.
    pub fn open_or_make(directory: &Path) -> io::Result<Key> {
        let path = directory.join(FILE_NAME);
        match fs::read(&path) {
            Ok(bytes) => return Key::of(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| io::Error::other("the system gives no random bytes"))?;
        let unfinished = directory.join(format!("{FILE_NAME}.{}", Uuid::new_v4().simple()));
        let written = write(&unfinished, made.as_ref());
        // One of several who come at once makes it; a link never replaces a file.
        let linked = written.and_then(|()| match fs::hard_link(&unfinished, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        });
        let _ = fs::remove_file(&unfinished);
        linked?;
        sync_directory(directory)?;
        Key::of(&fs::read(&path)?)
    }

    /// The key of the trail in `directory`, if it has one.
    pub fn open(directory: &Path) -> io::Result<Option<Key>> {
        match fs::read(directory.join(FILE_NAME)) {
            Ok(bytes) => Key::of(&bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn of(bytes: &[u8]) -> io::Result<Key> {
        let pair = Ed25519KeyPair::from_pkcs8(bytes).map_err(|_| {
            let text = "the audit key is damaged: put it back from a backup";
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        let mut secret = SESSION.to_vec();
        secret.extend_from_slice(bytes);
        let secret = ring::digest::digest(&ring::digest::SHA256, &secret);
        Ok(Key {
            pair,
            sessions: hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref()),
        })
    }

    /// What checks the key's signatures.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.pair.public_key().as_ref().to_vec())
    }

    /// The signature over all that is before `place`.
    pub fn sign_checkpoint(&self, place: Place, written: i64) -> String {
        self.sign(&checkpoint(place, written))
    }

    /// The signature over what was dropped.
    pub fn sign_retention(&self, dropped: &[Dropped], place: Place, written: i64) -> String {
        self.sign(&retention(dropped, place, written))
    }

    fn sign(&self, message: &[u8]) -> String {
        STANDARD_NO_PAD.encode(self.pair.sign(message))
    }

    /// What stands for a principal's session: the same for the same one, and nothing
    /// that the session's name can be guessed from without the key.
    pub fn session(&self, principal: &str, session: &str) -> String {
        let mut context = hmac::Context::with_key(&self.sessions);
        context.update(principal.as_bytes());
        context.update(&[0]);
        context.update(session.as_bytes());
        hex(&context.sign().as_ref()[..SESSION_BYTES])
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// What checks the signatures of a trail: 32 bytes, written in Base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(Vec<u8>);

impl PublicKey {
    /// The key that `text` spells.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
        (bytes.len() == 32).then_some(PublicKey(bytes))
    }

    pub(super) fn signed_checkpoint(&self, place: Place, written: i64, signature: &str) -> bool {
        self.signed(&checkpoint(place, written), signature)
    }

    pub(super) fn signed_retention(
        &self,
        dropped: &[Dropped],
        place: Place,
        written: i64,
        signature: &str,
    ) -> bool {
        self.signed(&retention(dropped, place, written), signature)
    }

    fn signed(&self, message: &[u8], signature: &str) -> bool {
        STANDARD_NO_PAD.decode(signature).is_ok_and(|signature| {
            let key = UnparsedPublicKey::new(&ED25519, &self.0);
            key.verify(message, &signature).is_ok()
        })
    }
}

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&STANDARD_NO_PAD.encode(&self.0))
    }
}

fn checkpoint(place: Place, written: i64) -> Vec<u8> {
    let mut message = CHECKPOINT.to_vec();
    add_place(&mut message, place);
    message.extend_from_slice(&written.to_be_bytes());
    message
}

fn retention(dropped: &[Dropped], place: Place, written: i64) -> Vec<u8> {
    let mut message = RETENTION.to_vec();
    add_place(&mut message, place);
    message.extend_from_slice(&written.to_be_bytes());
    for segment in dropped {
        message.extend_from_slice(&segment.segment.to_be_bytes());
        add_place(&mut message, segment.end);
    }
    message
}

fn add_place(message: &mut Vec<u8>, place: Place) {
    message.extend_from_slice(&place.position.to_be_bytes());
    message.extend_from_slice(place.previous.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_has_one_key_which_its_owner_alone_reads() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Key::open(dir.path()).unwrap().is_none());
        let made = Key::open_or_make(dir.path()).unwrap();
        let again = Key::open_or_make(dir.path()).unwrap();
        assert_eq!(made.public(), again.public());
        assert_eq!(
            PublicKey::parse(&made.public().to_string()),
            Some(made.public())
        );
        assert_eq!(made.session("a", "s"), again.session("a", "s"));
        assert_ne!(made.session("a", "s"), made.session("b", "s"));
        let files: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(files.len(), 1);
        let mode = fs::metadata(dir.path().join(FILE_NAME))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);

        fs::write(dir.path().join(FILE_NAME), b"no key").unwrap();
        let damaged = Key::open_or_make(dir.path()).err().unwrap();
        assert!(damaged.to_string().contains("damaged"), "{damaged}");
    }

    #[test]
    fn a_signature_is_of_one_place() {
        let dir = tempfile::tempdir().unwrap();
        let key = Key::open_or_make(dir.path()).unwrap();
        let signature = key.sign_checkpoint(Place::START, 7);
        let public = key.public();
        assert!(public.signed_checkpoint(Place::START, 7, &signature));
        assert!(!public.signed_checkpoint(Place::START.after(b""), 7, &signature));
        assert!(!public.signed_checkpoint(Place::START, 8, &signature));
        assert!(!public.signed_retention(&[], Place::START, 7, &signature));
        assert!(!public.signed_checkpoint(Place::START, 7, "AAAA"));
    }
}
