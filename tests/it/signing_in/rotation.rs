//! Keys, sets of keys and certificates that change under load: nothing fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use jammi_db::auth::JwtAlgorithm;
use jammi_db::config::AuthenticationMethod;
use parking_lot::RwLock;
use rcgen::DnType;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};

use super::{Certificates, Keys, id_of, now_ms};
use crate::authentication::words;
use crate::client::{ALICE, BOB, Client};
use crate::harness::TestServer;
use crate::jwt::{self, Issuer, KeyServer};
use crate::tls::{Authority, Files, connect, eventually};

const CLIENTS: usize = 24;
/// Far beyond what a rotation takes on a loaded machine: what takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(120);
const WORD: &str = "SELECT word FROM t";

/// Clients that ask again and again, and stop at the first failure.
struct Load {
    clients: JoinSet<Result<(), String>>,
    shared: Arc<Shared>,
}

struct Shared {
    asked: Vec<AtomicUsize>,
    progress: Notify,
    is_over: AtomicBool,
}

impl Load {
    /// Has client `at` ask by `ask(at)` until [`Load::end`].
    fn begin<A, F>(ask: A) -> Self
    where
        A: Fn(usize) -> F + Clone + Send + 'static,
        F: Future<Output = Result<(), String>> + Send,
    {
        let shared = Arc::new(Shared {
            asked: (0..CLIENTS).map(|_| AtomicUsize::new(0)).collect(),
            progress: Notify::new(),
            is_over: AtomicBool::new(false),
        });
        let mut clients = JoinSet::new();
        for at in 0..CLIENTS {
            let (shared, ask) = (Arc::clone(&shared), ask.clone());
            clients.spawn(async move {
                while !shared.is_over.load(Ordering::SeqCst) {
                    let asked = ask(at).await;
                    shared.asked[at].fetch_add(1, Ordering::SeqCst);
                    shared.progress.notify_waiters();
                    if asked.is_err() {
                        shared.is_over.store(true, Ordering::SeqCst);
                        return asked;
                    }
                }
                Ok(())
            });
        }
        Load { clients, shared }
    }

    fn asked(&self) -> Vec<usize> {
        let asked = self.shared.asked.iter();
        asked.map(|asked| asked.load(Ordering::SeqCst)).collect()
    }

    /// Waits until each client has begun to ask after now, and was answered.
    async fn moved_on(&self) {
        let before = self.asked();
        let all = async {
            loop {
                let progress = self.shared.progress.notified();
                let mut both = self.asked().into_iter().zip(&before);
                if both.all(|(now, before)| now >= before + 2) {
                    return;
                }
                if self.shared.is_over.load(Ordering::SeqCst) {
                    return;
                }
                progress.await;
            }
        };
        timeout(DEADLINE, all)
            .await
            .expect("every client is answered");
    }

    /// Stops the clients, none of whom has failed.
    async fn end(mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        while let Some(client) = self.clients.join_next().await {
            if let Err(failure) = client.unwrap() {
                panic!("{failure}");
            }
        }
    }
}

fn failed(status: &Status) -> String {
    format!("{status:?}")
}

/// What everybody reads is their own alone.
async fn reads(mut client: Client, word: &str) -> Result<(), String> {
    let rows = client.query(WORD).await.map_err(|status| failed(&status))?;
    match words(&rows) == [word] {
        true => Ok(()),
        false => Err(format!("{word} reads {:?}", words(&rows))),
    }
}

async fn write(mut client: Client, word: &str) {
    client.query("CREATE TABLE t (word TEXT)").await.unwrap();
    let insert = format!("INSERT INTO t VALUES ('{word}')");
    client.query(&insert).await.unwrap();
}

