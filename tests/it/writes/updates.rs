//! Updates, and updates that are prepared.

use super::*;

#[tokio::test]
async fn an_update_says_how_many_rows_it_wrote() {
    let (_server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    bob.update("INSERT INTO t VALUES (1, 'canary')")
        .await
        .unwrap();
    for (sql, count) in [
        ("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')", 3),
        ("UPDATE t SET word = 'x' WHERE id > 1", 2),
        ("DELETE FROM t WHERE id = 7", 0),
        ("DELETE FROM t WHERE id = 1", 1),
    ] {
        assert_eq!(alice.update(sql).await.unwrap(), count, "{sql}");
    }
    assert_eq!(
        alice.shows("SELECT id, word FROM t ORDER BY id").await,
        "2|x 3|x"
    );
    assert_eq!(bob.shows("SELECT id, word FROM t").await, "1|canary");
    refused(
        alice.update("SELECT 1").await,
        Code::InvalidArgument,
        "the statement is a query",
    );
    refused(
        alice.update("INSERT INTO t VALUES (2, 'again')").await,
        Code::AlreadyExists,
        "id = 2",
    );
}

#[tokio::test]
async fn a_ticket_of_a_write_runs_it_once() {
    let (_server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    let insert = statement(
        "INSERT INTO t (id) SELECT max(coalesce(id, 0)) + 1 FROM (SELECT id FROM t UNION ALL SELECT 0) x",
    );
    let first = alice.info(&insert).await.unwrap();
    let second = alice.info(&insert).await.unwrap();
    let ticket = |info: &arrow_flight::FlightInfo| info.endpoint[0].ticket.clone().unwrap();
    // Announcing writes nothing, and neither does another's attempt.
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "0");
    refused(
        bob.get(ticket(&first)).await,
        Code::FailedPrecondition,
        "another session",
    );
    assert_eq!(shown(&alice.get(ticket(&first)).await.unwrap()[0]), "1");
    for used in [ticket(&first), ticket(&first)] {
        refused(
            alice.get(used).await,
            Code::FailedPrecondition,
            "was used before",
        );
    }
    // Two announcements are two runs.
    alice.get(ticket(&second)).await.unwrap();
    assert_eq!(alice.shows("SELECT id FROM t ORDER BY id").await, "1 2");

    // Of many that use a ticket at once, one runs it.
    let once = ticket(&alice.info(&insert).await.unwrap());
    let attempts = (0..16).map(|_| {
        let (mut alice, once) = (alice.clone(), once.clone());
        async move { alice.get(once).await.is_ok() }
    });
    let ran = futures::future::join_all(attempts).await;
    assert_eq!(ran.iter().filter(|ran| **ran).count(), 1);
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "3");

    // A handle is no ticket for a write.
    let handle = alice.prepare("DELETE FROM t").await.unwrap();
    let raw = prepared(&handle.prepared_statement_handle)
        .as_any()
        .encode_to_vec();
    refused(
        alice.get(arrow_flight::Ticket::new(raw)).await,
        Code::FailedPrecondition,
        "GetFlightInfo",
    );
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "3");
}

#[tokio::test]
async fn a_definition_by_query_route_answers_without_columns() {
    let (_server, mut alice, _) = world().await;
    let made = alice.query("CREATE TABLE t (id INT)").await.unwrap();
    assert_eq!((made.num_columns(), made.num_rows()), (0, 0));
    assert_eq!(alice.shows("INSERT INTO t VALUES (1)").await, "1");
}

