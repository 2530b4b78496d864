//! Rows by their keys, by statements that differ in the key alone: they share a
//! plan, and nothing else.

use super::*;

/// What a statement answers: its rows in their own order, or that it is refused.
async fn outcome(session: &JammiSession, sql: &str) -> String {
    match session.sql(sql).await {
        Ok(_) => {
            let rows = rows(session, sql).await;
            let mut rows: Vec<&str> = rows.split(' ').collect();
            rows.sort_unstable();
            rows.join(" ")
        }
        Err(Error::InvalidArgument(_)) => "refused".to_owned(),
        Err(error) => panic!("{sql}: {error:?}"),
    }
}

/// A value means the same where its plan was made for another one as where it is
/// compared in a way that no index serves, whatever the type of either.
#[tokio::test]
async fn a_key_finds_what_a_comparison_finds() {
    let world = World::new().await;
    let uuid = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b";
    let keys: [(&str, &[&str]); 10] = [
        ("BIGINT", &["1", "2", "-3"]),
        ("INT", &["1", "2", "2147483647"]),
        ("TINYINT", &["1", "2", "-128"]),
        ("BIGINT UNSIGNED", &["1", "2", "18446744073709551615"]),
        ("VARCHAR", &["'1'", "'2'", "'it''s'"]),
        ("DOUBLE", &["1", "2", "0.0"]),
        ("DECIMAL(20, 2)", &["1", "2", "2.50"]),
        ("DATE", &["'2020-01-01'", "'2020-01-02'", "'1969-12-31'"]),
        ("BOOLEAN", &["true", "false"]),
        ("UUID", &[&format!("'{uuid}'")]),
    ];
    let literals = [
        "1",
        "2",
        "3",
        "-3",
        "-128",
        "300",
        "2147483647",
        "9223372036854775807",
        "18446744073709551615",
        "99999999999999999999",
        "1.0",
        "2.5",
        "2.50",
        "0.0",
        "-0.0",
        "1e0",
        "'1'",
        "'2'",
        "' 1'",
        "'x'",
        "'it''s'",
        "'2020-01-01'",
        "DATE '2020-01-02'",
        "true",
        "NULL",
        &format!("'{uuid}'"),
        &format!("'{}'", uuid.to_uppercase()),
    ];
    for (number, (data_type, values)) in keys.iter().enumerate() {
        let own = format!("own{number}");
        let shared = format!("shared{number}");
        for (session, table) in [
            (&world.alice, &own),
            (&world.bob, &own),
            (&world.shared, &shared),
        ] {
            let sql = format!("CREATE TABLE {table} (v VARCHAR, k {data_type} PRIMARY KEY)");
            run(session, &[&sql]).await;
        }
        for (session, word, tables) in [
            (&world.alice, "alices", &[&own, &shared][..]),
            (&world.bob, "bobs", &[&own, &shared]),
            (&world.shared, "everybodys", &[&shared]),
        ] {
            for table in tables {
                for value in *values {
                    let sql = format!("INSERT INTO {table} (v, k) VALUES ('{word}', {value})");
                    run(session, &[&sql]).await;
                }
            }
        }
        for literal in literals {
            for table in [&own, &shared] {
                for (session, others) in [(&world.alice, "bobs"), (&world.bob, "alices")] {
                    let by_scan = format!("SELECT v, k FROM {table} WHERE NOT (k <> {literal})");
                    let expected = outcome(session, &by_scan).await;
                    for condition in [format!("k = {literal}"), format!("({literal} = {table}.k)")]
                    {
                        let sql = format!("SELECT v, k FROM {table} WHERE {condition}");
                        let found = outcome(session, &sql).await;
                        assert_eq!(found, expected, "{data_type}: {sql}");
                        assert!(!found.contains(others), "{sql}: {found}");
                    }
                }
            }
        }
    }
}

