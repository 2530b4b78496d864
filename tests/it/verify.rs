//! `jammi verify` on installations that are as they should be, and on damaged ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use jammi_db::config::JammiConfig;
use jammi_db::engine::{RegisterSource, TenantColumnChoice};
use jammi_db::session::JammiSession;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::cli::{jammi, text};
use crate::harness::{ALICE, BOB};

/// Tables, a view, a model and sources of two tenants and of everybody.
struct Installed {
    dir: TempDir,
    files: TempDir,
}

impl Installed {
    async fn new() -> Self {
        let installed = Installed {
            dir: tempfile::tempdir().unwrap(),
            files: tempfile::tempdir().unwrap(),
        };
        let config = JammiConfig {
            artifact_dir: installed.dir.path().to_owned(),
            ..JammiConfig::default()
        };
        let shared = JammiSession::new(config).await.unwrap();
        shared
            .sql("CREATE TABLE notes (id BIGINT PRIMARY KEY, title VARCHAR)")
            .await
            .unwrap();
        installed.write_inbox(&format!(
            "{{\"id\":1,\"tenant_id\":\"{ALICE}\"}}\n{{\"id\":2,\"tenant_id\":\"{BOB}\"}}\n\
             {{\"id\":3,\"tenant_id\":null}}\n"
        ));
        register(
            &shared,
            "inbox",
            &installed.inbox(),
            TenantColumnChoice::Infer,
        )
        .await;
        for (tenant, word) in [(ALICE, "hers"), (BOB, "his-canary")] {
            let bound = JammiSession::on(shared.engine().clone());
            let bound = bound.with_tenant(tenant.parse().unwrap());
            for sql in [
                &format!("INSERT INTO notes VALUES (1, '{word}')"),
                "CREATE TABLE own AS SELECT 1 AS one",
                "CREATE VIEW seen AS SELECT title FROM notes WHERE 1 / id = 1",
            ] {
                bound.sql(sql).await.unwrap();
            }
        }
        drop(shared);
        installed
    }

    fn write_inbox(&self, rows: &str) {
        fs::write(self.inbox(), rows).unwrap();
    }

