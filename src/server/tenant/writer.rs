//! The one writer of the session map: disk first, then memory, in order.
//!
//! Invariant: changes are decided, stored and shown by one task, so that two
//! callers who bind one session at once leave the same winner on disk and in
//! memory. Changes that wait together share one durable commit.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use metrics::counter;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::key::SessionKey;
use super::sessions::{Binding, Bound, Shared, Swept};
use super::store::{BindingStore, Change};
use crate::error::{Error, Result};
use crate::tenant::TenantId;

/// How many callers share one commit.
const BATCH_MAX: usize = 256;

/// How many last uses are written down in one commit, which callers who bind
/// wait behind.
const TOUCHES_MAX: usize = 4_096;

/// How often, in milliseconds, a full map is searched for idle bindings on
/// behalf of a caller who wants one more.
const PURGE_INTERVAL_MS: u64 = 1_000;

/// A change that a caller waits for.
pub(super) enum Command {
    Bind {
        key: SessionKey,
        tenant: TenantId,
        reply: oneshot::Sender<Result<Bound>>,
    },
    Clear {
        key: SessionKey,
        reply: oneshot::Sender<Result<()>>,
    },
    Sweep {
        reply: oneshot::Sender<Result<Swept>>,
    },
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    store: Arc<dyn BindingStore>,
    waiting: mpsc::Receiver<Command>,
    purged_at_ms: i64,
}

/// What a batch of commands comes to, before any of it is stored.
#[derive(Default)]
struct Plan {
    /// Bindings that are gone from memory, being idle, and have to leave the disk.
    expired: Vec<SessionKey>,
    /// What each changed session is to be: bound, or not.
    outcome: HashMap<SessionKey, Option<Bound>>,
    /// How many more sessions will be bound than are now.
    growth: isize,
    replies: Vec<Reply>,
}

/// What a caller is told once the batch is stored.
enum Reply {
    Bound(oneshot::Sender<Result<Bound>>, Result<Bound>),
    Cleared(oneshot::Sender<Result<()>>),
}

impl Writer {
    pub fn new(
        shared: Arc<Shared>,
        store: Arc<dyn BindingStore>,
        waiting: mpsc::Receiver<Command>,
    ) -> Self {
        Writer {
            shared,
            store,
            waiting,
            purged_at_ms: i64::MIN,
        }
    }

