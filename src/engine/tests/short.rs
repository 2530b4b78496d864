//! Short statements: which they are, and that they answer as others do.

use std::sync::mpsc;

use futures::FutureExt;

use super::*;
use crate::backend::may_block;
use crate::engine::short::{Places, has_one_input, is_short_to_plan, run_here};

async fn with_tables(engine: &Engine) {
    let shared = Scope::global(Principal::trusted_network());
    run(
        engine,
        &shared,
        "create table s (k bigint primary key, v text)",
    )
    .await;
    for (tenant, word) in [(ALICE, "alices"), (BOB, "bobs")] {
        let scope = scope_of(tenant);
        for sql in [
            "create table t (k bigint primary key, v text)",
            "create table checked (k bigint check (k > 0))",
            "create view seen as select * from t",
        ] {
            run(engine, &scope, sql).await;
        }
        for table in ["t", "s"] {
            let sql = format!("insert into {table} (k, v) values (1, '{word}'), (2, null)");
            run(engine, &scope, &sql).await;
        }
    }
}

#[tokio::test]
async fn what_may_compute_for_long_is_not_short() {
    let (engine, _dir) = engine().await;
    with_tables(&engine).await;
    let scope = scope_of(ALICE);
    let snapshot = engine.0.catalog.snapshot(&scope).await.unwrap();
    let is_short = |sql: &str| {
        let parsed = statement::read(sql, engine.0.planner.limits()).unwrap();
        is_short_to_plan(&parsed, &snapshot)
    };
    for sql in [
        "select 1",
        "select * from t where k = 1",
        "select v, k + 1 as next from s where k in (1, 2) and v is not null limit 3",
        "select * from t where k = $1",
        "insert into t (k, v) values (3, 'c'), (-4, $1)",
    ] {
        assert!(is_short(sql), "{sql}");
    }
    let deep = format!("select {}1{}", "(".repeat(40), ")".repeat(40));
    let wide = format!("select {}", vec!["1"; 300].join(", "));
    for sql in [
        "select repeat('x', 1000000000)",
        "select * from t a, t b",
        "select * from t where k = (select 1)",
        "select * from seen where k = 1",
        "select * from SEEN where k = 1",
        "select 1 union select 2",
        "with a as (select 1) select * from a",
        "select * from generate_series(1, 10)",
        "select case when k = 1 then 1 end from t",
        "select * from t where v like '%x%'",
        "insert into checked values (1)",
        "insert into t select * from t",
        "update t set k = 1",
        &deep,
        &wide,
    ] {
        assert!(!is_short(sql), "{sql}");
    }
}

/// The rules that a plan of one input goes without would not have changed it.
#[tokio::test]
async fn a_plan_of_one_input_is_what_every_rule_makes_of_it() {
    let (engine, _dir) = engine().await;
    with_tables(&engine).await;
    let scope = scope_of(ALICE);
    let state = engine.0.planner.state();
    for sql in [
        "select 1 as a, 2 + 3 as b",
        "select * from t where k = 1 and v = 'x'",
        "select v from s where k = 1 or k = 1 + 1",
        "select k + 1, k + 1 as again from t where k > 0 and not (k <= 5) limit 4",
        "select upper(v) from (select v, k from t where k = 3) x where k < 9",
        "select k from t where false",
        "select k from t where true limit 0",
        "select * from rows.public.rows where id in (1, 2, 3) and tenant_id is not null",
        "select v from (select * from (select * from t limit 5) a limit 3) b where v <> ''",
    ] {
        let plan = unruled(&engine, &scope, sql).await;
        assert!(has_one_input(&plan).unwrap(), "{sql}");
        let fewer = engine.0.planner.optimize(plan.clone()).unwrap();
        assert_eq!(fewer, state.optimize(&plan).unwrap(), "{sql}");
    }
    for sql in [
        "select distinct v from t",
        "select count(*) from t",
        "select * from t order by k",
        "select * from t a join t b on a.k = b.k",
        "select * from t where k in (select k from t)",
        "select 1 union all select 2",
    ] {
        let plan = unruled(&engine, &scope, sql).await;
        assert!(!has_one_input(&plan).unwrap(), "{sql}");
    }
}

