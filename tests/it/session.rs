//! `SessionService` and the session header, over the wire.

use jammi_db::server::proto::catalog::ListSourcesRequest;
use jammi_db::server::proto::session::{ClearTenantRequest, GetTenantRequest, SetTenantRequest};
use tokio::task::JoinSet;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request};

use crate::harness::{ALICE, BOB, TestServer, bind, bound, in_session, set_tenant};

#[tokio::test]
async fn a_session_is_bound_rebound_and_cleared_alone() {
    let server = TestServer::start().await;
    let mut client = server.sessions().await;
    assert_eq!(bound(&mut client, "s1").await, None);
    assert_eq!(bind(&mut client, "s1", ALICE).await.unwrap(), ALICE);
    assert_eq!(bind(&mut client, "s2", BOB).await.unwrap(), BOB);
    assert_eq!(bound(&mut client, "s1").await.as_deref(), Some(ALICE));
    // Another connection with the same header is the same session.
    let mut other = server.sessions().await;
    assert_eq!(bound(&mut other, "s2").await.as_deref(), Some(BOB));

    bind(&mut other, "s1", BOB).await.unwrap();
    assert_eq!(bound(&mut client, "s1").await.as_deref(), Some(BOB));
    let clear = in_session("s1", ClearTenantRequest {});
    client.clear_tenant(clear).await.unwrap();
    assert_eq!(bound(&mut client, "s1").await, None);
    assert_eq!(bound(&mut client, "s2").await.as_deref(), Some(BOB));
    // Clearing what is not bound is no error.
    let clear = in_session("s1", ClearTenantRequest {});
    client.clear_tenant(clear).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_tenant_is_answered_in_canonical_form() {
    let server = TestServer::start().await;
    let mut client = server.sessions().await;
    let upper = ALICE.to_uppercase();
    assert_eq!(bind(&mut client, "s1", &upper).await.unwrap(), ALICE);
    assert_eq!(bound(&mut client, "s1").await.as_deref(), Some(ALICE));
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_tenant_changes_no_binding_and_says_what_to_send() {
    let server = TestServer::start().await;
    let mut client = server.sessions().await;
    bind(&mut client, "s1", ALICE).await.unwrap();
    let mut requests = vec![SetTenantRequest { tenant: None }];
    for tenant in [
        "",
        "alice",
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "{018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a}",
        "urn:uuid:018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a",
        "018f5a0ec4c87e109c4f3b6f7c5a8e9a",
        "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a\n",
        "018f5a0e-c4c8-1e10-9c4f-3b6f7c5a8e9a",
    ] {
        requests.push(set_tenant(tenant));
    }
    for request in requests {
        let shown = format!("{request:?}");
        let refusal = client
            .set_tenant(in_session("s1", request))
            .await
            .unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{shown}");
        assert!(refusal.message().contains("UUID"), "{shown}: {refusal:?}");
    }
    assert_eq!(bound(&mut client, "s1").await.as_deref(), Some(ALICE));
    server.stop().await;
}

#[tokio::test]
async fn a_missing_session_header_is_named() {
    let server = TestServer::start().await;
    let mut client = server.sessions().await;
    let refusals = [
        client.set_tenant(set_tenant(ALICE)).await.err(),
        client.get_tenant(GetTenantRequest {}).await.err(),
        client.clear_tenant(ClearTenantRequest {}).await.err(),
    ];
    for refusal in refusals {
        let refusal = refusal.unwrap();
        assert_eq!(refusal.code(), Code::InvalidArgument);
        assert!(refusal.message().contains("jammi-session-id"));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_session_header_that_cannot_be_read_is_never_no_session() {
    let server = TestServer::start().await;
    let mut sessions = server.sessions().await;
    let mut catalog = server.catalog().await;
    bind(&mut sessions, "s1", ALICE).await.unwrap();
    let long = "x".repeat(129);
    let value = |text: &'static str| MetadataValue::<Ascii>::from_static(text);
    let opaque = |bytes: &[u8]| MetadataValue::<Ascii>::try_from(bytes).unwrap();
    let cases: Vec<(Vec<MetadataValue<Ascii>>, bool)> = vec![
        (vec![value("s1")], true),
        (vec![value("s1"), value("s1")], true),
        (vec![value("s1,s1")], true),
        (vec![value("s1"), value("s2")], false),
        (vec![value("s1"), value("")], false),
        (vec![value("s1,s2")], false),
        (vec![value("")], false),
        (vec![value("s 1")], false),
        (vec![opaque(long.as_bytes())], false),
        (vec![opaque(b"s\xc3\xa9ance")], false),
        (vec![opaque(b"s\t1")], false),
    ];
    for (values, readable) in cases {
        let mut request = Request::new(GetTenantRequest {});
        let mut on_catalog = Request::new(ListSourcesRequest {});
        for value in &values {
            let metadata = request.metadata_mut();
            metadata.append("jammi-session-id", value.clone());
            let metadata = on_catalog.metadata_mut();
            metadata.append("jammi-session-id", value.clone());
        }
        let answer = sessions.get_tenant(request).await;
        if readable {
            let tenant = answer.unwrap().into_inner().tenant;
            assert_eq!(tenant.unwrap().id, ALICE, "{values:?}");
            continue;
        }
        for refusal in [
            answer.unwrap_err(),
            catalog.list_sources(on_catalog).await.unwrap_err(),
        ] {
            assert_eq!(refusal.code(), Code::InvalidArgument, "{values:?}");
            assert!(refusal.message().contains("jammi-session-id"));
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn bindings_survive_a_restart() {
    let server = TestServer::start().await;
    let mut client = server.sessions().await;
    bind(&mut client, "s1", ALICE).await.unwrap();
    bind(&mut client, "s2", BOB).await.unwrap();
    bind(&mut client, "s2", ALICE).await.unwrap();
    bind(&mut client, "s3", BOB).await.unwrap();
    let clear = in_session("s3", ClearTenantRequest {});
    client.clear_tenant(clear).await.unwrap();
    drop(client);
    let dir = server.stop().await;

    let server = TestServer::start_in(dir, |_| {}).await;
    let mut client = server.sessions().await;
    assert_eq!(bound(&mut client, "s1").await.as_deref(), Some(ALICE));
    assert_eq!(bound(&mut client, "s2").await.as_deref(), Some(ALICE));
    assert_eq!(bound(&mut client, "s3").await, None);
    server.stop().await;
}

#[tokio::test]
async fn one_session_too_many_is_refused_by_the_name_of_the_limit() {
    let server = TestServer::start_with(|config| config.sessions.max = 2).await;
    let mut client = server.sessions().await;
    bind(&mut client, "s1", ALICE).await.unwrap();
    bind(&mut client, "s2", BOB).await.unwrap();
    let refusal = bind(&mut client, "s3", BOB).await.unwrap_err();
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    assert!(refusal.message().contains("sessions.max"), "{refusal:?}");
    assert_eq!(bound(&mut client, "s3").await, None);
    assert_eq!(bound(&mut client, "s1").await.as_deref(), Some(ALICE));
    server.stop().await;
}

#[tokio::test]
async fn without_anonymous_reads_an_unbound_session_can_only_bind() {
    let server = TestServer::start_with(|config| config.tenancy.anonymous_reads = false).await;
    let mut catalog = server.catalog().await;
    let with_session = in_session("s1", ListSourcesRequest {});
    for request in [Request::new(ListSourcesRequest {}), with_session] {
        let refusal = catalog.list_sources(request).await.unwrap_err();
        assert_eq!(refusal.code(), Code::FailedPrecondition);
        assert!(refusal.message().contains("SetTenant"), "{refusal:?}");
    }
    let mut sessions = server.sessions().await;
    bind(&mut sessions, "s1", ALICE).await.unwrap();
    let listed = catalog.list_sources(in_session("s1", ListSourcesRequest {}));
    assert!(listed.await.unwrap().into_inner().sources.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn concurrent_sessions_of_one_connection_never_mix() {
    let server = TestServer::start().await;
    let client = server.sessions().await;
    let mut tasks = JoinSet::new();
    for number in 0..100 {
        let mut client = client.clone();
        tasks.spawn(async move {
            let session = format!("s{number}");
            let tenant = if number % 2 == 0 { ALICE } else { BOB };
            bind(&mut client, &session, tenant).await.unwrap();
            for _ in 0..10 {
                assert_eq!(bound(&mut client, &session).await.as_deref(), Some(tenant));
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    server.stop().await;
}
