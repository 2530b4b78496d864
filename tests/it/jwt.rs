//! Tokens of an issuer at the wire: whom they prove, and every way to be wrong.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jammi_db::auth::JwtAlgorithm;
use jammi_db::config::{AuthenticationMethod, JammiConfig, JwtConfig};
use jammi_db::server::method_names;
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use tonic::Code;

use crate::authentication::{ANY_NUMBER, bearer, call, words};
use crate::client::{ALICE, BOB, Client};
use crate::harness::{TestServer, set_tenant};
use crate::tls::eventually;
use crate::writes::refused;

pub const ISSUER: &str = "https://issuer.example.com";
const REFUSED: &str = "the request's credential is not accepted: send a valid one";

/// Who signs tokens.
pub struct Issuer {
    id: &'static str,
    key: Key,
}

enum Key {
    Secret(Vec<u8>),
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

impl Issuer {
    pub fn ed25519(id: &'static str) -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = Key::Ed25519(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap());
        Issuer { id, key }
    }

    fn p256(id: &'static str) -> Self {
        let (kind, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let key = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        let key = Key::P256(EcdsaKeyPair::from_pkcs8(kind, key.as_ref(), &random).unwrap());
        Issuer { id, key }
    }

    fn secret(id: &'static str, secret: &[u8]) -> Self {
        let key = Key::Secret(secret.to_vec());
        Issuer { id, key }
    }

    fn algorithm(&self) -> &'static str {
        match self.key {
            Key::Secret(_) => "HS256",
            Key::Ed25519(_) => "EdDSA",
            Key::P256(_) => "ES256",
        }
    }

    fn public(&self) -> Vec<u8> {
        match &self.key {
            Key::Secret(secret) => secret.clone(),
            Key::Ed25519(key) => key.public_key().as_ref().to_vec(),
            Key::P256(key) => key.public_key().as_ref().to_vec(),
        }
    }

    fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let public = self.public();
        match &self.key {
            Key::Secret(secret) => json!({"kty": "oct", "kid": self.id, "k": text(secret)}),
            Key::Ed25519(_) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "x": text(&public)})
            }
            Key::P256(_) => json!({
                "kty": "EC", "crv": "P-256", "kid": self.id, "use": "sig",
                "x": text(&public[1..33]), "y": text(&public[33..]),
            }),
        }
    }

    pub fn header(&self) -> Value {
        json!({"alg": self.algorithm(), "typ": "JWT", "kid": self.id})
    }

    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = match &self.key {
            Key::Secret(secret) => {
                let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
                ring::hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
            }
            Key::Ed25519(key) => key.sign(message.as_bytes()).as_ref().to_vec(),
            Key::P256(key) => {
                let signed = key.sign(&SystemRandom::new(), message.as_bytes());
                signed.unwrap().as_ref().to_vec()
            }
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    pub fn token(&self, user: &str, tenants: Value) -> String {
        self.sign(&self.header(), &claims(user, tenants))
    }
}

pub fn now_secs() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs() as i64
}

pub fn claims(user: &str, tenants: Value) -> Value {
    json!({
        "iss": ISSUER, "aud": "jammi", "sub": user, "tenants": tenants,
        "exp": now_secs() + 3_600,
    })
}

pub fn set(issuers: &[&Issuer]) -> String {
    let keys: Vec<Value> = issuers.iter().map(|issuer| issuer.jwk()).collect();
    json!({"keys": keys}).to_string()
}

pub fn by_tokens(config: &mut JammiConfig, algorithms: &[JwtAlgorithm]) {
    config.auth.methods = vec![AuthenticationMethod::Jwt, AuthenticationMethod::ApiKey];
    config.auth.jwt = JwtConfig {
        issuer: Some(ISSUER.into()),
        audiences: vec!["other".into(), "jammi".into()],
        algorithms: algorithms.to_vec(),
        ..JwtConfig::default()
    };
}

