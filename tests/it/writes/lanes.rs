//! What each kind of write leaves alone: the rows that it can read and not
//! write, and those of other tenants.

use super::*;

/// What everybody has of a shared table: Alice's two rows, one of Bob's and a
/// shared one, of the same keys.
struct Lanes {
    _server: TestServer,
    alice: Client,
    bob: Client,
    operator: Client,
}

const HERS: &str = "1|hers 2|hers";

impl Lanes {
    async fn new() -> Self {
        let (server, alice, bob) = world().await;
        let mut lanes = Lanes {
            operator: Client::connect(&server, None).await,
            _server: server,
            alice,
            bob,
        };
        let table = "CREATE TABLE words (id BIGINT PRIMARY KEY, word VARCHAR, tenant_id VARCHAR)";
        lanes.operator.update(table).await.unwrap();
        let rows = "INSERT INTO words (id, word) VALUES (1, 'shared')";
        lanes.operator.update(rows).await.unwrap();
        let rows = "INSERT INTO words (id, word) VALUES (1, 'his')";
        lanes.bob.update(rows).await.unwrap();
        let rows = "INSERT INTO words (id, word) VALUES (1, 'hers'), (2, 'hers')";
        lanes.alice.update(rows).await.unwrap();
        lanes
    }

    /// Her own rows, after it was looked whether all others are as they were.
    async fn hers(&mut self, after: &str) -> String {
        let all = "SELECT id, word FROM words ORDER BY word, id";
        assert_eq!(self.operator.shows(all).await, "1|shared", "{after}");
        assert_eq!(self.bob.shows(all).await, "1|his 1|shared", "{after}");
        let own = format!("SELECT id, word FROM words WHERE tenant_id = '{ALICE}' ORDER BY id");
        self.alice.shows(&own).await
    }
}

fn counted(written: Result<i64, Status>) -> Result<i64, String> {
    written.map_err(|status| status.to_string())
}

#[tokio::test]
async fn every_write_meets_the_writable_lane_alone() {
    for (sql, written, left) in [
        ("UPDATE words SET word = 'new'", 2, "1|new 2|new"),
        (
            "UPDATE words SET word = 'new' WHERE tenant_id IS NULL",
            0,
            HERS,
        ),
        (
            "UPDATE words SET word = 'new' WHERE word IN ('shared', 'his')",
            0,
            HERS,
        ),
        (
            "UPDATE words SET word = 'new' WHERE 1 = 1 OR tenant_id IS NULL",
            2,
            "1|new 2|new",
        ),
        (
            "UPDATE words SET word = o.word FROM words o WHERE o.tenant_id IS NULL AND o.id = words.id",
            1,
            "1|shared 2|hers",
        ),
        ("DELETE FROM words", 2, ""),
        ("DELETE FROM words WHERE tenant_id IS NULL", 0, HERS),
        (
            "DELETE FROM words WHERE id IN (SELECT id FROM words WHERE tenant_id IS NULL)",
            1,
            "2|hers",
        ),
        (
            "DELETE FROM words ORDER BY word DESC, id DESC LIMIT 1",
            1,
            "1|hers",
        ),
        ("DELETE FROM words WHERE 1 = 0", 0, HERS),
        ("DELETE FROM words WHERE NULL", 0, HERS),
        ("TRUNCATE words", 2, ""),
        (
            "MERGE INTO words USING (SELECT 1 AS id) s ON words.id = s.id WHEN MATCHED THEN DELETE",
            1,
            "2|hers",
        ),
        (
            "MERGE INTO words USING (SELECT 9 AS id) s ON words.id = s.id \
             WHEN NOT MATCHED BY SOURCE THEN UPDATE SET word = 'new' \
             WHEN NOT MATCHED THEN INSERT (id, word) VALUES (s.id, 'new')",
            3,
            "1|new 2|new 9|new",
        ),
        (
            "INSERT INTO words (id, word) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET word = 'new'",
            1,
            "1|new 2|hers",
        ),
        (
            "INSERT INTO words (id, word) SELECT id + 2, word FROM words WHERE tenant_id IS NULL",
            1,
            "1|hers 2|hers 3|shared",
        ),
    ] {
        let mut lanes = Lanes::new().await;
        assert_eq!(counted(lanes.alice.update(sql).await), Ok(written), "{sql}");
        assert_eq!(lanes.hers(sql).await, left, "{sql}");
    }
}

/// Copies of rows, some of which are shared, are hers or none are made.
#[tokio::test]
async fn a_tenant_is_stamped_and_never_changed() {
    let mut lanes = Lanes::new().await;
    for sql in [
        format!("INSERT INTO words VALUES (5, 'x', '{ALICE}'), (6, 'x', '{BOB}')"),
        "INSERT INTO words VALUES (5, 'x', NULL)".to_owned(),
        "INSERT INTO words SELECT id + 5, word, tenant_id FROM words".to_owned(),
        format!("UPDATE words SET tenant_id = '{BOB}' WHERE id = 2"),
        "UPDATE words SET tenant_id = NULL".to_owned(),
        format!(
            "MERGE INTO words USING (SELECT 2 AS id) s ON words.id = s.id \
             WHEN MATCHED THEN UPDATE SET tenant_id = '{BOB}'"
        ),
        format!(
            "MERGE INTO words USING (SELECT 5 AS id) s ON words.id = s.id \
             WHEN NOT MATCHED THEN INSERT (id, tenant_id) VALUES (s.id, '{BOB}')"
        ),
        format!(
            "INSERT INTO words (id) VALUES (2) ON CONFLICT (id) DO UPDATE SET tenant_id = '{BOB}'"
        ),
    ] {
        let status = lanes.alice.update(&sql).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{sql}: {status:?}");
        assert!(!status.message().contains(BOB), "{sql}: {status:?}");
        assert_eq!(lanes.hers(&sql).await, HERS, "{sql}");
    }
    for (sql, written) in [
        (format!("INSERT INTO words VALUES (3, 'own', '{ALICE}')"), 1),
        (
            format!("UPDATE words SET tenant_id = '{ALICE}' WHERE id = 3"),
            1,
        ),
        ("UPDATE words SET tenant_id = tenant_id".to_owned(), 3),
    ] {
        assert_eq!(
            counted(lanes.alice.update(&sql).await),
            Ok(written),
            "{sql}"
        );
    }
    assert_eq!(lanes.hers("").await, "1|hers 2|hers 3|own");
}

