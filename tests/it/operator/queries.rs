//! Statements that run: who sees which, and who ends which.

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow_flight::encode::FlightDataEncoderBuilder;
use futures::{StreamExt, TryStreamExt, stream};
use jammi_db::server::proto::operator::Query;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use super::{ENDLESS, MASKED, Operator, World};
use crate::authentication::Guarded;
use crate::client::{ALICE, BOB, Client, descriptor, prepared, statement};
use crate::heavy::until_active;
use crate::writes::{append, refused};

const BY_OPERATOR: &str = "ended by an operator of the server";

/// Runs `sql` by a ticket.
fn run(client: &Client, sql: &str) -> JoinHandle<Result<RecordBatch, Status>> {
    let (mut client, sql) = (client.clone(), sql.to_owned());
    tokio::spawn(async move {
        let info = client.info(&statement(&sql)).await?;
        let rows = client.get(info.endpoint[0].ticket.clone().unwrap()).await?;
        Ok(rows.into_iter().next().unwrap())
    })
}

fn is_of(tenant: &str) -> impl Fn(&Query) -> bool {
    move |query: &Query| query.tenant == tenant && query.state == "running"
}

/// The ids and statements that `sql` answers.
async fn seen(client: &mut Client, sql: &str) -> Vec<(i64, String)> {
    let rows = client.query(sql).await.unwrap();
    let ids = rows.column(0).as_primitive::<Int64Type>().values().to_vec();
    let texts = rows.column(1).as_string::<i32>();
    ids.into_iter()
        .zip(texts.iter().map(|text| text.unwrap().to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sees_and_ends_her_own_and_an_operator_any() {
    let World {
        guarded,
        mut alice,
        mut bob,
        operator,
    } = World::new().await;
    let (hers, his) = (run(&alice, ENDLESS), run(&bob, ENDLESS));
    let of_alice = operator.until_runs(is_of(ALICE)).await;
    let of_bob = operator.until_runs(is_of(BOB)).await;
    assert_eq!(
        (of_alice.statement.as_str(), of_alice.kind.as_str()),
        (MASKED, "sql")
    );
    assert_eq!(
        [&of_alice.principal, &of_bob.principal],
        ["api-key:alice", "api-key:bob"]
    );
    assert!(of_alice.session.is_some() && of_alice.session != of_bob.session);
    assert!(of_alice.id < 1 << 63 && of_alice.id.abs_diff(of_bob.id) > 1_000_000);

    // Each sees what runs and what asks, and nothing of the other.
    let others = "SELECT id, statement FROM jammi.server.queries WHERE state = 'running' AND \
                  statement NOT LIKE '%jammi.server%'";
    for (client, own) in [(&mut alice, &of_alice), (&mut bob, &of_bob)] {
        let expected = [(own.id as i64, MASKED.to_owned())];
        assert_eq!(seen(client, others).await, expected);
        let all = client.query("SELECT * FROM jammi.server.queries").await;
        let all = format!("{all:?}");
        assert!(!all.contains("canary-5e0c"), "{all}");
        let tenant = if own.tenant == ALICE { BOB } else { ALICE };
        assert!(!all.contains(tenant), "{all}");
    }
    // What is another's is not found, as what never was.
    for kind in ["QUERY", "CONNECTION"] {
        let number = match kind {
            "QUERY" => of_bob.id,
            _ => of_bob.session.unwrap(),
        };
        let foreign = alice.query(&format!("KILL {kind} {number}")).await;
        let foreign = foreign.unwrap_err();
        let never = alice.query(&format!("KILL {kind} 4711")).await.unwrap_err();
        assert_eq!(foreign.code(), Code::NotFound);
        assert_eq!(
            foreign.message().replace(&number.to_string(), "4711"),
            never.message()
        );
    }
    refused(
        alice.query("KILL 4711").await,
        Code::InvalidArgument,
        "KILL QUERY",
    );
    refused(
        alice.query("EXPLAIN KILL QUERY 4711").await,
        Code::InvalidArgument,
        "no plan",
    );

    // The operator reads no rows by it, and acts for nobody.
    let mut ops = Client::connect(&guarded.server, None).await;
    ops = ops.holding(&operator.key);
    let listed = seen(&mut ops, others).await;
    assert_eq!(listed.len(), 2);
    alice.query("CREATE TABLE t (word TEXT)").await.unwrap();
    refused(
        ops.query("SELECT * FROM t").await,
        Code::NotFound,
        "does not exist",
    );
    refused(
        ops.query("CREATE TABLE u (word TEXT)").await,
        Code::PermissionDenied,
        "global-writer",
    );

    operator.cancel(of_alice.id).await.unwrap();
    refused(hers.await.unwrap(), Code::Cancelled, BY_OPERATOR);
    refused(
        operator.cancel(of_alice.id).await,
        Code::NotFound,
        "there is no query",
    );
    assert!(!his.is_finished());
    // By himself, prepared and put as drivers do.
    let kill = format!("KILL QUERY {}", of_bob.id);
    assert_eq!(bob.update(&kill).await.unwrap(), 0);
    refused(
        his.await.unwrap(),
        Code::Cancelled,
        "by a KILL of its own principal",
    );
    operator.until_none_runs().await;
    until_active(&guarded.server, 0).await;

    // And by an operator's SQL.
    let his = run(&bob, ENDLESS);
    let of_bob = operator.until_runs(is_of(BOB)).await;
    ops.query(&format!("KILL QUERY {}", of_bob.id))
        .await
        .unwrap();
    refused(his.await.unwrap(), Code::Cancelled, BY_OPERATOR);
}

/// Whoever acts as a tenant in a session sees that tenant's alone, whatever role they
/// have: where nothing authenticates, everybody is an operator.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_bound_reaches_no_other_tenant() {
    let server = crate::harness::TestServer::start().await;
    let (mut alice, bob) = crate::client::alice_and_bob(&server).await;
    let his = run(&bob, ENDLESS);
    let mut unbound = Client::connect(&server, None).await;
    let running = "SELECT id, statement FROM jammi.server.queries WHERE state = 'running' AND \
                   statement NOT LIKE '%jammi.server%'";
    let of_bob = loop {
        if let Some((id, _)) = seen(&mut unbound, running).await.pop() {
            break id;
        }
        tokio::time::sleep(crate::heavy::LOOK_INTERVAL).await;
    };
    assert_eq!(seen(&mut alice, running).await, []);
    let sessions = alice.query("SELECT * FROM jammi.server.sessions").await;
    let sessions = format!("{sessions:?}");
    assert!(sessions.contains(ALICE) && !sessions.contains(BOB));
    refused(
        alice.query(&format!("KILL QUERY {of_bob}")).await,
        Code::NotFound,
        "there is no query",
    );
    assert!(!his.is_finished());
    unbound
        .query(&format!("KILL QUERY {of_bob}"))
        .await
        .unwrap();
    refused(his.await.unwrap(), Code::Cancelled, BY_OPERATOR);
    server.stop().await;
}

/// Ends the one statement of Alice that runs, and answers how it was listed.
async fn ended(operator: &Operator, state: &str) -> Query {
    let query = operator
        .until_runs(|query| query.tenant == ALICE && query.state == state)
        .await;
    operator.cancel(query.id).await.unwrap();
    query
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_listed_and_ended_whichever_door_it_came_by() {
    let World {
        guarded,
        mut alice,
        operator,
        ..
    } = World::new().await;
    alice.query("CREATE TABLE t (n BIGINT)").await.unwrap();
    let filling = format!("INSERT INTO t SELECT a FROM ({ENDLESS}) AS s (a, b)");

    // By a ticket, and by a prepared handle in its place.
    let running = run(&alice, ENDLESS);
    ended(&operator, "running").await;
    refused(running.await.unwrap(), Code::Cancelled, BY_OPERATOR);
    let handle = alice
        .prepare(ENDLESS)
        .await
        .unwrap()
        .prepared_statement_handle;
    let running = {
        let mut alice = alice.clone();
        let ticket = arrow_flight::Ticket::new(descriptor(&prepared(&handle)).cmd);
        tokio::spawn(async move { alice.get(ticket).await })
    };
    ended(&operator, "running").await;
    refused(running.await.unwrap(), Code::Cancelled, BY_OPERATOR);

    // Polled, with nobody who fetches.
    let request = alice.request(descriptor(&statement(ENDLESS)));
    let polled = alice.flight.poll_flight_info(request).await.unwrap();
    let again = polled.into_inner().flight_descriptor.unwrap();
    ended(&operator, "running").await;
    operator.until_none_runs().await;
    let request = alice.request(again);
    let polled = alice.flight.poll_flight_info(request).await;
    refused(polled, Code::Cancelled, BY_OPERATOR);

    // Writes, by a ticket, by DoPut and prepared, of which nothing stays.
    let running = run(&alice, &filling);
    ended(&operator, "running").await;
    refused(running.await.unwrap(), Code::Cancelled, BY_OPERATOR);
    let running = {
        let (mut alice, filling) = (alice.clone(), filling.clone());
        tokio::spawn(async move { alice.update(&filling).await })
    };
    let listed = ended(&operator, "running").await;
    assert_eq!(
        listed.statement,
        format!("INSERT INTO t SELECT a FROM ({MASKED}) AS s (a, b)")
    );
    refused(running.await.unwrap(), Code::Cancelled, BY_OPERATOR);
    let made = format!("CREATE TABLE made AS SELECT a FROM ({ENDLESS}) AS s (a, b)");
    let running = {
        let mut alice = alice.clone();
        tokio::spawn(async move { alice.update(&made).await })
    };
    ended(&operator, "running").await;
    refused(running.await.unwrap(), Code::Cancelled, BY_OPERATOR);
    refused(
        alice.query("SELECT * FROM made").await,
        Code::NotFound,
        "does not exist",
    );

    // Rows in bulk, from a client that has stopped sending.
    let batch: ArrayRef = std::sync::Arc::new(Int64Array::from(vec![1, 2, 3]));
    let batch = RecordBatch::try_from_iter([("n", batch)]).unwrap();
    let messages = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(descriptor(&append("t"))))
        .with_schema(batch.schema())
        .build(stream::iter([Ok(batch.clone()), Ok(batch)]));
    let messages: Vec<_> = messages.try_collect().await.unwrap();
    let stalled = stream::iter(messages).chain(stream::pending());
    let running = {
        let (mut flight, request) = (alice.flight.clone(), alice.request(stalled));
        tokio::spawn(async move { flight.do_put(request).await.map(drop) })
    };
    let listed = ended(&operator, "running").await;
    assert_eq!(
        (listed.kind.as_str(), listed.statement.as_str()),
        ("ingest", "t")
    );
    refused(running.await.unwrap(), Code::Cancelled, BY_OPERATOR);

    // In a transaction, which is rolled back as a whole.
    let id = alice.begin().await.unwrap();
    alice
        .update_in("INSERT INTO t VALUES (7)", Some(&id))
        .await
        .unwrap();
    let running = {
        let (mut alice, id, filling) = (alice.clone(), id.clone(), filling.clone());
        tokio::spawn(async move { alice.update_in(&filling, Some(&id)).await })
    };
    ended(&operator, "running").await;
    refused(running.await.unwrap(), Code::Cancelled, BY_OPERATOR);
    refused(
        alice.update_in("INSERT INTO t VALUES (8)", Some(&id)).await,
        Code::FailedPrecondition,
        "broken off",
    );
    alice.roll_back(&id).await.unwrap();
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "0");

    // Rows that nobody has read yet.
    let long = "SELECT value FROM generate_series(1, 1000000000) s(value)";
    let info = alice.info(&statement(long)).await.unwrap();
    let request = alice.request(info.endpoint[0].ticket.clone().unwrap());
    let mut messages = alice.flight.do_get(request).await.unwrap().into_inner();
    messages.try_next().await.unwrap().unwrap();
    let listed = operator
        .until_runs(|query| query.state == "streaming" && query.rows > 0)
        .await;
    operator.cancel(listed.id).await.unwrap();
    let rest: Result<(), Status> = async {
        while messages.try_next().await?.is_some() {}
        Ok(())
    }
    .await;
    refused(rest, Code::Cancelled, BY_OPERATOR);
    // Its ticket too.
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    refused(alice.get(ticket).await, Code::Cancelled, BY_OPERATOR);
    operator.until_none_runs().await;
    until_active(&guarded.server, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_its_turn_is_listed_and_ended() {
    let guarded = Guarded::start_with(|config| {
        config.engine.queries_max = 1;
        config.engine.tenant_queries_max = 1;
    })
    .await;
    let World {
        guarded: _guarded,
        alice,
        operator,
        ..
    } = World::on(guarded).await;
    let first = run(&alice, ENDLESS);
    operator.until_runs(is_of(ALICE)).await;
    let second = run(&alice, ENDLESS);
    ended(&operator, "queued").await;
    refused(second.await.unwrap(), Code::Cancelled, BY_OPERATOR);
    assert!(!first.is_finished());
    // A write that waits.
    let (mut other, update) = (alice.clone(), format!("CREATE TABLE m AS {ENDLESS}"));
    let third = tokio::spawn(async move { other.update(&update).await });
    ended(&operator, "queued").await;
    refused(third.await.unwrap(), Code::Cancelled, BY_OPERATOR);
    ended(&operator, "running").await;
    refused(first.await.unwrap(), Code::Cancelled, BY_OPERATOR);
    operator.until_none_runs().await;
}
