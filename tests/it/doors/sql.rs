//! A session bound by SQL.

use std::str::FromStr;

use arrow_flight::sql::CommandPreparedStatementUpdate;
use futures::TryStreamExt;
use jammi_db::TenantId;
use jammi_db::session::JammiSession;
use tonic::Code;

use super::*;
use crate::client::{prepared, statement};
use crate::harness::config;
use crate::writes::{prepared_update, refused, shown};

#[tokio::test]
async fn a_session_is_bound_by_sql_and_reads_what_it_is_bound_to() {
    let (server, mut client) = notes().await;
    refused(client.query(NOTES).await, Code::NotFound, "does not exist");
    // By GetFlightInfo, by DoPut, and prepared.
    client.query(&set(ALICE)).await.unwrap();
    assert_eq!(client.shows(NOTES).await, "of-alice");
    assert_eq!(bound_of(&server, "by-sql").await.as_deref(), Some(ALICE));
    assert_eq!(client.update(&set(BOB)).await.unwrap(), 0);
    assert_eq!(client.shows(NOTES).await, "of-bob");
    let handle = client.prepare(&set(ALICE)).await.unwrap();
    // What has no columns is sent by DoPut, as drivers for Java do.
    assert!(handle.dataset_schema.is_empty());
    let handle = handle.prepared_statement_handle;
    client.rows(&prepared(&handle)).await.unwrap();
    assert_eq!(client.shows(NOTES).await, "of-alice");
    let update = prepared_update(&mut client, &set(BOB)).await;
    let empty = RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty()));
    client.put_counted(&update, empty).await.unwrap();
    assert_eq!(client.shows(NOTES).await, "of-bob");

    for (sql, tenant) in [
        (
            format!("SET SESSION app.current_tenant_id = '{ALICE}'"),
            Some(ALICE),
        ),
        (format!("set app.current_tenant_id to '{BOB}';"), Some(BOB)),
        // Symptom: after an empty statement it was told to be sent to a server. Cause:
        // the text was looked at from its first character that is not blank.
        (format!(" ;; {}", set(ALICE)), Some(ALICE)),
        (
            format!(
                "/* mine */ SET App.Current_Tenant_ID = '{}'",
                ALICE.to_uppercase()
            ),
            Some(ALICE),
        ),
        (RESET.into(), None),
        (format!("-- a comment\n{}", set(BOB)), Some(BOB)),
        ("SET app.current_tenant_id TO DEFAULT".into(), None),
        (
            format!("SET \"app\".\"current_tenant_id\" = '{BOB}'"),
            Some(BOB),
        ),
        ("SET app.current_tenant_id = ''".into(), None),
        // What is unbound may be unbound.
        (RESET.into(), None),
    ] {
        client
            .query(&sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        assert_eq!(
            bound_of(&server, "by-sql").await.as_deref(),
            tenant,
            "{sql}"
        );
        let told = tenant.unwrap_or_default();
        for read in [SHOW, "show App.Current_Tenant_Id", CURRENT] {
            assert_eq!(client.shows(read).await, told, "{read} after {sql}");
        }
        match tenant {
            Some(ALICE) => assert_eq!(client.shows(NOTES).await, "of-alice"),
            Some(_) => assert_eq!(client.shows(NOTES).await, "of-bob"),
            None => refused(client.query(NOTES).await, Code::NotFound, "does not exist"),
        }
    }
    // Nobody else was bound.
    assert_eq!(bound_of(&server, "alice").await.as_deref(), Some(ALICE));
    assert_eq!(bound_of(&server, "bob").await.as_deref(), Some(BOB));
    // What is bound by SQL is bound after a restart.
    client.query(&set(BOB)).await.unwrap();
    drop(client);
    let server = TestServer::start_in(server.stop().await, |_| {}).await;
    let mut client = Client::connect(&server, Some("by-sql")).await;
    assert_eq!(client.shows(NOTES).await, "of-bob");
}

