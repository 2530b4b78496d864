//! Tables beside PostgreSQL, through the wire with real clients.
//!
//! Both databases hold the same rows on the same disk, keep tenants apart, and
//! acknowledge what is on the disk. They are measured in turns: the ratios hold
//! on a busy machine, the times do not. What has no target is shown to compare
//! with, such as a Flight server that does nothing: what the protocol takes.

// A bench that cannot go on stops, and prints what it measured.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod bulk;
mod data;
mod inserts;
mod postgres;
mod reads;
#[path = "../shared/mod.rs"]
mod shared;

use std::path::{Path, PathBuf};

use data::{COLUMNS, OTHER_ROWS, OTHERS, ROWS, tenant};
use postgres::{Postgres, Transfer};
use shared::Outcome;
use shared::bare::{self, BARE_SERVER, Bare};
use shared::measure::Figures;
use shared::wire::{Client, Server};

/// Both databases, and where they are.
pub struct Sides {
    jammi: Server,
    postgres: Postgres,
    bare: Server,
    dir: PathBuf,
    batches: Vec<arrow::array::RecordBatch>,
}

fn main() -> Outcome {
    let runtime = tokio::runtime::Runtime::new()?;
    if std::env::args().nth(1).as_deref() == Some(BARE_SERVER) {
        // A row of any table, whatever is asked for.
        return runtime.block_on(bare::serve(Bare {
            any: Some(data::batches(1)?.into()),
            ..Bare::default()
        }));
    }
    let kept = std::env::var_os("JAMMI_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    std::fs::create_dir_all(&kept)?;
    let dir = postgres::work_dir(&kept)?;
    let (version, figures) = runtime.block_on(run(dir.path()))?;
    let (table, missed) = figures.finish();
    let cores = std::thread::available_parallelism()?;
    println!("{table}\n{cores} cores; {version}; {missed} targets missed");
    Ok(())
}

/// Which part of the bench is wanted: all of it, unless the environment names
/// some, as in `JAMMI_BENCH_TABLES=lookups,memory`.
fn is_wanted(part: &str) -> bool {
    std::env::var("JAMMI_BENCH_TABLES")
        .map_or(true, |parts| parts.split(',').any(|wanted| wanted == part))
}

async fn run(dir: &Path) -> Outcome<(String, Figures)> {
    let artifacts = artifacts(dir);
    std::fs::create_dir(&artifacts)?;
    let mut sides = Sides {
        jammi: Server::jammi(&artifacts, &[])?,
        postgres: Postgres::start(dir)?,
        bare: bare::start(dir)?,
        dir: dir.to_owned(),
        batches: data::batches(ROWS)?,
    };
    let mut figures = Figures::new();
    sides.load().await?;
    if is_wanted("lookups") {
        reads::lookups(&mut figures, &sides)?;
    }
    if is_wanted("inserts") {
        inserts::inserts(&mut figures, &sides).await?;
    }
    if is_wanted("bulk") {
        bulk::ingests(&mut figures, &sides).await?;
    }
    if is_wanted("aggregates") {
        reads::aggregates(&mut figures, &mut sides).await?;
    }
    if is_wanted("memory") {
        reads::memory(&mut figures, &mut sides).await?;
    }
    Ok((sides.postgres.version()?, figures))
}

/// Where the measured server keeps all.
fn artifacts(dir: &Path) -> PathBuf {
    dir.join("jammi")
}

impl Sides {
    /// A connection in a session of its own, bound to the `number`th tenant.
    async fn client(&self, session: &str, number: u64) -> Outcome<Client> {
        let client = self.jammi.connect(session).await?;
        client.bind(tenant(number)).await?;
        Ok(client)
    }

    fn csv(&self) -> PathBuf {
        self.dir.join("rows.csv")
    }

    fn binary(&self) -> PathBuf {
        self.dir.join("rows.binary")
    }

    /// The tables, and the rows of all tenants in both databases. `items` is
    /// defined for every tenant; `own_items` is a tenant's own.
    async fn load(&self) -> Outcome {
        let mut shared = self.jammi.connect("loads").await?;
        let columns = COLUMNS.map(|(name, jammi, _)| format!("{name} {jammi}"));
        let columns = columns.join(", ");
        for sql in [
            format!("CREATE TABLE items ({columns}, PRIMARY KEY (id))"),
            "CREATE TABLE notes (id BIGINT PRIMARY KEY, title VARCHAR NOT NULL, score DOUBLE)"
                .into(),
        ] {
            shared.update(&sql).await?;
        }
        let mut own = self.client("loads-0", 0).await?;
        for table in ["own_items", "loaded"] {
            own.update(&format!(
                "CREATE TABLE {table} ({columns}, PRIMARY KEY (id))"
            ))
            .await?;
        }
        own.ingest("items", false, self.batches.clone()).await?;
        own.ingest("own_items", false, self.batches.clone()).await?;
        let few = data::batches(OTHER_ROWS)?;
        for number in 1..=OTHERS {
            let mut client = self.client(&format!("loads-{number}"), number).await?;
            client.ingest("items", false, few.clone()).await?;
        }
        self.load_postgres()?;
        let sql = "SELECT count(*) * 1000000 + sum(quantity) FROM items";
        let theirs = self.postgres.sql_of_tenant(&tenant(0).to_string(), sql)?;
        match own.number(sql).await?.to_string() {
            ours if ours == theirs => Ok(()),
            ours => Err(format!("the sides have other rows: {sql} is {ours} and {theirs}").into()),
        }
    }

    fn load_postgres(&self) -> Outcome {
        data::write_csv(&self.csv(), &self.batches)?;
        let postgres = &self.postgres;
        let own = tenant(0).to_string();
        postgres.copy("items", &own, Transfer::FromCsv, &self.csv())?;
        postgres.copy("items", &own, Transfer::ToBinary, &self.binary())?;
        let names = COLUMNS.map(|(name, _, _)| name).join(", ");
        for number in 1..=OTHERS {
            postgres.sql(&format!(
                "INSERT INTO items (tenant_id, {names})
                 SELECT '{}', {names} FROM items WHERE tenant_id = '{own}' AND id < {OTHER_ROWS}",
                tenant(number)
            ))?;
        }
        postgres.sql("VACUUM ANALYZE")?;
        Ok(())
    }
}
