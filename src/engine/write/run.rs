//! Brings the rows of a write to the lane.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use datafusion::common::ScalarValue;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use futures::StreamExt;

use super::{Effect, MERGE_DELETE, MERGE_INSERT, MERGE_UPDATE, RowChecks, Rows, Write, Written};
use crate::backend::{BackendError, Transaction};
use crate::catalog::{Relation, TableDefinition};
use crate::engine::fault::execution;
use crate::engine::transaction::SessionTransaction;
use crate::engine::{Engine, RecordStream};
use crate::error::{Error, Result};
use crate::table::{StatementReads, TableWriter};
use crate::tenant::{Lane, Scope};

/// New rows that are held before the lane's turn to write is taken for them: a
/// statement with fewer takes it once, and shares its commit with others.
const HELD_BYTES_MAX: usize = 8 << 20;

/// The rows of a write, to be made on a state of the lanes.
pub(in crate::engine) struct Query<'a> {
    pub engine: &'a Engine,
    pub scope: &'a Scope,
    pub rows: Option<&'a Rows>,
    pub parameters: &'a [ScalarValue],
}

impl Query<'_> {
    /// Starts the query, if there is one.
    async fn start(&self, reads: StatementReads) -> Result<Option<RecordStream>> {
        match self.rows {
            None => Ok(None),
            Some(Rows::Direct(_)) => Err(no_query()),
            Some(Rows::Query(reading)) => self
                .engine
                .run_reading(reading, self.parameters, reads)
                .await
                .map(Some),
        }
    }

    /// Gives the rows to `ingest`.
    async fn insert(&self, ingest: &mut Ingest, reads: StatementReads) -> Result<()> {
        if let Some(Rows::Direct(rows)) = self.rows {
            let (columns, rows) = rows.columns(self.parameters)?;
            return ingest.push(columns, rows).await;
        }
        let Some(mut rows) = self.start(reads).await? else {
            return Err(no_query());
        };
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            ingest
                .push(batch.columns().to_vec(), batch.num_rows())
                .await?;
        }
        Ok(())
    }
}

/// Runs a write.
pub(in crate::engine) async fn run(
    query: &Query<'_>,
    write: &Arc<Write>,
    checks: &Arc<RowChecks>,
    within: Option<&SessionTransaction>,
) -> Result<Written> {
    query.scope.require_writing()?;
    let backend = query.engine.backend();
    let is_of_lane = [Lane::Global, query.scope.writable()].contains(&write.relation.lane);
    if !is_of_lane || !write.relation.is_seen_by(query.scope) {
        return Err(Error::internal(
            "the statement was refused: it writes a table of another lane or session than the \
             caller's",
            format!("table {} of {}", write.relation.name, write.relation.lane),
        ));
    }
    if write.effect == Effect::Insert {
        let reads = match within {
            Some(transaction) => transaction.reads(),
            None => StatementReads::new(backend, query.scope),
        };
        let mut ingest = Ingest::new(query.engine, query.scope, write, checks, within)?;
        return match query.insert(&mut ingest, reads).await {
            Ok(()) => ingest.finish().await,
            Err(error) => {
                ingest.abandon().await?;
                Err(error)
            }
        };
    }
    if let Some(transaction) = within {
        return transaction
            .statement(change(query, write, checks, transaction))
            .await;
    }
    let transaction = SessionTransaction::new(backend, query.scope);
    match change(query, write, checks, &transaction).await {
        Ok(written) => {
            query.engine.commit(&transaction).await?;
            Ok(written)
        }
        Err(error) => {
            transaction.rollback().await?;
            Err(error)
        }
    }
}

/// Everything but INSERT: nothing else writes the lane between the query and the
/// commit.
async fn change(
    query: &Query<'_>,
    write: &Arc<Write>,
    checks: &Arc<RowChecks>,
    transaction: &SessionTransaction,
) -> Result<Written> {
    transaction.own().lock().await?;
    let mut rows = Changed::new(query.engine, write);
    if let Some(mut made) = query.start(transaction.reads()).await? {
        while let Some(batch) = made.next().await {
            rows.push(checks, &batch?)?;
        }
    }
    let relation = Arc::clone(&write.relation);
    let effect = write.effect;
    let returned = std::mem::take(&mut rows.returned);
    let count = transaction
        .own()
        .write(move |lane| {
            let definition = definition_of(&relation)?;
            let mut writer = TableWriter::open(lane, &relation, definition)?;
            if effect == Effect::Truncate {
                writer.truncate()?;
            } else {
                rows.write(&mut writer)?;
            }
            writer.finish()
        })
        .await?;
    Ok(Written { count, returned })
}

fn no_query() -> Error {
    Error::internal("the statement cannot be run", "a write without its query")
}

fn definition_of(relation: &Relation) -> Result<&TableDefinition, BackendError> {
    relation.table().ok_or_else(|| {
        BackendError::refused(Error::internal(
            "the statement is not about a table",
            relation.name.clone(),
        ))
    })
}

