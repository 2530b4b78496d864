//! What the server does around its services: ids, limits, browsers, health,
//! metrics, and how it starts and stops.

use std::collections::BTreeSet;

use jammi_db::engine::Engine;
use jammi_db::error::Error;
use jammi_db::server::Server;
use jammi_db::server::proto::session::GetTenantRequest;
use jammi_db::server::proto::session::session_service_client::SessionServiceClient;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::harness::{ALICE, TestServer, bind, config, http1, in_session, set_tenant};

const GET_TENANT: &str = "/jammi.v1.session.SessionService/GetTenant";
const ORIGIN: &str = "https://app.example.com";

#[tokio::test]
async fn every_response_says_its_request_id() {
    let server = TestServer::start().await;
    let mut client = server.sessions().await;
    let answer = client
        .set_tenant(in_session("s1", set_tenant(ALICE)))
        .await
        .unwrap();
    let made = answer.metadata().get("x-request-id").unwrap();
    assert_eq!(made.len(), 36);

    let mut request = in_session("s1", GetTenantRequest {});
    let metadata = request.metadata_mut();
    metadata.insert("x-request-id", "mine-1".parse().unwrap());
    let answer = client.get_tenant(request).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "mine-1");

    let mut request = in_session("s1", GetTenantRequest {});
    let metadata = request.metadata_mut();
    metadata.insert("x-request-id", "not mine".parse().unwrap());
    let answer = client.get_tenant(request).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap().len(), 36);

    let refusal = client.get_tenant(GetTenantRequest {}).await.unwrap_err();
    assert!(refusal.metadata().contains_key("x-request-id"));
    server.stop().await;
}

/// A gRPC-Web call of GetTenant from a page of `origin`.
fn web_call(origin: &str, session: &str) -> Vec<u8> {
    let mut request = format!(
        "POST {GET_TENANT} HTTP/1.1\r\nhost: jammi\r\nconnection: close\r\norigin: {origin}\r\n\
         content-type: application/grpc-web+proto\r\nx-grpc-web: 1\r\n{session}\
         content-length: 5\r\n\r\n"
    )
    .into_bytes();
    // An empty message.
    request.extend([0; 5]);
    request
}

