//! What a name in a statement means: a table of the caller's own lane, else a
//! shared one, else nothing.
//!
//! A name that another tenant uses and one that nobody uses are answered in the
//! same words.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{DataType, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::information_schema::{INFORMATION_SCHEMA, InformationSchemaProvider};
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList,
    MemorySchemaProvider, SchemaProvider, Session, TableFunctionArgs, TableProvider,
};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DFSchema, Result, TableReference};
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::provider_as_source;
#[cfg(feature = "substrait")]
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::planner::{
    ContextProvider, ExprPlanner, RelationPlanner, TypePlanner,
};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, ScalarUDF, TableSource, TableType, WindowUDF,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::sql::planner::{
    ParserOptions, PlannerContext, SqlToRel, object_name_to_table_reference,
};
use datafusion::sql::sqlparser::ast;
use futures::FutureExt;
use parking_lot::Mutex;

use super::SourceReader;
use super::activity::server_tables;
use super::coercion;
use super::context::Planner;
use super::events::EventsTable;
use super::fault::{carried, planning};
use super::guard::{Rows, ScopedTable};
use super::numbers;
use super::setting;
use super::statement::{parse_expression, parse_one, query_plan};
use super::stored::{StoredTable, Use};
use super::system::{
    AUDIT_SCHEMA, CATALOG_SCHEMA, SERVER_SCHEMA, SYSTEM_CATALOG, SystemTable, system_tables,
};
use super::types::ExtensionTypes;
use super::write::{TARGET, WRITTEN, for_column};
use crate::audit::Audit;
use crate::catalog::{
    Catalog, CatalogSnapshot, Relation, RelationBody, TENANT_COLUMN, ViewDefinition, owner_text,
};
use crate::error::Error;
use crate::table::ChunkCache;
use crate::tenancy::Tenants;
use crate::tenant::{Lane, Scope};

/// The catalog of tables whose rows are stored here.
pub const MUTABLE_CATALOG: &str = "mutable";
/// The one schema of a file source and of stored tables.
pub const PUBLIC_SCHEMA: &str = "public";

/// What the standard calls the kind of a table that belongs to a session.
pub const LOCAL_TEMPORARY: &str = "LOCAL TEMPORARY";

/// How deep views may read views.
const VIEWS_MAX: usize = 16;

/// The catalog and schema in which an unqualified name is looked up first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NameDefaults {
    /// The catalog.
    pub catalog: String,
    /// The schema.
    pub schema: String,
}

impl Default for NameDefaults {
    fn default() -> Self {
        NameDefaults {
            catalog: MUTABLE_CATALOG.into(),
            schema: PUBLIC_SCHEMA.into(),
        }
    }
}

/// A table that a scope sees.
#[derive(Clone, Debug)]
pub struct TableEntry {
    /// The catalog's name.
    pub catalog: String,
    /// The schema's name.
    pub schema: String,
    /// The table's name.
    pub name: String,
    /// `TABLE`, `LOCAL TEMPORARY`, `VIEW` or `SYSTEM TABLE`.
    pub kind: &'static str,
    /// The columns.
    pub arrow_schema: SchemaRef,
    /// The one that says whose a row is, where rows of several tenants may be told
    /// apart. Of a view nothing is said: it has the columns that its query makes.
    pub tenant_column: Option<String>,
}

