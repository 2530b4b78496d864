//! Statements that compute for minutes, or ask for more than there is: what
//! they do to other tenants, and what is left when their clients go away.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::client::{Client, alice_and_bob};
use crate::harness::TestServer;

/// Longer than a loaded machine takes, and shorter than any of the statements.
const WATCHDOG: Duration = Duration::from_secs(300);

/// A million rows, twice.
const PAIRS: &str = "generate_series(1, 1000000) a, generate_series(1, 1000000) b";

/// As many runs of `sql` as there are cores, and two more.
fn run_on_all_cores(client: &Client, sql: &str) -> Vec<JoinHandle<Result<(), Status>>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (0..cores + 2)
        .map(|_| {
            let (mut client, sql) = (client.clone(), sql.to_owned());
            tokio::spawn(async move { client.query(&sql).await.map(|_| ()) })
        })
        .collect()
}

/// How often the server is asked what it runs: seldom enough to leave the cores to
/// it.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Waits until the server runs `wanted` statements, by its own metrics.
pub async fn until_active(server: &TestServer, wanted: usize) {
    loop {
        let (_, page) = server.page("/metrics").await;
        let active = page
            .lines()
            .find_map(|line| line.strip_prefix("jammi_requests_active "))
            .map_or(0.0, |value| value.parse::<f64>().unwrap());
        if active == wanted as f64 {
            return;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Bob is answered while Alice's statements run, and when she goes away, so do
/// they: the server has nothing to drain.
async fn alice_keeps_nobody_waiting(server: &TestServer, endless: &str) {
    let (alice, mut bob) = alice_and_bob(server).await;
    let running = run_on_all_cores(&alice, endless);
    until_active(server, running.len()).await;
    for _ in 0..5 {
        assert_eq!(bob.query("SELECT 1 AS one").await.unwrap().num_rows(), 1);
        let (status, _) = server.page("/healthz").await;
        assert!(status.contains("200"), "{status}");
    }
    for query in &running {
        assert!(!query.is_finished(), "{endless}");
    }
    for query in running {
        query.abort();
    }
    until_active(server, 0).await;
}

/// Symptom: a cross join that makes a million batches of one, and a join whose
/// filter lets no row out, each kept every thread of the server, also after its
/// client had gone: no other statement was answered. Cause: nothing above the
/// leaves of a plan gave way, plans ran on the threads that serve sockets, and
/// there was one thread a core. Fix: joins give way, plans have threads of their
/// own, more than cores, and one tenant has but a few of them.
#[tokio::test(flavor = "multi_thread")]
async fn endless_statements_keep_nobody_waiting_and_end_with_their_clients() {
    let statements = [
        format!("SELECT count(*) FROM {PAIRS} WHERE a.value + b.value <> 0"),
        format!("SELECT count(*) FROM {PAIRS} WHERE a.value + b.value = -1"),
        format!(
            "SELECT count(*) FROM {PAIRS} WHERE a.value*0 = b.value*0 AND a.value + b.value = -1"
        ),
        "SELECT count(*) FROM generate_series(1, 1000000) a WHERE EXISTS (SELECT 1 \
         FROM generate_series(1, 1000000) b WHERE a.value*0 = b.value*0 AND a.value + b.value = -1)"
            .to_owned(),
        "SELECT sum(x) FROM (SELECT median(value) OVER (ORDER BY value \
         ROWS BETWEEN 500000 PRECEDING AND CURRENT ROW) x FROM generate_series(1, 1000000))"
            .to_owned(),
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t"
            .to_owned(),
    ];
    let server = TestServer::start().await;
    for endless in statements {
        timeout(WATCHDOG, alice_keeps_nobody_waiting(&server, &endless))
            .await
            .unwrap_or_else(|_| panic!("Bob waits for: {endless}"));
    }
    server.stop().await;
}

/// Symptom: a statement of a few lines, or of many operators, kept a thread that
/// serves sockets for minutes, took all memory, or ended the process by its
/// stack. Cause: only its length in bytes was bounded, and it was planned on the
/// threads that serve sockets.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_would_make_a_vast_plan_is_refused_by_its_setting() {
    let server = TestServer::start().await;
    let (mut alice, _) = alice_and_bob(&server).await;
    let doubled: String = (1..30)
        .map(|at| format!(", a{at} AS (SELECT x.i FROM a{0} x, a{0} y)", at - 1))
        .collect();
    for (sql, setting) in [
        (
            format!("SELECT 1{}", " + 1".repeat(200_000)),
            "engine.operators_max",
        ),
        (
            format!("SELECT 1{}", "::int".repeat(200_000)),
            "engine.operators_max",
        ),
        (
            format!("SELECT 1{}", " OR true".repeat(100_000)),
            "engine.operators_max",
        ),
        (
            format!("SELECT 1{}", " UNION SELECT 1".repeat(50_000)),
            "engine.operators_max",
        ),
        (
            format!("SELECT 1 FROM sources{}", ", sources".repeat(5_000)),
            "engine.tables_max",
        ),
        (
            format!("WITH a0 AS (SELECT 1 i){doubled} SELECT * FROM a29"),
            "engine.tables_max",
        ),
        (
            format!("SELECT 1 WHERE 1 IN (1{})", ",1".repeat(100_000)),
            "engine.list_items_max",
        ),
    ] {
        let status = alice.query(&sql).await.unwrap_err();
        assert_eq!(
            status.code(),
            Code::InvalidArgument,
            "{setting}: {status:?}"
        );
        assert!(status.message().contains(setting), "{setting}: {status:?}");
    }
    // What is just within the bounds is planned, run and dropped.
    for (sql, rows) in [
        // Where no column is named after it, which would take as long again.
        (format!("SELECT 1 WHERE 0 < 1{}", " + 1".repeat(1_990)), 1),
        (
            format!("SELECT 1 WHERE false{}", " OR true".repeat(1_900)),
            1,
        ),
        (
            format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(600)),
            601,
        ),
    ] {
        assert_eq!(alice.query(&sql).await.unwrap().num_rows(), rows);
    }
    server.stop().await;
}

/// Symptom: `repeat('x', 2000000000)` for some rows ended the process, and
/// `range(0, 1000000000)` took 8 GB. Cause: what a function makes is allocated
/// before the memory pool hears of it. Fix: its size is bounded before the call.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_would_make_a_vast_value_is_refused() {
    let server = TestServer::start().await;
    let (mut alice, _) = alice_and_bob(&server).await;
    for call in [
        "length(repeat('x', 2000000000))",
        "length(repeat(cast(value AS varchar), 1000000000))",
        "length(repeat(repeat('x', 1000), value * 1000000))",
        "length(lpad('x', 2000000000))",
        "length(rpad('x', 2000000000, 'abc'))",
        "array_length(array_repeat(1, 1000000000))",
        "array_length(list_repeat(value, 1000000000))",
        "array_length(array_resize(make_array(1), 1000000000, 2))",
        "array_length(range(0, 1000000000))",
        "array_length(range(value * 1000000000))",
        "array_length(generate_series(1000000000, 0, -1))",
        "array_length(generate_series(DATE '0001-01-01', DATE '9999-01-01', INTERVAL '1' MICROSECOND))",
        "array_length(generate_series(TIMESTAMP '2000-01-01', TIMESTAMP '2020-01-01', INTERVAL '1' MICROSECOND))",
    ] {
        let sql = format!("SELECT {call} FROM generate_series(1, 3)");
        let status = alice.query(&sql).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{call}: {status:?}");
        assert!(
            status.message().contains("engine.memory_bytes"),
            "{call}: {status:?}"
        );
    }
    for call in [
        "length(repeat('x', 1000000))",
        "length(repeat(cast(value AS varchar), 1000))",
        "length(lpad('x', 10000))",
        "array_length(array_repeat(value, 1000))",
        "array_length(range(0, 1000000))",
        "array_length(range(0, value))",
        "array_length(generate_series(DATE '2000-01-01', DATE '2020-01-01', INTERVAL '1' DAY))",
    ] {
        let sql = format!("SELECT {call} FROM generate_series(1, 3)");
        let rows = alice.query(&sql).await;
        assert_eq!(rows.unwrap().num_rows(), 3, "{call}");
    }
    server.stop().await;
}
