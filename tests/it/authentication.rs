//! Credentials at the wire: who may ask at all, and as which tenant.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BufMut};
use jammi_db::auth::{ApiKeys, IssuedKey, NewApiKey, NewUser, Users};
use jammi_db::backend::Backend;
use jammi_db::config::{AuthenticationMethod, JammiConfig, LanesConfig};
use jammi_db::server::method_names;
use jammi_db::server::proto::session::GetTenantRequest;
use jammi_db::tenant::{ActsFor, GLOBAL_WRITER};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::client::{ALICE, BOB, Client, statement};
use crate::harness::{TestServer, http1, in_session, set_tenant};
use crate::writes::refused;

const NOW_MS: i64 = 1_700_000_000_000;
/// Of wrong credentials, where they are not what is tested.
pub const ANY_NUMBER: u32 = 1 << 20;

/// A server that asks for keys, and those who make them.
pub struct Guarded {
    pub server: TestServer,
    pub keys: ApiKeys,
}

impl Guarded {
    pub async fn start() -> Self {
        Guarded::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut JammiConfig)) -> Self {
        let server = TestServer::start_with(|config| {
            config.auth.methods = vec![AuthenticationMethod::ApiKey];
            config.auth.failures_max = ANY_NUMBER;
            change(config);
        })
        .await;
        // As the command does it, beside the server.
        let lanes = LanesConfig::default();
        let backend = Backend::open(server.dir(), &lanes).await.unwrap();
        let keys = ApiKeys::new(backend, || NOW_MS);
        Guarded { server, keys }
    }

    pub async fn key(&self, user: &str, tenants: &[&str], roles: &[&str]) -> IssuedKey {
        let new = NewApiKey {
            user: user.into(),
            acts_for: ActsFor::only(tenants.iter().map(|tenant| tenant.parse().unwrap())),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            expires_at_ms: None,
        };
        self.keys.create(new).await.unwrap()
    }

    pub async fn client(&self, key: &IssuedKey, session: Option<&'static str>) -> Client {
        Client::connect(&self.server, session)
            .await
            .holding(&key.text)
    }
}

pub fn bearer(text: &str) -> String {
    format!("Bearer {text}")
}

pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// What any method answers to a request without a body.
pub async fn call(channel: &Channel, method: &str, authorization: Option<&str>) -> Status {
    let mut request = Request::new(Vec::new());
    if let Some(authorization) = authorization {
        let value: MetadataValue<Ascii> = authorization.parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    answer(channel, method, request).await
}

/// What any method answers to a request whose message is encoded.
pub async fn answer(channel: &Channel, method: &str, request: Request<Vec<u8>>) -> Status {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = PathAndQuery::try_from(method).unwrap();
    match grpc.server_streaming(request, path, Encoded).await {
        Ok(answer) => match answer.into_inner().message().await {
            Ok(_) => Status::ok(""),
            Err(status) => status,
        },
        Err(status) => status,
    }
}

/// Messages that are encoded already, and answers that nobody reads.
struct Encoded;

impl Codec for Encoded {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Encoded;
    type Decoder = Encoded;

    fn encoder(&mut self) -> Encoded {
        Encoded
    }

    fn decoder(&mut self) -> Encoded {
        Encoded
    }
}

impl Encoder for Encoded {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        buffer.advance(buffer.remaining());
        Ok(Some(()))
    }
}