/// A server that takes tokens by the keys of a file.
async fn guarded(
    file: &Path,
    algorithms: &[JwtAlgorithm],
    change: impl FnOnce(&mut JwtConfig),
) -> TestServer {
    TestServer::start_with(|config| {
        by_tokens(config, algorithms);
        config.auth.jwt.keys_file = Some(file.to_owned());
        config.auth.failures_max = ANY_NUMBER;
        change(&mut config.auth.jwt);
    })
    .await
}

async fn client(server: &TestServer, token: &str, session: Option<&'static str>) -> Client {
    Client::connect(server, session).await.holding(token)
}

#[tokio::test]
async fn a_token_reads_and_writes_for_its_tenants_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (issuer, other) = (Issuer::ed25519("one"), Issuer::p256("two"));
    let file = dir.path().join("keys.json");
    std::fs::write(&file, set(&[&issuer, &other])).unwrap();
    let algorithms = [JwtAlgorithm::EdDSA, JwtAlgorithm::ES256];
    let server = guarded(&file, &algorithms, |jwt| {
        jwt.roles = vec!["global-writer".into()];
        jwt.roles_claim = "realm_access.roles".into();
    })
    .await;
    let alices = issuer.token("alice", json!(ALICE));
    let bobs = other.token("bob", json!([BOB]));
    for (token, word) in [(&alices, "hers"), (&bobs, "canary")] {
        let mut client = client(&server, token, Some("s")).await;
        client.query("CREATE TABLE t (word TEXT)").await.unwrap();
        let insert = format!("INSERT INTO t VALUES ('{word}')");
        client.query(&insert).await.unwrap();
    }
    for (token, word) in [(&alices, "hers"), (&bobs, "canary")] {
        let mut client = client(&server, token, Some("s")).await;
        let rows = client.query("SELECT word FROM t").await.unwrap();
        assert_eq!(words(&rows), [word]);
    }
    let mut alice = client(&server, &alices, Some("s")).await;
    let denied = alice
        .sessions
        .set_tenant(alice.request(set_tenant(BOB)))
        .await;
    refused(
        denied,
        Code::PermissionDenied,
        "does not act for the tenant",
    );

    // Of roles, those that are accepted.
    let mut writers = claims("writer", json!([]));
    writers["realm_access"] = json!({"roles": ["admin", "global-writer"]});
    let writers = issuer.sign(&issuer.header(), &writers);
    let mut writer = client(&server, &writers, None).await;
    writer
        .query("CREATE TABLE shared (word TEXT)")
        .await
        .unwrap();
    let several = issuer.token("alice", json!([ALICE, BOB]));
    let mut both = client(&server, &several, Some("both")).await;
    refused(
        both.query("INSERT INTO shared VALUES ('x')").await,
        Code::PermissionDenied,
        "global-writer",
    );
    both.bind(BOB).await;
    let rows = both.query("SELECT word FROM t").await.unwrap();
    assert_eq!(words(&rows), ["canary"]);
}

