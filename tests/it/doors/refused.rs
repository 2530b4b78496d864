//! What looks like an assignment and is refused, and what is refused without a scope.

use tonic::Code;

use super::options::options;
use super::*;
use crate::client::statement;
use crate::writes::{prepared_update, refused};

/// What is refused by whichever call, and leaves the session bound to Alice.
async fn check(refusals: &[(&str, Code, &str)]) {
    let (server, mut client) = notes().await;
    client.bind(ALICE).await;
    for (sql, code, says) in refusals {
        let sql = sql.replace("BOB", BOB);
        for answer in [
            client.query(&sql).await.map(drop),
            client.prepare(&sql).await.map(drop),
            client.update(&sql).await.map(drop),
        ] {
            let status = answer.err().unwrap_or_else(|| panic!("{sql} was served"));
            assert_eq!(status.code(), *code, "{sql}: {status:?}");
            assert!(status.message().contains(says), "{sql}: {status:?}");
        }
        let tenant = bound_of(&server, "by-sql").await;
        assert_eq!(tenant.as_deref(), Some(ALICE), "{sql}");
    }
    assert_eq!(client.shows(NOTES).await, "of-alice");
}

#[tokio::test]
async fn what_is_no_plain_assignment_is_refused_and_changes_no_binding() {
    use Code::{InvalidArgument, Unimplemented};
    check(&[
        (
            "SET LOCAL app.current_tenant_id = 'BOB'",
            Unimplemented,
            "without LOCAL",
        ),
        (
            "SET GLOBAL app.current_tenant_id = 'BOB'",
            Unimplemented,
            "without GLOBAL",
        ),
        (
            "SELECT set_config('app.current_tenant_id', 'BOB', true)",
            Unimplemented,
            "without LOCAL",
        ),
        (
            "SET datafusion.execution.batch_size = 1",
            Unimplemented,
            "SET is not served of",
        ),
        ("SET a = 1", Unimplemented, "SET is not served of"),
        (
            "SET app.current_tenant = 'BOB'",
            Unimplemented,
            "SET is not served of",
        ),
        (
            "SELECT set_config('a', 'BOB', false)",
            Unimplemented,
            "SET is not served of",
        ),
        (
            "SET app.current_tenant_id = 'BOB', a = 1",
            Unimplemented,
            "is not served",
        ),
        (
            "SET app.current_tenant_id = 'BOB', 'BOB'",
            InvalidArgument,
            "",
        ),
        ("SET app.current_tenant_id = 'bob'", InvalidArgument, "UUID"),
        (
            "SET app.current_tenant_id = 5",
            InvalidArgument,
            "cannot be 5",
        ),
        (
            "SET app.current_tenant_id = (SELECT 'BOB')",
            InvalidArgument,
            "cannot be",
        ),
        (
            "SET app.current_tenant_id = bob",
            InvalidArgument,
            "in quotes",
        ),
        (
            "SET app.current_tenant_id",
            InvalidArgument,
            "does not parse",
        ),
        ("RESET ALL", Unimplemented, "is not served"),
        ("RESET a", Unimplemented, "is not served"),
        ("SET ROLE bob", Unimplemented, "is not served"),
        ("SET TIME ZONE 'UTC'", Unimplemented, "is not served"),
        (
            "SET app.current_tenant_id = 'BOB'; SELECT 1",
            InvalidArgument,
            "more than one",
        ),
        (
            "SELECT 1; SET app.current_tenant_id = 'BOB'",
            InvalidArgument,
            "more than one",
        ),
        (
            "EXPLAIN SET app.current_tenant_id = 'BOB'",
            InvalidArgument,
            "",
        ),
        (
            "EXPLAIN SHOW app.current_tenant_id",
            InvalidArgument,
            "no plan",
        ),
        (
            "PREPARE p AS SET app.current_tenant_id = 'BOB'",
            Unimplemented,
            "PREPARE",
        ),
        (
            "SHOW a",
            InvalidArgument,
            "unrecognized configuration parameter \"a\"",
        ),
        ("SHOW ALL", InvalidArgument, "unrecognized"),
    ])
    .await;
}

