//! One statement: its text, whether it is of a kind that is served, and its
//! logical plan under a scope.

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::optimizer::AnalyzerRule;
use datafusion::sql::planner::{ParserOptions, SqlToRel};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Tokenizer;

use std::sync::Arc;

use super::TenantScopeAnalyzerRule;
use super::context::Planner;
use super::fault::planning;
use super::limits::Limits;
use super::names::Resolver;
use super::params;
use crate::error::{Error, Result};
use crate::tenant::Scope;

/// How deep expressions and subqueries may nest.
const NESTING_MAX: usize = 64;

/// A planned statement, bound to the scope that it was planned for.
#[derive(Debug)]
pub struct Statement {
    scope: Scope,
    sql: Box<str>,
    plan: LogicalPlan,
    /// Kept where every run of the statement optimizes to the same plan.
    optimized: Option<LogicalPlan>,
    schema: SchemaRef,
    parameters: SchemaRef,
}

impl Statement {
    pub(super) fn plan(
        scope: &Scope,
        sql: &str,
        limits: &Limits,
        planner: &Planner,
        resolver: &Resolver<'_>,
    ) -> Result<Self> {
        let mut statement = parse_one(sql, limits)?;
        limits.check_statement(&statement)?;
        params::type_concatenations(&mut statement);
        let has_parameters = params::has_parameters(&statement);
        let statement = match kind_of(&statement)? {
            StatementKind::ShowTables => listed_tables(&statement, limits)?,
            _ => statement,
        };
        Statement::of(scope, sql, statement, planner, resolver).map_err(
            |error| match has_parameters {
                true => params::name_types(error),
                false => error,
            },
        )
    }

    fn of(
        scope: &Scope,
        sql: &str,
        statement: ast::Statement,
        planner: &Planner,
        resolver: &Resolver<'_>,
    ) -> Result<Self> {
        let options = ParserOptions::from(&planner.state().config_options().sql_parser);
        let plan = SqlToRel::new_with_options(resolver, options)
            .sql_statement_to_plan(statement)
            .map_err(planning)?;
        require_query(&plan)?;
        let plan = TenantScopeAnalyzerRule::new(scope.clone())
            .analyze(plan, planner.state().config_options())
            .map_err(planning)?;
        let parameters = params::parameter_schema(&plan)?;
        let (schema, optimized) = if parameters.fields().is_empty() {
            let optimized = match is_immutable(&plan)? {
                true => Some(planner.optimize(plan.clone())?),
                false => None,
            };
            (plan.schema().inner().clone(), optimized)
        } else {
            let typed = plan
                .clone()
                .replace_params_with_values(&params::nulls(&parameters)?)
                .map_err(planning)?;
            (typed.schema().inner().clone(), None)
        };
        Ok(Statement {
            scope: scope.clone(),
            sql: sql.into(),
            plan,
            optimized,
            schema: without_metadata(&schema),
            parameters,
        })
    }

    /// The columns of the result.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The parameters in order, named `$1`, `$2` and so on.
    pub fn parameter_schema(&self) -> SchemaRef {
        Arc::clone(&self.parameters)
    }

    /// The statement's text.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The scope that the statement was planned for.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The optimized plan with `values` for the parameters.
    pub(super) fn bind(&self, planner: &Planner, values: &[ScalarValue]) -> Result<LogicalPlan> {
        let values = params::typed_values(&self.parameters, values)?;
        if let Some(optimized) = &self.optimized {
            return Ok(optimized.clone());
        }
        let plan = self
            .plan
            .clone()
            .replace_params_with_values(&values)
            .map_err(planning)?;
        planner.optimize(plan)
    }
}

fn without_metadata(schema: &SchemaRef) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().clone()))
}

