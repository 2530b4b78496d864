//! The algorithms of signatures (RFC 7518, RFC 8037), and the keys that each takes.
//!
//! Invariant: a key verifies by the algorithms of its own kind alone: there is no
//! text, such as a public key's, that is taken for a secret.

use ring::{hmac, signature};
use serde::{Deserialize, Serialize};

/// How a token is signed, in the names of RFC 7518. There is no `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum JwtAlgorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl JwtAlgorithm {
    /// All there are.
    pub const ALL: [JwtAlgorithm; 12] = [
        JwtAlgorithm::HS256,
        JwtAlgorithm::HS384,
        JwtAlgorithm::HS512,
        JwtAlgorithm::RS256,
        JwtAlgorithm::RS384,
        JwtAlgorithm::RS512,
        JwtAlgorithm::PS256,
        JwtAlgorithm::PS384,
        JwtAlgorithm::PS512,
        JwtAlgorithm::ES256,
        JwtAlgorithm::ES384,
        JwtAlgorithm::EdDSA,
    ];

    /// Its name in a token's header.
    pub fn name(self) -> &'static str {
        match self {
            JwtAlgorithm::HS256 => "HS256",
            JwtAlgorithm::HS384 => "HS384",
            JwtAlgorithm::HS512 => "HS512",
            JwtAlgorithm::RS256 => "RS256",
            JwtAlgorithm::RS384 => "RS384",
            JwtAlgorithm::RS512 => "RS512",
            JwtAlgorithm::PS256 => "PS256",
            JwtAlgorithm::PS384 => "PS384",
            JwtAlgorithm::PS512 => "PS512",
            JwtAlgorithm::ES256 => "ES256",
            JwtAlgorithm::ES384 => "ES384",
            JwtAlgorithm::EdDSA => "EdDSA",
        }
    }

    /// The algorithm of a name.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// Of one that signs with a shared secret, the fewest bytes that the secret has
    /// (RFC 7518, section 3.2).
    pub fn secret_bytes_min(self) -> Option<usize> {
        match self {
            JwtAlgorithm::HS256 => Some(32),
            JwtAlgorithm::HS384 => Some(48),
            JwtAlgorithm::HS512 => Some(64),
            _ => None,
        }
    }
}

/// What verifies signatures. It has no debug output, which would show a secret.
pub(super) enum VerifyingKey {
    /// A secret.
    Secret(Vec<u8>),
    /// Modulus and exponent, big-endian, without leading zeros.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// A point, uncompressed.
    P256(Vec<u8>),
    /// A point, uncompressed.
    P384(Vec<u8>),
    /// As RFC 8032 encodes it.
    Ed25519(Vec<u8>),
}

impl VerifyingKey {
    /// Whether it is a key of `algorithm` at all.
    pub fn fits(&self, algorithm: JwtAlgorithm) -> bool {
        use JwtAlgorithm as A;
        match self {
            VerifyingKey::Secret(_) => matches!(algorithm, A::HS256 | A::HS384 | A::HS512),
            VerifyingKey::Rsa { .. } => matches!(
                algorithm,
                A::RS256 | A::RS384 | A::RS512 | A::PS256 | A::PS384 | A::PS512
            ),
            VerifyingKey::P256(_) => algorithm == A::ES256,
            VerifyingKey::P384(_) => algorithm == A::ES384,
            VerifyingKey::Ed25519(_) => algorithm == A::EdDSA,
        }
    }

    /// Whether `signature` is one of `message` by `algorithm`.
    pub fn verifies(&self, algorithm: JwtAlgorithm, message: &[u8], tag: &[u8]) -> bool {
        use JwtAlgorithm as A;
        let mac =
            |secret: &[u8], kind| hmac::verify(&hmac::Key::new(kind, secret), message, tag).is_ok();
        let rsa = |n: &[u8], e: &[u8], kind| {
            signature::RsaPublicKeyComponents { n, e }
                .verify(kind, message, tag)
                .is_ok()
        };
        let point = |kind, key: &[u8]| {
            signature::UnparsedPublicKey::new(kind, key)
                .verify(message, tag)
                .is_ok()
        };
        match (self, algorithm) {
            (VerifyingKey::Secret(secret), A::HS256) => mac(secret, hmac::HMAC_SHA256),
            (VerifyingKey::Secret(secret), A::HS384) => mac(secret, hmac::HMAC_SHA384),
            (VerifyingKey::Secret(secret), A::HS512) => mac(secret, hmac::HMAC_SHA512),
            (VerifyingKey::Rsa { n, e }, A::RS256) => {
                rsa(n, e, &signature::RSA_PKCS1_2048_8192_SHA256)
            }
            (VerifyingKey::Rsa { n, e }, A::RS384) => {
                rsa(n, e, &signature::RSA_PKCS1_2048_8192_SHA384)
            }
            (VerifyingKey::Rsa { n, e }, A::RS512) => {
                rsa(n, e, &signature::RSA_PKCS1_2048_8192_SHA512)
            }
            (VerifyingKey::Rsa { n, e }, A::PS256) => {
                rsa(n, e, &signature::RSA_PSS_2048_8192_SHA256)
            }
            (VerifyingKey::Rsa { n, e }, A::PS384) => {
                rsa(n, e, &signature::RSA_PSS_2048_8192_SHA384)
            }
            (VerifyingKey::Rsa { n, e }, A::PS512) => {
                rsa(n, e, &signature::RSA_PSS_2048_8192_SHA512)
            }
            (VerifyingKey::P256(key), A::ES256) => point(&signature::ECDSA_P256_SHA256_FIXED, key),
            (VerifyingKey::P384(key), A::ES384) => point(&signature::ECDSA_P384_SHA384_FIXED, key),
            (VerifyingKey::Ed25519(key), A::EdDSA) => {
                signature::UnparsedPublicKey::new(&signature::ED25519, key)
                    .verify(message, tag)
                    .is_ok()
            }
            _ => false,
        }
    }
}
