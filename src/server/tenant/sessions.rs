//! The session map: which tenant each session is bound to.
//!
//! Invariants: a lookup takes no lock that a writer holds across anything slow;
//! all changes pass through one writer, so memory and disk agree whatever
//! order concurrent callers arrive in; a binding is durable before it is
//! answered or seen. A generation is never used twice, not even by a later
//! process on the same artifact directory.
//!
//! Deliberately absent: a tenant to fall back to. A session without a binding
//! is bound to nothing.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use dashmap::DashMap;
use metrics::gauge;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::clock::Clock;
use super::key::{KeyParts, SessionKey};
use super::store::{BindingStore, Change};
use super::writer::{Command, Writer};
use crate::config::SessionsConfig;
use crate::error::{Error, Result};
use crate::tenant::{Principal, SessionId, TenantId};

/// How many changes may wait for the writer; more callers than that wait to
/// hand theirs over.
const WAITING_CHANGES_MAX: usize = 1_024;

/// The bindings of all sessions. Clones share them.
#[derive(Clone)]
pub struct SessionMap {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

/// What a session is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The tenant.
    pub tenant: TenantId,
    /// Changes whenever the binding does; never 0.
    pub generation: u64,
}

/// A session that is bound, as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundSession {
    /// The name of the principal whose it is.
    pub principal: String,
    /// The session.
    pub session: SessionId,
    /// The tenant that it is bound to.
    pub tenant: TenantId,
    /// Unix time in milliseconds.
    pub used_at_ms: i64,
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Bindings that were idle for too long and are forgotten.
    pub expired: usize,
    /// Bindings whose last use was written down.
    pub touched: usize,
}

impl SessionMap {
    /// The bindings in `store` that are not idle, with the task that writes further
    /// ones. The task ends once every clone of the map is gone.
    ///
    /// # Errors
    /// The store's.
    pub async fn open(
        store: Arc<dyn BindingStore>,
        limits: &SessionsConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<SessionMap> {
        let idle_timeout_ms = i64::try_from(limits.idle_timeout_secs.saturating_mul(1_000));
        let shared = Arc::new(Shared {
            bindings: DashMap::new(),
            max: limits.max,
            idle_timeout_ms: idle_timeout_ms.unwrap_or(i64::MAX),
            generation: AtomicU64::new(first_generation()),
            clock,
        });
        let mut expired = Vec::new();
        for stored in store.load().await? {
            let Some((session, tenant)) = stored.parse() else {
                continue;
            };
            let principal = stored.principal;
            if shared.is_idle(stored.last_used_ms, shared.clock.now_ms()) {
                expired.push(Change::Remove { principal, session });
                continue;
            }
            let key = SessionKey { principal, session };
            shared.insert(key, tenant, shared.next_generation(), stored.last_used_ms);
        }
        if !expired.is_empty() {
            store.apply(expired).await?;
        }
        shared.publish_size();
        let (commands, waiting) = mpsc::channel(WAITING_CHANGES_MAX);
        tokio::spawn(Writer::new(Arc::clone(&shared), store, waiting).run());
        Ok(SessionMap { shared, commands })
    }

    /// What `session` of `principal` is bound to, which counts as using it.
    pub fn binding(&self, principal: &Principal, session: &SessionId) -> Option<Bound> {
        self.shared.look_up(&(principal.name(), session))
    }

    /// Binds `session` to `tenant`. A binding to the same tenant stays as it
    /// is; another one is replaced, under a new generation. The binding is on
    /// disk when this returns, also where the caller gave up waiting and only
    /// learns of it later.
    ///
    /// # Errors
    /// [`Error::ResourceExhausted`] when `sessions.max` sessions are bound, and
    /// the store's.
    pub async fn bind(
        &self,
        principal: &Principal,
        session: &SessionId,
        tenant: TenantId,
    ) -> Result<Bound> {
        let (reply, answer) = oneshot::channel();
        let key = SessionKey {
            principal: principal.name().to_owned(),
            session: session.clone(),
        };
        self.send(Command::Bind { key, tenant, reply }).await?;
        answer.await.map_err(|_| stopped())?
    }

    /// Forgets the binding of `session`, if there is one.
    ///
    /// # Errors
    /// The store's.
    pub async fn clear(&self, principal: &Principal, session: &SessionId) -> Result<()> {
        self.clear_of(principal.name(), session).await
    }

    /// As [`SessionMap::clear`], of the principal of this name.
    ///
    /// # Errors
    /// The store's.
    pub async fn clear_of(&self, principal: &str, session: &SessionId) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        let key = SessionKey {
            principal: principal.to_owned(),
            session: session.clone(),
        };
        self.send(Command::Clear { key, reply }).await?;
        answer.await.map_err(|_| stopped())?
    }

