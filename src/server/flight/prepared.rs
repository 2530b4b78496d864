//! Prepared statements: all their state is in the handle that the client keeps.
//!
//! Binding parameters answers with a new handle that holds them. Clients that
//! run the handle they were first given all the same (Arrow's C++ one) are served
//! from [`BoundParameters`], a cache of bounded size: what it forgets has to be
//! bound again. Closing a statement has nothing to free but that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult, ActionCreatePreparedSubstraitPlanRequest,
    CommandPreparedStatementQuery, DoPutPreparedStatementResult,
};
use arrow_flight::{FlightData, FlightDescriptor, FlightInfo};
use bytes::Bytes;
use futures::{FutureExt, Stream};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::engine::Statement;
use crate::error::{Error, Result};

use super::statement::schema_message;
use super::ticket::{Content, Kind};
use super::{Caller, FlightServer, MessageStream, parameters, wire};

/// The parameters last bound to each handle, by the handle's id. The id is a MAC
/// over the handle's holder, so one holder's parameters are never another's.
pub(super) struct BoundParameters {
    rows: Cache<[u8; 32], Bytes>,
    serial: AtomicU64,
}

impl BoundParameters {
    /// Keeps up to `bytes_max` bytes, each row for `ttl` at most.
    pub fn new(bytes_max: u64, ttl: Duration) -> Self {
        const ENTRY_OVERHEAD_BYTES: usize = 128;
        let rows = Cache::builder()
            .max_capacity(bytes_max)
            // The row that is about to be asked for is the newest one.
            .eviction_policy(EvictionPolicy::lru())
            .weigher(|_, row: &Bytes| {
                u32::try_from(row.len() + ENTRY_OVERHEAD_BYTES).unwrap_or(u32::MAX)
            })
            .time_to_live(ttl)
            .build();
        BoundParameters {
            rows,
            serial: AtomicU64::new(1),
        }
    }

    /// A number that no other handle has.
    pub fn next_serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }
}

impl FlightServer {
    /// Prepares a statement: its handle, and the schemas of its rows and
    /// parameters.
    pub(super) async fn create_prepared(
        &self,
        caller: &Caller,
        request: ActionCreatePreparedStatementRequest,
    ) -> Result<ActionCreatePreparedStatementResult> {
        let content = self.content(caller, request.query, request.transaction_id.as_ref())?;
        self.create_prepared_of(caller, content).await
    }

    /// Prepares a plan of Substrait.
    pub(super) async fn create_prepared_plan(
        &self,
        caller: &Caller,
        request: ActionCreatePreparedSubstraitPlanRequest,
    ) -> Result<ActionCreatePreparedStatementResult> {
        let id = request.transaction_id.as_ref();
        let content = self.content_of_plan(caller, request.plan, id)?;
        self.create_prepared_of(caller, content).await
    }

    async fn create_prepared_of(
        &self,
        caller: &Caller,
        mut content: Content,
    ) -> Result<ActionCreatePreparedStatementResult> {
        content.serial = self.bound_parameters.next_serial();
        let statement = self.prepare_or_control(caller, &content).await?;
        // Clients take what has no schema here for an update, and send it by DoPut.
        let dataset_schema = match statement.yields_rows() {
            true => schema_message(&wire::plain_schema(&statement.schema()))?,
            false => Bytes::new(),
        };
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: self.seal_prepared(caller, content)?,
            dataset_schema,
            parameter_schema: schema_message(&wire::plain_schema(&statement.parameter_schema()))?,
        })
    }

    /// Binds the row in `messages` and answers with the handle that holds it.
    pub(super) async fn bind_prepared<S>(
        &self,
        caller: &Caller,
        command: CommandPreparedStatementQuery,
        messages: S,
    ) -> Result<DoPutPreparedStatementResult>
    where
        S: Stream<Item = Result<FlightData>> + Send + 'static,
    {
        let handle = command.prepared_statement_handle;
        let opened = self
            .sealer
            .open(&caller.holder(), Kind::Prepared, caller.now_ms, &handle)?;
        let mut content = opened.content;
        caller.note(&content);
        self.succeed(caller, &mut content)?;
        let row = parameters::read_row(messages, self.handle_bytes_max).await?;
        content.parameters = match &row {
            Some(row) => {
                let statement = self.prepare_or_control(caller, &content).await?;
                parameters::bind(&statement.parameter_schema(), Some(row))?;
                Some(parameters::to_ipc(row)?)
            }
            None => None,
        };
        match &content.parameters {
            Some(row) => self.bound_parameters.rows.insert(opened.id, row.clone()),
            None => self.bound_parameters.rows.invalidate(&opened.id),
        }
        content.serial = self.bound_parameters.next_serial();
        Ok(DoPutPreparedStatementResult {
            prepared_statement_handle: Some(self.seal_prepared(caller, content)?),
        })
    }

    /// Announces the rows of a prepared statement.
    pub(super) async fn prepared_info(
        &self,
        caller: &Caller,
        command: CommandPreparedStatementQuery,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo> {
        let content = self.open_prepared(caller, &command.prepared_statement_handle)?;
        self.statement_info(caller, content, descriptor).await
    }

    /// The schema of a prepared statement's rows, with or without parameters.
    pub(super) async fn prepared_schema(
        &self,
        caller: &Caller,
        command: CommandPreparedStatementQuery,
    ) -> Result<SchemaRef> {
        let content = self.open_prepared(caller, &command.prepared_statement_handle)?;
        self.statement_schema(caller, &content).await
    }

    /// Runs a prepared statement whose handle serves as a ticket.
    pub(super) async fn run_prepared(
        &self,
        caller: &Caller,
        command: CommandPreparedStatementQuery,
    ) -> Result<MessageStream> {
        let content = self.open_prepared(caller, &command.prepared_statement_handle)?;
        let mut run = self.begin(caller, &content, None)?;
        let progress = Arc::clone(run.progress());
        let reads = |statement: &Statement| match statement.kind().reads() {
            true => Ok(()),
            false => Err(Error::FailedPrecondition(
                "a statement that writes is run by a ticket, once: ask for one with GetFlightInfo"
                    .into(),
            )),
        };
        let running = self.run(caller, &content, &progress, reads);
        let messages = run.until_ended(running.boxed()).await?;
        Ok(run.stream(messages))
    }

    /// Forgets what is kept for a handle. A handle that has expired or whose
    /// session was bound anew closes too: clients close what they opened.
    pub(super) fn close_prepared(
        &self,
        request: &ActionClosePreparedStatementRequest,
    ) -> Result<()> {
        let id = self
            .sealer
            .id(Kind::Prepared, &request.prepared_statement_handle)?;
        self.bound_parameters.rows.invalidate(&id);
        Ok(())
    }

    /// The statement of a handle, with what was bound to it, in a transaction that
    /// is open.
    pub(super) fn open_prepared(&self, caller: &Caller, handle: &Bytes) -> Result<Content> {
        let opened = self
            .sealer
            .open(&caller.holder(), Kind::Prepared, caller.now_ms, handle)?;
        let mut content = opened.content;
        caller.note(&content);
        if content.parameters.is_none() {
            content.parameters = self.bound_parameters.rows.get(&opened.id);
        }
        self.succeed(caller, &mut content)?;
        Ok(content)
    }

    fn seal_prepared(&self, caller: &Caller, content: Content) -> Result<Bytes> {
        let expires_ms = self.expiry_ms(caller.now_ms);
        self.sealer
            .seal(&caller.holder(), Kind::Prepared, content, expires_ms)
    }
}
