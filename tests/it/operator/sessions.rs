//! Sessions: who sees which, and what ends with one.

use jammi_db::server::proto::operator::Session;
use jammi_db::server::proto::session::GetTenantRequest;
use tonic::Code;

use super::{ENDLESS, World};
use crate::client::{ALICE, BOB, Client, prepared, statement};
use crate::writes::refused;

async fn tenant_of(client: &mut Client) -> Option<String> {
    let request = client.request(GetTenantRequest {});
    let answer = client.sessions.get_tenant(request).await.unwrap();
    answer.into_inner().tenant.map(|tenant| tenant.id)
}

fn of<'a>(sessions: &'a [Session], principal: &str) -> &'a Session {
    let mut found = sessions
        .iter()
        .filter(|session| session.principal == principal);
    let only = found.next().unwrap();
    assert!(found.next().is_none(), "{sessions:?}");
    only
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_a_session_has_ends_with_it() {
    let world = World::new().await;
    let operator = world.operator.clone();
    let keys = world.guarded.key("carol", &[ALICE, BOB], &[]).await;
    let mut bob = world.bob.clone();
    for (client, word) in [(&mut world.alice.clone(), "hers"), (&mut bob, "his")] {
        let made = format!("CREATE TABLE t AS SELECT '{word}' AS word");
        client.query(&made).await.unwrap();
    }
    bob.query("CREATE TEMP TABLE his_own AS SELECT 1 AS one")
        .await
        .unwrap();

    let mut carol = world.guarded.client(&keys, Some("a-secret-id")).await;
    carol.bind(ALICE).await;
    carol
        .query("CREATE TEMP TABLE own AS SELECT 7 AS seven")
        .await
        .unwrap();
    let info = carol.info(&statement("SELECT word FROM t")).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let handle = carol.prepare("SELECT word FROM t").await.unwrap();
    let handle = handle.prepared_statement_handle;
    // By another connection of the session.
    let running = {
        let mut carol = world.guarded.client(&keys, Some("a-secret-id")).await;
        tokio::spawn(async move {
            let info = carol.info(&statement(ENDLESS)).await?;
            carol.get(info.endpoint[0].ticket.clone().unwrap()).await
        })
    };
    let is_running = |query: &jammi_db::server::proto::operator::Query| {
        query.principal == "api-key:carol" && query.state == "running"
    };
    let query = operator.until_runs(is_running).await;
    carol.query("BEGIN").await.unwrap();
    carol
        .query("INSERT INTO t VALUES ('of the transaction')")
        .await
        .unwrap();

    let sessions = operator.sessions().await;
    let hers = of(&sessions, "api-key:carol").clone();
    assert_eq!(
        (hers.tenant.as_str(), hers.queries, hers.transactions),
        (ALICE, 1, 1)
    );
    assert!(hers.has_temporary_tables && hers.used_at_ms.is_some());
    assert_eq!(query.session, Some(hers.id));
    assert!(!format!("{sessions:?}").contains("a-secret-id"));

    operator.end(hers.id).await.unwrap();
    refused(
        running.await.unwrap(),
        Code::Cancelled,
        "ended by an operator",
    );
    // As a session that nobody has bound: shared rows, and of no tenant's.
    assert_eq!(tenant_of(&mut carol).await, None);
    refused(
        carol.query("SELECT word FROM t").await,
        Code::NotFound,
        "does not exist",
    );
    refused(
        carol.query("COMMIT").await,
        Code::FailedPrecondition,
        "no transaction is open",
    );
    for answer in [
        carol.get(ticket).await.map(drop),
        carol.rows(&prepared(&handle)).await.map(drop),
    ] {
        refused(answer, Code::FailedPrecondition, "");
    }
    refused(
        operator.end(hers.id).await,
        Code::NotFound,
        "there is no session",
    );
    // Bound anew it is another one of the name.
    carol.bind(ALICE).await;
    assert_eq!(carol.shows("SELECT word FROM t").await, "hers");
    refused(
        carol.query("SELECT seven FROM own").await,
        Code::NotFound,
        "does not exist",
    );
    // Bob notices nothing.
    assert_eq!(bob.shows("SELECT word FROM t").await, "his");
    assert_eq!(bob.shows("SELECT one FROM his_own").await, "1");
    assert_eq!(tenant_of(&mut bob).await.as_deref(), Some(BOB));
}

