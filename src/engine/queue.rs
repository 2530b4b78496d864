//! Which statements run at a time: so many of one tenant and so many in all.
//! Further ones wait, and the tenants that wait are served in turns.
//!
//! A place is for a statement that computes. One whose reader does not keep up
//! gives it back meanwhile, so that no reader keeps another statement waiting. For
//! the same reason, what would make others wait needs no place: a statement in a
//! transaction, which may hold a lane that those with places wait for, and what a
//! statement with a place runs itself. Both are bounded by the settings of lanes and
//! of transactions.
//!
//! Short statements have no part in this: they run on the thread that asks, see
//! [`super::short`].

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{gauge, histogram};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::config::EngineConfig;
use crate::error::{Error, Result};
use crate::tenant::{Scope, TenantId};

/// The places of running statements, and who waits for one.
#[derive(Debug)]
pub(super) struct Queue {
    all_max: usize,
    tenant_max: usize,
    waiting_max: usize,
    timeout: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The places that are taken.
    running: usize,
    /// Those who run or wait.
    lines: HashMap<Option<TenantId>, Line>,
    /// Those who wait, the next one in front.
    turns: VecDeque<Option<TenantId>>,
}

/// One tenant's.
#[derive(Debug, Default)]
struct Line {
    running: usize,
    waiting: VecDeque<oneshot::Sender<Place>>,
}

/// A running statement's place, given back as it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    queue: Arc<Queue>,
    tenant: Option<TenantId>,
    /// Whether it is counted.
    counted: bool,
}

/// A statement that waits, as metrics tell of it. Whose it is they do not.
struct Waiting {
    since: Instant,
}

impl Waiting {
    fn begin() -> Self {
        gauge!("jammi_queries_waiting").increment(1.0);
        Waiting {
            since: Instant::now(),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        gauge!("jammi_queries_waiting").decrement(1.0);
        histogram!("jammi_query_wait_seconds").record(self.since.elapsed().as_secs_f64());
    }
}

impl Queue {
    pub(super) fn new(config: &EngineConfig) -> Arc<Self> {
        Arc::new(Queue {
            all_max: config.queries_max,
            tenant_max: config.tenant_queries_max,
            waiting_max: config.tenant_queries_waiting_max,
            timeout: Duration::from_millis(config.queue_timeout_ms),
            state: Mutex::default(),
        })
    }

    /// Waits for a place for a statement of `scope`.
    ///
    /// # Errors
    /// `ResourceExhausted` when too many of its tenant wait already, and when it has
    /// waited for too long.
    pub(super) async fn enter(self: &Arc<Self>, scope: &Scope) -> Result<Place> {
        let tenant = scope.payer();
        let given = {
            let mut state = self.state.lock();
            let line = state.lines.entry(tenant).or_default();
            line.waiting.retain(|waiting| !waiting.is_closed());
            let is_first = line.waiting.is_empty();
            if is_first && self.has_place(&state, tenant) {
                return Ok(self.count(&mut state, tenant));
            }
            let line = state.lines.entry(tenant).or_default();
            if line.waiting.len() >= self.waiting_max {
                return Err(Error::ResourceExhausted(format!(
                    "the tenant has as many statements that wait as the setting \
                     engine.tenant_queries_waiting_max (now {}) allows: send fewer at a time, or \
                     raise it",
                    self.waiting_max
                )));
            }
            let (give, given) = oneshot::channel();
            line.waiting.push_back(give);
            state.has_turn(tenant);
            given
        };
        let _waiting = Waiting::begin();
        match timeout(self.timeout, given).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(Error::ResourceExhausted(format!(
                "the statement has waited for its turn as long as the setting \
                 engine.queue_timeout_ms (now {}) allows, beyond those that \
                 engine.tenant_queries_max (now {}) and engine.queries_max let run: send fewer at \
                 a time, or raise one of them",
                self.timeout.as_millis(),
                self.tenant_max
            ))),
        }
    }