    /// Serves commands until every sender is gone, then writes down the last
    /// uses.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while self.waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
            let mut changes = Vec::with_capacity(batch.len());
            for command in batch.drain(..) {
                match command {
                    Command::Sweep { reply } => {
                        self.commit(std::mem::take(&mut changes)).await;
                        // A caller who gave up needs no answer.
                        let _ = reply.send(self.sweep().await);
                    }
                    change => changes.push(change),
                }
            }
            self.commit(changes).await;
        }
        if let Err(error) = self.sweep().await {
            warn!(%error, "last uses of sessions were not stored");
        }
    }

    /// Decides, stores and shows `commands`, in this order.
    async fn commit(&mut self, commands: Vec<Command>) {
        if commands.is_empty() {
            return;
        }
        let now_ms = self.shared.clock.now_ms();
        let mut plan = Plan::default();
        for command in commands {
            self.decide(command, now_ms, &mut plan);
        }
        let changes = plan.changes(now_ms);
        if !changes.is_empty()
            && let Err(error) = self.store.apply(changes).await
        {
            warn!(
                error = &error as &dyn std::error::Error,
                "session bindings were not stored"
            );
            // Nothing of the batch is stored. The first caller gets the error
            // itself, which cannot be copied, and the others its text.
            let text = error.to_string();
            let mut first = Some(Error::Backend(error));
            for reply in plan.replies {
                let error = first
                    .take()
                    .unwrap_or_else(|| Error::Unavailable(text.clone()));
                reply.refuse(error);
            }
            self.shared.publish_size();
            return;
        }
        for (key, bound) in plan.outcome {
            match bound {
                Some(bound) => {
                    self.shared
                        .insert(key, bound.tenant, bound.generation, now_ms);
                }
                None => {
                    self.shared.bindings.remove(&key);
                }
            }
        }
        self.shared.publish_size();
        for reply in plan.replies {
            reply.send();
        }
    }

    fn decide(&mut self, command: Command, now_ms: i64, plan: &mut Plan) {
        match command {
            Command::Bind { key, tenant, reply } => {
                let result = self.decide_bind(key, tenant, now_ms, plan);
                plan.replies.push(Reply::Bound(reply, result));
            }
            Command::Clear { key, reply } => {
                let occupied = self.occupies(&key, plan);
                if occupied {
                    plan.growth -= 1;
                    plan.outcome.insert(key, None);
                }
                plan.replies.push(Reply::Cleared(reply));
            }
            Command::Sweep { .. } => {}
        }
    }

    fn decide_bind(
        &mut self,
        key: SessionKey,
        tenant: TenantId,
        now_ms: i64,
        plan: &mut Plan,
    ) -> Result<Bound> {
        let current = match plan.outcome.get(&key) {
            Some(planned) => *planned,
            None => self.shared.look_up(&key),
        };
        if let Some(bound) = current
            && bound.tenant == tenant
        {
            return Ok(bound);
        }
        if !self.occupies(&key, plan) {
            if self.is_full(plan) {
                self.purge(now_ms, plan);
            }
            if self.is_full(plan) {
                counter!("jammi_session_refusals_total").increment(1);
                return Err(Error::ResourceExhausted(format!(
                    "{max} sessions are bound, as many as may be: clear one that is not needed, \
                     or raise sessions.max",
                    max = self.shared.max
                )));
            }
            plan.growth += 1;
        }
        let bound = Bound {
            tenant,
            generation: self.shared.next_generation(),
        };
        plan.outcome.insert(key, Some(bound));
        counter!("jammi_session_binds_total").increment(1);
        Ok(bound)
    }

    /// Whether the session counts towards the limit, idle or not.
    fn occupies(&self, key: &SessionKey, plan: &Plan) -> bool {
        match plan.outcome.get(key) {
            Some(planned) => planned.is_some(),
            None => self.shared.bindings.contains_key(key),
        }
    }

    fn is_full(&self, plan: &Plan) -> bool {
        let after = self
            .shared
            .bindings
            .len()
            .saturating_add_signed(plan.growth);
        after >= self.shared.max
    }

    /// Makes room in a full map. Not for every caller: searching it takes as
    /// long as it is large.
    fn purge(&mut self, now_ms: i64, plan: &mut Plan) {
        // Also where the clock was set back.
        if now_ms.abs_diff(self.purged_at_ms) < PURGE_INTERVAL_MS {
            return;
        }
        self.purged_at_ms = now_ms;
        let idle = self.take_idle(now_ms, &plan.outcome);
        plan.expired.extend(idle);
    }

    /// Removes idle bindings from memory, except of sessions in `keep`. They
    /// may leave the disk later: what is idle on disk is not loaded again.
    fn take_idle(&self, now_ms: i64, keep: &HashMap<SessionKey, Option<Bound>>) -> Vec<SessionKey> {
        let used = |binding: &Binding| binding.last_used_ms.load(Ordering::Relaxed);
        let mut idle: Vec<SessionKey> = Vec::new();
        for entry in &self.shared.bindings {
            // One that was used later than now was used before the clock was set back.
            entry.last_used_ms.fetch_min(now_ms, Ordering::Relaxed);
            if self.shared.is_idle(used(entry.value()), now_ms) && !keep.contains_key(entry.key()) {
                idle.push(entry.key().clone());
            }
        }
        // A request may have used one of them since.
        idle.retain(|key| {
            let still_idle =
                |_: &SessionKey, binding: &Binding| self.shared.is_idle(used(binding), now_ms);
            self.shared.bindings.remove_if(key, still_idle).is_some()
        });
        counter!("jammi_session_expiries_total").increment(idle.len() as u64);
        idle
    }

    async fn sweep(&mut self) -> Result<Swept> {
        let now_ms = self.shared.clock.now_ms();
        let idle = self.take_idle(now_ms, &HashMap::new());
        self.shared.publish_size();
        let expired = idle.len();
        if expired > 0 {
            info!(expired, "idle session bindings were forgotten");
            self.store
                .apply(idle.into_iter().map(remove).collect())
                .await?;
        }
        let used = self.used_since_stored();
        for chunk in used.chunks(TOUCHES_MAX) {
            let touches = chunk.iter().map(|(key, last_used_ms)| Change::Touch {
                principal: key.principal.clone(),
                session: key.session.clone(),
                last_used_ms: *last_used_ms,
            });
            self.store.apply(touches.collect()).await?;
            for (key, last_used_ms) in chunk {
                if let Some(binding) = self.shared.bindings.get(key) {
                    binding
                        .stored_used_ms
                        .store(*last_used_ms, Ordering::Relaxed);
                }
            }
        }
        Ok(Swept {
            expired,
            touched: used.len(),
        })
    }

    fn used_since_stored(&self) -> Vec<(SessionKey, i64)> {
        self.shared
            .bindings
            .iter()
            .filter_map(|entry| {
                let last_used_ms = entry.last_used_ms.load(Ordering::Relaxed);
                let stored = entry.stored_used_ms.load(Ordering::Relaxed);
                (last_used_ms > stored).then(|| (entry.key().clone(), last_used_ms))
            })
            .collect()
    }
}

impl Plan {
    /// What to store, idle sessions first: a session may be bound again in the
    /// batch that found it idle.
    fn changes(&mut self, now_ms: i64) -> Vec<Change> {
        let expired = std::mem::take(&mut self.expired).into_iter().map(remove);
        let outcome = self.outcome.iter().map(|(key, bound)| match bound {
            Some(bound) => Change::Put {
                principal: key.principal.clone(),
                session: key.session.clone(),
                tenant: bound.tenant,
                bound_at_ms: now_ms,
            },
            None => remove(key.clone()),
        });
        expired.chain(outcome).collect()
    }
}

impl Reply {
    // A caller who gave up needs no answer, so a failed send is of no concern.

    fn send(self) {
        match self {
            Reply::Bound(caller, result) => drop(caller.send(result)),
            Reply::Cleared(caller) => drop(caller.send(Ok(()))),
        }
    }

    fn refuse(self, error: Error) {
        match self {
            Reply::Bound(caller, Err(refused)) => drop(caller.send(Err(refused))),
            Reply::Bound(caller, Ok(_)) => drop(caller.send(Err(error))),
            Reply::Cleared(caller) => drop(caller.send(Err(error))),
        }
    }
}

fn remove(key: SessionKey) -> Change {
    Change::Remove {
        principal: key.principal,
        session: key.session,
    }
}
