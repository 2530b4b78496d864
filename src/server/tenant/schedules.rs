//! The session map under every order in which callers, its writer and the disk can take
//! turns: a model checker over the points at which they wait for each other.
//!
//! What runs is the map itself, on a runtime of one thread. Between two points at which
//! nobody can go on by itself, what happens next is a choice; a run takes the choices
//! that it is given, and the next run another one for the last that has any left.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::future::poll_immediate;
use parking_lot::Mutex;
use tokio::runtime::Builder;
use tokio::sync::Semaphore;

use super::*;
use crate::backend::BackendError;
use crate::config::SessionsConfig;
use crate::error::Result;
use crate::tenant::{Principal, SessionId, TenantId};

const ALICE: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a";
const BOB: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b";

/// What a caller asks for.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Bind(&'static str, &'static str),
    Clear(&'static str),
    Sweep,
}

impl Ask {
    fn session(self) -> Option<&'static str> {
        match self {
            Ask::Bind(session, _) | Ask::Clear(session) => Some(session),
            Ask::Sweep => None,
        }
    }
}

/// The choices of a run: those that are given, then the first of each.
#[derive(Default)]
struct Choices {
    given: Vec<usize>,
    made: Vec<(usize, usize)>,
}

impl Choices {
    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        let choice = self.given.get(self.made.len()).copied().unwrap_or(0);
        self.made.push((choice, all.len()));
        all[choice]
    }

    /// The choices of the next run; `None` after the last.
    fn next(mut self) -> Option<Choices> {
        while let Some((choice, of)) = self.made.pop() {
            if choice + 1 < of {
                let mut given: Vec<usize> = self.made.iter().map(|made| made.0).collect();
                given.push(choice + 1);
                return Some(Choices {
                    given,
                    made: Vec::new(),
                });
            }
        }
        None
    }
}

type State = Option<TenantId>;

/// A clock that goes on by a millisecond whenever it is asked: the same in each run.
struct TickingClock(AtomicI64);

impl Clock for TickingClock {
    fn now_ms(&self) -> i64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// A disk whose commits end when they are told to, and how.
struct GatedStore {
    /// The states that each session has had on the disk, the first of which is none.
    states: Mutex<HashMap<String, Vec<State>>>,
    gate: Semaphore,
    waiting: AtomicUsize,
    fails: AtomicBool,
}

impl GatedStore {
    fn states(&self, session: &str) -> Vec<State> {
        let states = self.states.lock();
        states.get(session).cloned().unwrap_or(vec![None])
    }
}

#[async_trait]
impl BindingStore for GatedStore {
    async fn load(&self) -> Result<Vec<StoredBinding>, BackendError> {
        Ok(Vec::new())
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<(), BackendError> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let permit = self.gate.acquire().await.expect("nobody closes it");
        permit.forget();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        if self.fails.swap(false, Ordering::SeqCst) {
            return Err(BackendError::Stopping);
        }
        let mut states = self.states.lock();
        for change in changes {
            let (session, state) = match change {
                Change::Put {
                    session, tenant, ..
                } => (session, Some(tenant)),
                Change::Remove { session, .. } => (session, None),
                Change::Touch { .. } => continue,
            };
            let session = session.as_str().to_owned();
            states.entry(session).or_insert(vec![None]).push(state);
        }
        Ok(())
    }
}

/// What may happen next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The caller of this number asks.
    Start(usize),
    /// The writer goes on for as far as it can.
    Write,
    /// The disk has done what it was asked to, or cannot.
    Commit,
    Fail,
}

type Answering<'a> = Pin<Box<dyn Future<Output = Result<State>> + 'a>>;

/// A run of the map.
struct Run<'a> {
    map: &'a SessionMap,
    store: &'a GatedStore,
    who: &'a Principal,
    asks: &'a [Ask],
    begun: Vec<Option<Answering<'a>>>,
    answered: Vec<Option<Result<State>>>,
    /// The steps at which each began to ask and was answered.
    began_at: Vec<Option<usize>>,
    ended_at: Vec<Option<usize>>,
    steps: usize,
    /// Which binding each generation was seen to be.
    generations: HashMap<u64, (&'static str, TenantId)>,
    may_write: bool,
    failures_left: usize,
}

impl<'a> Run<'a> {
    fn possible(&self) -> Vec<Step> {
        let waits = |at: &usize| self.begun[*at].is_none() && self.answered[*at].is_none();
        let starts = (0..self.asks.len()).filter(waits).map(Step::Start);
        let mut steps: Vec<Step> = starts.collect();
        if self.may_write {
            steps.push(Step::Write);
        }
        if self.store.waiting.load(Ordering::SeqCst) > 0 && !self.may_write {
            steps.push(Step::Commit);
            if self.failures_left > 0 {
                steps.push(Step::Fail);
            }
        }
        steps
    }

    async fn take(&mut self, step: Step) {
        self.steps += 1;
        match step {
            Step::Start(at) => {
                self.began_at[at] = Some(self.steps);
                self.begun[at] = Some(Box::pin(answer(self.map, self.who, self.asks[at])));
                self.may_write = true;
            }
            Step::Write => {
                // As often as it takes for the writer to wait for the disk or for callers.
                for _ in 0..8 {
                    tokio::task::yield_now().await;
                }
                self.may_write = false;
            }
            Step::Commit | Step::Fail => {
                if let Step::Fail = step {
                    self.failures_left -= 1;
                    self.store.fails.store(true, Ordering::SeqCst);
                }
                self.store.gate.add_permits(1);
                self.may_write = true;
            }
        }
        for at in 0..self.asks.len() {
            if let Some(answering) = &mut self.begun[at]
                && let Some(answer) = poll_immediate(answering).await
            {
                self.begun[at] = None;
                self.check_answer(at, &answer);
                self.ended_at[at] = Some(self.steps);
                self.answered[at] = Some(answer);
            }
        }
        self.check_seen();
    }

