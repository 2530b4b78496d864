//! JSON Web Tokens (RFC 7519), signed by an issuer that the operator names.
//!
//! ```text
//! bearer -> header     algorithm and key, of those that are asked for
//!        -> keys       of a file, or of a URL
//!        -> signature  by a key of the algorithm's own kind
//!        -> claims     issuer, audience, times; user, tenants, roles
//! ```
//!
//! Invariant: nothing of a token but its header's algorithm and key is looked at
//! before its signature is verified.
//!
//! Deliberately absent: encrypted tokens (JWE), `crit` extensions, and keys that a
//! token brings along (`jwk`, `jku`, `x5c`, `x5u`).

mod algorithm;
mod claims;
mod keys;
mod remote;

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

pub use self::algorithm::JwtAlgorithm;
use self::claims::{Proved, proved};
use self::keys::KeySet;
use self::remote::RemoteKeys;
use super::{AuthenticationError, Credentials, TenantExtension};
use crate::backend::Backend;
use crate::config::JwtConfig;
use crate::config::watched::{Reload, SettingFile, Watched};
use crate::error::{Error, Result};
use crate::tenant::{Principal, TenantId};

/// Principals by the tokens of one issuer. Clones share its keys.
#[derive(Clone)]
pub struct Jwts {
    backend: Backend,
    config: Arc<JwtConfig>,
    keys: Keys,
    now_ms: fn() -> i64,
}

#[derive(Clone)]
enum Keys {
    File(Arc<Watched<KeySet>>),
    Url(RemoteKeys),
}

impl Jwts {
    /// By `config`, which was validated. `now_ms` tells Unix time in milliseconds.
    ///
    /// # Errors
    /// A file of keys that cannot be read, or holds none of the algorithms.
    pub fn open(backend: Backend, config: &JwtConfig, now_ms: fn() -> i64) -> Result<Self> {
        let keys = match (&config.keys_file, &config.keys_url) {
            (Some(file), _) => {
                let file = SettingFile {
                    setting: "auth.jwt.keys_file",
                    path: file.clone(),
                };
                let (algorithms, named) = (config.algorithms.clone(), file.clone());
                let mend = "write a secret, public keys in PEM, or a JWK set that fits \
                            auth.jwt.algorithms";
                Keys::File(Watched::open(vec![file], move |contents| {
                    let content = contents.first().map_or(&[][..], Vec::as_slice);
                    let set = KeySet::of_file(content, &algorithms);
                    set.map_err(|why| named.wrong(&why, mend))
                })?)
            }
            (None, Some(url)) => Keys::Url(RemoteKeys::new(url, config, now_ms)?),
            (None, None) => {
                return Err(Error::InvalidArgument(
                    "auth.methods names jwt: set auth.jwt.keys_file or auth.jwt.keys_url".into(),
                ));
            }
        };
        Ok(Jwts {
            backend,
            config: Arc::new(config.clone()),
            keys,
            now_ms,
        })
    }

    /// What reads the file of keys again, if there is one.
    pub fn reload(&self) -> Option<Arc<dyn Reload>> {
        match &self.keys {
            Keys::File(watched) => Some(Arc::clone(watched) as Arc<dyn Reload>),
            Keys::Url(_) => None,
        }
    }

    async fn holder(&self, token: &str) -> Result<Principal, AuthenticationError> {
        let header = Header::of(token, &self.config.algorithms);
        let header = header.ok_or(AuthenticationError::Refused)?;
        let keys = match &self.keys {
            Keys::File(watched) => watched.current(),
            Keys::Url(remote) => remote.current(header.kid.as_deref()).await?,
        };
        let digest = Sha256::digest(token).into();
        let known = match keys.proved.get(&digest) {
            Some(known) => known,
            None => {
                let found = self.prove(token, &header, &keys);
                let found = found.ok_or(AuthenticationError::Refused)?;
                keys.proved.insert(digest, found.clone());
                found
            }
        };
        match known.is_good_at((self.now_ms)()) {
            true => Ok(known.principal),
            false => Err(AuthenticationError::Refused),
        }
    }

    fn prove(&self, token: &str, header: &Header, keys: &KeySet) -> Option<Proved> {
        let (message, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let id = header.kid.as_deref();
        if !keys.verifies(header.algorithm, id, message.as_bytes(), &signature) {
            return None;
        }
        let (_, payload) = message.split_once('.')?;
        let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let claims: Map<String, Value> = serde_json::from_slice(&payload).ok()?;
        proved(&claims, &self.config)
    }
}

#[async_trait]
impl TenantExtension for Jwts {
    /// A token is sent as a bearer token, or as the password of its user.
    async fn authenticate(
        &self,
        credentials: &Credentials<'_>,
    ) -> Result<Principal, AuthenticationError> {
        let shown = credentials.shown(is_like_one, is_like_one)?;
        shown.by(self.holder(shown.text()).await?)
    }

    async fn list_tenants(&self) -> Result<Vec<TenantId>> {
        Ok(self.backend.tenants().await?)
    }
}

/// Whether a text has the form of a signed token: the header is JSON, three parts.
pub(super) fn is_like_one(text: &str) -> bool {
    // Base64 of `{"`, or of a brace and a blank.
    text.starts_with("ey") && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// What is asked of a token's header.
struct Header {
    algorithm: JwtAlgorithm,
    kid: Option<String>,
}

#[derive(Deserialize)]
struct RawHeader {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
}

impl Header {
    /// The header of a token that is signed by one of `algorithms`.
    fn of(token: &str, algorithms: &[JwtAlgorithm]) -> Option<Header> {
        let (header, _) = token.split_once('.')?;
        let header = URL_SAFE_NO_PAD.decode(header).ok()?;
        let header: RawHeader = serde_json::from_slice(&header).ok()?;
        let algorithm = JwtAlgorithm::of_name(&header.alg)?;
        let is_token = |typ: &String| {
            let typ = typ.to_ascii_lowercase();
            matches!(typ.trim_start_matches("application/"), "jwt" | "at+jwt")
        };
        let is_known = header.crit.is_none() && header.typ.as_ref().is_none_or(is_token);
        (is_known && algorithms.contains(&algorithm)).then_some(Header {
            algorithm,
            kid: header.kid,
        })
    }
}
