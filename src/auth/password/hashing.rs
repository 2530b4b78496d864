//! Argon2id, some at a time.

use std::sync::Arc;
use std::time::Duration;

use argon2::{Algorithm, Argon2, Params, Version};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{Mark, unhashable};
use crate::auth::AuthenticationError;
use crate::error::Result;

const HASH_BYTES: usize = 32;
/// What new hashes are made with: OWASP's recommendation for Argon2id.
const MEMORY_KIB: u32 = 19 * 1_024;
const PASSES: u32 = 2;
/// Passwords that are hashed at a time, each in so much memory.
const AT_A_TIME: usize = 4;
/// How long a password waits for its turn.
const WAIT: Duration = Duration::from_secs(10);

/// A password's hash, and what it was made with. It has no debug output.
#[derive(Clone)]
pub(super) struct Hashed {
    pub salt: Vec<u8>,
    pub hash: Vec<u8>,
    pub memory_kib: u32,
    pub passes: u32,
}

impl Hashed {
    /// Hashes a new password.
    pub fn of(password: &str) -> Result<Self> {
        let mut hashed = Hashed {
            salt: Uuid::new_v4().as_bytes().to_vec(),
            hash: Vec::new(),
            memory_kib: MEMORY_KIB,
            passes: PASSES,
        };
        hashed.hash = hashed.again(password).map_err(unhashable)?;
        Ok(hashed)
    }

    /// What is verified in place of a hash that there is not, at the same cost.
    fn nobodys() -> Self {
        Hashed {
            salt: vec![0; 16],
            hash: vec![0; HASH_BYTES],
            memory_kib: MEMORY_KIB,
            passes: PASSES,
        }
    }

    pub fn mark(&self) -> Mark {
        let digest = Sha256::new()
            .chain_update(&self.salt)
            .chain_update(&self.hash)
            .finalize();
        let mut mark = Mark::default();
        mark.copy_from_slice(&digest[..16]);
        mark
    }

    fn again(&self, password: &str) -> Result<Vec<u8>, argon2::Error> {
        let params = Params::new(self.memory_kib, self.passes, 1, Some(HASH_BYTES))?;
        let mut hash = vec![0; HASH_BYTES];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(
            password.as_bytes(),
            &self.salt,
            &mut hash,
        )?;
        Ok(hash)
    }
}

/// Verifies passwords.
pub(super) struct Hasher {
    turns: Arc<Semaphore>,
}

impl Default for Hasher {
    fn default() -> Self {
        Hasher {
            turns: Arc::new(Semaphore::new(AT_A_TIME)),
        }
    }
}

impl Hasher {
    /// Whether `password` has the hash; without one it has not, after as long.
    pub async fn verify(
        &self,
        password: &str,
        hashed: Option<Hashed>,
    ) -> Result<bool, AuthenticationError> {
        let turn = tokio::time::timeout(WAIT, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(AuthenticationError::Unavailable);
        };
        let password = password.to_owned();
        let verified = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let is_user = hashed.is_some();
            let hashed = hashed.unwrap_or_else(Hashed::nobodys);
            let hash = hashed.again(&password).ok()?;
            let is_equal: bool = hash.ct_eq(&hashed.hash).into();
            Some(is_equal && is_user)
        });
        match verified.await {
            Ok(Some(is_right)) => Ok(is_right),
            Ok(None) | Err(_) => {
                tracing::error!("a password could not be hashed");
                Err(AuthenticationError::Unavailable)
            }
        }
    }
}
