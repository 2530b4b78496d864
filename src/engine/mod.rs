//! The only user of DataFusion's planner: from a statement's text and a scope to
//! record batches.
//!
//! ```text
//! text -> statement  one statement of an allowed kind, `?` numbered; a plan of
//!                    `substrait` instead of a text goes the same way
//!      -> names      tables that the scope sees, each bound to the scope
//!      -> rule       TenantScopeAnalyzerRule: the lane predicate on every scan
//!      -> optimize   DataFusion's own rules
//!      -> guard      each scan yields rows of the scope's lanes alone
//!      -> verify     every leaf of the physical plan is under a guard for this scope
//!      -> stream     record batches; dropping the stream stops the work
//! ```
//!
//! Architecture invariant: DataFusion's session holds no table. What a
//! statement sees is resolved anew from the catalog for its scope, so there is
//! no shared namespace that two tenants could meet in.

mod activity;
mod arrival;
mod bound;
mod coercion;
mod context;
mod control;
pub(crate) mod cores;
mod define;
mod events;
mod extremes;
mod fault;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod guard;
mod held;
mod ingest;
mod interrupt;
mod limits;
mod lossless;
mod masked;
mod names;
mod numbers;
mod params;
mod progress;
mod queue;
mod reading;
mod recorded;
mod rule;
mod setting;
mod shape;
mod shares;
mod short;
mod statement;
mod stored;
mod stream;
mod substrait;
mod sweep;
mod system;
mod temporary;
#[cfg(test)]
mod tests;
mod total;
mod transaction;
mod turns;
mod types;
mod uuid;
mod values;
mod verify;
mod windows;
mod workers;
mod write;
mod yielding;

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::Statement as ParsedStatement;
use moka::sync::Cache;
use tokio::runtime::Handle;

use crate::audit::Audit;
use crate::backend::Backend;
use crate::catalog::{
    Catalog, CatalogSnapshot, NewSource, SnapshotVersion, Source, check_source_name, owner_text,
    system_clock,
};
use crate::config::JammiConfig;
use crate::error::{Error, Result};
use crate::source::{
    self, FileChecks, LaneViews, LocationPolicy, RowGroupCache, SourceTable, Stores,
};
use crate::table::{ChunkCache, StatementReads};
use crate::tenancy::Tenants;
use crate::tenant::{Lane, Scope};

pub use crate::source::{RegisterSource, Registered, TenantColumnChoice};
pub use activity::{Activity, Kill, OpenSession, RunningQuery};
pub use arrival::ParameterRows;
pub use bound::{affected, affected_by};
pub use control::TransactionControl;
pub use define::NewTable;
pub use guard::{GuardExec, ScopedTable};
pub use ingest::{IfExists, IfMissing, IngestTarget};
pub use lossless::{Texts, converted};
pub use masked::masked;
pub use names::{LOCAL_TEMPORARY, MUTABLE_CATALOG, NameDefaults, PUBLIC_SCHEMA, TableEntry};
pub use progress::{Progress, Stage};
pub use recorded::{About, Recorded};
pub use rule::TenantScopeAnalyzerRule;
pub use setting::{Assignment, TENANT_SETTING, first_word, may_assign};
pub use statement::{Statement, StatementKind};
pub use stream::RecordStream;
pub use substrait::substrait_versions;
pub use system::SERVER_TABLES;
pub use temporary::restore;
pub use transaction::SessionTransaction;
pub use types::type_name;

use context::Planner;
use queue::Queue;
use reading::{Reading, reads_keys};
use shape::Lifted;
use statement::Action;
use substrait::SentPlan;
use sweep::Sweeper;
use temporary::Temporary;

/// The engine: lanes, catalog, sources and the planner over them. Clones share
/// everything but the statement that they are followed by.
#[derive(Clone)]
pub struct Engine(Arc<Parts>, Option<Arc<Progress>>);

