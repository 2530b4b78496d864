//! The only user of DataFusion's planner: from a statement's text and a scope to
//! record batches.
//!
//! ```text
//! text -> statement  one statement of an allowed kind, `?` numbered
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

mod context;
mod fault;
mod guard;
mod interrupt;
mod limits;
mod names;
mod params;
mod rule;
mod statement;
mod stream;
mod system;
#[cfg(test)]
mod tests;
mod total;
mod turns;
mod values;
mod verify;
mod windows;
mod workers;
mod yielding;

use std::sync::Arc;

use datafusion::common::ScalarValue;
use moka::sync::Cache;
use tokio::runtime::Handle;

use crate::backend::Backend;
use crate::catalog::{
    Catalog, CatalogSnapshot, NewSource, SnapshotVersion, Source, check_source_name,
};
use crate::config::JammiConfig;
use crate::error::{Error, Result};
use crate::source::{self, FileChecks, LaneViews, LocationPolicy, SourceTable, Stores};
use crate::tenant::Scope;

pub use crate::source::{RegisterSource, Registered, TenantColumnChoice};
pub use guard::{GuardExec, ScopedTable};
pub use names::{NameDefaults, TableEntry};
pub use rule::TenantScopeAnalyzerRule;
pub use statement::{Statement, StatementKind};
pub use stream::RecordStream;

use context::Planner;
use limits::Limits;
use stream::ended_early;
use turns::InTurn;

/// The engine: lanes, catalog, sources and the planner over them. Clones share
/// everything.
#[derive(Clone)]
pub struct Engine(Arc<Parts>);

struct Parts {
    backend: Backend,
    catalog: Catalog,
    sources: SourceReader,
    planner: Planner,
    statements: Cache<StatementKey, Arc<Statement>>,
    statement_bytes_max: usize,
    limits: Limits,
}

/// What makes one prepared statement another: everything that its plan depends
/// on. A change of the catalog makes a new key; the old entry ages out.
#[derive(Clone, PartialEq, Eq, Hash)]
struct StatementKey {
    scope: Scope,
    names: NameDefaults,
    version: SnapshotVersion,
    sql: Box<str>,
}

/// What reading a source needs, apart from the source.
#[derive(Clone)]
struct SourceReader {
    stores: Stores,
    policy: Arc<LocationPolicy>,
    checks: FileChecks,
    views: LaneViews,
}

impl SourceReader {
    fn table(&self, source: &Arc<Source>) -> SourceTable {
        SourceTable::new(
            Arc::clone(source),
            self.stores.clone(),
            Arc::clone(&self.policy),
            self.checks.clone(),
            self.views.clone(),
        )
    }
}

impl Engine {
    /// Opens the artifact directory, creating it where it is not there.
    pub async fn open(config: &JammiConfig) -> Result<Engine> {
        let backend = Backend::open(&config.artifact_dir, &config.lanes).await?;
        let catalog = Catalog::new(backend.clone());
        let planner = Planner::new(&config.engine)?;
        let sources = SourceReader {
            stores: Stores::new(planner.runtime(), config.sources.clone(), Handle::current()),
            policy: Arc::new(LocationPolicy::new(
                config.sources.roots.as_deref(),
                &config.artifact_dir,
            )?),
            checks: FileChecks::default(),
            views: LaneViews::default(),
        };
        Ok(Engine(Arc::new(Parts {
            backend,
            catalog,
            sources,
            planner,
            statements: Cache::new(config.engine.plan_cache_entries),
            statement_bytes_max: config.engine.statement_bytes_max,
            limits: Limits::new(&config.engine),
        })))
    }

    /// The sources and models of each lane.
    pub fn catalog(&self) -> &Catalog {
        &self.0.catalog
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
        let parts = &self.0;
        if sql.len() > parts.statement_bytes_max {
            return Err(Error::InvalidArgument(format!(
                "the statement has {} bytes and the setting engine.statement_bytes_max allows {}: \
                 send less text",
                sql.len(),
                parts.statement_bytes_max
            )));
        }
        let snapshot = parts.catalog.snapshot(scope).await?;
        let key = StatementKey {
            scope: scope.clone(),
            names: names.clone(),
            version: snapshot.version(),
            sql: sql.into(),
        };
        if let Some(statement) = parts.statements.get(&key) {
            return Ok(statement);
        }
        // Planning may take long too: a text of a few lines makes a large plan.
        let workers = parts.planner.workers();
        let work = workers.begin(scope);
        let engine = self.clone();
        let planning = Box::pin(async move { engine.plan(key, &snapshot) });
        let planned = workers.spawn(InTurn::new(&work, planning)).await;
        planned.unwrap_or_else(|error| Err(ended_early(Some(error))))
    }

    fn plan(&self, key: StatementKey, snapshot: &Arc<CatalogSnapshot>) -> Result<Arc<Statement>> {
        let parts = &self.0;
        let StatementKey {
            scope, names, sql, ..
        } = &key;
        let resolver = names::Resolver::new(
            scope,
            names,
            &parts.planner,
            snapshot,
            &parts.catalog,
            &parts.sources,
        );
        let statement = Arc::new(Statement::plan(
            scope,
            sql,
            &parts.limits,
            &parts.planner,
            &resolver,
        )?);
        parts.statements.insert(key, Arc::clone(&statement));
        Ok(statement)
    }

    /// Starts a prepared statement. `parameters` are the values of `$1`, `$2`
    /// and so on.
    ///
    /// # Errors
    /// `FailedPrecondition` when the statement was prepared under another
    /// scope; `InvalidArgument` for parameters of the wrong count or type.
    pub async fn execute(
        &self,
        scope: &Scope,
        statement: &Arc<Statement>,
        parameters: &[ScalarValue],
    ) -> Result<RecordStream> {
        if statement.scope() != scope {
            return Err(Error::FailedPrecondition(
                "the statement was prepared under another binding of the session: prepare it again"
                    .into(),
            ));
        }
        let planner = &self.0.planner;
        let (engine, statement) = (self.clone(), Arc::clone(statement));
        let parameters = parameters.to_vec();
        let planning = async move {
            let planner = &engine.0.planner;
            let logical = statement.bind(planner, &parameters)?;
            let logical = windows::asking(logical).map_err(fault::planning)?;
            let plan = planner.physical(&logical).await?;
            verify::verify(&plan, statement.scope())?;
            Ok(plan)
        };
        let workers = planner.workers();
        RecordStream::start(planning, planner.task(), workers, workers.begin(scope)).await
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
        let parts = &self.0;
        let source = parts.catalog.source(scope, name).await?;
        if source.lane != scope.writable() {
            return Err(Error::PermissionDenied(format!(
                "source `{name}` is shared: only an unbound session may refresh it"
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
