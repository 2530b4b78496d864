//! Single rows that are on the disk before the client goes on.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use bytes::Bytes;
use rusqlite::Connection;
use tokio::task::JoinSet;

use crate::Sides;
use crate::data::TENANT_PREFIX;
use crate::postgres::{Amount, Load, SETTING};
use crate::shared::measure::{Figures, median};
use crate::shared::wire::Client;
use crate::shared::{Outcome, mixed};

const CLIENTS: u32 = 16;
const ROUNDS: usize = 3;
const SECONDS: u32 = 2;
const TITLE: &str = "a note of a common length";
const PREPARED: &str = "INSERT INTO notes (id, title, score) VALUES ($1, $2, $3)";

/// Rows a second by 16 clients at once, of 16 tenants and of one.
pub async fn inserts(figures: &mut Figures, sides: &Sides) -> Outcome {
    for (tenants, of, target) in [(CLIENTS, "16 tenants", 1.0), (1, "one tenant", 0.5)] {
        for (protocol, how) in [("prepared", "prepared"), ("simple", "text")] {
            let rates = rates(sides, tenants, protocol).await?;
            let [ours, set_config, bound, sqlite, bare] = rates;
            let figure = format!("INSERTs of a row, 16 clients of {of}, {how}");
            figures.at_least_per_second(
                &figure,
                "PostgreSQL, set_config in each transaction",
                [ours, set_config],
                Some(target),
            );
            let compared_to = "PostgreSQL, set_config once a connection";
            figures.at_least_per_second(&figure, compared_to, [ours, bound], None);
            let compared_to = "SQLite itself, a thread for each tenant";
            figures.at_least_per_second(&figure, compared_to, [ours, sqlite], None);
            let compared_to = "a Flight server that writes nothing";
            figures.at_least_per_second(&figure, compared_to, [ours, bare], None);
            let figure = format!("{compared_to}, {how}");
            let compared_to = "PostgreSQL, set_config in each transaction";
            figures.at_least_per_second(&figure, compared_to, [bare, set_config], None);
        }
    }
    Ok(())
}

/// Ours, PostgreSQL's with the tenant set in each transaction and with the tenant
/// set once, SQLite's, and those of a Flight server that writes nothing.
async fn rates(sides: &Sides, tenants: u32, protocol: &'static str) -> Outcome<[f64; 5]> {
    let (mut writers, mut bare) = (vec![], vec![]);
    for client in 0..CLIENTS {
        let session = format!("inserts-{client}");
        let mut client_of = sides.client(&session, (client % tenants).into()).await?;
        let handle = client_of.prepare_update(PREPARED).await?;
        let prepared = (protocol == "prepared").then_some(handle);
        bare.push(Writer {
            prepared: prepared.clone(),
            client: sides.bare.connect(&session).await?,
        });
        writers.push(Writer {
            prepared,
            client: client_of,
        });
    }
    let load = Load {
        protocol,
        clients: CLIENTS,
        amount: Amount::Seconds(SECONDS),
        latencies: false,
    };
    let set_config = script(tenants, "true");
    let bound = script(tenants, "false");
    let mut measured = [const { Vec::new() }; 5];
    // The first round is not counted: the logs grow to their size in it.
    for round in 0..=ROUNDS {
        let rates = [
            insert_all(&writers).await?,
            sides.postgres.bench(&set_config, &load)?.a_second,
            sides.postgres.bench(&bound, &load)?.a_second,
            sqlite_commits(&sides.dir, tenants)?,
            insert_all(&bare).await?,
        ];
        if round > 0 {
            for (measured, rate) in measured.iter_mut().zip(rates) {
                measured.push(rate);
            }
        }
    }
    Ok(measured.map(median))
}

