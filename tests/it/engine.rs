//! The engine by its embedding API: sources of every kind, scoped.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use jammi_db::TenantId;
use jammi_db::config::JammiConfig;
use jammi_db::engine::{RegisterSource, TenantColumnChoice};
use jammi_db::error::Error;
use jammi_db::session::JammiSession;
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;

pub const A: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a";
pub const B: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b";
const SECRET: &str = "bobs-secret";

struct World {
    dir: TempDir,
    shared: JammiSession,
    alice: JammiSession,
    bob: JammiSession,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = JammiConfig {
            artifact_dir: dir.path().join("artifacts"),
            ..JammiConfig::default()
        };
        let shared = JammiSession::new(config).await.unwrap();
        let bound = |tenant| {
            JammiSession::on(shared.engine().clone())
                .with_tenant(TenantId::from_str(tenant).unwrap())
        };
        World {
            alice: bound(A),
            bob: bound(B),
            dir,
            shared,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Notes of Alice, of Bob and shared: ids 1 to 6, Bob's hold his secret.
    fn write_notes(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        write_parquet(&path, &notes());
        path
    }
}

fn notes() -> RecordBatch {
    let upper = A.to_ascii_uppercase();
    RecordBatch::try_from_iter([
        (
            "id",
            Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5, 6])) as ArrayRef,
        ),
        (
            "tenant_id",
            Arc::new(StringArray::from(vec![
                Some(A),
                Some(B),
                None,
                Some(&upper),
                Some(B),
                Some("neither"),
            ])) as ArrayRef,
        ),
        (
            "title",
            Arc::new(StringArray::from(vec![
                "a1", SECRET, "shared", "a4", SECRET, "lost",
            ])) as ArrayRef,
        ),
        (
            "secret",
            Arc::new(Int64Array::from(vec![1, 777, 3, 4, 777, 6])) as ArrayRef,
        ),
    ])
    .unwrap()
}

fn write_parquet(path: &Path, batch: &RecordBatch) {
    let mut writer =
        ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

async fn add(
    session: &JammiSession,
    name: &str,
    location: &Path,
) -> jammi_db::error::Result<Vec<String>> {
    add_with(session, name, location, TenantColumnChoice::Infer).await
}

async fn add_with(
    session: &JammiSession,
    name: &str,
    location: &Path,
    tenant_column: TenantColumnChoice,
) -> jammi_db::error::Result<Vec<String>> {
    let request = RegisterSource {
        name: name.into(),
        location: location.to_str().unwrap().into(),
        format: None,
        tenant_column,
    };
    session
        .register_source(request)
        .await
        .map(|registered| registered.notices)
}

async fn rows(session: &JammiSession, sql: &str) -> String {
    match session.sql(sql).await {
        Ok(batches) => {
            let text = pretty_format_batches(&batches).unwrap().to_string();
            let mut lines: Vec<String> = text
                .lines()
                .filter(|line| line.starts_with('|'))
                .skip(1)
                .map(|line| {
                    line.trim_matches('|')
                        .split('|')
                        .map(str::trim)
                        .collect::<Vec<_>>()
                        .join(",")
                })
                .collect();
            lines.sort();
            lines.join(" ")
        }
        Err(error) => format!("error: {error}"),
    }
}

async fn check(session: &JammiSession, sql: &str, expected: &str) {
    assert_eq!(rows(session, sql).await, expected, "{sql}");
}

#[tokio::test]
async fn a_shared_file_shows_each_tenant_its_own_and_the_shared_rows() {
    let world = World::new().await;
    let path = world.write_notes("notes.parquet");
    let notices = add(&world.shared, "notes", &path).await.unwrap();
    assert!(notices[0].contains("tenant_id"), "{notices:?}");
    let ids = "SELECT id FROM notes.public.notes";
    check(&world.alice, ids, "1 3 4").await;
    check(&world.bob, ids, "2 3 5").await;
    check(&world.shared, ids, "3").await;
    for (sql, expected) in [
        ("SELECT count(*) FROM notes.public.notes", "3"),
        ("SELECT max(id), min(id) FROM notes.public.notes", "4,1"),
        (
            "SELECT id FROM notes.public.notes WHERE id = 1 OR tenant_id = '018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b'",
            "1",
        ),
        (
            "SELECT id FROM notes.public.notes WHERE tenant_id = '018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b'",
            "",
        ),
        ("SELECT (SELECT max(id) FROM notes.public.notes) AS m", "4"),
        (
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM notes.public.notes WHERE id = 2)",
            "",
        ),
        (
            "SELECT 1 WHERE 2 IN (SELECT id FROM notes.public.notes)",
            "",
        ),
        (
            "SELECT id FROM notes.public.notes ORDER BY id DESC LIMIT 1",
            "4",
        ),
        (
            "SELECT a.id FROM notes.public.notes a JOIN notes.public.notes b ON a.id = b.id + 1",
            "4",
        ),
        (
            "WITH n AS (SELECT id FROM notes.public.notes) SELECT count(*) FROM n",
            "3",
        ),
        (
            "SELECT count(*) FROM (SELECT id FROM notes.public.notes UNION ALL SELECT id FROM notes.public.notes)",
            "6",
        ),
        (
            "SELECT id FROM notes.public.notes WHERE 1/(secret-777) = 0",
            "1 3 4",
        ),
        (
            "SELECT sum(id) OVER () FROM notes.public.notes LIMIT 1",
            "8",
        ),
        (
            "SELECT id FROM NOTES.Public.\"notes\" WHERE title = 'a1'",
            "1",
        ),
    ] {
        check(&world.alice, sql, expected).await;
    }
}