/// Symptom to be kept away: whoever acts for one tenant is bound to it without asking,
/// so that there is no binding to end, and handles go on.
#[tokio::test]
async fn handles_of_a_session_that_was_never_bound_end_too() {
    let world = World::new().await;
    let keys = world.guarded.key("dora", &[ALICE], &[]).await;
    let mut dora = world.guarded.client(&keys, Some("d")).await;
    dora.query("CREATE TEMP TABLE own AS SELECT 7 AS seven")
        .await
        .unwrap();
    let handle = dora.prepare("SELECT 1 AS one").await.unwrap();
    let handle = handle.prepared_statement_handle;
    assert_eq!(dora.rows(&prepared(&handle)).await.unwrap().num_rows(), 1);
    let id = dora.begin().await.unwrap();
    let sessions = world.operator.sessions().await;
    let session = of(&sessions, "api-key:dora");
    assert_eq!((session.tenant.as_str(), session.used_at_ms), (ALICE, None));

    world.operator.end(session.id).await.unwrap();
    refused(
        dora.rows(&prepared(&handle)).await,
        Code::FailedPrecondition,
        "",
    );
    assert!(dora.commit(&id).await.is_err());
    refused(
        dora.query("SELECT seven FROM own").await,
        Code::NotFound,
        "does not exist",
    );
    // She goes on under her own tenant with what she prepares now, twice over.
    for _ in 0..2 {
        let handle = dora.prepare("SELECT 1 AS one").await.unwrap();
        let handle = handle.prepared_statement_handle;
        assert_eq!(dora.rows(&prepared(&handle)).await.unwrap().num_rows(), 1);
    }
}

#[tokio::test]
async fn each_sees_and_ends_her_own_sessions() {
    let World {
        guarded,
        mut alice,
        mut bob,
        operator,
    } = World::new().await;
    let mut other = alice.with_session("alices-other");
    other.bind(ALICE).await;
    let all = operator.sessions().await;
    assert_eq!(all.len(), 3);
    for (client, tenant, count) in [(&mut alice, ALICE, 2), (&mut bob, BOB, 1)] {
        let rows = client.query("SELECT * FROM jammi.server.sessions").await;
        let rows = rows.unwrap();
        assert_eq!(rows.num_rows(), count);
        let foreign = if tenant == ALICE { BOB } else { ALICE };
        let text = format!("{rows:?}");
        assert!(text.contains(tenant) && !text.contains(foreign), "{text}");
        assert!(!text.contains("alices-other"), "{text}");
    }
    // The other one, in which nobody asks.
    let idle = "SELECT id FROM jammi.server.sessions WHERE queries = 0";
    let id = alice.shows(idle).await;
    alice.query(&format!("KILL CONNECTION {id}")).await.unwrap();
    assert_eq!(tenant_of(&mut other).await.as_deref(), Some(ALICE));
    assert_eq!(operator.sessions().await.len(), 2);
    let bobs = of(&all, "api-key:bob").id;
    refused(
        alice.query(&format!("KILL CONNECTION {bobs}")).await,
        Code::NotFound,
        "there is no session",
    );
    bob.query("SELECT 1").await.unwrap();
    // Her own, while she asks in it.
    let asking = "SELECT id FROM jammi.server.sessions WHERE queries > 0";
    let id = alice.shows(asking).await;
    alice.query(&format!("KILL CONNECTION {id}")).await.unwrap();
    assert_eq!(operator.sessions().await.len(), 1);
    guarded.server.stop().await;
}
