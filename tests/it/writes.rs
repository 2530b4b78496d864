//! Writes at the wire: updates, prepared updates, transactions and ingest, with two
//! tenants wherever one could touch the other.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginSavepointResult, ActionBeginTransactionRequest,
    ActionBeginTransactionResult, ActionEndSavepointRequest, ActionEndTransactionRequest, Any,
    CommandGetPrimaryKeys, CommandPreparedStatementUpdate, CommandStatementIngest,
    CommandStatementQuery, CommandStatementUpdate, DoPutUpdateResult, EndTransaction,
    ProstMessageExt, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tonic::{Code, Status};

use crate::client::{ALICE, BOB, Client, prepared, statement};
use crate::harness::TestServer;

const NO_ROWS: [i64; 0] = [];

pub fn columns(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

fn numbers(name: &str, values: impl IntoIterator<Item = i64>) -> RecordBatch {
    columns(vec![(name, Arc::new(Int64Array::from_iter_values(values)))])
}

pub fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, text: &str) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(text), "{status:?}");
}

/// Rows as text: values by `|`, rows by a blank.
pub fn shown(batch: &RecordBatch) -> String {
    let rows = (0..batch.num_rows()).map(|row| {
        let values = batch
            .columns()
            .iter()
            .map(|column| arrow::util::display::array_value_to_string(column, row).unwrap());
        values.collect::<Vec<_>>().join("|")
    });
    rows.collect::<Vec<_>>().join(" ")
}

impl Client {
    pub async fn shows(&mut self, sql: &str) -> String {
        match self.query(sql).await {
            Ok(batch) => shown(&batch),
            Err(status) => panic!("{sql}: {status:?}"),
        }
    }

    pub async fn put_counted(
        &mut self,
        command: &impl ProstMessageExt,
        batch: RecordBatch,
    ) -> Result<i64, Status> {
        let results = self.put(command, batch).await?;
        assert_eq!(results.len(), 1);
        Ok(DoPutUpdateResult::decode(&*results[0])
            .unwrap()
            .record_count)
    }

    async fn update_in(&mut self, sql: &str, transaction: Option<&Bytes>) -> Result<i64, Status> {
        let command = CommandStatementUpdate {
            query: sql.into(),
            transaction_id: transaction.cloned(),
        };
        self.put_counted(&command, numbers("unused", NO_ROWS)).await
    }

    pub async fn update(&mut self, sql: &str) -> Result<i64, Status> {
        self.update_in(sql, None).await
    }

    async fn query_in(&mut self, sql: &str, transaction: &Bytes) -> Result<String, Status> {
        let command = CommandStatementQuery {
            transaction_id: Some(transaction.clone()),
            ..statement(sql)
        };
        self.rows(&command).await.map(|batch| shown(&batch))
    }

    async fn begin(&mut self) -> Result<Bytes, Status> {
        let body = ActionBeginTransactionRequest {}.as_any().encode_to_vec();
        let results = self.act("BeginTransaction", body).await?;
        let any = Any::decode(&*results[0]).unwrap();
        let result: ActionBeginTransactionResult = any.unpack().unwrap().unwrap();
        Ok(result.transaction_id)
    }

    async fn end(&mut self, id: &Bytes, action: EndTransaction) -> Result<(), Status> {
        let request = ActionEndTransactionRequest {
            transaction_id: id.clone(),
            action: action as i32,
        };
        let body = request.as_any().encode_to_vec();
        self.act("EndTransaction", body).await.map(drop)
    }

    async fn commit(&mut self, id: &Bytes) -> Result<(), Status> {
        self.end(id, EndTransaction::Commit).await
    }

    async fn roll_back(&mut self, id: &Bytes) -> Result<(), Status> {
        self.end(id, EndTransaction::Rollback).await
    }