#[tokio::test]
async fn whatever_is_wrong_with_a_token_is_answered_alike() {
    let dir = tempfile::tempdir().unwrap();
    let (issuer, other, stranger) = (
        Issuer::ed25519("one"),
        Issuer::p256("two"),
        Issuer::ed25519("one"),
    );
    let file = dir.path().join("keys.json");
    std::fs::write(&file, set(&[&issuer, &other])).unwrap();
    let server = guarded(&file, &[JwtAlgorithm::EdDSA], |_| {}).await;
    let right = issuer.token("alice", json!(ALICE));
    let with = |name: &str, value: Value| {
        let mut claims = claims("alice", json!(ALICE));
        claims[name] = value;
        issuer.sign(&issuer.header(), &claims)
    };
    let without = |name: &str| {
        let mut claims = claims("alice", json!(ALICE));
        claims.as_object_mut().unwrap().remove(name);
        issuer.sign(&issuer.header(), &claims)
    };
    let headed = |header: Value| issuer.sign(&header, &claims("alice", json!(ALICE)));
    let unsigned = |header: Value| {
        let signed = headed(header);
        format!("{}.", signed.rsplit_once('.').unwrap().0)
    };
    let now = now_secs();
    let [header, payload, signature]: [&str; 3] =
        right.split('.').collect::<Vec<_>>().try_into().unwrap();
    let bobs = claims("alice", json!(BOB)).to_string();
    let edited = format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(bobs));
    let by_public_key = Issuer::secret("one", &issuer.public());
    let wrong = [
        ("no signature", unsigned(issuer.header())),
        ("none", unsigned(json!({"alg": "none"}))),
        ("None", headed(json!({"alg": "None"}))),
        (
            "a public key as the secret",
            by_public_key.token("alice", json!(ALICE)),
        ),
        (
            "a key of another algorithm",
            other.token("alice", json!(ALICE)),
        ),
        ("another's key", stranger.token("alice", json!(ALICE))),
        (
            "a key that is not known",
            headed(json!({"alg": "EdDSA", "kid": "three"})),
        ),
        ("no algorithm", headed(json!({"kid": "one"}))),
        (
            "crit",
            headed(json!({"alg": "EdDSA", "crit": ["b64"], "b64": false})),
        ),
        (
            "a token of another type",
            headed(json!({"alg": "EdDSA", "typ": "dpop+jwt"})),
        ),
        ("edited", edited),
        ("a signature with padding", format!("{right}=")),
        (
            "a signature that is cut",
            right[..right.len() - 2].to_owned(),
        ),
        ("four parts", format!("{right}.{payload}")),
        ("expired", with("exp", json!(now - 31))),
        ("no end", without("exp")),
        (
            "an end that is a text",
            with("exp", json!((now + 60).to_string())),
        ),
        ("not yet", with("nbf", json!(now + 600))),
        ("a beginning that is a text", with("nbf", json!("0"))),
        (
            "another issuer",
            with("iss", json!("https://issuer.example.com/")),
        ),
        ("no issuer", without("iss")),
        ("another audience", with("aud", json!("jammi2"))),
        ("other audiences", with("aud", json!(["a", "b"]))),
        ("no audience", without("aud")),
        ("no user", without("sub")),
        ("a user that is a number", with("sub", json!(7))),
        ("an empty user", with("sub", json!(""))),
        ("no tenants", without("tenants")),
        (
            "tenants that are none",
            with("tenants", json!([ALICE, "x"])),
        ),
        (
            "tenants of another form",
            with("tenants", json!({"id": ALICE})),
        ),
        ("any tenant", with("tenants", json!("*"))),
        ("roles of another form", with("roles", json!(1))),
    ];
    let channel = server.channel().await;
    let method = "/jammi.v1.session.SessionService/GetTenant";
    for (what, token) in &wrong {
        let answer = call(&channel, method, Some(&bearer(token))).await;
        assert_eq!(answer.code(), Code::Unauthenticated, "{what}");
        assert_eq!(answer.message(), REFUSED, "{what}");
    }
    let unnamed = headed(json!({"alg": "EdDSA"}));
    for (what, token) in [
        ("right", right.clone()),
        ("of several audiences", with("aud", json!(["a", "jammi"]))),
        (
            "over since less than the leeway",
            with("exp", json!(now - 5)),
        ),
        (
            "with a fraction",
            with("exp", json!((now + 60) as f64 + 0.5)),
        ),
        ("without the key's name", unnamed),
        (
            "an access token",
            headed(json!({"alg": "EdDSA", "typ": "at+JWT"})),
        ),
    ] {
        let answer = call(&channel, method, Some(&bearer(&token))).await;
        assert_ne!(answer.code(), Code::Unauthenticated, "{what}: {answer:?}");
    }
    // At every door.
    let expired = with("exp", json!(now - 31));
    for method in method_names() {
        let is_exempt = method.starts_with("/grpc.health.") || method.contains("Reflection");
        for (authorization, is_let_in) in [
            (None, false),
            (Some(bearer("none")), false),
            (Some(bearer(&expired)), false),
            (Some(bearer(&right)), true),
        ] {
            let answer = call(&channel, method, authorization.as_deref()).await;
            let is_unknown = answer.code() == Code::Unauthenticated;
            assert_eq!(
                is_unknown,
                !(is_exempt || is_let_in),
                "{method}: {answer:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_secret_is_no_public_key_and_the_other_way_round() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    let secret = b"0123456789abcdef0123456789abcdef";
    std::fs::write(&file, [secret, &b"\n"[..]].concat()).unwrap();
    let server = guarded(&file, &[JwtAlgorithm::HS256], |jwt| jwt.all_tenants = true).await;
    let token = Issuer::secret("x", secret).token("alice", json!("*"));
    let mut alice = client(&server, &token, Some("s")).await;
    alice.bind(BOB).await;
    alice.query("SELECT 1").await.unwrap();
    let wrong = Issuer::secret("x", b"another secret of as many bytes.").token("alice", json!("*"));
    let mut wrong = client(&server, &wrong, None).await;
    refused(
        wrong.query("SELECT 1").await,
        Code::Unauthenticated,
        REFUSED,
    );

    // A file that is read again, as a secret that is changed.
    let next = b"a secret that was made just now!";
    std::fs::write(&file, next).unwrap();
    let answer = eventually(async || alice.query("SELECT 1").await.err()).await;
    assert_eq!(answer.code(), Code::Unauthenticated);
    let token = Issuer::secret("x", next).token("alice", json!("*"));
    client(&server, &token, None)
        .await
        .query("SELECT 1")
        .await
        .unwrap();

    let issuer = Issuer::ed25519("one");
    let private = json!({"keys": [{
        "kty": "OKP", "crv": "Ed25519", "kid": "one", "d": "AAAA",
        "x": URL_SAFE_NO_PAD.encode(issuer.public()),
    }]});
    for (content, algorithms, words) in [
        ("short".to_owned(), vec![JwtAlgorithm::HS256], "32"),
        (
            set(&[&issuer]),
            vec![JwtAlgorithm::HS256],
            "no key of HS256",
        ),
        (
            set(&[&issuer]),
            vec![JwtAlgorithm::EdDSA, JwtAlgorithm::RS256],
            "no key of RS256",
        ),
        (
            "nothing of it".to_owned(),
            vec![JwtAlgorithm::RS256],
            "neither PEM nor",
        ),
        (
            private.to_string(),
            vec![JwtAlgorithm::EdDSA],
            "private key",
        ),
    ] {
        std::fs::write(&file, &content).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut config = crate::harness::config(dir.path());
        by_tokens(&mut config, &algorithms);
        config.auth.jwt.keys_file = Some(file.clone());
        let engine = jammi_db::engine::Engine::open(&config).await.unwrap();
        let text = match jammi_db::server::Server::bind(config, engine).await {
            Ok(_) => panic!("it serves"),
            Err(error) => error.to_string(),
        };
        assert!(
            text.contains(words) && text.contains("auth.jwt.keys_file"),
            "{text}"
        );
        assert!(!text.contains("nothing of it"), "{text}");
    }
}

/// An issuer's keys at a URL.
pub struct KeyServer {
    address: SocketAddr,
    answer: Arc<Mutex<(u16, String)>>,
    pub asked: Arc<AtomicUsize>,
}

impl KeyServer {
    pub async fn start(answer: String) -> Self {
        let answer = Arc::new(Mutex::new((200, answer)));
        let asked = Arc::new(AtomicUsize::new(0));
        let (said, counted) = (Arc::clone(&answer), Arc::clone(&asked));
        let keys = move || async move {
            counted.fetch_add(1, Ordering::SeqCst);
            let (status, text) = said.lock().clone();
            match status {
                302 => Redirect::to(&text).into_response(),
                status => (StatusCode::from_u16(status).unwrap(), text).into_response(),
            }
        };
        let elsewhere = Arc::clone(&answer);
        let pages = Router::new().route("/keys", get(keys)).route(
            "/elsewhere",
            get(move || async move { elsewhere.lock().1.clone() }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, pages).await });
        KeyServer {
            address,
            answer,
            asked,
        }
    }

    pub fn say(&self, status: u16, answer: String) {
        *self.answer.lock() = (status, answer);
    }

    pub fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }
}

