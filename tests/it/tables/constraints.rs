//! Keys, checks, conflicts and MERGE.

use super::*;

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
        (
            "CREATE TEMPORARY TABLE u (a INT) ON COMMIT DROP",
            "leave the rest out",
        ),
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
