//! The `jammi` command as a process, on a directory and through the server that
//! runs on the same directory: the same commands and the same output.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::harness::{ALICE, BOB, TestServer};

/// Rows of Alice, of Bob, and of everybody.
fn write_inbox(dir: &Path) {
    let rows = format!("id,tenant_id,title\n1,{ALICE},hers\n2,{BOB},his\n3,,\"ours, all\"\n");
    fs::write(dir.join("inbox.csv"), rows).unwrap();
}

/// The two places where commands work on the data of `server`.
pub fn targets(server: &TestServer) -> [[String; 2]; 2] {
    let dir = server.dir().display().to_string();
    let url = format!("grpc://{}", server.grpc);
    [["--artifact-dir".into(), dir], ["--url".into(), url]]
}

pub fn jammi(dir: &Path, target: &[String], arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jammi"));
    command
        .args(target)
        .args(arguments)
        .current_dir(dir)
        .env_remove("JAMMI_TENANT")
        .env_remove("JAMMI_URL")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

pub fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

/// Runs a command on both targets and answers what both said.
pub async fn on_both(server: &TestServer, dir: &Path, arguments: &[&str]) -> Output {
    let [embedded, remote] = targets(server);
    let embedded = jammi(dir, &embedded, arguments).output().await.unwrap();
    let remote = jammi(dir, &remote, arguments).output().await.unwrap();
    let said = |output: &Output| {
        let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| text(bytes).to_owned());
        (output.status.code(), stdout, stderr)
    };
    assert_eq!(said(&embedded), said(&remote), "{arguments:?}");
    embedded
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_binds_the_tenant_of_what_follows() {
    let server = TestServer::start().await;
    let files = tempfile::tempdir().unwrap();
    for (tenant, word) in [(ALICE, "hers"), (BOB, "his")] {
        let made = format!("CREATE TABLE notes AS SELECT '{word}' AS word");
        let [_, remote] = targets(&server);
        let arguments = ["--tenant", tenant, "query", &made];
        let output = jammi(files.path(), &remote, &arguments).output().await;
        assert!(output.unwrap().status.success());
    }
    let set = |tenant: &str| format!("SET app.current_tenant_id = '{tenant}'");
    let script = format!(
        "{}; SELECT word FROM notes; BEGIN; {}; SELECT word FROM notes; SHOW app.current_tenant_id; \
         RESET app.current_tenant_id; SELECT word FROM notes",
        set(ALICE),
        set(BOB),
    );
    let output = on_both(
        &server,
        files.path(),
        &["query", "--format", "csv", &script],
    )
    .await;
    let said = text(&output.stdout);
    let rows: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(
        rows,
        ["word", "hers", "word", "his", "app.current_tenant_id", BOB]
    );
    assert!(text(&output.stderr).contains("does not exist"));
    assert_eq!(output.status.code(), Some(1));
    // What a connection bound is not left behind.
    let sessions = &format!("SELECT '{BOB}'; {}", set(ALICE));
    on_both(
        &server,
        files.path(),
        &["query", "--format", "csv", sessions],
    )
    .await;
    assert_eq!(
        server
            .page("/metrics")
            .await
            .1
            .matches("jammi_sessions_bound 0")
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn both_targets_say_the_same() {
    let server = TestServer::start().await;
    let files = tempfile::tempdir().unwrap();
    write_inbox(files.path());
    let inbox = files.path().join("inbox.csv").display().to_string();
    let [embedded, remote] = targets(&server);
    let add = ["sources", "add", "inbox", &inbox];
    let added = jammi(files.path(), &remote, &add).output().await.unwrap();
    assert_eq!(
        text(&added.stdout),
        "registered inbox.public.inbox (3 columns, tenant column tenant_id)\n"
    );
    assert!(text(&added.stderr).starts_with("notice: "));
    let register = [
        "--tenant", ALICE, "models", "register", "m", "1", "s3://b/m",
    ];
    let registered = jammi(files.path(), &embedded, &register).output().await;
    assert_eq!(
        text(&registered.unwrap().stdout),
        "registered model m version 1\n"
    );

    let sql = "select id, title from inbox.public.inbox order by id";
    let ours = "3,\"ours, all\"\n";
    for (tenant, arguments, code, expected) in [
        (
            "",
            &["query", "--format", "csv", sql][..],
            0,
            format!("id,title\n{ours}"),
        ),
        (
            ALICE,
            &["query", "--format", "csv", sql],
            0,
            format!("id,title\n1,hers\n{ours}"),
        ),
        (
            BOB,
            &["query", "--format", "csv", sql],
            0,
            format!("id,title\n2,his\n{ours}"),
        ),
        (
            BOB,
            &["query", "--format", "ndjson", "-c", sql],
            0,
            "{\"id\":2,\"title\":\"his\"}".into(),
        ),
        (
            BOB,
            &["query", "select 1 as a where false", "--format", "csv"],
            0,
            "a\n".into(),
        ),
        (
            BOB,
            &[
                "query",
                "select 1 as a; select ';' as b",
                "--format",
                "json",
            ],
            0,
            "[{\"a\":1}]\n[{\"b\":\";\"}]\n".into(),
        ),
        (
            BOB,
            &["query", "select 1; selec 2"],
            1,
            "error: statement 2: ".into(),
        ),
        (BOB, &["query", "select nothing"], 1, "error: ".into()),
        (
            BOB,
            &["query", "select * from nothing"],
            1,
            "does not exist".into(),
        ),
        (
            BOB,
            &["query", "select 1; select 2", "--format", "parquet"],
            2,
            "one result".into(),
        ),
        (
            BOB,
            &["query", "-f", "missing.sql"],
            2,
            "missing.sql".into(),
        ),
        (BOB, &["query"], 2, "required".into()),
        (
            ALICE,
            &["sources", "list", "--format", "csv"],
            0,
            "inbox,inbox.public.inbox,global,csv".into(),
        ),
        (
            ALICE,
            &["sources", "describe", "inbox"],
            0,
            "| tenant_id | Utf8  | true     |".into(),
        ),
        (
            ALICE,
            &["sources", "describe", "inbox", "--format", "json"],
            0,
            "\"columns\":[{".into(),
        ),
        (
            ALICE,
            &["sources", "drop", "inbox"],
            1,
            "shared by every tenant".into(),
        ),
        (
            ALICE,
            &["sources", "drop", "outbox"],
            1,
            "does not exist".into(),
        ),
        (
            ALICE,
            &["sources", "add", "x", "missing.csv"],
            1,
            "missing.csv".into(),
        ),
        (
            ALICE,
            &["models", "list", "--format", "csv"],
            0,
            "m,1,tenant,s3://b/m,{}".into(),
        ),
        (
            ALICE,
            &["query", "select name from models", "--format", "csv"],
            0,
            "name\nm\n".into(),
        ),
        (
            BOB,
            &["models", "list", "--format", "json"],
            0,
            "[]\n".into(),
        ),
        (
            BOB,
            &["models", "describe", "m"],
            1,
            "model `m` does not exist".into(),
        ),
        (
            BOB,
            &["models", "drop", "m", "1"],
            1,
            "does not exist".into(),
        ),
    ] {
        let mut words = arguments.to_vec();
        if !tenant.is_empty() {
            words.extend(["--tenant", tenant]);
        }
        let output = on_both(&server, files.path(), &words).await;
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
        let said = if code == 0 {
            &output.stdout
        } else {
            &output.stderr
        };
        assert!(text(said).contains(&expected), "{words:?}: {output:?}");
        if code == 0 {
            assert!(output.stderr.is_empty(), "{words:?}: {output:?}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_files_are_the_same_from_both_targets() {
    let server = TestServer::start().await;
    let files = tempfile::tempdir().unwrap();
    let sql = "select value, arrow_cast('x', 'Dictionary(Int32, Utf8)') as word, \
               [value] as list from generate_series(1, 20000) order by value";
    for format in ["arrow", "parquet"] {
        let mut written = Vec::new();
        for target in targets(&server) {
            let query = ["query", "--format", format, "-o", "rows", sql];
            let output = jammi(files.path(), &target, &query).output().await.unwrap();
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            written.push(read_back(&files.path().join("rows"), format));
        }
        assert_eq!(written[0].num_rows(), 20_000);
        assert_eq!(written[0], written[1]);
    }
    server.stop().await;
}

fn read_back(path: &Path, format: &str) -> arrow::array::RecordBatch {
    use arrow::compute::concat_batches;
    let file = fs::File::open(path).unwrap();
    if format == "arrow" {
        let reader = arrow::ipc::reader::StreamReader::try_new(file, None).unwrap();
        let schema = reader.schema();
        let batches: Vec<_> = reader.map(Result::unwrap).collect();
        return concat_batches(&schema, &batches).unwrap();
    }
    let builder =
        parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let schema = builder.schema().clone();
    let batches: Vec<_> = builder.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_leaves_no_file_and_an_old_one_as_it_was() {
    let server = TestServer::start().await;
    let files = tempfile::tempdir().unwrap();
    fs::write(files.path().join("rows.csv"), "old").unwrap();
    for target in targets(&server) {
        let query = [
            "query",
            "--format",
            "csv",
            "-o",
            "rows.csv",
            "select 1; selec 2",
        ];
        let output = jammi(files.path(), &target, &query).output().await.unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(fs::read(files.path().join("rows.csv")).unwrap(), b"old");
        assert_eq!(fs::read_dir(files.path()).unwrap().count(), 1);
    }
    server.stop().await;
}

const ENDLESS: [&str; 4] = [
    "query",
    "--format",
    "csv",
    "select value from generate_series(1, 100000000000)",
];

async fn started(command: &mut Command) -> Child {
    let mut child = command.spawn().unwrap();
    let mut header = [0; 6];
    let stdout = child.stdout.as_mut().unwrap();
    stdout.read_exact(&mut header).await.unwrap();
    assert_eq!(&header, b"value\n");
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_a_query() {
    let server = TestServer::start().await;
    let files = tempfile::tempdir().unwrap();
    for target in targets(&server) {
        let child = started(&mut jammi(files.path(), &target, &ENDLESS)).await;
        let id = child.id().unwrap().to_string();
        let kill = Command::new("kill").args(["-INT", &id]).status().await;
        assert!(kill.unwrap().success());
        let output = child.wait_with_output().await.unwrap();
        assert_eq!(output.status.code(), Some(130), "{target:?}");
        assert_eq!(text(&output.stderr), "error: cancelled\n");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_ends_a_query_quietly() {
    let server = TestServer::start().await;
    let files = tempfile::tempdir().unwrap();
    for target in targets(&server) {
        let mut child = started(&mut jammi(files.path(), &target, &ENDLESS)).await;
        drop(child.stdout.take());
        let output = child.wait_with_output().await.unwrap();
        assert_eq!(output.status.code(), Some(141), "{target:?}");
        assert_eq!(text(&output.stderr), "");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_rebinds_its_session_and_stops_at_an_error() {
    let server = TestServer::start().await;
    let files = tempfile::tempdir().unwrap();
    write_inbox(files.path());
    let inbox = files.path().join("inbox.csv").display().to_string();
    let [embedded, _] = targets(&server);
    let add = ["sources", "add", "inbox", &inbox];
    jammi(files.path(), &embedded, &add).output().await.unwrap();

    let script = format!(
        "select count(*) as rows\nfrom inbox.public.inbox -- one;\n;\n\
         \\tenant {ALICE}\n\\tenant\nselect id from inbox.public.inbox order by id;\n\
         \\tenant -\n\\tenant\nselec;\nselect 'not reached' as x;\n"
    );
    let expected = format!("rows\n1\n{ALICE}\nid\n1\n3\nno tenant is bound\n");
    for target in targets(&server) {
        let mut command = jammi(files.path(), &target, &["shell", "--format", "csv"]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(script.as_bytes()).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        assert_eq!(text(&output.stdout), expected, "{target:?}: {output:?}");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).starts_with("error: "), "{output:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_is_a_connection_error() {
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("file");
    fs::write(&file, "").unwrap();
    // A port that nothing listens on any more.
    let server = TestServer::start().await;
    let [_, gone] = targets(&server);
    server.stop().await;
    let not_a_dir = ["--artifact-dir".into(), file.display().to_string()];
    for target in [gone, not_a_dir] {
        let output = jammi(files.path(), &target, &["query", "select 1"]).output();
        let output = output.await.unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).starts_with("error: "), "{output:?}");
        let named = target[1].as_str();
        assert!(text(&output.stderr).contains(named), "{output:?}");
    }
}
