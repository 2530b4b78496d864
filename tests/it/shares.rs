//! One tenant who has all that it may have of something, and another who is
//! answered as if there were nobody else.

use std::time::Duration;

use tonic::{Code, Status};

use crate::client::{ALICE, BOB, Client, alice_and_bob, statement};
use crate::harness::TestServer;
use crate::heavy::{LOOK_INTERVAL, until_active};
use crate::slow_readers::begin_to_read;

/// Alice is told of her own setting, and of nobody else.
fn assert_hers(status: &Status, code: Code, setting: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(setting), "{status:?}");
    for foreign in [BOB, "bob", "tenant_id"] {
        assert!(!status.message().contains(foreign), "{status:?}");
    }
}

/// Bob groups, sorts and joins.
async fn assert_bob_is_served(bob: &mut Client) {
    for (sql, rows) in [
        ("SELECT 1 AS one", 1),
        (
            "SELECT value % 7 AS k, count(*) AS n FROM generate_series(1, 10000) \
             GROUP BY value % 7 ORDER BY n DESC, k",
            7,
        ),
        (
            "SELECT a.value FROM generate_series(1, 1000) a \
             JOIN generate_series(1, 1000) b ON a.value = b.value * 2",
            500,
        ),
    ] {
        match bob.query(sql).await {
            Ok(batch) => assert_eq!(batch.num_rows(), rows, "{sql}"),
            Err(status) => panic!("{sql}: {status:?}"),
        }
    }
}

/// Symptom: joins of one tenant took the memory of all queries, so that another
/// one's GROUP BY was refused, and the error listed what others' queries had. Cause:
/// one pool, whoever reserved. Fix: each tenant has a share of it.
#[tokio::test(flavor = "multi_thread")]
async fn one_tenants_joins_leave_memory_to_others() {
    let server = TestServer::start_with(|config| {
        config.engine.memory_bytes = 128 << 20;
        config.engine.target_partitions = Some(2);
    })
    .await;
    let (_, mut bob) = alice_and_bob(&server).await;
    // Each holds a table of a million keys while its rows are not read.
    let join = "SELECT a.value, repeat('x', 1000) AS t FROM generate_series(1, 1000000) a \
                JOIN generate_series(1, 1000000) b ON a.value = b.value";
    let mut held = Vec::new();
    let refused = loop {
        assert!(held.len() < 16, "she gets more than her share");
        match begin_to_read(&server, "alice", join).await {
            Ok(rows) => held.push(rows),
            Err(status) => break status,
        }
    };
    assert!(!held.is_empty());
    assert_hers(
        &refused,
        Code::ResourceExhausted,
        "engine.tenant_memory_bytes",
    );
    assert_bob_is_served(&mut bob).await;
    let his = begin_to_read(&server, "bob", join).await.unwrap();
    // When they go away, so does what they held.
    drop(held);
    until_active(&server, 1).await;
    begin_to_read(&server, "alice", join).await.unwrap();
    drop(his);
    server.stop().await;
}