#[tokio::test]
async fn what_is_prepared_tells_an_update_from_a_query() {
    let (_server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    for (sql, is_query) in [
        ("SELECT * FROM t", true),
        ("INSERT INTO t VALUES (?, ?)", false),
        ("INSERT INTO t VALUES (?, ?) RETURNING id", true),
        ("CREATE TABLE u (id INT)", false),
        ("BEGIN", false),
    ] {
        let told = alice.prepare(sql).await.unwrap();
        assert_eq!(!told.dataset_schema.is_empty(), is_query, "{sql}");
    }
}

#[tokio::test]
async fn a_prepared_update_runs_for_every_row_or_for_none() {
    let (_server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    let insert = prepared_update(&mut alice, "INSERT INTO t VALUES (?, ?)").await;
    assert_eq!(
        alice
            .put_counted(&insert, rows(0..20_000, "a"))
            .await
            .unwrap(),
        20_000
    );
    let all = "SELECT count(*), min(id), max(id), sum(id) FROM t";
    assert_eq!(alice.shows(all).await, "20000|0|19999|199990000");
    // In the order in which they came.
    assert_eq!(alice.shows("SELECT id FROM t LIMIT 3").await, "0 1 2");

    // The last row's key is taken, or is none, or is too large.
    let taken = rows((20_000..30_000).chain([5]), "b");
    refused(
        alice.put_counted(&insert, taken).await,
        Code::AlreadyExists,
        "id = 5",
    );
    let large = rows((20_000..30_000).chain([1 << 40]), "b");
    refused(
        alice.put_counted(&insert, large).await,
        Code::InvalidArgument,
        "parameter 1",
    );
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "20000");

    // Expressions, and a parameter used twice.
    let odd = prepared_update(
        &mut alice,
        "INSERT INTO t (word, id) VALUES (upper($2) || '-' || $2, 0 - $1)",
    )
    .await;
    assert_eq!(alice.put_counted(&odd, rows([7, 8], "w")).await.unwrap(), 2);
    assert_eq!(
        alice
            .shows("SELECT id, word FROM t WHERE id < 0 ORDER BY id")
            .await,
        "-8|W-w -7|W-w"
    );

    let update = prepared_update(&mut alice, "UPDATE t SET word = $2 WHERE id = $1").await;
    assert_eq!(
        alice
            .put_counted(&update, rows([1, 2, 99_999], "new"))
            .await
            .unwrap(),
        2
    );
    let delete = prepared_update(&mut alice, "DELETE FROM t WHERE id = ?").await;
    let ids = numbers("0", [-7, -8]);
    assert_eq!(alice.put_counted(&delete, ids).await.unwrap(), 2);
    // Of two rows the second fails: the first is not changed either.
    let failing =
        prepared_update(&mut alice, "UPDATE t SET id = 10 / (id - 4) WHERE id = $1").await;
    refused(
        alice.put_counted(&failing, numbers("0", [3, 4])).await,
        Code::InvalidArgument,
        "",
    );
    assert_eq!(
        alice.shows("SELECT count(*) FROM t WHERE id = 3").await,
        "1"
    );
    assert_eq!(bob.shows("SELECT count(*) FROM t").await, "0");
}

#[tokio::test]
async fn a_prepared_update_without_values_runs_once() {
    let (_server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    let none = RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty()));
    let insert = prepared_update(&mut alice, "INSERT INTO t VALUES (1, 'one')").await;
    assert_eq!(alice.put_counted(&insert, none.clone()).await.unwrap(), 1);
    let two = prepared_update(&mut alice, "INSERT INTO t VALUES (?, ?)").await;
    refused(
        alice.put_counted(&two, none).await,
        Code::InvalidArgument,
        "2 parameters and 0 values",
    );
    assert_eq!(alice.put_counted(&two, rows(NO_ROWS, "")).await.unwrap(), 0);
    refused(
        alice.put_counted(&two, numbers("0", [1])).await,
        Code::InvalidArgument,
        "2 parameters and rows of 1 value",
    );
    let query = prepared_update(&mut alice, "SELECT ?").await;
    refused(
        alice.put_counted(&query, numbers("0", [1])).await,
        Code::InvalidArgument,
        "is a query",
    );
    assert_eq!(alice.shows("SELECT id FROM t").await, "1");
}

