//! What a client asks of a server, in each of the ways that there are.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Schema;
use arrow_flight::FlightInfo;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    ActionBeginTransactionRequest, ActionBeginTransactionResult, ActionEndTransactionRequest, Any,
    CommandStatementIngest, CommandStatementUpdate, DoPutUpdateResult, EndTransaction,
    ProstMessageExt, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use bytes::Bytes;
use futures::TryStreamExt;
use prost::Message;
use serde_json::Value;
use tonic::Status;

use crate::client::{Client, prepared, statement};
use crate::files::{self, Row};
use crate::observed::{Observed, texts};

pub async fn metadata(
    client: &mut Client,
    command: &impl ProstMessageExt,
) -> Result<Observed, Status> {
    let (schema, batches) = fetch(client, command).await?;
    // Listings promise an order.
    Ok(Observed::rows("EXPLAIN SELECT 1", &schema, &batches))
}

/// Runs what `command` says by GetFlightInfo and DoGet.
pub async fn fetch(
    client: &mut Client,
    command: &impl ProstMessageExt,
) -> Result<(Schema, Vec<RecordBatch>), Status> {
    let info: FlightInfo = client.info(command).await?;
    // No client learns of a size before it has the rows.
    assert_eq!((info.total_records, info.total_bytes), (-1, -1));
    assert_eq!(info.endpoint.len(), 1);
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let request = client.request(ticket);
    let messages = client.flight.do_get(request).await?.into_inner();
    let messages = messages.map_err(FlightError::from);
    let mut stream = FlightRecordBatchStream::new_from_flight_data(messages);
    let mut batches = Vec::new();
    while let Some(batch) = stream.try_next().await.map_err(Status::from)? {
        batches.push(batch);
    }
    let schema = stream.schema().expect("a stream starts with its schema");
    Ok((schema.as_ref().clone(), batches))
}

pub async fn query(client: &mut Client, sql: &str) -> Result<Observed, Status> {
    let (schema, batches) = fetch(client, &statement(sql)).await?;
    Ok(Observed::rows(sql, &schema, &batches))
}

pub async fn update(client: &mut Client, sql: &str) -> Result<Observed, Status> {
    let command = CommandStatementUpdate {
        query: sql.into(),
        transaction_id: None,
    };
    counted(
        client
            .put(&command, RecordBatch::new_empty(Arc::new(Schema::empty())))
            .await?,
    )
}

fn counted(results: Vec<Bytes>) -> Result<Observed, Status> {
    let counts = results.iter().map(|result| {
        let result = DoPutUpdateResult::decode(&**result).unwrap();
        result.record_count.to_string()
    });
    Ok(Observed::Text(counts.collect::<Vec<_>>().join(" ")))
}

pub async fn run_prepared(client: &mut Client, text: &str) -> Result<Observed, Status> {
    let (parameters, sql) = text.split_at(text.find("] ").unwrap() + 2);
    let parameters: Vec<Value> = serde_json::from_str(parameters).unwrap();
    let columns = parameters.iter().enumerate().map(|(place, value)| {
        let column: ArrayRef = match value {
            Value::Bool(value) => Arc::new(BooleanArray::from(vec![*value])),
            Value::Number(value) if value.is_i64() => {
                Arc::new(Int64Array::from(vec![value.as_i64()]))
            }
            Value::Number(value) => Arc::new(Float64Array::from(vec![value.as_f64()])),
            other => Arc::new(StringArray::from(vec![other.as_str()])),
        };
        (place.to_string(), column, true)
    });
    let row = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let handle = client.prepare(sql).await?.prepared_statement_handle;
    let handle = client.bind_row(&handle, row).await?;
    let (schema, batches) = fetch(client, &prepared(&handle)).await?;
    client.close(&handle).await?;
    Ok(Observed::rows(sql, &schema, &batches))
}

pub async fn ingest(client: &mut Client, text: &str) -> Result<Observed, Status> {
    let mut words = text.splitn(3, ' ');
    let (table, mode) = (words.next().unwrap(), words.next().unwrap());
    let values: Vec<Vec<Value>> = serde_json::from_str(words.next().unwrap()).unwrap();
    let rows: Vec<Row> = values
        .into_iter()
        .map(|values| Row {
            tenant: None,
            values,
        })
        .collect();
    let (if_not_exist, if_exists) = match mode {
        "create" => (TableNotExistOption::Create, TableExistsOption::Fail),
        "append" => (TableNotExistOption::Fail, TableExistsOption::Append),
        "replace" => (TableNotExistOption::Create, TableExistsOption::Replace),
        _ => (TableNotExistOption::Create, TableExistsOption::Append),
    };
    let command = CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: if_not_exist as i32,
            if_exists: if_exists as i32,
        }),
        table: table.into(),
        ..CommandStatementIngest::default()
    };
    counted(client.put(&command, files::batch(&rows, "none")).await?)
}

pub async fn same(client: &mut Client, text: &str) -> Result<Observed, Status> {
    let (left, right) = text.split_once(" == ").unwrap();
    let left = fetch(client, &statement(left)).await;
    let right = fetch(client, &statement(right)).await;
    match (left, right) {
        (Ok((_, left)), Ok((_, right))) => Ok(compared(texts(&left), texts(&right))),
        // One of them may meet a row that the other leaves out.
        (Err(status), _) | (_, Err(status)) => Err(status),
    }
}

/// What a comparison inside one server says where it fails.
pub const UNEQUAL: &str = "not the same rows";

pub fn compared(mut left: Vec<String>, mut right: Vec<String>) -> Observed {
    left.sort_unstable();
    right.sort_unstable();
    Observed::Text(match left == right {
        true => format!("the same {} rows", left.len()),
        false => format!("{UNEQUAL}\n    {left:?}\n    {right:?}"),
    })
}

pub async fn begin(client: &mut Client) -> Result<Bytes, Status> {
    let body = ActionBeginTransactionRequest {}.as_any().encode_to_vec();
    let results = client.act("BeginTransaction", body).await?;
    let any = Any::decode(&*results[0]).unwrap();
    let result: ActionBeginTransactionResult = any.unpack().unwrap().unwrap();
    Ok(result.transaction_id)
}

pub async fn end(client: &mut Client, id: &Bytes, commits: bool) -> Result<(), Status> {
    let action = match commits {
        true => EndTransaction::Commit,
        false => EndTransaction::Rollback,
    };
    let request = ActionEndTransactionRequest {
        transaction_id: id.clone(),
        action: action as i32,
    };
    let body = request.as_any().encode_to_vec();
    client.act("EndTransaction", body).await.map(drop)
}