/// A lane whose storage of a table has no index for the key, as one has that is older
/// than it: the key finds the tenant's row there too, and that alone.
#[tokio::test]
async fn a_key_finds_rows_of_a_lane_that_has_no_index_for_it() {
    let world = World::new().await;
    let table = "CREATE TABLE t (a BIGINT, word VARCHAR, b INT, PRIMARY KEY (a, b))";
    run(
        &world.shared,
        &[table, "INSERT INTO t VALUES (9, 'everybodys', 2)"],
    )
    .await;
    for (session, word) in [(&world.alice, "alices"), (&world.bob, "bobs")] {
        let sql = format!(
            "INSERT INTO t SELECT value, '{word} ' || value, CAST(value % 7 AS INT) \
             FROM generate_series(1, 20000)"
        );
        run(session, &[&sql]).await;
    }
    run(
        &world.shared,
        &["ALTER TABLE t ADD COLUMN late INT DEFAULT 5"],
    )
    .await;
    let lane = world.dir.path().join("tenants").join(format!("{ALICE}.db"));
    let lane = rusqlite::Connection::open(lane).unwrap();
    let find = "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name LIKE 'g%'";
    let index: String = lane.query_row(find, [], |row| row.get(0)).unwrap();
    lane.execute_batch(&format!("DROP INDEX {index}")).unwrap();
    for (session, word) in [(&world.alice, "alices"), (&world.bob, "bobs")] {
        for (sql, expected) in [
            (
                "SELECT word FROM t WHERE a = 15000 AND b = 6",
                format!("{word} 15000"),
            ),
            (
                "SELECT word FROM t WHERE a = 15001 AND b = 0 LIMIT 1",
                format!("{word} 15001"),
            ),
            (
                "SELECT word FROM t WHERE a = 15001 AND b = 1",
                String::new(),
            ),
            (
                "SELECT b, late FROM t WHERE a = 15000 AND b = 6 AND late = 5",
                "6|5".to_owned(),
            ),
            (
                "SELECT late FROM t WHERE a = 15000 AND b = 6",
                "5".to_owned(),
            ),
            (
                "SELECT word FROM t WHERE a = 15000 AND b = 6 AND late = 6",
                String::new(),
            ),
            (
                "SELECT word FROM t WHERE a = 15000 AND b = NULL",
                String::new(),
            ),
            (
                "SELECT count(*) FROM t WHERE a = 15000 AND b = 6",
                "1".to_owned(),
            ),
        ] {
            assert_eq!(rows(session, sql).await, expected, "{sql}");
        }
        let both = "SELECT word FROM t WHERE a = 9 AND b = 2";
        assert_eq!(rows(session, both).await, format!("{word} 9 everybodys"));
        let none = "SELECT word FROM t WHERE a = 9 AND b = 3 LIMIT 5";
        assert_eq!(rows(session, none).await, "");
    }
}

/// A statement whose plan is kept meets what was written since, a table of the same
/// name that is another, and its own tenant's rows alone.
#[tokio::test]
async fn a_kept_plan_meets_what_is_there_now() {
    let world = World::new().await;
    let read = |id: i64| format!("SELECT word FROM t WHERE id = {id}");
    for (session, word) in [(&world.alice, "alices"), (&world.bob, "bobs")] {
        run(
            session,
            &["CREATE TABLE t (id BIGINT PRIMARY KEY, word VARCHAR)"],
        )
        .await;
        let insert = format!("INSERT INTO t VALUES (1, '{word} 1'), (2, '{word} 2')");
        run(session, &[&insert]).await;
    }
    for id in [1, 2, 1, 2] {
        assert_eq!(rows(&world.alice, &read(id)).await, format!("alices {id}"));
        assert_eq!(rows(&world.bob, &read(id)).await, format!("bobs {id}"));
    }
    run(&world.alice, &["UPDATE t SET word = 'new' WHERE id = 1"]).await;
    assert_eq!(rows(&world.alice, &read(1)).await, "new");
    assert_eq!(rows(&world.bob, &read(1)).await, "bobs 1");
    run(
        &world.alice,
        &[
            "DROP TABLE t",
            "CREATE TABLE t (word VARCHAR, id VARCHAR PRIMARY KEY)",
            "INSERT INTO t VALUES ('of text', '1')",
        ],
    )
    .await;
    assert_eq!(
        rows(&world.alice, "SELECT word FROM t WHERE id = '1'").await,
        "of text"
    );
    assert_eq!(
        rows(&world.alice, "SELECT word FROM t WHERE id = '2'").await,
        ""
    );
    assert_eq!(rows(&world.bob, &read(2)).await, "bobs 2");
    run(&world.alice, &["DROP TABLE t"]).await;
    let error = refused(&world.alice, &read(3)).await;
    assert!(matches!(error, Error::NotFound(_)), "{error:?}");
}