/// Every table in `snapshot` and the server's own, by catalog, schema and name.
pub(super) fn visible_tables(snapshot: &CatalogSnapshot) -> Vec<TableEntry> {
    let system = system_tables()
        .into_iter()
        .map(|(schema, name, arrow_schema)| TableEntry {
            catalog: SYSTEM_CATALOG.into(),
            schema: schema.into(),
            name: name.into(),
            kind: "SYSTEM TABLE",
            tenant_column: Some(TENANT_COLUMN.into()),
            arrow_schema,
        });
    let server = server_tables()
        .into_iter()
        .map(|(name, arrow_schema)| TableEntry {
            catalog: SYSTEM_CATALOG.into(),
            schema: SERVER_SCHEMA.into(),
            name: name.into(),
            kind: "SYSTEM TABLE",
            tenant_column: None,
            arrow_schema,
        });
    let sources = snapshot.sources().map(|source| TableEntry {
        catalog: source.definition.name.clone(),
        schema: PUBLIC_SCHEMA.into(),
        name: source.definition.name.clone(),
        kind: "TABLE",
        arrow_schema: Arc::clone(&source.definition.schema),
        tenant_column: source.definition.tenant_column.name().map(str::to_owned),
    });
    let stored = snapshot.relations().map(|relation| TableEntry {
        catalog: MUTABLE_CATALOG.into(),
        schema: PUBLIC_SCHEMA.into(),
        name: relation.name.clone(),
        kind: match relation.body {
            RelationBody::Table(_) if relation.is_temporary() => LOCAL_TEMPORARY,
            RelationBody::Table(_) => "TABLE",
            RelationBody::View(_) => "VIEW",
        },
        arrow_schema: relation.schema(),
        tenant_column: relation.table().map(|_| TENANT_COLUMN.into()),
    });
    let mut tables: Vec<TableEntry> = system.chain(server).chain(sources).chain(stored).collect();
    tables.sort_by(|a, b| (&a.catalog, &a.schema, &a.name).cmp(&(&b.catalog, &b.schema, &b.name)));
    tables
}

/// Refuses a relation that the scope may read and not define.
pub(super) fn owned(relation: Arc<Relation>, scope: &Scope) -> Result<Arc<Relation>, Error> {
    if relation.lane == scope.writable() {
        return Ok(relation);
    }
    Err(Error::PermissionDenied(format!(
        "`{}` {} can change what it is",
        relation.name,
        owner_text(relation.lane)
    )))
}

/// Resolves the names of one statement for one scope.
pub(super) struct Resolver<'a> {
    scope: &'a Scope,
    defaults: &'a NameDefaults,
    planner: &'a Planner,
    snapshot: &'a Arc<CatalogSnapshot>,
    origins: Origins<'a>,
    /// What the names of a write's query mean beside tables that are read.
    target: OnceLock<Target>,
    written: OnceLock<Arc<Relation>>,
    /// How many views the names are inside of.
    views: usize,
    /// How many tables have been named, in views too.
    tables: Arc<AtomicUsize>,
    /// What they are, by their full names.
    named: Arc<Mutex<BTreeSet<String>>>,
    information: OnceLock<InformationSchemaProvider>,
}

/// Where the rows of tables come from.
#[derive(Clone, Copy)]
pub(super) struct Origins<'a> {
    pub catalog: &'a Catalog,
    pub sources: &'a SourceReader,
    pub chunks: &'a ChunkCache,
    pub audit: &'a Audit,
    /// Which of its records are of tenants that are no more.
    pub tenants: &'a Tenants,
}

/// What [`TARGET`] means in the query of a write.
enum Target {
    /// The table whose rows are changed.
    Change(Arc<Relation>),
    /// The table that rows are added to, and the values of the columns that they
    /// do not name.
    Insert(Arc<Relation>, HashMap<String, Expr>),
}

impl<'a> Resolver<'a> {
    pub(super) fn new(
        scope: &'a Scope,
        defaults: &'a NameDefaults,
        planner: &'a Planner,
        snapshot: &'a Arc<CatalogSnapshot>,
        origins: Origins<'a>,
    ) -> Self {
        Resolver {
            scope,
            defaults,
            planner,
            snapshot,
            origins,
            target: OnceLock::new(),
            written: OnceLock::new(),
            views: 0,
            tables: Arc::default(),
            named: Arc::default(),
            information: OnceLock::new(),
        }
    }

