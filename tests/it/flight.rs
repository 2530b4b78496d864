//! Flight SQL over the wire: queries, prepared statements, metadata and
//! options, and what is refused.

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow_flight::sql::{
    ActionCreatePreparedSubstraitPlanRequest, Any, CommandGetCatalogs, CommandGetDbSchemas,
    CommandGetExportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes,
    CommandGetTables, CommandGetXdbcTypeInfo, CommandPreparedStatementUpdate,
    CommandStatementIngest, CommandStatementQuery, CommandStatementSubstraitPlan,
    CommandStatementUpdate, ProstMessageExt, TicketStatementQuery,
};
use arrow_flight::{Criteria, Empty, FlightDescriptor, IpcMessage, Ticket};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use jammi_db::server::proto::session::{ClearTenantRequest, GetTenantRequest};
use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::client::{ALICE, BOB, Client, prepared, statement};
use crate::harness::TestServer;

/// What gRPC clients accept by default.
const CLIENT_BYTES_MAX: usize = 4 << 20;

fn int(value: i64) -> RecordBatch {
    ints(&[value])
}

fn ints(values: &[i64]) -> RecordBatch {
    let column = Int64Array::from(values.to_vec());
    RecordBatch::try_from_iter([("0", std::sync::Arc::new(column) as _)]).unwrap()
}

fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, text: &str) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(text), "{status:?}");
}

fn strings(batch: &RecordBatch, column: usize) -> Vec<String> {
    let column = batch.column(column).as_string::<i32>();
    column
        .iter()
        .map(|value| value.unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test]
async fn a_query_is_announced_and_fetched() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, None).await;
    let batch = client
        .query("select 1 as one, 'a' as letter")
        .await
        .unwrap();
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(0), 1);
    assert_eq!(strings(&batch, 1), ["a"]);

    // An answer without rows has its schema all the same.
    let batch = client.query("select 1 as one where false").await.unwrap();
    assert_eq!((batch.num_columns(), batch.num_rows()), (1, 0));

    let info = client.info(&statement("select 1")).await.unwrap();
    assert!(info.ordered);
    assert!(info.endpoint[0].location.is_empty());
    assert!(info.endpoint[0].expiration_time.is_some());
    assert!(info.flight_descriptor.is_some());
    // A result may be fetched again.
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    for _ in 0..2 {
        assert_eq!(client.get(ticket.clone()).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_large_result_comes_in_messages_that_clients_accept() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, None).await;
    let ten = "(values (0),(1),(2),(3),(4),(5),(6),(7),(8),(9))";
    let sql = format!("select repeat('x', 20000) as text from {ten} a, {ten} b, {ten} c");
    let info = client.info(&statement(&sql)).await.unwrap();
    let request = client.request(info.endpoint[0].ticket.clone().unwrap());
    let messages = client.flight.do_get(request).await.unwrap().into_inner();
    let messages: Vec<_> = messages.try_collect().await.unwrap();
    let sizes: Vec<usize> = messages.iter().map(Message::encoded_len).collect();
    assert!(
        sizes.iter().all(|size| *size < CLIENT_BYTES_MAX),
        "{sizes:?}"
    );
    assert!(sizes.iter().sum::<usize>() > 20_000_000);
}

#[tokio::test]
async fn a_wrong_statement_is_one_clear_error() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, None).await;
    for sql in ["selec 1", "", "select * from nowhere", "select nothing"] {
        let status = client.query(sql).await.unwrap_err();
        let code = status.code();
        assert!(
            matches!(code, Code::InvalidArgument | Code::NotFound),
            "{sql}: {status:?}"
        );
        assert!(!status.message().is_empty());
        let prepared = client.prepare(sql).await.unwrap_err();
        assert_eq!(
            (prepared.code(), prepared.message()),
            (code, status.message())
        );
    }
    refused(
        client.query("select ?").await,
        Code::InvalidArgument,
        "1 parameter",
    );
}

