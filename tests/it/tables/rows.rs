//! Rows: who sees and writes which.

use super::*;

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