fn parse_one(sql: &str, limits: &Limits) -> Result<ast::Statement> {
    let wrong = |error: &dyn std::fmt::Display| {
        Error::InvalidArgument(format!("the statement does not parse: {error}"))
    };
    let dialect = GenericDialect {};
    let mut tokens = Tokenizer::new(&dialect, sql)
        .tokenize_with_location()
        .map_err(|error| wrong(&error))?;
    params::number_placeholders(&mut tokens)?;
    limits.check_tokens(&tokens)?;
    let mut statements = Parser::new(&dialect)
        .with_recursion_limit(NESTING_MAX)
        .with_tokens_with_locations(tokens)
        .parse_statements()
        .map_err(|error| wrong(&error))?;
    match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        (None, _) => Err(Error::InvalidArgument(
            "the text holds no statement: send one".into(),
        )),
        (Some(_), false) => Err(Error::InvalidArgument(
            "the text holds more than one statement: send one at a time".into(),
        )),
    }
}

/// A kind of statement that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatementKind {
    /// `SELECT`, `VALUES`, `WITH`, and set operations of these.
    Query,
    /// `EXPLAIN` of a served statement.
    Explain,
    /// `DESCRIBE table`.
    Describe,
    /// `SHOW TABLES`.
    ShowTables,
    /// `SHOW COLUMNS FROM table`.
    ShowColumns,
    /// `SHOW FUNCTIONS`.
    ShowFunctions,
}

impl StatementKind {
    /// Every kind.
    pub const ALL: [StatementKind; 6] = [
        StatementKind::Query,
        StatementKind::Explain,
        StatementKind::Describe,
        StatementKind::ShowTables,
        StatementKind::ShowColumns,
        StatementKind::ShowFunctions,
    ];
}

/// The kind of a statement. Everything that is not listed is refused, so that
/// a kind which a newer parser knows is refused too.
fn kind_of(statement: &ast::Statement) -> Result<StatementKind> {
    use ast::Statement::*;
    match statement {
        Query(_) => Ok(StatementKind::Query),
        ExplainTable { .. } => Ok(StatementKind::Describe),
        ShowTables { .. } => Ok(StatementKind::ShowTables),
        ShowColumns { .. } => Ok(StatementKind::ShowColumns),
        ShowFunctions { .. } => Ok(StatementKind::ShowFunctions),
        Explain { statement, .. } => match kind_of(statement)? {
            StatementKind::Explain => Err(Error::InvalidArgument(
                "EXPLAIN of EXPLAIN is not served: name the statement itself".into(),
            )),
            _ => Ok(StatementKind::Explain),
        },
        Insert(_) | Update(_) | Delete(_) | Merge(_) | Truncate(_) | Copy { .. } => {
            Err(Error::Unimplemented(format!(
                "{} is not served: this server reads sources and does not write tables",
                keyword(statement)
            )))
        }
        other => Err(Error::Unimplemented(format!(
            "{} is not served: send SELECT, VALUES, EXPLAIN, DESCRIBE or SHOW \
             (sources are added through the catalog, a tenant is bound by SetTenant)",
            keyword(other)
        ))),
    }
}

/// What `SHOW TABLES` means: the tables that can be read from, in order, without
/// the descriptions that every catalog has of itself.
fn listed_tables(statement: &ast::Statement, limits: &Limits) -> Result<ast::Statement> {
    if statement.to_string() != "SHOW TABLES" {
        return Err(Error::Unimplemented(
            "SHOW TABLES with more words is not served: filter information_schema.tables".into(),
        ));
    }
    parse_one(
        "SELECT table_catalog, table_schema, table_name, table_type \
         FROM information_schema.tables WHERE table_schema <> 'information_schema' \
         ORDER BY table_catalog, table_schema, table_name",
        limits,
    )
}

/// The words that a statement starts with.
fn keyword(statement: &ast::Statement) -> String {
    let text = statement.to_string();
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or("this statement").to_uppercase();
    match first.as_str() {
        "CREATE" | "DROP" | "ALTER" => match words.next() {
            Some(second) if second.chars().all(|c| c.is_ascii_alphabetic()) => {
                format!("{first} {}", second.to_uppercase())
            }
            _ => first,
        },
        _ => first,
    }
}

