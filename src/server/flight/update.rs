//! What clients put: updates, prepared updates with their rows, and rows in bulk.
//! Each answers with how many rows it wrote.

use arrow_flight::FlightData;
use arrow_flight::sql::{
    CommandPreparedStatementUpdate, CommandStatementIngest, CommandStatementUpdate,
    DoPutUpdateResult, TableExistsOption, TableNotExistOption,
};
use futures::{FutureExt, Stream, TryStreamExt};

use crate::engine::{
    About, Engine, IfExists, IfMissing, IngestTarget, MUTABLE_CATALOG, PUBLIC_SCHEMA, Statement,
    Texts, affected,
};
use crate::error::{Error, Result};
use crate::server::running::Sent;

use super::rows::Put;
use super::ticket::Content;
use super::{Caller, FlightServer};

impl FlightServer {
    /// Runs a statement that writes.
    pub(super) async fn update(
        &self,
        caller: &Caller,
        command: CommandStatementUpdate,
    ) -> Result<DoPutUpdateResult> {
        let content = self.content(caller, command.query, command.transaction_id.as_ref())?;
        self.update_of(caller, &content).await
    }

    /// Runs what `content` says, which writes.
    pub(super) async fn update_of(
        &self,
        caller: &Caller,
        content: &Content,
    ) -> Result<DoPutUpdateResult> {
        let mut run = self.begin(caller, content, None)?;
        let engine = self.engine.following(run.progress());
        let work = self.update_once(&engine, caller, content);
        run.until_ended(work.boxed()).await
    }

    /// Runs a prepared statement that writes, for each row of `messages`.
    pub(super) async fn update_prepared<S>(
        &self,
        caller: &Caller,
        command: CommandPreparedStatementUpdate,
        messages: S,
    ) -> Result<DoPutUpdateResult>
    where
        S: Stream<Item = Result<FlightData>> + Send + 'static,
    {
        let content = self.open_prepared(caller, &command.prepared_statement_handle)?;
        let mut run = self.begin(caller, &content, None)?;
        let engine = self.engine.following(run.progress());
        let work = self.update_rows(&engine, caller, content, messages);
        run.until_ended(work.boxed()).await
    }

    /// Runs the prepared statement of `content` for each row of `messages`.
    async fn update_rows<S>(
        &self,
        engine: &Engine,
        caller: &Caller,
        content: Content,
        messages: S,
    ) -> Result<DoPutUpdateResult>
    where
        S: Stream<Item = Result<FlightData>> + Send + 'static,
    {
        let statement = self.plan_or_control(caller, &content).await?;
        refuse_query(&statement)?;
        if statement.assignment().is_some() {
            let content = self.with_row(content, messages).await?;
            return self.update_once(engine, caller, &content).await;
        }
        let put = Put::read(messages, self.message_bytes_max, self.put_timeout).await?;
        let columns = put
            .schema
            .as_ref()
            .map_or(0, |schema| schema.fields().len());
        if columns == 0 {
            // Without values, or with those of a row that was bound before.
            return self.update_once(engine, caller, &content).await;
        }
        let Some(open) = self.transaction_of(caller, &content)? else {
            let count = engine
                .execute_rows(&caller.scope, &statement, put.rows, Texts::Parsed, None)
                .await?;
            self.note_temporary(caller, statement.makes_temporary());
            return Ok(counted(count));
        };
        let mut running = self.transactions.enter(&open).await?;
        let transaction = running.transaction().clone();
        let statement = self
            .prepare_within(caller, &content, Some(&transaction))
            .await?;
        running.writes();
        let within = Some(&transaction);
        let count = engine
            .execute_rows(&caller.scope, &statement, put.rows, Texts::Parsed, within)
            .await;
        running.finish();
        let count = count?;
        self.note_temporary(caller, statement.makes_temporary());
        Ok(counted(count))
    }

    async fn update_once(
        &self,
        engine: &Engine,
        caller: &Caller,
        content: &Content,
    ) -> Result<DoPutUpdateResult> {
        let answer = self.answer(engine, caller, content, refuse_query).await?;
        let batches: Vec<_> = answer.rows.try_collect().await?;
        Ok(counted(affected(&batches)))
    }

