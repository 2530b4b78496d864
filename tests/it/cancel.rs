//! Cancelling a query by what announced it, and renewing its ticket, with a second
//! tenant who tries the same.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow_flight::sql::{ActionCancelQueryRequest, ActionCancelQueryResult, Any, ProstMessageExt};
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightEndpoint,
    FlightInfo, RenewFlightEndpointRequest, Ticket,
};
use futures::TryStreamExt;
use prost::Message;
use tonic::{Code, Status};

use crate::client::{ALICE, Client, alice_and_bob, statement};
use crate::harness::TestServer;
use crate::heavy::until_active;
use crate::writes::refused;

const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 1000000) a, \
                       generate_series(1, 1000000) b WHERE a.value + b.value = -1";
const LONG: &str = "SELECT value FROM generate_series(1, 1000000000) s(value)";

fn ticket(info: &FlightInfo) -> Ticket {
    info.endpoint[0].ticket.clone().unwrap()
}

async fn act(client: &mut Client, name: &str, body: Vec<u8>) -> Result<Vec<u8>, Status> {
    let action = Action {
        r#type: name.into(),
        body: body.into(),
    };
    let request = client.request(action);
    let mut results = client.flight.do_action(request).await?.into_inner();
    let result = results.try_next().await?.unwrap();
    assert!(results.try_next().await?.is_none());
    Ok(result.body.to_vec())
}

async fn cancel(client: &mut Client, info: &FlightInfo) -> Result<CancelStatus, Status> {
    let request = CancelFlightInfoRequest {
        info: Some(info.clone()),
    };
    let body = act(client, "CancelFlightInfo", request.encode_to_vec()).await?;
    Ok(CancelFlightInfoResult::decode(&*body).unwrap().status())
}

async fn renew(client: &mut Client, endpoint: FlightEndpoint) -> Result<FlightEndpoint, Status> {
    let request = RenewFlightEndpointRequest {
        endpoint: Some(endpoint),
    };
    let body = act(client, "RenewFlightEndpoint", request.encode_to_vec()).await?;
    Ok(FlightEndpoint::decode(&*body).unwrap())
}

