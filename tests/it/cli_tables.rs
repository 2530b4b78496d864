//! `jammi tables`, `backup` and `restore` as processes, beside a running server.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use tokio::io::AsyncWriteExt;

use crate::cli::{jammi, on_both, targets, text};
use crate::harness::{ALICE, BOB, TestServer};

fn write_parquet(path: &Path) {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("title", DataType::Utf8View, true),
    ]);
    let file = File::create(path).unwrap();
    let writer = ArrowWriter::try_new(file, Arc::new(schema), None).unwrap();
    writer.close().unwrap();
}

/// What a command that is to succeed says on stdout.
async fn says(dir: &Path, target: &[String], arguments: &[&str]) -> String {
    let output = jammi(dir, target, arguments).output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    assert_eq!(text(&output.stderr), "", "{arguments:?}");
    text(&output.stdout).to_owned()
}

/// The error of a command that is to fail.
async fn fails(dir: &Path, target: &[String], arguments: &[&str], code: i32) -> String {
    let output = jammi(dir, target, arguments).output().await.unwrap();
    assert_eq!(
        output.status.code(),
        Some(code),
        "{arguments:?}: {output:?}"
    );
    assert_eq!(text(&output.stdout), "", "{arguments:?}");
    text(&output.stderr).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_managed_alike_from_both_targets() {
    let server = TestServer::start().await;
    let files = tempfile::tempdir().unwrap();
    let dir = files.path();
    write_parquet(&dir.join("notes.parquet"));
    for (number, target) in targets(&server).iter().enumerate() {
        // What the one target makes, the other sees.
        let name = format!("notes{number}");
        let alice = |words: &[&str]| -> Vec<String> {
            let words = words.iter().copied().chain(["--tenant", ALICE]);
            words.map(|word| word.replace("NAME", &name)).collect()
        };
        let run = async |words: &[&str]| {
            let words = alice(words);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            says(dir, target, &words).await
        };
        let from = ["tables", "create", "NAME", "--schema-from", "notes.parquet"];
        let keys = ["--primary-key", "id", "--unique", "title,id"];
        let create = [&from[..], &keys[..]].concat();
        assert_eq!(
            run(&create).await,
            format!("created mutable.public.{name} (3 columns, primary key id)\n")
        );
        let again = [&create[..], &["--if-not-exists"]].concat();
        assert_eq!(
            run(&again).await,
            format!("mutable.public.{name} is there (3 columns, primary key id)\n")
        );
        let columns =
            "id BIGINT PRIMARY KEY, title VARCHAR NOT NULL DEFAULT '-' CHECK (title <> '')";
        assert_eq!(
            run(&["tables", "create", "more NAME", "--columns", columns]).await,
            format!("created mutable.public.\"more {name}\" (3 columns, primary key id)\n")
        );
        assert_eq!(
            run(&[
                "query",
                "--format",
                "csv",
                "INSERT INTO NAME (id, title) VALUES (1, 'a'), (2, 'b')"
            ])
            .await,
            "count\n2\n"
        );
        assert_eq!(
            run(&["query", "CREATE INDEX by_title_NAME ON NAME (title)"]).await,
            ""
        );
        assert_eq!(
            run(&[
                "query",
                "--format",
                "csv",
                "DELETE FROM NAME WHERE id = 2 RETURNING title"
            ])
            .await,
            "title\nb\n"
        );
    }
    for (arguments, code, expected) in [
        (
            &["tables", "list", "--format", "csv"][..],
            0,
            "notes1,mutable.public.notes1,tenant,table,id,",
        ),
        (
            &["tables", "describe", "more notes0"],
            0,
            "| title     | Utf8  | false    | '-'     |",
        ),
        (
            &["tables", "describe", "notes0"],
            0,
            "| notes0_title_id_key | unique      | title, id |",
        ),
        (
            &["tables", "describe", "more notes1"],
            0,
            "| more notes1_title_check | check       | title <> '' |",
        ),
        (
            &["tables", "describe", "notes1", "--format", "ndjson"],
            0,
            "\"indexes\":[{\"name\":\"notes1_pkey\",\"kind\":\"primary key\",\"columns\":[\"id\"]},",
        ),
        (
            &["tables", "describe", "nothing"],
            1,
            "table `nothing` does not exist",
        ),
        (
            &["tables", "drop", "nothing"],
            1,
            "table `nothing` does not exist",
        ),
        (
            &["tables", "create", "notes0", "--columns", "id INT"],
            1,
            "exists already",
        ),
        (
            &["tables", "create", "x", "--columns", "id INT); SELECT (1"],
            1,
            "more than one",
        ),
        (
            &["tables", "create", "x", "--columns", "id NOTHING"],
            1,
            "error: ",
        ),
        (
            &[
                "tables",
                "create",
                "x",
                "--schema-from",
                "notes.parquet",
                "--primary-key",
                "no",
            ],
            1,
            "column `no` does not exist",
        ),
        (
            &["tables", "create", "x", "--schema-from", "missing"],
            2,
            "schema of missing",
        ),
    ] {
        let words = [arguments, &["--tenant", ALICE]].concat();
        let output = on_both(&server, dir, &words).await;
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
        let said = if code == 0 {
            &output.stdout
        } else {
            &output.stderr
        };
        assert!(text(said).contains(expected), "{words:?}: {output:?}");
    }
    // Bob, and who is bound to nobody, see none of it.
    for tenant in [&["--tenant", BOB][..], &[]] {
        let list = [&["tables", "list", "--format", "json"], tenant].concat();
        let listed = on_both(&server, dir, &list).await;
        assert_eq!(text(&listed.stdout), "[]\n");
        let describe = [&["tables", "describe", "notes0"], tenant].concat();
        let foreign = on_both(&server, dir, &describe).await;
        let describe = [&["tables", "describe", "nobody"], tenant].concat();
        let missing = on_both(&server, dir, &describe).await;
        assert_eq!(
            text(&foreign.stderr),
            text(&missing.stderr).replace("nobody", "notes0")
        );
    }
    for (target, name) in targets(&server).iter().zip(["notes0", "notes1"]) {
        let drop = ["--tenant", ALICE, "tables", "drop", name];
        assert_eq!(
            says(dir, target, &drop).await,
            format!("dropped table {name}\n")
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_writes_in_order_and_describes_what_it_made() {
    let server = TestServer::start().await;
    let files = tempfile::tempdir().unwrap();
    let dir = files.path();
    let script = "CREATE TABLE t (id INT PRIMARY KEY, word TEXT);\n\
                  INSERT INTO t VALUES (1, 'a;'), (2, 'b');\n\
                  UPDATE t SET word = upper(word) WHERE id = 1 RETURNING word;\n\
                  SELECT count(*) AS n FROM t;\n\
                  INSERT INTO t VALUES (1, 'twice');\n\
                  DROP TABLE t;\n";
    fs::write(dir.join("script.sql"), script).unwrap();
    for (target, tenant) in targets(&server).iter().zip([ALICE, BOB]) {
        let query = [
            "--tenant",
            tenant,
            "query",
            "--format",
            "csv",
            "-f",
            "script.sql",
        ];
        let output = jammi(dir, target, &query).output().await.unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(text(&output.stdout), "count\n2\nword\nA;\nn\n2\n");
        let error = text(&output.stderr);
        assert!(
            error.starts_with("error: statement 5: ") && error.contains("`t_pkey`"),
            "{error}"
        );

        let shell = ["--tenant", tenant, "shell", "--format", "table"];
        let output = talk(dir, target, &shell, "\\d t\n\\d sources\n").await;
        let shown = text(&output.stdout);
        for expected in [
            "| sql_name    | mutable.public.t ",
            "| word      | Utf8  | true     | NULL    |",
            "| t_pkey     | primary key | id |",
            "| tenant_column ",
        ] {
            assert!(shown.contains(expected), "{expected}: {shown}");
        }
    }
    server.stop().await;
}

/// BEGIN and what belongs to it, which a lane of its own for each target shows
/// to be the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_script_has_transactions() {
    let server = TestServer::start().await;
    let files = tempfile::tempdir().unwrap();
    let dir = files.path();
    let setup = "CREATE TABLE t (n INT PRIMARY KEY)";
    let mut said = Vec::new();
    for (target, tenant) in targets(&server).iter().zip([ALICE, BOB]) {
        says(dir, target, &["--tenant", tenant, "query", setup]).await;
        let mut answers = Vec::new();
        for script in [
            "BEGIN; INSERT INTO t VALUES (1); SAVEPOINT a; INSERT INTO t VALUES (2); \
             ROLLBACK TO a; CREATE TABLE u (n INT); INSERT INTO u VALUES (9); COMMIT",
            "BEGIN; DELETE FROM t; SELECT count(*) AS n FROM t; ROLLBACK; SELECT n FROM t",
            "BEGIN; INSERT INTO t VALUES (3)",
            "BEGIN; INSERT INTO t VALUES (4); INSERT INTO t VALUES (1); COMMIT",
            "COMMIT",
            "BEGIN; BEGIN",
            "BEGIN; ROLLBACK TO nowhere",
            "SELECT n FROM t ORDER BY n; SELECT n FROM u",
        ] {
            let query = ["--tenant", tenant, "query", "--format", "csv", script];
            let output = jammi(dir, target, &query).output().await.unwrap();
            let [stdout, stderr] =
                [&output.stdout, &output.stderr].map(|bytes| text(bytes).to_owned());
            answers.push((output.status.code(), stdout, stderr));
        }
        said.push(answers);
    }
    assert_eq!(said[0], said[1]);
    let stdout: Vec<&str> = said[0]
        .iter()
        .map(|(_, stdout, _)| stdout.as_str())
        .collect();
    assert_eq!(
        stdout,
        [
            "count\n1\ncount\n1\ncount\n1\n",
            "count\n1\nn\n0\nn\n1\n",
            "count\n1\n",
            "count\n1\n",
            "",
            "",
            "",
            "n\n1\nn\n9\n",
        ]
    );
    server.stop().await;
}

async fn talk(dir: &Path, target: &[String], arguments: &[&str], script: &str) -> Output {
    let mut command = jammi(dir, target, arguments);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(script.as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    output
}

/// Beside a server that has the rows in its memory.
#[tokio::test(flavor = "multi_thread")]
async fn one_lane_is_backed_up_and_restored_while_a_server_runs() {
    let server = TestServer::start().await;
    let files = tempfile::tempdir().unwrap();
    let dir = files.path();
    let [embedded, remote] = targets(&server);
    let words = "SELECT word FROM t ORDER BY word";
    let query = async |tenant: &str, sql: &str| {
        says(
            dir,
            &remote,
            &["--tenant", tenant, "query", "--format", "csv", sql],
        )
        .await
    };
    let shared = "CREATE TABLE t (word TEXT)";
    says(dir, &remote, &["query", shared]).await;
    for tenant in [ALICE, BOB] {
        query(tenant, "CREATE TABLE own (n INT)").await;
        query(tenant, "INSERT INTO t (word) VALUES ('before')").await;
    }
    let backup = ["--tenant", ALICE, "backup", "alice.backup"];
    assert_eq!(
        says(dir, &embedded, &backup).await,
        format!("backed up the lane of tenant {ALICE} to alice.backup\n")
    );
    assert_eq!(
        says(dir, &embedded, &["backup", "shared.backup"]).await,
        "backed up the global lane to shared.backup\n"
    );
    for tenant in [ALICE, BOB] {
        query(tenant, "INSERT INTO t (word) VALUES ('after')").await;
        query(tenant, "DROP TABLE own").await;
        assert_eq!(query(tenant, words).await, "word\nafter\nbefore\n");
    }

    let restore = ["--tenant", ALICE, "restore", "alice.backup"];
    assert_eq!(
        says(dir, &embedded, &restore).await,
        format!("restored the lane of tenant {ALICE} from alice.backup\n")
    );
    assert_eq!(query(ALICE, words).await, "word\nbefore\n");
    assert_eq!(
        query(ALICE, "SELECT count(*) AS n FROM own").await,
        "n\n0\n"
    );
    assert_eq!(query(BOB, words).await, "word\nafter\nbefore\n");
    let gone = ["--tenant", BOB, "query", "SELECT * FROM own"];
    fails(dir, &remote, &gone, 1).await;
    // What is restored is written to like before.
    query(ALICE, "INSERT INTO t (word) VALUES ('anew')").await;
    assert_eq!(query(ALICE, words).await, "word\nanew\nbefore\n");

    fs::write(dir.join("nonsense"), "nonsense").unwrap();
    let none = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8eff";
    for (target, arguments, code, expected) in [
        (
            &embedded,
            &["--tenant", ALICE, "backup", "alice.backup"][..],
            2,
            "File exists",
        ),
        (
            &embedded,
            &["--tenant", ALICE, "backup", "no/where"],
            2,
            "No such file",
        ),
        (
            &embedded,
            &["--tenant", none, "backup", "x"],
            1,
            "nothing to back up",
        ),
        (
            &embedded,
            &["--tenant", BOB, "restore", "alice.backup"],
            1,
            "another tenant",
        ),
        (&embedded, &["restore", "alice.backup"], 1, "another tenant"),
        (
            &embedded,
            &["--tenant", BOB, "restore", "nonsense"],
            1,
            "damaged",
        ),
        (
            &embedded,
            &["--tenant", BOB, "restore", "missing"],
            2,
            "No such file",
        ),
        (
            &remote,
            &["--tenant", ALICE, "backup", "x"],
            2,
            "--artifact-dir",
        ),
        (
            &remote,
            &["--tenant", ALICE, "restore", "x"],
            2,
            "--artifact-dir",
        ),
    ] {
        let error = fails(dir, target, arguments, code).await;
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    assert_eq!(query(BOB, words).await, "word\nafter\nbefore\n");
    server.stop().await;
}