/// What pgbench runs: a row with a new key for the client's tenant, which is set
/// in each transaction where `is_local` is `true`, else in the first.
fn script(tenants: u32, is_local: &str) -> String {
    let number = match tenants {
        1 => "0",
        _ => ":client_id",
    };
    let set = format!(
        "SELECT set_config('{SETTING}', '{TENANT_PREFIX}' || lpad({number}::text, 12, '0'), \
         {is_local});"
    );
    let insert = format!("INSERT INTO notes (id, title, score) VALUES (:id, '{TITLE}', :score);");
    let values = "\\set id random(1, 4611686018427387904)\n\\set score random(1, 1000)\n";
    match is_local {
        "true" => format!("{values}BEGIN;\n{set}\n{insert}\nCOMMIT;\n"),
        _ => format!("{values}\\if :bound = 0\n{set}\n\\set bound 1\n\\endif\n{insert}\n"),
    }
}

#[derive(Clone)]
struct Writer {
    client: Client,
    prepared: Option<Bytes>,
}

/// Rows that all writers together write a second.
async fn insert_all(writers: &[Writer]) -> Outcome<f64> {
    static WRITERS: AtomicU64 = AtomicU64::new(0);
    let began = Instant::now();
    let end = began + Duration::from_secs(SECONDS.into());
    let mut running = JoinSet::new();
    for writer in writers {
        let mut writer = writer.clone();
        // Of two writers, in whichever round, no key is the same.
        let seed = WRITERS.fetch_add(1, Ordering::Relaxed);
        running.spawn(async move {
            let mut written = 0_u64;
            while Instant::now() < end {
                let key = i64::try_from(mixed(seed, written) >> 2)?;
                writer.insert(key, (written % 1_000) as f64).await?;
                written += 1;
            }
            Outcome::Ok(written)
        });
    }
    let mut written = 0;
    while let Some(wrote) = running.join_next().await {
        written += wrote??;
    }
    Ok(written as f64 / began.elapsed().as_secs_f64())
}

impl Writer {
    async fn insert(&mut self, key: i64, score: f64) -> Outcome {
        let count = match &self.prepared {
            None => {
                let sql = format!(
                    "INSERT INTO notes (id, title, score) VALUES ({key}, '{TITLE}', {score})"
                );
                self.client.update(&sql).await?
            }
            Some(handle) => {
                let columns: [(&str, ArrayRef); 3] = [
                    ("$1", Arc::new(Int64Array::from(vec![key]))),
                    ("$2", Arc::new(StringArray::from(vec![TITLE]))),
                    ("$3", Arc::new(Float64Array::from(vec![score]))),
                ];
                let row = RecordBatch::try_from_iter(columns)?;
                self.client.update_prepared(handle, row).await?
            }
        };
        match count {
            1 => Ok(()),
            _ => Err(format!("an INSERT of a row wrote {count}").into()),
        }
    }
}

/// Commits of a row a second by SQLite itself, in as many databases as there are
/// tenants, each as durable.
fn sqlite_commits(dir: &Path, tenants: u32) -> Outcome<f64> {
    let dir = tempfile::tempdir_in(dir)?;
    let began = Instant::now();
    let end = began + Duration::from_secs(1);
    let threads: Vec<_> = (0..tenants)
        .map(|number| {
            let path = dir.path().join(format!("{number}.db"));
            std::thread::spawn(move || commits_until(&path, end, number.into()))
        })
        .collect();
    let mut commits = 0;
    for thread in threads {
        commits += thread.join().map_err(|_| "a thread panicked")??;
    }
    Ok(commits as f64 / began.elapsed().as_secs_f64())
}

fn commits_until(path: &Path, end: Instant, seed: u64) -> Outcome<u64> {
    let connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE notes (id INTEGER PRIMARY KEY, title TEXT NOT NULL, score REAL);",
    )?;
    let mut insert = connection.prepare("INSERT INTO notes VALUES (?1, ?2, ?3)")?;
    let mut commits = 0;
    while Instant::now() < end {
        let key = i64::try_from(mixed(seed, commits) >> 2)?;
        insert.execute((key, TITLE, 0.5))?;
        commits += 1;
    }
    Ok(commits)
}