#[tokio::test]
async fn set_config_binds_and_answers_with_the_value() {
    let (server, mut client) = notes().await;
    let call =
        |tenant: &str| format!("SELECT set_config('app.current_tenant_id', {tenant}, false)");
    let sql = call(&format!("'{}'", ALICE.to_uppercase()));
    let rows = client.query(&sql).await.unwrap();
    assert_eq!(
        (
            rows.schema().field(0).name().as_str(),
            shown(&rows).as_str()
        ),
        ("set_config", ALICE)
    );
    assert_eq!(client.shows(NOTES).await, "of-alice");
    for nothing in ["''", "NULL"] {
        assert_eq!(client.shows(&call(nothing)).await, "");
        assert_eq!(bound_of(&server, "by-sql").await, None);
        client.query(&set(ALICE)).await.unwrap();
    }
    // A value need not be written into the text.
    for sql in [
        call("?"),
        call("$1"),
        "SET app.current_tenant_id = ?".into(),
    ] {
        let told = client.prepare(&sql).await.unwrap();
        let parameters =
            arrow::datatypes::Schema::try_from(arrow_flight::IpcMessage(told.parameter_schema));
        assert_eq!(parameters.unwrap().fields().len(), 1, "{sql}");
        let handle = told.prepared_statement_handle;
        let bound = client.bind_row(&handle, text(Some(BOB))).await.unwrap();
        client.rows(&prepared(&bound)).await.unwrap();
        assert_eq!(client.shows(NOTES).await, "of-bob", "{sql}");
        let update = prepared_update(&mut client, &sql).await;
        client
            .put_counted(&update, text(Some(ALICE)))
            .await
            .unwrap();
        assert_eq!(client.shows(NOTES).await, "of-alice", "{sql}");
        for (value, says) in [(text(Some("alice")), "UUID"), (two_rows(), "one row")] {
            let update = prepared_update(&mut client, &sql).await;
            refused(
                client.put_counted(&update, value).await,
                Code::InvalidArgument,
                says,
            );
        }
        refused(
            client.query(&sql).await,
            Code::InvalidArgument,
            "1 parameter",
        );
        assert_eq!(client.shows(NOTES).await, "of-alice", "{sql}");
        let update = prepared_update(&mut client, &sql).await;
        client.put_counted(&update, text(None)).await.unwrap();
        assert_eq!(bound_of(&server, "by-sql").await, None);
    }
}

fn two_rows() -> RecordBatch {
    let column: ArrayRef = Arc::new(StringArray::from(vec![ALICE, BOB]));
    RecordBatch::try_from_iter([("0", column)]).unwrap()
}

#[tokio::test]
async fn a_statement_that_binds_needs_a_session() {
    let (server, _client) = notes().await;
    let mut nobody = Client::connect(&server, None).await;
    for sql in [&set(ALICE), RESET] {
        for answer in [
            nobody.query(sql).await.map(drop),
            nobody.update(sql).await.map(drop),
        ] {
            refused(answer, Code::InvalidArgument, "jammi-session-id");
        }
    }
    // Neither does a statement that is prepared, without the cookie of its answer.
    let handle = nobody
        .prepare(&set(ALICE))
        .await
        .unwrap()
        .prepared_statement_handle;
    for answer in [
        nobody.rows(&prepared(&handle)).await.map(drop),
        nobody
            .put(
                &CommandPreparedStatementUpdate {
                    prepared_statement_handle: handle.clone(),
                },
                text(None),
            )
            .await
            .map(drop),
    ] {
        refused(answer, Code::FailedPrecondition, "another session");
    }
    refused(nobody.query(NOTES).await, Code::NotFound, "does not exist");
    assert_eq!(nobody.shows(SHOW).await, "");
}

