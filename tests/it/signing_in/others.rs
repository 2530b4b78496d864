//! What one principal made, shown by another: session ids, tickets, handles,
//! transactions, and what is kept in a session.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow_flight::sql::{ActionCancelQueryRequest, ProstMessageExt};
use arrow_flight::{FlightInfo, Ticket};
use bytes::Bytes;
use jammi_db::server::proto::session::{ClearTenantRequest, GetTenantRequest};
use prost::Message;
use tonic::{Code, Status};

use super::{Gate, Holder};
use crate::authentication::words;
use crate::client::{ALICE, BOB, Client, descriptor, prepared, statement};
use crate::doors::options::options;
use crate::harness::set_tenant;
use crate::writes::refused;

const WORD: &str = "SELECT word FROM t";
const SCRATCH: &str = "SELECT word FROM scratch";

/// What a holder has in a session.
struct Kept {
    client: Client,
    word: String,
    info: FlightInfo,
    ticket: Ticket,
    handle: Bytes,
    transaction: Bytes,
    polled: Vec<u8>,
}

/// Makes one of each thing that a session can keep.
async fn keep(holder: &Holder, session: Option<&'static str>, word: &str) -> Kept {
    let mut client = holder.sent.client(session);
    // Two may act for one tenant.
    let _ = client.update("CREATE TABLE t (word TEXT)").await;
    let info = client.info(&statement("SELECT 1 AS one")).await.unwrap();
    let handle = client.prepare(WORD).await.unwrap();
    if session.is_some() {
        // One writes to a lane at a time.
        let scratch = format!("CREATE TEMPORARY TABLE scratch AS SELECT '{word}' AS word");
        client.update(&scratch).await.unwrap();
    }
    let transaction = client.begin().await.unwrap();
    let insert = format!("INSERT INTO t VALUES ('{word}')");
    client.update_in(&insert, Some(&transaction)).await.unwrap();
    let query = descriptor(&statement("SELECT count(*) FROM generate_series(1, 1000)"));
    let poll = client.request(query);
    let poll = client.flight.poll_flight_info(poll).await.unwrap();
    let next = poll.into_inner().flight_descriptor;
    if session.is_some() {
        let names = options([("schema", Some(word))]);
        client.act("SetSessionOptions", names).await.unwrap();
    }
    Kept {
        ticket: info.endpoint[0].ticket.clone().unwrap(),
        handle: handle.prepared_statement_handle,
        polled: next.map(|next| next.encode_to_vec()).unwrap_or_default(),
        client,
        word: word.into(),
        info,
        transaction,
    }
}

/// Refused as what was never made, or for another session, in words that hold nothing
/// of it.
#[track_caller]
fn is_anothers<T: std::fmt::Debug>(answer: Result<T, Status>, kept: &Kept, what: &str) {
    let error = answer.expect_err(what);
    let words = match error.code() {
        Code::FailedPrecondition => "to another session",
        Code::NotFound => "the transaction does not exist, or has ended",
        _ => panic!("{what}: {error:?}"),
    };
    assert!(error.message().contains(words), "{what}: {error:?}");
    assert!(!error.message().contains(&kept.word), "{what}: {error:?}");
}