/// What reads like a write of more than one kind, or is none that is served.
#[tokio::test]
async fn a_write_in_other_clothes_writes_nothing() {
    let mut lanes = Lanes::new().await;
    let file = lanes._server.dir().join("global.db");
    let file = file.display();
    for sql in [
        "INSERT OVERWRITE words VALUES (7, 'x', NULL)",
        "INSERT OVERWRITE TABLE words SELECT * FROM words",
        "REPLACE INTO words (id, word) VALUES (1, 'x')",
        "SELECT 1; DELETE FROM words",
        "DELETE FROM words; DELETE FROM words",
        "PREPARE p AS DELETE FROM words",
        "EXPLAIN ANALYZE DELETE FROM words",
        "EXPLAIN ANALYZE INSERT INTO words (id) VALUES (9)",
        "EXPLAIN EXPLAIN DELETE FROM words",
        "WITH gone AS (DELETE FROM words RETURNING *) SELECT * FROM gone",
        "SELECT * FROM (DELETE FROM words RETURNING *)",
        "CREATE TABLE copy AS DELETE FROM words RETURNING *",
        "COPY words TO '/tmp/stolen.csv'",
        "COPY (SELECT * FROM words) TO '/tmp/stolen.csv'",
        "CREATE EXTERNAL TABLE stolen STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE FUNCTION f() RETURNS INT RETURN 1",
        "CREATE SCHEMA mine",
        "CREATE DATABASE mine",
        "DROP SCHEMA public CASCADE",
        "ALTER TABLE words ADD COLUMN x INT",
        "CREATE INDEX by_word ON words (word)",
        "DROP TABLE words",
        "ALTER TABLE words RENAME TO mine",
        "SET datafusion.execution.batch_size = 1",
        "SET tenant_id = '018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b'",
        "GRANT ALL ON words TO PUBLIC",
        "INSERT INTO jammi.catalog.tables (name) VALUES ('x')",
        "DELETE FROM jammi.catalog.tables",
        "UPDATE jammi.catalog.sources SET name = 'x'",
        "INSERT INTO information_schema.tables VALUES ('x')",
        "DELETE FROM jammi.write.target",
        "SELECT * FROM jammi.write.target",
        "ATTACH DATABASE 'x' AS y",
        "PRAGMA journal_mode = DELETE",
        "VACUUM",
    ] {
        let status = lanes.alice.query(sql).await.unwrap_err();
        assert_ne!(status.code(), Code::Internal, "{sql}: {status:?}");
        assert!(
            !status.message().contains(BOB) || sql.contains(BOB),
            "{sql}: {status:?}"
        );
        assert_eq!(lanes.hers(sql).await, HERS, "{sql}");
    }
    for sql in [
        format!("SELECT * FROM '{file}'"),
        format!("SELECT * FROM \"{file}\""),
    ] {
        let status = lanes.alice.query(&sql).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{sql}: {status:?}");
    }
    for sql in [
        "EXPLAIN DELETE FROM words",
        "EXPLAIN UPDATE words SET word = 'x'",
        "EXPLAIN INSERT INTO words (id, word) VALUES (9, 'x')",
        "EXPLAIN VERBOSE DELETE FROM words",
    ] {
        let plan = lanes.alice.shows(sql).await;
        assert!(!plan.contains(BOB), "{plan}");
        assert_eq!(lanes.hers(sql).await, HERS, "{sql}");
    }
    // What is prepared, planned or described is not run.
    lanes.alice.prepare("DELETE FROM words").await.unwrap();
    lanes
        .alice
        .info(&statement("DELETE FROM words"))
        .await
        .unwrap();
    lanes
        .alice
        .schema(&statement("DELETE FROM words"))
        .await
        .unwrap();
    assert_eq!(lanes.hers("prepared").await, HERS);
}

/// Replacing is of a table of one's own: a shared one of the name stays, hidden.
#[tokio::test]
async fn an_ingest_that_replaces_leaves_the_shared_table_alone() {
    let mut lanes = Lanes::new().await;
    let new = || numbers("id", [7]);
    lanes
        .alice
        .put_counted(&replace("words"), new())
        .await
        .unwrap();
    assert_eq!(lanes.alice.shows("SELECT id FROM words").await, "7");
    lanes
        .alice
        .put_counted(&replace("words"), new())
        .await
        .unwrap();
    assert_eq!(lanes.alice.shows("SELECT id FROM words").await, "7");
    lanes.alice.update("DROP TABLE words").await.unwrap();
    assert_eq!(lanes.hers("replaced").await, HERS);
    // Appended rows are of the writable lane.
    lanes
        .alice
        .put_counted(&append("words"), numbers("id", [9]))
        .await
        .unwrap();
    assert_eq!(lanes.hers("appended").await, "1|hers 2|hers 9|");
}
