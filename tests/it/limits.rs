//! Every limit that there is a setting for, and what hits it.
//!
//! A limit of the settings that has no row here fails the test.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use futures::future::select_all;
use jammi_db::config::{ConfigSources, JammiConfig, show};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::client::{ALICE, BOB, alice_and_bob};
use crate::harness::TestServer;

/// What shows that a limit holds.
enum Shown {
    /// Statements of one session, the last of which is refused with the code, by the
    /// name of the setting; another tenant's is answered.
    Refused(fn(&mut JammiConfig), Code, Vec<String>),
    /// Nothing is refused: what is beyond the limit waits, or is not kept. Many
    /// statements of two tenants at a time are answered where it is as here.
    Bounded(fn(&mut JammiConfig)),
    /// The test in that file, which names the setting.
    By(&'static str, &'static str),
}

use Shown::{Bounded, By, Refused};

fn limits() -> Vec<(&'static str, Shown)> {
    let refused = |change: fn(&mut JammiConfig), code, statements: &[&str]| {
        let statements = statements.iter().map(|sql| (*sql).to_owned());
        Refused(change, code, statements.collect())
    };
    let too_large = |sql: String| Refused(|_| {}, Code::InvalidArgument, vec![sql]);
    vec![
        (
            "server.drain_timeout_ms",
            By(
                "tests/it/server.rs",
                "a_request_that_outlives_the_drain_is_cut_off",
            ),
        ),
        (
            "server.message_bytes_max",
            By(
                "tests/it/server.rs",
                "what_is_too_large_is_refused_by_the_name_of_the_limit",
            ),
        ),
        (
            "server.header_bytes_max",
            By(
                "tests/it/server.rs",
                "what_is_too_large_is_refused_by_the_name_of_the_limit",
            ),
        ),
        (
            "server.connections_max",
            By(
                "tests/it/server.rs",
                "connections_are_limited_and_silent_ones_dropped",
            ),
        ),
        (
            "server.first_bytes_timeout_ms",
            By(
                "tests/it/server.rs",
                "connections_are_limited_and_silent_ones_dropped",
            ),
        ),
        (
            "server.connection_streams_max",
            By(
                "tests/it/limits.rs",
                "a_connection_is_told_how_many_requests_it_may_have",
            ),
        ),
        (
            "server.keepalive_timeout_ms",
            By(
                "tests/it/limits.rs",
                "a_client_that_answers_no_ping_is_dropped",
            ),
        ),
        (
            "server.put_timeout_ms",
            By(
                "tests/it/writes/ingest.rs",
                "a_client_that_pauses_for_long_is_sent_away",
            ),
        ),
        (
            "server.poll_timeout_ms",
            By("tests/it/polling.rs", "what_nobody_asks_after_ends"),
        ),
        (
            "server.polled_queries_max",
            By(
                "tests/it/polling.rs",
                "one_tenants_polls_take_no_place_of_another_s",
            ),
        ),
        (
            "sessions.max",
            By(
                "tests/it/session.rs",
                "one_session_too_many_is_refused_by_the_name_of_the_limit",
            ),
        ),
        (
            "sessions.idle_timeout_secs",
            By("tests/it/temporary.rs", "an_idle_session_loses_it"),
        ),
        (
            "auth.failures_max",
            By(
                "tests/it/signing_in/attempts.rs",
                "wrong_credentials_of_any_kind_are_bounded_by_peer",
            ),
        ),
        (
            "auth.password.failures_max",
            By(
                "tests/it/authentication.rs",
                "a_password_reads_and_writes_for_its_tenants_alone",
            ),
        ),
        (
            "sessions.temporary_tables_max",
            refused(
                |config| config.sessions.temporary_tables_max = 1,
                Code::ResourceExhausted,
                &[
                    "CREATE TEMP TABLE a (id INT)",
                    "CREATE TEMP TABLE b (id INT)",
                ],
            ),
        ),
        (
            "transactions.max",
            By("tests/it/writes/transactions.rs", "transactions_have_caps"),
        ),
        (
            "transactions.session_max",
            By("tests/it/writes/transactions.rs", "transactions_have_caps"),
        ),
        (
            "transactions.idle_timeout_secs",
            By(
                "src/server/flight/transactions/tests.rs",
                "idle_transactions_are_rolled_back_and_remembered",
            ),
        ),
        (
            "lanes.open_max",
            By(
                "src/backend/tests/lanes.rs",
                "a_lane_in_use_is_not_closed_for_another",
            ),
        ),
        (
            "lanes.busy_timeout_ms",
            By(
                "tests/it/writes/transactions.rs",
                "a_writer_waits_its_turn_and_is_told_to_come_again",
            ),
        ),
        (
            "lanes.transactions_max",
            By(
                "src/backend/places.rs",
                "one_who_holds_all_that_he_may_keeps_nobody_waiting",
            ),
        ),
        (
            "lanes.tenant_transactions_max",
            By(
                "tests/it/slow_readers.rs",
                "one_who_reads_a_shared_table_slowly_keeps_nobody_waiting",
            ),
        ),
        (
            "lanes.savepoints_max",
            refused(
                |config| config.lanes.savepoints_max = 1,
                Code::ResourceExhausted,
                &["BEGIN", "SAVEPOINT a", "SAVEPOINT b"],
            ),
        ),
        (
            "lanes.reads_max",
            Bounded(|config| config.lanes.reads_max = 1),
        ),
        (
            "lanes.writers_waiting_max",
            By("tests/it/limits.rs", "one_writer_too_many_is_refused"),
        ),
        (
            "engine.memory_bytes",
            refused(
                |_| {},
                Code::ResourceExhausted,
                &["SELECT repeat('x', 2000000000)"],
            ),
        ),
        (
            "engine.tenant_memory_bytes",
            By(
                "tests/it/shares.rs",
                "one_tenants_joins_leave_memory_to_others",
            ),
        ),
        (
            "engine.spill_bytes_max",
            By(
                "tests/it/shares.rs",
                "what_others_have_is_told_as_the_whole",
            ),
        ),
        (
            "engine.tenant_spill_bytes_max",
            By(
                "tests/it/shares.rs",
                "one_tenants_sorts_leave_disk_to_others",
            ),
        ),
        (
            "engine.tenant_threads_max",
            Bounded(|config| {
                config.engine.tenant_threads_max = Some(1);
            }),
        ),
        (
            "engine.queries_max",
            By(
                "tests/it/queue.rs",
                "one_tenants_line_is_in_nobody_elses_way",
            ),
        ),
        (
            "engine.tenant_queries_max",
            By("tests/it/queue.rs", "who_waits_for_too_long_is_refused"),
        ),
        (
            "engine.tenant_queries_waiting_max",
            By(
                "tests/it/queue.rs",
                "one_tenants_line_is_in_nobody_elses_way",
            ),
        ),
        (
            "engine.queue_timeout_ms",
            By("tests/it/queue.rs", "who_waits_for_too_long_is_refused"),
        ),
        (
            "engine.statement_timeout_ms",
            By("tests/it/shares.rs", "a_statement_ends_when_it_is_due"),
        ),
        (
            "engine.statement_bytes_max",
            too_large(format!("SELECT '{}'", "x".repeat(1 << 20))),
        ),
        (
            "engine.operators_max",
            too_large(format!("SELECT 1{}", " + 1".repeat(3_000))),
        ),
        (
            "engine.tables_max",
            too_large(format!("SELECT 1 FROM sources{}", ", sources".repeat(600))),
        ),
        (
            "engine.list_items_max",
            too_large(format!("SELECT 1 WHERE 1 IN (1{})", ",1".repeat(100_000))),
        ),
        (
            "tenancy.depth_max",
            By(
                "tests/it/tenants/tree.rs",
                "circles_and_trees_that_are_too_deep_are_refused",
            ),
        ),
        (
            "engine.table_cache_bytes",
            Bounded(|config| config.engine.table_cache_bytes = 0),
        ),
        (
            "engine.source_cache_bytes",
            Bounded(|config| config.engine.source_cache_bytes = 0),
        ),
        (
            "audit.queue_max",
            Bounded(|config| config.audit.queue_max = 1),
        ),
        (
            "audit.segment_bytes",
            By(
                "tests/it/audit/chain.rs",
                "the_chain_goes_on_in_every_process",
            ),
        ),
    ]
}

