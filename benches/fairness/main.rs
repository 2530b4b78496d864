//! What one tenant costs another: Bob's queries by key while Alice runs the worst
//! statements that are known, beside the same queries while she runs nothing.
//!
//! Quiet and loud rounds take turns, so that what slows the machine slows both. The
//! clients run on the same machine: Bob's on a thread of its own, Alice's on others,
//! which weigh little with the kernel, as if hers were another machine.
//!
//! `cargo bench --bench fairness -- sorts windows` measures beside these alone.

// A bench that cannot go on stops, and prints what it measured.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "../shared/mod.rs"]
mod shared;
mod worst;

use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use jammi_db::TenantId;
use thread_priority::{ThreadPriority, set_current_thread_priority};
use tokio::runtime::Builder;

use shared::Outcome;
use shared::measure::{Figures, Pair};
use shared::wire::{Client, Server};
use worst::{Load, WORST};

/// Rows of Bob's table, of which he asks for one at a time.
const ROWS: u64 = 100_000;
/// Queries of a round, and how often quiet and loud rounds take turns.
const QUERIES: u64 = 1_000;
const ROUNDS: usize = 3;
/// How long Alice's statements run before they are measured beside: queues are full
/// then, and memory is taken.
const AHEAD: Duration = Duration::from_secs(2);
/// How much slower than quiet it may get.
const TARGET: f64 = 3.0;
/// The memory of queries, `engine.memory_bytes`, and of cached tables.
const MEMORY_BYTES: u64 = 512 << 20;
const CACHE_BYTES: u64 = 64 << 20;
/// What the server may have beside these: its programs, plans, connections, and what
/// the allocator keeps.
const BESIDE_BYTES: u64 = 256 << 20;

fn main() -> Outcome {
    let dir = tempfile::tempdir()?;
    let (table, missed) = run(dir.path())?.finish();
    let cores = std::thread::available_parallelism()?;
    println!("{table}\n{cores} cores; {missed} targets missed");
    Ok(())
}

fn run(dir: &Path) -> Outcome<Figures> {
    let (memory, cache) = (MEMORY_BYTES.to_string(), CACHE_BYTES.to_string());
    let server = Server::jammi(
        dir,
        &[
            ("JAMMI_ENGINE__MEMORY_BYTES", &memory),
            ("JAMMI_ENGINE__TABLE_CACHE_BYTES", &cache),
        ],
    )?;
    let bobs = Builder::new_current_thread().enable_all().build()?;
    let alices = Builder::new_multi_thread()
        .enable_all()
        .on_thread_start(|| set_current_thread_priority(ThreadPriority::Min).expect("less"))
        .build()?;
    let mut bob = bobs.block_on(client(&server, "bob", tenant('b')))?;
    bobs.block_on(load(&mut bob))?;
    alices.block_on(async {
        worst::prepare(&mut client(&server, "alice", tenant('a')).await?).await
    })?;
    let mut figures = Figures::new();
    // Files, pages and plans that are read once are not measured.
    bobs.block_on(ask(&mut bob))?;
    let mut peaks = vec![server.reset_peak()?];
    let only: Vec<String> = std::env::args().skip(1).collect();
    let only: Vec<_> = only.iter().filter(|arg| !arg.starts_with('-')).collect();
    let asked = |what: &str| only.is_empty() || only.iter().any(|part| what.contains(*part));
    for (what, worst) in WORST.into_iter().filter(|(what, _)| asked(what)) {
        let mut times = [vec![], vec![]];
        let mut runs = 0;
        for _ in 0..ROUNDS {
            times[1].extend(bobs.block_on(ask(&mut bob))?);
            let load = alices.block_on(Load::begin(&server, worst, tenant('a')))?;
            std::thread::sleep(AHEAD);
            times[0].extend(bobs.block_on(ask(&mut bob))?);
            runs += alices.block_on(load.end());
        }
        let [ours, theirs] = times.map(p99);
        eprintln!("beside {what}: {runs} of Alice's statements ended meanwhile");
        let figure = format!("p99 by key beside {what}");
        figures.at_most(&figure, "beside nothing", Pair { ours, theirs }, TARGET);
        let peak = server.peak()?;
        let now = server.reset_peak()?;
        eprintln!(
            "resident: {} MiB at most, {} MiB after",
            peak >> 20,
            now >> 20
        );
        peaks.push(peak);
    }
    let largest = peaks.into_iter().max().unwrap_or_default();
    figures.at_most_more_bytes(
        "the server's memory at its largest",
        "engine.memory_bytes and the cache",
        [largest, MEMORY_BYTES + CACHE_BYTES],
        BESIDE_BYTES,
    );
    Ok(figures)
}

fn tenant(last: char) -> TenantId {
    let text = format!("018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9{last}");
    TenantId::from_str(&text).expect("a UUID of version 7")
}

/// A connection in a session of its own.
async fn client(server: &Server, session: &str, tenant: TenantId) -> Outcome<Client> {
    let client = server.connect(session).await?;
    client.bind(tenant).await?;
    Ok(client)
}

async fn load(bob: &mut Client) -> Outcome {
    let table = "CREATE TABLE items (id BIGINT PRIMARY KEY, title VARCHAR NOT NULL)";
    bob.update(table).await?;
    let fill = format!(
        "INSERT INTO items SELECT value, 'item ' || CAST(value AS VARCHAR) FROM \
         generate_series(1, {ROWS})"
    );
    bob.update(&fill).await?;
    Ok(())
}

/// How long each query of a round takes, whose text is a new one.
async fn ask(bob: &mut Client) -> Outcome<Vec<Duration>> {
    let mut times = Vec::with_capacity(QUERIES as usize);
    for query in 0..QUERIES {
        let id = 1 + shared::mixed(7, query) % ROWS;
        let sql = format!("SELECT title FROM items WHERE id = {id}");
        let start = Instant::now();
        bob.query(&sql, 1).await?;
        times.push(start.elapsed());
    }
    Ok(times)
}

/// What one of a hundred is slower than.
fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}
