//! The session map against a store in memory, by a clock that tests turn.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tonic::metadata::MetadataMap;
use uuid::Uuid;

use super::*;
use crate::backend::BackendError;
use crate::catalog::TemporarySessions;
use crate::config::SessionsConfig;
use crate::error::Error;
use crate::server::accept::ConnectionId;
use crate::tenant::{Lane, Principal, SessionId, TenantId};

const ALICE: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a";
const BOB: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b";
const IDLE_TIMEOUT_SECS: u64 = 60;
const IDLE_TIMEOUT_MS: i64 = 60_000;

struct HandClock(AtomicI64);

impl HandClock {
    fn advance_ms(&self, by: i64) {
        self.0.fetch_add(by, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Rows by (principal, session id), and a switch that makes storing fail.
#[derive(Default)]
struct MemoryStore {
    rows: Mutex<BTreeMap<(String, String), StoredBinding>>,
    broken: AtomicBool,
    commits: AtomicUsize,
}

impl MemoryStore {
    fn tenant(&self, session: &str) -> Option<String> {
        let key = (
            Principal::trusted_network().name().to_owned(),
            session.to_owned(),
        );
        self.rows.lock().get(&key).map(|row| row.tenant_id.clone())
    }
}

#[async_trait]
impl BindingStore for MemoryStore {
    async fn load(&self) -> Result<Vec<StoredBinding>, BackendError> {
        Ok(self.rows.lock().values().cloned().collect())
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<(), BackendError> {
        // Others run while a commit is on its way to the disk.
        tokio::task::yield_now().await;
        if self.broken.load(Ordering::SeqCst) {
            return Err(BackendError::Stopping);
        }
        self.commits.fetch_add(1, Ordering::SeqCst);
        let mut rows = self.rows.lock();
        for change in changes {
            let key = |principal: &str, session: &SessionId| {
                (principal.to_owned(), session.as_str().to_owned())
            };
            match change {
                Change::Put {
                    principal,
                    session,
                    tenant,
                    bound_at_ms,
                } => {
                    let row = StoredBinding {
                        principal: principal.clone(),
                        session_id: session.as_str().to_owned(),
                        tenant_id: tenant.to_string(),
                        bound_at_ms,
                        last_used_ms: bound_at_ms,
                    };
                    rows.insert(key(&principal, &session), row);
                }
                Change::Touch {
                    principal,
                    session,
                    last_used_ms,
                } => {
                    if let Some(row) = rows.get_mut(&key(&principal, &session)) {
                        row.last_used_ms = last_used_ms;
                    }
                }
                Change::Remove { principal, session } => {
                    rows.remove(&key(&principal, &session));
                }
            }
        }
        Ok(())
    }
}

struct Fixture {
    clock: Arc<HandClock>,
    store: Arc<MemoryStore>,
    map: SessionMap,
    who: Principal,
}

impl Fixture {
    async fn new(max: usize) -> Fixture {
        let clock = Arc::new(HandClock(AtomicI64::new(1_700_000_000_000)));
        let store = Arc::new(MemoryStore::default());
        Fixture::open(max, clock, store).await
    }

    async fn open(max: usize, clock: Arc<HandClock>, store: Arc<MemoryStore>) -> Fixture {
        let limits = SessionsConfig {
            max,
            idle_timeout_secs: IDLE_TIMEOUT_SECS,
            ..SessionsConfig::default()
        };
        let who = Principal::trusted_network();
        let map = SessionMap::open(store.clone(), &limits, clock.clone())
            .await
            .unwrap();
        Fixture {
            clock,
            store,
            map,
            who,
        }
    }

    /// The same disk under a new process.
    async fn restart(self, max: usize) -> Fixture {
        self.clock.advance_ms(1);
        Fixture::open(max, self.clock, self.store).await
    }

    async fn bind(&self, session: &str, tenant: &str) -> Result<Bound, Error> {
        let tenant = TenantId::from_str(tenant).unwrap();
        self.map.bind(&self.who, &id(session), tenant).await
    }

    fn tenant(&self, session: &str) -> Option<String> {
        let bound = self.map.binding(&self.who, &id(session))?;
        Some(bound.tenant.to_string())
    }
}

fn id(session: &str) -> SessionId {
    SessionId::from_str(session).unwrap()
}

#[tokio::test]
async fn two_sessions_are_two_tenants_and_a_third_is_none() {
    let fixture = Fixture::new(10).await;
    fixture.bind("s1", ALICE).await.unwrap();
    fixture.bind("s2", BOB).await.unwrap();
    assert_eq!(fixture.tenant("s1").as_deref(), Some(ALICE));
    assert_eq!(fixture.tenant("s2").as_deref(), Some(BOB));
    assert_eq!(fixture.tenant("s3"), None);
    assert_eq!(fixture.map.len(), 2);
}

#[tokio::test]
async fn a_generation_belongs_to_one_binding() {
    let fixture = Fixture::new(10).await;
    let first = fixture.bind("s1", ALICE).await.unwrap();
    assert_ne!(first.generation, 0);
    assert_eq!(
        fixture.bind("s1", ALICE).await.unwrap(),
        first,
        "same tenant"
    );
    let second = fixture.bind("s1", BOB).await.unwrap();
    let back = fixture.bind("s1", ALICE).await.unwrap();
    fixture.map.clear(&fixture.who, &id("s1")).await.unwrap();
    assert_eq!(fixture.tenant("s1"), None);
    let again = fixture.bind("s1", ALICE).await.unwrap();
    let mut generations = vec![
        first.generation,
        second.generation,
        back.generation,
        again.generation,
    ];
    let fixture = fixture.restart(10).await;
    let loaded = fixture.map.binding(&fixture.who, &id("s1")).unwrap();
    assert_eq!(loaded.tenant.to_string(), ALICE);
    generations.push(fixture.bind("s2", BOB).await.unwrap().generation);
    generations.sort();
    generations.dedup();
    assert_eq!(generations.len(), 5);
}

#[tokio::test]
async fn an_idle_binding_is_gone_and_a_used_one_stays() {
    let fixture = Fixture::new(10).await;
    fixture.bind("used", ALICE).await.unwrap();
    fixture.bind("idle", BOB).await.unwrap();
    fixture.clock.advance_ms(IDLE_TIMEOUT_MS);
    assert_eq!(fixture.tenant("used").as_deref(), Some(ALICE));
    fixture.clock.advance_ms(1);
    assert_eq!(fixture.tenant("idle"), None, "before any sweep");
    let swept = fixture.map.sweep().await.unwrap();
    assert_eq!(
        swept,
        Swept {
            expired: 1,
            touched: 1
        }
    );
    assert_eq!(fixture.store.tenant("idle"), None);
    assert_eq!(fixture.tenant("used").as_deref(), Some(ALICE));
    // A binding that expired and is made again is another one.
    fixture.bind("idle", ALICE).await.unwrap();
    assert_eq!(fixture.tenant("idle").as_deref(), Some(ALICE));
}

/// Symptom: after the clock was set back and the server restarted at the very
/// millisecond at which it was started before, a generation was that of another binding.
/// Cause: generations were counted from the time. Fix: from a random number.
#[tokio::test]
async fn a_clock_that_is_set_back_gives_no_generation_twice() {
    let mut generations = std::collections::HashSet::new();
    let fixture = Fixture::new(10).await;
    for (session, tenant) in [("s2", BOB), ("s1", ALICE)] {
        let bound = fixture.bind(session, tenant).await.unwrap();
        assert!(generations.insert(bound.generation));
    }
    fixture.clock.advance_ms(-1);
    let fixture = fixture.restart(10).await;
    for (session, tenant) in [("s1", ALICE), ("s2", BOB)] {
        let bound = fixture.map.binding(&fixture.who, &id(session)).unwrap();
        assert_eq!(bound.tenant.to_string(), tenant);
        assert!(generations.insert(bound.generation));
    }
}

/// Symptom: after the clock had been set back by an hour, a full map refused everybody
/// for an hour, and sessions that nobody used stayed as long. Cause: they were last used
/// in the future. Fix: what was last used later than now was used now.
#[tokio::test]
async fn a_clock_that_jumps_ends_sessions_no_later_than_they_idle() {
    const HOUR_MS: i64 = 3_600_000;
    let fixture = Fixture::new(2).await;
    for (session, tenant) in [("s1", ALICE), ("s2", BOB)] {
        fixture.bind(session, tenant).await.unwrap();
    }
    // Looks for idle ones, and finds none.
    assert!(fixture.bind("s3", BOB).await.is_err());

    // Back: nobody is idle, and everybody is who it was.
    fixture.clock.advance_ms(-HOUR_MS);
    assert_eq!(fixture.map.sweep().await.unwrap().expired, 0);
    for (session, tenant) in [("s1", ALICE), ("s2", BOB)] {
        assert_eq!(fixture.tenant(session).as_deref(), Some(tenant));
    }
    // One that is not used is idle as soon as ever, and its place is another's.
    fixture.clock.advance_ms(IDLE_TIMEOUT_MS);
    assert_eq!(fixture.tenant("s1").as_deref(), Some(ALICE));
    fixture.clock.advance_ms(1);
    fixture.bind("s3", BOB).await.unwrap();
    assert_eq!(fixture.tenant("s2"), None);

    // Forward: everybody is idle, and so bound to nothing.
    fixture.clock.advance_ms(HOUR_MS);
    for session in ["s1", "s2", "s3"] {
        assert_eq!(fixture.tenant(session), None);
    }
}

#[tokio::test]
async fn a_restart_keeps_what_is_in_use() {
    let fixture = Fixture::new(10).await;
    fixture.bind("used", ALICE).await.unwrap();
    fixture.bind("idle", BOB).await.unwrap();
    fixture.clock.advance_ms(IDLE_TIMEOUT_MS);
    assert!(fixture.tenant("used").is_some());
    fixture.map.sweep().await.unwrap();
    fixture.clock.advance_ms(IDLE_TIMEOUT_MS - 1);
    let fixture = fixture.restart(10).await;
    assert_eq!(fixture.tenant("used").as_deref(), Some(ALICE));
    assert_eq!(fixture.tenant("idle"), None);
    assert_eq!(
        fixture.store.rows.lock().len(),
        1,
        "the disk forgets it too"
    );
}

#[tokio::test]
async fn a_full_map_refuses_new_sessions_until_one_is_idle() {
    let fixture = Fixture::new(2).await;
    fixture.bind("s1", ALICE).await.unwrap();
    fixture.bind("s2", ALICE).await.unwrap();
    match fixture.bind("s3", BOB).await {
        Err(Error::ResourceExhausted(text)) => assert!(text.contains("sessions.max"), "{text}"),
        other => panic!("{other:?}"),
    }
    fixture.bind("s2", BOB).await.unwrap();
    fixture.map.clear(&fixture.who, &id("s1")).await.unwrap();
    fixture.bind("s3", BOB).await.unwrap();
    assert!(fixture.bind("s1", ALICE).await.is_err());
    fixture.clock.advance_ms(IDLE_TIMEOUT_MS + 1);
    assert!(fixture.tenant("s3").is_none());
    fixture.bind("s4", ALICE).await.unwrap();
    assert_eq!(fixture.map.len(), 1);
    assert_eq!(fixture.store.rows.lock().len(), 1);
}

#[tokio::test]
async fn a_binding_that_was_not_stored_is_not_made() {
    let fixture = Fixture::new(10).await;
    fixture.bind("s1", ALICE).await.unwrap();
    fixture.store.broken.store(true, Ordering::SeqCst);
    let refused = fixture.bind("s1", BOB).await;
    assert!(matches!(refused, Err(Error::Backend(_))), "{refused:?}");
    assert!(fixture.map.clear(&fixture.who, &id("s1")).await.is_err());
    assert!(fixture.bind("s2", BOB).await.is_err());
    assert_eq!(fixture.tenant("s1").as_deref(), Some(ALICE));
    assert_eq!(fixture.tenant("s2"), None);
    assert_eq!(fixture.store.tenant("s1").as_deref(), Some(ALICE));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_bindings_leave_memory_and_disk_agreeing() {
    let fixture = Arc::new(Fixture::new(50).await);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..400usize {
        let fixture = fixture.clone();
        tasks.spawn(async move {
            let session = format!("s{}", number % 100);
            let tenant = if number.is_multiple_of(2) { ALICE } else { BOB };
            if number.is_multiple_of(7) {
                fixture
                    .map
                    .clear(&fixture.who, &id(&session))
                    .await
                    .unwrap();
            } else if number.is_multiple_of(11) {
                fixture.map.sweep().await.unwrap();
            } else {
                // Beyond the limit is refused.
                let _ = fixture.bind(&session, tenant).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert!(fixture.map.len() <= 50);
    assert_eq!(fixture.map.len(), fixture.store.rows.lock().len());
    for number in 0..100 {
        let session = format!("s{number}");
        assert_eq!(fixture.tenant(&session), fixture.store.tenant(&session));
    }
    assert!(fixture.store.commits.load(Ordering::SeqCst) < 400);
}

fn keys() -> SessionKeys {
    keys_over(
        TemporarySessions::new(Uuid::new_v4()),
        Arc::new(SystemClock),
    )
}

fn keys_over(temporary: TemporarySessions, clock: Arc<dyn Clock>) -> SessionKeys {
    let idle_timeout = Duration::from_secs(IDLE_TIMEOUT_SECS);
    SessionKeys::new(temporary, idle_timeout, clock)
}

#[tokio::test]
async fn a_session_has_one_key_that_no_other_process_gives_it() {
    let fixture = Fixture::new(10).await;
    let admit = |keys: &SessionKeys, session: &str| {
        let map = fixture.map.clone();
        let admission = TenantInterceptor::new(map, keys.clone(), true);
        let mut metadata = MetadataMap::new();
        metadata.insert(SESSION_HEADER, session.parse().unwrap());
        admission.admit(&fixture.who, &metadata).unwrap()
    };
    let (one, other) = (keys(), keys());
    let key = |keys, session| admit(keys, session).scope().unwrap().session();
    assert!(key(&one, "s1").is_some());
    assert_eq!(key(&one, "s1"), key(&one, "s1"));
    assert_ne!(key(&one, "s1"), key(&one, "s2"));
    assert_ne!(key(&one, "s1"), key(&other, "s1"));
    let shown = format!("{:?}", admit(&one, "s1").scope().unwrap());
    assert!(!shown.contains("s1"), "{shown}");
}

#[tokio::test]
async fn a_session_that_is_not_used_loses_its_temporary_tables() {
    let fixture = Fixture::new(10).await;
    let temporary = TemporarySessions::new(Uuid::new_v4());
    let keys = keys_over(temporary.clone(), fixture.clock.clone());
    let admission = TenantInterceptor::new(fixture.map.clone(), keys, true);
    let mut metadata = MetadataMap::new();
    metadata.insert(SESSION_HEADER, "s1".parse().unwrap());
    let scope = admission
        .admit(&fixture.who, &metadata)
        .unwrap()
        .scope()
        .unwrap();
    let now_ms = fixture.clock.now_ms();
    let owner = temporary.claim(scope.session().unwrap(), Lane::Global, now_ms);
    // Any request of it counts, and one that comes too late finds nothing.
    fixture.clock.advance_ms(IDLE_TIMEOUT_MS);
    admission.admit(&fixture.who, &metadata).unwrap();
    fixture.clock.advance_ms(IDLE_TIMEOUT_MS);
    admission.admit(&fixture.who, &metadata).unwrap();
    assert_eq!(temporary.owner(&scope), Some(owner));
    fixture.clock.advance_ms(IDLE_TIMEOUT_MS + 1);
    admission.admit(&fixture.who, &metadata).unwrap();
    assert_eq!(temporary.owner(&scope), None);
    assert_eq!(temporary.ended(), [(owner, Lane::Global)]);
}

#[test]
fn a_session_is_closed_by_the_last_connection_that_made_a_table_in_it() {
    let temporary = TemporarySessions::new(Uuid::new_v4());
    let keys = keys_over(temporary.clone(), Arc::new(SystemClock));
    let (one, two) = (ConnectionId::next(), ConnectionId::next());
    let who = Principal::trusted_network();
    let [id, other_id] = ["s", "other"].map(|id| SessionId::from_str(id).unwrap());
    let (session, other) = (keys.key(&who, &id), keys.key(&who, &other_id));
    for session in [session, other] {
        temporary.claim(session, Lane::Global, 0);
    }
    // None has: whoever closes it closes it.
    assert!(keys.closed(session, Some(one)));
    assert!(keys.closed(session, None));
    for connection in [one, two] {
        keys.made(&who, &id, connection);
    }
    keys.made(&who, &other_id, one);
    assert!(!keys.closed(session, Some(one)));
    assert!(keys.closed(session, Some(two)));
    // One that is gone keeps nothing open.
    keys.made(&who, &id, one);
    assert!(!keys.closed(session, Some(two)));
    keys.connection_ended(one);
    assert!(keys.closed(session, Some(two)));
    assert!(keys.closed(other, Some(two)));
    // What was made in an earlier life keeps no later one.
    keys.made(&who, &id, one);
    temporary.end(session);
    temporary.claim(session, Lane::Global, 0);
    assert!(keys.closed(session, Some(two)));
}

#[tokio::test]
async fn admission_freezes_what_is_bound() {
    let fixture = Fixture::new(10).await;
    let strict = TenantInterceptor::new(fixture.map.clone(), keys(), false);
    let open = TenantInterceptor::new(fixture.map.clone(), keys(), true);
    let mut metadata = MetadataMap::new();

    let nobody = strict.admit(&fixture.who, &metadata).unwrap();
    assert!(matches!(nobody.scope(), Err(Error::FailedPrecondition(_))));
    assert!(matches!(
        nobody.require_session(),
        Err(Error::InvalidArgument(_))
    ));
    let anyone = open.admit(&fixture.who, &metadata).unwrap();
    assert_eq!(anyone.scope().unwrap().readable(), [Lane::Global]);

    metadata.insert(SESSION_HEADER, "s1".parse().unwrap());
    let bound = fixture.bind("s1", ALICE).await.unwrap();
    let earlier = strict.admit(&fixture.who, &metadata).unwrap();
    fixture.bind("s1", BOB).await.unwrap();
    let later = strict.admit(&fixture.who, &metadata).unwrap();
    assert_eq!(earlier.scope().unwrap().tenant(), Some(bound.tenant));
    assert_eq!(earlier.generation(), bound.generation);
    assert_eq!(later.tenant().map(|t| t.to_string()).as_deref(), Some(BOB));
    assert_ne!(later.generation(), earlier.generation());
}

/// What was admitted before a session was ended does not go on, and what it was given
/// is of another generation.
#[test]
fn a_session_that_was_ended_is_another_one() {
    let keys = keys_over(
        TemporarySessions::new(Uuid::new_v4()),
        Arc::new(SystemClock),
    );
    let who = Principal::trusted_network();
    let [id, other] = ["s", "other"].map(|id| SessionId::from_str(id).unwrap());
    assert_eq!(keys.unbound_generation(&who, &id), 0);
    let key = keys.key(&who, &id);
    keys.end(key, 7);
    assert_eq!(keys.unbound_generation(&who, &id), 7);
    assert_eq!(keys.unbound_generation(&who, &other), 0);
    let numbers = [key, keys.key(&who, &other)].map(|key| keys.number(key));
    assert!(numbers.iter().all(|number| *number < 1 << 63));
    assert_ne!(numbers[0], numbers[1]);
}
