//! Lookups by key, an aggregate, and the memory of a scan.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Int64Array, RecordBatch};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

use crate::data::{CATEGORIES, ROWS, tenant};
use crate::postgres::{Amount, Load, Policy, SETTING};
use crate::shared::measure::{Figures, Pair, in_turns, median};
use crate::shared::wire::{Client, Server};
use crate::shared::{Outcome, mixed};
use crate::{Sides, artifacts};

const ROUNDS: usize = 5;
const LOOKUPS_A_ROUND: u64 = 200;

/// One row by its key, by a client that waits for each.
pub fn lookups(figures: &mut Figures, sides: &Sides) -> Outcome {
    for (table, of) in [("items", "a shared table"), ("own_items", "an own table")] {
        for (protocol, how) in [("prepared", "prepared"), ("simple", "new text")] {
            let pair = on_one_thread(|| lookup(sides, table, protocol))?;
            let figure = format!("a row by key of 1M of {of}, {how}");
            figures.at_most(&figure, SET_CONFIG, pair, 2.0);
        }
    }
    let pair = on_one_thread(|| bare_lookup(sides))?;
    let figure = "a Flight server that has one row, new text";
    figures.at_least_as_fast(figure, SET_CONFIG, pair, None);
    Ok(())
}

const SET_CONFIG: &str = "PostgreSQL, set_config in each transaction";

/// What `work` ends with, by a client of one thread, as pgbench is one.
fn on_one_thread<T, F>(work: impl FnOnce() -> F + Send) -> Outcome<T>
where
    T: Send,
    F: Future<Output = Outcome<T>>,
{
    let client = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build()?.block_on(work())
    };
    let ran = std::thread::scope(|threads| threads.spawn(client).join());
    ran.map_err(|_| "the client panicked")?
}

/// What it takes to announce a row and to fetch it.
async fn bare_lookup(sides: &Sides) -> Outcome<Pair> {
    let mut client = sides.bare.connect("lookups").await?;
    let asking = async |round, lookup| client.query(&by_id("items", id_of(round, lookup)), 1).await;
    beside_postgres(sides, &script(), "simple", asking).await
}

async fn lookup(sides: &Sides, table: &str, protocol: &'static str) -> Outcome<Pair> {
    let mut client = sides.client("lookups", 0).await?;
    let script = script();
    if protocol == "simple" {
        let asking =
            async |round, lookup| client.query(&by_id(table, id_of(round, lookup)), 1).await;
        return beside_postgres(sides, &script, protocol, asking).await;
    }
    let sql = format!("SELECT * FROM {table} WHERE id = $1");
    let mut prepared = client.prepare(&sql).await?;
    let asking = async |round, lookup| {
        let row = row_of(id_of(round, lookup))?;
        client.query_prepared(&mut prepared, row, 1).await
    };
    beside_postgres(sides, &script, protocol, asking).await
}

/// `ask`, told the round and the lookup, in turns with PostgreSQL's `script`.
async fn beside_postgres(
    sides: &Sides,
    script: &str,
    protocol: &'static str,
    mut ask: impl AsyncFnMut(u64, u64) -> Outcome,
) -> Outcome<Pair> {
    let mut times = (vec![], vec![]);
    // The first round is not counted.
    for round in 0..=ROUNDS {
        let (mut ours, theirs) = (vec![], Load::latencies(protocol, 500));
        let began = Instant::now();
        for lookup in 0..LOOKUPS_A_ROUND {
            if began.elapsed() > ROUND_TIME_MAX {
                break;
            }
            let start = Instant::now();
            ask(round as u64, lookup).await?;
            ours.push(start.elapsed());
        }
        let theirs = sides.postgres.bench(script, &theirs)?.latencies;
        if round > 0 {
            times.0.extend(ours);
            times.1.extend(theirs);
        }
    }
    Ok(Pair {
        ours: median(times.0),
        theirs: median(times.1),
    })
}

/// What pgbench runs for a lookup.
fn script() -> String {
    format!(
        "\\set id random(0, {})\n{}",
        ROWS - 1,
        of_tenant("SELECT * FROM items WHERE id = :id;")
    )
}

fn id_of(round: u64, lookup: u64) -> u64 {
    mixed(round, lookup) % ROWS
}

fn by_id(table: &str, id: u64) -> String {
    format!("SELECT * FROM {table} WHERE id = {id}")
}

/// Enough of slow lookups.
const ROUND_TIME_MAX: Duration = Duration::from_secs(2);

fn row_of(id: u64) -> Outcome<RecordBatch> {
    let ids = Int64Array::from(vec![i64::try_from(id)?]);
    Ok(RecordBatch::try_from_iter([("$1", Arc::new(ids) as _)])?)
}

/// `sql` as an application runs it that shares connections among tenants.
fn of_tenant(sql: &str) -> String {
    format!(
        "BEGIN;\nSELECT set_config('{SETTING}', '{}', true);\n{sql}\nCOMMIT;\n",
        tenant(0)
    )
}