#[tokio::test]
async fn every_rpc_asks_for_a_credential_but_health_and_reflection() {
    let guarded = Guarded::start().await;
    let right = guarded.key("alice", &[ALICE], &[]).await;
    let revoked = guarded.key("alice", &[ALICE], &[]).await;
    guarded.keys.revoke(&revoked.key.id).await.unwrap();
    let over = guarded.key("alice", &[ALICE], &[]).await;
    let next = guarded.keys.rotate(&over.key.id, NOW_MS).await.unwrap();
    let unknown = right.text.replace(&right.key.id, "0123456789ab");
    let bad = [
        bearer(&unknown),
        bearer(&revoked.text),
        bearer(&over.text),
        bearer("none"),
        basic("bob", &right.text),
        basic("alice", "secret"),
        "Digest x".to_owned(),
    ];
    let channel = guarded.server.channel().await;
    for method in method_names() {
        let is_exempt = method.starts_with("/grpc.health.") || method.contains("Reflection");
        let absent = call(&channel, method, None).await;
        assert_eq!(
            absent.code() == Code::Unauthenticated,
            !is_exempt,
            "{method}: {absent:?}"
        );
        for authorization in &bad {
            let answer = call(&channel, method, Some(authorization)).await;
            if is_exempt {
                assert_ne!(answer.code(), Code::Unauthenticated, "{method}");
                continue;
            }
            // The same words whatever is wrong.
            assert_eq!(
                answer.code(),
                Code::Unauthenticated,
                "{method} {authorization}"
            );
            let text = "the request's credential is not accepted: send a valid one";
            assert_eq!(answer.message(), text, "{method} {authorization}");
        }
        for key in [&right, &next] {
            for authorization in [bearer(&key.text), basic("alice", &key.text)] {
                let answer = call(&channel, method, Some(&authorization)).await;
                assert_ne!(answer.code(), Code::Unauthenticated, "{method}: {answer:?}");
            }
        }
    }
    // A browser is asked too.
    let request = "POST /jammi.v1.session.SessionService/GetTenant HTTP/1.1\r\nhost: jammi\r\n\
                   content-type: application/grpc-web+proto\r\nconnection: close\r\n\
                   content-length: 5\r\n\r\n\0\0\0\0\0";
    let answer = http1(guarded.server.grpc, request.as_bytes()).await;
    assert!(
        answer.contains("grpc-status: 16") || answer.contains("grpc-status:16"),
        "{answer}"
    );
    let (_, metrics) = guarded.server.page("/metrics").await;
    let counted = "jammi_authentication_failures_total{reason=\"refused\"}";
    assert!(metrics.contains(counted), "{metrics}");
}

pub fn words(rows: &RecordBatch) -> Vec<&str> {
    let words = rows.column_by_name("word").unwrap();
    words.as_string::<i32>().iter().flatten().collect()
}