    async fn savepoint(&mut self, id: &Bytes, name: &str) -> Result<Bytes, Status> {
        let request = ActionBeginSavepointRequest {
            transaction_id: id.clone(),
            name: name.into(),
        };
        let body = request.as_any().encode_to_vec();
        let results = self.act("BeginSavepoint", body).await?;
        let any = Any::decode(&*results[0]).unwrap();
        let result: ActionBeginSavepointResult = any.unpack().unwrap().unwrap();
        Ok(result.savepoint_id)
    }

    async fn end_savepoint(&mut self, id: &Bytes, action: i32) -> Result<(), Status> {
        let request = ActionEndSavepointRequest {
            savepoint_id: id.clone(),
            action,
        };
        let body = request.as_any().encode_to_vec();
        self.act("EndSavepoint", body).await.map(drop)
    }
}

const RELEASE: i32 = 1;
const ROLL_BACK: i32 = 2;

/// A server, and a client of each of two tenants.
pub async fn world() -> (TestServer, Client, Client) {
    world_with(TestServer::start().await).await
}

async fn world_with(server: TestServer) -> (TestServer, Client, Client) {
    let mut alice = Client::connect(&server, Some("alice")).await;
    let mut bob = Client::connect(&server, Some("bob")).await;
    alice.bind(ALICE).await;
    bob.bind(BOB).await;
    (server, alice, bob)
}

/// Gives each tenant a table of one name, with a row that stays as it is in
/// Bob's.
async fn with_tables(alice: &mut Client, bob: &mut Client) {
    for client in [alice, bob] {
        client
            .update("CREATE TABLE t (id INT PRIMARY KEY, word TEXT)")
            .await
            .unwrap();
    }
}

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

pub async fn prepared_update(client: &mut Client, sql: &str) -> CommandPreparedStatementUpdate {
    let prepared = client.prepare(sql).await.unwrap();
    CommandPreparedStatementUpdate {
        prepared_statement_handle: prepared.prepared_statement_handle,
    }
}