    /// Forgets every binding to `tenant`.
    ///
    /// # Errors
    /// The store's.
    pub async fn unbind(&self, tenant: TenantId) -> Result<()> {
        let bound = self.shared.bindings.iter();
        let bound = bound.filter(|entry| entry.bound.tenant == tenant);
        let keys: Vec<SessionKey> = bound.map(|entry| entry.key().clone()).collect();
        for key in keys {
            let (reply, answer) = oneshot::channel();
            self.send(Command::Clear { key, reply }).await?;
            answer.await.map_err(|_| stopped())??;
        }
        Ok(())
    }

    /// Forgets the bindings that have been idle for too long, and writes down
    /// when the others were last used.
    ///
    /// # Errors
    /// The store's.
    pub async fn sweep(&self) -> Result<Swept> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Sweep { reply }).await?;
        answer.await.map_err(|_| stopped())?
    }

    /// The sessions that are bound, but for idle ones, of the principals whose names
    /// `which` holds of.
    pub fn list(&self, which: impl Fn(&str) -> bool) -> Vec<BoundSession> {
        let now_ms = self.shared.clock.now_ms();
        let bindings = self.shared.bindings.iter();
        let listed = bindings.filter_map(|entry| {
            let (key, binding) = entry.pair();
            let used_at_ms = binding.last_used_ms.load(Ordering::Relaxed);
            let is_listed = which(&key.principal) && !self.shared.is_idle(used_at_ms, now_ms);
            is_listed.then(|| BoundSession {
                principal: key.principal.clone(),
                session: key.session.clone(),
                tenant: binding.bound.tenant,
                used_at_ms,
            })
        });
        listed.collect()
    }

    /// A generation that no session has had.
    pub fn next_generation(&self) -> u64 {
        self.shared.next_generation()
    }

    /// How many sessions are bound.
    pub fn len(&self) -> usize {
        self.shared.bindings.len()
    }

    /// Whether no session is bound.
    pub fn is_empty(&self) -> bool {
        self.shared.bindings.is_empty()
    }

    async fn send(&self, command: Command) -> Result<()> {
        self.commands.send(command).await.map_err(|_| stopped())
    }
}

impl fmt::Debug for SessionMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionMap")
            .field("bound", &self.len())
            .finish_non_exhaustive()
    }
}

fn stopped() -> Error {
    Error::Unavailable("the server is stopping: send the request to another one".into())
}

/// A number that no earlier process counted to or from, whatever clocks say, so that
/// handles which outlive a process never fit a later binding: one of 62 random bits.
fn first_generation() -> u64 {
    let (_, random) = Uuid::new_v4().as_u64_pair();
    (random & (u64::MAX >> 2)).max(1)
}

/// What readers and the writer share.
pub(super) struct Shared {
    pub bindings: DashMap<SessionKey, Binding>,
    pub clock: Arc<dyn Clock>,
    pub max: usize,
    idle_timeout_ms: i64,
    generation: AtomicU64,
}

/// A binding in memory.
pub(super) struct Binding {
    pub bound: Bound,
    /// Unix time in milliseconds.
    pub last_used_ms: AtomicI64,
    /// The `last_used_ms` that is on disk.
    pub stored_used_ms: AtomicI64,
}

impl Shared {
    pub fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Relaxed)
    }

    pub fn is_idle(&self, last_used_ms: i64, now_ms: i64) -> bool {
        now_ms.saturating_sub(last_used_ms) > self.idle_timeout_ms
    }

    /// The live binding of a session, marked as used now.
    pub fn look_up(&self, key: &dyn KeyParts) -> Option<Bound> {
        let binding = self.bindings.get(key)?;
        let now_ms = self.clock.now_ms();
        if self.is_idle(binding.last_used_ms.load(Ordering::Relaxed), now_ms) {
            return None;
        }
        binding.last_used_ms.fetch_max(now_ms, Ordering::Relaxed);
        Some(binding.bound)
    }

    pub fn insert(&self, key: SessionKey, tenant: TenantId, generation: u64, used_ms: i64) {
        let binding = Binding {
            bound: Bound { tenant, generation },
            last_used_ms: AtomicI64::new(used_ms),
            stored_used_ms: AtomicI64::new(used_ms),
        };
        self.bindings.insert(key, binding);
    }

    pub fn publish_size(&self) {
        gauge!("jammi_sessions_bound").set(self.bindings.len() as f64);
    }
}
