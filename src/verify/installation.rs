//! An installation that is looked at: its lanes, what is in them, and a way to ask.

use std::collections::{BTreeSet, HashMap};

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use rusqlite::types::ValueRef;
use tokio::sync::Mutex;

use super::alone::AloneCopies;
use super::conversation::{Answer, Answered, Asker, Conversation, Question};
use crate::backend::{Backend, DatabaseName};
use crate::config::JammiConfig;
use crate::engine::{Engine, NameDefaults, SERVER_TABLES, TableEntry};
use crate::error::{Error, Result};
use crate::tenant::{Lane, Principal, Scope, TenantId};

/// How much text an answer may have: a question is to be asked so that the answer is
/// short.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// An artifact directory, opened to be asked.
pub struct Installation {
    engine: Engine,
    lanes: Vec<Lane>,
    tenants: Vec<TenantId>,
    tables: HashMap<Lane, Vec<TableEntry>>,
    stored: HashMap<Lane, Vec<String>>,
    alone: Mutex<AloneCopies>,
}

impl Installation {
    /// Opens the directory of `config`, also beside a server that runs on it, and looks
    /// at the lanes of `only`, where it names any, and the global one; else at those of
    /// every tenant that has a lane or a session. As for every other command, databases
    /// of an older version are brought up to date, and temporary tables of processes that
    /// have ended are removed.
    ///
    /// # Errors
    /// `NotFound` where the directory holds no installation.
    pub async fn open(config: &JammiConfig, only: &[TenantId]) -> Result<Self> {
        let mut config = config.clone();
        let global = DatabaseName::Lane(Lane::Global).file();
        if !config.artifact_dir.join(global).is_file() {
            return Err(Error::NotFound(format!(
                "{} holds no installation: name another directory",
                config.artifact_dir.display()
            )));
        }
        // Rows come in the same order each time.
        config.engine.target_partitions = Some(1);
        let engine = Engine::open(&config).await?;
        let tenants = tenants(engine.backend(), only).await?;
        let looked_at = tenants
            .iter()
            .filter(|t| only.is_empty() || only.contains(t));
        let tenants_lanes = looked_at.map(|tenant| Lane::Tenant(*tenant));
        let lanes: Vec<Lane> = std::iter::once(Lane::Global).chain(tenants_lanes).collect();
        let mut installation = Installation {
            alone: Mutex::new(AloneCopies::new(engine.backend().clone(), config)),
            engine,
            lanes,
            tenants,
            tables: HashMap::new(),
            stored: HashMap::new(),
        };
        installation.survey().await;
        Ok(installation)
    }

    /// Reads what there is in each lane. What cannot be read is told by the questions
    /// about it.
    async fn survey(&mut self) {
        for lane in self.lanes.clone() {
            let tables = self.engine.tables(&scope(lane)).await;
            let mut tables = tables.unwrap_or_default();
            // What a server does is asked of one.
            tables.retain(|table| (&*table.catalog, &*table.schema) != SERVER_TABLES);
            self.tables.insert(lane, tables);
            let names = Asker::File(lane).asks(
                "SELECT name FROM sqlite_schema AS t WHERE type = 'table' AND EXISTS \
                 (SELECT 1 FROM pragma_table_info(t.name) AS c WHERE c.name = 'tenant_id')",
            );
            let names = self.ask(&names).await.unwrap_or_default();
            let names = names.values().map(str::to_owned).collect();
            self.stored.insert(lane, names);
        }
    }

    /// The lanes that are looked at, the global one first.
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// Every tenant that is known, also of those whose lanes are not looked at.
    pub fn tenants(&self) -> &[TenantId] {
        &self.tenants
    }

    /// The tables that a session sees which is bound to the lane's tenant.
    pub fn tables(&self, lane: Lane) -> &[TableEntry] {
        self.tables.get(&lane).map_or(&[], Vec::as_slice)
    }

    /// The tables of the lane's file whose rows have a `tenant_id`.
    pub fn stored(&self, lane: Lane) -> &[String] {
        self.stored.get(&lane).map_or(&[], Vec::as_slice)
    }

    /// Refuses a text that is not one statement that reads.
    pub fn check_reads(&self, sql: &str) -> Result<()> {
        match self.engine.kind_of(sql)?.reads() {
            true => Ok(()),
            false => Err(Error::InvalidArgument(format!(
                "the statement writes, or is about the session: nothing is written to what is \
                 verified: leave it out ({sql})"
            ))),
        }
    }

    /// Asks everything that is in a conversation.
    pub async fn answers(&self, conversation: Conversation) -> Vec<Answered> {
        let mut answered = Vec::with_capacity(conversation.questions.len());
        for question in conversation.questions {
            let answer = self.ask(&question).await.map_err(|error| error.to_string());
            answered.push(Answered { question, answer });
        }
        answered
    }