#[tokio::test]
async fn names_belong_to_a_lane() {
    let world = World::new().await;
    let alices = world.write("a/inbox.csv", "id,subject\n1,hello\n");
    let bobs = world.write("b/inbox.csv", "id,subject\n2,bobs-secret\n");
    let shared = world.write("s/inbox.csv", "id,subject\n3,all\n");
    add(&world.shared, "inbox", &shared).await.unwrap();
    check(&world.alice, "SELECT id FROM inbox.public.inbox", "3").await;
    add(&world.alice, "inbox", &alices).await.unwrap();
    add(&world.bob, "inbox", &bobs).await.unwrap();
    check(&world.alice, "SELECT id FROM inbox.public.inbox", "1").await;
    check(&world.bob, "SELECT id FROM inbox.public.inbox", "2").await;
    check(&world.shared, "SELECT id FROM inbox.public.inbox", "3").await;
    add(&world.bob, "only_bobs", &bobs).await.unwrap();
    let foreign = rows(&world.alice, "SELECT * FROM only_bobs.public.only_bobs").await;
    let missing = rows(&world.alice, "SELECT * FROM only_boby.public.only_boby").await;
    assert_eq!(
        foreign.replace("only_bobs", "X"),
        missing.replace("only_boby", "X")
    );
    assert!(foreign.contains("does not exist"), "{foreign}");
    let listed = rows(
        &world.alice,
        "SELECT table_name FROM information_schema.tables",
    )
    .await;
    assert!(!listed.contains("only_bobs"), "{listed}");
    assert!(listed.contains("inbox"), "{listed}");
    check(
        &world.alice,
        "SELECT name FROM jammi.catalog.sources",
        "inbox",
    )
    .await;
    check(&world.bob, "SELECT name FROM sources", "inbox only_bobs").await;
    assert!(matches!(
        world.alice.drop_source("only_bobs").await,
        Err(Error::NotFound(_))
    ));
    assert!(matches!(
        add(&world.alice, "inbox", &alices).await,
        Err(Error::AlreadyExists(_))
    ));
}