/// Symptom: sorts of one tenant filled the disk, a hundred gigabytes by default, and
/// who hit the bound was told that a file could not be read. Cause: spills had one
/// bound, whoever spilled, and no setting. Fix: each tenant has a share of it.
#[tokio::test(flavor = "multi_thread")]
async fn one_tenants_sorts_leave_disk_to_others() {
    let spills = tempfile::tempdir().unwrap();
    let dir = spills.path().to_owned();
    let server = TestServer::start_with(|config| {
        config.engine.memory_bytes = 80 << 20;
        config.engine.target_partitions = Some(1);
        // A merge has a batch of each spill in memory.
        config.engine.batch_rows = 512;
        config.engine.spill_dir = Some(dir);
        config.engine.spill_bytes_max = 512 << 20;
        config.engine.tenant_spill_bytes_max = Some(224 << 20);
    })
    .await;
    let (mut alice, mut bob) = alice_and_bob(&server).await;
    let texts = |rows: usize| {
        format!("(SELECT value, repeat('x', 1000) AS t FROM generate_series(1, {rows}))")
    };
    let sort = |rows| {
        format!(
            "SELECT t, value FROM {} ORDER BY value % 1003, t",
            texts(rows)
        )
    };
    let number = |rows| {
        format!(
            "SELECT max(r) AS r FROM (SELECT row_number() OVER (ORDER BY value % 1003, t) AS r \
             FROM {})",
            texts(rows)
        )
    };
    let held = begin_to_read(&server, "alice", &sort(60_000))
        .await
        .unwrap();
    assert!(bytes_below(spills.path()) > 32 << 20, "it does not spill");
    let refused = alice.query(&number(300_000)).await.unwrap_err();
    assert_hers(
        &refused,
        Code::ResourceExhausted,
        "engine.tenant_spill_bytes_max",
    );
    assert_bob_is_served(&mut bob).await;
    assert_eq!(bob.query(&number(60_000)).await.unwrap().num_rows(), 1);
    drop(held);
    until_active(&server, 0).await;
    // The thread that polls a plan lets go of it after that poll.
    while bytes_below(spills.path()) > 0 {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    server.stop().await;
}

/// Where one tenant may have all of it, others are told that it is in use, and not by
/// whom.
#[tokio::test(flavor = "multi_thread")]
async fn what_others_have_is_told_as_the_whole() {
    let server = TestServer::start_with(|config| {
        config.engine.memory_bytes = 80 << 20;
        config.engine.tenant_memory_bytes = Some(80 << 20);
        config.engine.target_partitions = Some(1);
        config.engine.batch_rows = 512;
        config.engine.spill_bytes_max = 128 << 20;
        config.engine.tenant_spill_bytes_max = Some(128 << 20);
    })
    .await;
    let (_, mut bob) = alice_and_bob(&server).await;
    let sort = |rows| {
        format!(
            "SELECT t, value FROM (SELECT value, repeat('x', 1000) AS t \
             FROM generate_series(1, {rows})) ORDER BY value % 1003, t"
        )
    };
    let held = begin_to_read(&server, "alice", &sort(100_000))
        .await
        .unwrap();
    let status = bob.query(&sort(150_000)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(
        status.message().contains("engine.spill_bytes_max"),
        "{status:?}"
    );
    drop(held);
    until_active(&server, 0).await;

    let join = |keys| {
        format!(
            "SELECT a.value, repeat('x', 1000) AS t FROM generate_series(1, {keys}) a \
             JOIN generate_series(1, {keys}) b ON a.value = b.value"
        )
    };
    let mut held = Vec::new();
    while let Ok(rows) = begin_to_read(&server, "alice", &join(500_000)).await {
        held.push(rows);
    }
    let status = bob.query(&join(1_000_000)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(
        status.message().contains("engine.memory_bytes"),
        "{status:?}"
    );
    for foreign in [ALICE, "alice", "HashJoin"] {
        assert!(!status.message().contains(foreign), "{status:?}");
    }
    drop(held);
    server.stop().await;
}

/// Symptom: a statement computed until its client went away, if that took days.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_ends_when_it_is_due() {
    let server = TestServer::start_with(|config| {
        config.engine.statement_timeout_ms = 5_000;
    })
    .await;
    let (mut alice, mut bob) = alice_and_bob(&server).await;
    for sql in ["CREATE TABLE t (n BIGINT)", "INSERT INTO t VALUES (1)"] {
        alice.query(sql).await.unwrap();
    }
    let pairs = "generate_series(1, 1000000) a, generate_series(1, 1000000) b";
    let endless = [
        format!("SELECT count(*) FROM {pairs} WHERE a.value + b.value = -1"),
        "SELECT sum(x) FROM (SELECT median(value) OVER (ORDER BY value \
         ROWS BETWEEN 500000 PRECEDING AND CURRENT ROW) x FROM generate_series(1, 1000000))"
            .to_owned(),
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t"
            .to_owned(),
        format!("INSERT INTO t SELECT a.value FROM {pairs}"),
        format!("CREATE TABLE u AS SELECT a.value FROM {pairs} WHERE a.value + b.value = -1"),
    ];
    let running = endless.map(|sql| {
        let mut alice = alice.clone();
        tokio::spawn(async move { (alice.query(&sql).await, sql) })
    });
    // One that answers soon, and is not read.
    let unread = "SELECT value, repeat('x', 1000) AS t FROM generate_series(1, 1000000)";
    let mut unread = begin_to_read(&server, "alice", unread).await.unwrap();
    assert_eq!(bob.query("SELECT 1 AS one").await.unwrap().num_rows(), 1);
    let setting = "engine.statement_timeout_ms (now 5000)";
    for query in running {
        let (answer, sql) = query.await.unwrap();
        let status = answer.expect_err(&sql);
        assert_hers(&status, Code::DeadlineExceeded, setting);
    }
    // What was made of it is read, and does not pass for all of it.
    let status = loop {
        match unread.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the result ends as if it were whole"),
            Err(status) => break status,
        }
    };
    assert_hers(&status, Code::DeadlineExceeded, setting);
    until_active(&server, 0).await;
    assert_eq!(alice.query("SELECT n FROM t").await.unwrap().num_rows(), 1);
    let unmade = alice.query("SELECT * FROM u").await.unwrap_err();
    assert_eq!(unmade.code(), Code::NotFound);
    server.stop().await;
}

/// A client's own `grpc-timeout` ends its statement as it ends the request.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_ends_with_its_clients_timeout() {
    let server = TestServer::start().await;
    let (mut alice, mut bob) = alice_and_bob(&server).await;
    let endless = "SELECT count(*) FROM generate_series(1, 1000000) a, \
                   generate_series(1, 1000000) b WHERE a.value + b.value = -1";
    let info = alice.info(&statement(endless)).await.unwrap();
    let mut request = alice.request(info.endpoint[0].ticket.clone().unwrap());
    request.set_timeout(Duration::from_millis(500));
    // It begins to answer before it has rows.
    let mut rows = alice.flight.do_get(request).await.unwrap().into_inner();
    let status = loop {
        match rows.message().await {
            Ok(message) => assert!(message.is_some(), "it ends as if it were whole"),
            Err(status) => break status,
        }
    };
    assert_hers(&status, Code::DeadlineExceeded, "grpc-timeout");
    until_active(&server, 0).await;
    assert_bob_is_served(&mut bob).await;
    server.stop().await;
}

fn bytes_below(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.metadata().unwrap() {
            found if found.is_dir() => bytes_below(&entry.path()),
            found => found.len(),
        })
        .sum()
}