async fn by_url(url: String, retry_secs: u64) -> TestServer {
    TestServer::start_with(|config| {
        by_tokens(config, &[JwtAlgorithm::EdDSA]);
        config.auth.jwt.keys_url = Some(url);
        config.auth.jwt.keys_retry_secs = retry_secs;
        config.auth.failures_max = ANY_NUMBER;
    })
    .await
}

#[tokio::test]
async fn keys_at_a_url_are_fetched_when_a_token_names_a_new_one() {
    let (old, new) = (Issuer::ed25519("old"), Issuer::ed25519("new"));
    let keys = KeyServer::start(set(&[&old])).await;
    let server = by_url(keys.url(), 1).await;
    let olds = old.token("alice", json!(ALICE));
    let news = new.token("alice", json!(ALICE));
    let mut by_old = client(&server, &olds, None).await;
    let mut by_new = client(&server, &news, None).await;
    by_old.query("SELECT 1").await.unwrap();
    refused(
        by_new.query("SELECT 1").await,
        Code::Unauthenticated,
        REFUSED,
    );
    keys.say(200, set(&[&old, &new]));
    eventually(async || by_new.query("SELECT 1").await.ok()).await;
    by_old.query("SELECT 1").await.unwrap();
    // One that the issuer has withdrawn goes with the next fetch.
    keys.say(200, set(&[&new]));
    let stranger = Issuer::ed25519("stranger").token("alice", json!(ALICE));
    let mut stranger = client(&server, &stranger, None).await;
    eventually(async || {
        stranger.query("SELECT 1").await.unwrap_err();
        by_old.query("SELECT 1").await.err()
    })
    .await;
    by_new.query("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn tokens_do_not_have_keys_fetched_again_and_again() {
    let issuer = Issuer::ed25519("one");
    let keys = KeyServer::start(set(&[&issuer])).await;
    let server = by_url(keys.url(), 86_400).await;
    let right = issuer.token("alice", json!(ALICE));
    for at in 0..50 {
        let header = json!({"alg": "EdDSA", "kid": format!("invented-{at}")});
        let invented = issuer.sign(&header, &claims("alice", json!(ALICE)));
        let mut invented = client(&server, &invented, None).await;
        refused(
            invented.query("SELECT 1").await,
            Code::Unauthenticated,
            REFUSED,
        );
        client(&server, &right, None)
            .await
            .query("SELECT 1")
            .await
            .unwrap();
    }
    assert_eq!(keys.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn without_keys_nobody_is_let_in() {
    let issuer = Issuer::ed25519("one");
    let good = set(&[&issuer]);
    let keys = KeyServer::start(good.clone()).await;
    let token = issuer.token("alice", json!(ALICE));
    let secret = Issuer::secret("one", &issuer.public());
    for (status, answer) in [
        (500, good.clone()),
        (302, "/elsewhere".to_owned()),
        (200, "no keys".to_owned()),
        (200, format!("{good}{}", " ".repeat(2 << 20))),
        (200, set(&[&secret])),
    ] {
        keys.say(status, answer);
        let server = by_url(keys.url(), 1).await;
        let mut alice = client(&server, &token, None).await;
        refused(
            alice.query("SELECT 1").await,
            Code::Unavailable,
            "the request cannot be authenticated now: send it again",
        );
        keys.say(200, good.clone());
        eventually(async || alice.query("SELECT 1").await.ok()).await;
    }
    // Nobody listens.
    let server = by_url("http://127.0.0.1:9/keys".into(), 1).await;
    let mut alice = client(&server, &token, None).await;
    refused(
        alice.query("SELECT 1").await,
        Code::Unavailable,
        "send it again",
    );
}