impl Load {
    fn latencies(protocol: &'static str, transactions: u32) -> Load {
        Load {
            protocol,
            clients: 1,
            amount: Amount::Transactions(transactions),
            latencies: true,
        }
    }
}

const AGGREGATE: &str = "SELECT category, count(*), sum(amount), avg(score), max(made_at) \
                         FROM items GROUP BY category";

/// An aggregate of all rows of a tenant.
pub async fn aggregates(figures: &mut Figures, sides: &mut Sides) -> Outcome {
    let mut cold = vec![];
    for _ in 0..3 {
        sides.restart(&[])?;
        let mut client = sides.client("aggregates", 0).await?;
        let start = Instant::now();
        client.query(AGGREGATE, CATEGORIES).await?;
        cold.push(start.elapsed());
    }
    let mut client = sides.client("aggregates", 0).await?;
    let figure = "an aggregate of 1M rows, warm";
    let subquery = warm_aggregate(&mut client, sides, Policy::Subquery).await?;
    let compared_to = "PostgreSQL, policy with a subquery";
    figures.at_least_as_fast(figure, compared_to, subquery, Some(5.0));
    let plain = warm_aggregate(&mut client, sides, Policy::Plain).await?;
    figures.at_least_as_fast(figure, "PostgreSQL", plain, None);
    let cold = Pair {
        ours: median(cold),
        ..subquery
    };
    let figure = "the same, the first since the start";
    figures.at_least_as_fast(figure, "PostgreSQL, warm", cold, None);
    let pair = beside_datafusion(&mut client, &sides.batches).await?;
    let figure = "the same, warm";
    figures.at_least_as_fast(figure, "DataFusion in process, in memory", pair, None);
    Ok(())
}

async fn warm_aggregate(client: &mut Client, sides: &Sides, policy: Policy) -> Outcome<Pair> {
    sides.postgres.set_policy(policy)?;
    let script = of_tenant(&format!("{AGGREGATE};"));
    let load = Load::latencies("prepared", 3);
    let (mut ours, mut theirs) = (vec![], vec![]);
    for round in 0..=ROUNDS {
        let mut times = vec![];
        for _ in 0..10 {
            let start = Instant::now();
            client.query(AGGREGATE, CATEGORIES).await?;
            times.push(start.elapsed());
        }
        let benched = sides.postgres.bench(&script, &load)?;
        if round > 0 {
            ours.extend(times);
            theirs.extend(benched.latencies);
        }
    }
    Ok(Pair {
        ours: median(ours),
        theirs: median(theirs),
    })
}

async fn beside_datafusion(client: &mut Client, batches: &[RecordBatch]) -> Outcome<Pair> {
    let context = SessionContext::new();
    let partitions = std::thread::available_parallelism()?.get();
    let schema = batches.first().ok_or("there are rows")?.schema();
    let partitions = batches
        .chunks(batches.len().div_ceil(partitions))
        .map(<[_]>::to_vec)
        .collect();
    let table = MemTable::try_new(schema, partitions)?;
    context.register_table("items", Arc::new(table))?;
    in_turns(
        30,
        async || client.query(AGGREGATE, CATEGORIES).await,
        async || {
            let mut rows = context.sql(AGGREGATE).await?.execute_stream().await?;
            while rows.try_next().await?.is_some() {}
            Ok(())
        },
    )
    .await
}

/// The memory that decoded columns may take in the scans whose memory is
/// measured, and what a scan may need besides.
const CACHE_BYTES: u64 = 16 << 20;
const SCAN_BYTES_MAX: u64 = 48 << 20;

/// How much the server grows by a scan of a lane that is many times as large as
/// the memory that it may keep of it.
pub async fn memory(figures: &mut Figures, sides: &mut Sides) -> Outcome {
    let setting = CACHE_BYTES.to_string();
    sides.restart(&[("JAMMI_ENGINE__TABLE_CACHE_BYTES", &setting)])?;
    let mut client = sides.client("scans", 0).await?;
    client.query("SELECT * FROM items LIMIT 1", 1).await?;
    for figure in ["memory of a scan of 1M rows", "memory of a second scan"] {
        let before = sides.jammi.reset_peak()?;
        client.query("SELECT * FROM items", ROWS).await?;
        let grown = sides.jammi.peak()?.saturating_sub(before);
        let sizes = [grown, CACHE_BYTES];
        figures.at_most_more_bytes(figure, "engine.table_cache_bytes", sizes, SCAN_BYTES_MAX);
    }
    let rows: usize = sides
        .batches
        .iter()
        .map(RecordBatch::get_array_memory_size)
        .sum();
    eprintln!("the scanned rows take {} MiB decoded", rows >> 20);
    Ok(())
}

impl Sides {
    /// Starts the measured server anew over what it has, with these variables.
    fn restart(&mut self, settings: &[(&str, &str)]) -> Outcome {
        self.jammi.stop()?;
        self.jammi = Server::jammi(&artifacts(&self.dir), settings)?;
        Ok(())
    }
}
