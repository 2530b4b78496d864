//! What a tenant pays, through the wire with a real client, each figure beside
//! what it is compared to.
//!
//! Both sides of a comparison run in turns, on the same machine, over the same
//! rows, and their medians are compared: the ratios hold on a busy machine, the
//! times do not. `JAMMI_BENCH_DIR` says where the data is kept between runs.

// A bench that cannot go on stops, and prints what it measured.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod data;
#[path = "../shared/mod.rs"]
mod shared;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use futures::TryStreamExt;
use jammi_db::config::JammiConfig;
use jammi_db::engine::{Engine, NameDefaults, RegisterSource, TenantColumnChoice};
use jammi_db::tenant::{Principal, Scope};
use tempfile::TempDir;

use data::{Data, FEW_TENANTS, MANY_TENANTS, TENANT_ROWS, WHOLE_ROWS, tenant};
use shared::Outcome;
use shared::bare::{self, BARE_SERVER, Bare};
use shared::measure::{Figures, Pair, in_turns};
use shared::wire::{Client, Server};

const SESSION: &str = "bench";
const SELECT_ONE: &str = "select 1";
const SELECT_SERIES: &str = "select * from generate_series(1, 100000000)";
const SELECT_HALVES: [&str; 2] = [
    "select * from generate_series(1, 50000000)",
    "select * from generate_series(50000001, 100000000)",
];
const SELECT_WHOLE: &str = "select * from whole.public.whole";
/// The same rows, which the bare server decodes from the file when it is asked.
const SELECT_DECODED: &str = "select * from whole, decoded";
const SERIES_ROWS: u64 = 100_000_000;

/// What a scan reads of every row: all columns but the tenant.
const SUMMARY: &str = "count(*), sum(id), max(at), max(kind), sum(amount), max(title)";

