//! Flight SQL.
//!
//! `service` takes a call apart, and this file finds the room that answers it:
//! `statement` runs SQL, `prepared` what is prepared, `update` takes what clients
//! put, `transaction` what they say of transactions, `binding` what they say of the
//! tenant, `metadata` tells what exists, `action` does the rest, `polled` runs what
//! clients poll, and `cancel` ends what runs. What passes between two calls is in handles
//! that the client keeps, sealed by `ticket`; rows leave through `encode`.
//!
//! Architecture invariant: a call acts as the interceptor admitted it. A call
//! that carries no admission is refused, and nothing below this file sees a
//! header. What writes runs once for each ticket. A plan of Substrait is content as
//! a text is, and goes wherever one does.

mod action;
mod binding;
mod cancel;
mod deadline;
mod encode;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod like;
mod metadata;
mod parameters;
mod polled;
mod prepared;
mod rows;
mod service;
mod session_options;
mod sql_info;
mod statement;
mod ticket;
mod transaction;
mod transactions;
mod type_info;
mod update;
pub(crate) mod wire;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::flight_service_server::FlightServiceServer;
use arrow_flight::sql::{Any, Command};
use arrow_flight::{FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use prost::Message;
use tonic::{Code, Status, Streaming};

use crate::config::JammiConfig;
use crate::engine::{Engine, Statement};
use crate::error::{Error, Result};
use crate::server::operations::Operations;
use crate::server::running::{Messages, Run, Runs, Sent};
use crate::server::session::Bindings;
use crate::server::tenant::{Admitted, SessionKeys};
use crate::tenant::{Scope, SessionId};

pub use session_options::SessionNames;
pub use transactions::Transactions;

use encode::FlightStream;
use metadata::{MetadataCommand, ServerInfo};
use polled::Polled;
use prepared::BoundParameters;
use ticket::{Content, Holder, Sealer};
use transactions::Party;

/// The share of a message that a handle may take, so that what carries it
/// fits the 4 MiB that gRPC clients accept when the setting is at its default.
const HANDLE_SHARE: usize = 5;
/// The messages' worth of parameters that are kept for clients that do not take
/// the handle which binding answers with.
const BOUND_MESSAGES_MAX: u64 = 4;
/// The tickets of statements that write which are kept until they are used. The
/// oldest is refused for one more.
const UNUSED_TICKETS_MAX: u64 = 100_000;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type MessageStream = Messages<FlightData>;

/// The Flight SQL service of one engine.
pub struct FlightServer {
    engine: Engine,
    names: Arc<SessionNames>,
    bindings: Bindings,
    sealer: Sealer,
    bound_parameters: BoundParameters,
    transactions: Transactions,
    keys: SessionKeys,
    /// The tickets of statements that write, until they are used.
    unused_tickets: Cache<u64, ()>,
    operations: Arc<Operations>,
    polled: Polled,
    server_info: ServerInfo,
    handle_ttl: Duration,
    handle_bytes_max: usize,
    message_bytes_max: usize,
    put_timeout: Duration,
}

impl FlightServer {
    /// A service whose sessions are bound by `bindings`, and are and run what
    /// `operations` knows. Handles are sealed with a new key, and those of an earlier
    /// server refused.
    pub fn new(
        bindings: Bindings,
        operations: Arc<Operations>,
        config: &JammiConfig,
    ) -> Result<Self> {
        let message_bytes_max = config.server.message_bytes_max;
        let handle_bytes_max = message_bytes_max / HANDLE_SHARE;
        let handle_ttl = Duration::from_secs(config.server.handle_ttl_secs);
        let bound_bytes_max = BOUND_MESSAGES_MAX.saturating_mul(message_bytes_max as u64);
        Ok(FlightServer {
            engine: operations.engine.clone(),
            names: Arc::clone(&operations.names),
            bindings,
            sealer: Sealer::new(handle_bytes_max),
            bound_parameters: BoundParameters::new(bound_bytes_max, handle_ttl),
            transactions: operations.transactions.clone(),
            keys: operations.keys.clone(),
            unused_tickets: Cache::builder()
                .max_capacity(UNUSED_TICKETS_MAX)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(handle_ttl)
                .build(),
            operations,
            polled: Polled::new(
                config.server.polled_queries_max,
                Duration::from_millis(config.server.poll_timeout_ms),
            ),
            server_info: ServerInfo::new(config)?,
            handle_ttl,
            handle_bytes_max,
            message_bytes_max,
            put_timeout: Duration::from_millis(config.server.put_timeout_ms),
        })
    }

    /// The service as tonic serves it, with the limits of the configuration.
    pub fn into_service(self) -> FlightServiceServer<Self> {
        let message_bytes_max = self.message_bytes_max;
        FlightServiceServer::new(self)
            .max_decoding_message_size(message_bytes_max)
            .max_encoding_message_size(message_bytes_max)
    }

    /// Notes by which connection the caller's session has made a temporary table, if
    /// it has made one.
    fn note_temporary(&self, caller: &Caller, made: bool) {
        let admitted = &caller.admitted;
        if made
            && let (Some(session), Some(connection)) = (admitted.session(), admitted.connection())
        {
            self.keys.made(admitted.principal(), session, connection);
        }
    }

    /// The statements that run.
    fn runs(&self) -> &Runs {
        &self.operations.runs
    }

    /// Starts the statement of `content`, for the ticket of this number if it is for
    /// one.
    fn begin(&self, caller: &Caller, content: &Content, serial: Option<u64>) -> Result<Run> {
        let sent = match &content.plan {
            None => Sent::Sql(&content.sql),
            Some(_) => Sent::Plan,
        };
        self.runs()
            .start(&caller.admitted, &caller.scope, sent, serial)
    }

    /// Ends the caller's session, unless it goes on by another connection.
    async fn close_session(&self, admitted: &Admitted) {
        let party = Party::of(admitted);
        self.transactions.closed(&party);
        self.polled.closed(&party);
        if let Some(session) = admitted.session_key()
            && self.keys.closed(session, admitted.connection())
        {
            self.engine.end_session(session).await;
        }
    }

    /// When a handle that is issued now ceases to be taken.
    fn expiry_ms(&self, now_ms: u64) -> u64 {
        let ttl_ms = u64::try_from(self.handle_ttl.as_millis()).unwrap_or(u64::MAX);
        now_ms.saturating_add(ttl_ms)
    }

    /// `batches`, whose schema is `from`, as Flight messages in the schema `to`.
    fn messages<S>(&self, batches: S, from: &SchemaRef, to: SchemaRef) -> MessageStream
    where
        S: Stream<Item = Result<RecordBatch>> + Send + Unpin + 'static,
    {
        Box::pin(FlightStream::new(batches, from, to, self.message_bytes_max))
    }

    async fn flight_info(
        &self,
        admitted: Admitted,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo> {
        match command(&descriptor.cmd)? {
            Command::CommandStatementQuery(command) => {
                let caller = Caller::admit_text(admitted);
                let content = self.content_of(&caller, command)?;
                self.statement_info(&caller, content, descriptor).await
            }
            Command::CommandStatementSubstraitPlan(command) => {
                let caller = Caller::admit(admitted)?;
                let id = command.transaction_id.as_ref();
                let content = self.content_of_plan(&caller, command.plan, id)?;
                self.statement_info(&caller, content, descriptor).await
            }
            Command::CommandPreparedStatementQuery(command) => {
                let caller = Caller::admit_text(admitted);
                self.prepared_info(&caller, command, descriptor).await
            }
            other => {
                let command = MetadataCommand::parse(other)?;
                let schema = self.metadata_schema(admitted, &command)?;
                let ticket = Ticket::new(descriptor.cmd.clone());
                let endpoint = FlightEndpoint::new().with_ticket(ticket);
                statement::info(&schema, endpoint, descriptor)
            }
        }
    }

    async fn schema(&self, admitted: Admitted, descriptor: &FlightDescriptor) -> Result<SchemaRef> {
        match command(&descriptor.cmd)? {
            Command::CommandStatementQuery(command) => {
                let caller = Caller::admit_text(admitted);
                let content = self.content_of(&caller, command)?;
                self.statement_schema(&caller, &content).await
            }
            Command::CommandStatementSubstraitPlan(command) => {
                let caller = Caller::admit(admitted)?;
                let id = command.transaction_id.as_ref();
                let content = self.content_of_plan(&caller, command.plan, id)?;
                self.statement_schema(&caller, &content).await
            }
            Command::CommandPreparedStatementQuery(command) => {
                let caller = Caller::admit_text(admitted);
                self.prepared_schema(&caller, command).await
            }
            other => {
                let command = MetadataCommand::parse(other)?;
                self.metadata_schema(admitted, &command)
            }
        }
    }

    async fn rows(&self, admitted: Admitted, ticket: &Ticket) -> Result<MessageStream> {
        match command(&ticket.ticket)? {
            Command::TicketStatementQuery(ticket) => {
                let caller = Caller::admit_text(admitted);
                self.run_ticket(&caller, &ticket.statement_handle).await
            }
            Command::CommandPreparedStatementQuery(command) => {
                let caller = Caller::admit_text(admitted);
                self.run_prepared(&caller, command).await
            }
            other => {
                let command = MetadataCommand::parse(other)?;
                let entry = admitted.entry().cloned();
                let batch = match command {
                    MetadataCommand::Server(command) => self.server_info.answer(command)?,
                    MetadataCommand::Catalog(command) => {
                        let caller = Caller::admit(admitted)?;
                        metadata::answer(&caller.scope, &self.engine, command).await?
                    }
                };
                let schema = batch.schema();
                if let Some(entry) = entry {
                    entry.add_rows(batch.num_rows() as u64);
                }
                Ok(self.messages(stream::iter([Ok(batch)]), &schema, schema.clone()))
            }
        }
    }

    /// The schema of the answer to `command`, for whom it would be answered.
    fn metadata_schema(&self, admitted: Admitted, command: &MetadataCommand) -> Result<SchemaRef> {
        match command {
            MetadataCommand::Server(command) => Ok(self.server_info.schema(command)),
            MetadataCommand::Catalog(command) => {
                Caller::admit(admitted)?;
                Ok(metadata::schema(command))
            }
        }
    }

    async fn put(&self, admitted: Admitted, mut messages: Streaming<FlightData>) -> Result<Bytes> {
        let first = messages.message().await.map_err(broken_off)?;
        let Some(first) = first else {
            return Err(Error::InvalidArgument(
                "the stream is empty: send a flight descriptor with its first message".into(),
            ));
        };
        let Some(descriptor) = &first.flight_descriptor else {
            return Err(Error::InvalidArgument(
                "the first message has no flight descriptor: send one that says what is put".into(),
            ));
        };
        let command = command(&descriptor.cmd)?;
        let entry = admitted.entry().cloned();
        let rest = messages.map(|message| message.map_err(broken_off));
        let messages = stream::iter([Ok(first)]).chain(rest);
        let written = match command {
            Command::CommandPreparedStatementQuery(command) => {
                let caller = Caller::admit_text(admitted);
                let bound = self.bind_prepared(&caller, command, messages).await?;
                return Ok(bound.encode_to_vec().into());
            }
            Command::CommandStatementUpdate(command) => {
                let caller = Caller::admit_text(admitted);
                self.update(&caller, command).await?
            }
            Command::CommandStatementSubstraitPlan(command) => {
                let caller = Caller::admit(admitted)?;
                let id = command.transaction_id.as_ref();
                let content = self.content_of_plan(&caller, command.plan, id)?;
                self.update_of(&caller, &content).await?
            }
            Command::CommandPreparedStatementUpdate(command) => {
                let caller = Caller::admit_text(admitted);
                self.update_prepared(&caller, command, messages).await?
            }
            Command::CommandStatementIngest(command) => {
                let caller = Caller::admit(admitted)?;
                self.ingest(&caller, command, messages).await?
            }
            other => return Err(unserved(&other)),
        };
        if let Some(entry) = entry {
            entry.add_rows(written.record_count.unsigned_abs());
        }
        Ok(written.encode_to_vec().into())
    }
}

/// A request that was admitted, and what it may touch.
struct Caller {
    admitted: Admitted,
    scope: Scope,
    now_ms: u64,
}

impl Caller {
    fn admit(admitted: Admitted) -> Result<Self> {
        let scope = admitted.scope()?;
        Ok(Caller::with_scope(admitted, scope))
    }

    /// A caller who sends a statement, and may have no scope yet if it binds the
    /// session: every statement passes [`FlightServer::prepare_within`], which sees
    /// to that.
    fn admit_text(admitted: Admitted) -> Caller {
        let scope = admitted.scope_to_bind();
        Caller::with_scope(admitted, scope)
    }

    fn with_scope(admitted: Admitted, scope: Scope) -> Caller {
        Caller {
            admitted,
            scope,
            now_ms: now_ms(),
        }
    }

    /// Has the audit record say what the statement is.
    fn note(&self, content: &Content) {
        match (self.admitted.entry(), &content.plan) {
            (Some(entry), None) => entry.statement(&content.sql),
            (Some(entry), Some(_)) => entry.is("a plan of Substrait".to_owned()),
            (None, _) => {}
        }
    }

    /// Has the audit record say that the statement is done, whatever becomes of its
    /// answer.
    fn note_written(&self, statement: &Statement) {
        if let Some(entry) = self.admitted.entry()
            && !statement.kind().reads()
        {
            entry.note_written();
        }
    }

    fn holder(&self) -> Holder<'_> {
        Holder {
            scope: &self.scope,
            session: self.admitted.session().map(SessionId::as_str),
            generation: self.admitted.generation(),
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// The command in a descriptor or ticket.
fn command(bytes: &[u8]) -> Result<Command> {
    if bytes.is_empty() {
        return Err(Error::InvalidArgument(
            "the request holds no command: send a Flight SQL command".into(),
        ));
    }
    let malformed = |error: &dyn std::fmt::Display| {
        Error::InvalidArgument(format!("the command is malformed: {error}"))
    };
    let any = Any::decode(bytes).map_err(|error| malformed(&error))?;
    Command::try_from(any).map_err(|error| malformed(&error))
}

/// Why `command` is not served where it was sent.
fn unserved(command: &Command) -> Error {
    let url = command.type_url();
    let why = match command {
        Command::CommandStatementUpdate(_)
        | Command::CommandPreparedStatementUpdate(_)
        | Command::CommandStatementIngest(_) => "put it with DoPut",
        Command::CommandStatementSubstraitPlan(_) => "ask for a ticket with GetFlightInfo",
        Command::Unknown(_) => {
            return Error::InvalidArgument(format!(
                "{url:?} is not a command that this server knows: send a Flight SQL command"
            ));
        }
        _ => "it belongs to another call",
    };
    Error::Unimplemented(format!("{url} is not served here: {why}"))
}

/// A request's stream that ended in an error.
fn broken_off(status: Status) -> Error {
    let message = status.message();
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => Error::ResourceExhausted(format!(
            "{message}: send smaller messages, or raise server.message_bytes_max"
        )),
        _ => Error::Cancelled(format!("the request's stream broke off: {message}")),
    }
}