struct Parts {
    backend: Backend,
    catalog: Catalog,
    tenants: Tenants,
    audit: Audit,
    sources: SourceReader,
    chunks: ChunkCache,
    temporary: Temporary,
    planner: Planner,
    sweeper: Sweeper,
    statements: Cache<StatementKey, Arc<Statement>>,
    /// What is left of statements without their values; nothing where their values
    /// cannot be bound to it.
    shapes: Cache<ShapeKey, Option<Arc<Statement>>>,
    statement_bytes_max: usize,
}

impl Parts {
    fn origins(&self) -> names::Origins<'_> {
        names::Origins {
            catalog: &self.catalog,
            sources: &self.sources,
            chunks: &self.chunks,
            audit: &self.audit,
            tenants: &self.tenants,
        }
    }
}

/// What makes one prepared statement another: everything that its plan depends
/// on. A change of the catalog makes a new key; the old entry ages out.
#[derive(Clone, PartialEq, Eq, Hash)]
struct StatementKey {
    scope: Scope,
    names: NameDefaults,
    version: SnapshotVersion,
    sent: Sent,
}

/// A statement as it is sent.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Sent {
    Sql(Box<str>),
    Plan(SentPlan),
}

/// As [`StatementKey`], of every text that differs in values alone.
#[derive(PartialEq, Eq, Hash)]
struct ShapeKey {
    scope: Scope,
    names: NameDefaults,
    version: SnapshotVersion,
    shape: ParsedStatement,
}

/// What reading a source needs, apart from the source.
#[derive(Clone)]
struct SourceReader {
    stores: Stores,
    policy: Arc<LocationPolicy>,
    checks: FileChecks,
    views: LaneViews,
    row_groups: RowGroupCache,
}

impl SourceReader {
    fn table(&self, source: &Arc<Source>) -> SourceTable {
        SourceTable::new(
            Arc::clone(source),
            self.stores.clone(),
            Arc::clone(&self.policy),
            self.checks.clone(),
            self.views.clone(),
            self.row_groups.clone(),
        )
    }
}

impl Engine {
    /// Opens the artifact directory, creating it where it is not there, and begins to
    /// remove the temporary tables that processes left there which have ended.
    pub async fn open(config: &JammiConfig) -> Result<Engine> {
        let backend = Backend::open(&config.artifact_dir, &config.lanes).await?;
        let catalog = Catalog::new(backend.clone());
        let tenants = Tenants::new(
            backend.clone(),
            catalog.clone(),
            &config.tenancy,
            system_clock,
        );
        let now_us = || chrono::Utc::now().timestamp_micros();
        let audit = Audit::new(backend.artifact_dir(), &config.audit, now_us, masked);
        let planner = Planner::new(&config.engine)?;
        let sources = SourceReader {
            stores: Stores::new(planner.runtime(), config.sources.clone(), Handle::current()),
            policy: Arc::new(LocationPolicy::new(
                config.sources.roots.as_deref(),
                &config.artifact_dir,
            )?),
            checks: FileChecks::default(),
            views: LaneViews::default(),
            row_groups: RowGroupCache::new(config.engine.source_cache_bytes),
        };
        let parts = Arc::new(Parts {
            sweeper: Sweeper::new(&backend),
            backend,
            catalog,
            tenants,
            audit,
            sources,
            chunks: ChunkCache::new(config.engine.table_cache_bytes),
            temporary: Temporary::new(&config.sessions),
            planner,
            statements: Cache::new(config.engine.plan_cache_entries),
            shapes: Cache::new(config.engine.plan_cache_entries),
            statement_bytes_max: config.engine.statement_bytes_max,
        });
        let engine = Engine(parts, None);
        engine.remove_leftovers().await?;
        Ok(engine)
    }

    /// The sources and models of each lane.
    pub fn catalog(&self) -> &Catalog {
        &self.0.catalog
    }

    /// Who may be used, and what for.
    pub fn tenants(&self) -> &Tenants {
        &self.0.tenants
    }