    /// Waits for a place for a statement that had one, however long that takes: it
    /// has begun to answer.
    async fn resume(self: &Arc<Self>, tenant: Option<TenantId>) -> Option<Place> {
        let given = {
            let mut state = self.state.lock();
            if self.has_place(&state, tenant) {
                return Some(self.count(&mut state, tenant));
            }
            let line = state.lines.entry(tenant).or_default();
            let (give, given) = oneshot::channel();
            // Before those that have not begun.
            line.waiting.push_front(give);
            state.has_turn(tenant);
            given
        };
        let _waiting = Waiting::begin();
        given.await.ok()
    }

    /// Whether one more of `tenant` may run. One that runs nothing gets its first
    /// beyond the limit of all, so that nobody waits for others alone.
    fn has_place(&self, state: &State, tenant: Option<TenantId>) -> bool {
        let own = state.lines.get(&tenant).map_or(0, |line| line.running);
        own < self.tenant_max && (own == 0 || state.running < self.all_max)
    }

    fn count(self: &Arc<Self>, state: &mut State, tenant: Option<TenantId>) -> Place {
        state.running += 1;
        state.lines.entry(tenant).or_default().running += 1;
        Place {
            queue: Arc::clone(self),
            tenant,
            counted: true,
        }
    }

    fn uncount(state: &mut State, tenant: Option<TenantId>) {
        state.running -= 1;
        if let Some(line) = state.lines.get_mut(&tenant) {
            line.running -= 1;
        }
    }

    /// Gives what places there are to those who wait: one each, in turns.
    fn give(self: &Arc<Self>, state: &mut State) {
        let mut passed = 0;
        while passed < state.turns.len()
            && let Some(tenant) = state.turns.pop_front()
        {
            passed += 1;
            if self.has_place(state, tenant)
                && let Some(give) = state.next_of(tenant)
            {
                let place = self.count(state, tenant);
                match give.send(place) {
                    Ok(()) => passed = 0,
                    // It has stopped waiting just now.
                    Err(mut place) => {
                        place.counted = false;
                        Self::uncount(state, tenant);
                        passed = 0;
                    }
                }
            }
            if state.waits(tenant) {
                state.turns.push_back(tenant);
            }
        }
    }
}

impl State {
    /// The tenant's next one that waits still.
    fn next_of(&mut self, tenant: Option<TenantId>) -> Option<oneshot::Sender<Place>> {
        let line = self.lines.get_mut(&tenant)?;
        std::iter::from_fn(|| line.waiting.pop_front()).find(|waiting| !waiting.is_closed())
    }

    fn has_turn(&mut self, tenant: Option<TenantId>) {
        if !self.turns.contains(&tenant) {
            self.turns.push_back(tenant);
        }
    }

    fn waits(&self, tenant: Option<TenantId>) -> bool {
        self.lines
            .get(&tenant)
            .is_some_and(|line| !line.waiting.is_empty())
    }
}

