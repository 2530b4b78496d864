//! What is kept in memory of tables, and what indexes find.

use super::*;

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

/// A lookup in a shared table goes by each lane's own index, also where the lane's
/// rows are older than what it asks for.
#[tokio::test]
async fn a_lookup_in_a_shared_table_finds_what_a_scan_finds() {
    let world = World::new().await;
    let (shared, alice, bob) = (&world.shared, &world.alice, &world.bob);
    run(
        shared,
        &[
            "CREATE TABLE g (k BIGINT PRIMARY KEY, v VARCHAR)",
            "INSERT INTO g VALUES (1, 'everybodys'), (5, 'everybodys too')",
        ],
    )
    .await;
    for (session, whose) in [(alice, "hers"), (bob, "his")] {
        let rows = format!("INSERT INTO g VALUES (1, '{whose}'), (2, '{whose} too'), (3, NULL)");
        run(session, &[&rows]).await;
    }
    let same = async |predicates: &[&str]| {
        for predicate in predicates {
            for (session, others) in [(alice, "his"), (bob, "hers")] {
                let by = |predicate: &str| format!("SELECT * FROM g WHERE {predicate} ORDER BY v");
                let found = rows(session, &by(predicate)).await;
                // By what is computed nothing is looked up.
                let computed = predicate.replace("k ", "abs(k) ").replace("w ", "abs(w) ");
                assert_eq!(found, rows(session, &by(&computed)).await, "{predicate}");
                assert!(!found.contains(others), "{predicate}: {found}");
            }
        }
    };
    same(&["k = 1", "k IN (2, 5)", "k > 2", "k = 9"]).await;
    assert_eq!(rows(alice, "SELECT max(k), min(k) FROM g").await, "5|1");
    run(
        shared,
        &[
            "ALTER TABLE g ADD COLUMN w BIGINT DEFAULT 7",
            "CREATE INDEX g_w ON g (w)",
        ],
    )
    .await;
    let later = ["k = 1", "w = 7", "k = 1 AND w = 7", "w = 8", "w IN (7, 8)"];
    same(&later).await;
    assert_eq!(rows(alice, "SELECT max(w), min(w) FROM g").await, "7|7");
    run(alice, &["INSERT INTO g VALUES (6, 'hers as well', 8)"]).await;
    same(&later).await;
    assert_eq!(rows(alice, "SELECT max(w), min(w) FROM g").await, "8|7");
    assert_eq!(rows(bob, "SELECT max(w), max(k) FROM g").await, "7|5");
    run(shared, &["DROP INDEX g_w"]).await;
    same(&later).await;
}
