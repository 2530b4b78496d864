//! What a record says of its request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int32Array, RecordBatch};
use arrow_flight::Ticket;
use arrow_flight::sql::{
    CommandPreparedStatementUpdate, CommandStatementIngest, CommandStatementUpdate,
    TableDefinitionOptions,
};
use jammi_db::audit;
use jammi_db::config::AuditStatements;
use jammi_db::engine::TENANT_SETTING;
use jammi_db::server::proto::catalog::DescribeTableRequest;
use tonic::Request;

use super::{events, texts};
use crate::client::{ALICE, BOB, Client, alice_and_bob, statement};
use crate::harness::{TestServer, bind, in_session, set_tenant};

#[tokio::test(flavor = "multi_thread")]
async fn how_a_result_ended_is_recorded_with_its_rows() {
    let server = TestServer::start().await;
    let (mut alice, _bob) = alice_and_bob(&server).await;
    let rows = "FROM generate_series(1, 100000) AS t(v)";
    let mut asker = alice.clone();
    let mut info = async |sql: String| {
        let info = asker.info(&statement(&sql)).await.unwrap();
        info.endpoint[0].ticket.clone().unwrap()
    };
    let whole = info(format!("SELECT v AS whole {rows}")).await;
    alice.get(whole).await.unwrap();
    let failing = info(format!("SELECT 1 / (v - 50000) AS failing {rows}")).await;
    let failed = alice.get(failing).await.unwrap_err();
    let endless = "SELECT v AS given_up FROM generate_series(1, 100000000000) AS t(v)";
    let endless: Ticket = info(endless.into()).await;
    let request = alice.request(endless);
    let mut messages = alice.flight.do_get(request).await.unwrap().into_inner();
    for _ in 0..3 {
        messages.message().await.unwrap().unwrap();
    }
    drop(messages);

    let mut of = async |name: &str| {
        let condition = format!("method LIKE '%/DoGet' AND statement LIKE '%{name}%'");
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let columns = "rows, bytes, duration_us, outcome";
            let told = events(&mut alice, columns, &condition).await;
            // What was given up ends when the server has noticed.
            if let [told] = &*told {
                let number = |at: usize| told[at].parse::<i64>().unwrap();
                return (number(0), number(1), number(2), told[3].clone());
            }
            assert!(Instant::now() < until, "{name}: {told:?}");
        }
    };
    let (rows, bytes, duration_us, outcome) = of("whole").await;
    assert_eq!((rows, outcome.as_str()), (100_000, "OK"));
    assert!(bytes > 8 * rows && duration_us > 0, "{bytes} {duration_us}");
    let (rows, _, _, outcome) = of("failing").await;
    let code = format!("{:?}", failed.code());
    assert_eq!(outcome.replace('_', ""), code.to_ascii_uppercase());
    assert_ne!(outcome, "OK");
    // Other batches may overtake the one that fails.
    assert!(rows < 100_000, "{rows}");
    let (rows, _, _, outcome) = of("given_up").await;
    assert_eq!(outcome, "CANCELLED");
    assert!(rows > 0, "{rows}");
}

