//! Statements on their way to rows: what is announced of one, and running it.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::sql::{
    CommandStatementQuery, ProstMessageExt, SubstraitPlan, TicketStatementQuery,
};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc, Ticket};
use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use prost::Message;
use prost_types::Timestamp;

use crate::engine::{Engine, Progress, RecordStream, SessionTransaction, Statement, affected_by};
use crate::error::{Error, Result};

use super::ticket::{Content, Kind};
use super::transactions::Open;
use super::{Caller, FlightServer, MessageStream, parameters, wire};

impl FlightServer {
    /// The statement of `command` as the caller's session reads it.
    pub(super) fn content_of(
        &self,
        caller: &Caller,
        command: CommandStatementQuery,
    ) -> Result<Content> {
        self.content(caller, command.query, command.transaction_id.as_ref())
    }

    /// `sql` with the names that the caller's session looks bare names up in, in
    /// the transaction that `id` names.
    pub(super) fn content(
        &self,
        caller: &Caller,
        sql: String,
        id: Option<&Bytes>,
    ) -> Result<Content> {
        let content = Content {
            sql,
            ..Content::default()
        };
        self.content_in(caller, content, id)
    }

    /// `content` as the caller's session reads it, in the transaction that `id` names.
    fn content_in(&self, caller: &Caller, content: Content, id: Option<&Bytes>) -> Result<Content> {
        caller.note(&content);
        let transaction = self.named_transaction(caller, id)?;
        let names = self.names.get(&caller.admitted, caller.now_ms);
        Ok(Content {
            catalog: names.catalog.clone(),
            schema: names.schema.clone(),
            transaction,
            ..content
        })
    }

    /// As [`FlightServer::content`], of a plan instead of a text.
    pub(super) fn content_of_plan(
        &self,
        caller: &Caller,
        plan: Option<SubstraitPlan>,
        id: Option<&Bytes>,
    ) -> Result<Content> {
        let content = Content {
            plan: Some(plan.unwrap_or_default()),
            ..Content::default()
        };
        self.content_in(caller, content, id)
    }

    /// The plan of `content` as its transaction sees what there is.
    pub(super) async fn prepare(
        &self,
        caller: &Caller,
        content: &Content,
    ) -> Result<Arc<Statement>> {
        let within = match self.transaction_of(caller, content)? {
            Some(open) => Some(open.transaction()?),
            None => None,
        };
        self.prepare_within(caller, content, within.as_ref()).await
    }

    pub(super) async fn prepare_within(
        &self,
        caller: &Caller,
        content: &Content,
        within: Option<&SessionTransaction>,
    ) -> Result<Arc<Statement>> {
        self.admit_statement(caller, &content.sql)?;
        let (scope, names) = (&caller.scope, content.names());
        let statement = match &content.plan {
            None => {
                let sql = &content.sql;
                self.engine.prepare_within(scope, &names, sql, within).await
            }
            Some(SubstraitPlan { plan, version }) => {
                self.engine
                    .prepare_plan_within(scope, &names, plan, version, within)
                    .await
            }
        }?;
        if let Some(entry) = caller.admitted.entry() {
            entry.reads(statement.tables(), statement.scope());
        }
        if statement.assignment().is_some() {
            caller.admitted.require_session()?;
        }
        Ok(statement)
    }

    /// The schema of what `content` answers.
    pub(super) async fn statement_schema(
        &self,
        caller: &Caller,
        content: &Content,
    ) -> Result<SchemaRef> {
        let statement = self.prepare_or_control(caller, content).await?;
        Ok(wire::plain_schema(&statement.schema()))
    }

