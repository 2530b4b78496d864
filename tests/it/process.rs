//! `jammi serve` as a process: what it prints, the signals it takes, and what
//! is left when it is killed.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use jammi_db::server::proto::session::session_service_client::SessionServiceClient;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

use crate::client::Client;
use crate::harness::{ALICE, BOB, bind, bound, http1};
use crate::server::list_services;

/// A server in a process of its own.
pub struct Process {
    pub child: Child,
    stdout: BufReader<ChildStdout>,
    /// Its log, which is read all the time: with a pipe that is full it would wait.
    stderr: JoinHandle<String>,
    pub grpc: SocketAddr,
    pub http: SocketAddr,
}

pub const JAMMI: &str = env!("CARGO_BIN_EXE_jammi");

pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(JAMMI);
    command.arg("serve");
    serving(command, dir)
}

/// `command`, which serves `dir` on free ports.
pub fn serving(mut command: Command, dir: &Path) -> Command {
    command
        .env("JAMMI_ARTIFACT_DIR", dir)
        .env("JAMMI_SERVER__LISTEN", "127.0.0.1:0")
        .env("JAMMI_SERVER__HTTP_LISTEN", "127.0.0.1:0")
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Process {
    /// Starts a server and waits for the two lines that say where it listens.
    pub async fn start(command: &mut Command) -> Process {
        let mut process = Process::spawn(command);
        process.read_addresses().await;
        process
    }

    /// As [`Process::start`]; what a server that does not come to listening has
    /// said.
    pub async fn try_start(command: &mut Command) -> Result<Process, String> {
        let mut process = Process::spawn(command);
        match process.find_addresses().await {
            Ok(()) => Ok(process),
            Err(_) => Err(process.end().await.2),
        }
    }

    fn spawn(command: &mut Command) -> Process {
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut log = child.stderr.take().unwrap();
        let stderr = tokio::spawn(async move {
            let mut all = String::new();
            log.read_to_string(&mut all).await.unwrap();
            all
        });
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Process {
            child,
            stdout,
            stderr,
            grpc: nowhere,
            http: nowhere,
        }
    }

    /// Reads where the server listens, as it says so once more when it is
    /// started again.
    pub async fn read_addresses(&mut self) {
        let found = self.find_addresses().await;
        found.unwrap_or_else(|line| panic!("{line:?}"));
    }

    /// Reads where the server listens, or gives the line that does not say so.
    async fn find_addresses(&mut self) -> Result<(), String> {
        for (prefix, is_grpc) in [("listening grpc://", true), ("listening http://", false)] {
            let mut line = String::new();
            self.stdout.read_line(&mut line).await.unwrap();
            let Some(address) = line.trim_end().strip_prefix(prefix) else {
                return Err(line);
            };
            let address = address.parse().unwrap();
            *(if is_grpc {
                &mut self.grpc
            } else {
                &mut self.http
            }) = address;
        }
        Ok(())
    }

    pub async fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        let mut kill = Command::new("kill");
        assert!(kill.args([name, &id]).status().await.unwrap().success());
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.grpc)).unwrap();
        endpoint.connect().await.unwrap()
    }

    pub async fn sessions(&self) -> SessionServiceClient<Channel> {
        SessionServiceClient::new(self.channel().await)
    }

    /// Waits for the end: the exit code, and all that was printed after the
    /// addresses to stdout and to stderr.
    pub async fn end(mut self) -> (Option<i32>, String, String) {
        let mut out = String::new();
        self.stdout.read_to_string(&mut out).await.unwrap();
        let err = self.stderr.await.unwrap();
        (self.child.wait().await.unwrap().code(), out, err)
    }
}

#[tokio::test]
async fn serve_says_where_it_listens_and_how_it_is_secured() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&mut command(dir.path())).await;
    bind(&mut server.sessions().await, "secret-session", ALICE)
        .await
        .unwrap();
    server.signal("-TERM").await;
    let (code, out, err) = server.end().await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out, "");
    for text in ["nothing authenticates", "loopback", "sources.roots"] {
        assert!(err.contains(text), "{text}: {err}");
    }
    for secret in ["secret-session", ALICE] {
        assert!(!err.contains(secret), "{err}");
    }
}

#[tokio::test]
async fn a_json_log_has_the_request_id_on_every_request() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path());
    command.env("JAMMI_LOG__FILTER", "info,jammi_db::server::observe=debug");
    let server = Process::start(command.env("JAMMI_LOG__FORMAT", "json")).await;
    bind(&mut server.sessions().await, "s1", ALICE)
        .await
        .unwrap();
    server.signal("-INT").await;
    let (code, _, err) = server.end().await;
    assert_eq!(code, Some(0), "{err}");
    let lines: Vec<serde_json::Value> = err
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect();
    let ended = lines
        .iter()
        .find(|line| line["message"] == "request ended")
        .unwrap();
    assert_eq!(ended["code"], "OK");
    assert!(ended["duration_ms"].is_number());
    let span = &ended["span"];
    assert_eq!(span["method"], "/jammi.v1.session.SessionService/SetTenant");
    assert_eq!(span["request_id"].as_str().map(str::len), Some(36));
    assert!(span["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
}

#[tokio::test]
async fn an_acknowledged_binding_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::start(&mut command(dir.path())).await;
    bind(&mut server.sessions().await, "s1", ALICE)
        .await
        .unwrap();
    server.child.kill().await.unwrap();
    let server = Process::start(&mut command(dir.path())).await;
    let tenant = bound(&mut server.sessions().await, "s1").await;
    assert_eq!(tenant.as_deref(), Some(ALICE));
    server.signal("-TERM").await;
    assert_eq!(server.end().await.0, Some(0));
}

