//! Keys at a URL, fetched when they are needed and kept for a while.
//!
//! Invariant: fetches are no nearer to each other than a set time, whatever tokens
//! name, and keys that cannot be fetched again are used for a set time at most.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::Mutex;

use super::algorithm::JwtAlgorithm;
use super::keys::KeySet;
use crate::auth::AuthenticationError;
use crate::config::JwtConfig;
use crate::error::{Error, Result};

/// How long a fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The keys at a URL. Clones share them.
#[derive(Clone)]
pub(super) struct RemoteKeys(Arc<Inner>);

struct Inner {
    client: reqwest::Client,
    url: String,
    algorithms: Vec<JwtAlgorithm>,
    refresh_ms: i64,
    stale_ms: i64,
    retry_ms: i64,
    now_ms: fn() -> i64,
    fetched: RwLock<Option<Fetched>>,
    /// When it was last tried. Held while a fetch goes on.
    tried_at_ms: Mutex<Option<i64>>,
}

#[derive(Clone)]
struct Fetched {
    set: Arc<KeySet>,
    at_ms: i64,
}

impl RemoteKeys {
    /// The keys at `url`, which is not asked yet.
    ///
    /// # Errors
    /// A machine on which no client can be made.
    pub fn new(url: &str, config: &JwtConfig, now_ms: fn() -> i64) -> Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(FETCH_TIMEOUT)
            // A URL elsewhere is not the one that was said to be trusted.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Error::internal("keys cannot be fetched", error))?;
        let milliseconds = |secs: u64| i64::try_from(secs).map_or(i64::MAX, |secs| secs * 1_000);
        Ok(RemoteKeys(Arc::new(Inner {
            client,
            url: url.to_owned(),
            algorithms: config.algorithms.clone(),
            refresh_ms: milliseconds(config.keys_refresh_secs),
            stale_ms: milliseconds(config.keys_stale_secs),
            retry_ms: milliseconds(config.keys_retry_secs),
            now_ms,
            fetched: RwLock::default(),
            tried_at_ms: Mutex::default(),
        })))
    }

    /// The keys for a token whose key is called `id`.
    pub async fn current(&self, id: Option<&str>) -> Result<Arc<KeySet>, AuthenticationError> {
        let inner = &self.0;
        let now_ms = (inner.now_ms)();
        let known = inner.fetched.read().clone();
        if let Some(known) = known {
            let age_ms = now_ms.saturating_sub(known.at_ms);
            let is_named = id.is_none_or(|id| known.set.names(id));
            if age_ms < inner.refresh_ms && is_named {
                return Ok(known.set);
            }
            if age_ms < inner.stale_ms && is_named {
                // Nobody waits for keys that are as good as they were.
                let later = self.clone();
                tokio::spawn(async move { later.0.fetch().await });
                return Ok(known.set);
            }
        }
        // A request that is given up does not end the fetch that others wait for.
        let fetching = self.clone();
        let done = tokio::spawn(async move { fetching.0.fetch().await });
        if let Err(error) = done.await {
            tracing::error!(%error, "fetching keys has failed");
        }
        let known = inner.fetched.read().clone();
        known
            .filter(|known| now_ms.saturating_sub(known.at_ms) < inner.stale_ms)
            .map(|known| known.set)
            .ok_or(AuthenticationError::Unavailable)
    }
}

impl Inner {
    /// Fetches the keys, unless that was tried just before.
    async fn fetch(&self) {
        let mut tried_at_ms = self.tried_at_ms.lock().await;
        let now_ms = (self.now_ms)();
        let is_due = |tried_ms: i64| now_ms.saturating_sub(tried_ms) >= self.retry_ms;
        if !tried_at_ms.is_none_or(is_due) {
            return;
        }
        *tried_at_ms = Some(now_ms);
        match self.answer().await {
            Ok(set) => {
                let set = Arc::new(set);
                *self.fetched.write() = Some(Fetched { set, at_ms: now_ms });
                tracing::info!("keys of auth.jwt.keys_url were fetched");
            }
            Err(why) => tracing::error!(
                url = self.url,
                "auth.jwt.keys_url {why}: keys that were fetched before are used for \
                 auth.jwt.keys_stale_secs"
            ),
        }
    }

    async fn answer(&self) -> Result<KeySet, String> {
        let why = |error: reqwest::Error| format!("does not answer ({})", error.without_url());
        let request = self.client.get(&self.url);
        let request = request.header("accept", "application/json");
        let mut answer = request.send().await.map_err(why)?;
        if answer.status() != 200 {
            return Err(format!("answers {}", answer.status()));
        }
        let mut content = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(why)? {
            content.extend_from_slice(&chunk);
            if content.len() > ANSWER_BYTES_MAX {
                return Err(format!("answers more than {ANSWER_BYTES_MAX} bytes"));
            }
        }
        KeySet::of_answer(&content, &self.algorithms)
    }
}