/// Each tenant's rows by key, in an own table and in a shared one, as a scan of the
/// same rows answers.
#[tokio::test]
async fn rows_by_key_are_those_that_a_scan_finds() {
    let (engine, _dir) = engine().await;
    with_tables(&engine).await;
    for (tenant, own, others) in [(ALICE, "alices", "bobs"), (BOB, "bobs", "alices")] {
        let scope = scope_of(tenant);
        for table in ["t", "s"] {
            for (by_key, by_scan) in [
                ("k = 1", "k + 0 = 1"),
                ("k = 2", "k + 0 = 2"),
                ("k = 3", "k + 0 = 3"),
                ("k in (1, 2) and v is null", "k + 0 < 3 and v is null"),
                ("k = 1 or k = 2", "k + 0 < 3"),
            ] {
                let of = |condition| format!("select * from {table} where {condition}");
                let found = run(&engine, &scope, &of(by_key)).await;
                assert_eq!(found, run(&engine, &scope, &of(by_scan)).await, "{by_key}");
                assert!(!found.contains(others), "{found}");
            }
            let sql = format!("select v from {table} where k = 1");
            assert!(run(&engine, &scope, &sql).await.contains(own));
        }
    }
}

/// No more threads than there are places wait for a disk; the others go on.
#[test]
fn as_many_threads_may_block_as_there_are_places() {
    let places = Arc::new(Places::new(1));
    let may = || {
        let work = run_here(&places, async { Ok(may_block()) });
        work.now_or_never().map(Result::unwrap)
    };
    let (entered, has_entered) = mpsc::channel();
    let (leave, may_leave) = mpsc::channel::<()>();
    std::thread::scope(|threads| {
        let places = &places;
        let first = threads.spawn(move || {
            let work = run_here(places, async move {
                entered.send(()).unwrap();
                may_leave.recv().unwrap();
                Ok(may_block())
            });
            work.now_or_never().map(Result::unwrap)
        });
        has_entered.recv().unwrap();
        assert_eq!(may(), Some(false));
        leave.send(()).unwrap();
        assert_eq!(first.join().unwrap(), Some(true));
    });
    assert_eq!(may(), Some(true));
    assert!(!may_block());
}

#[tokio::test]
async fn a_panic_of_short_work_is_an_error_and_gives_its_place_back() {
    let places = Arc::new(Places::new(1));
    for _again in 0..3 {
        let work = async {
            assert!(may_block());
            panic!("on purpose")
        };
        let ran: Result<()> = run_here(&places, work).await;
        let error = ran.unwrap_err().to_string();
        assert!(error.contains("failed inside the engine"), "{error}");
    }
    let free = run_here(&places, async { Ok(may_block()) });
    assert_eq!(free.now_or_never().map(Result::unwrap), Some(true));
}

/// What is read by a whole key is planned physically once, in a tenant's own table
/// and in a shared one, whatever the key's values are and wherever they stand. So it
/// is for a tenant whose UUID has no letters, whose scans were once filtered again.
#[tokio::test]
async fn rows_of_a_whole_key_are_planned_once() {
    const DIGITS: &str = "00000000-0000-4000-8000-000000000001";
    let (engine, _dir) = engine().await;
    with_tables(&engine).await;
    let digits = scope_of(DIGITS);
    run(
        &engine,
        &digits,
        "create table t (k bigint primary key, v text)",
    )
    .await;
    let names = NameDefaults::default();
    for scope in [scope_of(ALICE), digits] {
        for (sql, once) in [
            ("select * from t where k = 1", true),
            ("select * from s where k = 1", true),
            ("select * from t where k = $1", true),
            ("select * from s where k = $1", true),
            ("select v from s where $1 = k", true),
            ("select * from s where v = $1", false),
            ("select * from s where k > $1", false),
            ("select * from s where k = $1 and v = 'x'", false),
        ] {
            let statement = engine.prepare(&scope, &names, sql).await.unwrap();
            let Action::Read(reading) = statement.action() else {
                panic!("{sql} reads");
            };
            assert_eq!(reading.is_of_key(), once, "{:?} {sql}", scope.tenant());
        }
    }
}