fn was_cancelled<T: std::fmt::Debug>(result: Result<T, Status>) {
    refused(result, Code::Cancelled, "was cancelled by its client");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_ends_for_whoever_has_its_announcement_in_the_session() {
    let server = TestServer::start().await;
    let (mut alice, mut bob) = alice_and_bob(&server).await;
    let info = alice.info(&statement(ENDLESS)).await.unwrap();
    let running = {
        let (mut alice, ticket) = (alice.clone(), ticket(&info));
        tokio::spawn(async move { alice.get(ticket).await })
    };
    until_active(&server, 1).await;

    let foreign = cancel(&mut bob, &info).await;
    refused(foreign, Code::FailedPrecondition, "another session");
    let mut other = Client::connect(&server, Some("other")).await;
    other.bind(ALICE).await;
    let foreign = cancel(&mut other, &info).await;
    refused(foreign, Code::FailedPrecondition, "another session");
    assert!(!running.is_finished());

    // The same session by another connection.
    let mut elsewhere = Client::connect(&server, Some("alice")).await;
    let status = cancel(&mut elsewhere, &info).await.unwrap();
    assert_eq!(status, CancelStatus::Cancelled);
    was_cancelled(running.await.unwrap());
    until_active(&server, 0).await;
    was_cancelled(alice.get(ticket(&info)).await);
    // Once more says the same, and another announcement is another query.
    let status = cancel(&mut elsewhere, &info).await.unwrap();
    assert_eq!(status, CancelStatus::Cancelled);
    assert_eq!(alice.query("SELECT 1 AS one").await.unwrap().num_rows(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_rows_ends_where_it_is_and_no_other_does() {
    let server = TestServer::start().await;
    let (mut alice, mut bob) = alice_and_bob(&server).await;
    let mut streams = Vec::new();
    for client in [&mut alice, &mut bob] {
        let info = client.info(&statement(LONG)).await.unwrap();
        let request = client.request(ticket(&info));
        let mut messages = client.flight.do_get(request).await.unwrap().into_inner();
        messages.try_next().await.unwrap().unwrap();
        streams.push((info, messages));
    }
    let (bobs, mut his) = streams.pop().unwrap();
    let (alices, mut hers) = streams.pop().unwrap();

    // By the older action.
    let request = ActionCancelQueryRequest {
        info: alices.encode_to_vec().into(),
    };
    let body = request.as_any().encode_to_vec();
    let body = act(&mut alice, "CancelQuery", body).await.unwrap();
    let result: ActionCancelQueryResult = Any::decode(&*body).unwrap().unpack().unwrap().unwrap();
    assert_eq!(result.result, 1);
    let rest: Result<(), Status> = async {
        while hers.try_next().await?.is_some() {}
        Ok(())
    }
    .await;
    was_cancelled(rest);

    his.try_next().await.unwrap().unwrap();
    assert_eq!(
        cancel(&mut bob, &bobs).await.unwrap(),
        CancelStatus::Cancelled
    );
    drop(his);
    until_active(&server, 0).await;
}

async fn ids(client: &mut Client) -> Vec<i64> {
    let rows: RecordBatch = client.query("SELECT id FROM t ORDER BY id").await.unwrap();
    rows.column(0).as_primitive::<Int64Type>().values().to_vec()
}

#[tokio::test]
async fn a_write_is_cancelled_before_it_runs_and_never_after() {
    let server = TestServer::start().await;
    let (mut alice, mut bob) = alice_and_bob(&server).await;
    for client in [&mut alice, &mut bob] {
        client.query("CREATE TABLE t (id BIGINT)").await.unwrap();
    }
    let insert = |id: i64| statement(&format!("INSERT INTO t VALUES ({id})"));
    let first = alice.info(&insert(1)).await.unwrap();
    let foreign = cancel(&mut bob, &first).await;
    refused(foreign, Code::FailedPrecondition, "another session");
    let status = cancel(&mut alice, &first).await.unwrap();
    assert_eq!(status, CancelStatus::Cancelled);
    was_cancelled(alice.get(ticket(&first)).await);

    let second = alice.info(&insert(2)).await.unwrap();
    alice.get(ticket(&second)).await.unwrap();
    let status = cancel(&mut alice, &second).await.unwrap();
    assert_eq!(status, CancelStatus::NotCancellable);
    assert_eq!(ids(&mut alice).await, [2]);
    assert!(ids(&mut bob).await.is_empty());
}

#[tokio::test]
async fn a_renewed_ticket_is_the_same_query() {
    let server = TestServer::start().await;
    let (mut alice, mut bob) = alice_and_bob(&server).await;
    let info = alice.info(&statement("SELECT 7 AS seven")).await.unwrap();
    let endpoint = info.endpoint[0].clone();
    refused(
        renew(&mut bob, endpoint.clone()).await,
        Code::FailedPrecondition,
        "another session",
    );
    let renewed = renew(&mut alice, endpoint.clone()).await.unwrap();
    let nanos = |endpoint: &FlightEndpoint| {
        let time = endpoint.expiration_time.as_ref().unwrap();
        (time.seconds, time.nanos)
    };
    assert!(nanos(&renewed) >= nanos(&endpoint));
    let rows = alice.get(renewed.ticket.clone().unwrap()).await.unwrap();
    assert_eq!(rows[0].column(0).as_primitive::<Int64Type>().value(0), 7);
    let foreign = bob.get(renewed.ticket.clone().unwrap()).await;
    refused(foreign, Code::FailedPrecondition, "another session");
    // What ends the query ends it under each of its tickets.
    cancel(&mut alice, &info).await.unwrap();
    was_cancelled(alice.get(renewed.ticket.unwrap()).await);

    // A write runs once, whatever tickets it has.
    alice.query("CREATE TABLE t (id BIGINT)").await.unwrap();
    let write = alice.info(&statement("INSERT INTO t VALUES (3)")).await;
    let write = write.unwrap().endpoint[0].clone();
    let renewed = renew(&mut alice, write.clone()).await.unwrap();
    alice.get(renewed.ticket.unwrap()).await.unwrap();
    refused(
        alice.get(write.ticket.unwrap()).await,
        Code::FailedPrecondition,
        "runs once",
    );
    assert_eq!(ids(&mut alice).await, [3]);
}

/// A ticket is taken until it expires, and one that was renewed for longer.
#[tokio::test]
async fn a_renewed_ticket_outlives_the_first() {
    let server = TestServer::start_with(|config| config.server.handle_ttl_secs = 1).await;
    let (mut alice, mut bob) = alice_and_bob(&server).await;
    let info = alice.info(&statement("SELECT 7 AS seven")).await.unwrap();
    let first = ticket(&info);
    let mut renewed = info.endpoint[0].clone();
    let expired = loop {
        renewed = renew(&mut alice, renewed).await.unwrap();
        if let Err(expired) = alice.get(first.clone()).await {
            break expired;
        }
    };
    refused(
        Err::<(), _>(expired),
        Code::FailedPrecondition,
        "has expired",
    );
    let late = renew(&mut alice, info.endpoint[0].clone()).await;
    refused(late, Code::FailedPrecondition, "has expired");
    let rows = alice.get(renewed.ticket.clone().unwrap()).await.unwrap();
    assert_eq!(rows[0].column(0).as_primitive::<Int64Type>().value(0), 7);
    // Whose it was is not told by what is told of its time.
    let foreign = bob.get(first).await;
    refused(foreign, Code::FailedPrecondition, "another session");
}

#[tokio::test]
async fn what_names_no_query_is_told_so() {
    let server = TestServer::start().await;
    let (mut alice, _bob) = alice_and_bob(&server).await;
    let info = alice.info(&statement("SELECT 1")).await.unwrap();
    let without_ticket = FlightInfo {
        endpoint: vec![FlightEndpoint::default()],
        ..FlightInfo::default()
    };
    let tables = arrow_flight::sql::CommandGetTableTypes {};
    let of_metadata = alice.info(&tables).await.unwrap();
    let mut forged = info.clone();
    let sealed = &mut forged.endpoint[0].ticket.as_mut().unwrap().ticket;
    let mut bytes = sealed.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    *sealed = bytes.into();
    for (info, text) in [
        (FlightInfo::default(), "names no query"),
        (without_ticket, "has no ticket"),
        (of_metadata, "not that of a query"),
        (forged, "was not issued by this server"),
    ] {
        refused(cancel(&mut alice, &info).await, Code::InvalidArgument, text);
    }
    for action in ["CancelFlightInfo", "CancelQuery", "RenewFlightEndpoint"] {
        let malformed = act(&mut alice, action, vec![0xff; 9]).await;
        refused(malformed, Code::InvalidArgument, action);
    }
    assert_eq!(alice.get(ticket(&info)).await.unwrap()[0].num_rows(), 1);
}