/// Inserts batches of three rows until the server is gone, and says how many were
/// acknowledged.
async fn insert_until_killed(mut client: Client, first: usize, acknowledged: Arc<AtomicUsize>) {
    for batch in first.. {
        let sql = format!("INSERT INTO log VALUES ({batch}, 0), ({batch}, 1), ({batch}, 2)");
        if client.query(&sql).await.is_err() {
            return;
        }
        acknowledged.store(batch, Ordering::SeqCst);
    }
}

/// The batches that a tenant has, none of which is there in part.
async fn whole_batches(client: &mut Client) -> Vec<i64> {
    let sql = "SELECT batch, count(DISTINCT part) FROM log GROUP BY batch ORDER BY batch";
    let rows = client.query(sql).await.unwrap();
    let parts = rows.column(1).as_primitive::<Int64Type>().values();
    assert!(parts.iter().all(|parts| *parts == 3), "{parts:?}");
    let batches = rows.column(0).as_primitive::<Int64Type>().values();
    batches.to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_rows_survive_a_kill_and_no_statement_is_there_in_part() {
    let dir = tempfile::tempdir().unwrap();
    let tenants = [("alice", ALICE), ("bob", BOB)];
    let mut kept = [0_usize; 2];
    for round in 0..4 {
        let mut server = Process::start(&mut command(dir.path())).await;
        let mut writers = Vec::new();
        let mut acknowledged = Vec::new();
        for (at, (session, tenant)) in tenants.into_iter().enumerate() {
            let mut client = Client::over(server.channel().await, Some(session));
            client.bind(tenant).await;
            if round == 0 {
                let table =
                    "CREATE TABLE log (batch BIGINT, part BIGINT, PRIMARY KEY (batch, part))";
                client.query(table).await.unwrap();
            }
            let batches = whole_batches(&mut client).await;
            let expected: Vec<i64> = (1..=batches.len() as i64).collect();
            assert_eq!(batches, expected);
            // The last one may have been committed without an answer.
            assert!(
                [kept[at], kept[at] + 1].contains(&batches.len()),
                "{kept:?} {at}"
            );
            let done = Arc::new(AtomicUsize::new(batches.len()));
            acknowledged.push(Arc::clone(&done));
            writers.push(tokio::spawn(insert_until_killed(
                client,
                batches.len() + 1,
                done,
            )));
        }
        // Kills at another point of the work each time.
        let enough = kept[0] + 3 + 7 * round;
        while acknowledged[0].load(Ordering::SeqCst) < enough {
            tokio::task::yield_now().await;
        }
        server.child.kill().await.unwrap();
        for writer in writers {
            writer.await.unwrap();
        }
        for (kept, acknowledged) in kept.iter_mut().zip(&acknowledged) {
            *kept = acknowledged.load(Ordering::SeqCst);
        }
    }
}

#[tokio::test]
async fn a_second_signal_ends_a_server_that_drains() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&mut command(dir.path())).await;
    let (ask, asked) = mpsc::channel(1);
    let mut reflection = ServerReflectionClient::new(server.channel().await);
    ask.send(list_services()).await.unwrap();
    let running = reflection.server_reflection_info(ReceiverStream::new(asked));
    let _running = running.await.unwrap();
    server.signal("-TERM").await;
    let probe = b"GET /readyz HTTP/1.1\r\nhost: jammi\r\nconnection: close\r\n\r\n";
    while http1(server.http, probe).await.starts_with("HTTP/1.1 200") {}
    server.signal("-TERM").await;
    let (code, _, err) = server.end().await;
    assert_eq!(code, Some(128 + 15), "{err}");
}

#[tokio::test]
async fn what_keeps_a_server_from_starting_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for (name, value, wanted) in [
        ("JAMMI_SERVER__TYPO", "1", "JAMMI_SERVER__TYPO"),
        ("JAMMI_SESSIONS__MAX", "0", "sessions.max"),
        (
            "JAMMI_SERVER__ALLOWED_ORIGINS",
            "*",
            "server.allowed_origins",
        ),
        ("JAMMI_CONFIG", "/no/such/file.toml", "/no/such/file.toml"),
        ("JAMMI_SERVER__LISTEN", "192.0.2.1:0", "server.listen"),
    ] {
        let mut command = command(dir.path());
        let ended = command.env(name, value).output().await.unwrap();
        let err = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success(), "{name}");
        assert!(err.contains(wanted), "{name}={value}: {err}");
        assert!(ended.stdout.is_empty(), "{name}");
    }
}