#[tokio::test]
async fn a_prepared_statement_runs_with_each_row_that_is_bound() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, Some("prepared")).await;
    for sql in [
        "select x from (values (1), (2), (3)) t(x) where x > ?",
        "select x from (values (1), (2), (3)) t(x) where x > $1",
    ] {
        let statement = client.prepare(sql).await.unwrap();
        let schema = Schema::try_from(IpcMessage(statement.dataset_schema)).unwrap();
        assert_eq!(schema.field(0).name(), "x");
        let parameters = Schema::try_from(IpcMessage(statement.parameter_schema)).unwrap();
        assert_eq!(parameters.fields().len(), 1);
        assert_eq!(parameters.field(0).data_type(), &DataType::Int64);

        let handle = statement.prepared_statement_handle;
        refused(
            client.info(&prepared(&handle)).await,
            Code::InvalidArgument,
            "1 parameter",
        );
        assert_eq!(client.schema(&prepared(&handle)).await.unwrap(), schema);

        let one = client.bind_row(&handle, int(1)).await.unwrap();
        let two = client.bind_row(&one, int(2)).await.unwrap();
        assert_eq!(client.rows(&prepared(&one)).await.unwrap().num_rows(), 2);
        assert_eq!(client.rows(&prepared(&two)).await.unwrap().num_rows(), 1);
        // The handle serves as a ticket too.
        let ticket = Ticket::new(prepared(&two).as_any().encode_to_vec());
        assert_eq!(client.get(ticket).await.unwrap()[0].num_rows(), 1);
        client.close(&two).await.unwrap();
    }
}

/// Arrow's C++ client drops the handle that binding answers with.
#[tokio::test]
async fn the_first_handle_runs_with_what_was_bound_to_it() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, Some("first-handle")).await;
    let sql = "select cast(? as bigint) as x";
    let first = client.prepare(sql).await.unwrap().prepared_statement_handle;
    let second = client.prepare(sql).await.unwrap().prepared_statement_handle;
    client.bind_row(&first, int(1)).await.unwrap();
    client.bind_row(&second, int(2)).await.unwrap();
    for (handle, want) in [(&first, 1), (&second, 2)] {
        let rows = client.rows(&prepared(handle)).await.unwrap();
        assert_eq!(rows.column(0).as_primitive::<Int64Type>().value(0), want);
    }
    client.close(&first).await.unwrap();
    refused(
        client.info(&prepared(&first)).await,
        Code::InvalidArgument,
        "1 parameter",
    );
}

#[tokio::test]
async fn parameters_that_do_not_fit_are_refused() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, Some("unfit")).await;
    let sql = "select x from (values (1), (2)) t(x) where x > ?";
    let handle = client.prepare(sql).await.unwrap().prepared_statement_handle;
    let text = StringArray::from(vec!["one"]);
    let text = RecordBatch::try_from_iter([("0", std::sync::Arc::new(text) as _)]).unwrap();
    refused(
        client.bind_row(&handle, text).await,
        Code::InvalidArgument,
        "parameter 1 is Utf8",
    );
    refused(
        client.bind_row(&handle, ints(&[1, 2])).await,
        Code::InvalidArgument,
        "one row",
    );

    // Nothing to bind is fine where nothing is wanted.
    let handle = client
        .prepare("select 1")
        .await
        .unwrap()
        .prepared_statement_handle;
    refused(
        client.bind_row(&handle, int(1)).await,
        Code::InvalidArgument,
        "0 parameters",
    );
    let nothing = RecordBatch::new_empty(Schema::empty().into());
    let handle = client.bind_row(&handle, nothing).await.unwrap();
    assert_eq!(client.rows(&prepared(&handle)).await.unwrap().num_rows(), 1);
}