#[tokio::test]
async fn a_key_reads_and_writes_for_its_tenants_alone() {
    let guarded = Guarded::start().await;
    let alices = guarded.key("alice", &[ALICE], &[]).await;
    let bobs = guarded.key("bob", &[BOB], &[]).await;
    let writers = guarded.key("writer", &[], &[GLOBAL_WRITER]).await;
    let boths = guarded.key("both", &[ALICE, BOB], &[]).await;

    // Whoever acts for one tenant is bound to it without asking.
    let mut writer = guarded.client(&writers, None).await;
    writer
        .query("CREATE TABLE shared (word TEXT)")
        .await
        .unwrap();
    writer
        .query("INSERT INTO shared VALUES ('everybodys')")
        .await
        .unwrap();
    for (key, word) in [(&alices, "hers"), (&bobs, "canary")] {
        let mut client = guarded.client(key, None).await;
        client.query("CREATE TABLE t (word TEXT)").await.unwrap();
        for table in ["t", "shared"] {
            let insert = format!("INSERT INTO {table} VALUES ('{word}')");
            client.query(&insert).await.unwrap();
        }
        let rows = client.query("SELECT word FROM t").await.unwrap();
        assert_eq!(words(&rows), [word]);
    }

    // And to no other, by whichever door, whether or not anybody is there.
    let mut alice = guarded.client(&alices, Some("s")).await;
    for tenant in [BOB, "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8eff"] {
        let request = alice.request(set_tenant(tenant));
        let denied = alice.sessions.set_tenant(request).await.unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied);
        let by_sql = format!("SET app.current_tenant_id = '{tenant}'");
        let by_sql = alice.query(&by_sql).await.unwrap_err();
        let text = "the credential does not act for the tenant: bind one that it acts for";
        for denied in [denied, by_sql] {
            assert_eq!(
                (denied.code(), denied.message()),
                (Code::PermissionDenied, text)
            );
        }
    }
    let rows = alice
        .query("SELECT word FROM shared ORDER BY word")
        .await
        .unwrap();
    assert_eq!(words(&rows), ["everybodys", "hers"]);

    // A session id means nothing under another key, and neither do its tickets.
    alice.bind(ALICE).await;
    let info = alice.info(&statement("SELECT word FROM t")).await.unwrap();
    let mut bob = guarded.client(&bobs, Some("s")).await;
    let rows = bob.query("SELECT word FROM t").await.unwrap();
    assert_eq!(words(&rows), ["canary"]);
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    refused(
        bob.get(ticket.clone()).await,
        Code::FailedPrecondition,
        "another session",
    );
    assert_eq!(words(&alice.get(ticket).await.unwrap()[0]), ["hers"]);

    // Whoever acts for several says for which, and until then reads what is shared
    // and writes nothing.
    let mut both = guarded.client(&boths, Some("both")).await;
    let rows = both.query("SELECT word FROM shared").await.unwrap();
    assert_eq!(words(&rows), ["everybodys"]);
    refused(
        both.query("SELECT word FROM t").await,
        Code::NotFound,
        "does not exist",
    );
    for sql in [
        "INSERT INTO shared VALUES ('theirs')",
        "UPDATE shared SET word = 'theirs'",
        "DELETE FROM shared",
        "TRUNCATE TABLE shared",
        "DROP TABLE shared",
        "CREATE TABLE more (word TEXT)",
        "CREATE VIEW more AS SELECT 1 AS one",
        "CREATE TEMPORARY TABLE more (word TEXT)",
    ] {
        refused(both.query(sql).await, Code::PermissionDenied, GLOBAL_WRITER);
    }
    for (tenant, word) in [(ALICE, "hers"), (BOB, "canary")] {
        both.bind(tenant).await;
        let rows = both.query("SELECT word FROM t").await.unwrap();
        assert_eq!(words(&rows), [word]);
    }
    // A role over what is shared is none over a tenant.
    let mut writer = guarded.client(&writers, Some("writer")).await;
    let request = writer.request(set_tenant(ALICE));
    refused(
        writer.sessions.set_tenant(request).await,
        Code::PermissionDenied,
        "does not act",
    );
    let rows = writer.query("SELECT word FROM shared").await.unwrap();
    assert_eq!(words(&rows), ["everybodys"]);
}

