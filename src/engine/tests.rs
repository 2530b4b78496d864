//! Each layer of enforcement by itself, with the others out of the way.

mod buggy_caller;
mod short;

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Int64Type, Schema};
use arrow::util::pretty::pretty_format_batches;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::streaming::StreamingTableExec;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::sql::planner::SqlToRel;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;

use super::*;
use crate::tenant::{Principal, TenantId};

const ALICE: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a";
const BOB: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b";

fn scope_of(tenant: &str) -> Scope {
    let tenant = TenantId::from_str(tenant).unwrap();
    Scope::tenant_bound(Principal::trusted_network(), tenant)
}

/// An engine with one shared source: row 1 is Alice's, 2 Bob's, 3 everybody's.
async fn engine() -> (Engine, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.parquet");
    let rows = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3])) as _),
        (
            "tenant_id",
            Arc::new(StringArray::from(vec![Some(ALICE), Some(BOB), None])) as _,
        ),
    ])
    .unwrap();
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let config = JammiConfig {
        artifact_dir: dir.path().join("artifacts"),
        ..JammiConfig::default()
    };
    let engine = Engine::open(&config).await.unwrap();
    let request = RegisterSource {
        name: "rows".into(),
        location: path.to_str().unwrap().into(),
        format: None,
        tenant_column: TenantColumnChoice::Infer,
    };
    let shared = Scope::global(Principal::trusted_network());
    engine.register_source(&shared, request).await.unwrap();
    (engine, dir)
}

/// The plan of `sql` for `scope` without the analyzer rule.
async fn unruled(engine: &Engine, scope: &Scope, sql: &str) -> LogicalPlan {
    let parts = &engine.0;
    let snapshot = parts.catalog.snapshot(scope).await.unwrap();
    let names = NameDefaults::default();
    let origins = parts.origins();
    let resolver = names::Resolver::new(scope, &names, &parts.planner, &snapshot, origins);
    let statement = Parser::parse_sql(&GenericDialect {}, sql)
        .unwrap()
        .remove(0);
    SqlToRel::new(&resolver)
        .sql_statement_to_plan(statement)
        .unwrap()
}

async fn physical(engine: &Engine, plan: LogicalPlan) -> Arc<dyn ExecutionPlan> {
    let planner = &engine.0.planner;
    let optimized = planner.optimize(plan).unwrap();
    planner.physical(&optimized).await.unwrap()
}

#[tokio::test]
async fn the_guard_holds_without_the_rule() {
    let (engine, _dir) = engine().await;
    for (tenant, expected) in [(ALICE, [1, 3]), (BOB, [2, 3])] {
        let scope = scope_of(tenant);
        let sql = "SELECT id FROM rows.public.rows WHERE id > 0 ORDER BY id";
        let plan = physical(&engine, unruled(&engine, &scope, sql).await).await;
        let batches = collect(plan, engine.0.planner.session().task_ctx())
            .await
            .unwrap();
        let ids: Vec<i64> = batches
            .iter()
            .flat_map(|batch| {
                batch
                    .column(0)
                    .as_primitive::<Int64Type>()
                    .values()
                    .to_vec()
            })
            .collect();
        assert_eq!(ids, expected);
    }
}

#[tokio::test]
async fn the_rule_reaches_every_scan_once_and_refuses_another_scopes_table() {
    let (engine, _dir) = engine().await;
    let alice = scope_of(ALICE);
    let sql = "SELECT id, (SELECT max(id) FROM rows.public.rows) FROM rows.public.rows \
               WHERE id IN (SELECT id FROM rows.public.rows) \
               UNION ALL SELECT 1, 2 WHERE EXISTS (SELECT 1 FROM rows.public.rows)";
    let plan = unruled(&engine, &alice, sql).await;
    let options = engine.0.planner.state().config_options();
    let rule = TenantScopeAnalyzerRule::new(alice.clone());
    let once = rule.analyze(plan.clone(), options).unwrap();
    let shown = once.display_indent().to_string();
    assert_eq!(shown.matches("TableScan: rows.public.rows").count(), 4);
    assert_eq!(shown.matches("tenant_id IS NULL").count(), 4, "{shown}");
    assert_eq!(rule.analyze(once.clone(), options).unwrap(), once);
    let bobs = TenantScopeAnalyzerRule::new(scope_of(BOB));
    assert!(bobs.analyze(plan, options).is_err());
}

#[tokio::test]
async fn the_proof_refuses_what_is_not_guarded_for_the_scope() {
    let (engine, _dir) = engine().await;
    let (alice, bob) = (scope_of(ALICE), scope_of(BOB));
    let sql = "SELECT count(*) FROM rows.public.rows";
    let plan = physical(&engine, unruled(&engine, &alice, sql).await).await;
    assert!(verify::verify(&plan, &alice).is_ok());
    assert!(verify::verify(&plan, &bob).is_err());
    let unknown =
        StreamingTableExec::try_new(Arc::new(Schema::empty()), vec![], None, vec![], false, None);
    let unknown: Arc<dyn ExecutionPlan> = Arc::new(unknown.unwrap());
    let above: Arc<dyn ExecutionPlan> = Arc::new(CoalescePartitionsExec::new(unknown));
    assert!(verify::verify(&above, &alice).is_err());
}

