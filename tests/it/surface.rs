//! Every kind of plan that DataFusion knows, and what becomes of it here: an answer
//! of the caller's own rows, or a refusal.
//!
//! The kinds are matched without a wildcard where DataFusion allows that, so that
//! one which a newer DataFusion adds does not compile before it has a case. That
//! each case is of its kind is asked of DataFusion's own planner.

use std::collections::BTreeSet;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{DdlStatement, LogicalPlan, Statement, WriteOp};
use datafusion::prelude::SessionContext;
use tonic::Code;

use crate::client::{ALICE, BOB, Client};
use crate::harness::TestServer;

/// What becomes of a plan of a kind.
#[derive(Clone, Copy)]
enum Case {
    /// The statement is answered.
    Answered(&'static str),
    /// The statement is refused.
    Refused(&'static str),
    /// No text makes one: why.
    Unmade(&'static str),
}

use Case::{Answered, Refused, Unmade};

/// A function that names a kind, and the cases of all.
macro_rules! kinds {
    ($name:ident, $cases:ident, $type:ty: $($pattern:pat => $kind:literal, $case:expr;)*) => {
        fn $name(value: &$type) -> &'static str {
            match value {
                $($pattern => $kind,)*
            }
        }

        const $cases: &[(&str, Case)] = &[$(($kind, $case)),*];
    };
}

kinds! { plan_kind, PLANS, LogicalPlan:
    LogicalPlan::Projection(_) => "Projection", Answered("SELECT word FROM t");
    LogicalPlan::Filter(_) => "Filter", Answered("SELECT word FROM t WHERE id > 0");
    LogicalPlan::Window(_) => "Window",
        Answered("SELECT word, row_number() OVER (ORDER BY id) AS n FROM t");
    LogicalPlan::Aggregate(_) => "Aggregate",
        Answered("SELECT word, count(*) AS n FROM t GROUP BY word");
    LogicalPlan::Sort(_) => "Sort", Answered("SELECT word FROM t ORDER BY id");
    LogicalPlan::Join(_) => "Join",
        Answered("SELECT a.word FROM t AS a JOIN t AS b ON a.id = b.id");
    LogicalPlan::Repartition(_) => "Repartition",
        Refused("SELECT word FROM t DISTRIBUTE BY id");
    LogicalPlan::Union(_) => "Union", Answered("SELECT word FROM t UNION ALL SELECT word FROM t");
    LogicalPlan::TableScan(_) => "TableScan", Answered("SELECT * FROM t");
    LogicalPlan::EmptyRelation(_) => "EmptyRelation", Answered("SELECT 1 AS one");
    LogicalPlan::Subquery(_) => "Subquery",
        Answered("SELECT word FROM t WHERE id IN (SELECT id FROM t)");
    LogicalPlan::SubqueryAlias(_) => "SubqueryAlias", Answered("SELECT x.word FROM t AS x");
    LogicalPlan::Limit(_) => "Limit", Answered("SELECT word FROM t LIMIT 5");
    LogicalPlan::Statement(_) => "Statement", Unmade("see STATEMENTS");
    LogicalPlan::Values(_) => "Values", Answered("VALUES (1), (2)");
    LogicalPlan::Explain(_) => "Explain", Answered("EXPLAIN SELECT word FROM t");
    LogicalPlan::Analyze(_) => "Analyze", Answered("EXPLAIN ANALYZE SELECT word FROM t");
    LogicalPlan::Extension(_) => "Extension", Unmade("nothing here makes plans of its own");
    LogicalPlan::Distinct(_) => "Distinct", Answered("SELECT DISTINCT word FROM t");
    LogicalPlan::Dml(_) => "Dml", Unmade("see WRITES");
    LogicalPlan::Ddl(_) => "Ddl", Unmade("see DEFINITIONS");
    LogicalPlan::Copy(_) => "Copy", Refused("COPY t TO 'stolen.csv'");
    LogicalPlan::DescribeTable(_) => "DescribeTable", Answered("DESCRIBE t");
    LogicalPlan::Unnest(_) => "Unnest", Answered("SELECT unnest([1, 2]) AS n, word FROM t");
    LogicalPlan::RecursiveQuery(_) => "RecursiveQuery",
        Answered("WITH RECURSIVE r AS (SELECT id FROM t UNION ALL SELECT id + 1 FROM r \
                  WHERE id < 3) SELECT id FROM r");
}

kinds! { statement_kind, STATEMENTS, Statement:
    Statement::TransactionStart(_) => "TransactionStart", Answered("START TRANSACTION");
    Statement::TransactionEnd(_) => "TransactionEnd", Answered("COMMIT");
    Statement::SetVariable(_) => "SetVariable",
        Refused("SET datafusion.execution.batch_size = 1");
    Statement::ResetVariable(_) => "ResetVariable",
        Refused("RESET datafusion.execution.batch_size");
    Statement::Prepare(_) => "Prepare", Refused("PREPARE p AS SELECT word FROM t");
    Statement::Execute(_) => "Execute", Refused("EXECUTE p");
    Statement::Deallocate(_) => "Deallocate", Refused("DEALLOCATE p");
}

kinds! { definition_kind, DEFINITIONS, DdlStatement:
    DdlStatement::CreateExternalTable(_) => "CreateExternalTable",
        Refused("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'");
    DdlStatement::CreateMemoryTable(_) => "CreateMemoryTable",
        Answered("CREATE TABLE made AS SELECT word FROM t");
    DdlStatement::CreateView(_) => "CreateView", Answered("CREATE VIEW v AS SELECT word FROM t");
    DdlStatement::CreateCatalogSchema(_) => "CreateCatalogSchema", Refused("CREATE SCHEMA s");
    DdlStatement::CreateCatalog(_) => "CreateCatalog", Refused("CREATE DATABASE d");
    DdlStatement::CreateIndex(_) => "CreateIndex", Answered("CREATE INDEX i ON t (id)");
    DdlStatement::DropTable(_) => "DropTable", Answered("DROP TABLE made");
    DdlStatement::DropView(_) => "DropView", Answered("DROP VIEW v");
    DdlStatement::DropCatalogSchema(_) => "DropCatalogSchema", Refused("DROP SCHEMA s");
    DdlStatement::CreateFunction(_) => "CreateFunction",
        Refused("CREATE FUNCTION f(INT) RETURNS INT RETURN $1");
    DdlStatement::DropFunction(_) => "DropFunction", Refused("DROP FUNCTION f");
}

kinds! { write_kind, WRITES, WriteOp:
    WriteOp::Insert(InsertOp::Append) => "Insert",
        Answered("INSERT INTO t SELECT id + 10, 'hers too' FROM t");
    WriteOp::Insert(InsertOp::Overwrite) => "InsertOverwrite",
        Refused("INSERT OVERWRITE t SELECT id, word FROM t");
    WriteOp::Insert(InsertOp::Replace) => "InsertReplace",
        Refused("REPLACE INTO t SELECT id, word FROM t");
    WriteOp::Update => "Update", Answered("UPDATE t SET word = 'hers anew'");
    WriteOp::Delete => "Delete", Answered("DELETE FROM t WHERE id > 10");
    WriteOp::Ctas => "Ctas", Unmade("CREATE TABLE AS is a definition");
    WriteOp::Truncate => "Truncate", Answered("TRUNCATE TABLE t");
    WriteOp::MergeInto(_) => "MergeInto",
        Answered("MERGE INTO t USING (VALUES (1)) AS s (id) ON t.id = s.id \
                  WHEN MATCHED THEN UPDATE SET word = 'hers'");
    // DataFusion has its users write one.
    _ => "a new kind of write", Unmade("none is known");
}

/// The kinds of every plan and statement in what DataFusion makes of `sql`.
async fn kinds_of(context: &SessionContext, sql: &str) -> Result<BTreeSet<&'static str>, String> {
    let plan = context.state().create_logical_plan(sql).await;
    let plan = plan.map_err(|error| error.to_string())?;
    let mut kinds = BTreeSet::new();
    let note = |node: &LogicalPlan| {
        kinds.insert(plan_kind(node));
        match node {
            LogicalPlan::Statement(statement) => kinds.insert(statement_kind(statement)),
            LogicalPlan::Ddl(definition) => kinds.insert(definition_kind(definition)),
            LogicalPlan::Dml(write) => kinds.insert(write_kind(&write.op)),
            _ => false,
        };
        Ok(TreeNodeRecursion::Continue)
    };
    plan.apply_with_subqueries(note).unwrap();
    Ok(kinds)
}

fn cases() -> impl Iterator<Item = (&'static str, Case)> {
    [PLANS, STATEMENTS, DEFINITIONS, WRITES]
        .into_iter()
        .flatten()
        .copied()
}

#[test]
fn kinds_of_writes_are_those_of_this_datafusion() {
    const LOOKED_UP_IN: &str = "55.2.0";
    assert_eq!(
        datafusion::DATAFUSION_VERSION,
        LOOKED_UP_IN,
        "give each kind of `WriteOp` and `InsertOp` that is new a case in WRITES, then name this \
         version"
    );
}

#[tokio::test]
async fn each_case_is_of_its_kind() {
    let context = SessionContext::new();
    for sql in [
        "CREATE TABLE t (id BIGINT, word VARCHAR)",
        "CREATE TABLE made (id BIGINT)",
    ] {
        context.sql(sql).await.unwrap();
    }
    let mut others = Vec::new();
    for (kind, case) in cases() {
        match case {
            Answered(sql) | Refused(sql) => {
                let found = kinds_of(&context, sql).await;
                if !found.as_ref().is_ok_and(|found| found.contains(kind)) {
                    others.push(format!("{kind}: {sql}: {found:?}"));
                }
            }
            Unmade(why) => assert!(!why.is_empty(), "{kind}"),
        }
    }
    assert!(others.is_empty(), "{others:#?}");
}

#[tokio::test]
async fn each_kind_of_plan_keeps_to_its_callers_rows() {
    let server = TestServer::start().await;
    let mut alice = Client::connect(&server, Some("alice")).await;
    alice.bind(ALICE).await;
    let mut bob = Client::connect(&server, Some("bob")).await;
    bob.bind(BOB).await;
    let whole = "SELECT id, word FROM t";
    for (client, word) in [(&mut bob, "foreign"), (&mut alice, "own")] {
        for sql in [
            "CREATE TABLE t (id BIGINT PRIMARY KEY, word VARCHAR)".to_owned(),
            format!("INSERT INTO t VALUES (1, '{word}')"),
        ] {
            client.query(&sql).await.unwrap();
        }
    }
    let his = bob.query(whole).await.unwrap();
    for (kind, case) in cases() {
        let (Answered(sql) | Refused(sql)) = case else {
            continue;
        };
        let answer = alice.query(sql).await;
        match (case, &answer) {
            (Answered(_), Ok(_)) => {}
            (Refused(_), Err(status)) => assert!(
                matches!(
                    status.code(),
                    Code::Unimplemented | Code::InvalidArgument | Code::PermissionDenied
                ),
                "{kind}: {sql}: {status:?}"
            ),
            (_, answer) => panic!("{kind}: {sql}: {answer:?}"),
        }
        assert!(
            !format!("{answer:?}").contains("foreign"),
            "{kind}: {sql}: {answer:?}"
        );
        assert_eq!(bob.query(whole).await.unwrap(), his, "{kind}: {sql}");
    }
    server.stop().await;
}
