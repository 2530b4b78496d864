//! What a server does now, as SQL shows and ends it: `jammi.server.queries`,
//! `jammi.server.sessions` and `KILL`.
//!
//! Whoever serves says what there is, and of it what a scope may see; here it becomes
//! rows. In a process that serves nobody there are no such things, and reading these
//! tables is refused rather than answered with nothing.

use std::fmt;
use std::sync::{Arc, LazyLock, Weak};

use arrow::array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{self, KillType};
use parking_lot::RwLock;

use super::Engine;
use super::system::instant;
use crate::error::{Error, Result};
use crate::tenant::{Scope, TenantId};

/// A statement that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningQuery {
    /// What it is called: a random number below 2^63.
    pub id: u64,
    /// The number of its session, if it has one.
    pub session: Option<u64>,
    /// The tenant that it is for.
    pub tenant: Option<TenantId>,
    /// The name of the principal that sent it.
    pub principal: String,
    /// `sql`, `substrait` or `ingest`.
    pub kind: &'static str,
    /// `planning`, `queued`, `running` or `streaming`.
    pub state: &'static str,
    /// Its text without values; the table of an ingest.
    pub statement: String,
    /// The rows that it has answered with.
    pub rows: u64,
    /// Unix time in milliseconds.
    pub began_at_ms: i64,
}

/// A session of which a server keeps something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSession {
    /// What it is called: a number below 2^63 that tells nothing of its id.
    pub id: u64,
    /// The tenant that its next statement is for.
    pub tenant: Option<TenantId>,
    /// The name of the principal whose it is.
    pub principal: String,
    /// Its statements that run.
    pub queries: u64,
    /// Its transactions that are open.
    pub transactions: u64,
    /// Whether it has temporary tables.
    pub has_temporary_tables: bool,
    /// Unix time in milliseconds at which it was last used, if it is bound.
    pub used_at_ms: Option<i64>,
}

/// What a server does now.
pub trait Activity: Send + Sync + 'static {
    /// The statements that `scope` may see.
    fn queries(&self, scope: &Scope) -> Vec<RunningQuery>;

    /// The sessions that `scope` may see.
    fn sessions(&self, scope: &Scope) -> Vec<OpenSession>;
}

/// What the engine's server does, while it has one. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Served(Arc<RwLock<Option<Weak<dyn Activity>>>>);

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").finish_non_exhaustive()
    }
}

impl Served {
    pub fn by(&self, activity: &Arc<dyn Activity>) {
        *self.0.write() = Some(Arc::downgrade(activity));
    }

    fn activity(&self, table: &str) -> Result<Arc<dyn Activity>> {
        let served = self.0.read().as_ref().and_then(Weak::upgrade);
        served.ok_or_else(|| {
            Error::FailedPrecondition(format!(
                "jammi.server.{table} is about a running server, and this process is none: read \
                 it through one, as with jammi --url"
            ))
        })
    }

    /// The rows of `jammi.server.queries` for `scope`.
    pub fn queries(&self, scope: &Scope) -> Result<RecordBatch> {
        let mut rows = self.activity("queries")?.queries(scope);
        rows.sort_by_key(|row| (row.began_at_ms, row.id));
        let columns: Vec<ArrayRef> = vec![
            numbers(rows.iter().map(|row| Some(row.id))),
            numbers(rows.iter().map(|row| row.session)),
            tenants(rows.iter().map(|row| row.tenant)),
            texts(rows.iter().map(|row| row.principal.as_str())),
            texts(rows.iter().map(|row| row.kind)),
            texts(rows.iter().map(|row| row.state)),
            texts(rows.iter().map(|row| row.statement.as_str())),
            numbers(rows.iter().map(|row| Some(row.rows))),
            instants(rows.iter().map(|row| Some(row.began_at_ms))),
        ];
        batch(&QUERIES, columns)
    }