/// The rows that a statement changes, within the engine's memory.
struct Changed {
    write: Arc<Write>,
    seen: HashSet<i64>,
    deleted: Vec<i64>,
    updated: Vec<i64>,
    updates: Vec<RecordBatch>,
    inserts: Vec<RecordBatch>,
    returned: Vec<RecordBatch>,
    memory: MemoryReservation,
}

impl Changed {
    fn new(engine: &Engine, write: &Arc<Write>) -> Self {
        let pool = &engine.0.planner.runtime().memory_pool;
        Changed {
            write: Arc::clone(write),
            seen: HashSet::new(),
            deleted: Vec::new(),
            updated: Vec::new(),
            updates: Vec::new(),
            inserts: Vec::new(),
            returned: Vec::new(),
            memory: MemoryConsumer::new("rows to be written").register(pool),
        }
    }

    /// Takes rows as the effect has them.
    fn push(&mut self, checks: &RowChecks, batch: &RecordBatch) -> Result<()> {
        const BYTES_A_ROW: usize = 40;
        let bytes = batch.get_array_memory_size() + batch.num_rows() * BYTES_A_ROW;
        self.memory.try_grow(bytes).map_err(execution)?;
        match self.write.effect {
            Effect::Update => self.push_kind(MERGE_UPDATE, checks, batch, 0),
            Effect::Delete => self.push_kind(MERGE_DELETE, checks, batch, 0),
            Effect::Merge => {
                let actions = batch.column(0).as_primitive::<Int64Type>().clone();
                for kind in [MERGE_UPDATE, MERGE_DELETE, MERGE_INSERT] {
                    let of_kind = actions.iter().map(|action| Some(action == Some(kind)));
                    let rows = filtered(batch, &of_kind.collect())?;
                    if rows.num_rows() > 0 {
                        self.push_kind(kind, checks, &rows, 1)?;
                    }
                }
                Ok(())
            }
            Effect::Insert | Effect::Truncate => Err(no_query()),
        }
    }

    /// Takes rows to which one thing happens. The row number is at `at`, and the
    /// table's columns follow where they are needed.
    fn push_kind(
        &mut self,
        kind: i64,
        checks: &RowChecks,
        batch: &RecordBatch,
        at: usize,
    ) -> Result<()> {
        let rows = batch.num_rows();
        let columns = || batch.columns()[at + 1..].to_vec();
        if kind == MERGE_INSERT {
            let added = checks.check(columns(), rows)?;
            self.answer(&added)?;
            self.inserts.push(added);
            return Ok(());
        }
        let numbers = batch.column(at).as_primitive::<Int64Type>();
        let first_time: BooleanArray = numbers
            .values()
            .iter()
            .map(|number| Some(self.seen.insert(*number)))
            .collect();
        let again = first_time.false_count() > 0;
        if again && !(kind == MERGE_DELETE && self.write.effect == Effect::Delete) {
            return Err(Error::InvalidArgument(format!(
                "a row of table `{}` is matched by more than one row of the source: which one \
                 decides over it is not said, so match it by one",
                self.write.relation.name
            )));
        }
        if kind == MERGE_UPDATE {
            self.updated.extend(numbers.values());
            let changed = checks.check(columns(), rows)?;
            self.answer(&changed)?;
            self.updates.push(changed);
            return Ok(());
        }
        let once = filtered(batch, &first_time)?;
        self.deleted
            .extend(once.column(at).as_primitive::<Int64Type>().values());
        if self.write.returning.is_some() {
            let definition = self.write.definition()?;
            let gone = RecordBatch::try_new(definition.schema(), once.columns()[at + 1..].to_vec())
                .map_err(|error| Error::internal("the rows cannot be returned", error))?;
            self.answer(&gone)?;
        }
        Ok(())
    }

    fn answer(&mut self, rows: &RecordBatch) -> Result<()> {
        if let Some(returning) = &self.write.returning {
            let answer = returning.of(rows)?;
            self.memory
                .try_grow(answer.get_array_memory_size())
                .map_err(execution)?;
            self.returned.push(answer);
        }
        Ok(())
    }

    /// Writes the rows: every one that goes before any that comes.
    fn write(&self, writer: &mut TableWriter<'_>) -> Result<(), BackendError> {
        writer.delete(&self.deleted)?;
        writer.update(&self.updated, &self.updates)?;
        for batch in &self.inserts {
            writer.insert(batch)?;
        }
        Ok(())
    }
}

fn filtered(batch: &RecordBatch, keep: &BooleanArray) -> Result<RecordBatch> {
    filter_record_batch(batch, keep)
        .map_err(|error| Error::internal("the rows to be written cannot be read", error))
}