    /// Announces `content`: its schema, and one ticket that runs it.
    pub(super) async fn statement_info(
        &self,
        caller: &Caller,
        mut content: Content,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo> {
        let statement = self.prepare_or_control(caller, &content).await?;
        // A wrong parameter is told here, before a client waits for rows.
        bound(&statement, &content)?;
        content.serial = self.bound_parameters.next_serial();
        content.writes = !statement.kind().reads();
        if content.writes {
            self.unused_tickets.insert(content.serial, ());
        }
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
        let mut info = info(
            &wire::plain_schema(&statement.schema()),
            endpoint,
            descriptor,
        )?;
        if !statement.kind().reads() {
            // A client that knows the columns may fetch in its own time, and send
            // what comes after the write before it. Without them it fetches first.
            info.schema = Bytes::new();
        }
        Ok(info)
    }

    /// Runs what `handle`, a ticket's content, stands for.
    pub(super) async fn run_ticket(&self, caller: &Caller, handle: &[u8]) -> Result<MessageStream> {
        let opened = self
            .sealer
            .open(&caller.holder(), Kind::Ticket, caller.now_ms, handle)?;
        let content = opened.content;
        caller.note(&content);
        if let Some(messages) = self.polled.fetch(content.serial, &caller.scope).await {
            return messages.map(|messages| recorded(caller, messages));
        }
        let mut run = self.begin(caller, &content, Some(content.serial))?;
        let progress = Arc::clone(run.progress());
        let once = |statement: &Statement| {
            if statement.kind().reads() {
                return Ok(());
            }
            if self.unused_tickets.remove(&content.serial).is_some() {
                return Ok(());
            }
            self.runs().check(content.serial)?;
            Err(Error::FailedPrecondition(
                "the ticket was used before, and what writes runs once: ask for another with \
                 GetFlightInfo"
                    .into(),
            ))
        };
        let running = self.run(caller, &content, &progress, once);
        let messages = run.until_ended(running.boxed()).await?;
        Ok(run.stream(messages))
    }

    /// Runs `content`, if `admit` lets its statement pass, and notes in `progress` how
    /// far it is.
    pub(super) async fn run(
        &self,
        caller: &Caller,
        content: &Content,
        progress: &Arc<Progress>,
        admit: impl FnOnce(&Statement) -> Result<()> + Send,
    ) -> Result<MessageStream> {
        let Answer {
            statement,
            rows,
            open,
        } = self
            .answer(&self.engine.following(progress), caller, content, admit)
            .await?;
        let actual = rows.schema();
        let sent = wire::announced_schema(&statement.schema(), &actual);
        let rows = counted(rows, progress);
        let entry = caller.admitted.entry().cloned();
        let has_written = !statement.kind().reads();
        let rows = rows.inspect_ok(move |batch| {
            if let Some(entry) = &entry {
                entry.add_rows(match has_written {
                    true => affected_by(batch),
                    false => batch.num_rows() as u64,
                });
            }
        });
        let Some(open) = open else {
            return Ok(self.messages(rows, &actual, sent));
        };
        // A transaction whose rows are being fetched is not idle.
        let transactions = self.transactions.clone();
        let rows = rows.inspect(move |_| transactions.touch(&open));
        Ok(self.messages(rows, &actual, sent))
    }

    /// The rows that `content` answers with. What writes has written when this
    /// returns. `engine` is the one that follows the statement.
    pub(super) async fn answer(
        &self,
        engine: &Engine,
        caller: &Caller,
        content: &Content,
        admit: impl FnOnce(&Statement) -> Result<()> + Send,
    ) -> Result<Answer> {
        if let Some(statement) = self.control_of(caller, content).await? {
            admit(&statement)?;
            // What it does is not undone.
            engine.commits()?;
            let rows = self.control(caller, content, &statement).await?;
            return Ok(Answer {
                statement,
                rows,
                open: None,
            });
        }
        let Some(open) = self.transaction_of(caller, content)? else {
            let statement = self.prepare_within(caller, content, None).await?;
            let values = bound(&statement, content)?;
            admit(&statement)?;
            let rows = engine.execute(&caller.scope, &statement, &values).await?;
            caller.note_written(&statement);
            self.note_temporary(caller, statement.makes_temporary());
            return Ok(Answer {
                statement,
                rows,
                open: None,
            });
        };
        let mut running = self.transactions.enter(&open).await?;
        let transaction = running.transaction().clone();
        let statement = self
            .prepare_within(caller, content, Some(&transaction))
            .await?;
        let values = bound(&statement, content)?;
        admit(&statement)?;
        if !statement.kind().reads() {
            running.writes();
        }
        let rows = engine
            .execute_within(&caller.scope, &statement, &values, Some(&transaction))
            .await;
        running.finish();
        let rows = rows?;
        caller.note_written(&statement);
        self.note_temporary(caller, statement.makes_temporary());
        Ok(Answer {
            statement,
            rows,
            open: Some(open),
        })
    }
}

/// What a statement answers.
pub(super) struct Answer {
    statement: Arc<Statement>,
    /// The rows, or the count of those that were written.
    pub rows: RecordStream,
    /// The transaction that they are read in.
    open: Option<Arc<Open>>,
}

/// `rows`, whose number is noted in `progress`.
pub(super) fn counted<S>(
    rows: S,
    progress: &Arc<Progress>,
) -> impl Stream<Item = Result<RecordBatch>> + Send + Unpin + use<S>
where
    S: Stream<Item = Result<RecordBatch>> + Send + Unpin,
{
    let progress = Arc::clone(progress);
    rows.inspect_ok(move |batch| progress.add_rows(batch.num_rows()))
}

/// `messages` with their rows counted in the caller's audit record.
fn recorded(caller: &Caller, messages: MessageStream) -> MessageStream {
    let Some(entry) = caller.admitted.entry().cloned() else {
        return messages;
    };
    Box::pin(messages.inspect_ok(move |message| {
        let header = arrow::ipc::root_as_message(&message.data_header);
        let batch = header
            .ok()
            .and_then(|header| header.header_as_record_batch());
        if let Some(batch) = batch {
            entry.add_rows(batch.length().unsigned_abs());
        }
    }))
}

/// The values of `content`'s parameters in the types that `statement` takes.
pub(super) fn bound(
    statement: &Statement,
    content: &Content,
) -> Result<Vec<datafusion::common::ScalarValue>> {
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

pub(super) fn timestamp(ms: u64) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(ms % 1000 * 1_000_000).unwrap_or(0),
    }
}