#[tokio::test]
async fn every_format_and_layout_is_read() {
    let world = World::new().await;
    let csv = world.write("x.csv", "id,tenant_id\n1,\n");
    let json = world.write("x.json", r#"[{"id": 1, "tenant_id": null}, {"id": 2, "tenant_id": "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a"}]"#);
    let ndjson = world.write("x.ndjson", "{\"id\": 1, \"tenant_id\": null}\n{\"id\": 2, \"tenant_id\": \"018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a\"}\n");
    for (name, path, alices, bobs) in [
        ("csv", &csv, "1", "1"),
        ("json", &json, "1 2", "1"),
        ("ndjson", &ndjson, "1 2", "1"),
    ] {
        add(&world.shared, name, path).await.unwrap();
        let sql = format!("SELECT id FROM {name}.public.{name}");
        check(&world.alice, &sql, alices).await;
        check(&world.bob, &sql, bobs).await;
    }
    world.write(&format!("hive/tenant_id={A}/day=1/x.csv"), "id\n1\n");
    world.write(&format!("hive/tenant_id={B}/day=1/x.csv"), "id\n2\n");
    world.write(
        &format!("hive/tenant_id={B}/day=2/broken.csv"),
        "id,more\n3\n4,5,6\n",
    );
    world.write(
        "hive/tenant_id=__HIVE_DEFAULT_PARTITION__/day=2/x.csv",
        "id\n3\n",
    );
    let hive = world.path("hive/");
    let error = add(&world.shared, "hive", &hive).await.unwrap_err();
    assert!(error.to_string().contains("broken.csv"), "{error}");
    fs::remove_file(world.path(&format!("hive/tenant_id={B}/day=2/broken.csv"))).unwrap();
    add(&world.shared, "hive", &hive).await.unwrap();
    check(
        &world.alice,
        "SELECT id, day FROM hive.public.hive",
        "1,1 3,2",
    )
    .await;
    check(
        &world.alice,
        "SELECT id FROM hive.public.hive WHERE day = 2",
        "3",
    )
    .await;
    check(&world.bob, "SELECT id FROM hive.public.hive", "2 3").await;
    // A file of Bob's that does not fit is Bob's trouble alone.
    world.write(
        &format!("hive/tenant_id={B}/day=2/broken.csv"),
        "id,more\n3\n4,5,6\n",
    );
    check(&world.alice, "SELECT id FROM hive.public.hive", "1 3").await;
    assert!(
        rows(&world.bob, "SELECT id FROM hive.public.hive")
            .await
            .contains("cannot be read as csv")
    );

    let part = |n: i64| {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![n])) as ArrayRef)])
            .unwrap()
    };
    write_parquet(&world.path("many/1.parquet"), &part(1));
    write_parquet(&world.path("many/2.parquet"), &part(2));
    world.write("many/readme.txt", "no data");
    add(&world.alice, "dir", &world.path("many")).await.unwrap();
    check(&world.alice, "SELECT n FROM dir.public.dir", "1 2").await;
    add(&world.alice, "glob", &world.path("many/1*.parquet"))
        .await
        .unwrap();
    check(&world.alice, "SELECT n FROM glob.public.glob", "1").await;
    // New files of a directory are seen; the schema is kept until refreshed.
    write_parquet(&world.path("many/3.parquet"), &part(3));
    check(&world.alice, "SELECT n FROM dir.public.dir", "1 2 3").await;
}

/// Bob's value does not parse as the column's type: Alice must not notice.
#[tokio::test]
async fn a_broken_value_of_another_lane_is_not_met() {
    let world = World::new().await;
    let mut text = String::from("id,tenant_id,amount\n");
    for id in 0..11_000 {
        text += &format!("{id},{A},1\n");
    }
    text += &format!("99999,{B},{SECRET}\n");
    let path = world.write("amounts.csv", &text);
    add(&world.shared, "amounts", &path).await.unwrap();
    let sql = "SELECT sum(amount) FROM amounts.public.amounts";
    check(&world.alice, sql, "11000").await;
    let bobs = rows(&world.bob, sql).await;
    assert!(bobs.contains("amount") && bobs.contains("Int64"), "{bobs}");
}