fn main() -> Outcome {
    let runtime = tokio::runtime::Runtime::new()?;
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(BARE_SERVER) {
        let dir = arguments.next().ok_or("the data's directory is missing")?;
        return runtime.block_on(serve_bare(Path::new(&dir)));
    }
    let kept = std::env::var_os("JAMMI_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let data = Data::open(&kept)?;
    let (table, missed) = runtime.block_on(figures(&kept, &data))?.finish();
    let cores = std::thread::available_parallelism()?;
    println!("{table}\n{cores} cores; {missed} targets missed");
    Ok(())
}

/// Serves the answers to the statements that are compared, from memory.
async fn serve_bare(data_dir: &Path) -> Outcome {
    const DECODE: &str = "select * from whole";
    let data = Data::open(data_dir)?;
    let config = SessionConfig::new().with_batch_size(8_192);
    let mut config = config.with_collect_statistics(false);
    config
        .options_mut()
        .execution
        .parquet
        .schema_force_view_types = false;
    let context = SessionContext::new_with_config(config);
    let whole = data.whole();
    let whole = whole.to_str().ok_or("the path is text")?;
    let options = ParquetReadOptions::default();
    context.register_parquet("whole", whole, options).await?;
    let one = RecordBatch::try_from_iter([(
        "Int64(1)",
        Arc::new(Int64Array::from(vec![1])) as ArrayRef,
    )])?;
    let mut answers = HashMap::from([(SELECT_ONE, Arc::new(vec![one]))]);
    for (statement, same) in [(SELECT_SERIES, SELECT_SERIES), (SELECT_WHOLE, DECODE)] {
        let batches = context.sql(same).await?.collect().await?;
        answers.insert(statement, Arc::new(batches));
    }
    let decoded = Arc::clone(&answers[SELECT_WHOLE]);
    answers.insert(SELECT_DECODED, decoded);
    bare::serve(Bare {
        answers,
        any: None,
        decoded: Some((SELECT_DECODED, context, DECODE)),
    })
    .await
}

async fn figures(kept: &Path, data: &Data) -> Outcome<Figures> {
    // The server is alone on its directory, as it is where it is installed.
    let (artifacts, own) = (tempfile::tempdir_in(kept)?, tempfile::tempdir_in(kept)?);
    let opened = |artifacts: &TempDir| {
        let config = JammiConfig {
            artifact_dir: artifacts.path().to_owned(),
            ..JammiConfig::default()
        };
        async move { Engine::open(&config).await }
    };
    register(&opened(&artifacts).await?, data).await?;
    let engine = opened(&own).await?;
    register(&engine, data).await?;
    let jammi = Server::jammi(artifacts.path(), &[])?;
    let bare = bare::start(kept)?;
    let mut second = jammi.connect(SESSION).await?;
    let (mut jammi, mut bare) = (jammi.connect(SESSION).await?, bare.connect(SESSION).await?);
    jammi.bind(tenant().id()).await?;

    let mut figures = Figures::new();
    select_one(&mut figures, &mut jammi, &mut bare).await?;
    scoping(&mut figures, &engine, data).await?;
    point_query(&mut figures, &mut jammi, data).await?;
    tenant_scans(&mut figures, &mut jammi).await?;
    large_scan(&mut figures, &engine, data).await?;
    large_results(&mut figures, &mut jammi, &mut bare).await?;
    two_at_once(&mut figures, &mut jammi, &mut second).await?;
    Ok(figures)
}

/// Makes the files sources of the tenant.
async fn register(engine: &Engine, data: &Data) -> Outcome {
    let sources = [
        // No predicate at all is what other tenants' rows are compared to.
        ("own", data.own(), TenantColumnChoice::Waived),
        ("whole", data.whole(), TenantColumnChoice::Infer),
        (
            "sorted_few",
            data.sorted(FEW_TENANTS),
            TenantColumnChoice::Infer,
        ),
        (
            "sorted_many",
            data.sorted(MANY_TENANTS),
            TenantColumnChoice::Infer,
        ),
        (
            "hive_few",
            data.hive(FEW_TENANTS),
            TenantColumnChoice::Infer,
        ),
        (
            "hive_many",
            data.hive(MANY_TENANTS),
            TenantColumnChoice::Infer,
        ),
    ];
    for (name, path, tenant_column) in sources {
        let request = RegisterSource {
            name: name.into(),
            location: path.to_str().ok_or("the path is text")?.into(),
            format: None,
            tenant_column,
        };
        engine.register_source(&scope(), request).await?;
    }
    Ok(())
}

fn scope() -> Scope {
    Scope::tenant_bound(Principal::trusted_network(), tenant().id())
}

/// DataFusion as it comes, with `path` as the table `t`.
async fn by_hand(path: &Path) -> Outcome<SessionContext> {
    let context = SessionContext::new();
    let path = path.to_str().ok_or("the path is text")?;
    let options = ParquetReadOptions::default();
    context.register_parquet("t", path, options).await?;
    Ok(context)
}

/// The lane predicate as a user would write it.
fn predicate() -> String {
    format!("(tenant_id = '{}' or tenant_id is null)", tenant().id())
}

async fn select_one(figures: &mut Figures, jammi: &mut Client, bare: &mut Client) -> Outcome {
    let pair = in_turns(
        2_000,
        async || jammi.query(SELECT_ONE, 1).await,
        async || bare.query(SELECT_ONE, 1).await,
    )
    .await?;
    figures.at_most_more(
        "`select 1` over the wire",
        "bare Flight server",
        pair,
        Duration::from_micros(300),
    );
    Ok(())
}

/// Everything up to the first row, for statements that were never seen before
/// and for one that was.
async fn scoping(figures: &mut Figures, engine: &Engine, data: &Data) -> Outcome {
    let context = by_hand(&data.sorted(FEW_TENANTS)).await?;
    let names = NameDefaults::default();
    let scope = scope();
    for (what, fresh) in [
        ("planning a statement never seen", true),
        ("planning a statement seen before", false),
    ] {
        let ids = (0..).map(|row| if fresh { tenant().row_id(row) } else { 0 });
        let (mut our_ids, mut their_ids) = (ids.clone(), ids);
        let pair = in_turns(
            1_000,
            async || {
                let id = our_ids.next().unwrap_or_default();
                let sql = format!("select * from sorted_few.public.sorted_few where id = {id}");
                let statement = engine.prepare(&scope, &names, &sql).await?;
                engine.execute(&scope, &statement, &[]).await?;
                Ok(())
            },
            async || {
                let id = their_ids.next().unwrap_or_default();
                let sql = format!("select * from t where id = {id} and {}", predicate());
                let plan = context.sql(&sql).await?.create_physical_plan().await?;
                execute_stream(plan, context.task_ctx())?;
                Ok(())
            },
        )
        .await?;
        figures.at_most_more(
            what,
            "DataFusion, predicate by hand",
            pair,
            Duration::from_micros(100),
        );
    }
    Ok(())
}

async fn point_query(figures: &mut Figures, jammi: &mut Client, data: &Data) -> Outcome {
    let context = by_hand(&data.sorted(FEW_TENANTS)).await?;
    for (what, fresh) in [
        ("point query in 1M rows, same text", false),
        ("point query in 1M rows, new text", true),
    ] {
        let ids = (0..).map(|row| tenant().row_id(if fresh { row % TENANT_ROWS } else { 77 }));
        let (mut our_ids, mut their_ids) = (ids.clone(), ids);
        let pair = in_turns(
            500,
            async || {
                let id = our_ids.next().unwrap_or_default();
                let sql = format!("select * from sorted_few.public.sorted_few where id = {id}");
                jammi.query(&sql, 1).await
            },
            async || {
                let id = their_ids.next().unwrap_or_default();
                let sql = format!("select * from t where id = {id} and {}", predicate());
                let rows: usize = run(&context, &sql).await?;
                if rows == 1 {
                    Ok(())
                } else {
                    Err("one row is expected".into())
                }
            },
        )
        .await?;
        figures.at_most(what, "DataFusion in process, predicate by hand", pair, 1.5);
    }
    Ok(())
}

async fn run(context: &SessionContext, sql: &str) -> Outcome<usize> {
    let mut batches = context.sql(sql).await?.execute_stream().await?;
    let mut rows = 0;
    while let Some(batch) = batches.try_next().await? {
        rows += batch.num_rows();
    }
    Ok(rows)
}

async fn tenant_scans(figures: &mut Figures, jammi: &mut Client) -> Outcome {
    for layout in ["sorted", "hive"] {
        for (columns, reads, rows) in [(SUMMARY, "aggregate", 1), ("*", "rows", TENANT_ROWS)] {
            let few = tenant_scan(jammi, &format!("{layout}_few"), columns, rows).await?;
            let many = tenant_scan(jammi, &format!("{layout}_many"), columns, rows).await?;
            figures.at_most(
                &format!("a tenant's {reads} of 10M rows, {layout} by tenant"),
                "its rows in a file of their own",
                many,
                1.2,
            );
            figures.flat(
                &format!("that ratio among 1,000 tenants, {layout}"),
                "that ratio among 100",
                [many.ratio(), few.ratio()],
                1.1,
            );
        }
    }
    Ok(())
}

async fn tenant_scan(jammi: &mut Client, source: &str, columns: &str, rows: u64) -> Outcome<Pair> {
    let shared = format!("select {columns} from {source}.public.{source}");
    let own = format!("select {columns} from own.public.own");
    let jammi = tokio::sync::Mutex::new(jammi);
    in_turns(
        300,
        async || jammi.lock().await.query(&shared, rows).await,
        async || jammi.lock().await.query(&own, rows).await,
    )
    .await
}

async fn large_scan(figures: &mut Figures, engine: &Engine, data: &Data) -> Outcome {
    let context = by_hand(&data.whole()).await?;
    let names = NameDefaults::default();
    let scope = scope();
    let pair = in_turns(
        15,
        async || {
            let sql = format!("select {SUMMARY} from whole.public.whole");
            let statement = engine.prepare(&scope, &names, &sql).await?;
            let rows = engine.execute(&scope, &statement, &[]).await?;
            rows.try_for_each(|_| async { Ok(()) }).await?;
            Ok(())
        },
        async || {
            let sql = format!("select {SUMMARY} from t where {}", predicate());
            run(&context, &sql).await?;
            Ok(())
        },
    )
    .await?;
    let figure = "aggregate of 10M rows of one tenant";
    figures.at_most(figure, "DataFusion, predicate by hand", pair, 1.02);
    Ok(())
}

async fn large_results(figures: &mut Figures, jammi: &mut Client, bare: &mut Client) -> Outcome {
    for (what, sql, rows) in [
        ("a large result: numbers", SELECT_SERIES, SERIES_ROWS),
        (
            "a large result: 10M rows of Parquet",
            SELECT_WHOLE,
            WHOLE_ROWS,
        ),
    ] {
        let bytes = bare.bytes(sql).await?;
        let pair = in_turns(
            9,
            async || jammi.query(sql, rows).await,
            async || bare.query(sql, rows).await,
        )
        .await?;
        let compared_to = "bare Flight echo of the batches";
        figures.at_least_rate(what, compared_to, bytes, pair, Some(0.8));
    }
    let bytes = bare.bytes(SELECT_WHOLE).await?;
    let pair = in_turns(
        9,
        async || jammi.query(SELECT_WHOLE, WHOLE_ROWS).await,
        async || bare.query(SELECT_DECODED, WHOLE_ROWS).await,
    )
    .await?;
    let what = "a large result: 10M rows of Parquet";
    let compared_to = "bare Flight server that decodes the file";
    figures.at_least_rate(what, compared_to, bytes, pair, Some(0.8));
    Ok(())
}

/// What a second endpoint would bring at best: the same rows as two results that
/// need nothing of each other, fetched by two connections at once.
async fn two_at_once(figures: &mut Figures, jammi: &mut Client, second: &mut Client) -> Outcome {
    const HALF: u64 = SERIES_ROWS / 2;
    let bytes = jammi.bytes(SELECT_SERIES).await?;
    let jammi = tokio::sync::Mutex::new(jammi);
    let pair = in_turns(
        9,
        async || {
            let mut first = jammi.lock().await;
            let [one, other] = SELECT_HALVES;
            let halves = tokio::join!(first.query(one, HALF), second.query(other, HALF));
            halves.0.and(halves.1)
        },
        async || jammi.lock().await.query(SELECT_SERIES, SERIES_ROWS).await,
    )
    .await?;
    let what = "a large result in two halves at once";
    figures.at_least_rate(what, "in one", bytes, pair, None);
    Ok(())
}