/// What a key may do may become less while its user's sessions last.
#[tokio::test]
async fn a_binding_ends_with_the_right_to_it() {
    let guarded = Guarded::start().await;
    let (alices, bobs) = (
        guarded.key("owner", &[ALICE], &[]).await,
        guarded.key("other", &[BOB], &[]).await,
    );
    for (key, word) in [(&alices, "hers"), (&bobs, "canary")] {
        let mut client = guarded.client(key, None).await;
        client.query("CREATE TABLE t (word TEXT)").await.unwrap();
        client
            .query(&format!("INSERT INTO t VALUES ('{word}')"))
            .await
            .unwrap();
    }
    let wide = guarded.key("carol", &[ALICE, BOB], &[]).await;
    let narrow = guarded.key("carol", &[ALICE], &[]).await;
    let mut carol = guarded.client(&wide, Some("carol")).await;
    carol.bind(BOB).await;
    let rows = carol.query("SELECT word FROM t").await.unwrap();
    assert_eq!(words(&rows), ["canary"]);
    let info = carol.info(&statement("SELECT word FROM t")).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();

    // The session is hers still, and its tenant is not.
    let mut carol = guarded.client(&narrow, Some("carol")).await;
    for answer in [
        carol.query("SELECT word FROM t").await,
        carol.query("SELECT 1").await,
    ] {
        refused(
            answer,
            Code::PermissionDenied,
            "does not act for the tenant",
        );
    }
    let fetched = carol.get(ticket).await;
    assert!(fetched.is_err(), "{fetched:?}");
    let asked = carol
        .sessions
        .get_tenant(carol.request(GetTenantRequest {}))
        .await;
    assert_eq!(asked.unwrap().into_inner().tenant, None);
    carol.bind(ALICE).await;
    let rows = carol.query("SELECT word FROM t").await.unwrap();
    assert_eq!(words(&rows), ["hers"]);

    // One that is revoked is not heard at all.
    guarded.keys.revoke(&narrow.key.id).await.unwrap();
    let refused = carol.query("SELECT word FROM t").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

/// Clients that have users and passwords shake hands first, and go on by a token.
#[tokio::test]
async fn a_handshake_gives_a_token() {
    let guarded = Guarded::start().await;
    let key = guarded.key("alice", &[ALICE], &[]).await;
    let client = Client::connect(&guarded.server, None).await;
    let mut flight = client.flight.clone();
    let mut shake = async |authorization: String| {
        let mut request = Request::new(futures::stream::empty());
        let value: MetadataValue<Ascii> = authorization.parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        let answer = flight.handshake(request).await?;
        let token = answer.metadata().get("authorization").unwrap();
        Ok::<_, Status>(token.to_str().unwrap().to_owned())
    };
    let token = shake(basic("alice", &key.text)).await.unwrap();
    assert_eq!(token, bearer(&key.text));
    assert_eq!(shake(token).await.unwrap(), bearer(&key.text));
    let wrong = shake(basic("bob", &key.text)).await;
    assert_eq!(wrong.unwrap_err().code(), Code::Unauthenticated);
}

/// Users sign in by passwords of their own, on each call or once.
#[tokio::test]
async fn a_password_reads_and_writes_for_its_tenants_alone() {
    let server = TestServer::start_with(|config| {
        config.auth.methods = vec![AuthenticationMethod::ApiKey, AuthenticationMethod::Password];
        config.auth.password.failures_max = 3;
        config.auth.failures_max = ANY_NUMBER;
    })
    .await;
    let backend = Backend::open(server.dir(), &LanesConfig::default()).await;
    let backend = backend.unwrap();
    let users = Users::new(backend.clone(), || NOW_MS);
    let tenants = [("alice", ALICE, "hers"), ("bob", BOB, "canary")];
    let password = |user: &str| format!("{user}'s own password");
    for (name, tenant, _) in tenants {
        let new = NewUser {
            name: name.into(),
            acts_for: ActsFor::only([tenant.parse().unwrap()]),
            roles: Default::default(),
        };
        users.create(new, &password(name)).await.unwrap();
    }
    let by_password = async |user: &str| {
        let client = Client::connect(&server, Some("s")).await;
        client.sending(basic(user, &password(user)))
    };
    let shake = async |user: &str, secret: &str| {
        let mut flight = Client::connect(&server, None).await.flight;
        let mut request = Request::new(futures::stream::empty());
        let value: MetadataValue<Ascii> = basic(user, secret).parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        let answer = flight.handshake(request).await?;
        let token = answer.metadata().get("authorization").unwrap();
        Ok::<_, Status>(token.to_str().unwrap().to_owned())
    };
    for (user, _, word) in tenants {
        let mut client = by_password(user).await;
        client.query("CREATE TABLE t (word TEXT)").await.unwrap();
        let insert = format!("INSERT INTO t VALUES ('{word}')");
        client.query(&insert).await.unwrap();
    }
    let mut signed_in = Vec::new();
    for (user, _, word) in tenants {
        let token = shake(user, &password(user)).await.unwrap();
        assert!(!token.contains("password"), "{token}");
        let client = Client::connect(&server, Some("s")).await;
        let by_token = client.sending(token);
        for mut client in [by_token.clone(), by_password(user).await] {
            let rows = client.query("SELECT word FROM t").await.unwrap();
            assert_eq!(words(&rows), [word]);
        }
        signed_in.push(by_token);
    }
    let mut alice = by_password("alice").await;
    let request = alice.request(set_tenant(BOB));
    refused(
        alice.sessions.set_tenant(request).await,
        Code::PermissionDenied,
        "does not act for the tenant",
    );

    // Keys are accepted beside passwords, and wrong ones of either kind are not.
    let keys = ApiKeys::new(backend, || NOW_MS);
    let new = NewApiKey {
        user: "alice".into(),
        acts_for: ActsFor::only([ALICE.parse().unwrap()]),
        roles: Default::default(),
        expires_at_ms: None,
    };
    let key = keys.create(new).await.unwrap().text;
    let channel = server.channel().await;
    let edited = shake("alice", &password("alice")).await.unwrap() + "A";
    for method in method_names() {
        let is_exempt = method.starts_with("/grpc.health.") || method.contains("Reflection");
        for (authorization, is_let_in) in [
            (None, false),
            (Some(edited.clone()), false),
            (Some(basic("alice", "short")), false),
            (Some(basic("bob", &key)), false),
            (Some(basic("alice", &key)), true),
            (Some(basic("alice", &password("alice"))), true),
        ] {
            let answer = call(&channel, method, authorization.as_deref()).await;
            let is_unknown = answer.code() == Code::Unauthenticated;
            assert_eq!(
                is_unknown,
                !(is_exempt || is_let_in),
                "{method} {authorization:?}: {answer:?}"
            );
        }
    }
    for (user, secret) in [("alice", password("bob")), ("nobody", password("bob"))] {
        for _ in 0..3 {
            let wrong = shake(user, &secret).await.unwrap_err();
            assert_eq!(wrong.code(), Code::Unauthenticated);
            let text = "the request's credential is not accepted: send a valid one";
            assert_eq!(wrong.message(), text);
        }
        refused(
            shake(user, &secret).await,
            Code::ResourceExhausted,
            "in a minute",
        );
    }
    // Whoever is signed in goes on, until the password is another.
    users
        .set_password("bob", "bob's new password")
        .await
        .unwrap();
    let [mut alice, mut bob]: [Client; 2] = signed_in.try_into().ok().unwrap();
    alice.query("SELECT 1").await.unwrap();
    by_password("alice").await.query("SELECT 1").await.unwrap();
    refused(
        bob.query("SELECT 1").await,
        Code::Unauthenticated,
        "not accepted",
    );
    refused(
        by_password("bob").await.query("SELECT 1").await,
        Code::Unauthenticated,
        "not accepted",
    );
}

/// A server of the library asks whom its user says.
#[tokio::test]
async fn an_extension_of_ones_own_says_who_asks() {
    use async_trait::async_trait;
    use jammi_db::TenantId;
    use jammi_db::auth::{AuthenticationError, Credentials, TenantExtension};
    use jammi_db::engine::Engine;
    use jammi_db::server::Server;
    use jammi_db::server::proto::session::session_service_client::SessionServiceClient;
    use jammi_db::tenant::Principal;

    struct Gateway;

    #[async_trait]
    impl TenantExtension for Gateway {
        async fn authenticate(
            &self,
            credentials: &Credentials<'_>,
        ) -> Result<Principal, AuthenticationError> {
            assert!(credentials.peer().unwrap().ip().is_loopback());
            let named = credentials.header("x-gateway-tenant")?;
            let tenant = named.ok_or(AuthenticationError::Absent)?;
            let tenant = tenant.parse().map_err(|_| AuthenticationError::Refused)?;
            Ok(Principal::new("gateway", "any", ActsFor::only([tenant])))
        }

        async fn list_tenants(&self) -> jammi_db::error::Result<Vec<TenantId>> {
            Ok(Vec::new())
        }
    }

    let dir = tempfile::tempdir().unwrap();
    let config = crate::harness::config(dir.path());
    let engine = Engine::open(&config).await.unwrap();
    let server = Server::bind(config, engine).await.unwrap();
    let server = server.with_extension(Arc::new(Gateway));
    let address = format!("http://{}", server.grpc_addr());
    tokio::spawn(server.serve(std::future::pending()));
    let channel = Channel::from_shared(address)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut sessions = SessionServiceClient::new(channel);
    for (tenant, code) in [
        (Some(ALICE), Code::Ok),
        (Some(BOB), Code::Ok),
        (Some("x"), Code::Unauthenticated),
        (None, Code::Unauthenticated),
    ] {
        let mut request = in_session("s", GetTenantRequest {});
        if let Some(tenant) = tenant {
            let tenant = tenant.parse().unwrap();
            request.metadata_mut().insert("x-gateway-tenant", tenant);
        }
        match sessions.get_tenant(request).await {
            Ok(answer) => {
                assert_eq!(code, Code::Ok);
                assert_eq!(answer.into_inner().tenant.unwrap().id, tenant.unwrap());
            }
            Err(status) => assert_eq!(status.code(), code),
        }
    }
}