#[tokio::test]
async fn a_file_without_the_tenant_column_is_refused_and_never_shared() {
    let world = World::new().await;
    let path = world.write_notes("mixed/1.parquet");
    let bare =
        RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![66])) as ArrayRef)])
            .unwrap();
    write_parquet(&world.path("mixed/2.parquet"), &bare);
    let dir = path.parent().unwrap().to_owned();
    let error = add(&world.shared, "mixed", &dir).await.unwrap_err();
    assert!(error.to_string().contains("2.parquet"), "{error}");
    fs::remove_file(world.path("mixed/2.parquet")).unwrap();
    add(&world.shared, "mixed", &dir).await.unwrap();
    check(&world.alice, "SELECT id FROM mixed.public.mixed", "1 3 4").await;
    // One that comes later is refused when it is met.
    write_parquet(&world.path("mixed/2.parquet"), &bare);
    for session in [&world.alice, &world.bob, &world.shared] {
        let answer = rows(session, "SELECT id FROM mixed.public.mixed").await;
        assert!(
            answer.contains("error") && answer.contains("tenant_id"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn plans_show_nothing_of_what_is_read_underneath() {
    let world = World::new().await;
    let path = world.write_notes("bobs-secret-file.parquet");
    add(&world.shared, "notes", &path).await.unwrap();
    for explain in [
        "EXPLAIN",
        "EXPLAIN VERBOSE",
        "EXPLAIN ANALYZE",
        "EXPLAIN ANALYZE VERBOSE",
        "EXPLAIN (FORMAT TREE)",
    ] {
        let plan = rows(
            &world.alice,
            &format!("{explain} SELECT count(*) FROM notes.public.notes WHERE id > 0"),
        )
        .await;
        assert!(!plan.contains("error:"), "{plan}");
        for leak in [
            SECRET,
            B,
            "row_groups",
            "bytes_scanned",
            "Rows=Exact(6",
            "Rows=Exact(3",
        ] {
            assert!(!plan.contains(leak), "{explain} shows {leak}: {plan}");
        }
        assert!(plan.contains("GuardExec"), "{plan}");
    }
}

#[tokio::test]
async fn parameters_are_typed_and_counted() {
    use datafusion::common::ScalarValue;
    use futures::TryStreamExt;
    let world = World::new().await;
    let path = world.write_notes("notes.parquet");
    add(&world.shared, "notes", &path).await.unwrap();
    for sql in [
        "SELECT id FROM notes.public.notes WHERE id = ? AND title = ?",
        "SELECT id FROM notes.public.notes WHERE id = $1 AND title = $2",
    ] {
        let values = [ScalarValue::Int32(Some(1)), ScalarValue::from("a1")];
        let stream = world.alice.sql_with(sql, &values).await.unwrap();
        let batches: Vec<RecordBatch> = stream.try_collect().await.unwrap();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
        let Err(error) = world.alice.sql_with(sql, &values[..1]).await else {
            panic!("one value for two parameters")
        };
        assert!(error.to_string().contains("2 parameters"), "{error}");
        let wrong = [ScalarValue::from("x"), ScalarValue::from("a1")];
        let Err(error) = world.alice.sql_with(sql, &wrong).await else {
            panic!("text for an integer")
        };
        assert!(error.to_string().contains("$1"), "{error}");
    }
}

#[tokio::test]
async fn a_rebound_session_answers_for_its_new_tenant() {
    let world = World::new().await;
    let path = world.write_notes("notes.parquet");
    add(&world.shared, "notes", &path).await.unwrap();
    let session = JammiSession::on(world.shared.engine().clone());
    let sql = "SELECT id FROM notes.public.notes";
    for _ in 0..3 {
        session.bind_tenant(&TenantId::from_str(A).unwrap());
        check(&session, sql, "1 3 4").await;
        session.bind_tenant(&TenantId::from_str(B).unwrap());
        check(&session, sql, "2 3 5").await;
        session.unbind_tenant();
        check(&session, sql, "3").await;
    }
}

#[tokio::test]
async fn wrong_statements_get_one_clear_error() {
    let world = World::new().await;
    for (sql, says) in [
        ("SELECT * FROM nowhere", "table `nowhere` does not exist"),
        ("SELECT * FROM '/etc/passwd'", "does not exist"),
        ("SELECT nothing", "nothing"),
        ("SELECT 1/0", "zero"),
        ("INSERT INTO sources VALUES (1)", "not a stored table"),
        ("COPY (SELECT 1) TO '/tmp/x.csv'", "COPY"),
        (
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
            "not",
        ),
        ("SELECT * FROM read_csv('/etc/passwd')", "does not exist"),
        ("SELECT CAST('x' AS INT)", "x"),
        ("SET datafusion.execution.batch_size = 1", "SET"),
    ] {
        let answer = rows(&world.alice, sql).await;
        assert!(
            answer.starts_with("error: ") && answer.contains(says),
            "{sql}: {answer}"
        );
    }
    check(
        &world.alice,
        "SELECT count(*) FROM generate_series(1, 10)",
        "10",
    )
    .await;
    check(&world.alice, "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT i FROM n", "1 2 3").await;
}

#[tokio::test]
async fn files_that_cannot_be_read_are_not_registered() {
    let world = World::new().await;
    let mut magic = b"PAR1".to_vec();
    magic.extend([b'x'; 100]);
    magic.extend(b"PAR1");
    let damaged = world.path("damaged.parquet");
    fs::write(&damaged, magic).unwrap();
    let torn = world.write_notes("torn.parquet");
    let whole = fs::read(&torn).unwrap();
    fs::write(&torn, &whole[..whole.len() / 2]).unwrap();
    let text = world.write("text.parquet", "no parquet");
    let empty = world.write("empty.csv", "");
    let twice = world.write("twice.csv", "a,a\n1,2\n");
    let uneven = world.write("uneven.csv", "a,b\n1,2\n1,2,3\n");
    let nothing = world.path("nothing.csv");
    for path in [&damaged, &torn, &text, &empty, &twice, &uneven, &nothing] {
        let error = add(&world.alice, "unread", path).await.unwrap_err();
        assert!(
            matches!(error, Error::DataLoss(_) | Error::InvalidArgument(_)),
            "{path:?}: {error:?}"
        );
        assert!(world.alice.list_sources().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_file_that_breaks_later_is_one_error_that_names_the_line() {
    let world = World::new().await;
    let mut text = String::from("id,amount\n");
    for id in 0..50_000 {
        text += &format!("{id},{id}\n");
    }
    let path = world.write("late.csv", &(text + "oops,7\n"));
    add(&world.alice, "late", &path).await.unwrap();
    let answer = rows(&world.alice, "SELECT sum(id) FROM late.public.late").await;
    assert!(
        answer.contains("late.public.late") && answer.contains("50001"),
        "{answer}"
    );
}

/// Symptom: a `.json` file of a lone `{` was reported as having "no columns".
#[tokio::test]
async fn a_broken_json_file_is_told_as_such() {
    let world = World::new().await;
    for (name, text) in [("cut.json", "{"), ("cut.ndjson", "{"), ("empty.json", "[]")] {
        let path = world.write(name, text);
        let error = add(&world.alice, "cut", &path).await.unwrap_err();
        assert!(matches!(error, Error::DataLoss(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(name), "{text}");
        assert!(!text.contains("no columns"), "{text}");
    }
}

/// Symptom: a described column of text was a Utf8View, and the rows had Utf8.
#[tokio::test]
async fn what_is_described_is_what_is_read() {
    let world = World::new().await;
    let path = world.write_notes("notes.parquet");
    add(&world.shared, "notes", &path).await.unwrap();
    let source = world.shared.describe_source("notes").await.unwrap();
    let described = &source.definition.schema;
    let rows = world.alice.sql("SELECT * FROM notes.public.notes").await;
    let read = rows.unwrap()[0].schema();
    assert_eq!(described.fields().len(), read.fields().len());
    for (described, read) in described.fields().iter().zip(read.fields()) {
        assert_eq!(described.data_type(), read.data_type(), "{}", read.name());
    }
}
