//! Statements that wait for their turn, and whom they keep waiting: nobody else.

use arrow_flight::error::FlightError;
use futures::TryStreamExt;
use futures::future::select_all;
use jammi_db::config::JammiConfig;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use crate::client::{ALICE, BOB, Client, alice_and_bob};
use crate::harness::TestServer;
use crate::heavy::{LOOK_INTERVAL, until_active};
use crate::slow_readers::begin_to_read;

const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 1000000) a, \
                       generate_series(1, 1000000) b WHERE a.value + b.value = -1";
/// One that is no short statement.
const SMALL: &str = "SELECT value % 7 AS k, count(*) AS n FROM generate_series(1, 1000) GROUP BY 1";

async fn start(change: impl FnOnce(&mut JammiConfig)) -> (TestServer, Client, Client) {
    let server = TestServer::start_with(change).await;
    let (alice, bob) = alice_and_bob(&server).await;
    (server, alice, bob)
}

type Running = JoinHandle<Result<(), Status>>;

fn run_endless(client: &Client, times: usize) -> Vec<Running> {
    let runs = (0..times).map(|_| {
        let mut client = client.clone();
        tokio::spawn(async move { client.query(ENDLESS).await.map(|_| ()) })
    });
    runs.collect()
}

/// The first of them that ends, which is refused, and the others.
async fn first_refused(running: Vec<Running>) -> (Status, Vec<Running>) {
    let (ended, _, others) = select_all(running).await;
    (ended.unwrap().unwrap_err(), others)
}

fn assert_names(status: &Status, setting: &str) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains(setting), "{status:?}");
    assert!(!status.message().contains(BOB), "{status:?}");
}

/// What a metric without labels says; 0 where it has not been told of.
async fn metric(server: &TestServer, name: &str) -> f64 {
    let (_, page) = server.page("/metrics").await;
    let mut values = page
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    values.next().map_or(0.0, |value| value.parse().unwrap())
}

/// Waits until so many statements wait, or none. The metrics are the process's, so that
/// those of other tests may be among them.
async fn until_waiting(server: &TestServer, wanted: usize) {
    loop {
        let waiting = metric(server, "jammi_queries_waiting").await;
        let reached = match wanted {
            0 => waiting == 0.0,
            wanted => waiting >= wanted as f64,
        };
        if reached {
            return;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn end(server: TestServer, running: Vec<Running>) {
    for query in running {
        query.abort();
    }
    until_active(&server, 0).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenants_line_is_in_nobody_elses_way() {
    let (server, mut alice, mut bob) = start(|config| {
        config.engine.queries_max = 2;
        config.engine.tenant_queries_max = 2;
        config.engine.tenant_queries_waiting_max = 3;
    })
    .await;
    // Two run, which is all, three wait, and the sixth may not.
    let waited = metric(&server, "jammi_query_wait_seconds_count").await;
    let (refused, running) = first_refused(run_endless(&alice, 6)).await;
    until_waiting(&server, 3).await;
    assert_names(&refused, "engine.tenant_queries_waiting_max (now 3)");
    // What is short waits for no turn.
    assert_eq!(alice.query("SELECT 1 AS one").await.unwrap().num_rows(), 1);
    // He has one at a time beyond those.
    for _ in 0..3 {
        assert_eq!(bob.query(SMALL).await.unwrap().num_rows(), 7);
    }
    // When they go away, so do those that waited.
    for query in running {
        query.abort();
    }
    until_active(&server, 0).await;
    until_waiting(&server, 0).await;
    assert!(metric(&server, "jammi_query_wait_seconds_count").await >= waited + 3.0);
    let (_, page) = server.page("/metrics").await;
    let told = page.lines().filter(|line| line.contains("_wait"));
    for line in told {
        assert!(!line.contains(ALICE) && !line.contains(BOB), "{line}");
    }
    assert_eq!(alice.query(SMALL).await.unwrap().num_rows(), 7);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_too_long_is_refused() {
    let (server, alice, mut bob) = start(|config| {
        config.engine.tenant_queries_max = 1;
        config.engine.queue_timeout_ms = 200;
    })
    .await;
    let (refused, running) = first_refused(run_endless(&alice, 2)).await;
    assert_names(&refused, "engine.queue_timeout_ms");
    assert_names(&refused, "engine.tenant_queries_max (now 1)");
    assert_eq!(bob.query(SMALL).await.unwrap().num_rows(), 7);
    end(server, running).await;
}

/// A statement that a place would keep from ending what others wait for, or from
/// itself, needs none.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_waits_for_itself() {
    let (server, mut alice, _) = start(|config| {
        config.engine.tenant_queries_max = 1;
    })
    .await;
    // Writes read.
    for sql in [
        "CREATE TABLE t AS SELECT value AS n FROM generate_series(1, 100)",
        "INSERT INTO t SELECT value + 100 AS n FROM generate_series(1, 100)",
        "UPDATE t SET n = n + 1 WHERE n IN (SELECT max(n) FROM t)",
    ] {
        alice.query(sql).await.unwrap();
    }
    let running = run_endless(&alice, 1);
    let mut other = alice.with_session("alice-too");
    other.bind(ALICE).await;
    for sql in [
        "BEGIN",
        "INSERT INTO t SELECT value + 200 AS n FROM generate_series(1, 100)",
        "SELECT n % 7, count(*) FROM t GROUP BY 1",
        "COMMIT",
    ] {
        other.query(sql).await.unwrap();
    }
    end(server, running).await;
}

/// A reader who does not keep up has no place meanwhile, and gets all rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_keeps_no_place() {
    const ROWS: usize = 100_000;
    let (server, mut alice, _) = start(|config| {
        config.engine.tenant_queries_max = 1;
    })
    .await;
    let sql = format!("SELECT value, repeat('x', 1000) AS t FROM generate_series(1, {ROWS})");
    let mut readers = Vec::new();
    for _ in 0..3 {
        readers.push(begin_to_read(&server, "alice", &sql).await.unwrap());
        assert_eq!(alice.query(SMALL).await.unwrap().num_rows(), 7);
    }
    for reader in readers {
        let mut rest = 0;
        let mut messages = reader.map_err(FlightError::from);
        while let Some(message) = messages.try_next().await.unwrap() {
            rest += usize::from(!message.data_body.is_empty());
        }
        assert!(rest > 1, "{rest} messages of {ROWS} rows");
    }
    // Whole, too, where they take turns.
    let reads = (0..3).map(|_| {
        let (mut alice, sql) = (alice.clone(), sql.clone());
        tokio::spawn(async move { alice.query(&sql).await.unwrap().num_rows() })
    });
    for read in reads.collect::<Vec<_>>() {
        assert_eq!(read.await.unwrap(), ROWS);
    }
    server.stop().await;
}