#[tokio::test]
async fn pages_of_allowed_origins_call_by_grpc_web() {
    let server =
        TestServer::start_with(|config| config.server.allowed_origins = vec![ORIGIN.into()]).await;
    let mut client = server.sessions().await;
    bind(&mut client, "s1", ALICE).await.unwrap();

    let preflight = |origin: &str| {
        format!(
            "OPTIONS {GET_TENANT} HTTP/1.1\r\nhost: jammi\r\nconnection: close\r\norigin: \
             {origin}\r\naccess-control-request-method: POST\r\n\
             access-control-request-headers: content-type,x-grpc-web,jammi-session-id\r\n\r\n"
        )
    };
    let allowed = http1(server.grpc, preflight(ORIGIN).as_bytes()).await;
    let allow_origin = format!("access-control-allow-origin: {ORIGIN}");
    assert!(allowed.starts_with("HTTP/1.1 200"), "{allowed}");
    assert!(allowed.contains(&allow_origin), "{allowed}");
    for name in [
        "jammi-session-id",
        "x-grpc-web",
        "authorization",
        "grpc-timeout",
    ] {
        assert!(allowed.contains(name), "{name}: {allowed}");
    }
    assert!(!allowed.contains("allow-credentials"), "{allowed}");
    let refused = http1(server.grpc, preflight("https://evil.example").as_bytes()).await;
    assert!(
        !refused.contains("access-control-allow-origin"),
        "{refused}"
    );

    let answer = http1(server.grpc, &web_call(ORIGIN, "jammi-session-id: s1\r\n")).await;
    assert!(answer.contains(&allow_origin), "{answer}");
    assert!(answer.contains(ALICE), "{answer}");
    assert!(answer.contains("grpc-status:0"), "{answer}");
    // An error without a message is in the headers, which the page may read.
    let answer = http1(server.grpc, &web_call(ORIGIN, "")).await;
    assert!(answer.contains("grpc-status: 3"), "{answer}");
    let exposed = answer
        .lines()
        .find(|line| line.starts_with("access-control-expose-headers"))
        .unwrap();
    assert!(exposed.contains("grpc-status") && exposed.contains("grpc-message"));

    for origin in [
        "https://evil.example",
        "null",
        "https://app.example.com.evil.example",
    ] {
        let refused = http1(server.grpc, &web_call(origin, "jammi-session-id: s1\r\n")).await;
        assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
        assert!(refused.contains("x-request-id"), "{refused}");
        assert!(!refused.contains(ALICE), "{refused}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_by_the_name_of_the_limit() {
    let server = TestServer::start_with(|config| {
        config.server.message_bytes_max = 64 << 10;
        config.server.header_bytes_max = 8 << 10;
    })
    .await;
    let mut client = server.sessions().await;
    let long = "x".repeat(100 << 10);
    let refusal = bind(&mut client, "s1", &long).await.unwrap_err();
    assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal:?}");
    assert!(refusal.message().contains("server.message_bytes_max"));

    let mut request = in_session("s1", GetTenantRequest {});
    let padding = "x".repeat(16 << 10);
    let metadata = request.metadata_mut();
    metadata.insert("padding", padding.parse().unwrap());
    assert!(client.get_tenant(request).await.is_err());
    // The server goes on.
    bind(&mut server.sessions().await, "s1", ALICE)
        .await
        .unwrap();
    server.stop().await;
}

#[tokio::test]
async fn connections_are_limited_and_silent_ones_dropped() {
    let server = TestServer::start_with(|config| {
        config.server.connections_max = 1;
        config.server.first_bytes_timeout_ms = 300;
    })
    .await;
    let mut silent = TcpStream::connect(server.grpc).await.unwrap();
    let mut one_too_many = TcpStream::connect(server.grpc).await.unwrap();
    // Both are closed: the second at once, the first for its silence.
    let mut answer = Vec::new();
    let _ = one_too_many.read_to_end(&mut answer).await;
    let _ = silent.read_to_end(&mut answer).await;
    assert!(answer.is_empty());
    let endpoint = format!("http://{}", server.grpc);
    // The place of the first one is free again, once its end was noticed.
    let mut client = loop {
        if let Ok(client) = SessionServiceClient::connect(endpoint.clone()).await {
            break client;
        }
    };
    while bind(&mut client, "s1", ALICE).await.is_err() {}
    server.stop().await;
}

#[tokio::test]
async fn health_is_told_in_three_ways() {
    let server = TestServer::start().await;
    let mut health = HealthClient::new(server.channel().await);
    for service in ["", "jammi.v1.session.SessionService"] {
        let service = service.to_owned();
        let answer = health.check(HealthCheckRequest { service }).await.unwrap();
        assert_eq!(answer.get_ref().status(), ServingStatus::Serving);
    }
    assert!(server.page("/healthz").await.0.contains("200"));
    assert!(server.page("/readyz").await.0.contains("200"));
    assert!(server.page("/nothing").await.0.contains("404"));
    server.stop().await;
}

#[tokio::test]
async fn metrics_count_by_method_and_name_no_tenant() {
    let server = TestServer::start().await;
    let mut client = server.sessions().await;
    bind(&mut client, "secret-session", ALICE).await.unwrap();
    let (status, metrics) = server.page("/metrics").await;
    assert!(status.contains("200"));
    for name in [
        "jammi_requests_total{method=\"/jammi.v1.session.SessionService/SetTenant\",code=\"OK\"}",
        "jammi_request_seconds_bucket",
        "jammi_sessions_bound",
        "jammi_session_binds_total",
        "jammi_connections",
    ] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
    for secret in [ALICE, "secret-session"] {
        assert!(!metrics.contains(secret), "{metrics}");
    }
    server.stop().await;
}

pub fn list_services() -> ServerReflectionRequest {
    ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    }
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let server = TestServer::start().await;
    let mut client = ServerReflectionClient::new(server.channel().await);
    let asked = tokio_stream::once(list_services());
    let mut answers = client
        .server_reflection_info(asked)
        .await
        .unwrap()
        .into_inner();
    let answer = answers.next().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(listed)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: BTreeSet<String> = listed.service.into_iter().map(|one| one.name).collect();
    for name in [
        "jammi.v1.session.SessionService",
        "jammi.v1.catalog.CatalogService",
        "jammi.v1.operator.OperatorService",
        "grpc.health.v1.Health",
    ] {
        assert!(names.contains(name), "{names:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_stopping_server_says_so_and_lets_requests_end() {
    let server = TestServer::start().await;
    let (http, mut health) = (server.http, HealthClient::new(server.channel().await));
    let mut watch = health
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    let first = watch.next().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    // A request that runs for as long as the test likes.
    let (ask, asked) = mpsc::channel(1);
    let mut reflection = ServerReflectionClient::new(server.channel().await);
    let running = reflection.server_reflection_info(ReceiverStream::new(asked));
    ask.send(list_services()).await.unwrap();
    let mut running = running.await.unwrap().into_inner();
    running.next().await.unwrap().unwrap();

    let (serving, _dir) = server.begin_stop();
    let last = watch.next().await.unwrap().unwrap();
    assert_eq!(last.status(), ServingStatus::NotServing);
    assert!(watch.next().await.is_none());
    let probe = b"GET /readyz HTTP/1.1\r\nhost: jammi\r\nconnection: close\r\n\r\n";
    assert!(http1(http, probe).await.starts_with("HTTP/1.1 503"));
    // It still runs, and is answered.
    ask.send(list_services()).await.unwrap();
    running.next().await.unwrap().unwrap();
    assert!(!serving.is_finished());
    drop(ask);
    assert!(running.next().await.is_none());
    drop(reflection);
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_outlives_the_drain_is_cut_off() {
    let server = TestServer::start_with(|config| config.server.drain_timeout_ms = 50).await;
    let (ask, asked) = mpsc::channel(1);
    let mut reflection = ServerReflectionClient::new(server.channel().await);
    let running = reflection.server_reflection_info(ReceiverStream::new(asked));
    ask.send(list_services()).await.unwrap();
    let mut running = running.await.unwrap().into_inner();
    running.next().await.unwrap().unwrap();
    server.stop().await;
    assert!(!matches!(running.next().await, Some(Ok(_))));
}

#[tokio::test]
async fn two_servers_share_neither_a_port_nor_a_directory() {
    let server = TestServer::start().await;
    let same_dir = config(server.dir());
    let engine = Engine::open(&same_dir).await.unwrap();
    let Err(refusal) = Server::bind(same_dir, engine).await else {
        panic!("two servers use one directory");
    };
    assert!(
        refusal.to_string().contains("artifact directory"),
        "{refusal}"
    );

    let other = tempfile::tempdir().unwrap();
    for (key, flag) in [
        ("server.listen", "--listen"),
        ("server.http_listen", "--http-listen"),
    ] {
        let mut same_port = config(other.path());
        match key {
            "server.listen" => same_port.server.listen = server.grpc.to_string(),
            _ => same_port.server.http_listen = server.grpc.to_string(),
        }
        let engine = Engine::open(&same_port).await.unwrap();
        match Server::bind(same_port, engine).await {
            Err(Error::FailedPrecondition(text)) => {
                for part in [&server.grpc.to_string(), key, flag, "in use"] {
                    assert!(text.contains(part), "{part}: {text}");
                }
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("two servers listen on one port"),
        }
    }
    server.stop().await;
}
