//! Keys that verify tokens, as files and URLs hold them: a secret, PEM, or a JWK set
//! (RFC 7517).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use moka::sync::Cache;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer};
use serde::Deserialize;
use x509_cert::Certificate;
use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::{self, Decode, Encode, Reader, SliceReader};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::algorithm::{JwtAlgorithm, VerifyingKey};
use super::claims::Proved;

/// The most keys of a set. A token that names none is tried with each.
const KEYS_MAX: usize = 32;
/// The smallest modulus of RSA, in bytes, which is the smallest that ring takes.
const RSA_BYTES_MIN: usize = 256;
/// Tokens that are known to be right.
const PROVED_MAX: u64 = 10_000;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A key, and what it may be used for.
pub(super) struct Key {
    id: Option<String>,
    algorithm: Option<JwtAlgorithm>,
    verifying: VerifyingKey,
}

/// The keys that hold at a time, and the tokens that they have proved.
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// By digest: the keys of another set prove for themselves.
    pub proved: Cache<[u8; 32], Proved>,
}

impl KeySet {
    fn new(keys: Vec<Key>) -> Self {
        KeySet {
            keys,
            proved: Cache::new(PROVED_MAX),
        }
    }

    /// What a file holds, of which `algorithms` are asked.
    ///
    /// # Errors
    /// What is wrong with it, for the operator.
    pub fn of_file(content: &[u8], algorithms: &[JwtAlgorithm]) -> Result<Self, String> {
        let set = if let Ok(set) = serde_json::from_slice::<JwkSet>(content) {
            KeySet::new(set.keys(algorithms)?)
        } else if content.starts_with(b"-----BEGIN") {
            KeySet::new(of_pem(content)?)
        } else if algorithms
            .iter()
            .all(|one| one.secret_bytes_min().is_some())
        {
            KeySet::new(vec![of_secret(content, algorithms)?])
        } else {
            return Err("holds neither PEM nor a JWK set".into());
        };
        let fits = |algorithm| set.keys.iter().any(|key| key.may(algorithm));
        match algorithms.iter().find(|algorithm| !fits(**algorithm)) {
            None => Ok(set),
            Some(algorithm) => Err(format!("holds no key of {}", algorithm.name())),
        }
    }

    /// What a URL has answered. Whoever can fetch a secret can sign with it, so
    /// secrets are none here.
    ///
    /// # Errors
    /// What is wrong with it, for the operator.
    pub fn of_answer(content: &[u8], algorithms: &[JwtAlgorithm]) -> Result<Self, String> {
        let set: JwkSet =
            serde_json::from_slice(content).map_err(|error| format!("is no JWK set ({error})"))?;
        let mut keys = set.keys(algorithms)?;
        keys.retain(|key| !matches!(key.verifying, VerifyingKey::Secret(_)));
        match keys.is_empty() {
            true => Err("holds no key of auth.jwt.algorithms".into()),
            false => Ok(KeySet::new(keys)),
        }
    }

    /// Whether there is a key of this name.
    pub fn names(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id.as_deref() == Some(id))
    }

    /// Whether a key that may sign by `algorithm`, and is called `id` where both have
    /// a name, has signed `message`.
    pub fn verifies(
        &self,
        algorithm: JwtAlgorithm,
        id: Option<&str>,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let is_named = |key: &&Key| match (key.id.as_deref(), id) {
            (Some(known), Some(id)) => known == id,
            _ => true,
        };
        let mut candidates = self.keys.iter().filter(is_named);
        candidates
            .any(|key| key.may(algorithm) && key.verifying.verifies(algorithm, message, signature))
    }
}

impl Key {
    fn may(&self, algorithm: JwtAlgorithm) -> bool {
        self.verifying.fits(algorithm) && self.algorithm.is_none_or(|only| only == algorithm)
    }

    fn of(verifying: VerifyingKey) -> Self {
        Key {
            id: None,
            algorithm: None,
            verifying,
        }
    }
}

fn of_secret(content: &[u8], algorithms: &[JwtAlgorithm]) -> Result<Key, String> {
    // As editors and shells end a file.
    let secret = content.strip_suffix(b"\n").unwrap_or(content);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    check_secret(secret, algorithms)?;
    Ok(Key::of(VerifyingKey::Secret(secret.to_vec())))
}

fn check_secret(secret: &[u8], algorithms: &[JwtAlgorithm]) -> Result<(), String> {
    let needed = algorithms
        .iter()
        .filter_map(|one| one.secret_bytes_min())
        .max();
    match needed {
        Some(needed) if secret.len() < needed => Err(format!(
            "holds a secret of {} bytes, where auth.jwt.algorithms need {needed}",
            secret.len()
        )),
        _ => Ok(()),
    }
}

fn of_pem(content: &[u8]) -> Result<Vec<Key>, String> {
    if PrivateKeyDer::from_pem_slice(content).is_ok() {
        return Err("holds a private key, where the public one is enough".into());
    }
    let mut keys = Vec::new();
    for key in SubjectPublicKeyInfoDer::pem_slice_iter(content) {
        let key = key.map_err(|error| format!("is no PEM ({error})"))?;
        let key = SubjectPublicKeyInfoOwned::from_der(&key).map_err(|error| none(&error))?;
        keys.push(of_public_key(&key)?);
    }
    for certificate in CertificateDer::pem_slice_iter(content) {
        let certificate = certificate.map_err(|error| format!("is no PEM ({error})"))?;
        let certificate = Certificate::from_der(&certificate).map_err(|error| none(&error))?;
        keys.push(of_public_key(
            &certificate.tbs_certificate.subject_public_key_info,
        )?);
    }
    match keys.len() {
        0 => Err("holds no public key in PEM".into()),
        1..=KEYS_MAX => Ok(keys),
        _ => Err(format!("holds more than {KEYS_MAX} keys")),
    }
}