/// Refuses a plan that does more than read, wherever in it: the parser admits
/// INSERT and its like inside a query too.
fn require_query(plan: &LogicalPlan) -> Result<()> {
    let mut refused = None;
    plan.apply_with_subqueries(|node| {
        refused = match node {
            // DataFusion plans these rows without running a query for them.
            LogicalPlan::Values(values) if values.values.iter().flatten().any(has_subquery) => {
                Some("a subquery in VALUES".to_owned())
            }
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::Repartition(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::TableScan(_)
            | LogicalPlan::EmptyRelation(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Values(_)
            | LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::Distinct(_)
            | LogicalPlan::DescribeTable(_)
            | LogicalPlan::Unnest(_)
            | LogicalPlan::RecursiveQuery(_) => return Ok(TreeNodeRecursion::Continue),
            LogicalPlan::Statement(statement) => Some(statement.name().to_owned()),
            LogicalPlan::Dml(dml) => Some(dml.name().to_owned()),
            LogicalPlan::Ddl(ddl) => Some(ddl.name().to_owned()),
            LogicalPlan::Copy(_) => Some("COPY".to_owned()),
            LogicalPlan::Extension(extension) => Some(extension.node.name().to_owned()),
        };
        Ok(TreeNodeRecursion::Stop)
    })
    .map_err(planning)?;
    match refused {
        None => Ok(()),
        Some(kind) => Err(Error::Unimplemented(format!(
            "{kind} is not served: write the statement as a SELECT"
        ))),
    }
}

fn has_subquery(expr: &Expr) -> bool {
    expr.exists(|expr| {
        Ok(matches!(
            expr,
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_)
        ))
    })
    .unwrap_or(true)
}

/// Whether every function in the plan answers the same for the same arguments
/// at any time, so that a plan with them folded may be kept.
fn is_immutable(plan: &LogicalPlan) -> Result<bool> {
    if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_)) {
        return Ok(false);
    }
    let mut immutable = true;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr
                    && call.func.signature().volatility != Volatility::Immutable
                {
                    immutable = false;
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })
    .map_err(planning)?;
    Ok(immutable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EngineConfig;

    fn kind(sql: &str) -> std::result::Result<StatementKind, Error> {
        kind_of(&parse_one(sql, &Limits::new(&EngineConfig::default()))?)
    }

    #[test]
    fn reading_statements_are_served() {
        for sql in [
            "SELECT 1",
            "SELECT 1;",
            "VALUES (1), (2)",
            "WITH a AS (SELECT 1) SELECT * FROM a",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE VERBOSE SELECT 1",
            "DESCRIBE t",
            "SHOW TABLES",
            "SHOW COLUMNS FROM t",
        ] {
            assert!(kind(sql).is_ok(), "{sql}: {:?}", kind(sql));
        }
    }

    #[test]
    fn everything_else_is_refused_by_its_name() {
        for (sql, says) in [
            ("INSERT INTO t VALUES (1)", "INSERT"),
            ("EXPLAIN ANALYZE DELETE FROM t", "DELETE"),
            ("UPDATE t SET a = 1", "UPDATE"),
            ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'x'", ""),
            ("CREATE TABLE t (a INT)", "CREATE TABLE"),
            ("CREATE VIEW v AS SELECT 1", "CREATE VIEW"),
            ("DROP TABLE t", "DROP TABLE"),
            ("COPY t TO 'x.csv'", "COPY"),
            ("SET app.current_tenant_id = 'x'", "SET"),
            // Symptom: it was named "SET A".
            ("SET a = 1", "SET is not served"),
            ("PREPARE p AS SELECT 1", "PREPARE"),
            ("EXECUTE p", "EXECUTE"),
            ("BEGIN", "BEGIN"),
            ("SELECT 1; SELECT 2", "more than one"),
            ("", "no statement"),
            ("-- nothing", "no statement"),
            ("SELEC 1", "does not parse"),
            ("SELECT ?, $1", "mixes"),
        ] {
            let error = kind(sql).unwrap_err().to_string();
            assert!(error.contains(says), "{sql}: {error}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_and_does_not_overflow_the_stack() {
        let sql = format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000));
        assert!(matches!(kind(&sql), Err(Error::InvalidArgument(_))));
    }
}