#[tokio::test]
async fn a_statement_runs_for_the_scope_that_prepared_it_alone() {
    let (engine, _dir) = engine().await;
    let names = NameDefaults::default();
    let sql = "SELECT id FROM rows.public.rows";
    let alices = engine.prepare(&scope_of(ALICE), &names, sql).await.unwrap();
    let bobs = engine.prepare(&scope_of(BOB), &names, sql).await.unwrap();
    assert!(!Arc::ptr_eq(&alices, &bobs));
    assert!(matches!(
        engine.execute(&scope_of(BOB), &alices, &[]).await,
        Err(Error::FailedPrecondition(_))
    ));
}

/// A statement that is optimized before its values are known answers as one
/// whose text holds them, for each tenant by itself.
#[tokio::test]
async fn values_that_come_after_the_plan_answer_like_values_in_the_text() {
    let (engine, _dir) = engine().await;
    let names = NameDefaults::default();
    let kept = [
        ("select id from rows where id = $1", vec!["2"]),
        ("select id from rows where id = $1", vec!["1"]),
        (
            "select id from rows where $1 <= id and id < $2",
            vec!["1", "3"],
        ),
        (
            "select id from rows where id in ($1, $2, 7)",
            vec!["2", "3"],
        ),
        (
            "select id from rows where id in ($1, $2, 4, 5, 6)",
            vec!["2", "3"],
        ),
        (
            "select id from rows where id between $1 and $2",
            vec!["2", "9"],
        ),
        (
            "select id from rows where id not between $1 and $2",
            vec!["2", "9"],
        ),
        (
            "select id from rows where id is distinct from $1",
            vec!["2"],
        ),
        (
            "select id from rows where tenant_id = $1",
            vec!["'018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b'"],
        ),
        (
            "select id from rows where id = $1",
            vec!["cast(null as bigint)"],
        ),
        (
            "select id, $1 as said from rows where id > $2",
            vec!["'x'", "0"],
        ),
        (
            "select a.id from rows a join rows b on a.id = b.id where b.id = $1",
            vec!["3"],
        ),
        (
            "select a.id from rows a left join rows b on a.id = b.id and b.id = $1",
            vec!["3"],
        ),
        ("select count(*) from rows where id <> $1", vec!["3"]),
        (
            "select id from rows where id = $1 union all select id from rows where id = $2",
            vec!["1", "3"],
        ),
    ];
    let anew = [
        (
            "select id from rows where id = cast($1 as bigint)",
            vec!["'3'"],
        ),
        ("select id from rows where $1 is null or id = $1", vec!["3"]),
        ("select id from rows where id + $1 > 3", vec!["1"]),
        ("select id from rows order by id limit $1", vec!["1"]),
        ("select id from rows where tenant_id like $1", vec!["'%9a'"]),
        (
            "select id from rows where id = $1 and now() > to_timestamp(0)",
            vec!["3"],
        ),
        ("select id + $1 as more from rows", vec!["3"]),
    ];
    for tenant in [ALICE, BOB] {
        let scope = scope_of(tenant);
        for ((sql, values), is_kept) in kept
            .iter()
            .map(|case| (case, true))
            .chain(anew.iter().map(|case| (case, false)))
        {
            let sql = &sql.replace(" rows", " rows.public.rows");
            let statement = engine.prepare(&scope, &names, sql).await.unwrap();
            let Action::Read(reading) = statement.action() else {
                panic!("{sql} reads");
            };
            assert_eq!(reading.is_optimized(), is_kept, "{sql}");
            let mut text = sql.clone();
            let mut bound = vec![];
            for (at, value) in values.iter().enumerate() {
                text = text.replace(&format!("${}", at + 1), value);
                bound.push(literal(&engine, &scope, value).await);
            }
            let in_text = engine.prepare(&scope, &names, &text).await.unwrap();
            let after = answer(&engine, &scope, &statement, &bound).await;
            assert_eq!(after, answer(&engine, &scope, &in_text, &[]).await, "{sql}");
            let others = if tenant == ALICE { "2" } else { "1" };
            let seen = ["| ", others, " "].concat();
            let is_count = sql.contains("count(");
            assert!(is_count || !after.contains(&seen), "{sql}: {after}");
        }
    }
}

async fn literal(engine: &Engine, scope: &Scope, text: &str) -> ScalarValue {
    let names = NameDefaults::default();
    let sql = format!("select {text}");
    let statement = engine.prepare(scope, &names, &sql).await.unwrap();
    let rows = engine.execute(scope, &statement, &[]).await.unwrap();
    let rows: Vec<RecordBatch> = rows.try_collect().await.unwrap();
    ScalarValue::try_from_array(rows[0].column(0), 0).unwrap()
}

