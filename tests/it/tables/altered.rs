//! Definitions that change, and views.

use super::*;

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