#[tokio::test]
async fn handles_are_their_sessions_and_end_with_the_binding() {
    let server = TestServer::start().await;
    let mut alice = Client::connect(&server, Some("alice")).await;
    let mut bob = alice.with_session("bob");
    alice.bind(ALICE).await;
    bob.bind(BOB).await;
    let handle = alice
        .prepare("select 1")
        .await
        .unwrap()
        .prepared_statement_handle;
    let info = alice.info(&statement("select 1")).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    assert!(alice.get(ticket.clone()).await.is_ok());

    let mut unbound = alice.with_session("unbound");
    for other in [&mut bob, &mut unbound] {
        let text = "another session";
        refused(
            other.get(ticket.clone()).await,
            Code::FailedPrecondition,
            text,
        );
        refused(
            other.info(&prepared(&handle)).await,
            Code::FailedPrecondition,
            text,
        );
        refused(
            other.bind_row(&handle, int(1)).await,
            Code::FailedPrecondition,
            text,
        );
    }

    // Bound to another tenant and back, or to none and back: another binding.
    alice.bind(BOB).await;
    refused(
        alice.get(ticket.clone()).await,
        Code::FailedPrecondition,
        "bound anew",
    );
    alice.bind(ALICE).await;
    refused(
        alice.get(ticket.clone()).await,
        Code::FailedPrecondition,
        "bound anew",
    );
    let request = alice.request(ClearTenantRequest {});
    alice.sessions.clear_tenant(request).await.unwrap();
    refused(
        alice.info(&prepared(&handle)).await,
        Code::FailedPrecondition,
        "bound anew",
    );
    // What was opened can be closed.
    alice.close(&handle).await.unwrap();
}

#[tokio::test]
async fn edited_handles_are_refused() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, Some("edited")).await;
    let handle = client
        .prepare("select 1")
        .await
        .unwrap()
        .prepared_statement_handle;
    let text = "was changed on the way";
    for at in [0, 1, 40, handle.len() - 1] {
        let mut edited = handle.to_vec();
        edited[at] ^= 1;
        let edited = Bytes::from(edited);
        refused(
            client.info(&prepared(&edited)).await,
            Code::InvalidArgument,
            text,
        );
        refused(client.close(&edited).await, Code::InvalidArgument, text);
    }
    // A prepared statement is no ticket of a statement.
    let ticket = TicketStatementQuery {
        statement_handle: handle,
    };
    let ticket = Ticket::new(ticket.as_any().encode_to_vec());
    refused(client.get(ticket).await, Code::InvalidArgument, text);
}

#[tokio::test]
async fn metadata_is_answered() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, Some("metadata")).await;
    let catalogs = client.rows(&CommandGetCatalogs {}).await.unwrap();
    assert!(strings(&catalogs, 0).contains(&"jammi".into()));
    let schemas = CommandGetDbSchemas {
        catalog: Some("jammi".into()),
        db_schema_filter_pattern: Some("cat%".into()),
    };
    assert_eq!(
        strings(&client.rows(&schemas).await.unwrap(), 1),
        ["catalog"]
    );
    let tables = CommandGetTables {
        catalog: Some("jammi".into()),
        table_name_filter_pattern: Some("_ources".into()),
        include_schema: true,
        ..CommandGetTables::default()
    };
    let tables = client.rows(&tables).await.unwrap();
    assert_eq!(strings(&tables, 2), ["sources"]);
    assert_eq!(strings(&tables, 3), ["SYSTEM TABLE"]);
    let schema = tables.column(4).as_binary::<i32>().value(0);
    let schema = Schema::try_from(IpcMessage(Bytes::copy_from_slice(schema))).unwrap();
    let queried = client
        .query("select * from jammi.catalog.sources")
        .await
        .unwrap();
    let untold = |field: &Field| (field.name().clone(), field.data_type().clone());
    let told: Vec<_> = schema.fields().iter().map(|field| untold(field)).collect();
    let queried = queried.schema();
    let seen: Vec<_> = queried.fields().iter().map(|field| untold(field)).collect();
    assert_eq!(told, seen);

    let odd = CommandGetTables {
        table_name_filter_pattern: Some("select * from x where y like '%[(\\".into()),
        ..CommandGetTables::default()
    };
    assert_eq!(client.rows(&odd).await.unwrap().num_rows(), 0);
    let keys = CommandGetPrimaryKeys {
        table: "nowhere".into(),
        ..CommandGetPrimaryKeys::default()
    };
    assert_eq!(client.rows(&keys).await.unwrap().num_rows(), 0);
    let keys = CommandGetExportedKeys {
        table: "nowhere".into(),
        ..CommandGetExportedKeys::default()
    };
    assert_eq!(client.rows(&keys).await.unwrap().num_rows(), 0);
}

