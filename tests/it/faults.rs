//! A disk that is full, a directory that is read-only, and a client that does
//! not keep up: what the server says, keeps and goes on serving.
//!
//! The disks are mounted in a mount namespace of the server's own, so that
//! nothing is left when it ends.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow_flight::FlightData;
use jammi_db::server::proto::catalog::catalog_service_client::CatalogServiceClient;
use jammi_db::server::proto::catalog::{ListSourcesRequest, RegisterSourceRequest, SourceFormat};
use tokio::process::Command;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::client::{Client, statement};
use crate::harness::{ALICE, bind, bound, http1, in_session};
use crate::process::{JAMMI, Process, serving};

/// How `unshare` gives a process a mount namespace here: root has the right by
/// itself, and others as root of a user namespace.
fn mount_namespace() -> &'static [&'static str] {
    const WAYS: [&[&str]; 2] = [&["--mount"], &["--mount", "--map-root-user"]];
    let dir = tempfile::tempdir().unwrap();
    let mounts = |way: &&&[&str]| {
        let mut tried = std::process::Command::new("unshare");
        tried.args(**way).args(["mount", "-t", "tmpfs", "tmpfs"]);
        tried.arg(dir.path()).stderr(Stdio::null());
        tried.status().is_ok_and(|status| status.success())
    };
    WAYS.iter().find(mounts).unwrap_or_else(|| {
        panic!(
            "this test mounts a small disk in a namespace of its own, which this machine does \
             not allow: run the tests where `unshare {}` works, as it does for root outside of \
             a container",
            WAYS[1].join(" ")
        )
    })
}

/// A command that runs `script` where it may mount, and serves `dir`. `$0` is
/// the directory and `$1` the server.
fn in_namespace(dir: &Path, script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(mount_namespace());
    command.args(["sh", "-ec", script]).arg(dir).arg(JAMMI);
    serving(command, dir)
}