#[tokio::test]
async fn set_config_is_refused_wherever_it_is_not_the_statement() {
    let call = "set_config('app.current_tenant_id', 'BOB', false)";
    let within = [
        "EXPLAIN SELECT CALL",
        "EXPLAIN ANALYZE SELECT CALL",
        "PREPARE p AS SELECT CALL",
        "SELECT elsewhere.CALL",
        "SELECT CALL, 1",
        "SELECT CALL AS c",
        "SELECT upper(CALL)",
        "SELECT DISTINCT CALL",
        "SELECT CALL FROM notes",
        "SELECT CALL WHERE false",
        "SELECT CALL LIMIT 0",
        "SELECT CALL UNION ALL SELECT CALL",
        "WITH w AS (SELECT CALL) SELECT * FROM w",
        "SELECT (SELECT CALL)",
        "VALUES (CALL)",
        "INSERT INTO notes SELECT CALL",
        "UPDATE notes SET word = CALL",
        "DELETE FROM notes WHERE word = CALL",
        "CREATE VIEW v AS SELECT CALL",
        "CREATE TABLE c AS SELECT CALL AS x",
        "CREATE TABLE c (x TEXT DEFAULT CALL)",
        "CREATE TABLE c (x TEXT CHECK (x = CALL))",
    ];
    let within: Vec<String> = within.iter().map(|sql| sql.replace("CALL", call)).collect();
    let refusals = within.iter();
    let refusals =
        refusals.map(|sql| (sql.as_str(), Code::InvalidArgument, "statement of its own"));
    check(&refusals.collect::<Vec<_>>()).await;
    check(&[(
        "SELECT set_config('app.current_tenant_id')",
        Code::InvalidArgument,
        "is not served",
    )])
    .await;
}

/// Without anonymous reads a session that is not bound is bound by whichever door,
/// and does nothing else.
#[tokio::test]
async fn without_anonymous_reads_a_statement_can_only_bind() {
    let server = TestServer::start_with(|config| config.tenancy.anonymous_reads = false).await;
    let mut client = Client::connect(&server, Some("strict")).await;
    for sql in [
        "SELECT 1",
        SHOW,
        CURRENT,
        "SELECT 1 -- set_config",
        "-- SET\nSELECT 1",
        "CREATE TABLE t (id INT)",
        "BEGIN",
        "SET LOCAL a = 1; SELECT 1",
        "SELECT set_config('app.current_tenant_id', '', false), 1",
    ] {
        for answer in [
            client.query(sql).await.map(drop),
            client.schema(&statement(sql)).await.map(drop),
            client.prepare(sql).await.map(drop),
            client.update(sql).await.map(drop),
        ] {
            refused(answer, Code::FailedPrecondition, "no tenant is bound");
        }
    }
    client.query(RESET).await.unwrap();
    refused(
        client.query("SET a = 1").await,
        Code::Unimplemented,
        "SET is not served of",
    );
    refused(
        client.query(&set("alice")).await,
        Code::InvalidArgument,
        "UUID",
    );
    for (at, sql) in [
        set(ALICE),
        format!("SELECT set_config('app.current_tenant_id', '{ALICE}', false)"),
    ]
    .iter()
    .enumerate()
    {
        client.query(sql).await.unwrap();
        assert_eq!(client.shows(SHOW).await, ALICE);
        client.update(RESET).await.unwrap();
        refused(
            client.query("SELECT 1").await,
            Code::FailedPrecondition,
            "no tenant is bound",
        );
        let update = prepared_update(&mut client, sql).await;
        if at == 0 {
            client.put_counted(&update, text(None)).await.unwrap_err();
            let empty = RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty()));
            client.put_counted(&update, empty).await.unwrap();
            assert_eq!(client.shows(SHOW).await, ALICE);
        }
        client.update(RESET).await.unwrap();
    }
    let set = options([("tenant", Some(BOB))]);
    client.act("SetSessionOptions", set).await.unwrap();
    assert_eq!(client.shows(SHOW).await, BOB);
}
