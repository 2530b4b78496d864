//! Writes at the wire: updates, prepared updates, transactions and ingest, with two
//! tenants wherever one could touch the other.

mod ingest;
mod lanes;
mod transactions;
mod updates;

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

use crate::client::{ALICE, BOB, Client, alice_and_bob, prepared, statement};
use crate::harness::TestServer;

const NO_ROWS: [i64; 0] = [];

pub fn columns(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

pub fn numbers(name: &str, values: impl IntoIterator<Item = i64>) -> RecordBatch {
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

    pub async fn update_in(
        &mut self,
        sql: &str,
        transaction: Option<&Bytes>,
    ) -> Result<i64, Status> {
        let command = CommandStatementUpdate {
            query: sql.into(),
            transaction_id: transaction.cloned(),
        };
        self.put_counted(&command, numbers("unused", NO_ROWS)).await
    }

    pub async fn update(&mut self, sql: &str) -> Result<i64, Status> {
        self.update_in(sql, None).await
    }

    pub async fn query_in(&mut self, sql: &str, transaction: &Bytes) -> Result<String, Status> {
        let command = CommandStatementQuery {
            transaction_id: Some(transaction.clone()),
            ..statement(sql)
        };
        self.rows(&command).await.map(|batch| shown(&batch))
    }

    pub async fn begin(&mut self) -> Result<Bytes, Status> {
        let body = ActionBeginTransactionRequest {}.as_any().encode_to_vec();
        let results = self.act("BeginTransaction", body).await?;
        let any = Any::decode(&*results[0]).unwrap();
        let result: ActionBeginTransactionResult = any.unpack().unwrap().unwrap();
        Ok(result.transaction_id)
    }

    pub async fn end(&mut self, id: &Bytes, action: EndTransaction) -> Result<(), Status> {
        let request = ActionEndTransactionRequest {
            transaction_id: id.clone(),
            action: action as i32,
        };
        let body = request.as_any().encode_to_vec();
        self.act("EndTransaction", body).await.map(drop)
    }

    pub async fn commit(&mut self, id: &Bytes) -> Result<(), Status> {
        self.end(id, EndTransaction::Commit).await
    }

    pub async fn roll_back(&mut self, id: &Bytes) -> Result<(), Status> {
        self.end(id, EndTransaction::Rollback).await
    }

    pub async fn savepoint(&mut self, id: &Bytes, name: &str) -> Result<Bytes, Status> {
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

    pub async fn end_savepoint(&mut self, id: &Bytes, action: i32) -> Result<(), Status> {
        let request = ActionEndSavepointRequest {
            savepoint_id: id.clone(),
            action,
        };
        let body = request.as_any().encode_to_vec();
        self.act("EndSavepoint", body).await.map(drop)
    }
}

const RELEASE: i32 = 1;

pub const ROLL_BACK: i32 = 2;

/// A server, and a client of each of two tenants.
pub async fn world() -> (TestServer, Client, Client) {
    world_with(TestServer::start().await).await
}

async fn world_with(server: TestServer) -> (TestServer, Client, Client) {
    let (alice, bob) = alice_and_bob(&server).await;
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

pub fn ingest(
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

pub fn replace(table: &str) -> CommandStatementIngest {
    ingest(
        table,
        TableNotExistOption::Create,
        TableExistsOption::Replace,
    )
}

pub fn create_append(table: &str) -> CommandStatementIngest {
    ingest(
        table,
        TableNotExistOption::Create,
        TableExistsOption::Append,
    )
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