#[tokio::test]
async fn what_the_server_is_needs_no_session() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, None).await;
    let info = CommandGetSqlInfo { info: vec![8] };
    assert_eq!(client.rows(&info).await.unwrap().num_rows(), 1);
    let all = client.rows(&CommandGetSqlInfo::default()).await.unwrap();
    assert!(all.num_rows() > 80);
    let types = client
        .rows(&CommandGetXdbcTypeInfo::default())
        .await
        .unwrap();
    assert!(strings(&types, 0).contains(&"VARCHAR".into()));
    let kinds = client.rows(&CommandGetTableTypes {}).await.unwrap();
    assert_eq!(
        strings(&kinds, 0),
        ["LOCAL TEMPORARY", "SYSTEM TABLE", "TABLE", "VIEW"]
    );
}

#[tokio::test]
async fn what_is_not_served_is_refused_by_name() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, Some("refused")).await;
    // A server says so whatever the plan is, unless it is built with what reads one.
    if cfg!(not(feature = "substrait")) {
        let plan = CommandStatementSubstraitPlan::default();
        let by_name = "--features substrait";
        refused(client.info(&plan).await, Code::Unimplemented, by_name);
        refused(client.schema(&plan).await, Code::Unimplemented, by_name);
        refused(
            client.put(&plan, int(1)).await,
            Code::Unimplemented,
            by_name,
        );
        let request = ActionCreatePreparedSubstraitPlanRequest::default();
        let body = request.as_any().encode_to_vec();
        refused(
            client.act("CreatePreparedSubstraitPlan", body).await,
            Code::Unimplemented,
            by_name,
        );
    }
    // What is put is put with DoPut, and nothing else is.
    let update = CommandStatementUpdate {
        query: "delete from t".into(),
        transaction_id: None,
    };
    refused(client.info(&update).await, Code::Unimplemented, "DoPut");
    refused(
        client.put(&statement("select 1"), int(1)).await,
        Code::Unimplemented,
        "belongs to another call",
    );
    let update = CommandPreparedStatementUpdate::default();
    refused(
        client.put(&update, int(1)).await,
        Code::InvalidArgument,
        "was not issued by this server",
    );
    let ingest = CommandStatementIngest::default();
    refused(
        client.put(&ingest, int(1)).await,
        Code::InvalidArgument,
        "does not say what to do",
    );
    refused(
        client.act("Unheard", Bytes::new()).await,
        Code::Unimplemented,
        "Unheard",
    );
    let inside = CommandStatementQuery {
        transaction_id: Some(Bytes::from_static(b"t")),
        ..statement("select 1")
    };
    refused(
        client.info(&inside).await,
        Code::NotFound,
        "the transaction does not exist",
    );
}

#[tokio::test]
async fn what_is_no_command_is_told_so() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, None).await;
    let unheard = Any {
        type_url: "type.googleapis.com/unheard.Of".into(),
        value: Bytes::new(),
    };
    for (command, text) in [
        (unheard.encode_to_vec(), "unheard.Of"),
        (Vec::new(), "no command"),
        (b"\xff\xff".to_vec(), "malformed"),
    ] {
        let descriptor = FlightDescriptor::new_cmd(command.clone());
        let request = client.request(descriptor.clone());
        refused(
            client.flight.get_flight_info(request).await,
            Code::InvalidArgument,
            text,
        );
        let request = client.request(descriptor);
        refused(
            client.flight.get_schema(request).await,
            Code::InvalidArgument,
            text,
        );
        refused(
            client.get(Ticket::new(command)).await,
            Code::InvalidArgument,
            text,
        );
    }
    refused(
        client.act("CreatePreparedStatement", "x").await,
        Code::InvalidArgument,
        "malformed",
    );
}

/// Every action that is listed is served, and no flight is listed.
#[tokio::test]
async fn what_is_listed_is_served() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, Some("listed")).await;
    let request = client.request(Empty {});
    let actions = client
        .flight
        .list_actions(request)
        .await
        .unwrap()
        .into_inner();
    let actions: Vec<_> = actions.try_collect().await.unwrap();
    let of_substrait = usize::from(cfg!(feature = "substrait"));
    assert_eq!(actions.len(), 12 + of_substrait);
    for action in actions {
        if let Err(status) = client.act(&action.r#type, Bytes::new()).await {
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        }
    }
    let request = client.request(Criteria::default());
    let flights = client
        .flight
        .list_flights(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(flights.count().await, 0);
}