fn rows(ids: impl IntoIterator<Item = i64>, word: &str) -> RecordBatch {
    let ids = Int64Array::from_iter_values(ids);
    let words = StringArray::from_iter_values(std::iter::repeat_n(word, ids.len()));
    columns(vec![("0", Arc::new(ids)), ("1", Arc::new(words))])
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
async fn a_transaction_is_seen_by_others_once_it_is_committed() {
    let (server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    let mut sibling = Client::connect(&server, Some("alice")).await;
    let id = alice.begin().await.unwrap();
    assert_eq!(
        alice
            .update_in("INSERT INTO t VALUES (1, 'a')", Some(&id))
            .await
            .unwrap(),
        1
    );
    let count = "SELECT count(*) FROM t";
    assert_eq!(alice.query_in(count, &id).await.unwrap(), "1");
    assert_eq!(alice.shows(count).await, "0");
    assert_eq!(sibling.shows(count).await, "0");
    // A statement that fails is undone alone.
    refused(
        alice
            .update_in("INSERT INTO t VALUES (2, 'b'), (1, 'c')", Some(&id))
            .await,
        Code::AlreadyExists,
        "id = 1",
    );
    alice
        .update_in("INSERT INTO t VALUES (3, 'd')", Some(&id))
        .await
        .unwrap();
    alice.commit(&id).await.unwrap();
    assert_eq!(sibling.shows("SELECT id FROM t ORDER BY id").await, "1 3");
    refused(alice.commit(&id).await, Code::NotFound, "has ended");
    refused(
        alice.update_in("DELETE FROM t", Some(&id)).await,
        Code::NotFound,
        "the transaction does not exist, or has ended",
    );

    let id = alice.begin().await.unwrap();
    alice.update_in("DELETE FROM t", Some(&id)).await.unwrap();
    alice
        .update_in("CREATE TABLE u (id INT)", Some(&id))
        .await
        .unwrap();
    assert_eq!(
        alice.query_in("SELECT count(*) FROM u", &id).await.unwrap(),
        "0"
    );
    alice.roll_back(&id).await.unwrap();
    assert_eq!(alice.shows(count).await, "2");
    refused(
        alice.query("SELECT * FROM u").await,
        Code::NotFound,
        "`u` does not exist",
    );
}

#[tokio::test]
async fn a_transaction_is_its_session_s_alone() {
    let (server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    let mut other = Client::connect(&server, Some("alice-2")).await;
    other.bind(ALICE).await;
    let mut anonymous = Client::connect(&server, None).await;
    let id = alice.begin().await.unwrap();
    alice
        .update_in("INSERT INTO t VALUES (1, 'a')", Some(&id))
        .await
        .unwrap();
    let never = "the transaction does not exist, or has ended: begin another";
    for stranger in [&mut bob, &mut other, &mut anonymous] {
        for id in [&id, &Bytes::from_static(b"made up")] {
            refused(
                stranger.query_in("SELECT 1", id).await,
                Code::NotFound,
                never,
            );
            refused(
                stranger.update_in("DELETE FROM t", Some(id)).await,
                Code::NotFound,
                never,
            );
            refused(stranger.commit(id).await, Code::NotFound, never);
            refused(stranger.roll_back(id).await, Code::NotFound, never);
            refused(stranger.savepoint(id, "s").await, Code::NotFound, never);
        }
    }
    alice.commit(&id).await.unwrap();
    assert_eq!(alice.shows("SELECT id FROM t").await, "1");
    assert_eq!(bob.shows("SELECT count(*) FROM t").await, "0");
}

#[tokio::test]
async fn of_two_transactions_that_write_the_second_is_to_be_run_again() {
    let (_server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    alice.update("INSERT INTO t VALUES (1, '0')").await.unwrap();
    let (one, two) = (alice.begin().await.unwrap(), alice.begin().await.unwrap());
    for id in [&one, &two] {
        assert_eq!(alice.query_in("SELECT word FROM t", id).await.unwrap(), "0");
    }
    let bump = "UPDATE t SET word = CAST(CAST(word AS INT) + 1 AS TEXT)";
    alice.update_in(bump, Some(&one)).await.unwrap();
    alice.commit(&one).await.unwrap();
    refused(
        alice.update_in(bump, Some(&two)).await,
        Code::Aborted,
        "run it again",
    );
    // Until then it reads what it read.
    assert_eq!(
        alice.query_in("SELECT word FROM t", &two).await.unwrap(),
        "0"
    );
    alice.roll_back(&two).await.unwrap();
    let again = alice.begin().await.unwrap();
    alice.update_in(bump, Some(&again)).await.unwrap();
    alice.commit(&again).await.unwrap();
    assert_eq!(alice.shows("SELECT word FROM t").await, "2");
    // Another tenant's transactions are in nobody's way.
    let (hers, his) = (alice.begin().await.unwrap(), bob.begin().await.unwrap());
    alice
        .update_in("INSERT INTO t VALUES (2, 'a')", Some(&hers))
        .await
        .unwrap();
    bob.update_in("INSERT INTO t VALUES (2, 'b')", Some(&his))
        .await
        .unwrap();
    alice.commit(&hers).await.unwrap();
    bob.commit(&his).await.unwrap();
}

#[tokio::test]
async fn a_writer_waits_its_turn_and_is_told_to_come_again() {
    let server = TestServer::start_with(|config| config.lanes.busy_timeout_ms = 50).await;
    let (_server, mut alice, mut bob) = world_with(server).await;
    with_tables(&mut alice, &mut bob).await;
    let id = alice.begin().await.unwrap();
    alice
        .update_in("INSERT INTO t VALUES (1, 'a')", Some(&id))
        .await
        .unwrap();
    let insert = "INSERT INTO t VALUES (2, 'b')";
    refused(
        alice.update(insert).await,
        Code::Unavailable,
        "lanes.busy_timeout_ms",
    );
    bob.update(insert).await.unwrap();
    alice.roll_back(&id).await.unwrap();
    alice.update(insert).await.unwrap();
}

#[tokio::test]
async fn savepoints_undo_a_part() {
    let (_server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    let id = alice.begin().await.unwrap();
    let insert = |n: i64| format!("INSERT INTO t (id) VALUES ({n})");
    alice.update_in(&insert(1), Some(&id)).await.unwrap();
    let outer = alice.savepoint(&id, "s").await.unwrap();
    alice.update_in(&insert(2), Some(&id)).await.unwrap();
    let inner = alice.savepoint(&id, "s").await.unwrap();
    alice.update_in(&insert(3), Some(&id)).await.unwrap();
    alice.end_savepoint(&inner, ROLL_BACK).await.unwrap();
    assert_eq!(
        alice.query_in("SELECT max(id) FROM t", &id).await.unwrap(),
        "2"
    );
    alice.end_savepoint(&outer, ROLL_BACK).await.unwrap();
    assert_eq!(
        alice.query_in("SELECT max(id) FROM t", &id).await.unwrap(),
        "1"
    );
    refused(
        alice.end_savepoint(&inner, RELEASE).await,
        Code::NotFound,
        "the savepoint",
    );
    refused(
        bob.end_savepoint(&outer, ROLL_BACK).await,
        Code::NotFound,
        "the savepoint",
    );
    alice.update_in(&insert(4), Some(&id)).await.unwrap();
    alice.end_savepoint(&outer, RELEASE).await.unwrap();
    alice.commit(&id).await.unwrap();
    assert_eq!(alice.shows("SELECT id FROM t ORDER BY id").await, "1 4");
}

#[tokio::test]
async fn a_session_has_one_transaction_by_text() {
    let (server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    let mut other = Client::connect(&server, Some("alice-2")).await;
    other.bind(ALICE).await;
    alice.update("BEGIN").await.unwrap();
    refused(
        alice.update("START TRANSACTION").await,
        Code::FailedPrecondition,
        "is open",
    );
    // By whichever route, and prepared or not.
    alice.query("INSERT INTO t (id) VALUES (1)").await.unwrap();
    let insert = prepared_update(&mut alice, "INSERT INTO t VALUES (?, ?)").await;
    alice.put_counted(&insert, rows([2, 3], "x")).await.unwrap();
    alice.update("SAVEPOINT a").await.unwrap();
    alice.update("DELETE FROM t").await.unwrap();
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "0");
    assert_eq!(other.shows("SELECT count(*) FROM t").await, "0");
    alice.update("ROLLBACK TO SAVEPOINT a").await.unwrap();
    alice.query("RELEASE a").await.unwrap();
    refused(
        alice.update("RELEASE a").await,
        Code::InvalidArgument,
        "savepoint `a`",
    );
    alice.query("/* done */ commit").await.unwrap();
    assert_eq!(other.shows("SELECT id FROM t ORDER BY id").await, "1 2 3");
    refused(
        alice.update("COMMIT").await,
        Code::FailedPrecondition,
        "send BEGIN first",
    );

    alice.update("BEGIN").await.unwrap();
    alice.update("TRUNCATE t").await.unwrap();
    alice.update("ROLLBACK").await.unwrap();
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "3");

    let mut nobody = Client::connect(&server, None).await;
    for sql in ["BEGIN", "COMMIT"] {
        refused(
            nobody.update(sql).await,
            Code::InvalidArgument,
            "jammi-session-id",
        );
    }
    let id = alice.begin().await.unwrap();
    refused(
        alice.update_in("COMMIT", Some(&id)).await,
        Code::FailedPrecondition,
        "EndTransaction",
    );
    alice.update_in("SAVEPOINT b", Some(&id)).await.unwrap();
}

#[tokio::test]
async fn binding_the_session_anew_rolls_back() {
    let (_server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    let id = alice.begin().await.unwrap();
    alice
        .update_in("INSERT INTO t (id) VALUES (1)", Some(&id))
        .await
        .unwrap();
    alice.update("BEGIN").await.unwrap();
    // To the same tenant nothing changes.
    alice.bind(ALICE).await;
    assert_eq!(
        alice.query_in("SELECT count(*) FROM t", &id).await.unwrap(),
        "1"
    );
    alice.bind(BOB).await;
    refused(alice.commit(&id).await, Code::NotFound, "has ended");
    refused(
        alice.update("COMMIT").await,
        Code::FailedPrecondition,
        "BEGIN",
    );
    // Clients roll back, and go on.
    alice.roll_back(&id).await.unwrap();
    bob.update("INSERT INTO t (id) VALUES (2)").await.unwrap();
    alice.bind(ALICE).await;
    refused(alice.commit(&id).await, Code::NotFound, "has ended");
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "0");
    alice.update("INSERT INTO t (id) VALUES (3)").await.unwrap();
}

#[tokio::test]
async fn a_connection_takes_its_transactions_along() {
    let (server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    let mut sibling = Client::connect(&server, Some("alice")).await;
    let kept = alice.begin().await.unwrap();
    // Closing the session of one connection leaves the others' transactions.
    let gone = sibling.begin().await.unwrap();
    sibling
        .update_in("INSERT INTO t (id) VALUES (1)", Some(&gone))
        .await
        .unwrap();
    sibling.act("CloseSession", Bytes::new()).await.unwrap();
    refused(sibling.commit(&gone).await, Code::NotFound, "has ended");
    alice
        .update_in("INSERT INTO t (id) VALUES (2)", Some(&kept))
        .await
        .unwrap();
    alice.commit(&kept).await.unwrap();

    // One that vanishes without a word holds up nobody.
    let left = sibling.begin().await.unwrap();
    sibling
        .update_in("INSERT INTO t (id) VALUES (3)", Some(&left))
        .await
        .unwrap();
    drop(sibling);
    alice.update("INSERT INTO t (id) VALUES (4)").await.unwrap();
    assert_eq!(alice.shows("SELECT id FROM t ORDER BY id").await, "2 4");
}

#[tokio::test]
async fn transactions_have_caps() {
    let server = TestServer::start_with(|config| {
        config.transactions.max = 3;
        config.transactions.session_max = 2;
    })
    .await;
    let (_server, mut alice, mut bob) = world_with(server).await;
    let one = alice.begin().await.unwrap();
    alice.begin().await.unwrap();
    refused(
        alice.begin().await,
        Code::ResourceExhausted,
        "transactions.session_max",
    );
    refused(
        alice.update("BEGIN").await,
        Code::ResourceExhausted,
        "transactions.session_max",
    );
    bob.begin().await.unwrap();
    refused(
        bob.begin().await,
        Code::ResourceExhausted,
        "transactions.max",
    );
    alice.roll_back(&one).await.unwrap();
    bob.begin().await.unwrap();
}

#[tokio::test]
async fn stopping_rolls_back() {
    let (server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    let id = alice.begin().await.unwrap();
    alice
        .update_in("INSERT INTO t (id) VALUES (1)", Some(&id))
        .await
        .unwrap();
    let dir = server.stop().await;
    let server = TestServer::start_in(dir, |_| {}).await;
    let mut alice = Client::connect(&server, Some("alice")).await;
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "0");
    refused(alice.commit(&id).await, Code::NotFound, "has ended");
}

fn ingest(
    table: &str,
    if_not_exist: TableNotExistOption,
    if_exists: TableExistsOption,
) -> CommandStatementIngest {
    CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: if_not_exist as i32,
            if_exists: if_exists as i32,
        }),
        table: table.into(),
        ..CommandStatementIngest::default()
    }
}

pub fn create(table: &str) -> CommandStatementIngest {
    ingest(table, TableNotExistOption::Create, TableExistsOption::Fail)
}

pub fn append(table: &str) -> CommandStatementIngest {
    ingest(table, TableNotExistOption::Fail, TableExistsOption::Append)
}

fn replace(table: &str) -> CommandStatementIngest {
    ingest(
        table,
        TableNotExistOption::Create,
        TableExistsOption::Replace,
    )
}

fn create_append(table: &str) -> CommandStatementIngest {
    ingest(
        table,
        TableNotExistOption::Create,
        TableExistsOption::Append,
    )
}

#[tokio::test]
async fn rows_are_ingested_in_every_mode() {
    let (_server, mut alice, mut bob) = world().await;
    bob.put_counted(&create("Table"), numbers("id", [7]))
        .await
        .unwrap();
    let table = r#"SELECT sum(id), count(*) FROM "Table""#;
    refused(
        alice
            .put_counted(&append("Table"), numbers("id", [1]))
            .await,
        Code::NotFound,
        "table `Table` does not exist",
    );
    assert_eq!(
        alice
            .put_counted(&create("Table"), numbers("id", 0..30_000))
            .await
            .unwrap(),
        30_000
    );
    refused(
        alice
            .put_counted(&create("Table"), numbers("id", [1]))
            .await,
        Code::AlreadyExists,
        "`Table` exists already",
    );
    assert_eq!(alice.shows(table).await, "449985000|30000");
    for command in [append("Table"), create_append("Table")] {
        alice
            .put_counted(&command, numbers("id", [15_000]))
            .await
            .unwrap();
    }
    assert_eq!(alice.shows(table).await, "450015000|30002");
    let words = columns(vec![("word", Arc::new(StringArray::from(vec!["a", "b"])))]);
    alice.put_counted(&replace("Table"), words).await.unwrap();
    assert_eq!(alice.shows(r#"SELECT word FROM "Table""#).await, "a b");
    alice
        .put_counted(&create_append("u"), numbers("id", [1]))
        .await
        .unwrap();
    alice
        .put_counted(&replace("v"), numbers("id", NO_ROWS))
        .await
        .unwrap();
    assert_eq!(alice.shows("SELECT count(*) FROM v").await, "0");
    assert_eq!(bob.shows(table).await, "7|1");
}

#[tokio::test]
async fn columns_are_matched_by_name_and_values_keep_what_they_are() {
    let (_server, mut alice, _) = world().await;
    alice
        .update("CREATE TABLE t (id BIGINT PRIMARY KEY, word TEXT DEFAULT 'none', n INT)")
        .await
        .unwrap();
    let narrow: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let wide: ArrayRef = Arc::new(Int64Array::from(vec![10, 20]));
    let batch = columns(vec![("n", wide), ("id", narrow.clone())]);
    alice.put_counted(&append("t"), batch).await.unwrap();
    assert_eq!(
        alice.shows("SELECT id, word, n FROM t ORDER BY id").await,
        "1|none|10 2|none|20"
    );
    let text: ArrayRef = Arc::new(StringArray::from(vec!["7", "8"]));
    let large: ArrayRef = Arc::new(Int64Array::from(vec![1, i64::MAX]));
    for (column, batch) in [
        ("`id`", columns(vec![("id", text.clone())])),
        ("`n`", columns(vec![("id", narrow.clone()), ("n", large)])),
        (
            "`other`",
            columns(vec![("id", narrow.clone()), ("other", text)]),
        ),
        (
            "`id`",
            columns(vec![("id", narrow.clone()), ("id", narrow.clone())]),
        ),
        ("`id`", columns(vec![("n", narrow)])),
    ] {
        refused(
            alice.put_counted(&append("t"), batch).await,
            Code::InvalidArgument,
            column,
        );
    }
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "2");
    for (command, says) in [
        (
            CommandStatementIngest {
                temporary: true,
                ..create("x")
            },
            "temporary tables",
        ),
        (
            CommandStatementIngest {
                catalog: Some("jammi".into()),
                ..create("x")
            },
            "mutable.public",
        ),
        (
            CommandStatementIngest {
                schema: Some("other".into()),
                ..create("x")
            },
            "mutable.public",
        ),
        (
            CommandStatementIngest {
                table_definition_options: None,
                ..create("x")
            },
            "does not say",
        ),
    ] {
        let status = alice
            .put_counted(&command, numbers("id", [1]))
            .await
            .unwrap_err();
        assert!(status.message().contains(says), "{status:?}");
    }
}

#[tokio::test]
async fn a_bad_row_in_the_last_batch_leaves_nothing() {
    let (_server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    bob.update("INSERT INTO t VALUES (1, 'canary')")
        .await
        .unwrap();
    // Far more than is held in memory before it is written.
    let rows = 150_000;
    let word = "x".repeat(100);
    let made = |last: i64, tenant: &str| {
        let ids = Int64Array::from_iter_values((1..rows).chain([last]));
        let words = StringArray::from_iter_values(std::iter::repeat_n(&word, rows as usize));
        let tenants = (1..rows).map(|_| ALICE).chain([tenant]);
        columns(vec![
            ("id", Arc::new(ids) as ArrayRef),
            ("word", Arc::new(words)),
            (
                "tenant_id",
                Arc::new(StringArray::from_iter_values(tenants)),
            ),
        ])
    };
    for (command, batch, code) in [
        (append("t"), made(rows, BOB), Code::PermissionDenied),
        (append("t"), made(1, ALICE), Code::AlreadyExists),
        (append("t"), made(1 << 40, ALICE), Code::InvalidArgument),
        (create("made"), made(rows, BOB), Code::PermissionDenied),
        (replace("t"), made(rows, BOB), Code::PermissionDenied),
    ] {
        refused(alice.put_counted(&command, batch).await, code, "");
        assert_eq!(alice.shows("SELECT count(*) FROM t").await, "0");
        refused(alice.query("SELECT * FROM made").await, Code::NotFound, "");
    }
    assert_eq!(bob.shows("SELECT id, word FROM t").await, "1|canary");
    alice
        .put_counted(&append("t"), made(rows, ALICE))
        .await
        .unwrap();
    assert_eq!(
        alice.shows("SELECT count(*), max(id) FROM t").await,
        "150000|150000"
    );
}

#[tokio::test]
async fn an_ingest_takes_part_in_a_transaction() {
    let (_server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    let id = alice.begin().await.unwrap();
    let named = CommandStatementIngest {
        transaction_id: Some(id.clone()),
        ..append("t")
    };
    alice.put_counted(&named, numbers("id", [1])).await.unwrap();
    // Of the one transaction that its connection has open, for ADBC names none.
    alice
        .put_counted(&create("made"), numbers("id", [2]))
        .await
        .unwrap();
    refused(alice.query("SELECT * FROM made").await, Code::NotFound, "");
    assert_eq!(
        alice.query_in("SELECT id FROM made", &id).await.unwrap(),
        "2"
    );
    alice.roll_back(&id).await.unwrap();
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "0");
    refused(alice.query("SELECT * FROM made").await, Code::NotFound, "");
    alice
        .put_counted(&append("t"), numbers("id", [3]))
        .await
        .unwrap();
    assert_eq!(alice.shows("SELECT id FROM t").await, "3");
}

#[tokio::test]
async fn a_prepared_statement_outlives_its_transaction() {
    let (_server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    let id = alice.begin().await.unwrap();
    let request = arrow_flight::sql::ActionCreatePreparedStatementRequest {
        query: "INSERT INTO t VALUES (?, ?)".into(),
        transaction_id: Some(id.clone()),
    };
    let results = alice
        .act("CreatePreparedStatement", request.as_any().encode_to_vec())
        .await
        .unwrap();
    let any = Any::decode(&*results[0]).unwrap();
    let made: arrow_flight::sql::ActionCreatePreparedStatementResult =
        any.unpack().unwrap().unwrap();
    let insert = CommandPreparedStatementUpdate {
        prepared_statement_handle: made.prepared_statement_handle,
    };
    alice.put_counted(&insert, rows([1], "a")).await.unwrap();
    alice.commit(&id).await.unwrap();
    refused(
        alice.put_counted(&insert, rows([2], "b")).await,
        Code::FailedPrecondition,
        "has ended",
    );
    // The next transaction of the connection, as a driver begins at once.
    let next = alice.begin().await.unwrap();
    alice.put_counted(&insert, rows([3], "c")).await.unwrap();
    alice.roll_back(&next).await.unwrap();
    assert_eq!(alice.shows("SELECT id FROM t").await, "1");
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

/// The messages of a put, of which the last never comes.
fn stalled(
    command: &impl ProstMessageExt,
    batches: Vec<RecordBatch>,
) -> impl futures::Stream<Item = arrow_flight::FlightData> + Send + 'static {
    let messages = arrow_flight::encode::FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(crate::client::descriptor(command)))
        .build(futures::stream::iter(batches.into_iter().map(Ok)));
    messages
        .map(Result::unwrap)
        .chain(futures::stream::pending())
}

#[tokio::test]
async fn a_client_that_pauses_for_long_is_sent_away() {
    let server = TestServer::start_with(|config| config.server.put_timeout_ms = 100).await;
    let (_server, mut alice, mut bob) = world_with(server).await;
    with_tables(&mut alice, &mut bob).await;
    let request = alice.request(stalled(&append("t"), vec![numbers("id", [1])]));
    let put = alice.flight.do_put(request).await.map(drop);
    refused(put, Code::Cancelled, "server.put_timeout_ms");
    assert_eq!(alice.shows("SELECT count(*) FROM t").await, "0");
}

#[tokio::test]
async fn an_ingest_that_breaks_off_leaves_nothing() {
    let (_server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    // More than is held in memory: a part is written when the client leaves.
    let id = alice.begin().await.unwrap();
    let rows = numbers("id", 0..1_500_000);
    for command in [
        append("t"),
        CommandStatementIngest {
            transaction_id: Some(id.clone()),
            ..create("made")
        },
    ] {
        let request = alice.request(stalled(&command, vec![rows.clone(), rows.clone()]));
        let mut leaving = alice.clone();
        let put = tokio::spawn(async move { leaving.flight.do_put(request).await.map(drop) });
        // Until it has the lane's turn to write, which others then wait for in vain.
        while bob.shows("SELECT 1").await == "1" && !put.is_finished() {
            let locked = alice.update("DELETE FROM t WHERE id = -1").await;
            if locked.is_err() {
                break;
            }
        }
        put.abort();
        let _ = put.await;
        alice.update("DELETE FROM t WHERE id = -1").await.unwrap();
        assert_eq!(alice.shows("SELECT count(*) FROM t").await, "0");
    }
    refused(
        alice.commit(&id).await,
        Code::FailedPrecondition,
        "was broken off",
    );
    refused(alice.query("SELECT * FROM made").await, Code::NotFound, "");
}

#[tokio::test]
async fn forged_rows_are_refused_and_leave_nothing() {
    let (_server, mut alice, mut bob) = world().await;
    with_tables(&mut alice, &mut bob).await;
    let messages: Vec<_> = arrow_flight::encode::FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(crate::client::descriptor(&append("t"))))
        .build(futures::stream::iter([Ok(numbers("id", 0..100))]))
        .try_collect()
        .await
        .unwrap();
    let count = messages.len();
    for at in 0..messages[count - 1].data_header.len() {
        let mut forged = messages.clone();
        let mut header = forged[count - 1].data_header.to_vec();
        header[at] ^= 0xff;
        forged[count - 1].data_header = header.into();
        let request = alice.request(futures::stream::iter(forged));
        if let Ok(results) = alice.flight.do_put(request).await {
            let _: Vec<_> = results.into_inner().try_collect().await.unwrap();
            alice.update("TRUNCATE t").await.unwrap();
        }
        assert_eq!(alice.shows("SELECT count(*) FROM t").await, "0");
    }
}
