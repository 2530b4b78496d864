//! Queries that run while their clients poll, with a second tenant who polls too.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow_flight::sql::ProstMessageExt;
use arrow_flight::{
    CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightDescriptor, FlightInfo,
    PollInfo, Ticket,
};
use futures::TryStreamExt;
use prost::Message;
use tonic::{Code, Status};

use crate::client::{ALICE, BOB, Client, alice_and_bob, descriptor, prepared, statement};
use crate::harness::TestServer;
use crate::writes::refused;

const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 1000000) a, \
                       generate_series(1, 1000000) b WHERE a.value + b.value = -1";
/// Some of its pairs are summed in the first call, and the others later.
const LONG: &str = "SELECT count(*) FROM generate_series(1, 3000) a, generate_series(1, 1000) b \
                    WHERE a.value + b.value > 2";

async fn poll_of(client: &mut Client, descriptor: FlightDescriptor) -> Result<PollInfo, Status> {
    let request = client.request(descriptor);
    let poll = client.flight.poll_flight_info(request).await;
    poll.map(|poll| poll.into_inner())
}

async fn poll(client: &mut Client, command: &impl ProstMessageExt) -> Result<PollInfo, Status> {
    poll_of(client, descriptor(command)).await
}

/// The last of the polls that a client makes until its query is complete: the first,
/// unless the machine has much to do.
async fn complete(client: &mut Client, command: &impl ProstMessageExt) -> PollInfo {
    let mut answer = poll(client, command).await.unwrap();
    while let Some(next) = answer.flight_descriptor {
        answer = poll_of(client, next).await.unwrap();
    }
    answer
}

/// The whole answer of a poll that is complete.
fn whole(poll: PollInfo) -> FlightInfo {
    assert_eq!((poll.flight_descriptor, poll.expiration_time), (None, None));
    poll.info.unwrap()
}

/// The next descriptor, and the answer so far, of one that is not.
fn partial(poll: PollInfo) -> (FlightDescriptor, FlightInfo) {
    assert_eq!(poll.progress, None, "nobody knows how far a plan is");
    assert!(poll.expiration_time.is_some());
    (poll.flight_descriptor.unwrap(), poll.info.unwrap())
}

fn ticket(info: &FlightInfo) -> Ticket {
    info.endpoint[0].ticket.clone().unwrap()
}

fn number(rows: &[RecordBatch]) -> i64 {
    rows[0].column(0).as_primitive::<Int64Type>().value(0)
}

async fn cancel(client: &mut Client, info: &FlightInfo) -> CancelStatus {
    let request = CancelFlightInfoRequest {
        info: Some(info.clone()),
    };
    let body = client
        .act("CancelFlightInfo", request.encode_to_vec())
        .await;
    let body = body.unwrap().remove(0);
    CancelFlightInfoResult::decode(body).unwrap().status()
}