    /// The query of a view, planned for whoever reads it.
    fn view(&self, view: &ViewDefinition, name: String) -> Result<ScopedTable, Error> {
        if self.views >= VIEWS_MAX {
            return Err(Error::InvalidArgument(format!(
                "view `{name}` reads other views more than {VIEWS_MAX} deep, or itself: make it of \
                 tables"
            )));
        }
        let defaults = NameDefaults {
            catalog: view.catalog.clone(),
            schema: view.schema_name.clone(),
        };
        // A view belongs to no session, and means the same in each.
        let lasting = Arc::new(self.snapshot.without_session());
        let mut within = Resolver::new(self.scope, &defaults, self.planner, &lasting, self.origins);
        within.views = self.views + 1;
        within.tables = Arc::clone(&self.tables);
        within.named = Arc::clone(&self.named);
        let plan = query_plan(parse_one(&view.sql)?, &within)?;
        let schema = Arc::new(Schema::new(plan.schema().fields().clone()));
        Ok(ScopedTable::new(
            self.scope,
            name,
            Rows::View(Box::new(plan), schema),
        ))
    }

    fn resolve(&self, name: &TableReference) -> Option<ScopedTable> {
        match name {
            TableReference::Bare { table } => self
                .table(&self.defaults.catalog, &self.defaults.schema, table)
                .or_else(|| self.table(SYSTEM_CATALOG, CATALOG_SCHEMA, table)),
            TableReference::Partial { schema, table } => {
                self.table(&self.defaults.catalog, schema, table)
            }
            TableReference::Full {
                catalog,
                schema,
                table,
            } => self.table(catalog, schema, table),
        }
    }

    fn table(&self, catalog: &str, schema: &str, table: &str) -> Option<ScopedTable> {
        let rows = match (catalog, schema) {
            (catalog, schema) if [catalog, schema, table] == TARGET => {
                let (relation, use_) = match self.target.get()? {
                    Target::Change(relation) => (relation, Use::Change),
                    Target::Insert(relation, defaults) => (relation, Use::Insert(defaults.clone())),
                };
                Rows::Stored(StoredTable::new(relation, self.origins.chunks, use_)?)
            }
            (catalog, schema) if [catalog, schema, table] == WRITTEN => Rows::Stored(
                StoredTable::new(self.written.get()?, self.origins.chunks, Use::Read)?,
            ),
            (MUTABLE_CATALOG, PUBLIC_SCHEMA) => {
                let relation = self.snapshot.relation(table)?;
                Rows::Stored(StoredTable::new(relation, self.origins.chunks, Use::Read)?)
            }
            (catalog, INFORMATION_SCHEMA) if self.sees_catalog(catalog) => {
                let provider = self.information().table(table).now_or_never()?.ok()??;
                Rows::System(match table {
                    "columns" => SystemTable::Columns(provider, visible_tables(self.snapshot)),
                    _ => SystemTable::Information(provider),
                })
            }
            (SYSTEM_CATALOG, CATALOG_SCHEMA) => match table {
                "sources" => Rows::System(SystemTable::Sources(Arc::clone(self.snapshot))),
                "models" => Rows::System(SystemTable::Models(self.origins.catalog.clone())),
                "tables" => Rows::System(SystemTable::Tables(Arc::clone(self.snapshot))),
                _ => return None,
            },
            (SYSTEM_CATALOG, SERVER_SCHEMA) => match table {
                "queries" => Rows::System(SystemTable::Queries(self.planner.served().clone())),
                "sessions" => Rows::System(SystemTable::Sessions(self.planner.served().clone())),
                _ => return None,
            },
            (SYSTEM_CATALOG, AUDIT_SCHEMA) if table == "events" => {
                Rows::System(SystemTable::Events(EventsTable {
                    audit: self.origins.audit.clone(),
                    tenants: self.origins.tenants.clone(),
                }))
            }
            (catalog, PUBLIC_SCHEMA) if catalog == table => {
                Rows::Source(self.origins.sources.table(self.snapshot.source(table)?))
            }
            _ => return None,
        };
        let name = match &rows {
            Rows::Stored(stored) => format!("{MUTABLE_CATALOG}.{PUBLIC_SCHEMA}.{}", stored.name()),
            _ => format!("{catalog}.{schema}.{table}"),
        };
        self.note(name.clone());
        Some(ScopedTable::new(self.scope, name, rows))
    }