#[tokio::test]
async fn every_way_in_says_what_it_is_about() {
    let server = TestServer::start().await;
    let (mut alice, _bob) = alice_and_bob(&server).await;
    alice.query("CREATE TABLE t (id INT)").await.unwrap();
    alice
        .query("CREATE VIEW v AS SELECT id FROM t")
        .await
        .unwrap();
    alice.query("SELECT * FROM v").await.unwrap();
    alice.query("EXPLAIN SELECT 1").await.unwrap();
    let set = format!("SET {TENANT_SETTING} = '{ALICE}'");
    alice.query(&set).await.unwrap();
    let ids = Int32Array::from(vec![1, 2]);
    let ids = RecordBatch::try_from_iter([("id", Arc::new(ids) as ArrayRef)]);
    let ids = ids.unwrap();
    let put = CommandStatementUpdate {
        query: "INSERT INTO t VALUES (7)".into(),
        transaction_id: None,
    };
    alice.put(&put, ids.slice(0, 0)).await.unwrap();
    let prepared = alice.prepare("INSERT INTO t VALUES (?)").await.unwrap();
    let update = CommandPreparedStatementUpdate {
        prepared_statement_handle: prepared.prepared_statement_handle,
    };
    alice.put(&update, ids.clone()).await.unwrap();
    let ingest = CommandStatementIngest {
        table: "t".into(),
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: 2,
            if_exists: 2,
        }),
        ..Default::default()
    };
    alice.put(&ingest, ids).await.unwrap();
    let mut catalog = server.catalog().await;
    let describe = DescribeTableRequest { name: "t".into() };
    catalog
        .describe_table(in_session("alice", describe))
        .await
        .unwrap();

    let columns = "DISTINCT regexp_replace(method, '.*/', ''), coalesce(statement, '-'), \
                   tables, rows";
    let sql = format!("SELECT {columns} FROM jammi.audit.events");
    let told = texts(&alice.query(&sql).await.unwrap());
    let expected = [
        [
            "DoGet",
            "CREATE TABLE t (id INT)",
            "[mutable.public.t]",
            "0",
        ],
        [
            "DoGet",
            "CREATE VIEW v AS SELECT id FROM t",
            "[mutable.public.t, mutable.public.v]",
            "0",
        ],
        [
            "DoGet",
            "SELECT * FROM v",
            "[mutable.public.t, mutable.public.v]",
            "0",
        ],
        ["GetFlightInfo", "EXPLAIN SELECT ?", "[]", "0"],
        ["DoGet", &set, "[]", "0"],
        [
            "DoPut",
            "INSERT INTO t VALUES (?)",
            "[mutable.public.t]",
            "1",
        ],
        [
            "DoAction",
            "INSERT INTO t VALUES (?)",
            "[mutable.public.t]",
            "0",
        ],
        [
            "DoPut",
            "INSERT INTO t VALUES (?)",
            "[mutable.public.t]",
            "2",
        ],
        ["DoPut", "an ingest of rows", "[mutable.public.t]", "2"],
        ["DescribeTable", "-", "[mutable.public.t]", "0"],
    ];
    for row in expected {
        assert!(told.iter().any(|told| told == &row), "{row:?}: {told:#?}");
    }
}

#[tokio::test]
async fn a_text_is_kept_as_the_setting_says() {
    for (statements, expected) in [
        (AuditStatements::Full, "SELECT 'kept' AS word"),
        (AuditStatements::Masked, "SELECT ? AS word"),
        (AuditStatements::None, "-"),
    ] {
        let server = TestServer::start_with(|config| config.audit.statements = statements).await;
        let (mut alice, _bob) = alice_and_bob(&server).await;
        alice.query("SELECT 'kept' AS word").await.unwrap();
        let sql = "SELECT DISTINCT coalesce(statement, '-') FROM jammi.audit.events \
                   WHERE method LIKE '%/DoGet'";
        assert_eq!(texts(&alice.query(sql).await.unwrap())[0], [expected]);
    }
    let server = TestServer::start_with(|config| config.audit.enabled = false).await;
    let (mut alice, _bob) = alice_and_bob(&server).await;
    let none = alice.query("SELECT * FROM jammi.audit.events").await;
    assert_eq!(none.unwrap().num_rows(), 0);
    assert!(!audit::directory(server.dir()).exists());
}

#[tokio::test]
async fn a_request_is_told_by_its_names() {
    let server = TestServer::start().await;
    let mut sessions = server.sessions().await;
    let mut request = in_session("s", set_tenant(ALICE));
    let metadata = request.metadata_mut();
    metadata.insert("x-request-id", "named-by-the-client".parse().unwrap());
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    metadata.insert("traceparent", parent.parse().unwrap());
    sessions.set_tenant(request).await.unwrap();
    bind(&mut sessions, "t", BOB).await.unwrap();
    let wrong = Request::new(set_tenant(ALICE));
    sessions.set_tenant(wrong).await.unwrap_err();
    let mut nobody = Client::connect(&server, None).await;
    let columns = "request_id, coalesce(trace_id, '-'), statement, outcome";
    let sql = format!(
        "SELECT {columns} FROM jammi.audit.events WHERE method LIKE '%/SetTenant' ORDER BY id"
    );
    let told = texts(&nobody.query(&sql).await.unwrap());
    let of = |tenant: &str| format!("SET {TENANT_SETTING} = '{tenant}'");
    assert_eq!(told[0], ["named-by-the-client", trace, &of(ALICE), "OK"]);
    assert_eq!(told[1][1..], ["-", &of(BOB), "OK"]);
    assert_eq!(told[2][1..], ["-", "", "INVALID_ARGUMENT"]);
}