#[tokio::test]
async fn rows_of_another_tenant_leave_nothing() {
    let (_server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    bob.update("INSERT INTO t VALUES (1, 'canary')")
        .await
        .unwrap();
    let insert = prepared_update(&mut alice, "INSERT INTO t (id, tenant_id) VALUES (?, ?)").await;
    let tenants = |last: Option<&str>| {
        let ids = Int64Array::from_iter_values(0..10_000);
        let tenants = (0..9_999).map(|_| Some(ALICE)).chain([last]);
        columns(vec![
            ("0", Arc::new(ids)),
            ("1", Arc::new(tenants.collect::<StringArray>())),
        ])
    };
    for foreign in [Some(BOB), None] {
        refused(
            alice.put_counted(&insert, tenants(foreign)).await,
            Code::PermissionDenied,
            "another tenant",
        );
    }
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "0");
    assert_eq!(
        alice
            .put_counted(&insert, tenants(Some(ALICE)))
            .await
            .unwrap(),
        10_000
    );
    assert_eq!(bob.shows("SELECT id, word FROM t").await, "1|canary");
}

#[tokio::test]
async fn keys_are_told() {
    let (_server, mut alice, mut bob) = world().await;
    bob.update("CREATE TABLE t (other INT PRIMARY KEY)")
        .await
        .unwrap();
    alice
        .update("CREATE TABLE t (a INT, b TEXT, c INT UNIQUE, PRIMARY KEY (b, a))")
        .await
        .unwrap();
    let keys = |table: &str, catalog: Option<&str>| CommandGetPrimaryKeys {
        catalog: catalog.map(str::to_owned),
        db_schema: None,
        table: table.into(),
    };
    let told = alice.rows(&keys("t", Some("mutable"))).await.unwrap();
    assert_eq!(
        shown(&told),
        "mutable|public|t|b|t_pkey|1 mutable|public|t|a|t_pkey|2"
    );
    for none in [keys("t", Some("jammi")), keys("missing", None)] {
        assert_eq!(alice.rows(&none).await.unwrap().num_rows(), 0);
    }
}

/// Symptom: "Projections require unique expression names" of an INSERT, whose columns
/// are told by their places.
#[tokio::test]
async fn a_source_may_yield_one_name_twice() {
    let (server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    bob.update("INSERT INTO t VALUES (1, 'canary')")
        .await
        .unwrap();
    for (sql, rows) in [
        ("INSERT INTO t SELECT 1 AS a, 2 AS a", "1|2"),
        (
            "INSERT INTO t SELECT value, CAST(value AS TEXT) FROM generate_series(2, 3) s(value) \
             ORDER BY value DESC",
            "1|2 2|2 3|3",
        ),
        (
            "INSERT INTO t (id, word) SELECT id + 10, word AS id FROM t WHERE id = 1",
            "1|2 2|2 3|3 11|2",
        ),
        (
            "INSERT INTO t SELECT x.id + 20, y.id FROM t x JOIN t y ON x.id = y.id WHERE x.id = 1 \
             UNION ALL SELECT 30, 30",
            "1|2 2|2 3|3 11|2 21|1 30|30",
        ),
        (
            "INSERT INTO t (word, id, tenant_id) SELECT word, id + 40, tenant_id FROM \
             (SELECT * FROM t WHERE id = 1)",
            "1|2 2|2 3|3 11|2 21|1 30|30 41|2",
        ),
        (
            "INSERT INTO t (id, word) SELECT s.*, s.value FROM generate_series(50, 50) s(value)",
            "1|2 2|2 3|3 11|2 21|1 30|30 41|2 50|50",
        ),
    ] {
        alice.update(sql).await.unwrap();
        assert_eq!(
            alice.shows("SELECT id, word FROM t ORDER BY id").await,
            rows
        );
    }
    // A query's names are what its answer is read by.
    refused(
        alice.query("SELECT 1 AS a, 2 AS a").await,
        Code::InvalidArgument,
        "unique",
    );
    let hers = alice.shows("SELECT word FROM t").await;
    assert!(!hers.contains("canary"), "{hers}");
    let his = bob.shows("SELECT id, word FROM t").await;
    assert_eq!(his, "1|canary");
    server.stop().await;
}