    fn inbox(&self) -> PathBuf {
        self.files.path().join("inbox.ndjson")
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.files.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    fn lane(&self, tenant: &str) -> PathBuf {
        self.dir.path().join(format!("tenants/{tenant}.db"))
    }

    async fn verify(&self, arguments: &[&str]) -> Output {
        let target = [
            "--artifact-dir".into(),
            self.dir.path().display().to_string(),
        ];
        let arguments = [&["verify"], arguments].concat();
        let mut command = jammi(self.files.path(), &target, &arguments);
        command.output().await.unwrap()
    }

    /// What `verify` says is broken: each invariant, and the lines about it.
    async fn broken(&self, arguments: &[&str]) -> Vec<(String, Vec<String>)> {
        let output = self.verify(arguments).await;
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{stdout}{stderr}");
        assert!(stderr.contains("invariants do not hold"), "{stderr}");
        let mut broken: Vec<(String, Vec<String>)> = Vec::new();
        for line in stdout.lines() {
            match line.strip_prefix("  ") {
                None if line.contains(" does not hold (") => {
                    let (name, _) = line.split_once(' ').unwrap();
                    broken.push((name.to_owned(), Vec::new()));
                }
                None => {}
                Some(line) => broken.last_mut().unwrap().1.push(line.to_owned()),
            }
        }
        // Nobody's rows are told.
        for word in ["hers", "his-canary", "planted"] {
            let of_statements = stdout.lines().filter(|line| !line.contains("> "));
            assert!(
                of_statements.clone().all(|line| !line.contains(word)),
                "{stdout}"
            );
        }
        broken
    }
}

async fn register(
    session: &JammiSession,
    name: &str,
    path: &Path,
    tenant_column: TenantColumnChoice,
) {
    let request = RegisterSource {
        name: name.into(),
        location: path.display().to_string(),
        format: None,
        tenant_column,
    };
    session.register_source(request).await.unwrap();
}

fn names(broken: &[(String, Vec<String>)]) -> Vec<&str> {
    broken.iter().map(|(name, _)| name.as_str()).collect()
}

/// The file of a lane, with nothing beside it.
fn opened(lane: &Path) -> Connection {
    let connection = Connection::open(lane).unwrap();
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    connection.query_row(checkpoint, [], |_| Ok(())).unwrap();
    connection
}

fn bytes(tenant: &str) -> String {
    format!("x'{}'", tenant.replace('-', ""))
}

const STANDARD: [&str; 5] = [
    "no_cross_tenant_data",
    "catalog_rows_are_their_lanes",
    "every_table_can_be_read",
    "scans_are_guarded",
    "lane_files_are_sound",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_as_it_should_be_holds() {
    let installed = Installed::new().await;
    let statements = installed.file(
        "recorded.sql",
        "SELECT * FROM notes; SELECT count(*) FROM inbox.public.inbox;\nEXPLAIN SELECT * FROM seen;\n\
         SELECT title, now() FROM seen; SELECT * FROM missing; SELECT random();",
    );
    let canary = format!("{BOB}=his-canary");
    for (arguments, invariants) in [
        (&[][..], 5),
        (&["--tenant", ALICE], 5),
        (&["--statements", &statements, "--canary", &canary], 6),
    ] {
        let output = installed.verify(arguments).await;
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
        let lines: Vec<&str> = stdout.lines().collect();
        assert_eq!(lines.len(), invariants, "{stdout}");
        for (line, name) in lines.iter().zip(STANDARD) {
            assert!(line.starts_with(&format!("{name} holds (")), "{line}");
        }
        assert!(!stdout.contains("his-canary"), "{stdout}");
    }
    // Nothing was left, and nothing was written.
    for tenant in [ALICE, BOB] {
        let lane = opened(&installed.lane(tenant));
        let count = "SELECT count(*) FROM relations";
        let count: i64 = lane.query_row(count, [], |row| row.get(0)).unwrap();
        assert_eq!(count, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_another_tenant_in_a_lane_is_found() {
    let installed = Installed::new().await;
    let lane = opened(&installed.lane(ALICE));
    let found = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'g%'";
    let table: String = lane.query_row(found, [], |row| row.get(0)).unwrap();
    let plant = format!(
        "PRAGMA ignore_check_constraints = 1;
         INSERT INTO {table} (tenant_id, c1, c2) VALUES ({}, 9, 'planted')",
        bytes(BOB)
    );
    lane.execute_batch(&plant).unwrap();
    drop(lane);

    let broken = installed.broken(&[]).await;
    // SQLite finds it too.
    assert_eq!(names(&broken), [STANDARD[0], STANDARD[4]]);
    let asked = format!(
        "  tenants/{ALICE}.db> SELECT count(*) FROM \"{table}\" WHERE tenant_id IS NOT '{ALICE}' \
         AND tenant_id IS NOT {}",
        bytes(ALICE)
    );
    let said = format!("tenants/{ALICE}.db holds a row that is not of its lane:");
    assert_eq!(broken[0].1, [said, asked]);
    // It is nobody else's business.
    let output = installed.verify(&["--tenant", BOB]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_another_tenant_in_a_catalog_is_found() {
    let installed = Installed::new().await;
    let lane = opened(&installed.lane(ALICE));
    let change = "UPDATE relations SET tenant_id = ?1 WHERE name = 'seen'";
    lane.execute(change, [BOB]).unwrap();
    drop(lane);
    let broken = installed.broken(&[]).await;
    assert_eq!(names(&broken), [STANDARD[1]]);
    let [said, asked] = broken[0].1.as_slice() else {
        panic!("{broken:?}")
    };
    assert!(
        said.starts_with(&format!("tenants/{ALICE}.db holds a row")),
        "{said}"
    );
    assert!(asked.contains("FROM \"relations\""), "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_that_changed_places_are_found() {
    let installed = Installed::new().await;
    let [hers, his] = [ALICE, BOB].map(|tenant| installed.lane(tenant));
    for lane in [&hers, &his] {
        drop(opened(lane));
        for beside in ["-wal", "-shm"] {
            let beside = format!("{}{beside}", lane.display());
            if Path::new(&beside).exists() {
                fs::remove_file(beside).unwrap();
            }
        }
    }
    let aside = installed.dir.path().join("aside");
    fs::rename(&hers, &aside).unwrap();
    fs::rename(&his, &hers).unwrap();
    fs::rename(&aside, &his).unwrap();

    let broken = installed.broken(&[]).await;
    assert_eq!(names(&broken), [STANDARD[0], STANDARD[1]]);
    for (name, lines) in &broken {
        for tenant in [ALICE, BOB] {
            let start = format!("tenants/{tenant}.db holds ");
            assert!(
                lines.iter().any(|line| line.starts_with(&start)),
                "{name}: {lines:?}"
            );
        }
        // Each is shown by one question.
        let (said, asked): (Vec<_>, Vec<_>) = lines.iter().partition(|l| !l.starts_with("  "));
        assert_eq!(said.len(), asked.len(), "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_lost_its_tenant_column_is_found() {
    let installed = Installed::new().await;
    installed.write_inbox("{\"id\":1}\n{\"id\":2}\n");
    let broken = installed.broken(&[]).await;
    assert_eq!(names(&broken), [STANDARD[2]]);
    let asked = "> SELECT count(tenant_id) FROM inbox.public.inbox";
    for (at, asker) in ["no tenant", ALICE, BOB].into_iter().enumerate() {
        let lines = &broken[0].1[2 * at..2 * at + 2];
        assert!(lines[0].contains("source `inbox`"), "{lines:?}");
        assert_eq!(lines[1], format!("  {asker}{asked}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_statement_that_shows_others_is_found() {
    let installed = Installed::new().await;
    let config = JammiConfig {
        artifact_dir: installed.dir.path().to_owned(),
        ..JammiConfig::default()
    };
    let open = installed.file("open.csv", &format!("who,word\n{BOB},his-canary\n"));
    let shared = JammiSession::new(config).await.unwrap();
    register(
        &shared,
        "open",
        Path::new(&open),
        TenantColumnChoice::Waived,
    )
    .await;
    drop(shared);
    let recorded = "SELECT 1 AS one; SELECT * FROM notes; SELECT upper(who) FROM open.public.open;\n\
                    SELECT word FROM open.public.open";
    let statements = installed.file("recorded.sql", recorded);
    let canary = format!("{BOB}=his-canary");
    let arguments = [
        "--tenant",
        ALICE,
        "--statements",
        &statements,
        "--canary",
        &canary,
    ];
    let broken = installed.broken(&arguments).await;
    assert_eq!(names(&broken), ["recorded_statements"]);
    let lines: Vec<&str> = broken[0].1.iter().map(String::as_str).collect();
    for (said, asked) in [
        (
            format!("{ALICE} is shown {BOB}:"),
            "SELECT upper(who) FROM open.public.open",
        ),
        (
            format!("{ALICE} is shown what is {BOB}'s:"),
            "SELECT word FROM open.public.open",
        ),
    ] {
        let at = lines.iter().position(|line| *line == said).expect(&said);
        // The last of those that were asked alike.
        assert!(
            lines[at + 1].starts_with(&format!("  {ALICE}")),
            "{lines:?}"
        );
        assert!(lines[at + 1].ends_with(&format!("> {asked}")), "{lines:?}");
        assert!(
            lines.get(at + 2).is_none_or(|line| !line.starts_with("  ")),
            "{lines:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_verified_is_refused() {
    let installed = Installed::new().await;
    for (statement, says) in [
        ("SELECT 1; DELETE FROM notes", "the statement writes"),
        ("CREATE TABLE x (id BIGINT)", "the statement writes"),
        ("BEGIN", "the statement writes"),
        (
            &format!("SET app.current_tenant_id = '{BOB}'"),
            "the statement writes",
        ),
        ("COPY notes TO '/tmp/x'", "is not served"),
        ("SELEC 1", "does not parse"),
        (" ; ", "has no statement"),
    ] {
        let statements = installed.file("recorded.sql", statement);
        let output = installed.verify(&["--statements", &statements]).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{statement}: {said}");
        assert!(said.contains(says), "{statement}: {said}");
        assert_eq!(text(&output.stdout), "");
    }
    let dir = installed.files.path();
    let nothing = dir.join("nothing").display().to_string();
    for (target, arguments, says) in [
        (
            ["--artifact-dir", &nothing],
            &["verify"][..],
            "holds no installation",
        ),
        (
            ["--url", "grpc://127.0.0.1:1"],
            &["verify"],
            "--artifact-dir instead",
        ),
        (
            ["--artifact-dir", &nothing],
            &["verify", "--canary", "x=y"],
            "--canary",
        ),
    ] {
        let target = target.map(str::to_owned);
        let output = jammi(dir, &target, arguments).output().await.unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(says), "{said}");
    }
    assert!(!Path::new(&nothing).exists());
}