/// Clients that are given a user name wait for a token.
#[tokio::test]
async fn a_handshake_answers_with_a_token() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, None).await;
    let mut request = client.request(stream::iter([arrow_flight::HandshakeRequest::default()]));
    let basic = MetadataValue::from_static("Basic YTpi");
    request.metadata_mut().insert("authorization", basic);
    let response = client.flight.handshake(request).await.unwrap();
    let token = response.metadata().get("authorization").unwrap();
    assert!(token.to_str().unwrap().starts_with("Bearer "));
}

/// The messages of Flight.proto that set a session's catalog and close it.
mod options {
    use std::collections::HashMap;

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Value {
        #[prost(string, optional, tag = "1")]
        pub string_value: Option<String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Options {
        #[prost(map = "string, message", tag = "1")]
        pub session_options: HashMap<String, Value>,
    }
}

/// Pooled connections share a session, and each closes it as it is closed.
#[tokio::test]
async fn closing_a_session_changes_nothing_for_its_siblings() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, Some("pooled")).await;
    client.bind(ALICE).await;
    let handle = client.prepare("select * from sources").await;
    assert!(
        handle.is_ok(),
        "bare names find the catalog's tables: {handle:?}"
    );
    let value = options::Value {
        string_value: Some("inbox".into()),
    };
    let set = options::Options {
        session_options: [("catalog".to_owned(), value)].into(),
    };
    let answer = client
        .act("SetSessionOptions", set.encode_to_vec())
        .await
        .unwrap();
    assert!(answer[0].is_empty(), "no option was refused");

    client.act("CloseSession", Bytes::new()).await.unwrap();
    let answer = client.act("GetSessionOptions", Bytes::new()).await.unwrap();
    let options = options::Options::decode(&*answer[0])
        .unwrap()
        .session_options;
    assert_eq!(options["catalog"].string_value.as_deref(), Some("inbox"));
    assert_eq!(options["schema"].string_value.as_deref(), Some("public"));
    let request = client.request(GetTenantRequest {});
    let bound = client
        .sessions
        .get_tenant(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(bound.tenant.unwrap().id, ALICE);
}

/// The scope of a call is the one it was admitted with, though the session is
/// bound anew while calls of both tenants run on one connection.
#[tokio::test]
async fn concurrent_calls_keep_their_own_sessions() {
    let server = TestServer::start().await;
    let mut alice = Client::connect(&server, Some("alice")).await;
    let mut bob = alice.with_session("bob");
    alice.bind(ALICE).await;
    bob.bind(BOB).await;
    let calls = (0..100).map(|call| {
        let mut client = if call % 2 == 0 {
            alice.clone()
        } else {
            bob.clone()
        };
        async move {
            let batch = client.query(&format!("select {call} as x")).await.unwrap();
            assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(0), call);
        }
    });
    futures::future::join_all(calls).await;
}

/// Symptom: `SELECT ? || ?` did not plan, and `SELECT ? + ?` said nothing of the
/// parameters that have no type.
#[tokio::test]
async fn parameters_without_a_type_are_text_or_told_how_to_get_one() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, Some("untyped")).await;
    for sql in ["select ? || ?", "select (?) || (?)", "select $1 || $2"] {
        let handle = client.prepare(sql).await.unwrap().prepared_statement_handle;
        let text = |value: &str| std::sync::Arc::new(StringArray::from(vec![value])) as _;
        let row = RecordBatch::try_from_iter([("0", text("a")), ("1", text("b"))]).unwrap();
        let handle = client.bind_row(&handle, row).await.unwrap();
        let rows = client.rows(&prepared(&handle)).await.unwrap();
        assert_eq!(strings(&rows, 0), ["ab"], "{sql}");
    }
    for sql in ["select ? + ?", "select sum(?)", "select 1 where ?"] {
        refused(
            client.prepare(sql).await,
            Code::InvalidArgument,
            "CAST(? AS BIGINT)",
        );
    }
}