/// Shows all that `kept` has as `thief`, in a session of the same id.
async fn show(kept: &Kept, thief: &Holder, session: Option<&'static str>, what: &str) {
    let mut client = thief.sent.client(session);
    is_anothers(client.get(kept.ticket.clone()).await, kept, what);
    is_anothers(client.info(&prepared(&kept.handle)).await, kept, what);
    is_anothers(client.schema(&prepared(&kept.handle)).await, kept, what);
    let row: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    let row = RecordBatch::try_from_iter([("1", row)]).unwrap();
    is_anothers(client.bind_row(&kept.handle, row).await, kept, what);
    let insert = "INSERT INTO t VALUES ('of a thief')";
    is_anothers(
        client.update_in(insert, Some(&kept.transaction)).await,
        kept,
        what,
    );
    is_anothers(client.query_in(WORD, &kept.transaction).await, kept, what);
    is_anothers(client.savepoint(&kept.transaction, "s").await, kept, what);
    is_anothers(client.commit(&kept.transaction).await, kept, what);
    is_anothers(client.roll_back(&kept.transaction).await, kept, what);
    if !kept.polled.is_empty() {
        let poll = arrow_flight::FlightDescriptor::decode(&*kept.polled).unwrap();
        let poll = client.request(poll);
        let polled = client.flight.poll_flight_info(poll).await;
        is_anothers(polled.map(|answer| answer.into_inner()), kept, what);
    }
    let cancel = ActionCancelQueryRequest {
        info: kept.info.encode_to_vec().into(),
    };
    let cancel = cancel.as_any().encode_to_vec();
    is_anothers(client.act("CancelQuery", cancel).await, kept, what);
    if session.is_none() {
        return;
    }
    // The session is another: not bound by its id, without its tables and names, and
    // whatever is done to it is done to the thief's own.
    let bound = client.request(GetTenantRequest {});
    let bound = client
        .sessions
        .get_tenant(bound)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(bound.tenant.unwrap().id, thief.tenant, "{what}");
    refused(
        client.query(SCRATCH).await,
        Code::NotFound,
        "`scratch` does not exist",
    );
    let named = client.act("GetSessionOptions", Bytes::new()).await.unwrap();
    assert!(
        !String::from_utf8_lossy(&named[0]).contains(&kept.word),
        "{what}"
    );
    let other = match thief.tenant {
        ALICE => BOB,
        _ => ALICE,
    };
    let rebound = client
        .sessions
        .set_tenant(client.request(set_tenant(other)))
        .await;
    refused(
        rebound,
        Code::PermissionDenied,
        "does not act for the tenant",
    );
    let cleared = client.request(ClearTenantRequest {});
    client.sessions.clear_tenant(cleared).await.unwrap();
    client.act("CloseSession", Bytes::new()).await.unwrap();
}

/// What is there, for whom it was made.
async fn use_up(kept: Kept, session: Option<&'static str>) {
    let mut client = kept.client;
    let rows = client.get(kept.ticket).await.unwrap();
    assert_eq!(rows[0].num_rows(), 1);
    client.commit(&kept.transaction).await.unwrap();
    let rows = client.rows(&prepared(&kept.handle)).await.unwrap();
    let found = words(&rows);
    assert!(found.contains(&kept.word.as_str()), "{found:?}");
    assert!(!found.contains(&"of a thief"), "{found:?}");
    if session.is_some() {
        let named = client.act("GetSessionOptions", Bytes::new()).await.unwrap();
        assert!(String::from_utf8_lossy(&named[0]).contains(&kept.word));
        let unnamed = options([("schema", None)]);
        client.act("SetSessionOptions", unnamed).await.unwrap();
        let rows = client.query(SCRATCH).await.unwrap();
        assert_eq!(words(&rows), [kept.word.as_str()]);
    }
}

#[tokio::test]
async fn what_a_principal_made_is_no_others() {
    for gate in Gate::all(|_| {}).await {
        for (at, holder) in gate.holders.iter().enumerate() {
            for (other, thief) in gate
                .holders
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != at)
            {
                let (of, by) = (holder.sent.what, thief.sent.what);
                let what = format!("{}: of {of} by {by}", gate.name);
                let named: &'static str = format!("{at}-by-{other}").leak();
                for session in [Some(named), None] {
                    let word = format!("canary-{at}-{other}-{}", session.is_some());
                    let kept = keep(holder, session, &word).await;
                    show(&kept, thief, session, &what).await;
                    use_up(kept, session).await;
                    if thief.tenant != holder.tenant {
                        let mut client = thief.sent.client(None);
                        let seen = client.query(WORD).await;
                        let seen = seen.map(|rows| words(&rows).join(" ")).unwrap_or_default();
                        assert!(!seen.contains(&word), "{what}: {seen}");
                    }
                }
            }
        }
    }
}
