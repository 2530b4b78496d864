//! Statements on their way to rows: what is announced of one, and running it.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc, Ticket};
use bytes::Bytes;
use prost::Message;
use prost_types::Timestamp;

use crate::engine::Statement;
use crate::error::{Error, Result};

use super::ticket::{Content, Kind};
use super::{Caller, FlightServer, MessageStream, parameters, wire};

impl FlightServer {
    /// The statement of `command` as the caller's session reads it.
    pub(super) fn content_of(
        &self,
        caller: &Caller,
        command: CommandStatementQuery,
    ) -> Result<Content> {
        refuse_transaction(command.transaction_id.as_ref())?;
        Ok(self.content(caller, command.query))
    }

    /// `sql` with the names that the caller's session looks bare names up in.
    pub(super) fn content(&self, caller: &Caller, sql: String) -> Content {
        let names = self.names.get(&caller.admitted, caller.now_ms);
        Content {
            sql,
            catalog: names.catalog.clone(),
            schema: names.schema.clone(),
            parameters: None,
            serial: 0,
        }
    }

    /// The plan of `content`.
    pub(super) async fn prepare(
        &self,
        caller: &Caller,
        content: &Content,
    ) -> Result<Arc<Statement>> {
        let names = content.names();
        self.engine
            .prepare(&caller.scope, &names, &content.sql)
            .await
    }

    /// The schema of what `content` answers.
    pub(super) async fn statement_schema(
        &self,
        caller: &Caller,
        content: &Content,
    ) -> Result<SchemaRef> {
        let statement = self.prepare(caller, content).await?;
        Ok(wire::plain_schema(&statement.schema()))
    }

    /// Announces `content`: its schema, and one ticket that runs it.
    pub(super) async fn statement_info(
        &self,
        caller: &Caller,
        content: Content,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo> {
        let statement = self.prepare(caller, &content).await?;
        // A wrong parameter is told here, before a client waits for rows.
        bound(&statement, &content)?;
        let expires_ms = self.expiry_ms(caller.now_ms);
        let handle = self
            .sealer
            .seal(&caller.holder(), Kind::Ticket, content, expires_ms)?;
        let ticket = TicketStatementQuery {
            statement_handle: handle,
        };
        let ticket = Ticket::new(ticket.as_any().encode_to_vec());
        let mut endpoint = FlightEndpoint::new().with_ticket(ticket);
        endpoint.expiration_time = Some(timestamp(expires_ms));
        info(
            &wire::plain_schema(&statement.schema()),
            endpoint,
            descriptor,
        )
    }

    /// Runs what `handle`, a ticket's content, stands for.
    pub(super) async fn run_ticket(&self, caller: &Caller, handle: &[u8]) -> Result<MessageStream> {
        let opened = self
            .sealer
            .open(&caller.holder(), Kind::Ticket, caller.now_ms, handle)?;
        self.run(caller, &opened.content).await
    }

    /// Runs `content`.
    pub(super) async fn run(&self, caller: &Caller, content: &Content) -> Result<MessageStream> {
        let statement = self.prepare(caller, content).await?;
        let values = bound(&statement, content)?;
        let rows = self
            .engine
            .execute(&caller.scope, &statement, &values)
            .await?;
        let actual = rows.schema();
        let sent = wire::announced_schema(&statement.schema(), &actual);
        Ok(self.messages(rows, &actual, sent))
    }
}

/// The values of `content`'s parameters in the types that `statement` takes.
fn bound(statement: &Statement, content: &Content) -> Result<Vec<datafusion::common::ScalarValue>> {
    let row = content.parameters.as_deref().map(parameters::from_ipc);
    parameters::bind(&statement.parameter_schema(), row.transpose()?.as_ref())
}

/// What is told of a result before it is fetched.
pub(super) fn info(
    schema: &Schema,
    endpoint: FlightEndpoint,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo> {
    // With one endpoint the rows come in the order of the result.
    let mut info = FlightInfo::new()
        .with_endpoint(endpoint)
        .with_descriptor(descriptor)
        .with_ordered(true);
    info.schema = schema_message(schema)?;
    Ok(info)
}

/// `schema` as an encapsulated IPC message.
pub(super) fn schema_message(schema: &Schema) -> Result<Bytes> {
    let options = IpcWriteOptions::default();
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &options).try_into().map_err(
        |error: arrow::error::ArrowError| {
            Error::internal("the schema cannot be sent as arrow data", error)
        },
    )?;
    Ok(bytes)
}

/// There are no transactions to take part in.
pub(super) fn refuse_transaction(transaction: Option<&Bytes>) -> Result<()> {
    match transaction {
        Some(id) if !id.is_empty() => Err(Error::Unimplemented(
            "transactions are not supported: leave transaction_id unset".into(),
        )),
        _ => Ok(()),
    }
}

fn timestamp(ms: u64) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(ms % 1000 * 1_000_000).unwrap_or(0),
    }
}