    fn note(&self, name: String) {
        self.named.lock().insert(name);
    }

    fn note_stored(&self, name: &str) {
        self.note(format!("{MUTABLE_CATALOG}.{PUBLIC_SCHEMA}.{name}"));
    }

    /// The tables, views and sources that were named so far, by their full names.
    pub(super) fn named(&self) -> Arc<[String]> {
        self.named.lock().iter().cloned().collect()
    }

    /// The relation of the writable lane that a statement names.
    ///
    /// # Errors
    /// `NotFound` where the name means nothing, `PermissionDenied` where it means
    /// what the scope may read and not define.
    pub(super) fn owned_relation(&self, name: &ast::ObjectName) -> Result<Arc<Relation>, Error> {
        owned(self.relation(name)?, self.scope)
    }

    /// The table that a statement adds rows to or changes rows of.
    pub(super) fn writable_table(&self, name: &ast::ObjectName) -> Result<Arc<Relation>, Error> {
        let relation = self.relation(name)?;
        match relation.body {
            // Its rows are all that tenant's; of one that is shared by every tenant the
            // scope has rows of its own.
            RelationBody::Table(_)
                if relation.lane != Lane::Global && relation.lane != self.scope.writable() =>
            {
                Err(Error::PermissionDenied(format!(
                    "table `{}` {} can write it",
                    relation.name,
                    owner_text(relation.lane)
                )))
            }
            RelationBody::Table(_) => Ok(relation),
            RelationBody::View(_) => Err(Error::Unimplemented(format!(
                "view `{}` cannot be written to: write to the tables that it reads",
                relation.name
            ))),
        }
    }

    fn relation(&self, name: &ast::ObjectName) -> Result<Arc<Relation>, Error> {
        let name = object_name_to_table_reference(name.clone(), true).map_err(planning)?;
        let (catalog, schema) = self.place(&name);
        if (catalog, schema) == (MUTABLE_CATALOG, PUBLIC_SCHEMA)
            && let Some(relation) = self.snapshot.relation(name.table())
        {
            self.note_stored(&relation.name);
            return Ok(Arc::clone(relation));
        }
        match self.resolve(&name) {
            Some(_) => Err(Error::Unimplemented(format!(
                "`{name}` is not a stored table and cannot be changed: make one with CREATE TABLE"
            ))),
            None => Err(self.missing(&name)),
        }
    }

    /// The name of a relation that is to be made.
    pub(super) fn new_name(&self, name: &ast::ObjectName) -> Result<String, Error> {
        let name = object_name_to_table_reference(name.clone(), true).map_err(planning)?;
        match self.place(&name) {
            (MUTABLE_CATALOG, PUBLIC_SCHEMA) => {
                self.note_stored(name.table());
                Ok(name.table().to_owned())
            }
            (catalog, schema) => Err(Error::InvalidArgument(format!(
                "tables and views are made in {MUTABLE_CATALOG}.{PUBLIC_SCHEMA}, not in \
                 {catalog}.{schema}: leave catalog and schema out of the name"
            ))),
        }
    }

    /// The relations of the writable lane.
    pub(super) fn owned_relations(&self) -> impl Iterator<Item = &Arc<Relation>> {
        let own = self.scope.writable();
        self.snapshot
            .relations()
            .filter(move |relation| relation.lane == own)
    }

    /// Where bare names are looked up.
    pub(super) fn defaults(&self) -> &NameDefaults {
        self.defaults
    }

