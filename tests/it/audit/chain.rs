//! What holds of the trail when a server is killed, in every process that writes it, and
//! for whoever checks it by the command.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use arrow::array::RecordBatch;
use jammi_db::audit::{self, PublicKey};
use jammi_db::config::AuditDurability;
use jammi_db::engine::Engine;
use jammi_db::session::JammiSession;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;

use super::{events, faults, texts};
use crate::cli::{jammi, text};
use crate::client::{ALICE, BOB, Client, alice_and_bob};
use crate::harness::{TestServer, config};
use crate::process::{Process, command};

/// Every record of a trail.
async fn recorded(dir: &Path) -> Vec<audit::Event> {
    let engine = Engine::open(&config(dir)).await.unwrap();
    let mut events = engine
        .audit()
        .events(audit::Whose::Everybodys, None)
        .unwrap();
    std::iter::from_fn(|| events.next(1_000).unwrap())
        .flatten()
        .collect()
}

/// Inserts until the server is gone, and keeps what was acknowledged.
async fn insert_until_killed(mut client: Client, who: &str, acknowledged: Arc<Mutex<Vec<String>>>) {
    for at in 0.. {
        let sql = format!("INSERT INTO log VALUES ('{who}', {at})");
        if client.query(&sql).await.is_err() {
            return;
        }
        acknowledged.lock().push(sql);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_in_the_trail_of_a_server_that_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path());
    command
        .env("JAMMI_AUDIT__DURABILITY", "before_answer")
        .env("JAMMI_AUDIT__STATEMENTS", "full");
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    for round in 1..=3 {
        let mut server = Process::start(&mut command).await;
        let mut writers = Vec::new();
        for (session, tenant) in [("alice", ALICE), ("bob", BOB)] {
            let mut client = Client::over(server.channel().await, Some(session));
            client.bind(tenant).await;
            let table = "CREATE TABLE IF NOT EXISTS log (who TEXT, at BIGINT)";
            client.query(table).await.unwrap();
            let acknowledged = Arc::clone(&acknowledged);
            let who = format!("{session}{round}");
            writers.push(tokio::spawn(async move {
                insert_until_killed(client, &who, acknowledged).await;
            }));
        }
        while acknowledged.lock().len() < 20 * round {
            tokio::task::yield_now().await;
        }
        server.child.kill().await.unwrap();
        for writer in writers {
            writer.await.unwrap();
        }
        assert_eq!(faults(dir.path()), []);
        let kept = recorded(dir.path()).await;
        for sql in acknowledged.lock().iter() {
            let is_its = |event: &audit::Event| {
                event.statement.as_ref() == Some(sql)
                    && event.method.ends_with("/DoGet")
                    && event.outcome == audit::OK
            };
            assert!(kept.iter().any(is_its), "{sql}");
        }
    }
}

/// Runs the command on the databases of `dir`.
async fn run(dir: &Path, arguments: &[&str]) -> Output {
    let target = ["--artifact-dir".to_owned(), dir.display().to_string()];
    let output = jammi(dir, &target, arguments).output().await;
    output.unwrap()
}

/// A server that has answered both tenants, and begins a segment for every few records.
async fn answering() -> (TestServer, Arc<TempDir>, Client) {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let server = TestServer::start_in(Arc::clone(&dir), |config| {
        config.audit.segment_bytes = 8 << 10;
        config.audit.durability = AuditDurability::BeforeAnswer;
    })
    .await;
    let (mut alice, mut bob) = alice_and_bob(&server).await;
    bob.query("SELECT 3").await.unwrap();
    for _ in 0..20 {
        alice.query("SELECT 1").await.unwrap();
    }
    (server, dir, alice)
}

