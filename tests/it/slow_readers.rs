//! Readers who do not keep up, and whom they keep waiting: nobody.

use arrow_flight::FlightData;
use tonic::{Code, Status, Streaming};

use crate::client::{ALICE, BOB, Client, statement};
use crate::harness::TestServer;

/// Starts to read on a connection of its own, and stops after the first message:
/// what is not read of one stream is in the way of the others of a connection.
pub async fn begin_to_read(
    server: &TestServer,
    session: &'static str,
    sql: &str,
) -> Result<Streaming<FlightData>, Status> {
    let mut client = Client::connect(server, Some(session)).await;
    let info = client.info(&statement(sql)).await?;
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let request = client.request(ticket);
    let mut messages = client.flight.do_get(request).await?.into_inner();
    // The schema, and then rows.
    for _ in 0..2 {
        messages.message().await?.expect("there is more to read");
    }
    Ok(messages)
}

async fn count(client: &mut Client, sql: &str) -> usize {
    match client.query(sql).await {
        Ok(rows) => rows.num_rows(),
        Err(status) => panic!("{sql}: {status:?}"),
    }
}

/// Symptom: a tenant with 64 results of a shared table that it did not read to
/// their end kept every other tenant from reading shared tables, and was itself
/// told of a damaged file. Cause: a lane had so many places for transactions,
/// whoever took them. Fix: each tenant has some of its own.
#[tokio::test(flavor = "multi_thread")]
async fn one_who_reads_a_shared_table_slowly_keeps_nobody_waiting() {
    const MOST: usize = 5;
    let server = TestServer::start_with(|config| {
        config.lanes.transactions_max = MOST + 1;
        config.lanes.tenant_transactions_max = MOST;
        config.lanes.busy_timeout_ms = 1_500;
    })
    .await;
    let mut operator = Client::connect(&server, None).await;
    let mut alice = Client::connect(&server, Some("alice")).await;
    let mut bob = Client::connect(&server, Some("bob")).await;
    alice.bind(ALICE).await;
    bob.bind(BOB).await;
    for sql in [
        "CREATE TABLE words (id BIGINT PRIMARY KEY, word VARCHAR)",
        "INSERT INTO words SELECT value, 'shared' FROM generate_series(1, 100000)",
    ] {
        operator.query(sql).await.unwrap();
    }

    // As many as she can get, by queries and in transactions.
    // More than connections hold for one who does not read, so that it is not read
    // from the lane either.
    let read = "SELECT id, repeat(word, 500) FROM words";
    let mut slow = Vec::new();
    let refused = loop {
        assert!(slow.len() <= MOST, "she gets more than that");
        match begin_to_read(&server, "alice", read).await {
            Ok(messages) => slow.push(messages),
            Err(status) => break status,
        }
    };
    assert_eq!(slow.len(), MOST);
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    for part in ["the global lane", "lanes.tenant_transactions_max (now 5)"] {
        assert!(refused.message().contains(part), "{refused:?}");
    }
    assert!(!refused.message().contains(BOB), "{refused:?}");

    // Others read, also in more transactions than are left, and write.
    for id in 0..3 {
        assert_eq!(
            count(&mut bob, "SELECT id FROM words WHERE id <= 7").await,
            7 + id
        );
        bob.query(&format!("INSERT INTO words VALUES (-{id}, 'his')"))
            .await
            .unwrap();
        let shared = format!("INSERT INTO words VALUES (-{id}, 'shared')");
        operator.query(&shared).await.unwrap();
        operator
            .query(&format!("DELETE FROM words WHERE id = -{id}"))
            .await
            .unwrap();
    }
    let his = begin_to_read(&server, "bob", read).await.unwrap();
    assert_eq!(
        count(&mut operator, "SELECT id FROM words WHERE id <= 7").await,
        7
    );
    // What is not about shared tables is hers as before.
    for sql in ["CREATE TABLE own (id BIGINT)", "INSERT INTO own VALUES (1)"] {
        alice.query(sql).await.unwrap();
    }

    // When they go away, so does what they held.
    drop((his, slow));
    assert_eq!(
        count(&mut alice, "SELECT id FROM words WHERE id <= 7").await,
        7
    );
    server.stop().await;
}