    fn place<'n>(&'n self, name: &'n TableReference) -> (&'n str, &'n str) {
        (
            name.catalog().unwrap_or(&self.defaults.catalog),
            name.schema().unwrap_or(&self.defaults.schema),
        )
    }

    /// Lets [`TARGET`] mean the rows of `relation` that the scope may change.
    pub(super) fn change(&self, relation: &Arc<Relation>) {
        let _ = self.target.set(Target::Change(Arc::clone(relation)));
    }

    /// Lets [`TARGET`] mean `relation`, to add rows to.
    pub(super) fn insert(&self, relation: &Arc<Relation>) -> Result<(), Error> {
        let mut defaults = HashMap::new();
        let no_columns = DFSchema::empty();
        for column in relation
            .table()
            .into_iter()
            .flat_map(|table| &table.columns)
        {
            let default = match (&column.default, column.number) {
                (_, 0) => match self.scope.tenant() {
                    Some(tenant) => datafusion::logical_expr::lit(tenant.to_string()),
                    None => continue,
                },
                (Some(sql), _) => {
                    let value = for_column(&column.field, parse_expression(sql)?);
                    self.expression(value, &no_columns)?
                }
                (None, _) => continue,
            };
            defaults.insert(column.field.name().clone(), default);
        }
        let _ = self
            .target
            .set(Target::Insert(Arc::clone(relation), defaults));
        Ok(())
    }

    /// The tenant of rows that the scope adds, as SQL.
    pub(super) fn own_tenant(&self) -> Result<ast::Expr, Error> {
        match self.scope.tenant() {
            Some(tenant) => parse_expression(&format!("'{tenant}'")),
            None => parse_expression("NULL"),
        }
    }

    /// Lets [`WRITTEN`] mean rows of `relation` that were written.
    pub(super) fn written(&self, relation: &Arc<Relation>) {
        let _ = self.written.set(Arc::clone(relation));
    }

    /// `expr` as it is evaluated on batches of `schema`.
    pub(super) fn physical(
        &self,
        expr: Expr,
        schema: &DFSchema,
    ) -> Result<Arc<dyn PhysicalExpr>, Error> {
        self.planner
            .state()
            .create_physical_expr(expr, schema)
            .map_err(planning)
    }

    /// An expression over the columns of one row.
    pub(super) fn row_expression(&self, sql: &str, schema: &DFSchema) -> Result<Expr, Error> {
        self.expression(parse_expression(sql)?, schema)
    }

    /// As [`Resolver::row_expression`], of an expression that was parsed.
    pub(super) fn expression(&self, mut expr: ast::Expr, schema: &DFSchema) -> Result<Expr, Error> {
        numbers::keep_digits(&mut expr);
        SqlToRel::new_with_options(self, self.parser_options())
            .sql_to_expr(expr, schema, &mut PlannerContext::new())
            .and_then(|expr| coercion::settled_expr(expr, schema))
            .map_err(planning)
    }

    /// The types of a query's columns.
    pub(super) fn types_of(&self, query: &ast::Query) -> Result<Vec<DataType>, Error> {
        let plan = query_plan(ast::Statement::Query(Box::new(query.clone())), self)?;
        let fields = plan.schema().fields().iter();
        Ok(fields.map(|field| field.data_type().clone()).collect())
    }

    /// The functions that a statement may call.
    #[cfg(feature = "substrait")]
    pub(super) fn functions(&self) -> &SessionState {
        self.planner.state()
    }

    pub(super) fn parser_options(&self) -> ParserOptions {
        ParserOptions::from(&self.planner.state().config_options().sql_parser)
    }

    fn sees_catalog(&self, catalog: &str) -> bool {
        matches!(catalog, MUTABLE_CATALOG | SYSTEM_CATALOG)
            || self.snapshot.source(catalog).is_some()
    }

    /// `information_schema` over what the scope sees: the names and columns of
    /// its tables, none of their rows.
    fn information(&self) -> &InformationSchemaProvider {
        self.information.get_or_init(|| {
            let catalogs = MemoryCatalogProviderList::new();
            let mutable = Arc::new(MemoryCatalogProvider::new());
            // Registering in memory providers made a line above cannot fail.
            let _ = mutable.register_schema(PUBLIC_SCHEMA, Arc::new(MemorySchemaProvider::new()));
            catalogs.register_catalog(MUTABLE_CATALOG.into(), mutable);
            for table in visible_tables(self.snapshot) {
                let catalog = catalogs.catalog(&table.catalog).unwrap_or_else(|| {
                    let made: Arc<dyn CatalogProvider> = Arc::new(MemoryCatalogProvider::new());
                    catalogs.register_catalog(table.catalog.clone(), Arc::clone(&made));
                    made
                });
                let schema = catalog.schema(&table.schema).unwrap_or_else(|| {
                    let made: Arc<dyn SchemaProvider> = Arc::new(MemorySchemaProvider::new());
                    let _ = catalog.register_schema(&table.schema, Arc::clone(&made));
                    made
                });
                let name = table.name.clone();
                let _ = schema.register_table(name, Arc::new(Described(table)));
            }
            InformationSchemaProvider::new(Arc::new(catalogs))
        })
    }

    fn missing(&self, name: &TableReference) -> Error {
        let table = name.table();
        let mend = if self.snapshot.source(table).is_some() {
            let source = datafusion::common::utils::quote_identifier(table);
            format!("a source is spelled {source}.{PUBLIC_SCHEMA}.{source}")
        } else {
            "list the tables with SHOW TABLES".to_owned()
        };
        Error::NotFound(format!("table `{name}` does not exist: {mend}"))
    }
}