/// A shared CSV file of two rows, outside of every artifact directory.
fn rows_file(dir: &Path) -> String {
    let path = dir.join("rows.csv");
    fs::write(&path, format!("id,tenant_id\n1,{ALICE}\n2,\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

struct Catalog {
    client: CatalogServiceClient<Channel>,
    location: String,
}

impl Catalog {
    async fn register(&mut self, session: &str, name: &str) -> Result<(), Status> {
        let request = RegisterSourceRequest {
            name: name.into(),
            location: self.location.clone(),
            format: SourceFormat::Unspecified.into(),
            tenant_column: None,
        };
        let request = in_session(session, request);
        self.client.register_source(request).await.map(|_| ())
    }

    async fn names(&mut self, session: &str) -> Vec<String> {
        let request = in_session(session, ListSourcesRequest {});
        let answer = self.client.list_sources(request).await.unwrap();
        let sources = answer.into_inner().sources.into_iter();
        sources.map(|source| source.name).collect()
    }
}

/// Writes to `path` until the disk is full.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    for bytes in [64 << 10, 4 << 10, 1] {
        while file.write_all(&vec![0; bytes]).is_ok() {}
    }
}

/// The server that the shell `process` has started.
fn server_of(process: &Process) -> u32 {
    let shell = process.child.id().unwrap();
    let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"));
    children.unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn a_full_disk_loses_nothing_that_was_acknowledged_and_reads_go_on() {
    let (dir, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let twice = "mount -t tmpfs -o size=1m tmpfs \"$0\"; \
                 setpriv --pdeathsig KILL \"$1\" serve || true; exec \"$1\" serve";
    let mut command = in_namespace(dir.path(), twice);
    // With a trail nothing would be done that cannot be recorded.
    command.env("JAMMI_AUDIT__ENABLED", "false");
    let mut process = Process::start(&mut command).await;
    let mut sessions = process.sessions().await;
    let mut catalog = Catalog {
        client: CatalogServiceClient::new(process.channel().await),
        location: rows_file(files.path()),
    };
    bind(&mut sessions, "reader", ALICE).await.unwrap();
    catalog.register("reader", "rows").await.unwrap();
    let mut reader = Client::over(process.channel().await, Some("reader"));
    let server = server_of(&process);
    let inside = PathBuf::from(format!("/proc/{server}/root"))
        .join(dir.path().join("filler").strip_prefix("/").unwrap());
    fill(&inside);

    // Some writes still find room in what the databases have; then none does.
    let (mut bindings, mut sources) = (Vec::new(), vec!["rows".to_owned()]);
    let refused = loop {
        let session = format!("s{}", bindings.len());
        match bind(&mut sessions, &session, ALICE).await {
            Ok(_) => bindings.push(session),
            Err(refused) => break refused,
        }
        assert!(bindings.len() < 100_000, "the disk never fills");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    for part in ["the system database is full", "free some space"] {
        assert!(refused.message().contains(part), "{part}: {refused:?}");
    }
    let refused = loop {
        let name = format!("rows{}", sources.len());
        match catalog.register("reader", &name).await {
            Ok(()) => sources.push(name),
            Err(refused) => break refused,
        }
        assert!(sources.len() < 100_000, "the disk never fills");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    for part in [ALICE, "is full", "free some space"] {
        assert!(refused.message().contains(part), "{part}: {refused:?}");
    }

    // Reads go on, and show nothing of what was refused.
    let rows = reader
        .query("SELECT id FROM rows.public.rows")
        .await
        .unwrap();
    assert_eq!(rows.num_rows(), 2);
    sources.sort();
    assert_eq!(catalog.names("reader").await, sources);
    let unbound = format!("s{}", bindings.len());
    assert_eq!(bound(&mut sessions, &unbound).await, None);

    // With room again so do writes, and a killed server had it all on disk.
    fs::remove_file(&inside).unwrap();
    bind(&mut sessions, &unbound, ALICE).await.unwrap();
    bindings.push(unbound);
    let mut kill = Command::new("kill");
    kill.args(["-KILL", &server.to_string()]);
    assert!(kill.status().await.unwrap().success());
    process.read_addresses().await;
    let mut sessions = process.sessions().await;
    for session in &bindings {
        let tenant = bound(&mut sessions, session).await;
        assert_eq!(tenant.as_deref(), Some(ALICE), "{session}");
    }
    catalog.client = CatalogServiceClient::new(process.channel().await);
    assert_eq!(catalog.names("reader").await, sources);
    process.signal("-TERM").await;
    assert_eq!(process.end().await.0, Some(0));
}

#[tokio::test]
async fn a_full_disk_of_the_audit_trail_refuses_all_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let small = "mkdir -p \"$0/audit\"; mount -t tmpfs -o size=1m tmpfs \"$0/audit\"; \
                 exec \"$1\" serve";
    let mut command = in_namespace(dir.path(), small);
    let process = Process::start(command.env("JAMMI_AUDIT__FLUSH_MS", "1")).await;
    let mut alice = Client::over(process.channel().await, Some("alice"));
    alice.bind(ALICE).await;
    alice.query("CREATE TABLE t (id INT)").await.unwrap();
    let server = process.child.id().unwrap();
    let audit = PathBuf::from(format!("/proc/{server}/root"))
        .join(dir.path().join("audit").strip_prefix("/").unwrap());
    let filler = audit.join("filler");
    fill(&filler);
    let mut answered = 0;
    let refused = loop {
        match alice.query("INSERT INTO t VALUES (1)").await {
            Ok(_) => answered += 1,
            Err(refused) => break refused,
        }
        assert!(answered < 100_000, "the disk never fills");
    };
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    for part in ["the audit trail cannot be written", "free some space"] {
        assert!(refused.message().contains(part), "{part}: {refused:?}");
    }
    // What only reads is refused too, and so is who nobody knows.
    let read = alice.query("SELECT 1").await.unwrap_err();
    assert_eq!(read.code(), Code::Unavailable, "{read:?}");
    let health = b"GET /readyz HTTP/1.1\r\nhost: jammi\r\nconnection: close\r\n\r\n";
    assert!(
        http1(process.http, health)
            .await
            .starts_with("HTTP/1.1 200")
    );

    fs::remove_file(&filler).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while let Err(refused) = alice.query("SELECT 'again'").await {
        assert!(Instant::now() < until, "{refused:?}");
    }
    let counted = "SELECT count(*) FROM jammi.audit.events \
                   WHERE statement LIKE 'INSERT%' AND method LIKE '%/DoGet' AND outcome = 'OK'";
    let rows = alice.query(counted).await.unwrap();
    let recorded = rows.column(0).as_primitive::<Int64Type>().value(0);
    let rows = alice.query("SELECT count(*) FROM t").await.unwrap();
    let written = rows.column(0).as_primitive::<Int64Type>().value(0);
    // One that was running when the disk was full is recorded all the same.
    assert!(
        recorded >= answered && recorded == written,
        "{recorded} {answered} {written}"
    );
    let report = jammi_db::audit::verify(&audit, None, None).unwrap();
    assert_eq!(report.faults, []);
    process.signal("-TERM").await;
    assert_eq!(process.end().await.0, Some(0));
}

#[tokio::test]
async fn a_read_only_directory_is_named_with_its_mend() {
    let (dir, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());

    // All of it: the server does not start.
    let whole = "mount -t tmpfs -o ro tmpfs \"$0\"; exec \"$1\" serve";
    let ended = in_namespace(dir.path(), whole).output().await.unwrap();
    let err = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success(), "{err}");
    for part in [dir.path().to_str().unwrap(), "write"] {
        assert!(err.contains(part), "{part}: {err}");
    }

    // The tenants' part of it: they write nothing, and read what is shared.
    let tenants = "mkdir -p \"$0/tenants\"; mount -t tmpfs -o ro tmpfs \"$0/tenants\"; \
                   exec \"$1\" serve";
    let process = Process::start(&mut in_namespace(dir.path(), tenants)).await;
    let mut sessions = process.sessions().await;
    let mut catalog = Catalog {
        client: CatalogServiceClient::new(process.channel().await),
        location: rows_file(files.path()),
    };
    catalog.register("nobody", "shared").await.unwrap();
    bind(&mut sessions, "reader", ALICE).await.unwrap();
    let refused = catalog.register("reader", "own").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    for part in [ALICE, "write permission"] {
        assert!(refused.message().contains(part), "{part}: {refused:?}");
    }
    assert_eq!(catalog.names("reader").await, ["shared"]);
    let mut reader = Client::over(process.channel().await, Some("reader"));
    let rows = reader
        .query("SELECT id FROM shared.public.shared")
        .await
        .unwrap();
    assert_eq!(rows.num_rows(), 2);
    process.signal("-TERM").await;
    assert_eq!(process.end().await.0, Some(0));
}

/// The most memory that the process has had, in bytes.
fn most_memory(process: &Process) -> usize {
    let id = process.child.id().unwrap();
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: usize = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib << 10
}

async fn page(process: &Process, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: jammi\r\nconnection: close\r\n\r\n");
    http1(process.http, request.as_bytes()).await
}

async fn fetch(client: &mut Client, sql: &str) -> Streaming<FlightData> {
    let info = client.info(&statement(sql)).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let request = client.request(ticket);
    client.flight.do_get(request).await.unwrap().into_inner()
}

/// What a client does not read is not made: memory is bounded whatever the size
/// of the result, and a client that vanishes leaves nothing running.
#[tokio::test]
async fn a_large_result_takes_little_memory_and_ends_with_its_client() {
    const RESULT_BYTES_MIN: usize = 2_400_000_000;
    const MEMORY_BYTES_MAX: usize = 512 << 20;
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(&mut crate::process::command(dir.path())).await;
    let mut client = Client::over(process.channel().await, None);
    let six = "value, value AS b, value AS c, value AS d, value AS e, value AS f";
    let sql = format!("SELECT {six} FROM generate_series(1, 50000000)");

    let mut messages = fetch(&mut client, &sql).await;
    let (mut bytes, mut count) = (0, 0);
    while let Some(message) = messages.message().await.unwrap() {
        bytes += message.data_body.len();
        count += 1;
        // A reader that is slow at first: the server is asked something else
        // between messages.
        if count < 100 {
            assert!(page(&process, "/healthz").await.contains("200 OK"));
        }
    }
    assert!(bytes >= RESULT_BYTES_MIN, "{bytes}");
    let most = most_memory(&process);
    assert!(
        most < MEMORY_BYTES_MAX,
        "{most} bytes for a result of {bytes}"
    );

    // One that stops reading, and then vanishes.
    let mut stopped = fetch(&mut client, &sql).await;
    stopped.message().await.unwrap().unwrap();
    assert!(
        page(&process, "/metrics")
            .await
            .contains("jammi_requests_active 1")
    );
    drop((stopped, client));
    while !page(&process, "/metrics")
        .await
        .contains("jammi_requests_active 0")
    {
        tokio::task::yield_now().await;
    }
    let most = most_memory(&process);
    assert!(most < MEMORY_BYTES_MAX, "{most} bytes");
    process.signal("-TERM").await;
    assert_eq!(process.end().await.0, Some(0));
}