#[tokio::test]
async fn the_chain_goes_on_in_every_process() {
    // With segments of audit.segment_bytes.
    let (server, dir, mut alice) = answering().await;
    let dir = dir.path();
    // The command, beside the server.
    let sql = "SELECT 'embedded' AS by_command";
    let done = run(dir, &["--tenant", ALICE, "query", sql]).await;
    assert!(done.status.success(), "{}", text(&done.stderr));
    alice.query("SELECT 2").await.unwrap();
    let columns = "method, user_name, statement, outcome";
    let told = events(&mut alice, columns, "statement LIKE '%by_command%'").await;
    let expected = ["sql", "trusted-network", "SELECT ? AS by_command", "OK"];
    assert_eq!(told, [expected]);
    server.stop().await;
    // And a program that embeds it.
    let session = JammiSession::new(config(dir)).await.unwrap();
    session.sql("SELECT 1 AS by_library").await.unwrap();
    session
        .sql("SELECT absent AS by_library")
        .await
        .unwrap_err();
    session.close().await;
    let segments = fs::read_dir(audit::directory(dir)).unwrap().count();
    assert!(segments > 5, "{segments}");
    let outcomes = recorded(dir).await.into_iter();
    let by_library = |event: &audit::Event| {
        let statement = event.statement.as_deref();
        statement.is_some_and(|text| text.ends_with("by_library"))
    };
    let outcomes: Vec<String> = outcomes
        .filter(by_library)
        .map(|event| event.outcome)
        .collect();
    assert_eq!(outcomes, ["OK", "INVALID_ARGUMENT"]);

    let key = run(dir, &["audit", "key"]).await;
    let key = text(&key.stdout).trim();
    assert!(PublicKey::parse(key).is_some(), "{key}");
    let checked = run(dir, &["audit", "verify", "--public-key", key]).await;
    let out = text(&checked.stdout);
    assert!(checked.status.success(), "{out} {}", text(&checked.stderr));
    let holds = out.contains("records in ") && out.contains(" hold\ncheckpoint ");
    assert!(holds, "{out}");
    let kept = out.rsplit(' ').next().unwrap().trim();
    let again = run(dir, &["audit", "verify", "--checkpoint", kept]).await;
    assert!(again.status.success(), "{}", text(&again.stderr));
}

#[tokio::test]
async fn records_are_exported_of_everybody_or_of_one_tenant() {
    let (server, dir, _alice) = answering().await;
    server.stop().await;
    for (tenant, has_others) in [(None, true), (Some(BOB), false)] {
        let file = dir.path().join("events.parquet");
        let file = file.to_str().unwrap();
        let mut arguments = vec!["audit", "export", "--to", file];
        arguments.extend(tenant.into_iter().flat_map(|tenant| ["--tenant", tenant]));
        let written = run(dir.path(), &arguments).await;
        assert!(written.status.success(), "{}", text(&written.stderr));
        let rows = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(file).unwrap());
        let rows: Vec<RecordBatch> = rows.unwrap().build().unwrap().map(Result::unwrap).collect();
        let shown: Vec<String> = rows
            .iter()
            .flat_map(texts)
            .map(|row| row.join("|"))
            .collect();
        assert!(shown.iter().any(|row| row.contains(BOB)), "{shown:?}");
        let others = shown.iter().any(|row| row.contains(ALICE));
        assert_eq!(others, has_others, "{shown:?}");
    }
}

#[tokio::test]
async fn the_command_finds_what_was_done_to_a_trail() {
    let (server, dir, _alice) = answering().await;
    server.stop().await;
    let dir = dir.path();
    let segment = audit::directory(dir).join("00000001.jsonl");
    let all = fs::read_to_string(&segment).unwrap();
    let edited = all.replacen("\"outcome\":\"OK\"", "\"outcome\":\"KO\"", 1);
    fs::write(&segment, edited).unwrap();
    let broken = run(dir, &["audit", "verify"]).await;
    assert_eq!(broken.status.code(), Some(1));
    let out = text(&broken.stdout);
    for part in ["segment 00000001: record ", "was edited"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(text(&broken.stderr).contains("does not hold"));
    for flag in ["--checkpoint", "--public-key"] {
        let wrong = run(dir, &["audit", "verify", flag, "x"]).await;
        assert_eq!(wrong.status.code(), Some(2), "{flag}");
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let none = run(elsewhere.path(), &["audit", "verify"]).await;
    assert_eq!(none.status.code(), Some(2));
}
