//! One statement: its text, whether it is of a kind that is served, and its
//! logical plan under a scope.

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::sql::planner::SqlToRel;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Tokenizer;

use std::sync::Arc;

use super::activity::Kill;
use super::coercion;
use super::context::Planner;
use super::control::{self, TransactionControl};
use super::define::Define;
use super::fault::planning;
use super::limits::Limits;
use super::names::Resolver;
use super::numbers;
use super::params;
use super::reading::Reading;
use super::setting::{self, Assignment, TENANT_SETTING};
use super::shape::takes_literals;
use super::substrait::{SentPlan, logical_plan};
use super::types::type_name;
use super::write::{self, DirectRows, RowChecks, Rows, Write};
use crate::error::{Error, Result};
use crate::tenant::Scope;

/// How deep expressions and subqueries may nest.
const NESTING_MAX: usize = 64;

/// A planned statement, bound to the scope that it was planned for.
#[derive(Debug)]
pub struct Statement {
    scope: Scope,
    sql: Box<str>,
    kind: StatementKind,
    action: Action,
    schema: SchemaRef,
    parameters: SchemaRef,
    tables: Arc<[String]>,
}

/// What a statement does when it is executed.
#[derive(Debug)]
pub(super) enum Action {
    /// Yields rows.
    Read(Arc<Reading>),
    /// Writes rows, if it has any of its own.
    Write(Arc<Write>, Arc<RowChecks>, Option<Rows>),
    /// Changes what tables there are.
    Define(Define),
    /// Is for whoever keeps the session's transaction.
    Control(TransactionControl),
    /// Is for whoever keeps the session's binding.
    Assign(Assignment),
    /// Is for whoever serves.
    Kill(Kill),
}

impl Statement {
    pub(super) fn plan(
        scope: &Scope,
        sql: &str,
        statement: ast::Statement,
        planner: &Planner,
        resolver: &Resolver<'_>,
    ) -> Result<Self> {
        let has_parameters = params::has_parameters(&statement);
        let planned = Statement::of(scope, sql, statement, planner, resolver);
        planned.map_err(|error| match has_parameters {
            true => params::name_types(error),
            false => error,
        })
    }

    fn of(
        scope: &Scope,
        sql: &str,
        statement: ast::Statement,
        planner: &Planner,
        resolver: &Resolver<'_>,
    ) -> Result<Self> {
        let kind = kind_of(&statement)?;
        let (action, schema) = if kind.writes_rows() {
            let (write, source) = write::take_apart(statement, resolver)?;
            let definition = write.definition()?;
            let checks = RowChecks::new(&write.relation, definition, resolver)?;
            let rows = match source.plan(&write, resolver)? {
                None => None,
                Some(plan) => Some(match DirectRows::of(&plan)? {
                    Some(rows) => Rows::Direct(Box::new(rows)),
                    None => Rows::Query(Arc::new(Reading::new(scope, plan, planner)?)),
                }),
            };
            let schema = write.schema();
            (
                Action::Write(Arc::new(write), Arc::new(checks), rows),
                schema,
            )
        } else if kind.defines() {
            let define = Define::plan(statement, scope, planner, resolver)?;
            (Action::Define(define), Arc::new(Schema::empty()))
        } else if kind == StatementKind::Transaction {
            let control = control::read(&statement)?;
            (Action::Control(control), Arc::new(Schema::empty()))
        } else if kind == StatementKind::Set {
            let assignment = Assignment::read(&statement)?;
            let schema = assignment.schema();
            (Action::Assign(assignment), schema)
        } else if kind == StatementKind::Kill {
            let kill = Kill::read(&statement)?;
            (Action::Kill(kill), Arc::new(Schema::empty()))
        } else {
            let statement = match kind {
                StatementKind::ShowTables => listed_tables(&statement)?,
                StatementKind::ShowSetting => setting::shown(&statement)?,
                _ => statement,
            };
            let plan = match statement {
                ast::Statement::Explain {
                    statement,
                    analyze,
                    verbose,
                    ..
                } if kind_of(&statement)?.writes_rows() => {
                    explained_write(*statement, analyze, verbose, resolver)?
                }
                statement => described(query_plan(statement, resolver)?)?,
            };
            let reading = Reading::new(scope, plan, planner)?;
            let schema = Arc::clone(reading.schema());
            (Action::Read(Arc::new(reading)), schema)
        };
        let parameters = match &action {
            Action::Read(reading) => Arc::clone(reading.parameters()),
            Action::Write(_, _, Some(rows)) => Arc::clone(rows.parameters()),
            Action::Define(define) => define.parameters(),
            Action::Assign(assignment) => assignment.parameters(),
            Action::Write(_, _, None) | Action::Control(_) | Action::Kill(_) => {
                Arc::new(Schema::empty())
            }
        };
        Ok(Statement {
            scope: scope.clone(),
            sql: sql.into(),
            kind,
            action,
            schema,
            parameters,
            tables: resolver.named(),
        })
    }