fn none(error: &der::Error) -> String {
    format!("holds a key that is none ({error})")
}

fn of_public_key(info: &SubjectPublicKeyInfoOwned) -> Result<Key, String> {
    let bits = info.subject_public_key.raw_bytes();
    let curve = || {
        let parameters = info.algorithm.parameters.as_ref();
        let parameters = parameters.and_then(|parameters| parameters.to_der().ok());
        parameters.and_then(|der| ObjectIdentifier::from_der(&der).ok())
    };
    let verifying = match info.algorithm.oid {
        RSA => {
            let numbers = SliceReader::new(bits).and_then(|mut reader| {
                reader.sequence(|reader| Ok((UintRef::decode(reader)?, UintRef::decode(reader)?)))
            });
            let (n, e) = numbers.map_err(|error| none(&error))?;
            rsa(n.as_bytes(), e.as_bytes())?
        }
        EC => match curve() {
            Some(P256) => VerifyingKey::P256(bits.to_vec()),
            Some(P384) => VerifyingKey::P384(bits.to_vec()),
            _ => return Err("holds a key of a curve other than P-256 and P-384".into()),
        },
        ED25519 => VerifyingKey::Ed25519(bits.to_vec()),
        other => return Err(format!("holds a key of a kind that is not known ({other})")),
    };
    Ok(Key::of(verifying))
}

fn rsa(n: &[u8], e: &[u8]) -> Result<VerifyingKey, String> {
    let without_zeros = |number: &[u8]| {
        let first = number.iter().position(|byte| *byte != 0);
        number[first.unwrap_or(number.len())..].to_vec()
    };
    let (n, e) = (without_zeros(n), without_zeros(e));
    match n.len() < RSA_BYTES_MIN || e.is_empty() {
        true => Err("holds a key of RSA of less than 2048 bits".into()),
        false => Ok(VerifyingKey::Rsa { n, e }),
    }
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<serde_json::Value>,
}

/// A key as RFC 7517, 7518 and 8037 write it. What it is not for is left out.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
    d: Option<serde_json::Value>,
}

impl JwkSet {
    /// The keys that may sign by one of `algorithms`. A set may hold others, of kinds
    /// that are not known too.
    fn keys(self, algorithms: &[JwtAlgorithm]) -> Result<Vec<Key>, String> {
        let mut keys = Vec::new();
        for value in self.keys {
            let Ok(jwk) = serde_json::from_value::<Jwk>(value) else {
                continue;
            };
            if let Some(key) = jwk.key(algorithms)?
                && algorithms.iter().any(|algorithm| key.may(*algorithm))
            {
                keys.push(key);
            }
        }
        match keys.len() <= KEYS_MAX {
            true => Ok(keys),
            false => Err(format!("holds more than {KEYS_MAX} keys")),
        }
    }
}

impl Jwk {
    fn key(self, algorithms: &[JwtAlgorithm]) -> Result<Option<Key>, String> {
        let signs = self.usage.as_deref().is_none_or(|usage| usage == "sig");
        let verifies = |ops: &Vec<String>| ops.iter().any(|op| op == "verify");
        if !signs || !self.key_ops.as_ref().is_none_or(verifies) {
            return Ok(None);
        }
        let algorithm = match self.alg.as_deref().map(JwtAlgorithm::of_name) {
            None => None,
            Some(Some(algorithm)) => Some(algorithm),
            Some(None) => return Ok(None),
        };
        if self.kty != "oct" && self.d.is_some() {
            return Err("holds a private key, where the public one is enough".into());
        }
        let name = self.kid.as_deref().unwrap_or("without a name");
        let number = |text: &Option<String>| {
            let bytes = text
                .as_ref()
                .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
            bytes.ok_or_else(|| format!("holds a key that is none ({name})"))
        };
        let point = |bytes: usize| -> Result<Vec<u8>, String> {
            let (x, y) = (number(&self.x)?, number(&self.y)?);
            match x.len() == bytes && y.len() == bytes {
                true => Ok([vec![4], x, y].concat()),
                false => Err(format!("holds a key that is none ({name})")),
            }
        };
        let verifying = match (self.kty.as_str(), self.crv.as_deref()) {
            ("oct", _) => {
                let secret = number(&self.k)?;
                match algorithm {
                    Some(algorithm) => check_secret(&secret, &[algorithm])?,
                    None => check_secret(&secret, algorithms)?,
                }
                VerifyingKey::Secret(secret)
            }
            ("RSA", _) => rsa(&number(&self.n)?, &number(&self.e)?)?,
            ("EC", Some("P-256")) => VerifyingKey::P256(point(32)?),
            ("EC", Some("P-384")) => VerifyingKey::P384(point(48)?),
            ("OKP", Some("Ed25519")) => VerifyingKey::Ed25519(number(&self.x)?),
            _ => return Ok(None),
        };
        Ok(Some(Key {
            id: self.kid,
            algorithm,
            verifying,
        }))
    }
}