    /// The rows of `jammi.server.sessions` for `scope`.
    pub fn sessions(&self, scope: &Scope) -> Result<RecordBatch> {
        let mut rows = self.activity("sessions")?.sessions(scope);
        rows.sort_by(|a, b| (&a.principal, a.id).cmp(&(&b.principal, b.id)));
        let has_tables = rows.iter().map(|row| Some(row.has_temporary_tables));
        let columns: Vec<ArrayRef> = vec![
            numbers(rows.iter().map(|row| Some(row.id))),
            tenants(rows.iter().map(|row| row.tenant)),
            texts(rows.iter().map(|row| row.principal.as_str())),
            numbers(rows.iter().map(|row| Some(row.queries))),
            numbers(rows.iter().map(|row| Some(row.transactions))),
            Arc::new(BooleanArray::from_iter(has_tables)),
            instants(rows.iter().map(|row| row.used_at_ms)),
        ];
        batch(&SESSIONS, columns)
    }
}

impl Engine {
    /// Lets `jammi.server.queries` and `jammi.server.sessions` show what `activity`
    /// says, for as long as it is there.
    pub fn served_by(&self, activity: &Arc<dyn Activity>) {
        self.0.planner.served().by(activity);
    }
}

static QUERIES: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("session", DataType::Int64, true),
        Field::new("tenant", DataType::Utf8, true),
        Field::new("principal", DataType::Utf8, false),
        Field::new("kind", DataType::Utf8, false),
        Field::new("state", DataType::Utf8, false),
        Field::new("statement", DataType::Utf8, false),
        Field::new("rows", DataType::Int64, false),
        Field::new("began_at", instant(), false),
    ]))
});

static SESSIONS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("tenant", DataType::Utf8, true),
        Field::new("principal", DataType::Utf8, false),
        Field::new("queries", DataType::Int64, false),
        Field::new("transactions", DataType::Int64, false),
        Field::new("has_temporary_tables", DataType::Boolean, false),
        Field::new("used_at", instant(), true),
    ]))
});

/// The tables of `jammi.server` and their columns.
pub(super) fn server_tables() -> [(&'static str, SchemaRef); 2] {
    [
        ("queries", Arc::clone(&QUERIES)),
        ("sessions", Arc::clone(&SESSIONS)),
    ]
}

/// The columns of `jammi.server.queries`.
pub(super) fn queries_schema() -> SchemaRef {
    Arc::clone(&QUERIES)
}

/// The columns of `jammi.server.sessions`.
pub(super) fn sessions_schema() -> SchemaRef {
    Arc::clone(&SESSIONS)
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    RecordBatch::try_new(Arc::clone(schema), columns)
        .map_err(|error| Error::internal("what the server does cannot be shown", error))
}

fn numbers(values: impl Iterator<Item = Option<u64>>) -> ArrayRef {
    let values = values.map(|value| value.map(|value| i64::try_from(value).unwrap_or(i64::MAX)));
    Arc::new(Int64Array::from_iter(values))
}

fn tenants(values: impl Iterator<Item = Option<TenantId>>) -> ArrayRef {
    let values = values.map(|tenant| tenant.map(|tenant| tenant.to_string()));
    Arc::new(StringArray::from_iter(values))
}

fn texts<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn instants(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from_iter(values).with_timezone("UTC"))
}

/// What `KILL` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// `KILL QUERY id`: a statement.
    Query(u64),
    /// `KILL CONNECTION id`: a session.
    Session(u64),
}

impl Kill {
    /// Reads a statement of the kind [`super::StatementKind::Kill`].
    pub(super) fn read(statement: &ast::Statement) -> Result<Self> {
        match statement {
            ast::Statement::Kill { modifier, id } => match modifier {
                Some(KillType::Query) => Ok(Kill::Query(*id)),
                Some(KillType::Connection) => Ok(Kill::Session(*id)),
                Some(KillType::Mutation) | None => Err(Error::InvalidArgument(
                    "what is to be ended is not said: send KILL QUERY with an id of \
                     jammi.server.queries, or KILL CONNECTION with one of jammi.server.sessions"
                        .into(),
                )),
            },
            other => Err(Error::internal(
                "the statement is no KILL",
                other.to_string(),
            )),
        }
    }
}