/// Waits until no query runs for being polled, by the server's own metrics.
async fn until_none_is_polled(server: &TestServer) {
    loop {
        let (_, page) = server.page("/metrics").await;
        if page.contains("jammi_queries_polled 0\n") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_short_query_is_complete_with_all_of_its_rows() {
    let server = TestServer::start().await;
    let (mut alice, mut bob) = alice_and_bob(&server).await;
    for (client, word) in [(&mut alice, "hers"), (&mut bob, "canary")] {
        client.query("CREATE TABLE t (word TEXT)").await.unwrap();
        let insert = format!("INSERT INTO t VALUES ('{word}')");
        client.query(&insert).await.unwrap();
    }
    let answer = complete(&mut alice, &statement("SELECT word FROM t")).await;
    // Every row of it is there, unless the last ones are not known to be the last.
    assert!(matches!(answer.progress, None | Some(1.0)));
    let info = whole(answer);
    assert!(info.ordered && info.endpoint[0].expiration_time.is_some());
    // A write after the query has begun is not in it.
    alice.query("INSERT INTO t VALUES ('later')").await.unwrap();
    refused(
        bob.get(ticket(&info)).await,
        Code::FailedPrecondition,
        "another session",
    );
    let rows = alice.get(ticket(&info)).await.unwrap();
    let words: Vec<_> = rows[0].column(0).as_string::<i32>().iter().collect();
    assert_eq!(words, [Some("hers")]);
    // What is fetched once more runs once more.
    let again = alice.get(ticket(&info)).await.unwrap();
    assert_eq!(again.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    assert!(!format!("{again:?}").contains("canary"));

    let empty = statement("SELECT word FROM t WHERE false");
    let info = whole(complete(&mut alice, &empty).await);
    assert!(alice.get(ticket(&info)).await.unwrap().is_empty());
    until_none_is_polled(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_query_is_polled_until_it_has_rows() {
    let server = TestServer::start().await;
    let (mut alice, _) = alice_and_bob(&server).await;
    let expected = number(&[alice.query(LONG).await.unwrap()]);
    let mut answer = poll(&mut alice, &statement(LONG)).await.unwrap();
    let first = answer.info.clone().unwrap();
    while answer.flight_descriptor.is_some() {
        let (next, info) = partial(answer);
        assert_eq!(info, first, "an answer is what it was, or more");
        answer = poll_of(&mut alice, next).await.unwrap();
    }
    assert_eq!(whole(answer), first);
    assert_eq!(number(&alice.get(ticket(&first)).await.unwrap()), expected);

    // Its rows may be asked for before there are any.
    let answer = poll(&mut alice, &statement(LONG)).await.unwrap();
    let rows = alice.get(ticket(answer.info.as_ref().unwrap())).await;
    assert_eq!(number(&rows.unwrap()), expected);
    // And its client may ask after it all the same.
    if let Some(next) = answer.flight_descriptor {
        whole(poll_of(&mut alice, next).await.unwrap());
    }
    until_none_is_polled(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polled_query_is_its_sessions_and_ends_for_it() {
    let server = TestServer::start().await;
    let (mut alice, mut bob) = alice_and_bob(&server).await;
    let (next, info) = partial(poll(&mut alice, &statement(ENDLESS)).await.unwrap());
    let foreign = poll_of(&mut bob, next.clone()).await;
    refused(foreign, Code::FailedPrecondition, "another session");
    let mut other = Client::connect(&server, Some("other")).await;
    other.bind(ALICE).await;
    let foreign = poll_of(&mut other, next.clone()).await;
    refused(foreign, Code::FailedPrecondition, "another session");
    let mut edited = next.clone();
    let mut bytes = edited.cmd.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    edited.cmd = bytes.into();
    let forged = poll_of(&mut alice, edited).await;
    refused(
        forged,
        Code::InvalidArgument,
        "was not issued by this server",
    );

    // Whoever waits for it is told, by whichever call.
    let waiting = {
        let (mut alice, next) = (alice.clone(), next.clone());
        tokio::spawn(async move { poll_of(&mut alice, next).await })
    };
    let mut elsewhere = Client::connect(&server, Some("alice")).await;
    assert_eq!(cancel(&mut elsewhere, &info).await, CancelStatus::Cancelled);
    let cancelled = "was cancelled by its client";
    refused(waiting.await.unwrap(), Code::Cancelled, cancelled);
    refused(poll_of(&mut alice, next).await, Code::Cancelled, cancelled);
    refused(alice.get(ticket(&info)).await, Code::Cancelled, cancelled);

    // One that is being fetched ends with its reader, or for being cancelled.
    let (_, info) = partial(poll(&mut alice, &statement(ENDLESS)).await.unwrap());
    let reading = {
        let (mut alice, ticket) = (alice.clone(), ticket(&info));
        tokio::spawn(async move { alice.get(ticket).await })
    };
    assert_eq!(cancel(&mut alice, &info).await, CancelStatus::Cancelled);
    refused(reading.await.unwrap(), Code::Cancelled, cancelled);

    let (next, _) = partial(poll(&mut alice, &statement(ENDLESS)).await.unwrap());
    alice.bind(BOB).await;
    let rebound = poll_of(&mut alice, next).await;
    refused(rebound, Code::FailedPrecondition, "bound anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_asks_after_ends() {
    let server = TestServer::start_with(|config| config.server.poll_timeout_ms = 200).await;
    let (mut alice, _) = alice_and_bob(&server).await;
    let (next, _) = partial(poll(&mut alice, &statement(ENDLESS)).await.unwrap());
    let (next, _) = partial(poll_of(&mut alice, next).await.unwrap());
    until_none_is_polled(&server).await;
    let late = poll_of(&mut alice, next).await;
    refused(late, Code::FailedPrecondition, "server.poll_timeout_ms");

    // Its rows wait no longer, and a ticket runs its query anew.
    let short = whole(poll(&mut alice, &statement("SELECT 7")).await.unwrap());
    until_none_is_polled(&server).await;
    assert_eq!(number(&alice.get(ticket(&short)).await.unwrap()), 7);

    // A reader that goes away takes its query along.
    let (_, waited) = partial(poll(&mut alice, &statement(ENDLESS)).await.unwrap());
    let reading = tokio::spawn(async move { alice.get(ticket(&waited)).await });
    reading.abort();
    until_none_is_polled(&server).await;
    server.stop().await;
}

/// Symptom: what a client polled went on computing for `server.poll_timeout_ms` after
/// it had closed its session.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_connection_polls_ends_as_it_closes_its_session() {
    let server = TestServer::start_with(|config| config.server.poll_timeout_ms = 600_000).await;
    let (mut alice, mut bob) = alice_and_bob(&server).await;
    let mut elsewhere = Client::connect(&server, Some("alice")).await;
    let (next, _) = partial(poll(&mut alice, &statement(ENDLESS)).await.unwrap());
    let (kept, held) = partial(poll(&mut elsewhere, &statement(ENDLESS)).await.unwrap());
    let (his, his_info) = partial(poll(&mut bob, &statement(ENDLESS)).await.unwrap());
    let short = whole(complete(&mut alice, &statement("SELECT 7")).await);
    alice.act("CloseSession", "").await.unwrap();
    let late = poll_of(&mut alice, next).await;
    refused(late, Code::FailedPrecondition, "its session was closed");
    // A ticket runs its query anew.
    assert_eq!(number(&alice.get(ticket(&short)).await.unwrap()), 7);
    // What others poll goes on: of the session by another connection, and of another.
    for (client, info) in [(&mut elsewhere, &held), (&mut bob, &his_info)] {
        assert_eq!(cancel(client, info).await, CancelStatus::Cancelled);
    }
    for (client, next) in [(&mut elsewhere, kept), (&mut bob, his)] {
        let answer = poll_of(client, next).await;
        refused(answer, Code::Cancelled, "was cancelled by its client");
    }
    until_none_is_polled(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenants_polls_take_no_place_of_another_s() {
    let server = TestServer::start_with(|config| config.server.polled_queries_max = 1).await;
    let (mut alice, mut bob) = alice_and_bob(&server).await;
    let (_, held) = partial(poll(&mut alice, &statement(ENDLESS)).await.unwrap());
    // It runs when it is fetched, so that nothing is known of how far it is.
    let answer = poll(&mut alice, &statement("SELECT 1")).await.unwrap();
    assert_eq!(answer.progress, None);
    assert_eq!(number(&alice.get(ticket(&whole(answer))).await.unwrap()), 1);
    let answer = poll(&mut bob, &statement("SELECT 2")).await.unwrap();
    assert_eq!(answer.progress, Some(1.0));
    assert_eq!(number(&bob.get(ticket(&whole(answer))).await.unwrap()), 2);

    cancel(&mut alice, &held).await;
    let answer = poll(&mut alice, &statement("SELECT 3")).await.unwrap();
    assert_eq!(answer.progress, Some(1.0));
    // The server has something at hand for it as it stops.
    server.stop().await;
}

#[tokio::test]
async fn what_writes_or_is_in_a_transaction_runs_when_it_is_fetched() {
    let server = TestServer::start().await;
    let (mut alice, _) = alice_and_bob(&server).await;
    alice.query("CREATE TABLE t (id BIGINT)").await.unwrap();
    let count = statement("SELECT count(*) FROM t");
    let insert = statement("INSERT INTO t VALUES (1)");
    let info = whole(poll(&mut alice, &insert).await.unwrap());
    assert_eq!(number(&[alice.rows(&count).await.unwrap()]), 0);
    alice.get(ticket(&info)).await.unwrap();
    refused(
        alice.get(ticket(&info)).await,
        Code::FailedPrecondition,
        "runs once",
    );
    assert_eq!(number(&[alice.rows(&count).await.unwrap()]), 1);

    whole(poll(&mut alice, &statement("BEGIN")).await.unwrap());
    alice.query("BEGIN").await.unwrap();
    let answer = poll(&mut alice, &count).await.unwrap();
    assert_eq!(answer.progress, None);
    let info = whole(answer);
    alice.query("INSERT INTO t VALUES (2)").await.unwrap();
    assert_eq!(number(&alice.get(ticket(&info)).await.unwrap()), 2);
    alice.query("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn errors_are_told_by_the_call_that_finds_them() {
    let server = TestServer::start().await;
    let (mut alice, _) = alice_and_bob(&server).await;
    for sql in [
        "SELECT * FROM nowhere",
        "SELECT ?",
        "SELECT 1 / (value - 3) FROM generate_series(1, 3) s(value)",
    ] {
        let told = poll(&mut alice, &statement(sql)).await.unwrap_err();
        let known = alice.query(sql).await.unwrap_err();
        assert_eq!(
            (told.code(), told.message()),
            (known.code(), known.message())
        );
    }
    let statement = alice.prepare("SELECT ? + 1").await.unwrap();
    let handle = statement.prepared_statement_handle;
    let unbound = poll(&mut alice, &prepared(&handle)).await;
    refused(unbound, Code::InvalidArgument, "1 parameter");
    let row: arrow::array::ArrayRef = Arc::new(Int64Array::from(vec![41]));
    let row = RecordBatch::try_from_iter([("0", row)]).unwrap();
    let handle = alice.bind_row(&handle, row).await.unwrap();
    let info = whole(poll(&mut alice, &prepared(&handle)).await.unwrap());
    assert_eq!(number(&alice.get(ticket(&info)).await.unwrap()), 42);

    let tables = arrow_flight::sql::CommandGetTableTypes {};
    let answer = poll(&mut alice, &tables).await.unwrap();
    assert_eq!(answer.progress, Some(1.0));
    assert!(!alice.get(ticket(&whole(answer))).await.unwrap().is_empty());
    until_none_is_polled(&server).await;
}

#[tokio::test]
async fn a_large_result_is_fetched_from_its_first_row() {
    let server = TestServer::start().await;
    let (mut alice, _) = alice_and_bob(&server).await;
    const ROWS: i64 = 100_000;
    let sql = format!("SELECT value FROM generate_series(1, {ROWS}) s(value) ORDER BY value");
    let mut answer = poll(&mut alice, &statement(&sql)).await.unwrap();
    while let Some(next) = answer.flight_descriptor.take() {
        answer = poll_of(&mut alice, next).await.unwrap();
    }
    // There is more of it than is at hand.
    assert_eq!(answer.progress, None);
    let request = alice.request(ticket(&answer.info.unwrap()));
    let messages = alice.flight.do_get(request).await.unwrap().into_inner();
    let messages = messages.map_err(arrow_flight::error::FlightError::from);
    let rows: Vec<RecordBatch> =
        arrow_flight::decode::FlightRecordBatchStream::new_from_flight_data(messages)
            .try_collect()
            .await
            .unwrap();
    let values = rows.iter().flat_map(|rows| {
        let column = rows.column(0).as_primitive::<Int64Type>();
        column.values().to_vec()
    });
    assert!(values.eq(1..=ROWS));
}