impl Place {
    /// Waits for `reader` without the place, and for a place again.
    pub(super) async fn while_away<T>(
        place: &mut Option<Place>,
        reader: impl Future<Output = T>,
    ) -> T {
        let had = place.take();
        let (queue, tenant) = match &had {
            Some(place) => (Arc::clone(&place.queue), place.tenant),
            None => return reader.await,
        };
        drop(had);
        let done = reader.await;
        *place = queue.resume(tenant).await;
        done
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.counted {
            return;
        }
        let state = &mut *self.queue.state.lock();
        Queue::uncount(state, self.tenant);
        self.queue.give(state);
        let is_idle = |line: &Line| line.running == 0 && line.waiting.is_empty();
        if state.lines.get(&self.tenant).is_some_and(is_idle) {
            state.lines.remove(&self.tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::BoxFuture;

    use super::*;
    use crate::tenant::Principal;

    const TENANTS: [&str; 3] = [
        "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a",
        "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b",
        "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9c",
    ];

    fn queue(all: usize, tenant: usize) -> Arc<Queue> {
        Queue::new(&EngineConfig {
            queries_max: all,
            tenant_queries_max: tenant,
            tenant_queries_waiting_max: 3,
            ..EngineConfig::default()
        })
    }

    fn scope(tenant: usize) -> Scope {
        let tenant = TENANTS[tenant].parse().unwrap();
        Scope::tenant_bound(Principal::trusted_network(), tenant)
    }

    fn enter(queue: &Arc<Queue>, tenant: usize) -> BoxFuture<'static, Result<Place>> {
        let queue = Arc::clone(queue);
        async move { queue.enter(&scope(tenant)).await }.boxed()
    }

    /// Who of `waiting` has a place now, which is given back at once.
    fn served(waiting: &mut Vec<(usize, BoxFuture<'static, Result<Place>>)>) -> Vec<usize> {
        let mut served = Vec::new();
        loop {
            let next = waiting.iter_mut().enumerate().find_map(|(at, (_, wait))| {
                let done = wait.now_or_never()?;
                Some((at, done.unwrap()))
            });
            let Some((at, place)) = next else {
                return served;
            };
            served.push(waiting.remove(at).0);
            drop(place);
        }
    }

    #[tokio::test]
    async fn those_who_wait_are_served_in_turns() {
        let queue = queue(2, 2);
        let first = [
            enter(&queue, 0).await.unwrap(),
            enter(&queue, 0).await.unwrap(),
        ];
        let second = enter(&queue, 1).await.unwrap();
        let mut waiting = Vec::new();
        for tenant in [0, 0, 0, 1, 1] {
            let mut wait = enter(&queue, tenant);
            assert!((&mut wait).now_or_never().is_none());
            waiting.push((tenant, wait));
        }
        // One with nothing gets its first beyond the limit, and its second does not.
        let third = enter(&queue, 2).await.unwrap();
        drop(third);
        let too_many = enter(&queue, 0).await.unwrap_err();
        assert!(too_many.to_string().contains("tenant_queries_waiting_max"));
        assert_eq!(served(&mut waiting), Vec::<usize>::new());
        drop(second);
        drop(first);
        assert_eq!(served(&mut waiting).len(), 5);
        let state = queue.state.lock();
        assert_eq!((state.running, state.lines.len()), (0, 0));
    }

    /// A tenant with many that wait is served as often as one with few.
    #[tokio::test]
    async fn a_long_line_is_not_served_more_often() {
        let queue = queue(2, 2);
        let hers = enter(&queue, 0).await.unwrap();
        let his = enter(&queue, 1).await.unwrap();
        let mut her_next = [(); 3].map(|()| enter(&queue, 0));
        for wait in &mut her_next {
            assert!(wait.now_or_never().is_none());
        }
        let mut his_next = enter(&queue, 1);
        assert!((&mut his_next).now_or_never().is_none());
        drop(hers);
        let hers = (&mut her_next[0]).now_or_never().unwrap().unwrap();
        assert!((&mut his_next).now_or_never().is_none());
        // It is his turn, though the place was hers.
        drop(hers);
        let both = [his, (&mut his_next).now_or_never().unwrap().unwrap()];
        drop(both);
    }

    #[tokio::test]
    async fn who_stops_waiting_takes_no_place() {
        let queue = queue(4, 1);
        let running = enter(&queue, 0).await.unwrap();
        let mut gone = enter(&queue, 0);
        let mut stays = enter(&queue, 0);
        assert!((&mut gone).now_or_never().is_none());
        assert!((&mut stays).now_or_never().is_none());
        drop(gone);
        drop(running);
        let mut place = Some((&mut stays).now_or_never().unwrap().unwrap());
        // Away, it has none, and another runs.
        let (come_back, back) = oneshot::channel::<()>();
        let mut away = Box::pin(Place::while_away(&mut place, back));
        assert!((&mut away).now_or_never().is_none());
        let other = enter(&queue, 0).await.unwrap();
        let mut late = enter(&queue, 0);
        assert!((&mut late).now_or_never().is_none());
        come_back.send(()).unwrap();
        assert!((&mut away).now_or_never().is_none());
        drop(other);
        away.await.unwrap();
        assert!((&mut late).now_or_never().is_none());
        drop(place);
        drop(late.await.unwrap());
        assert!(queue.state.lock().lines.is_empty());
    }
}