/// Two tenants, and what each has written.
const WRITERS: [(&str, &str, &str); 2] = [("alice", ALICE, "hers"), ("bob", BOB, "canary")];

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_under_load_with_no_failed_request() {
    let server = TestServer::start_with(|config| {
        config.auth.methods = vec![AuthenticationMethod::ApiKey];
    })
    .await;
    let keys = Keys::of(&server).await;
    let mut current = Vec::new();
    for (user, tenant, word) in WRITERS {
        let key = keys.key(user, &[tenant]).await;
        write(Client::connect(&server, None).await.holding(&key), word).await;
        current.push(key);
    }
    let current = Arc::new(RwLock::new(current));
    let mut channels = Vec::new();
    for _ in 0..CLIENTS {
        channels.push(server.channel().await);
    }
    let shown = Arc::clone(&current);
    let load = Load::begin(move |at| {
        let (whose, key) = (at % 2, shown.read()[at % 2].clone());
        let client = Client::over(channels[at].clone(), None).holding(&key);
        async move { reads(client, WRITERS[whose].2).await }
    });
    for _ in 0..10 {
        load.moved_on().await;
        for (whose, (_, _, word)) in WRITERS.into_iter().enumerate() {
            let old = current.read()[whose].clone();
            // Both are good until everybody has the new one.
            let in_an_hour = now_ms() + 3_600_000;
            let new = keys.0.rotate(&id_of(&old), in_an_hour).await.unwrap();
            current.write()[whose] = new.text;
            load.moved_on().await;
            keys.0.revoke(&id_of(&old)).await.unwrap();
            let late = Client::connect(&server, None).await.holding(&old);
            reads(late, word).await.unwrap_err();
        }
    }
    load.moved_on().await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_an_issuer_rotate_under_load_with_no_failed_request() {
    const NAMES: [&str; 5] = ["0", "1", "2", "3", "4"];
    let mut issuer = Issuer::ed25519(NAMES[0]);
    let published = KeyServer::start(jwt::set(&[&issuer])).await;
    let url = published.url();
    let server = TestServer::start_with(|config| {
        jwt::by_tokens(config, &[JwtAlgorithm::EdDSA]);
        config.auth.jwt.keys_url = Some(url);
        config.auth.jwt.keys_refresh_secs = 1;
        config.auth.jwt.keys_retry_secs = 1;
    })
    .await;
    let tokens =
        |issuer: &Issuer| WRITERS.map(|(user, tenant, _)| issuer.token(user, json!(tenant)));
    let current = Arc::new(RwLock::new(tokens(&issuer)));
    for (at, (_, _, word)) in WRITERS.into_iter().enumerate() {
        let token = current.read()[at].clone();
        write(Client::connect(&server, None).await.holding(&token), word).await;
    }
    let mut channels = Vec::new();
    for _ in 0..CLIENTS {
        channels.push(server.channel().await);
    }
    let shown = Arc::clone(&current);
    let load = Load::begin(move |at| {
        let (whose, token) = (at % 2, shown.read()[at % 2].clone());
        let client = Client::over(channels[at].clone(), None).holding(&token);
        async move { reads(client, WRITERS[whose].2).await }
    });
    // The set is fetched as often as it grows old, and the one after the next was
    // begun when the next had been read.
    let fetched = async || {
        let before = published.asked.load(Ordering::SeqCst);
        let is_so = || published.asked.load(Ordering::SeqCst) >= before + 2;
        eventually(async || is_so().then_some(())).await;
    };
    for name in &NAMES[1..] {
        let next = Issuer::ed25519(name);
        published.say(200, jwt::set(&[&issuer, &next]));
        fetched().await;
        let old = current.read()[0].clone();
        *current.write() = tokens(&next);
        load.moved_on().await;
        published.say(200, jwt::set(&[&next]));
        fetched().await;
        let late = Client::connect(&server, None).await.holding(&old);
        reads(late, WRITERS[0].2).await.unwrap_err();
        load.moved_on().await;
        issuer = next;
    }
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_under_load_with_no_failed_request() {
    let certificates = Certificates::new();
    let server = TestServer::start_with(|config| {
        certificates.configure(config);
        config.auth.methods = vec![AuthenticationMethod::Mtls];
    })
    .await;
    // Clients trust all roots that there will be.
    let next: Vec<Authority> = ["one", "two", "three"].map(Authority::new).into();
    let roots = [&certificates.authority].into_iter().chain(&next);
    let roots: Vec<Certificate> = roots
        .map(|root| Certificate::from_pem(root.pem()))
        .collect();
    let of = |user: &str, serial: u64| {
        let issued = certificates.issue(user, serial);
        ClientTlsConfig::new()
            .ca_certificates(roots.clone())
            .identity(issued.identity())
    };
    let identities = [of("alice", 1), of("bob", 2)];
    let address = server.grpc;
    let mut channels: Vec<Channel> = Vec::new();
    for (at, (_, _, word)) in WRITERS.into_iter().enumerate() {
        let channel = connect(&server, identities[at].clone()).await.unwrap();
        write(Client::over(channel.clone(), None), word).await;
        channels.push(channel);
    }
    // A third of them go on by the connection that was there first, the others by a
    // new one for each question.
    let load = Load::begin(move |at| {
        let whose = at % 2;
        let (kept, tls) = (channels[whose].clone(), identities[whose].clone());
        async move {
            let channel = match at % 3 {
                0 => kept,
                _ => {
                    let endpoint = Channel::from_shared(format!("https://{address}")).unwrap();
                    let connected = endpoint.tls_config(tls).unwrap().connect().await;
                    connected.map_err(|error| format!("{error:?}"))?
                }
            };
            reads(Client::over(channel, None), WRITERS[whose].2).await
        }
    });
    for (at, authority) in next.iter().enumerate() {
        load.moved_on().await;
        let renewed = authority.issue(|params| {
            params.distinguished_name.push(DnType::CommonName, "server");
        });
        // One file after the other, as renewals write them.
        put(&certificates.files, "server.pem", &renewed.certificate);
        load.moved_on().await;
        put(&certificates.files, "server.key", &renewed.key);
        let identity = certificates.issue("alice", 10 + at as u64).identity();
        let renewed = authority.trusted().identity(identity);
        eventually(async || connect(&server, renewed.clone()).await.ok()).await;
        // And those of clients meanwhile, to the same effect.
        let revoked: Vec<u64> = (0..=at as u64).map(|serial| 100 + serial).collect();
        let revoked = certificates.authority.revoked(&revoked);
        put(&certificates.files, "revoked.pem", &revoked);
        load.moved_on().await;
    }
    load.end().await;
}

/// In one step, as whoever replaces files of a server that runs has to.
fn put(files: &Files, name: &str, content: &str) {
    let written = files.put(&format!("{name}.new"), content);
    std::fs::rename(written, files.path(name)).unwrap();
}