/// Whether a setting bounds something, by its name.
fn is_limit(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    last == "max"
        || last.ends_with("_max")
        || last.ends_with("_bytes")
        || last.contains("_bytes_")
        || last.contains("timeout")
}

/// The names of all settings.
fn settings() -> Vec<String> {
    let shown = show(ConfigSources::default()).unwrap();
    let mut table = String::new();
    let mut names = Vec::new();
    for line in shown.lines() {
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_end_matches(']').to_owned();
        } else if let Some(name) = line.trim_start_matches("# ").split(' ').next()
            && !name.is_empty()
        {
            names.push(format!("{table}.{name}"));
        }
    }
    names
}

#[test]
fn every_limit_has_a_row() {
    let all = settings();
    assert!(all.len() > 50, "{all:?}");
    let bounding: BTreeSet<&str> = all
        .iter()
        .map(String::as_str)
        .filter(|n| is_limit(n))
        .collect();
    let rows = limits();
    let listed: BTreeSet<&str> = rows.iter().map(|(name, _)| *name).collect();
    assert_eq!(listed.len(), rows.len(), "a row is there twice");
    assert_eq!(listed, bounding);
    for (setting, shown) in &rows {
        let By(file, test) = shown else { continue };
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        let start = text.find(&format!("fn {test}()"));
        let start = start.unwrap_or_else(|| panic!("{setting}: {file} has no test {test}"));
        let field = setting.rsplit('.').next().unwrap();
        let body = text[start..].split("\n}\n").next().unwrap();
        let world = &text[..text.find("#[tokio::test").unwrap_or(0)];
        assert!(
            body.contains(field) || world.contains(setting) || world.contains(&format!("{field}:")),
            "{setting}: {test} does not name it"
        );
    }
}

