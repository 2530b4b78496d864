//! The cookie that names a session.

use arrow_flight::Action;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any,
    CommandPreparedStatementQuery, ProstMessageExt,
};
use bytes::Bytes;
use futures::TryStreamExt;
use jammi_db::server::proto::session::GetTenantRequest;
use prost::Message;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Status};

use super::*;
use crate::client::{descriptor, statement};
use crate::harness::{bind, in_session, set_tenant};
use crate::writes::refused;

/// A request with headers of any name.
fn with<T>(message: T, headers: &[(&'static str, &str)]) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in headers {
        let value = MetadataValue::<Ascii>::try_from(*value).unwrap();
        request.metadata_mut().append(*name, value);
    }
    request
}

/// The tenant of the session that `headers` name.
async fn tenant_by(
    server: &TestServer,
    headers: &[(&'static str, &str)],
) -> Result<Option<String>, Status> {
    let request = with(GetTenantRequest {}, headers);
    let answer = server
        .sessions()
        .await
        .get_tenant(request)
        .await?
        .into_inner();
    Ok(answer.tenant.map(|tenant| tenant.id))
}

#[tokio::test]
async fn a_cookie_names_a_session_and_agrees_with_the_header() {
    let (server, _client) = notes().await;
    let alice = ("cookie", "arrow_flight_session_id=alice");
    let bob = ("cookie", "arrow_flight_session_id=bob");
    let header = |session: &'static str| ("jammi-session-id", session);
    for named in [
        &[alice][..],
        &[(
            "cookie",
            "theme=dark;arrow_flight_session_id=\"alice\"; a=b",
        )],
        &[("cookie", "theme=dark"), alice],
        &[alice, alice],
        &[alice, header("alice")],
    ] {
        let tenant = tenant_by(&server, named).await.unwrap();
        assert_eq!(tenant.as_deref(), Some(ALICE), "{named:?}");
    }
    for (named, says) in [
        (&[alice, bob][..], "different sessions"),
        (&[alice, header("bob")], "different sessions"),
        (&[header("alice"), bob], "different sessions"),
        (
            &[(
                "cookie",
                "arrow_flight_session_id=alice; arrow_flight_session_id=bob",
            )],
            "different sessions",
        ),
        (
            &[header("alice"), ("cookie", "arrow_flight_session_id=")],
            "is empty",
        ),
        (&[("cookie", "arrow_flight_session_id")], "malformed"),
        (&[("cookie", "arrow_flight_session_id=al ice")], "malformed"),
        (
            &[(
                "cookie",
                "arrow_flight_session_id=alice, arrow_flight_session_id=alice",
            )],
            "malformed",
        ),
    ] {
        refused(tenant_by(&server, named).await, Code::InvalidArgument, says);
        // On every service.
        let request = with(descriptor(&statement("SELECT 1")), named);
        let mut flight = Client::connect(&server, None).await.flight;
        refused(
            flight.get_flight_info(request).await,
            Code::InvalidArgument,
            says,
        );
    }
    // Another cookie names none.
    for other in ["a=b", "Arrow_Flight_Session_Id=alice"] {
        refused(
            tenant_by(&server, &[("cookie", other)]).await,
            Code::InvalidArgument,
            "jammi-session-id",
        );
    }
}

/// A browser sends cookies whichever page asks: they name nothing there, be they
/// planted, malformed or in disagreement.
#[tokio::test]
async fn a_page_s_cookies_are_not_looked_at() {
    let origin = "https://app.example.com";
    let server =
        TestServer::start_with(|config| config.server.allowed_origins = vec![origin.into()]).await;
    bind(&mut server.sessions().await, "alice", ALICE)
        .await
        .unwrap();
    bind(&mut server.sessions().await, "bob", BOB)
        .await
        .unwrap();
    for of_page in [("origin", origin), ("sec-fetch-site", "same-origin")] {
        for cookie in ["arrow_flight_session_id=alice", "arrow_flight_session_id"] {
            let planted = ("cookie", cookie);
            refused(
                tenant_by(&server, &[of_page, planted]).await,
                Code::InvalidArgument,
                "jammi-session-id",
            );
            let tenant = tenant_by(&server, &[of_page, planted, ("jammi-session-id", "bob")]).await;
            assert_eq!(tenant.unwrap().as_deref(), Some(BOB));
        }
        // And none is set there.
        let mut flight = Client::connect(&server, None).await.flight;
        for action in [
            action("GetSessionOptions", Vec::new()),
            action("CreatePreparedStatement", prepare(&set(ALICE))),
        ] {
            match flight.do_action(with(action, &[of_page])).await {
                Ok(answer) => assert!(answer.metadata().get("set-cookie").is_none()),
                Err(status) => assert_eq!(status.code(), Code::InvalidArgument),
            }
        }
    }
}

fn action(name: &str, body: Vec<u8>) -> Action {
    Action {
        r#type: name.into(),
        body: body.into(),
    }
}

fn prepare(sql: &str) -> Vec<u8> {
    let request = ActionCreatePreparedStatementRequest {
        query: sql.into(),
        transaction_id: None,
    };
    request.as_any().encode_to_vec()
}

/// The cookie that an answer to `action` gives, and the answer.
async fn given(
    server: &TestServer,
    action: Action,
    headers: &[(&'static str, &str)],
) -> (Option<String>, Bytes) {
    let mut flight = Client::connect(server, None).await.flight;
    let answer = flight.do_action(with(action, headers)).await.unwrap();
    let cookie = answer
        .metadata()
        .get("set-cookie")
        .map(|value| value.to_str().unwrap().to_owned());
    let results: Vec<_> = answer.into_inner().try_collect().await.unwrap();
    (cookie, results[0].body.clone())
}

#[tokio::test]
async fn a_client_that_keeps_cookies_is_given_a_session() {
    let (server, _client) = notes().await;
    let ask = || action("GetSessionOptions", Vec::new());
    let (cookie, _) = given(&server, ask(), &[]).await;
    let cookie = cookie.unwrap();
    let (pair, attributes) = cookie.split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Strict");
    let (other, _) = given(&server, ask(), &[]).await;
    assert!(!other.unwrap().contains(pair), "each is another");
    // Who names a session keeps it.
    for named in [("cookie", pair), ("jammi-session-id", "s1")] {
        assert_eq!(given(&server, ask(), &[named]).await.0, None);
    }
    // What would be lost without the cookie gives none.
    let info = with(descriptor(&statement("SELECT 1")), &[]);
    let mut flight = Client::connect(&server, None).await.flight;
    let answer = flight.get_flight_info(info).await.unwrap();
    assert!(answer.metadata().get("set-cookie").is_none());
    assert_eq!(
        given(
            &server,
            action("CreatePreparedStatement", prepare("SELECT 1")),
            &[]
        )
        .await
        .0,
        None
    );

    let mut sessions = server.sessions().await;
    let request = set_tenant(ALICE);
    sessions
        .set_tenant(with(request, &[("cookie", pair)]))
        .await
        .unwrap();
    assert_eq!(
        tenant_by(&server, &[("cookie", pair)])
            .await
            .unwrap()
            .as_deref(),
        Some(ALICE)
    );
}

/// A driver prepares what it executes: it is given the cookie with the statement,
/// which binds when the cookie comes back, and nothing else does.
#[tokio::test]
async fn a_statement_that_binds_gives_a_session_that_has_to_come_back() {
    let (server, mut stranger) = notes().await;
    let sql = set(ALICE);
    let (cookie, body) = given(
        &server,
        action("CreatePreparedStatement", prepare(&sql)),
        &[],
    )
    .await;
    let cookie = cookie.unwrap();
    let pair = cookie.split_once(';').unwrap().0.to_owned();
    let any = Any::decode(&*body).unwrap();
    let result: ActionCreatePreparedStatementResult = any.unpack().unwrap().unwrap();
    let handle = result.prepared_statement_handle;
    let command = CommandPreparedStatementQuery {
        prepared_statement_handle: handle.clone(),
    };
    // Without it, or with another session's.
    let mut nobody = Client::connect(&server, None).await;
    for client in [&mut nobody, &mut stranger] {
        refused(
            client.rows(&command).await,
            Code::FailedPrecondition,
            "another session",
        );
    }
    let mut flight = Client::connect(&server, None).await.flight;
    let named = [("cookie", pair.as_str())];
    let info = flight
        .get_flight_info(with(descriptor(&command), &named))
        .await
        .unwrap()
        .into_inner();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    refused(
        nobody.get(ticket.clone()).await,
        Code::FailedPrecondition,
        "another session",
    );
    assert_eq!(tenant_by(&server, &named).await.unwrap(), None);
    let rows = flight
        .do_get(with(ticket, &named))
        .await
        .unwrap()
        .into_inner();
    let _: Vec<_> = rows.try_collect().await.unwrap();
    assert_eq!(
        tenant_by(&server, &named).await.unwrap().as_deref(),
        Some(ALICE)
    );
    let info = with(descriptor(&statement(NOTES)), &named);
    let info = flight.get_flight_info(info).await.unwrap().into_inner();
    let rows = flight
        .do_get(with(info.endpoint[0].ticket.clone().unwrap(), &named))
        .await
        .unwrap();
    let rows: Vec<_> = rows.into_inner().try_collect().await.unwrap();
    let rows: Vec<String> = rows
        .iter()
        .map(|rows| String::from_utf8_lossy(&rows.data_body).into_owned())
        .collect();
    assert!(rows.concat().contains("of-alice") && !rows.concat().contains("of-bob"));
    // Nobody but the cookie's holder is bound by it.
    let request = in_session("by-sql", GetTenantRequest {});
    let answer = server
        .sessions()
        .await
        .get_tenant(request)
        .await
        .unwrap()
        .into_inner();
    assert!(answer.tenant.is_none());
    refused(nobody.query(NOTES).await, Code::NotFound, "does not exist");
}