    /// What is answered to somebody beside whom nobody asked for the session is on the
    /// disk, and seen.
    fn check_answer(&self, at: usize, answer: &Result<State>) {
        let (Some(session), Ok(state)) = (self.asks[at].session(), answer) else {
            return;
        };
        let beside = |other: &usize| {
            let began = self.began_at[*other].is_some();
            let ended_before = self.ended_at[*other] < self.began_at[at];
            *other != at && began && (self.ended_at[*other].is_none() || !ended_before)
        };
        let mut others = (0..self.asks.len()).filter(beside);
        if others.all(|other| self.asks[other].session() != Some(session)) {
            assert_eq!(self.store.states(session).last(), Some(state), "{session}");
            assert_eq!(self.seen(session), *state, "{session}");
        }
    }

    fn seen(&self, session: &'static str) -> State {
        let bound = self.map.binding(self.who, &id(session))?;
        Some(bound.tenant)
    }

    /// What a request is admitted by is on the disk, and no generation is of two bindings.
    fn check_seen(&mut self) {
        for session in self.asks.iter().filter_map(|ask| ask.session()) {
            let states = self.store.states(session);
            let seen = self.map.binding(self.who, &id(session));
            let newest = states.iter().rev().take(2);
            let shown = seen.map(|bound| bound.tenant);
            assert!(newest.clone().any(|state| *state == shown), "{session}");
            if let Some(bound) = seen {
                let known = self.generations.entry(bound.generation);
                let known = known.or_insert((session, bound.tenant));
                assert_eq!(*known, (session, bound.tenant));
            }
        }
    }
}

async fn answer(map: &SessionMap, who: &Principal, ask: Ask) -> Result<State> {
    match ask {
        Ask::Bind(session, tenant) => {
            let tenant = tenant.parse()?;
            let bound = map.bind(who, &id(session), tenant).await?;
            assert_eq!(bound.tenant, tenant);
            Ok(Some(bound.tenant))
        }
        Ask::Clear(session) => map.clear(who, &id(session)).await.map(|()| None),
        Ask::Sweep => map.sweep().await.map(|_swept| None),
    }
}

fn id(session: &str) -> SessionId {
    session.parse().unwrap()
}

/// Runs `asks` in each order, of which there are as many as are answered.
fn in_every_order(asks: &[Ask], sessions_max: usize, failures: usize) -> usize {
    let mut choices = Choices::default();
    let mut runs = 0;
    loop {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(asks, sessions_max, failures, &mut choices));
        runs += 1;
        match choices.next() {
            Some(next) => choices = next,
            None => return runs,
        }
    }
}

async fn run(asks: &[Ask], sessions_max: usize, failures: usize, choices: &mut Choices) {
    let store = Arc::new(GatedStore {
        states: Mutex::default(),
        gate: Semaphore::new(0),
        waiting: AtomicUsize::new(0),
        fails: AtomicBool::new(false),
    });
    let limits = SessionsConfig {
        max: sessions_max,
        ..SessionsConfig::default()
    };
    let who = Principal::trusted_network();
    let clock = Arc::new(TickingClock(AtomicI64::new(1_700_000_000_000)));
    let map = SessionMap::open(store.clone(), &limits, clock)
        .await
        .unwrap();
    let mut run = Run {
        map: &map,
        store: &store,
        who: &who,
        asks,
        begun: asks.iter().map(|_| None).collect(),
        answered: asks.iter().map(|_| None).collect(),
        began_at: vec![None; asks.len()],
        ended_at: vec![None; asks.len()],
        steps: 0,
        generations: HashMap::new(),
        may_write: false,
        failures_left: failures,
    };
    loop {
        let steps = run.possible();
        if steps.is_empty() {
            break;
        }
        let step = choices.one_of(&steps);
        run.take(step).await;
    }
    // Everybody is answered, and memory and disk agree.
    assert!(
        run.answered.iter().all(Option::is_some),
        "{:?}",
        choices.made
    );
    let sessions: HashSet<&'static str> = asks.iter().filter_map(|ask| ask.session()).collect();
    for session in &sessions {
        assert_eq!(Some(&run.seen(session)), store.states(session).last());
    }
    let bound = sessions
        .iter()
        .filter(|session| run.seen(session).is_some());
    assert!(bound.count() <= sessions_max);
    // Nobody is refused but by a disk that fails and a map that is full.
    let refused = run.answered.iter().flatten().any(Result::is_err);
    assert!(!refused || failures > 0 || sessions.len() > sessions_max);
}

#[test]
fn a_binding_is_one_tenants_and_on_the_disk_whoever_comes_first() {
    use Ask::{Bind, Clear, Sweep};
    let mut runs = 0;
    for (asks, sessions_max, failures) in [
        (&[Bind("s", ALICE), Bind("s", BOB), Clear("s")][..], 4, 1),
        (&[Bind("s", ALICE), Bind("s", BOB), Bind("s", ALICE)], 4, 1),
        (&[Bind("s", ALICE), Bind("t", BOB), Clear("s")], 1, 0),
        (&[Bind("s", ALICE), Clear("s"), Sweep, Bind("s", BOB)], 4, 0),
        (
            &[Bind("s", ALICE), Bind("t", BOB), Bind("s", BOB), Clear("t")],
            2,
            1,
        ),
    ] {
        let tried = in_every_order(asks, sessions_max, failures);
        println!("{asks:?}: {tried} orders");
        runs += tried;
    }
    assert!(runs > 1_000, "only {runs} orders");
}
