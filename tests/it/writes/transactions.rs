//! Transactions and savepoints.

use std::time::{Duration, Instant};

use super::*;

#[tokio::test]
async fn a_transaction_is_seen_by_others_once_it_is_committed() {
    let (server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    let mut sibling = Client::connect(&server, Some("alice")).await;
    let id = alice.begin().await.unwrap();
    assert_eq!(
        alice
            .update_in("INSERT INTO t VALUES (1, 'a')", Some(&id))
            .await
            .unwrap(),
        1
    );
    let count = "SELECT count(*) FROM t";
    assert_eq!(alice.query_in(count, &id).await.unwrap(), "1");
    assert_eq!(alice.shows(count).await, "0");
    assert_eq!(sibling.shows(count).await, "0");
    // A statement that fails is undone alone.
    refused(
        alice
            .update_in("INSERT INTO t VALUES (2, 'b'), (1, 'c')", Some(&id))
            .await,
        Code::AlreadyExists,
        "id = 1",
    );
    alice
        .update_in("INSERT INTO t VALUES (3, 'd')", Some(&id))
        .await
        .unwrap();
    alice.commit(&id).await.unwrap();
    assert_eq!(sibling.shows("SELECT id FROM t ORDER BY id").await, "1 3");
    refused(alice.commit(&id).await, Code::NotFound, "has ended");
    refused(
        alice.update_in("DELETE FROM t", Some(&id)).await,
        Code::NotFound,
        "the transaction does not exist, or has ended",
    );

    let id = alice.begin().await.unwrap();
    alice.update_in("DELETE FROM t", Some(&id)).await.unwrap();
    alice
        .update_in("CREATE TABLE u (id INT)", Some(&id))
        .await
        .unwrap();
    assert_eq!(
        alice.query_in("SELECT count(*) FROM u", &id).await.unwrap(),
        "0"
    );
    alice.roll_back(&id).await.unwrap();
    assert_eq!(alice.shows(count).await, "2");
    refused(
        alice.query("SELECT * FROM u").await,
        Code::NotFound,
        "`u` does not exist",
    );
}

#[tokio::test]
async fn a_transaction_is_its_session_s_alone() {
    let (server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    let mut other = Client::connect(&server, Some("alice-2")).await;
    other.bind(ALICE).await;
    let mut anonymous = Client::connect(&server, None).await;
    let id = alice.begin().await.unwrap();
    alice
        .update_in("INSERT INTO t VALUES (1, 'a')", Some(&id))
        .await
        .unwrap();
    let never = "the transaction does not exist, or has ended: begin another";
    for stranger in [&mut bob, &mut other, &mut anonymous] {
        for id in [&id, &Bytes::from_static(b"made up")] {
            refused(
                stranger.query_in("SELECT 1", id).await,
                Code::NotFound,
                never,
            );
            refused(
                stranger.update_in("DELETE FROM t", Some(id)).await,
                Code::NotFound,
                never,
            );
            refused(stranger.commit(id).await, Code::NotFound, never);
            refused(stranger.roll_back(id).await, Code::NotFound, never);
            refused(stranger.savepoint(id, "s").await, Code::NotFound, never);
        }
    }
    alice.commit(&id).await.unwrap();
    assert_eq!(alice.shows("SELECT id FROM t").await, "1");
    assert_eq!(bob.shows("SELECT count(*) FROM t").await, "0");
}

/// One that nobody uses is rolled back, and holds up no other.
#[tokio::test]
async fn an_idle_transaction_expires() {
    let server = TestServer::start_with(|config| config.transactions.idle_timeout_secs = 1).await;
    let (mut alice, mut bob) = alice_and_bob(&server).await;
    with_tables(&mut alice, &mut bob).await;
    let id = alice.begin().await.unwrap();
    let insert = "INSERT INTO t VALUES (1, 'a')";
    alice.update_in(insert, Some(&id)).await.unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    // As long as it is open another writer of the lane waits, and is told to come again.
    let mut sibling = Client::connect(&server, Some("alice")).await;
    while let Err(waiting) = sibling.update("INSERT INTO t VALUES (2, 'b')").await {
        assert!(Instant::now() < until, "{waiting:?}");
    }
    let gone = alice.update_in(insert, Some(&id)).await.unwrap_err();
    assert!(
        gone.message().contains("transactions.idle_timeout_secs"),
        "{gone:?}"
    );
    refused(alice.commit(&id).await, gone.code(), "");
    assert_eq!(alice.shows("SELECT id, word FROM t").await, "2|b");
    assert_eq!(bob.shows("SELECT count(*) FROM t").await, "0");
    let (_, metrics) = server.page("/metrics").await;
    assert!(metrics.contains("\njammi_transactions 0\n"), "{metrics}");
}

#[tokio::test]
async fn of_two_transactions_that_write_the_second_is_to_be_run_again() {
    let (_server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    alice.update("INSERT INTO t VALUES (1, '0')").await.unwrap();
    let (one, two) = (alice.begin().await.unwrap(), alice.begin().await.unwrap());
    for id in [&one, &two] {
        assert_eq!(alice.query_in("SELECT word FROM t", id).await.unwrap(), "0");
    }
    let bump = "UPDATE t SET word = CAST(CAST(word AS INT) + 1 AS TEXT)";
    alice.update_in(bump, Some(&one)).await.unwrap();
    alice.commit(&one).await.unwrap();
    refused(
        alice.update_in(bump, Some(&two)).await,
        Code::Aborted,
        "run it again",
    );
    // Until then it reads what it read.
    assert_eq!(
        alice.query_in("SELECT word FROM t", &two).await.unwrap(),
        "0"
    );
    alice.roll_back(&two).await.unwrap();
    let again = alice.begin().await.unwrap();
    alice.update_in(bump, Some(&again)).await.unwrap();
    alice.commit(&again).await.unwrap();
    assert_eq!(alice.shows("SELECT word FROM t").await, "2");
    // Another tenant's transactions are in nobody's way.
    let (hers, his) = (alice.begin().await.unwrap(), bob.begin().await.unwrap());
    alice
        .update_in("INSERT INTO t VALUES (2, 'a')", Some(&hers))
        .await
        .unwrap();
    bob.update_in("INSERT INTO t VALUES (2, 'b')", Some(&his))
        .await
        .unwrap();
    alice.commit(&hers).await.unwrap();
    bob.commit(&his).await.unwrap();
}

#[tokio::test]
async fn a_writer_waits_its_turn_and_is_told_to_come_again() {
    let server = TestServer::start_with(|config| config.lanes.busy_timeout_ms = 50).await;
    let (_server, mut alice, mut bob) = world_with(server).await;
    with_tables(&mut alice, &mut bob).await;
    let id = alice.begin().await.unwrap();
    alice
        .update_in("INSERT INTO t VALUES (1, 'a')", Some(&id))
        .await
        .unwrap();
    let insert = "INSERT INTO t VALUES (2, 'b')";
    refused(
        alice.update(insert).await,
        Code::Unavailable,
        "lanes.busy_timeout_ms",
    );
    bob.update(insert).await.unwrap();
    alice.roll_back(&id).await.unwrap();
    alice.update(insert).await.unwrap();
}

#[tokio::test]
async fn savepoints_undo_a_part() {
    let (_server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    let id = alice.begin().await.unwrap();
    let insert = |n: i64| format!("INSERT INTO t (id) VALUES ({n})");
    alice.update_in(&insert(1), Some(&id)).await.unwrap();
    let outer = alice.savepoint(&id, "s").await.unwrap();
    alice.update_in(&insert(2), Some(&id)).await.unwrap();
    let inner = alice.savepoint(&id, "s").await.unwrap();
    alice.update_in(&insert(3), Some(&id)).await.unwrap();
    alice.end_savepoint(&inner, ROLL_BACK).await.unwrap();
    assert_eq!(
        alice.query_in("SELECT max(id) FROM t", &id).await.unwrap(),
        "2"
    );
    alice.end_savepoint(&outer, ROLL_BACK).await.unwrap();
    assert_eq!(
        alice.query_in("SELECT max(id) FROM t", &id).await.unwrap(),
        "1"
    );
    refused(
        alice.end_savepoint(&inner, RELEASE).await,
        Code::NotFound,
        "the savepoint",
    );
    refused(
        bob.end_savepoint(&outer, ROLL_BACK).await,
        Code::NotFound,
        "the savepoint",
    );
    alice.update_in(&insert(4), Some(&id)).await.unwrap();
    alice.end_savepoint(&outer, RELEASE).await.unwrap();
    alice.commit(&id).await.unwrap();
    assert_eq!(alice.shows("SELECT id FROM t ORDER BY id").await, "1 4");
}

#[tokio::test]
async fn a_session_has_one_transaction_by_text() {
    let (server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    let mut other = Client::connect(&server, Some("alice-2")).await;
    other.bind(ALICE).await;
    alice.update("BEGIN").await.unwrap();
    refused(
        alice.update("START TRANSACTION").await,
        Code::FailedPrecondition,
        "is open",
    );
    // By whichever route, and prepared or not.
    alice.query("INSERT INTO t (id) VALUES (1)").await.unwrap();
    let insert = prepared_update(&mut alice, "INSERT INTO t VALUES (?, ?)").await;
    alice.put_counted(&insert, rows([2, 3], "x")).await.unwrap();
    alice.update("SAVEPOINT a").await.unwrap();
    alice.update("DELETE FROM t").await.unwrap();
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "0");
    assert_eq!(other.shows("SELECT count(*) FROM t").await, "0");
    alice.update("ROLLBACK TO SAVEPOINT a").await.unwrap();
    alice.query("RELEASE a").await.unwrap();
    refused(
        alice.update("RELEASE a").await,
        Code::InvalidArgument,
        "savepoint `a`",
    );
    alice.query("/* done */ commit").await.unwrap();
    assert_eq!(other.shows("SELECT id FROM t ORDER BY id").await, "1 2 3");
    refused(
        alice.update("COMMIT").await,
        Code::FailedPrecondition,
        "send BEGIN first",
    );

    alice.update("; BEGIN").await.unwrap();
    alice.update("TRUNCATE t").await.unwrap();
    alice.update("ROLLBACK").await.unwrap();
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "3");

    let mut nobody = Client::connect(&server, None).await;
    for sql in ["BEGIN", "COMMIT"] {
        refused(
            nobody.update(sql).await,
            Code::InvalidArgument,
            "jammi-session-id",
        );
    }
    let id = alice.begin().await.unwrap();
    refused(
        alice.update_in("COMMIT", Some(&id)).await,
        Code::FailedPrecondition,
        "EndTransaction",
    );
    alice.update_in("SAVEPOINT b", Some(&id)).await.unwrap();
}

#[tokio::test]
async fn binding_the_session_anew_rolls_back() {
    let (_server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    let id = alice.begin().await.unwrap();
    alice
        .update_in("INSERT INTO t (id) VALUES (1)", Some(&id))
        .await
        .unwrap();
    alice.update("BEGIN").await.unwrap();
    // To the same tenant nothing changes.
    alice.bind(ALICE).await;
    assert_eq!(
        alice.query_in("SELECT count(*) FROM t", &id).await.unwrap(),
        "1"
    );
    alice.bind(BOB).await;
    refused(alice.commit(&id).await, Code::NotFound, "has ended");
    refused(
        alice.update("COMMIT").await,
        Code::FailedPrecondition,
        "BEGIN",
    );
    // Clients roll back, and go on.
    alice.roll_back(&id).await.unwrap();
    bob.update("INSERT INTO t (id) VALUES (2)").await.unwrap();
    alice.bind(ALICE).await;
    refused(alice.commit(&id).await, Code::NotFound, "has ended");
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "0");
    alice.update("INSERT INTO t (id) VALUES (3)").await.unwrap();
}

#[tokio::test]
async fn a_connection_takes_its_transactions_along() {
    let (server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    let mut sibling = Client::connect(&server, Some("alice")).await;
    let kept = alice.begin().await.unwrap();
    // Closing the session of one connection leaves the others' transactions.
    let gone = sibling.begin().await.unwrap();
    sibling
        .update_in("INSERT INTO t (id) VALUES (1)", Some(&gone))
        .await
        .unwrap();
    sibling.act("CloseSession", Bytes::new()).await.unwrap();
    refused(sibling.commit(&gone).await, Code::NotFound, "has ended");
    alice
        .update_in("INSERT INTO t (id) VALUES (2)", Some(&kept))
        .await
        .unwrap();
    alice.commit(&kept).await.unwrap();

    // One that vanishes without a word holds up nobody.
    let left = sibling.begin().await.unwrap();
    sibling
        .update_in("INSERT INTO t (id) VALUES (3)", Some(&left))
        .await
        .unwrap();
    drop(sibling);
    alice.update("INSERT INTO t (id) VALUES (4)").await.unwrap();
    assert_eq!(alice.shows("SELECT id FROM t ORDER BY id").await, "2 4");
}

#[tokio::test]
async fn transactions_have_caps() {
    let server = TestServer::start_with(|config| {
        config.transactions.max = 3;
        config.transactions.session_max = 2;
    })
    .await;
    let (_server, mut alice, mut bob) = world_with(server).await;
    let one = alice.begin().await.unwrap();
    alice.begin().await.unwrap();
    refused(
        alice.begin().await,
        Code::ResourceExhausted,
        "transactions.session_max",
    );
    refused(
        alice.update("BEGIN").await,
        Code::ResourceExhausted,
        "transactions.session_max",
    );
    bob.begin().await.unwrap();
    refused(
        bob.begin().await,
        Code::ResourceExhausted,
        "transactions.max",
    );
    alice.roll_back(&one).await.unwrap();
    bob.begin().await.unwrap();
}

#[tokio::test]
async fn stopping_rolls_back() {
    let (server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    let id = alice.begin().await.unwrap();
    alice
        .update_in("INSERT INTO t (id) VALUES (1)", Some(&id))
        .await
        .unwrap();
    let dir = server.stop().await;
    let server = TestServer::start_in(dir, |_| {}).await;
    let mut alice = Client::connect(&server, Some("alice")).await;
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "0");
    refused(alice.commit(&id).await, Code::NotFound, "has ended");
}

#[tokio::test]
async fn a_prepared_statement_outlives_its_transaction() {
    let (_server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    let id = alice.begin().await.unwrap();
    let request = arrow_flight::sql::ActionCreatePreparedStatementRequest {
        query: "INSERT INTO t VALUES (?, ?)".into(),
        transaction_id: Some(id.clone()),
    };
    let results = alice
        .act("CreatePreparedStatement", request.as_any().encode_to_vec())
        .await
        .unwrap();
    let any = Any::decode(&*results[0]).unwrap();
    let made: arrow_flight::sql::ActionCreatePreparedStatementResult =
        any.unpack().unwrap().unwrap();
    let insert = CommandPreparedStatementUpdate {
        prepared_statement_handle: made.prepared_statement_handle,
    };
    alice.put_counted(&insert, rows([1], "a")).await.unwrap();
    alice.commit(&id).await.unwrap();
    refused(
        alice.put_counted(&insert, rows([2], "b")).await,
        Code::FailedPrecondition,
        "has ended",
    );
    // The next transaction of the connection, as a driver begins at once.
    let next = alice.begin().await.unwrap();
    alice.put_counted(&insert, rows([3], "c")).await.unwrap();
    alice.roll_back(&next).await.unwrap();
    assert_eq!(alice.shows("SELECT id FROM t").await, "1");
}
