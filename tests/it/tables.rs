//! Stored tables by SQL: definitions, writes, and what each tenant sees of them.

use std::str::FromStr;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use jammi_db::TenantId;
use jammi_db::config::JammiConfig;
use jammi_db::error::{BackendError, Error};
use jammi_db::session::JammiSession;
use tempfile::TempDir;

use crate::harness::{ALICE, BOB};

/// Two tenants and an unbound session on one engine.
pub struct World {
    pub shared: JammiSession,
    pub alice: JammiSession,
    pub bob: JammiSession,
    _dir: TempDir,
}

impl World {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = JammiConfig {
            artifact_dir: dir.path().to_owned(),
            ..JammiConfig::default()
        };
        let shared = JammiSession::new(config).await.unwrap();
        let bound = |tenant| {
            JammiSession::on(shared.engine().clone())
                .with_tenant(TenantId::from_str(tenant).unwrap())
        };
        World {
            alice: bound(ALICE),
            bob: bound(BOB),
            shared,
            _dir: dir,
        }
    }
}

/// The rows of a statement: values by `|`, rows by a blank.
pub async fn rows(session: &JammiSession, sql: &str) -> String {
    let batches = match session.sql(sql).await {
        Ok(batches) => batches,
        Err(error) => panic!("{sql}: {error:?}"),
    };
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let values: Vec<String> = batch
                .columns()
                .iter()
                .map(|column| {
                    let format = ArrayFormatter::try_new(column, &options).unwrap();
                    format.value(row).to_string()
                })
                .collect();
            rows.push(values.join("|"));
        }
    }
    rows.join(" ")
}

/// Runs statements that are to succeed.
pub async fn run(session: &JammiSession, statements: &[&str]) {
    for sql in statements {
        rows(session, sql).await;
    }
}