const SMALL: &str = "SELECT value % 7 AS k, count(*) AS n FROM generate_series(1, 1000) GROUP BY 1";

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_beyond_a_limit_is_refused_by_the_name_of_its_setting() {
    for (setting, shown) in limits() {
        let Refused(change, code, statements) = shown else {
            continue;
        };
        let server = TestServer::start_with(change).await;
        let (mut alice, mut bob) = alice_and_bob(&server).await;
        let (last, before) = statements.split_last().unwrap();
        for sql in before {
            alice.query(sql).await.unwrap();
        }
        let status = alice.query(last).await.unwrap_err();
        assert_eq!(status.code(), code, "{setting}: {status:?}");
        assert!(status.message().contains(setting), "{setting}: {status:?}");
        assert!(!status.message().contains(BOB), "{setting}: {status:?}");
        assert_eq!(bob.query(SMALL).await.unwrap().num_rows(), 7, "{setting}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_beyond_a_bound_without_an_error_is_served_all_the_same() {
    for (setting, shown) in limits() {
        let Bounded(change) = shown else { continue };
        let server = TestServer::start_with(change).await;
        let (mut alice, mut bob) = alice_and_bob(&server).await;
        for (client, word) in [(&mut alice, "hers"), (&mut bob, "his")] {
            for sql in [
                "CREATE TABLE t (id BIGINT PRIMARY KEY, word VARCHAR)".to_owned(),
                format!("INSERT INTO t SELECT value, '{word}' FROM generate_series(1, 1000)"),
            ] {
                client.query(&sql).await.unwrap();
            }
        }
        let reads = (0..16).map(|at| {
            let (mut client, rows) = match at % 2 {
                0 => (alice.clone(), ("hers", "his")),
                _ => (bob.clone(), ("his", "hers")),
            };
            tokio::spawn(async move {
                let sql =
                    format!("SELECT word, count(*) AS n FROM t WHERE id > {at} GROUP BY word");
                let (own, foreign) = rows;
                let answer = format!("{:?}", client.query(&sql).await.unwrap());
                assert!(
                    answer.contains(own) && !answer.contains(&format!("{foreign}\"")),
                    "{answer}"
                );
            })
        });
        for read in reads.collect::<Vec<_>>() {
            read.await
                .unwrap_or_else(|error| panic!("{setting}: {error}"));
        }
        server.stop().await;
    }
}

/// Symptom: where as many waited to write a lane as may, the next one was told to
/// raise how long one waits.
#[tokio::test(flavor = "multi_thread")]
async fn one_writer_too_many_is_refused() {
    let server = TestServer::start_with(|config| {
        config.lanes.writers_waiting_max = 1;
        config.lanes.busy_timeout_ms = 600_000;
    })
    .await;
    let (mut alice, mut bob) = alice_and_bob(&server).await;
    for client in [&mut alice, &mut bob] {
        client.query("CREATE TABLE t (id BIGINT)").await.unwrap();
    }
    let mut holder = alice.with_session("alice-too");
    holder.bind(ALICE).await;
    for sql in ["BEGIN", "INSERT INTO t VALUES (0)"] {
        holder.query(sql).await.unwrap();
    }
    let writes = [1, 2].map(|id| {
        let mut alice = alice.clone();
        tokio::spawn(async move { alice.query(&format!("INSERT INTO t VALUES ({id})")).await })
    });
    // One waits, so the other is the first to end.
    let (ended, _, waiting) = select_all(writes).await;
    let status = ended.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let setting = "lanes.writers_waiting_max (now 1)";
    assert!(status.message().contains(setting), "{status:?}");
    bob.query("INSERT INTO t VALUES (1)").await.unwrap();
    holder.query("COMMIT").await.unwrap();
    for write in waiting {
        write.await.unwrap().unwrap();
    }
    let rows = alice.query("SELECT id FROM t").await.unwrap();
    assert_eq!(rows.num_rows(), 2);
    server.stop().await;
}

/// A connection that sent HTTP/2's preface and its own settings, which are none.
async fn http2(server: &TestServer) -> TcpStream {
    let mut stream = TcpStream::connect(server.grpc).await.unwrap();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    stream.write_all(&settings).await.unwrap();
    stream
}

/// HTTP/2 has the client keep to what the server's SETTINGS say (RFC 9113, 5.1.2).
#[tokio::test]
async fn a_connection_is_told_how_many_requests_it_may_have() {
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    let server = TestServer::start_with(|config| config.server.connection_streams_max = 7).await;
    let mut stream = http2(&server).await;
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    let [_, high, low, kind, ..] = head;
    assert_eq!(kind, 4, "the first frame is SETTINGS");
    let mut settings = vec![0; usize::from(u16::from_be_bytes([high, low]))];
    stream.read_exact(&mut settings).await.unwrap();
    let told = settings.chunks(6).find_map(|setting| {
        let (id, value) = setting.split_at(2);
        let value = u32::from_be_bytes(value.try_into().ok()?);
        (id == MAX_CONCURRENT_STREAMS.to_be_bytes()).then_some(value)
    });
    assert_eq!(told, Some(7));
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_dropped() {
    let server = TestServer::start_with(|config| {
        config.server.keepalive_interval_ms = 100;
        config.server.keepalive_timeout_ms = 100;
    })
    .await;
    let mut vanished = http2(&server).await;
    // Until the server closes it.
    let mut frames = Vec::new();
    let _ = vanished.read_to_end(&mut frames).await;
    assert!(!frames.is_empty());
    let (_, mut bob) = alice_and_bob(&server).await;
    assert_eq!(bob.query(SMALL).await.unwrap().num_rows(), 7);
    server.stop().await;
}