#[tokio::test]
async fn setting_changes_the_next_request_and_not_one_that_runs() {
    let (_server, mut client) = notes().await;
    client.query(&set(ALICE)).await.unwrap();
    let insert = "INSERT INTO notes SELECT repeat('of-alice', 1000) FROM generate_series(1, 20000)";
    client.update(insert).await.unwrap();
    let reads = client
        .prepare(NOTES)
        .await
        .unwrap()
        .prepared_statement_handle;
    let sql = "SELECT word, current_setting('app.current_tenant_id') FROM notes";
    let ticket = client.info(&statement(sql)).await.unwrap().endpoint[0]
        .ticket
        .clone();
    let request = client.request(ticket.clone().unwrap());
    let mut rows = client.flight.do_get(request).await.unwrap().into_inner();
    rows.try_next().await.unwrap().unwrap();
    client.query(&set(BOB)).await.unwrap();
    assert_eq!(client.shows(NOTES).await, "of-bob");
    let mut batches = 0;
    while let Some(message) = rows.try_next().await.unwrap() {
        let body = String::from_utf8_lossy(&message.data_body).into_owned();
        assert!(!body.contains("of-bob") && !body.contains(BOB));
        batches += usize::from(body.contains("of-alice") && body.contains(ALICE));
    }
    assert!(batches > 1, "{batches}");
    // What was made under the earlier binding is not good under this one.
    let again = "prepare the statement again";
    refused(
        client.get(ticket.unwrap()).await,
        Code::FailedPrecondition,
        again,
    );
    refused(
        client.rows(&prepared(&reads)).await,
        Code::FailedPrecondition,
        again,
    );
    refused(
        client
            .put_counted(
                &CommandPreparedStatementUpdate {
                    prepared_statement_handle: reads.clone(),
                },
                text(None),
            )
            .await,
        Code::FailedPrecondition,
        again,
    );
    // A ticket that binds is good once, and under the binding that it was made in.
    let sets = client.info(&statement(&set(ALICE))).await.unwrap().endpoint[0]
        .ticket
        .clone()
        .unwrap();
    client.get(sets.clone()).await.unwrap();
    refused(client.get(sets).await, Code::FailedPrecondition, again);
    let resets = client.info(&statement(&set(ALICE))).await.unwrap().endpoint[0]
        .ticket
        .clone()
        .unwrap();
    client.get(resets.clone()).await.unwrap();
    refused(
        client.get(resets).await,
        Code::FailedPrecondition,
        "used before",
    );
    assert_eq!(client.shows(SHOW).await, ALICE);
}

#[tokio::test]
async fn setting_in_a_transaction_is_as_binding_is() {
    let (_server, mut client) = notes().await;
    client.query(&set(ALICE)).await.unwrap();
    let id = client.begin().await.unwrap();
    client
        .update_in("INSERT INTO notes VALUES ('undone')", Some(&id))
        .await
        .unwrap();
    // To the same tenant nothing changes.
    client.query_in(&set(ALICE), &id).await.unwrap();
    assert_eq!(
        client
            .query_in("SELECT count(*) FROM notes", &id)
            .await
            .unwrap(),
        "2"
    );
    client.update_in(&set(BOB), Some(&id)).await.unwrap();
    refused(client.commit(&id).await, Code::NotFound, "has ended");
    client.roll_back(&id).await.unwrap();
    assert_eq!(client.shows(NOTES).await, "of-bob");
    client.update("BEGIN").await.unwrap();
    client.update("DELETE FROM notes").await.unwrap();
    client.update(&set(ALICE)).await.unwrap();
    refused(
        client.update("COMMIT").await,
        Code::FailedPrecondition,
        "BEGIN",
    );
    assert_eq!(client.shows(NOTES).await, "of-alice");
    client.update(&set(BOB)).await.unwrap();
    assert_eq!(client.shows(NOTES).await, "of-bob");
}

#[tokio::test]
async fn an_embedded_session_is_bound_by_sql() {
    let dir = tempfile::tempdir().unwrap();
    let session = JammiSession::new(config(dir.path())).await.unwrap();
    let other = JammiSession::on(session.engine().clone());
    let alice = TenantId::from_str(ALICE).unwrap();
    session.sql(&set(ALICE)).await.unwrap();
    assert_eq!((session.tenant(), other.tenant()), (Some(alice), None));
    session.sql("CREATE TABLE mine (id INT)").await.unwrap();
    assert_eq!(shown(&session.sql(SHOW).await.unwrap()[0]), ALICE);
    assert_eq!(shown(&other.sql(SHOW).await.unwrap()[0]), "");
    assert!(other.sql("SELECT * FROM mine").await.is_err());
    session.sql(&set(BOB)).await.unwrap();
    assert!(session.sql("SELECT * FROM mine").await.is_err());
    let value = datafusion::common::ScalarValue::from(ALICE);
    let rows = session
        .sql_with(
            "SELECT set_config('app.current_tenant_id', $1, false)",
            &[value],
        )
        .await
        .unwrap();
    let rows: Vec<_> = rows.try_collect().await.unwrap();
    assert_eq!(shown(&rows[0]), ALICE);
    session.sql("SELECT * FROM mine").await.unwrap();
    assert!(session.sql(&set("bob")).await.is_err());
    assert_eq!(session.tenant(), Some(alice));
    session.sql(RESET).await.unwrap();
    assert_eq!(session.tenant(), None);
}