    /// Adds the rows of `messages` to a table.
    pub(super) async fn ingest<S>(
        &self,
        caller: &Caller,
        command: CommandStatementIngest,
        messages: S,
    ) -> Result<DoPutUpdateResult>
    where
        S: Stream<Item = Result<FlightData>> + Send + 'static,
    {
        if let Some(entry) = caller.admitted.entry() {
            entry.is("an ingest of rows".to_owned());
            entry.reads(&[About::Table(&command.table).name()], &caller.scope);
        }
        let target = target(&command)?;
        let sent = Sent::Ingest(&target.table);
        let mut run = self
            .runs()
            .start(&caller.admitted, &caller.scope, sent, None)?;
        let engine = self.engine.following(run.progress());
        let work = self.ingest_rows(&engine, caller, &command, &target, messages);
        run.until_ended(work.boxed()).await
    }

    async fn ingest_rows<S>(
        &self,
        engine: &Engine,
        caller: &Caller,
        command: &CommandStatementIngest,
        target: &IngestTarget,
        messages: S,
    ) -> Result<DoPutUpdateResult>
    where
        S: Stream<Item = Result<FlightData>> + Send + 'static,
    {
        let party = caller.party();
        let open = match self.named_transaction(caller, command.transaction_id.as_ref())? {
            Some(serial) => Some(self.transactions.named(&party, serial)?),
            // ADBC names none, also where it has begun one.
            None => self.transactions.of_connection(&party)?,
        };
        let put = Put::read(messages, self.message_bytes_max, self.put_timeout).await?;
        let schema = put.schema.ok_or_else(|| {
            Error::InvalidArgument("the stream has no schema: send one before the rows".into())
        })?;
        let Some(open) = open else {
            let count = engine
                .ingest(&caller.scope, target, &schema, put.rows, None)
                .await?;
            self.note_temporary(caller, target.temporary);
            return Ok(counted(count));
        };
        let mut running = self.transactions.enter(&open).await?;
        let transaction = running.transaction().clone();
        running.writes();
        let count = engine
            .ingest(&caller.scope, target, &schema, put.rows, Some(&transaction))
            .await;
        running.finish();
        let count = count?;
        self.note_temporary(caller, target.temporary);
        Ok(counted(count))
    }
}

fn refuse_query(statement: &Statement) -> Result<()> {
    if statement.kind().reads() {
        return Err(Error::InvalidArgument(
            "the statement is a query, which an update is not: run it with GetFlightInfo and \
             DoGet, which is execute() of a driver"
                .into(),
        ));
    }
    Ok(())
}

fn counted(count: u64) -> DoPutUpdateResult {
    DoPutUpdateResult {
        record_count: i64::try_from(count).unwrap_or(i64::MAX),
    }
}

/// Where a command's rows go.
fn target(command: &CommandStatementIngest) -> Result<IngestTarget> {
    for (what, given, only) in [
        ("catalog", &command.catalog, MUTABLE_CATALOG),
        ("schema", &command.schema, PUBLIC_SCHEMA),
    ] {
        match given.as_deref() {
            None | Some("") => {}
            Some(name) if name == only => {}
            Some(name) => {
                return Err(Error::InvalidArgument(format!(
                    "rows are ingested into {MUTABLE_CATALOG}.{PUBLIC_SCHEMA}, and the {what} is \
                     {name:?}: leave catalog and schema unset"
                )));
            }
        }
    }
    if let Some(option) = command.options.keys().min() {
        return Err(Error::InvalidArgument(format!(
            "ingest option {option:?} is not known: leave it out"
        )));
    }
    let unspecified = |what: &str| {
        Error::InvalidArgument(format!(
            "the ingest does not say what to do where the table {what}: say it in \
             table_definition_options"
        ))
    };
    let options = command.table_definition_options.unwrap_or_default();
    let if_missing = match options.if_not_exist() {
        TableNotExistOption::Create => IfMissing::Create,
        TableNotExistOption::Fail => IfMissing::Fail,
        TableNotExistOption::Unspecified => return Err(unspecified("does not exist")),
    };
    let if_exists = match options.if_exists() {
        TableExistsOption::Append => IfExists::Append,
        TableExistsOption::Replace => IfExists::Replace,
        TableExistsOption::Fail => IfExists::Fail,
        TableExistsOption::Unspecified => return Err(unspecified("exists")),
    };
    Ok(IngestTarget {
        table: command.table.clone(),
        temporary: command.temporary,
        if_missing,
        if_exists,
    })
}