/// The error of a statement that is to fail.
pub async fn refused(session: &JammiSession, sql: &str) -> Error {
    match session.sql(sql).await {
        Ok(_) => panic!("{sql} was not refused"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_table_is_made_written_and_read() {
    let world = World::new().await;
    let alice = &world.alice;
    run(
        alice,
        &["CREATE TABLE notes (id BIGINT PRIMARY KEY, title VARCHAR NOT NULL, score DOUBLE DEFAULT 0.5)"],
    )
    .await;
    assert_eq!(
        rows(
            alice,
            "INSERT INTO notes VALUES (1, 'one', 1.5), (2, 'two', DEFAULT)"
        )
        .await,
        "2"
    );
    assert_eq!(
        rows(alice, "INSERT INTO notes (title, id) SELECT 'three', 3").await,
        "1"
    );
    assert_eq!(
        rows(alice, "SELECT * FROM notes ORDER BY id").await,
        format!("1|one|1.5|{ALICE} 2|two|0.5|{ALICE} 3|three|0.5|{ALICE}")
    );
    assert_eq!(
        rows(
            alice,
            "UPDATE notes SET score = score + id, title = upper(title) WHERE id >= 2"
        )
        .await,
        "2"
    );
    assert_eq!(
        rows(alice, "SELECT id, title, score FROM notes ORDER BY id").await,
        "1|one|1.5 2|TWO|2.5 3|THREE|3.5"
    );
    assert_eq!(
        rows(alice, "DELETE FROM notes WHERE title = 'TWO'").await,
        "1"
    );
    assert_eq!(
        rows(alice, "SELECT count(*), sum(id) FROM notes").await,
        "2|4"
    );
    assert_eq!(rows(alice, "TRUNCATE notes").await, "2");
    assert_eq!(rows(alice, "SELECT count(*) FROM notes").await, "0");
    run(alice, &["DROP TABLE notes"]).await;
    let gone = refused(alice, "SELECT * FROM notes").await.to_string();
    assert!(gone.contains("does not exist"), "{gone}");
}

#[tokio::test]
async fn two_tenants_have_tables_of_one_name() {
    let world = World::new().await;
    for (session, secret) in [(&world.alice, "hers"), (&world.bob, "his")] {
        let insert = format!("INSERT INTO inbox VALUES (1, '{secret}')");
        run(
            session,
            &[
                "CREATE TABLE inbox (id INT PRIMARY KEY, body TEXT)",
                &insert,
            ],
        )
        .await;
    }
    assert_eq!(
        rows(&world.alice, "SELECT id, body FROM inbox").await,
        "1|hers"
    );
    assert_eq!(
        rows(&world.bob, "SELECT id, body FROM inbox").await,
        "1|his"
    );
    assert_eq!(
        rows(&world.bob, "UPDATE inbox SET body = 'changed'").await,
        "1"
    );
    assert_eq!(rows(&world.bob, "DELETE FROM inbox").await, "1");
    assert_eq!(
        rows(&world.alice, "SELECT id, body FROM inbox").await,
        "1|hers"
    );
    let unbound = refused(&world.shared, "SELECT * FROM inbox").await;
    assert!(matches!(unbound, Error::NotFound(_)), "{unbound}");
}

/// A global definition holds rows in every lane.
#[tokio::test]
async fn a_shared_table_has_rows_of_every_tenant() {
    let world = World::new().await;
    run(
        &world.shared,
        &[
            "CREATE TABLE terms (id INT PRIMARY KEY, word TEXT)",
            "INSERT INTO terms VALUES (1, 'shared')",
        ],
    )
    .await;
    run(
        &world.alice,
        &["INSERT INTO terms VALUES (1, 'hers'), (2, 'hers too')"],
    )
    .await;
    run(&world.bob, &["INSERT INTO terms VALUES (1, 'his')"]).await;
    assert_eq!(
        rows(&world.alice, "SELECT id, word FROM terms ORDER BY word").await,
        "1|hers 2|hers too 1|shared"
    );
    assert_eq!(
        rows(&world.bob, "SELECT word FROM terms ORDER BY word").await,
        "his shared"
    );
    assert_eq!(
        rows(&world.shared, "SELECT word FROM terms").await,
        "shared"
    );
    // What is readable is not therefore writable.
    assert_eq!(
        rows(&world.alice, "UPDATE terms SET word = 'x' WHERE id = 1").await,
        "1"
    );
    assert_eq!(
        rows(&world.alice, "DELETE FROM terms WHERE word = 'shared'").await,
        "0"
    );
    assert_eq!(rows(&world.alice, "TRUNCATE terms").await, "2");
    assert_eq!(rows(&world.alice, "SELECT word FROM terms").await, "shared");
    assert_eq!(
        rows(&world.bob, "SELECT word FROM terms ORDER BY word").await,
        "his shared"
    );
    let drop = refused(&world.alice, "DROP TABLE terms").await;
    assert!(matches!(drop, Error::PermissionDenied(_)), "{drop}");
}

#[tokio::test]
async fn a_row_of_another_tenant_is_refused_with_its_whole_statement() {
    let world = World::new().await;
    run(
        &world.alice,
        &["CREATE TABLE t (id INT, tenant_id VARCHAR)"],
    )
    .await;
    for values in [
        format!("(1, '{ALICE}'), (2, '{BOB}')"),
        format!("(1, '{ALICE}'), (2, NULL)"),
        "(1, 'nonsense')".to_owned(),
    ] {
        let error = refused(&world.alice, &format!("INSERT INTO t VALUES {values}")).await;
        assert!(
            matches!(error, Error::Backend(BackendError::TenantMismatch { .. })),
            "{values}: {error:?}"
        );
    }
    assert_eq!(rows(&world.alice, "SELECT count(*) FROM t").await, "0");
    run(&world.alice, &["INSERT INTO t (id) VALUES (1)"]).await;
    for value in [format!("'{BOB}'"), "NULL".to_owned()] {
        let error = refused(&world.alice, &format!("UPDATE t SET tenant_id = {value}")).await;
        assert!(
            matches!(error, Error::Backend(BackendError::TenantMismatch { .. })),
            "{value}: {error:?}"
        );
    }
    assert_eq!(
        rows(&world.alice, "SELECT id, tenant_id FROM t").await,
        format!("1|{ALICE}")
    );
}

/// No predicate, a false one and one that no index answers are three things.
#[tokio::test]
async fn the_predicates_of_changes_are_sqls() {
    let world = World::new().await;
    let alice = &world.alice;
    run(
        alice,
        &[
            "CREATE TABLE t (id INT PRIMARY KEY, v INT)",
            "CREATE TABLE chosen (id INT)",
            "INSERT INTO t SELECT value, value * 10 FROM generate_series(1, 10)",
            "INSERT INTO chosen VALUES (2), (3), (3), (99)",
        ],
    )
    .await;
    for (sql, affected) in [
        ("DELETE FROM t WHERE 1 = 0", "0"),
        ("DELETE FROM t WHERE false", "0"),
        ("DELETE FROM t WHERE NULL", "0"),
        ("DELETE FROM t WHERE id IN (SELECT id FROM chosen)", "2"),
        (
            "DELETE FROM t WHERE EXISTS (SELECT 1 FROM chosen c WHERE c.id = t.id + 90)",
            "1",
        ),
        ("DELETE FROM t USING chosen c WHERE t.id = c.id + 2", "2"),
        ("DELETE FROM t ORDER BY id DESC LIMIT 1", "1"),
        (
            "UPDATE t SET v = (SELECT max(id) FROM chosen) WHERE id = 1",
            "1",
        ),
        (
            "UPDATE t AS a SET v = c.id FROM chosen c WHERE a.id = c.id + 4 AND c.id = 2",
            "1",
        ),
        ("UPDATE t SET id = id + 1", "4"),
    ] {
        assert_eq!(rows(alice, sql).await, affected, "{sql}");
    }
    assert_eq!(
        rows(alice, "SELECT id, v FROM t ORDER BY id").await,
        "2|99 7|2 8|70 9|80"
    );
    let twice = refused(
        alice,
        "UPDATE t SET v = c.id FROM chosen c WHERE t.id > c.id",
    )
    .await;
    assert!(twice.to_string().contains("more than one row"), "{twice}");
}

#[tokio::test]
async fn constraints_name_themselves_and_the_row() {
    let world = World::new().await;
    let alice = &world.alice;
    run(
        alice,
        &[
            "CREATE TABLE t (id INT PRIMARY KEY, email TEXT UNIQUE, age INT NOT NULL CHECK (age > 0), \
             doc JSON, CONSTRAINT grown CHECK (age < 200))",
            "INSERT INTO t VALUES (1, 'a@x', 5, '{}')",
        ],
    )
    .await;
    for (sql, says) in [
        (
            "INSERT INTO t VALUES (1, 'b@x', 5, NULL)",
            "id = 1 already (primary key `t_pkey`)",
        ),
        (
            "INSERT INTO t VALUES (2, 'a@x', 5, NULL)",
            "email = a@x already (unique constraint `t_email_key`)",
        ),
        (
            "INSERT INTO t VALUES (2, 'b@x', NULL, NULL)",
            "`age` of table `t` cannot be NULL",
        ),
        (
            "INSERT INTO t VALUES (2, 'b@x', 0, NULL)",
            "of id = 2 does not meet its condition `t_age_check`",
        ),
        ("INSERT INTO t VALUES (2, 'b@x', 300, NULL)", "`grown`"),
        ("INSERT INTO t VALUES (2, 'b@x', 3, '{')", "holds JSON"),
        (
            "INSERT INTO t (email, age) VALUES ('b@x', 3)",
            "`id` of table `t` cannot be NULL",
        ),
        (
            "INSERT INTO t VALUES (2, 'b@x', 99999999999, NULL)",
            "Int32",
        ),
        ("INSERT INTO t VALUES (2, 'b@x')", "2 columns"),
        ("INSERT INTO t (id, nothing) VALUES (2, 1)", "nothing"),
        ("UPDATE t SET nothing = 1", "`nothing`"),
        ("UPDATE t SET age = -age", "t_age_check"),
        ("CREATE TABLE t (id INT)", "exists already"),
        ("CREATE TABLE u (a INT, a INT)", "twice"),
        ("CREATE TABLE u (a INT, PRIMARY KEY (b))", "`b`"),
        (
            "CREATE TABLE u (a INT CHECK ((SELECT 1) = a))",
            "looks beyond",
        ),
        ("CREATE TABLE u (\"Tenant_ID\" INT, a INT)", "tenant_id"),
        ("CREATE TABLE u (tenant_id INT, a INT)", "tenant_id"),
        ("CREATE TABLE other.public.u (a INT)", "mutable.public"),
        ("CREATE TEMPORARY TABLE u (a INT)", "leave the rest out"),
        ("CREATE EXTERNAL TABLE u STORED AS CSV LOCATION 'x'", ""),
    ] {
        let error = refused(alice, sql).await.to_string();
        assert!(error.contains(says), "{sql}: {error}");
    }
    // Keys with NULLs do not collide.
    run(
        alice,
        &["INSERT INTO t VALUES (2, NULL, 1, NULL), (3, NULL, 1, '[1]')"],
    )
    .await;
    assert_eq!(rows(alice, "SELECT count(*) FROM t").await, "3");
    run(alice, &["CREATE TABLE IF NOT EXISTS t (other INT)"]).await;
    run(alice, &["CREATE TABLE copy AS SELECT id, email FROM t"]).await;
    assert_eq!(
        rows(alice, "SELECT id, email FROM copy ORDER BY id").await,
        "1|a@x 2|NULL 3|NULL"
    );
}

#[tokio::test]
async fn conflicts_are_left_out_or_change_the_row_that_is_there() {
    let world = World::new().await;
    let alice = &world.alice;
    run(
        alice,
        &[
            "CREATE TABLE t (id INT PRIMARY KEY, name TEXT UNIQUE, n INT DEFAULT 0)",
            "INSERT INTO t VALUES (1, 'one', 1), (2, 'two', 2)",
        ],
    )
    .await;
    for (sql, answer) in [
        (
            "INSERT INTO t VALUES (1, 'x', 9), (3, 'three', 3), (4, 'two', 9) ON CONFLICT DO NOTHING",
            "1",
        ),
        (
            "INSERT INTO t VALUES (5, 'five', 5), (5, 'again', 6) ON CONFLICT (id) DO NOTHING",
            "1",
        ),
        (
            "INSERT INTO t VALUES (1, 'uno', 10), (6, 'six', 6) ON CONFLICT (id) \
             DO UPDATE SET name = excluded.name, n = t.n + excluded.n",
            "2",
        ),
        (
            "INSERT INTO t VALUES (2, 'dos', 100) ON CONFLICT (id) \
             DO UPDATE SET n = excluded.n WHERE t.n > 50",
            "0",
        ),
        (
            "INSERT INTO t (id, name) VALUES (7, 'seven') RETURNING id, name || '!', n, tenant_id IS NULL",
            "7|seven!|0|false",
        ),
        (
            "INSERT INTO t (id) VALUES (7) ON CONFLICT ON CONSTRAINT t_pkey DO UPDATE SET n = 70 RETURNING n",
            "70",
        ),
        (
            "UPDATE t AS u SET n = n + 1 WHERE id IN (3, 5) RETURNING u.id, n",
            "3|4 5|6",
        ),
        (
            "DELETE FROM t WHERE id = 5 RETURNING *",
            &format!("5|five|6|{ALICE}"),
        ),
    ] {
        assert_eq!(rows(alice, sql).await, answer, "{sql}");
    }
    assert_eq!(
        rows(alice, "SELECT id, name, n FROM t ORDER BY id").await,
        "1|uno|11 2|two|2 3|three|4 6|six|6 7|seven|70"
    );
    for (sql, says) in [
        (
            "INSERT INTO t VALUES (8, 'a', 1), (8, 'b', 2) ON CONFLICT (id) DO UPDATE SET n = 0",
            "change a row twice",
        ),
        (
            "INSERT INTO t VALUES (8, 'a', 1) ON CONFLICT (n) DO NOTHING",
            "(id), (name)",
        ),
        (
            "INSERT INTO t VALUES (8, 'a', 1) ON CONFLICT DO UPDATE SET n = 0",
            "name its key",
        ),
        (
            "INSERT INTO t VALUES (1, 'a', 1) ON CONFLICT (id) DO UPDATE SET name = 'two'",
            "name = two already",
        ),
    ] {
        let error = refused(alice, sql).await.to_string();
        assert!(error.contains(says), "{sql}: {error}");
    }
    assert_eq!(rows(alice, "SELECT count(*) FROM t").await, "5");
}

#[tokio::test]
async fn merge_decides_over_each_row_by_the_first_clause_that_it_meets() {
    let world = World::new().await;
    let alice = &world.alice;
    run(
        alice,
        &[
            "CREATE TABLE stock (item TEXT PRIMARY KEY, n INT NOT NULL DEFAULT 1)",
            "CREATE TABLE delivery (item TEXT, n INT)",
            "INSERT INTO stock VALUES ('a', 1), ('b', 2), ('c', 3), ('d', 4)",
            "INSERT INTO delivery VALUES ('a', 10), ('b', 0), ('x', 5), ('y', NULL)",
        ],
    )
    .await;
    assert_eq!(
        rows(
            alice,
            "MERGE INTO stock AS s USING delivery AS d ON s.item = d.item \
             WHEN MATCHED AND d.n = 0 THEN DELETE \
             WHEN MATCHED THEN UPDATE SET n = s.n + d.n \
             WHEN NOT MATCHED AND d.n IS NOT NULL THEN INSERT (item, n) VALUES (d.item, d.n) \
             WHEN NOT MATCHED THEN INSERT (item) VALUES (upper(d.item)) \
             WHEN NOT MATCHED BY SOURCE AND s.n > 3 THEN UPDATE SET n = 0"
        )
        .await,
        "5"
    );
    assert_eq!(
        rows(alice, "SELECT item, n FROM stock ORDER BY item").await,
        "Y|1 a|11 c|3 d|0 x|5"
    );
    let twice = refused(
        alice,
        "MERGE INTO stock s USING (VALUES ('a', 1), ('a', 2)) AS d(item, n) ON s.item = d.item \
         WHEN MATCHED THEN UPDATE SET n = d.n",
    )
    .await;
    assert!(twice.to_string().contains("more than one row"), "{twice}");
    assert_eq!(
        rows(
            alice,
            "MERGE INTO stock s USING (SELECT 'c' AS item) d ON s.item = d.item \
             WHEN MATCHED THEN DELETE"
        )
        .await,
        "1"
    );
}

#[tokio::test]
async fn a_table_is_altered_with_its_rows() {
    let world = World::new().await;
    let alice = &world.alice;
    run(
        alice,
        &[
            "CREATE TABLE t (id INT PRIMARY KEY, old TEXT, n INT CHECK (n > 0))",
            "INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2)",
            "SELECT * FROM t",
            "ALTER TABLE t ADD COLUMN added DOUBLE NOT NULL DEFAULT 0.5",
            "ALTER TABLE t ADD COLUMN note TEXT DEFAULT 'it''s'",
            "INSERT INTO t (id, n) VALUES (3, 3)",
            "ALTER TABLE t DROP COLUMN old",
            "ALTER TABLE t RENAME COLUMN note TO remark",
            "ALTER TABLE t ALTER COLUMN remark SET DEFAULT 'new'",
            "ALTER TABLE t RENAME TO u",
            "INSERT INTO u (id, n) VALUES (4, 4)",
            "CREATE UNIQUE INDEX u_n ON u (n)",
        ],
    )
    .await;
    assert_eq!(
        rows(alice, "SELECT * FROM u ORDER BY id").await,
        format!(
            "1|1|0.5|it's|{ALICE} 2|2|0.5|it's|{ALICE} 3|3|0.5|it's|{ALICE} 4|4|0.5|new|{ALICE}"
        )
    );
    for (sql, says) in [
        (
            "INSERT INTO u (id, n) VALUES (5, 4)",
            "n = 4 already (unique constraint `u_n`)",
        ),
        ("ALTER TABLE u DROP COLUMN n", "drop that index first"),
        ("ALTER TABLE u RENAME COLUMN n TO m", "is about column `n`"),
        ("ALTER TABLE u DROP COLUMN tenant_id", "kept by the server"),
        (
            "ALTER TABLE u ADD COLUMN strict INT NOT NULL",
            "give it a DEFAULT",
        ),
        ("ALTER TABLE u ADD COLUMN n INT", "twice"),
        ("ALTER TABLE t ADD COLUMN x INT", "does not exist"),
        ("CREATE INDEX u_n ON u (id)", "exists already"),
        ("DROP INDEX u_pkey", "does not exist"),
        ("DROP INDEX nothing", "does not exist"),
    ] {
        let error = refused(alice, sql).await.to_string();
        assert!(error.contains(says), "{sql}: {error}");
    }
    run(
        alice,
        &[
            "DROP INDEX u_n",
            "INSERT INTO u (id, n) VALUES (5, 4)",
            "ALTER TABLE IF EXISTS t ADD COLUMN x INT",
            "DROP INDEX IF EXISTS u_n",
        ],
    )
    .await;
    let alike = refused(alice, "CREATE UNIQUE INDEX u_n ON u (n)").await;
    assert!(matches!(alike, Error::AlreadyExists(_)), "{alike}");
}

/// The rows of a shared table that a tenant had before the table was altered.
#[tokio::test]
async fn a_shared_table_is_altered_in_every_lane() {
    let world = World::new().await;
    run(
        &world.shared,
        &["CREATE TABLE t (id INT PRIMARY KEY, gone INT)"],
    )
    .await;
    run(&world.alice, &["INSERT INTO t VALUES (1, 1)"]).await;
    run(
        &world.shared,
        &[
            "ALTER TABLE t ADD COLUMN added TEXT DEFAULT 'x'",
            "ALTER TABLE t DROP COLUMN gone",
            "CREATE INDEX t_added ON t (added)",
        ],
    )
    .await;
    assert_eq!(rows(&world.alice, "SELECT id, added FROM t").await, "1|x");
    run(&world.alice, &["INSERT INTO t VALUES (2, 'y')"]).await;
    assert_eq!(
        rows(
            &world.alice,
            "SELECT id, added FROM t WHERE added IN ('x', 'y') ORDER BY id"
        )
        .await,
        "1|x 2|y"
    );
    assert_eq!(rows(&world.bob, "SELECT count(*) FROM t").await, "0");
}

#[tokio::test]
async fn a_view_is_planned_as_whoever_reads_it() {
    let world = World::new().await;
    run(
        &world.shared,
        &[
            "CREATE TABLE terms (id INT, word TEXT)",
            "INSERT INTO terms VALUES (1, 'shared')",
            "CREATE VIEW words (w) AS SELECT word FROM terms WHERE id > 0",
        ],
    )
    .await;
    run(&world.alice, &["INSERT INTO terms VALUES (2, 'hers')"]).await;
    run(&world.bob, &["INSERT INTO terms VALUES (3, 'his')"]).await;
    for (session, words) in [
        (&world.alice, "hers shared"),
        (&world.bob, "his shared"),
        (&world.shared, "shared"),
    ] {
        assert_eq!(rows(session, "SELECT w FROM words ORDER BY w").await, words);
        assert_eq!(
            rows(
                session,
                "SELECT a.w FROM words a JOIN words b ON a.w = b.w ORDER BY 1"
            )
            .await,
            words
        );
    }
    let alice = &world.alice;
    run(
        alice,
        &[
            "CREATE VIEW mine AS SELECT count(*) AS n FROM words",
            "CREATE OR REPLACE VIEW mine AS SELECT count(*) + 1 AS n FROM words",
            "CREATE VIEW IF NOT EXISTS mine AS SELECT 0 AS n",
        ],
    )
    .await;
    assert_eq!(rows(alice, "SELECT n FROM mine").await, "3");
    for (session, sql, says) in [
        (
            alice,
            "INSERT INTO words VALUES ('x')",
            "cannot be written to",
        ),
        (alice, "DROP VIEW words", "shared"),
        (alice, "DROP TABLE mine", "is a view"),
        (alice, "CREATE VIEW mine AS SELECT 1", "exists already"),
        (
            alice,
            "CREATE VIEW v AS SELECT * FROM nowhere",
            "does not exist",
        ),
        (alice, "CREATE VIEW v AS SELECT $1", "no parameters"),
        (&world.bob, "SELECT * FROM mine", "does not exist"),
    ] {
        let error = refused(session, sql).await.to_string();
        assert!(error.contains(says), "{sql}: {error}");
    }
    // A view that comes to read itself.
    run(
        alice,
        &[
            "CREATE VIEW first AS SELECT n FROM mine",
            "CREATE OR REPLACE VIEW mine AS SELECT n FROM first",
        ],
    )
    .await;
    let endless = refused(alice, "SELECT * FROM mine").await.to_string();
    assert!(endless.contains("or itself"), "{endless}");
    run(alice, &["DROP VIEW mine", "DROP VIEW IF EXISTS mine"]).await;
}

#[tokio::test]
async fn explaining_a_write_shows_its_query_and_writes_nothing() {
    let world = World::new().await;
    let alice = &world.alice;
    run(
        alice,
        &[
            "CREATE TABLE t (id INT PRIMARY KEY, n INT)",
            "INSERT INTO t VALUES (1, 1)",
        ],
    )
    .await;
    for sql in [
        "EXPLAIN DELETE FROM t",
        "EXPLAIN VERBOSE UPDATE t SET n = 2 WHERE id = 1",
        "EXPLAIN MERGE INTO t USING (SELECT 1 AS id) s ON t.id = s.id WHEN MATCHED THEN DELETE",
    ] {
        let plan = rows(alice, sql).await;
        assert!(plan.contains("GuardExec: table=mutable.public.t"), "{plan}");
        assert!(plan.contains(ALICE), "{plan}");
    }
    rows(alice, "EXPLAIN INSERT INTO t VALUES (2, 2)").await;
    let analyze = refused(alice, "EXPLAIN ANALYZE DELETE FROM t").await;
    assert!(matches!(analyze, Error::Unimplemented(_)), "{analyze}");
    let truncate = refused(alice, "EXPLAIN TRUNCATE t").await;
    assert!(truncate.to_string().contains("no plan"), "{truncate}");
    assert_eq!(rows(alice, "SELECT id, n FROM t").await, "1|1");
}

/// What was decoded for a tenant is right under its own later writes, under those
/// of another process, and never another tenant's.
#[tokio::test]
async fn what_is_kept_of_a_table_follows_every_writer() {
    let dir = tempfile::tempdir().unwrap();
    let config = || JammiConfig {
        artifact_dir: dir.path().to_owned(),
        ..JammiConfig::default()
    };
    let tenant = |id| TenantId::from_str(id).unwrap();
    let here = JammiSession::new(config())
        .await
        .unwrap()
        .with_tenant(tenant(ALICE));
    // A second engine on the directory stands for a second process.
    let there = JammiSession::new(config())
        .await
        .unwrap()
        .with_tenant(tenant(ALICE));
    let bob = JammiSession::on(here.engine().clone()).with_tenant(tenant(BOB));
    for session in [&here, &bob] {
        run(
            session,
            &[
                "CREATE TABLE t (id BIGINT PRIMARY KEY, n BIGINT)",
                "INSERT INTO t SELECT value, 0 FROM generate_series(1, 20000)",
            ],
        )
        .await;
    }
    let mut expected = 0;
    for step in 1..=5_i64 {
        let (writer, reader) = match step % 2 {
            0 => (&here, &there),
            _ => (&there, &here),
        };
        // Read by both, so that both have something to be wrong about.
        for session in [&here, &there] {
            let sum = format!("20000|{expected}");
            assert_eq!(rows(session, "SELECT count(*), sum(n) FROM t").await, sum);
        }
        let update = format!("UPDATE t SET n = n + {step} WHERE id % 4000 = {step}");
        assert_eq!(rows(writer, &update).await, "5");
        expected += 5 * step;
        assert_eq!(
            rows(reader, "SELECT sum(n) FROM t").await,
            expected.to_string()
        );
    }
    run(&there, &["DELETE FROM t WHERE id <= 10000"]).await;
    assert_eq!(
        rows(&here, "SELECT count(*), min(id) FROM t").await,
        "10000|10001"
    );
    run(&here, &["INSERT INTO t VALUES (1, 1)"]).await;
    assert_eq!(
        rows(&there, "SELECT count(*), min(id) FROM t").await,
        "10001|1"
    );
    assert_eq!(
        rows(&bob, "SELECT count(*), sum(n) FROM t").await,
        "20000|0"
    );
}

/// Lookups by key and reads of the whole table answer alike.
#[tokio::test]
async fn a_lookup_finds_what_a_scan_finds() {
    let world = World::new().await;
    let alice = &world.alice;
    run(
        alice,
        &[
            "CREATE TABLE t (a BIGINT, b VARCHAR, f DOUBLE, d DATE, u BIGINT UNSIGNED, m DECIMAL(30, 2))",
            "INSERT INTO t SELECT value, 'k' || (value % 7), (value - 50) / 10.0, \
             DATE '2024-01-01' + CAST(value % 5 AS INT), \
             CAST(value AS BIGINT UNSIGNED) * 100000000000000000, value / 3.0 \
             FROM generate_series(0, 150) AS s(value)",
            "INSERT INTO t VALUES (NULL, NULL, NULL, NULL, NULL, NULL), (-1, '', -0.0, NULL, 0, -5)",
            "CREATE TABLE i AS SELECT a, b, f, d, u, m FROM t",
            "CREATE INDEX i_a ON i (a)",
            "CREATE INDEX i_b ON i (b, a)",
            "CREATE INDEX i_f ON i (f)",
            "CREATE INDEX i_d ON i (d)",
            "CREATE INDEX i_u ON i (u)",
            "CREATE INDEX i_m ON i (m)",
        ],
    )
    .await;
    for predicate in [
        "a = 5",
        "a IN (1, 2, 999)",
        "a BETWEEN 10 AND 20",
        "a > 148",
        "a < 0",
        "a IS NULL",
        "a = NULL",
        "b = 'k3' AND a > 100",
        "b = ''",
        "b >= 'k5' AND b < 'k6'",
        "f = 0",
        "f = -0.0",
        "f < 0.0 AND f > -0.5",
        "f >= 9.9",
        "f IN (0.0, 0.1)",
        "d = DATE '2024-01-03' AND a < 30",
        "d > DATE '2024-01-04'",
        "u > 9300000000000000000",
        "u = 0",
        "m = -5",
        "m BETWEEN 1 AND 2",
        "a = 5 OR a = 6",
        "(a = 5 OR a > 149 OR a BETWEEN 7 AND 8) AND b IN ('k5', 'k1', '')",
        "a = 5 OR b = 'k3'",
        "a = 5 OR a IS NULL",
        "a = 5 OR a = NULL",
        "NOT (a = 5) AND a < 10",
        "a = 5 AND 1 = 0",
    ] {
        let columns = "a, b, f, d, u, m";
        let by = |table: &str| {
            format!("SELECT {columns} FROM {table} WHERE {predicate} ORDER BY a NULLS FIRST")
        };
        let scanned = rows(alice, &by("t")).await;
        assert_eq!(rows(alice, &by("i")).await, scanned, "{predicate}");
    }
}
