//! What clients' sessions are to the engine: keys that stand for their ids, and
//! how long what is kept under them lasts.
//!
//! Invariant: a key is made under a secret that lives as long as the process, so
//! what is kept under it says nothing of the id, and means nothing to a later
//! process.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use sha2::Sha256;
use uuid::Uuid;

use super::clock::Clock;
use crate::catalog::{TemporaryOwner, TemporarySessions};
use crate::server::accept::ConnectionId;
use crate::tenant::{Principal, SessionId, SessionKey};

/// Sessions of which it is remembered that they were ended. Of the oldest, handles
/// that are valid still are taken again.
const ENDED_MAX: u64 = 100_000;

/// The keys of clients' sessions. Clones share them.
#[derive(Clone)]
pub struct SessionKeys(Arc<Shared>);

struct Shared {
    keyed: Hmac<Sha256>,
    temporary: TemporarySessions,
    clock: Arc<dyn Clock>,
    idle_timeout_ms: i64,
    makers: Mutex<Makers>,
    /// The generation that each session has, while it is bound to nothing, since it was
    /// ended.
    ended: Cache<SessionKey, u64>,
    any_ended: AtomicBool,
}

/// The open connections by which lives of sessions made temporary tables.
#[derive(Default)]
struct Makers {
    of_life: HashMap<TemporaryOwner, HashSet<ConnectionId>>,
    of_connection: HashMap<ConnectionId, HashSet<TemporaryOwner>>,
    /// Whose they are, as far as they live.
    named: HashMap<SessionKey, (Principal, SessionId)>,
}

impl SessionKeys {
    /// Keys under a secret of their own. What `temporary` keeps of a session lasts
    /// until it is not used for `idle_timeout`.
    pub fn new(
        temporary: TemporarySessions,
        idle_timeout: Duration,
        clock: Arc<dyn Clock>,
    ) -> Self {
        // Two random UUIDs hold 244 random bits.
        let secret = [Uuid::new_v4(), Uuid::new_v4()].map(Uuid::into_bytes);
        let keyed =
            Hmac::new_from_slice(secret.as_flattened()).expect("HMAC takes a key of any length");
        SessionKeys(Arc::new(Shared {
            keyed,
            temporary,
            clock,
            idle_timeout_ms: idle_timeout.as_millis().try_into().unwrap_or(i64::MAX),
            makers: Mutex::default(),
            ended: Cache::builder()
                .max_capacity(ENDED_MAX)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            any_ended: AtomicBool::new(false),
        }))
    }

    /// The key of `session` of `principal`.
    pub(super) fn key(&self, principal: &Principal, session: &SessionId) -> SessionKey {
        self.key_of(principal.name(), session)
    }

    /// The key of `session` of the principal of this name.
    pub(in crate::server) fn key_of(&self, principal: &str, session: &SessionId) -> SessionKey {
        let mut mac = self.0.keyed.clone();
        mac.update(session.as_str().as_bytes());
        // No session id has a NUL.
        mac.update(&[0]);
        mac.update(principal.as_bytes());
        let mut digest = [0; 16];
        digest.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        SessionKey::from_digest(digest)
    }

    /// What a session is called where it is listed: a number below 2^63, of which
    /// neither its id nor its key is told.
    pub(in crate::server) fn number(&self, key: SessionKey) -> u64 {
        let mut mac = self.0.keyed.clone();
        // No principal's name has one.
        mac.update(b"\0number\0");
        mac.update(key.to_hex().as_bytes());
        let mut digits = [0; 8];
        digits.copy_from_slice(&mac.finalize().into_bytes()[..8]);
        u64::from_be_bytes(digits) >> 1
    }

    /// The generation of a session that is bound to nothing: 0, or another one since it
    /// was ended.
    pub(super) fn unbound_generation(&self, principal: &Principal, session: &SessionId) -> u64 {
        // Most servers never have such a session.
        match self.0.any_ended.load(Ordering::Acquire) {
            true => {
                let key = self.key(principal, session);
                self.0.ended.get(&key).unwrap_or(0)
            }
            false => 0,
        }
    }

    /// Ends a session that is bound to nothing any more: requests that were admitted
    /// before are refused where they ask, and so are their handles. `generation` is one
    /// that no session has had.
    pub(in crate::server) fn end(&self, key: SessionKey, generation: u64) {
        self.0.ended.insert(key, generation);
        self.0.any_ended.store(true, Ordering::Release);
    }

    /// The sessions that have temporary tables, and whose they are.
    pub(in crate::server) fn with_tables(&self) -> Vec<(Principal, SessionId)> {
        let makers = self.0.makers.lock();
        let living = makers.named.iter();
        let living = living.filter(|(key, _)| self.0.temporary.life(**key).is_some());
        living.map(|(_, whose)| whose.clone()).collect()
    }

    /// Notes that `session` of `principal` is in use.
    pub(super) fn used(&self, principal: &Principal, session: &SessionId) {
        let temporary = &self.0.temporary;
        if !temporary.is_empty() {
            let key = self.key(principal, session);
            temporary.touch(key, self.0.clock.now_ms(), self.0.idle_timeout_ms);
        }
    }

    /// Notes that a session has made a temporary table by `connection`.
    pub(in crate::server) fn made(
        &self,
        principal: &Principal,
        session: &SessionId,
        connection: ConnectionId,
    ) {
        let key = self.key(principal, session);
        let Some(life) = self.0.temporary.life(key) else {
            return;
        };
        let mut makers = self.0.makers.lock();
        if !makers.named.contains_key(&key) {
            // As many as live, and those that have ended since the last.
            let temporary = &self.0.temporary;
            makers.named.retain(|key, _| temporary.life(*key).is_some());
            makers
                .named
                .insert(key, (principal.clone(), session.clone()));
        }
        makers.of_life.entry(life).or_default().insert(connection);
        let of_connection = makers.of_connection.entry(connection).or_default();
        of_connection.insert(life);
    }

    /// Whether `session` ends with being closed on `connection`: not while another
    /// connection is open by which it has made temporary tables.
    pub(in crate::server) fn closed(
        &self,
        session: SessionKey,
        connection: Option<ConnectionId>,
    ) -> bool {
        let Some(life) = self.0.temporary.life(session) else {
            return true;
        };
        let mut makers = self.0.makers.lock();
        if let Some(connection) = connection {
            makers.part(life, connection);
            if makers.of_life.contains_key(&life) {
                return false;
            }
        }
        makers.forget(life);
        true
    }

    /// Forgets a connection that is gone. The session goes on: its client may be
    /// back.
    pub(in crate::server) fn connection_ended(&self, connection: ConnectionId) {
        let mut makers = self.0.makers.lock();
        let lives = makers.of_connection.remove(&connection);
        for life in lives.into_iter().flatten() {
            makers.part(life, connection);
        }
    }
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionKeys").finish_non_exhaustive()
    }
}

impl Makers {
    fn part(&mut self, life: TemporaryOwner, connection: ConnectionId) {
        if let Some(connections) = self.of_life.get_mut(&life) {
            connections.remove(&connection);
            if connections.is_empty() {
                self.of_life.remove(&life);
            }
        }
        if let Some(lives) = self.of_connection.get_mut(&connection) {
            lives.remove(&life);
            if lives.is_empty() {
                self.of_connection.remove(&connection);
            }
        }
    }

    fn forget(&mut self, life: TemporaryOwner) {
        let connections = self.of_life.remove(&life);
        for connection in connections.into_iter().flatten() {
            self.part(life, connection);
        }
    }
}