/// Symptom: `CAST(? AS BIGINT)` and `id = $1 OR $1 IS NULL` asked for text, and
/// drivers that bind what is asked for, as Go's, could not bind a number.
#[tokio::test]
async fn a_parameter_is_of_the_type_that_its_uses_tell() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, Some("cast")).await;
    for (sql, want) in [
        ("select cast(? as bigint)", DataType::Int64),
        ("select ?::boolean", DataType::Boolean),
        ("select 1 where cast(? as int) = 1", DataType::Int32),
        ("select cast(cast(? as varchar) as date)", DataType::Utf8),
        (
            "select cast($1 as int) as a, cast($1 as int) as b",
            DataType::Int32,
        ),
        // Two types are none.
        (
            "select cast($1 as int) as a, cast($1 as date) as b",
            DataType::Utf8,
        ),
        ("select 1 where 1 = $1 or $1 is null", DataType::Int64),
        ("select 1 where $1 is null or 1 = $1", DataType::Int64),
        // What it is compared with comes first, in whatever order.
        (
            "select 1 where 1 = $1 and cast($1 as double) > 0",
            DataType::Int64,
        ),
    ] {
        let told = client.prepare(sql).await.unwrap().parameter_schema;
        let told = Schema::try_from(IpcMessage(told)).unwrap();
        assert_eq!(told.field(0).data_type(), &want, "{sql}");
    }
    let sql = "select cast(? as bigint)";
    let handle = client.prepare(sql).await.unwrap().prepared_statement_handle;
    let number = std::sync::Arc::new(Int64Array::from(vec![7])) as ArrayRef;
    let text = std::sync::Arc::new(StringArray::from(vec!["7"])) as ArrayRef;
    for given in [number, text] {
        let row = RecordBatch::try_from_iter([("0", given)]).unwrap();
        let handle = client.bind_row(&handle, row).await.unwrap();
        let rows = client.rows(&prepared(&handle)).await.unwrap();
        assert_eq!(rows.column(0).as_primitive::<Int64Type>().value(0), 7);
    }
}

/// Symptom: "Expected LIMIT to be an integer or null, but got Utf8" for the value
/// of `LIMIT ?`, whatever it was.
#[tokio::test]
async fn a_parameter_says_how_many_rows() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, Some("limit")).await;
    let sql = "select x from (values (1), (2), (3)) t(x) order by x limit ? offset ?";
    let handle = client.prepare(sql).await.unwrap().prepared_statement_handle;
    for (limit, offset, want) in [(1, 0, vec![1]), (2, 1, vec![2, 3]), (0, 0, vec![])] {
        let row = RecordBatch::try_from_iter([
            ("0", std::sync::Arc::new(Int64Array::from(vec![limit])) as _),
            (
                "1",
                std::sync::Arc::new(Int64Array::from(vec![offset])) as _,
            ),
        ]);
        let handle = client.bind_row(&handle, row.unwrap()).await.unwrap();
        let rows = client.rows(&prepared(&handle)).await.unwrap();
        let rows = rows.column(0).as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(rows, want, "limit {limit} offset {offset}");
    }
    let text = std::sync::Arc::new(StringArray::from(vec!["two"])) as _;
    let zero = std::sync::Arc::new(Int64Array::from(vec![0])) as _;
    let row = RecordBatch::try_from_iter([("0", text), ("1", zero)]).unwrap();
    refused(
        client.bind_row(&handle, row).await,
        Code::InvalidArgument,
        "parameter 1 is Utf8",
    );
}

/// Symptom: "No field named x", whatever there was to name instead.
#[tokio::test]
async fn a_missing_column_is_told_with_those_that_are_there() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, None).await;
    for (sql, says) in [
        (
            "select x",
            "column x does not exist: no table is read there",
        ),
        (
            "select t.x from (values (1)) t(y)",
            "the columns there are t.y",
        ),
        ("select y from (values (1)) t(\"Y\")", "in double quotes"),
    ] {
        refused(client.query(sql).await, Code::InvalidArgument, says);
    }
}