    /// The query that a plan says.
    pub(super) fn of_plan(
        scope: &Scope,
        sent: &SentPlan,
        planner: &Planner,
        resolver: &Resolver<'_>,
    ) -> Result<Self> {
        let plan = logical_plan(sent, planner.limits(), resolver)?;
        let plan = coercion::settled(plan).map_err(planning)?;
        let reading = Reading::new(scope, plan, planner)?;
        Ok(Statement {
            scope: scope.clone(),
            sql: "".into(),
            kind: StatementKind::Query,
            schema: Arc::clone(reading.schema()),
            parameters: Arc::clone(reading.parameters()),
            action: Action::Read(Arc::new(reading)),
            tables: resolver.named(),
        })
    }

    /// Whether the statement is a query whose parameters may be literals of a text.
    pub(super) fn takes_literals(&self) -> bool {
        match &self.action {
            Action::Read(reading) => reading.is_simple() && takes_literals(&self.parameters),
            Action::Write(..)
            | Action::Define(_)
            | Action::Control(_)
            | Action::Assign(_)
            | Action::Kill(_) => false,
        }
    }

    /// The query of a text that has `values` where this one has parameters.
    pub(super) fn given(&self, sql: &str, values: Vec<ScalarValue>) -> Option<Self> {
        let Action::Read(reading) = &self.action else {
            return None;
        };
        Some(Statement {
            scope: self.scope.clone(),
            sql: sql.into(),
            kind: self.kind,
            action: Action::Read(Arc::new(reading.given(values))),
            schema: Arc::clone(&self.schema),
            parameters: Arc::new(Schema::empty()),
            tables: Arc::clone(&self.tables),
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

    /// The statement's text; empty where it is a plan.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The tables, views and sources that it names and that those read, by their full
    /// names.
    pub fn tables(&self) -> &[String] {
        &self.tables
    }

    /// The scope that the statement was planned for.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// What kind of statement it is.
    pub fn kind(&self) -> StatementKind {
        self.kind
    }

    /// Whether it answers with rows, and not with a count of them or with nothing.
    pub fn yields_rows(&self) -> bool {
        match &self.action {
            Action::Read(_) => true,
            Action::Write(write, _, _) => write.returning.is_some(),
            Action::Assign(assignment) => assignment.answers(),
            Action::Define(_) | Action::Control(_) | Action::Kill(_) => false,
        }
    }

    /// Whether it makes a table that belongs to the session.
    pub fn makes_temporary(&self) -> bool {
        match &self.action {
            Action::Define(define) => define.makes_temporary(),
            Action::Read(_)
            | Action::Write(..)
            | Action::Control(_)
            | Action::Assign(_)
            | Action::Kill(_) => false,
        }
    }

    /// Whether it writes the rows of a table that belongs to the session.
    pub(super) fn writes_temporary(&self) -> bool {
        match &self.action {
            Action::Write(write, _, _) => write.relation.is_temporary(),
            Action::Read(_)
            | Action::Define(_)
            | Action::Control(_)
            | Action::Assign(_)
            | Action::Kill(_) => false,
        }
    }

    /// What is to be done with the session's transaction, where that is all that
    /// the statement is about.
    pub fn control(&self) -> Option<&TransactionControl> {
        match &self.action {
            Action::Control(control) => Some(control),
            Action::Read(_)
            | Action::Write(..)
            | Action::Define(_)
            | Action::Assign(_)
            | Action::Kill(_) => None,
        }
    }

    /// What is to be done with the session's binding, where that is all that the
    /// statement is about.
    pub fn assignment(&self) -> Option<&Assignment> {
        match &self.action {
            Action::Assign(assignment) => Some(assignment),
            Action::Read(_)
            | Action::Write(..)
            | Action::Define(_)
            | Action::Control(_)
            | Action::Kill(_) => None,
        }
    }

    /// What is to be ended, where that is all that the statement is about.
    pub fn kill(&self) -> Option<Kill> {
        match &self.action {
            Action::Kill(kill) => Some(*kill),
            Action::Read(_)
            | Action::Write(..)
            | Action::Define(_)
            | Action::Control(_)
            | Action::Assign(_) => None,
        }
    }

    /// Whether it writes few rows of values, without more to compute for them.
    pub(super) fn is_short_write(&self) -> bool {
        match &self.action {
            Action::Write(write, checks, Some(Rows::Direct(rows))) => {
                rows.are_few()
                    && !checks.compute()
                    && write.conflict.is_none()
                    && write.returning.is_none()
            }
            _ => false,
        }
    }

    pub(super) fn action(&self) -> &Action {
        &self.action
    }

    /// The statement with another write, whose query takes no parameters.
    pub(super) fn with_write(
        &self,
        write: Write,
        checks: &Arc<RowChecks>,
        reading: Reading,
    ) -> Self {
        Statement {
            scope: self.scope.clone(),
            sql: self.sql.clone(),
            kind: self.kind,
            schema: write.schema(),
            parameters: Arc::clone(reading.parameters()),
            tables: Arc::clone(&self.tables),
            action: Action::Write(
                Arc::new(write),
                Arc::clone(checks),
                Some(Rows::Query(Arc::new(reading))),
            ),
        }
    }
}

/// EXPLAIN of a write: the plan of the query that yields its rows.
fn explained_write(
    statement: ast::Statement,
    analyze: bool,
    verbose: bool,
    resolver: &Resolver<'_>,
) -> Result<LogicalPlan> {
    if analyze {
        return Err(Error::Unimplemented(format!(
            "EXPLAIN ANALYZE of {} is not served, since it would write: use EXPLAIN",
            keyword(&statement)
        )));
    }
    let (write, source) = write::take_apart(statement, resolver)?;
    let Some(plan) = source.plan(&write, resolver)? else {
        return Err(Error::InvalidArgument(
            "TRUNCATE has no plan to explain: it removes every row".into(),
        ));
    };
    LogicalPlanBuilder::from(plan)
        .explain(verbose, false)
        .and_then(LogicalPlanBuilder::build)
        .map_err(planning)
}

/// The logical plan of a query.
pub(super) fn query_plan(
    mut statement: ast::Statement,
    resolver: &Resolver<'_>,
) -> Result<LogicalPlan> {
    numbers::keep_digits(&mut statement);
    SqlToRel::new_with_options(resolver, resolver.parser_options())
        .sql_statement_to_plan(statement)
        .and_then(coercion::settled)
        .map_err(planning)
}

/// What DESCRIBE answers, with the names of types that users know; any other plan
/// as it is.
fn described(plan: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::DescribeTable(describe) = plan else {
        return Ok(plan);
    };
    let yes_no = |yes| if yes { "YES" } else { "NO" };
    let rows = describe.schema.fields().iter().map(|field| {
        let nullable = yes_no(field.is_nullable());
        vec![lit(field.name()), lit(type_name(field)), lit(nullable)]
    });
    let names = describe.output_schema.fields().iter();
    LogicalPlanBuilder::values(rows.collect())
        .and_then(|rows| {
            let columns = rows.schema().columns().into_iter().zip(names);
            let columns = columns.map(|(column, field)| Expr::Column(column).alias(field.name()));
            let columns: Vec<Expr> = columns.collect();
            rows.project(columns)
        })
        .and_then(LogicalPlanBuilder::build)
        .map_err(planning)
}

/// The one statement of a text that a caller sent, within the limits of one.
pub(super) fn read(sql: &str, limits: &Limits) -> Result<ast::Statement> {
    let mut statement = parse(sql, Some(limits))?;
    limits.check_statement(&statement)?;
    setting::check_calls(sql, &statement)?;
    params::type_concatenations(&mut statement);
    Ok(statement)
}

/// The one statement of a text that the server wrote or has checked before.
pub(super) fn parse_one(sql: &str) -> Result<ast::Statement> {
    parse(sql, None)
}

/// The one statement of a text.
fn parse(sql: &str, limits: Option<&Limits>) -> Result<ast::Statement> {
    let wrong = |error: &dyn std::fmt::Display| {
        Error::InvalidArgument(format!("the statement does not parse: {error}"))
    };
    let dialect = GenericDialect {};
    let mut tokens = Tokenizer::new(&dialect, sql)
        .tokenize_with_location()
        .map_err(|error| wrong(&error))?;
    params::number_placeholders(&mut tokens)?;
    if let Some(limits) = limits {
        limits.check_tokens(&tokens)?;
    }
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

/// The expression that a text is.
pub(super) fn parse_expression(sql: &str) -> Result<ast::Expr> {
    Parser::new(&GenericDialect {})
        .with_recursion_limit(NESTING_MAX)
        .try_with_sql(sql)
        .and_then(|mut parser| parser.parse_expr())
        .map_err(|error| {
            Error::InvalidArgument(format!("the expression {sql} does not parse: {error}"))
        })
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
    /// `INSERT INTO table`.
    Insert,
    /// `UPDATE table SET`.
    Update,
    /// `DELETE FROM table`.
    Delete,
    /// `TRUNCATE table`.
    Truncate,
    /// `MERGE INTO table USING`.
    Merge,
    /// `CREATE TABLE table`, of columns or of a query.
    CreateTable,
    /// `DROP TABLE table`.
    DropTable,
    /// `ALTER TABLE table`.
    AlterTable,
    /// `CREATE INDEX name ON table`.
    CreateIndex,
    /// `DROP INDEX name`.
    DropIndex,
    /// `CREATE VIEW view AS query`.
    CreateView,
    /// `DROP VIEW view`.
    DropView,
    /// `BEGIN`, `COMMIT`, `ROLLBACK` and those about savepoints.
    Transaction,
    /// `SET`, `RESET` and a bare `SELECT set_config`, of the session's tenant.
    Set,
    /// `SHOW` of the session's tenant.
    ShowSetting,
    /// `KILL QUERY` of a statement and `KILL CONNECTION` of a session.
    Kill,
}

impl StatementKind {
    /// Every kind.
    pub const ALL: [StatementKind; 22] = [
        StatementKind::Query,
        StatementKind::Explain,
        StatementKind::Describe,
        StatementKind::ShowTables,
        StatementKind::ShowColumns,
        StatementKind::ShowFunctions,
        StatementKind::Insert,
        StatementKind::Update,
        StatementKind::Delete,
        StatementKind::Truncate,
        StatementKind::Merge,
        StatementKind::CreateTable,
        StatementKind::DropTable,
        StatementKind::AlterTable,
        StatementKind::CreateIndex,
        StatementKind::DropIndex,
        StatementKind::CreateView,
        StatementKind::DropView,
        StatementKind::Transaction,
        StatementKind::Set,
        StatementKind::ShowSetting,
        StatementKind::Kill,
    ];

    /// Whether it changes the rows of a table.
    pub fn writes_rows(self) -> bool {
        use StatementKind::*;
        matches!(self, Insert | Update | Delete | Truncate | Merge)
    }

    /// Whether it changes what tables there are.
    pub fn defines(self) -> bool {
        use StatementKind::*;
        match self {
            CreateTable | DropTable | AlterTable | CreateIndex | DropIndex | CreateView
            | DropView => true,
            Query | Explain | Describe | ShowTables | ShowColumns | ShowFunctions | Insert
            | ShowSetting | Update | Delete | Truncate | Merge | Transaction | Set | Kill => false,
        }
    }

    /// Whether there is nothing of it to explain.
    fn has_no_plan(self) -> bool {
        use StatementKind::*;
        self.defines() || matches!(self, Set | ShowSetting | Kill)
    }

    /// Whether it yields rows of tables, and changes nothing.
    pub fn reads(self) -> bool {
        use StatementKind::*;
        !self.writes_rows() && !self.defines() && !matches!(self, Transaction | Set | Kill)
    }
}

/// The kind of a statement. Everything that is not listed is refused, so that
/// a kind which a newer parser knows is refused too.
pub(super) fn kind_of(statement: &ast::Statement) -> Result<StatementKind> {
    use ast::Statement::*;
    match statement {
        Query(query) if setting::is_set_config(query) => Ok(StatementKind::Set),
        Query(_) => Ok(StatementKind::Query),
        Set(_) | Reset(_) => Ok(StatementKind::Set),
        ShowVariable { .. } => Ok(StatementKind::ShowSetting),
        Kill { .. } => Ok(StatementKind::Kill),
        ExplainTable { .. } => Ok(StatementKind::Describe),
        ShowTables { .. } => Ok(StatementKind::ShowTables),
        ShowColumns { .. } => Ok(StatementKind::ShowColumns),
        ShowFunctions { .. } => Ok(StatementKind::ShowFunctions),
        Explain { statement, .. } => match kind_of(statement)? {
            StatementKind::Explain => Err(Error::InvalidArgument(
                "EXPLAIN of EXPLAIN is not served: name the statement itself".into(),
            )),
            kind if kind.has_no_plan() => Err(Error::InvalidArgument(format!(
                "{} has no plan to explain: EXPLAIN a query or a write",
                keyword(statement)
            ))),
            _ => Ok(StatementKind::Explain),
        },
        Insert(_) => Ok(StatementKind::Insert),
        Update(_) => Ok(StatementKind::Update),
        Delete(_) => Ok(StatementKind::Delete),
        Truncate(_) => Ok(StatementKind::Truncate),
        Merge(_) => Ok(StatementKind::Merge),
        CreateTable(create) if !create.external => Ok(StatementKind::CreateTable),
        CreateView(_) => Ok(StatementKind::CreateView),
        CreateIndex(_) => Ok(StatementKind::CreateIndex),
        AlterTable(_) => Ok(StatementKind::AlterTable),
        Drop {
            object_type: ast::ObjectType::Table,
            ..
        } => Ok(StatementKind::DropTable),
        Drop {
            object_type: ast::ObjectType::View,
            ..
        } => Ok(StatementKind::DropView),
        Drop {
            object_type: ast::ObjectType::Index,
            ..
        } => Ok(StatementKind::DropIndex),
        StartTransaction { .. }
        | Commit { .. }
        | Rollback { .. }
        | Savepoint { .. }
        | ReleaseSavepoint { .. } => Ok(StatementKind::Transaction),
        other => Err(Error::Unimplemented(format!(
            "{} is not served: send SELECT, VALUES, EXPLAIN, DESCRIBE, SHOW, INSERT, UPDATE, \
             DELETE, MERGE, TRUNCATE, or CREATE, ALTER and DROP of tables, views and indexes (sources are added through the catalog, \
             a tenant is bound by SetTenant or SET {TENANT_SETTING})",
            keyword(other)
        ))),
    }
}

/// Whether a statement is of the kind that binds the session.
pub(super) fn only_binds(statement: &ast::Statement) -> bool {
    kind_of(statement).is_ok_and(|kind| kind == StatementKind::Set)
}

/// What `SHOW TABLES` means: the tables that can be read from, in order, without
/// the descriptions that every catalog has of itself.
fn listed_tables(statement: &ast::Statement) -> Result<ast::Statement> {
    if statement.to_string() != "SHOW TABLES" {
        return Err(Error::Unimplemented(
            "SHOW TABLES with more words is not served: filter information_schema.tables".into(),
        ));
    }
    parse_one(
        "SELECT table_catalog, table_schema, table_name, table_type \
         FROM information_schema.tables WHERE table_schema <> 'information_schema' \
         ORDER BY table_catalog, table_schema, table_name",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EngineConfig;

    fn kind(sql: &str) -> std::result::Result<StatementKind, Error> {
        kind_of(&parse(sql, Some(&Limits::new(&EngineConfig::default())))?)
    }

    #[test]
    fn listed_statements_are_served() {
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
            "INSERT INTO t VALUES (1)",
            "UPDATE t SET a = 1",
            "DELETE FROM t",
            "TRUNCATE t",
            "CREATE TABLE t (a INT)",
            "DROP TABLE t",
            "BEGIN",
            "START TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "COMMIT",
            "ROLLBACK TO SAVEPOINT a",
            "RELEASE SAVEPOINT a",
            "SET app.current_tenant_id = 'x'",
            "RESET app.current_tenant_id",
            "SHOW app.current_tenant_id",
            "KILL QUERY 7",
        ] {
            assert!(kind(sql).is_ok(), "{sql}: {:?}", kind(sql));
        }
    }

    #[test]
    fn everything_else_is_refused_by_its_name() {
        for (sql, says) in [
            ("EXPLAIN DROP TABLE t", "DROP TABLE"),
            ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'x'", ""),
            (
                "CREATE FUNCTION f() RETURNS INT RETURN 1",
                "CREATE FUNCTION",
            ),
            ("COPY t TO 'x.csv'", "COPY"),
            ("EXPLAIN SET app.current_tenant_id = ''", ""),
            ("EXPLAIN SHOW app.current_tenant_id", "no plan"),
            ("EXPLAIN KILL QUERY 7", "no plan"),
            ("KILL QUERY -7", "does not parse"),
            ("PREPARE p AS SELECT 1", "PREPARE"),
            ("EXECUTE p", "EXECUTE"),
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