/// Adds rows to a table as they come, in bounded memory: all of them or none.
pub(in crate::engine) struct Ingest {
    engine: Engine,
    scope: Scope,
    write: Arc<Write>,
    checks: Arc<RowChecks>,
    held: Vec<RecordBatch>,
    held_bytes: usize,
    written: Written,
    /// The rows that the statement has written, where ON CONFLICT has to know.
    numbers: HashSet<i64>,
    memory: MemoryReservation,
    /// Once rows do not fit into what is held: the transaction that takes them.
    open: Option<SessionTransaction>,
    /// Whether that is the caller's, which goes on after the statement.
    is_callers: bool,
    /// Whether a savepoint of the caller's transaction is set.
    began: bool,
}

/// What a part of an INSERT did.
struct Part {
    count: u64,
    numbers: HashSet<i64>,
    returned: Vec<RecordBatch>,
}

impl Ingest {
    /// Rows for the table of `write`, in the caller's transaction or in one of
    /// their own.
    pub fn new(
        engine: &Engine,
        scope: &Scope,
        write: &Arc<Write>,
        checks: &Arc<RowChecks>,
        within: Option<&SessionTransaction>,
    ) -> Result<Self> {
        write.definition()?;
        let pool = &engine.0.planner.runtime().memory_pool;
        Ok(Ingest {
            engine: engine.clone(),
            scope: scope.clone(),
            write: Arc::clone(write),
            checks: Arc::clone(checks),
            held: Vec::new(),
            held_bytes: 0,
            written: Written::default(),
            numbers: HashSet::new(),
            memory: MemoryConsumer::new("rows to be returned").register(pool),
            open: within.cloned(),
            is_callers: within.is_some(),
            began: false,
        })
    }

    /// Takes rows: the table's columns in order and in its types.
    pub async fn push(&mut self, columns: Vec<ArrayRef>, rows: usize) -> Result<()> {
        let batch = self.checks.check(columns, rows)?;
        self.held_bytes += batch.get_array_memory_size();
        self.held.push(batch);
        if self.held_bytes > HELD_BYTES_MAX {
            self.flush().await?;
        }
        Ok(())
    }

    /// Writes what is held into the open transaction.
    async fn flush(&mut self) -> Result<()> {
        let transaction = match &self.open {
            Some(transaction) => transaction.clone(),
            None => {
                let transaction = SessionTransaction::new(self.engine.backend(), &self.scope);
                self.open = Some(transaction.clone());
                transaction
            }
        };
        if self.is_callers && !self.began {
            transaction.begin_statement().await?;
            self.began = true;
        }
        let part = transaction.own().write(self.part()).await?;
        self.take(part)
    }

    /// What writes the rows that are held.
    fn part(
        &mut self,
    ) -> impl FnOnce(&Transaction<'_>) -> Result<Part, BackendError> + Send + 'static {
        let batches = std::mem::take(&mut self.held);
        self.held_bytes = 0;
        let (write, checks) = (Arc::clone(&self.write), Arc::clone(&self.checks));
        let mut numbers = std::mem::take(&mut self.numbers);
        move |lane| {
            let definition = definition_of(&write.relation)?;
            let mut writer = TableWriter::open(lane, &write.relation, definition)?;
            let mut returned = Vec::new();
            for batch in batches {
                let added = match &write.conflict {
                    Some(conflict) => {
                        conflict.insert(&mut writer, &batch, &checks, &mut numbers)?
                    }
                    None => {
                        writer.insert(&batch)?;
                        vec![batch]
                    }
                };
                if let Some(returning) = &write.returning {
                    for rows in added.iter().filter(|rows| rows.num_rows() > 0) {
                        returned.push(returning.of(rows).map_err(BackendError::refused)?);
                    }
                }
            }
            Ok(Part {
                count: writer.finish()?,
                numbers,
                returned,
            })
        }
    }

    fn take(&mut self, part: Part) -> Result<()> {
        self.written.count += part.count;
        self.numbers = part.numbers;
        let bytes = part.returned.iter().map(RecordBatch::get_array_memory_size);
        self.memory.try_grow(bytes.sum()).map_err(execution)?;
        self.written.returned.extend(part.returned);
        Ok(())
    }

    /// Writes the rest and commits, unless the caller is to.
    pub async fn finish(mut self) -> Result<Written> {
        if self.open.is_none() {
            let lane = self.scope.writable();
            let work = self.part();
            let engine = self.engine.clone();
            let work = move |lane: &Transaction<'_>| {
                engine.commits().map_err(BackendError::refused)?;
                work(lane)
            };
            let part = self.engine.backend().write(lane, work).await?;
            self.take(part)?;
            return Ok(self.written);
        }
        if let Err(error) = self.flush().await {
            self.abandon().await?;
            return Err(error);
        }
        if let Some(transaction) = self.open.take() {
            if self.is_callers {
                transaction.end_statement().await?;
            } else {
                self.engine.commit(&transaction).await?;
            }
        }
        Ok(self.written)
    }

    /// Undoes what was written.
    pub async fn abandon(mut self) -> Result<()> {
        match self.open.take() {
            Some(transaction) if self.is_callers => {
                if self.began {
                    transaction.undo_statement().await?;
                }
                Ok(())
            }
            Some(transaction) => transaction.rollback().await,
            None => Ok(()),
        }
    }
}