    /// Writes down what was counted of tenants, where nobody does it from time to
    /// time.
    pub async fn end_counting(&self) {
        if let Err(error) = self.tenants().usage().flush().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what tenants used was not written down"
            );
        }
    }

    /// Lets go of all that is kept in memory to be found sooner: what was read of a
    /// tenant who is no more is among it.
    pub fn forget_cached(&self) {
        let parts = &self.0;
        parts.statements.invalidate_all();
        parts.shapes.invalidate_all();
        parts.chunks.forget();
        parts.sources.views.forget();
        parts.sources.row_groups.forget();
        parts.catalog.forget();
    }

    /// The audit trail.
    pub fn audit(&self) -> &Audit {
        &self.0.audit
    }

    /// The lanes.
    pub fn backend(&self) -> &Backend {
        &self.0.backend
    }

    /// Reads, checks and plans a statement for `scope`. The same text under the
    /// same scope, name defaults and catalog is planned once.
    ///
    /// # Errors
    /// `InvalidArgument` for text that does not parse or plan, `NotFound` for a
    /// table that the scope does not see, `Unimplemented` for a statement that
    /// is not served.
    pub async fn prepare(
        &self,
        scope: &Scope,
        names: &NameDefaults,
        sql: &str,
    ) -> Result<Arc<Statement>> {
        self.prepare_within(scope, names, sql, None).await
    }

    /// As [`Engine::prepare`], in a transaction: a statement sees what the
    /// transaction has defined.
    pub async fn prepare_within(
        &self,
        scope: &Scope,
        names: &NameDefaults,
        sql: &str,
        within: Option<&SessionTransaction>,
    ) -> Result<Arc<Statement>> {
        self.check_bytes(sql.len(), "send less text")?;
        self.prepare_sent(scope, names, Sent::Sql(sql.into()), within)
            .await
    }

    /// As [`Engine::prepare_within`], of a query that is a message `substrait.Plan`.
    /// `version` is the release of Substrait that its sender says it is of, such as
    /// `0.85.0`; it may be empty where the plan itself says it.
    ///
    /// # Errors
    /// As [`Engine::prepare`]; `Unimplemented` in an engine that is built without the
    /// feature `substrait`.
    pub async fn prepare_plan_within(
        &self,
        scope: &Scope,
        names: &NameDefaults,
        plan: &[u8],
        version: &str,
        within: Option<&SessionTransaction>,
    ) -> Result<Arc<Statement>> {
        let bytes = plan.len().saturating_add(version.len());
        self.check_bytes(bytes, "send a smaller plan")?;
        let sent = Sent::Plan(SentPlan {
            bytes: plan.into(),
            version: version.into(),
        });
        self.prepare_sent(scope, names, sent, within).await
    }

    fn check_bytes(&self, bytes: usize, mend: &str) -> Result<()> {
        let bytes_max = self.0.statement_bytes_max;
        if bytes <= bytes_max {
            return Ok(());
        }
        Err(Error::InvalidArgument(format!(
            "the statement has {bytes} bytes and the setting engine.statement_bytes_max allows \
             {bytes_max}: {mend}"
        )))
    }

    async fn prepare_sent(
        &self,
        scope: &Scope,
        names: &NameDefaults,
        sent: Sent,
        within: Option<&SessionTransaction>,
    ) -> Result<Arc<Statement>> {
        let parts = &self.0;
        let snapshot = match within {
            Some(transaction) if transaction.has_defined() => {
                self.in_scope(scope, transaction)?;
                let own = transaction.own();
                parts.catalog.snapshot_within(scope, own).await?
            }
            _ => {
                let reading = parts.catalog.snapshot(scope);
                short::run_here(parts.planner.places(), reading).await?
            }
        };
        if let own @ Lane::Tenant(_) = scope.writable() {
            let shared = snapshot.without_session().version();
            parts.sweeper.look_after(own, shared);
        }
        let key = StatementKey {
            // A plan that nothing of a session is in serves every session.
            scope: match snapshot.has_temporary() {
                true => scope.clone(),
                false => scope.without_session(),
            },
            names: names.clone(),
            version: snapshot.version(),
            sent,
        };
        let statement = match parts.statements.get(&key) {
            Some(statement) => statement,
            None => self.plan(scope, key, snapshot).await?,
        };
        if statement.makes_temporary() {
            temporary::session_of(scope)?;
        }
        if scope.is_bypass() && !statement.kind().reads() {
            scope.require_writing()?;
        }
        Ok(statement)
    }

    /// Whether a text that parses binds the session and does nothing else.
    pub fn only_binds(&self, sql: &str) -> bool {
        let limits = self.0.planner.limits();
        sql.len() <= short::TEXT_BYTES_MAX
            && may_assign(sql)
            && statement::read(sql, limits).is_ok_and(|read| statement::only_binds(&read))
    }

    /// The kind of the statement that a text is, whatever its names mean.
    ///
    /// # Errors
    /// `InvalidArgument` for text that does not parse, `Unimplemented` for a
    /// statement that is not served.
    pub fn kind_of(&self, sql: &str) -> Result<StatementKind> {
        statement::kind_of(&statement::read(sql, self.0.planner.limits())?)
    }

    async fn plan(
        &self,
        scope: &Scope,
        key: StatementKey,
        snapshot: Arc<CatalogSnapshot>,
    ) -> Result<Arc<Statement>> {
        let planner = &self.0.planner;
        let parsed = match &key.sent {
            Sent::Sql(sql) if sql.len() <= short::TEXT_BYTES_MAX => {
                Some(statement::read(sql, planner.limits())?)
            }
            Sent::Sql(_) | Sent::Plan(_) => None,
        };
        let parsed = match parsed {
            Some(parsed) if short::is_short_to_plan(&parsed, &snapshot) => {
                let planning = async { self.plan_short(key, parsed, &snapshot) };
                return short::run_here(planner.places(), planning).await;
            }
            longer => longer,
        };
        // Planning may take long too: a text of a few lines makes a large plan.
        let engine = self.clone();
        let planning = async move {
            let statement = match (&key.sent, parsed) {
                (Sent::Plan(plan), _) => engine.plan_sent(&key, plan, &snapshot)?,
                (Sent::Sql(_), Some(parsed)) => engine.plan_new(&key, parsed, &snapshot)?,
                (Sent::Sql(sql), None) => {
                    let parsed = statement::read(sql, engine.0.planner.limits())?;
                    engine.plan_new(&key, parsed, &snapshot)?
                }
            };
            Ok(engine.keep(key, statement))
        };
        planner.spawn_planning(scope, planning).await
    }

    /// As [`Engine::plan_parsed`], of a statement that may differ from an earlier one
    /// in values alone.
    fn plan_short(
        &self,
        key: StatementKey,
        parsed: ParsedStatement,
        snapshot: &Arc<CatalogSnapshot>,
    ) -> Result<Arc<Statement>> {
        let parts = &self.0;
        if let Some(lifted) = Lifted::of(&parsed)
            && let Some(statement) = self.plan_shape(&key, &lifted, snapshot)
        {
            let statement = Arc::new(statement);
            parts.statements.insert(key, Arc::clone(&statement));
            return Ok(statement);
        }
        self.plan_parsed(key, parsed, snapshot)
    }

    /// The statement as one of its shape, if its values can be bound to that.
    fn plan_shape(
        &self,
        key: &StatementKey,
        lifted: &Lifted,
        snapshot: &Arc<CatalogSnapshot>,
    ) -> Option<Statement> {
        let parts = &self.0;
        let shape_key = ShapeKey {
            scope: key.scope.clone(),
            names: key.names.clone(),
            version: key.version.clone(),
            shape: lifted.shape.clone(),
        };
        let shape = match parts.shapes.get(&shape_key) {
            Some(known) => known?,
            None => {
                // What is wrong with it is wrong with the statement, whose own plan
                // tells of it in the words of its text.
                let planned = self.plan_new(key, lifted.shape.clone(), snapshot);
                let shape = planned.ok().filter(Statement::takes_literals).map(Arc::new);
                parts.shapes.insert(shape_key, shape.clone());
                shape?
            }
        };
        let values = lifted.values(&shape.parameter_schema())?;
        match &key.sent {
            Sent::Sql(sql) => shape.given(sql, values),
            Sent::Plan(_) => None,
        }
    }

    fn plan_parsed(
        &self,
        key: StatementKey,
        parsed: ParsedStatement,
        snapshot: &Arc<CatalogSnapshot>,
    ) -> Result<Arc<Statement>> {
        let statement = self.plan_new(&key, parsed, snapshot)?;
        Ok(self.keep(key, statement))
    }

    fn keep(&self, key: StatementKey, statement: Statement) -> Arc<Statement> {
        let statement = Arc::new(statement);
        // One that binds is as long to find as to plan.
        if statement.assignment().is_none() {
            self.0.statements.insert(key, Arc::clone(&statement));
        }
        statement
    }

    fn plan_new(
        &self,
        key: &StatementKey,
        parsed: ParsedStatement,
        snapshot: &Arc<CatalogSnapshot>,
    ) -> Result<Statement> {
        let planner = &self.0.planner;
        let sql = match &key.sent {
            Sent::Sql(sql) => sql.as_ref(),
            Sent::Plan(_) => "",
        };
        let resolver = self.resolver(key, snapshot);
        Statement::plan(&key.scope, sql, parsed, planner, &resolver)
    }

    fn plan_sent(
        &self,
        key: &StatementKey,
        plan: &SentPlan,
        snapshot: &Arc<CatalogSnapshot>,
    ) -> Result<Statement> {
        let resolver = self.resolver(key, snapshot);
        Statement::of_plan(&key.scope, plan, &self.0.planner, &resolver)
    }

    fn resolver<'a>(
        &'a self,
        key: &'a StatementKey,
        snapshot: &'a Arc<CatalogSnapshot>,
    ) -> names::Resolver<'a> {
        let parts = &self.0;
        names::Resolver::new(
            &key.scope,
            &key.names,
            &parts.planner,
            snapshot,
            parts.origins(),
        )
    }

    /// A transaction of the scope. Nothing is opened or locked before its first
    /// statement; dropped, it is rolled back.
    pub fn begin(&self, scope: &Scope) -> SessionTransaction {
        SessionTransaction::new(&self.0.backend, scope).swept_by(&self.0.sweeper)
    }

    /// Removes, in the background, the rows that tenants' lanes have of shared
    /// tables that were dropped: those of which a crash left some.
    pub fn sweep_dropped_tables(&self) {
        self.0.sweeper.sweep_all();
    }

    /// Starts a prepared statement. `parameters` are the values of `$1`, `$2`
    /// and so on. A statement that writes is done when this returns, and yields
    /// one row: how many rows it wrote.
    ///
    /// # Errors
    /// `FailedPrecondition` when the statement was prepared under another
    /// scope; `InvalidArgument` for parameters of the wrong count or type, and
    /// for rows that break a constraint; `AlreadyExists` for a key that is taken;
    /// `BackendError::TenantMismatch` for a row of another tenant. Nothing of a
    /// statement that fails is written.
    pub async fn execute(
        &self,
        scope: &Scope,
        statement: &Arc<Statement>,
        parameters: &[ScalarValue],
    ) -> Result<RecordStream> {
        self.execute_within(scope, statement, parameters, None)
            .await
    }

    /// As [`Engine::execute`], in a transaction: the statement reads the
    /// transaction's state of the lanes, and what it writes is committed with the
    /// transaction.
    pub async fn execute_within(
        &self,
        scope: &Scope,
        statement: &Arc<Statement>,
        parameters: &[ScalarValue],
        within: Option<&SessionTransaction>,
    ) -> Result<RecordStream> {
        if !statement.scope().covers(scope) {
            return Err(Error::FailedPrecondition(
                "the statement was prepared under another binding of the session: prepare it again"
                    .into(),
            ));
        }
        if let Some(transaction) = within {
            self.in_scope(scope, transaction)?;
        }
        let meter = self.0.tenants.usage().begin(scope.payer());
        self.is_at(Stage::Running);
        if let Action::Read(reading) = statement.action() {
            let reads = match within {
                Some(transaction) => transaction.reads(),
                None => StatementReads::new(&self.0.backend, scope),
            };
            let entrance = match within {
                Some(_) => None,
                None => Some(self.0.planner.queue()),
            };
            let rows = self.run(reading, parameters, reads, entrance).await?;
            return Ok(rows.metered(meter));
        }
        if statement.is_short_write() {
            let work = self.change(scope, statement, parameters, within);
            return short::run_here(self.0.planner.places(), work).await;
        }
        let place = match within {
            Some(_) => None,
            None => Some(self.enter(self.0.planner.queue(), scope).await?),
        };
        // What a write computes is computed where plans are.
        let (engine, scope) = (self.clone(), scope.clone());
        let (statement, parameters) = (Arc::clone(statement), parameters.to_vec());
        let within = within.cloned();
        let caller = scope.clone();
        let work = async move {
            let _place = place;
            engine
                .change(&scope, &statement, &parameters, within.as_ref())
                .await
        };
        self.0.planner.spawn(&caller, work).await
    }

    async fn change(
        &self,
        scope: &Scope,
        statement: &Statement,
        parameters: &[ScalarValue],
        within: Option<&SessionTransaction>,
    ) -> Result<RecordStream> {
        match statement.action() {
            Action::Write(write, checks, rows) => {
                let query = write::Query {
                    engine: self,
                    scope,
                    rows: rows.as_ref(),
                    parameters,
                };
                let written = write::run(&query, write, checks, within).await?;
                write::answer(write, written)
            }
            Action::Define(define) => {
                define::run(self, scope, define, parameters, within).await?;
                Ok(RecordStream::ready(statement.schema(), Vec::new()))
            }
            Action::Control(_) => Err(Error::InvalidArgument(
                "transactions by SQL text belong to the sessions of a server: connect to one, or \
                 begin a transaction with Engine::begin"
                    .into(),
            )),
            Action::Assign(_) => Err(Error::InvalidArgument(format!(
                "{TENANT_SETTING} is a session's: connect to a server, or use JammiSession"
            ))),
            Action::Kill(_) => Err(Error::FailedPrecondition(
                "KILL is about a running server, and this process is none: send it to one, as \
                 with jammi --url"
                    .into(),
            )),
            Action::Read(_) => Err(Error::internal(
                "the statement cannot be run",
                "a query among the writes",
            )),
        }
    }

    /// Starts a query on a state of the lanes, under the scope that it was planned
    /// for: whoever asks is known to be covered by it.
    async fn run_reading(
        &self,
        reading: &Arc<Reading>,
        parameters: &[ScalarValue],
        reads: StatementReads,
    ) -> Result<RecordStream> {
        self.run(reading, parameters, reads, None).await
    }

    /// As [`Engine::run_reading`], by `entrance` where the query is not short.
    async fn run(
        &self,
        reading: &Arc<Reading>,
        parameters: &[ScalarValue],
        reads: StatementReads,
        entrance: Option<&Arc<Queue>>,
    ) -> Result<RecordStream> {
        let planner = &self.0.planner;
        let mut bound = None;
        if reading.is_simple() {
            let logical = match reading.is_of_key() {
                true => None,
                false => Some(reading.bind(planner, parameters)?),
            };
            let is_short = match &logical {
                Some(logical) => short::reads_few(logical)?,
                None => true,
            };
            if is_short {
                // The state that is read goes with the rows, so that it is let go where
                // they end, which is where a thread may block.
                let planning = async move {
                    let plan = match &logical {
                        Some(logical) => planner.physical_of_simple(logical).await?,
                        None => reading.plan_of_key(planner, parameters).await?,
                    };
                    verify::verify(&plan, reading.scope())?;
                    guard::attach(&plan, &reads);
                    Ok(plan)
                };
                let work = planner.workers().begin(reading.scope());
                return RecordStream::start_here(planning, &work, planner.places()).await;
            }
            bound = logical;
        }
        let place = match entrance {
            Some(queue) => Some(self.enter(queue, reading.scope()).await?),
            None => None,
        };
        let work = planner.workers().begin(reading.scope());
        let (engine, reading) = (self.clone(), Arc::clone(reading));
        let parameters = parameters.to_vec();
        let planning = async move {
            let planner = &engine.0.planner;
            let logical = match bound {
                Some(logical) => logical,
                None => reading.bind(planner, &parameters)?,
            };
            let logical = windows::asking(logical).map_err(fault::planning)?;
            let plan = match reading.is_in_order() || reads_keys(&logical)? {
                true => planner.physical_in_order(&logical).await?,
                false => planner.physical(&logical).await?,
            };
            let plan = extremes::narrowed(plan).map_err(fault::planning)?;
            verify::verify(&plan, reading.scope())?;
            guard::attach(&plan, &reads);
            Ok(plan)
        };
        RecordStream::start(planning, planner.workers(), work, place).await
    }

    fn in_scope(&self, scope: &Scope, transaction: &SessionTransaction) -> Result<()> {
        if scope.covers(transaction.scope()) {
            return Ok(());
        }
        Err(Error::FailedPrecondition(
            "the transaction was begun under another binding of the session: begin another".into(),
        ))
    }

    /// Every table that the scope sees, by catalog, schema and name.
    pub async fn tables(&self, scope: &Scope) -> Result<Vec<TableEntry>> {
        let snapshot = self.0.catalog.snapshot(scope).await?;
        Ok(names::visible_tables(&snapshot))
    }

    /// Looks at the files of a location and records them as a source in the
    /// scope's own lane.
    pub async fn register_source(
        &self,
        scope: &Scope,
        request: RegisterSource,
    ) -> Result<Registered> {
        scope.require_writing()?;
        check_source_name(&request.name)?;
        self.refuse_taken(scope, &request.name).await?;
        let parts = &self.0;
        let new = source::inspect(
            parts.planner.session(),
            &parts.sources.stores,
            &parts.sources.policy,
            &request,
        )
        .await?;
        self.try_read(scope, &new).await?;
        let source = parts.catalog.register_source(scope, new).await?;
        let notices = source::notices(&source);
        Ok(Registered { source, notices })
    }

    /// A taken name is reported before files are read for it; the lane's own
    /// constraint decides between two at once.
    async fn refuse_taken(&self, scope: &Scope, name: &str) -> Result<()> {
        let snapshot: Arc<CatalogSnapshot> = self.0.catalog.snapshot(scope).await?;
        match snapshot.source(name) {
            Some(source) if source.lane == scope.writable() => Err(Error::AlreadyExists(format!(
                "source `{name}` exists already: choose another name, drop it first, or refresh it"
            ))),
            _ => Ok(()),
        }
    }

    /// Reads the schema of a source of the scope's own lane again.
    pub async fn refresh_source(&self, scope: &Scope, name: &str) -> Result<Arc<Source>> {
        scope.require_writing()?;
        let parts = &self.0;
        let source = parts.catalog.source(scope, name).await?;
        if source.lane != scope.writable() {
            return Err(Error::PermissionDenied(format!(
                "source `{name}` {} can refresh it",
                owner_text(source.lane)
            )));
        }
        let new = source::inspect_again(
            parts.planner.session(),
            &parts.sources.stores,
            &parts.sources.policy,
            &source.definition,
        )
        .await?;
        self.try_read(scope, &new).await?;
        parts.catalog.refresh_source(scope, new).await
    }

    /// Refuses a source whose first rows cannot be read.
    async fn try_read(&self, scope: &Scope, new: &NewSource) -> Result<()> {
        let source = Arc::new(Source {
            lane: scope.writable(),
            definition: new.clone(),
            registered_at_ms: 0,
            refreshed_at_ms: 0,
        });
        let table = self.0.sources.table(&source);
        table.try_read(self.0.planner.session(), scope).await
    }
}