/// A table as `information_schema` describes it: it has no rows there.
#[derive(Debug)]
struct Described(TableEntry);

#[async_trait]
impl TableProvider for Described {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0.arrow_schema)
    }

    fn table_type(&self) -> TableType {
        match self.0.kind {
            LOCAL_TEMPORARY => TableType::Temporary,
            _ => TableType::Base,
        }
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(EmptyExec::new(self.schema())))
    }
}

impl ContextProvider for Resolver<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let named = self.tables.fetch_add(1, Ordering::Relaxed) + 1;
        self.planner.limits().check_tables(named).map_err(carried)?;
        let (catalog, schema) = self.place(&name);
        if (catalog, schema) == (MUTABLE_CATALOG, PUBLIC_SCHEMA)
            && let Some(relation) = self.snapshot.relation(name.table())
            && let RelationBody::View(view) = &relation.body
        {
            self.note_stored(&relation.name);
            let view = self.view(view, relation.name.clone()).map_err(carried)?;
            return Ok(provider_as_source(Arc::new(view)));
        }
        match self.resolve(&name) {
            Some(table) => Ok(provider_as_source(Arc::new(table))),
            None => Err(carried(self.missing(&name))),
        }
    }

    fn get_table_function_source(
        &self,
        name: &str,
        args: Vec<Expr>,
    ) -> Result<Arc<dyn TableSource>> {
        let state = self.planner.state();
        let function = state.table_functions().get(name).ok_or_else(|| {
            carried(Error::NotFound(format!(
                "table function `{name}` does not exist: there are generate_series and range"
            )))
        })?;
        let context = SimplifyContext::builder()
            .with_config_options(Arc::clone(state.config_options()))
            .build();
        let simplifier = ExprSimplifier::new(context);
        let no_columns = DFSchema::empty();
        let args = args
            .into_iter()
            .map(|arg| {
                let arg = simplifier.coerce(arg, &no_columns)?;
                simplifier.simplify(arg)
            })
            .collect::<Result<Vec<_>>>()?;
        function
            .create_table_provider_with_args(TableFunctionArgs::new(&args, state))
            .map(provider_as_source)
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> Result<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(
            name, schema,
        ))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.planner.state().expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        self.planner.state().relation_planners()
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(ExtensionTypes))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let of_scope = setting::function(name, self.scope);
        of_scope.or_else(|| self.planner.state().scalar_functions().get(name).cloned())
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.planner
            .state()
            .higher_order_functions()
            .get(name)
            .cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.planner
            .state()
            .aggregate_functions()
            .get(name)
            .cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.planner.state().window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.planner.state().config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.planner
            .state()
            .scalar_functions()
            .keys()
            .cloned()
            .collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.planner
            .state()
            .higher_order_functions()
            .keys()
            .cloned()
            .collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.planner
            .state()
            .aggregate_functions()
            .keys()
            .cloned()
            .collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.planner
            .state()
            .window_functions()
            .keys()
            .cloned()
            .collect()
    }
}