async fn answer(
    engine: &Engine,
    scope: &Scope,
    statement: &Arc<Statement>,
    values: &[ScalarValue],
) -> String {
    let rows = engine.execute(scope, statement, values).await.unwrap();
    let rows: Vec<RecordBatch> = rows.try_collect().await.unwrap();
    let text = pretty_format_batches(&rows).unwrap().to_string();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

async fn run(engine: &Engine, scope: &Scope, sql: &str) -> String {
    let names = NameDefaults::default();
    let statement = engine.prepare(scope, &names, sql).await.unwrap();
    answer(engine, scope, &statement, &[]).await
}

/// The least and the greatest value of a key, how many rows there are and the
/// first few of them are known without reading the table.
#[tokio::test]
async fn what_an_index_or_a_few_rows_tell_is_asked_of_the_backend() {
    let (engine, _dir) = engine().await;
    let (alice, bob) = (scope_of(ALICE), scope_of(BOB));
    for (scope, from, to) in [(&alice, 5, 20_004), (&bob, 70_000, 70_002)] {
        run(
            &engine,
            scope,
            "create table t (k bigint primary key, v bigint)",
        )
        .await;
        let rows = format!(
            "insert into t select value, value as v from generate_series({from}, {to}) s(value)"
        );
        run(&engine, scope, &rows).await;
    }
    for (sql, values) in [
        ("select max(k) as x, min(k) as y from t", "| 20004 | 5 |"),
        ("select count(*) as x from t", "| 20000 |"),
        (
            "select count(*) as x from (select k from t limit 3)",
            "| 3 |",
        ),
        ("select max(k) - min(k) as x from t", "| 19999 |"),
    ] {
        let answer = run(&engine, &alice, sql).await;
        let answer = answer.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(answer.contains(values), "{sql}: {answer}");
        assert_eq!(engine.0.chunks.entries(), 0, "{sql}");
    }
    assert!(
        run(&engine, &bob, "select max(k) as x from t")
            .await
            .contains("70002")
    );
    assert!(
        run(&engine, &alice, "select max(v) as x from t")
            .await
            .contains("20004")
    );
    assert!(engine.0.chunks.entries() > 0);
}

/// For every type whose extremes an index finds, they are those of a whole read.
#[tokio::test]
async fn the_extremes_that_an_index_finds_are_those_of_all_rows() {
    let (engine, _dir) = engine().await;
    let (alice, bob) = (scope_of(ALICE), scope_of(BOB));
    let global = Scope::global(Principal::trusted_network());
    for (at, (data_type, values)) in [
        (
            "bigint",
            "(3), (null), (-9223372036854775808), (9223372036854775807)",
        ),
        ("bigint unsigned", "(18446744073709551615), (0), (null)"),
        ("varchar", "('b'), (''), ('é'), ('B'), (null)"),
        ("date", "(date '1969-12-31'), (date '2024-02-29'), (null)"),
        (
            "timestamp",
            "(timestamp '1969-12-31 23:59:59.5'), (timestamp '2024-02-29 00:00:00')",
        ),
        ("decimal(20, 3)", "(-1.5), (0), (12345678.125), (null)"),
        ("boolean", "(true), (false), (null)"),
        (
            "double",
            "(-0.0), (0.0), ('nan'::double), ('-inf'::double), (null)",
        ),
        ("bytea", "(x'00ff'), (x''), (x'ff'), (null)"),
        ("int", "(null), (null)"),
    ]
    .into_iter()
    .enumerate()
    {
        // The shared table has rows in every lane.
        run(
            &engine,
            &global,
            &format!("create table g{at} (k {data_type})"),
        )
        .await;
        run(
            &engine,
            &global,
            &format!("create index g{at}_k on g{at} (k)"),
        )
        .await;
        for scope in [&alice, &bob] {
            run(
                &engine,
                scope,
                &format!("create table t{at} (k {data_type})"),
            )
            .await;
            run(
                &engine,
                scope,
                &format!("create index t{at}_k on t{at} (k)"),
            )
            .await;
        }
        let empty = format!("select min(k), max(k) from t{at}");
        let nothing = run(&engine, &alice, &empty).await;
        run(&engine, &bob, &format!("insert into g{at} values {values}")).await;
        run(&engine, &bob, &format!("insert into t{at} values {values}")).await;
        assert_eq!(run(&engine, &alice, &empty).await, nothing, "{data_type}");
        run(
            &engine,
            &alice,
            &format!("insert into g{at} values {values}"),
        )
        .await;
        run(
            &engine,
            &alice,
            &format!("insert into t{at} values {values}"),
        )
        .await;
        for table in [format!("t{at}"), format!("g{at}")] {
            // A filter keeps the aggregate from the index.
            let sql =
                |filter| format!("select min(k) as least, max(k) as most from {table}{filter}");
            let found = run(&engine, &alice, &sql("")).await;
            let read = run(
                &engine,
                &alice,
                &sql(" where k is not null or 1 < random()"),
            )
            .await;
            assert_eq!(found, read, "{data_type} in {table}");
        }
        let both = format!("select max(k) as a, count(k) as b, min(k) as c from t{at}");
        let count = values.matches('(').count() - values.matches("(null)").count();
        let both = run(&engine, &alice, &both).await;
        assert!(
            both.contains(&format!("| {count} ")) || both.contains(&format!(" {count} |")),
            "{both}"
        );
    }
}
