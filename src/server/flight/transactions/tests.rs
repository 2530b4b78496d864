//! Idleness, and writes that break off.

use std::str::FromStr;

use crate::engine::{Engine, NameDefaults};
use crate::tenant::{Scope, TenantId};

use super::*;

#[derive(Default)]
struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct World {
    engine: Engine,
    scope: Scope,
    clock: Arc<TestClock>,
    transactions: Transactions,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = JammiConfig {
            artifact_dir: dir.path().to_owned(),
            ..JammiConfig::default()
        };
        config.transactions.idle_timeout_secs = 10;
        config.sessions.idle_timeout_secs = 100;
        let tenant = TenantId::from_str("018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a").unwrap();
        let clock = Arc::new(TestClock::default());
        let world = World {
            engine: Engine::open(&config).await.unwrap(),
            scope: Scope::tenant_bound(Principal::trusted_network(), tenant),
            transactions: Transactions::new(&config, Arc::<TestClock>::clone(&clock)),
            clock,
            _dir: dir,
        };
        world.run("CREATE TABLE t (id INT)", None).await;
        world
    }

    fn begin(&self, serial: u64, by_text: bool) -> Arc<Open> {
        let transaction = self.engine.begin(&self.scope);
        self.transactions
            .begin(party(), serial, transaction, by_text)
            .unwrap();
        self.transactions.named(&party(), serial).unwrap()
    }

    async fn run(&self, sql: &str, within: Option<&SessionTransaction>) {
        let names = NameDefaults::default();
        let prepared = self.engine.prepare_within(&self.scope, &names, sql, within);
        let statement = prepared.await.unwrap();
        self.engine
            .execute_within(&self.scope, &statement, &[], within)
            .await
            .unwrap();
    }

    /// Inserts a row in `one`.
    async fn insert(&self, one: &Arc<Open>) {
        let running = self.transactions.enter(one).await.unwrap();
        self.run("INSERT INTO t VALUES (1)", Some(running.transaction()))
            .await;
        running.finish();
    }

    fn pass(&self, secs: i64) {
        self.clock.0.fetch_add(secs * 1_000, Ordering::Relaxed);
        self.transactions.sweep();
    }
}

fn party() -> Party {
    let session = SessionId::from_str("s").unwrap();
    Party {
        owner: (Principal::trusted_network(), Some(session)),
        generation: 1,
        connection: None,
    }
}

fn text<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn idle_transactions_are_rolled_back_and_remembered() {
    let world = World::new().await;
    let used = world.begin(1, false);
    let unused = world.begin(2, true);
    world.insert(&used).await;
    world.pass(9);
    world.insert(&used).await;
    world.pass(9);
    assert!(used.transaction().is_ok());
    world.pass(2);
    // It holds up no other writer, and no statement passes for one of it.
    world.run("INSERT INTO t VALUES (2)", None).await;
    let idle = text(world.transactions.enter(&used).await);
    assert!(idle.contains("transactions.idle_timeout_secs"), "{idle}");
    let idle = text(world.transactions.end(&used, true).await);
    assert!(idle.contains("was rolled back"), "{idle}");
    // Its client knows now.
    let gone = text(world.transactions.named(&party(), 1));
    assert!(gone.contains("has ended"), "{gone}");
    // One that holds nothing is kept for as long as its session.
    assert!(unused.transaction().is_ok());
    world.pass(200);
    assert!(world.transactions.of_session(&party()).is_none());
}

#[tokio::test]
async fn rolling_back_what_was_idle_succeeds() {
    let world = World::new().await;
    let used = world.begin(1, true);
    world.insert(&used).await;
    world.pass(11);
    let found = world.transactions.of_session(&party()).unwrap();
    assert!(text(found.transaction()).contains("send ROLLBACK"));
    assert_eq!(text(world.transactions.end(&found, false).await), "ok");
    assert!(world.transactions.of_session(&party()).is_none());
}

#[tokio::test]
async fn a_write_that_breaks_off_ends_the_transaction() {
    let world = World::new().await;
    let one = world.begin(1, false);
    drop(world.transactions.enter(&one).await.unwrap());
    assert!(one.transaction().is_ok());
    let mut running = world.transactions.enter(&one).await.unwrap();
    running.writes();
    drop(running);
    let broken = text(world.transactions.end(&one, true).await);
    assert!(broken.contains("was broken off"), "{broken}");
}

#[tokio::test]
async fn a_running_statement_is_not_idle() {
    let world = World::new().await;
    let one = world.begin(1, false);
    let running = world.transactions.enter(&one).await.unwrap();
    world.pass(1_000);
    assert!(one.transaction().is_ok());
    running.finish();
    world.pass(9);
    assert!(one.transaction().is_ok());
}