    /// Asks one question.
    ///
    /// # Errors
    /// What the statement is answered with; `InvalidArgument` for one that does not only
    /// read, and `ResourceExhausted` for an answer of more than 16 MiB of text.
    pub async fn ask(&self, question: &Question) -> Result<Answer> {
        match question.asker {
            Asker::Session(lane) => ask(&self.engine, lane, &question.sql).await,
            Asker::Alone(lane) => {
                self.check_reads(&question.sql)?;
                let mut copies = self.alone.lock().await;
                ask(copies.of(lane).await?, lane, &question.sql).await
            }
            Asker::File(lane) => ask_file(self.engine.backend(), lane, &question.sql).await,
        }
    }
}

/// The tenants that have a lane or a session, and those of `only`.
async fn tenants(backend: &Backend, only: &[TenantId]) -> Result<Vec<TenantId>> {
    let bound = backend
        .system_read(|connection| {
            let mut tenants =
                connection.prepare("SELECT DISTINCT tenant_id FROM session_bindings")?;
            let tenants = tenants.query_map([], |row| row.get::<_, String>(0))?;
            Ok(tenants.collect::<rusqlite::Result<Vec<_>>>()?)
        })
        .await?;
    let bound = bound.iter().filter_map(|text| text.parse().ok());
    let lanes = backend.tenants().await?;
    let all: BTreeSet<TenantId> = lanes
        .into_iter()
        .chain(bound)
        .chain(only.iter().copied())
        .collect();
    Ok(all.into_iter().collect())
}

fn scope(lane: Lane) -> Scope {
    // Of nobody who runs the installation, and sees what no tenant does.
    let principal = Principal::trusted_network().with_roles([]);
    match lane {
        Lane::Global => Scope::global(principal),
        Lane::Tenant(tenant) => Scope::tenant_bound(principal, tenant),
    }
}

async fn ask(engine: &Engine, lane: Lane, sql: &str) -> Result<Answer> {
    let scope = scope(lane);
    let statement = engine
        .prepare(&scope, &NameDefaults::default(), sql)
        .await?;
    if !statement.kind().reads() {
        return Err(Error::InvalidArgument(
            "the statement writes, or is about the session: nothing is written to what is verified"
                .into(),
        ));
    }
    let mut rows = engine.execute(&scope, &statement, &[]).await?;
    let schema = statement.schema();
    let mut texts = Texts::default();
    while let Some(batch) = rows.try_next().await? {
        texts.add(&batch)?;
    }
    Ok(Answer {
        columns: schema.fields().iter().map(|f| f.name().clone()).collect(),
        rows: texts.rows,
    })
}

/// Rows as text, of up to so many bytes.
#[derive(Default)]
struct Texts {
    rows: Vec<Vec<Option<String>>>,
    bytes: usize,
}

impl Texts {
    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let unshown = |error| Error::internal("a value cannot be shown", error);
        let options = FormatOptions::default();
        let columns = batch.columns().iter();
        let columns = columns
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect::<Result<Vec<_>, _>>()
            .map_err(unshown)?;
        for row in 0..batch.num_rows() {
            let values = columns.iter().zip(batch.columns());
            let values = values
                .map(|(text, column)| match column.is_null(row) {
                    true => Ok(None),
                    false => text.value(row).try_to_string().map(Some),
                })
                .collect::<Result<Vec<_>, _>>()
                .map_err(unshown)?;
            self.push(values)?;
        }
        Ok(())
    }

    fn push(&mut self, row: Vec<Option<String>>) -> Result<()> {
        let values = row.iter().flatten();
        self.bytes += values.map(String::len).sum::<usize>() + size_of::<Option<String>>();
        if self.bytes > ANSWER_BYTES_MAX {
            return Err(Error::ResourceExhausted(format!(
                "the answer has more than {ANSWER_BYTES_MAX} bytes of text: ask for less, as with \
                 an aggregate or LIMIT"
            )));
        }
        self.rows.push(row);
        Ok(())
    }
}

async fn ask_file(backend: &Backend, lane: Lane, sql: &str) -> Result<Answer> {
    let sql = sql.to_owned();
    let answer = backend
        .read(lane, move |transaction| {
            let mut statement = transaction.connection().prepare(&sql)?;
            let names = statement.column_names().into_iter();
            let columns: Vec<String> = names.map(str::to_owned).collect();
            let mut texts = Texts::default();
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let values = (0..columns.len()).map(|at| Ok(value_text(row.get_ref(at)?)));
                let pushed = texts.push(values.collect::<rusqlite::Result<_>>()?);
                if let Err(error) = pushed {
                    return Ok(Err(error));
                }
            }
            let rows = texts.rows;
            Ok(Ok(Answer { columns, rows }))
        })
        .await?;
    // A tenant without a file has no rows.
    answer.unwrap_or_else(|| Ok(Answer::default()))
}

fn value_text(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(value) => Some(value.to_string()),
        ValueRef::Real(value) => Some(value.to_string()),
        ValueRef::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}
