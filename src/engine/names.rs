//! What a name in a statement means: a table of the caller's own lane, else a
//! shared one, else nothing.
//!
//! A name that another tenant uses and one that nobody uses are answered in the
//! same words.

use std::sync::{Arc, OnceLock};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::information_schema::{INFORMATION_SCHEMA, InformationSchemaProvider};
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList,
    MemorySchemaProvider, SchemaProvider, TableFunctionArgs, TableProvider,
};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DFSchema, Result, TableReference};
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::planner::{
    ContextProvider, ExprPlanner, RelationPlanner, TypePlanner,
};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use futures::FutureExt;

use super::SourceReader;
use super::context::Planner;
use super::fault::carried;
use super::guard::{Rows, ScopedTable};
use super::system::{CATALOG_SCHEMA, SYSTEM_CATALOG, SystemTable, catalog_tables};
use crate::catalog::{Catalog, CatalogSnapshot};
use crate::error::Error;
use crate::tenant::Scope;

/// The catalog of tables whose rows are stored here.
pub const MUTABLE_CATALOG: &str = "mutable";
/// The one schema of a file source and of stored tables.
pub const PUBLIC_SCHEMA: &str = "public";

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
    /// `TABLE` or `SYSTEM TABLE`.
    pub kind: &'static str,
    /// The columns.
    pub arrow_schema: SchemaRef,
}

/// Every table in `snapshot` and the server's own, by catalog, schema and name.
pub(super) fn visible_tables(snapshot: &CatalogSnapshot) -> Vec<TableEntry> {
    let system = catalog_tables()
        .into_iter()
        .map(|(name, arrow_schema)| TableEntry {
            catalog: SYSTEM_CATALOG.into(),
            schema: CATALOG_SCHEMA.into(),
            name: name.into(),
            kind: "SYSTEM TABLE",
            arrow_schema,
        });
    let sources = snapshot.sources().map(|source| TableEntry {
        catalog: source.definition.name.clone(),
        schema: PUBLIC_SCHEMA.into(),
        name: source.definition.name.clone(),
        kind: "TABLE",
        arrow_schema: Arc::clone(&source.definition.schema),
    });
    let mut tables: Vec<TableEntry> = system.chain(sources).collect();
    tables.sort_by(|a, b| (&a.catalog, &a.schema, &a.name).cmp(&(&b.catalog, &b.schema, &b.name)));
    tables
}

/// Resolves the names of one statement for one scope.
pub(super) struct Resolver<'a> {
    scope: &'a Scope,
    defaults: &'a NameDefaults,
    planner: &'a Planner,
    snapshot: &'a Arc<CatalogSnapshot>,
    catalog: &'a Catalog,
    sources: &'a SourceReader,
    information: OnceLock<InformationSchemaProvider>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(
        scope: &'a Scope,
        defaults: &'a NameDefaults,
        planner: &'a Planner,
        snapshot: &'a Arc<CatalogSnapshot>,
        catalog: &'a Catalog,
        sources: &'a SourceReader,
    ) -> Self {
        Resolver {
            scope,
            defaults,
            planner,
            snapshot,
            catalog,
            sources,
            information: OnceLock::new(),
        }
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
            (catalog, INFORMATION_SCHEMA) if self.sees_catalog(catalog) => {
                let provider = self.information().table(table).now_or_never()?.ok()??;
                Rows::System(SystemTable::Information(provider))
            }
            (SYSTEM_CATALOG, CATALOG_SCHEMA) => match table {
                "sources" => Rows::System(SystemTable::Sources(Arc::clone(self.snapshot))),
                "models" => Rows::System(SystemTable::Models(self.catalog.clone())),
                _ => return None,
            },
            (catalog, PUBLIC_SCHEMA) if catalog == table => {
                Rows::Source(self.sources.table(self.snapshot.source(table)?))
            }
            _ => return None,
        };
        let name = format!("{catalog}.{schema}.{table}");
        Some(ScopedTable::new(self.scope, name, rows))
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
                let columns: Arc<dyn TableProvider> = Arc::new(EmptyTable::new(table.arrow_schema));
                let _ = schema.register_table(table.name, columns);
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

impl ContextProvider for Resolver<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
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
        None
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.planner.state().scalar_functions().get(name).cloned()
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
