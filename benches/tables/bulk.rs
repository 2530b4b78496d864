//! A million rows at once.

use std::time::{Duration, Instant};

use crate::Sides;
use crate::data::{ROWS, tenant};
use crate::postgres::Transfer;
use crate::shared::Outcome;
use crate::shared::measure::{Figures, Pair, median};

const ROUNDS: usize = 3;

/// Rows by Flight into a table that is there and one that is made, and by COPY.
pub async fn ingests(figures: &mut Figures, sides: &Sides) -> Outcome {
    let mut client = sides.client("ingests", 0).await?;
    let own = tenant(0).to_string();
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..ROUNDS {
        client.update("TRUNCATE loaded").await?;
        for (at, table) in [(0, "loaded"), (1, "made")] {
            let rows = sides.batches.clone();
            let start = Instant::now();
            client.ingest(table, table == "made", rows).await?;
            times[at].push(start.elapsed());
        }
        client.update("DROP TABLE made").await?;
        for (at, how, file) in [
            (2, Transfer::FromCsv, sides.csv()),
            (3, Transfer::FromBinary, sides.binary()),
        ] {
            sides.postgres.sql("TRUNCATE loaded")?;
            let start = Instant::now();
            sides.postgres.copy("loaded", &own, how, &file)?;
            times[at].push(start.elapsed());
        }
    }
    let [append, make, csv, binary] = times.map(median);
    let fastest = csv.min(binary);
    for (figure, ours) in [
        ("1M rows by Flight into a table with a key", append),
        ("1M rows by Flight into a table that is made", make),
    ] {
        for (compared_to, theirs) in [("COPY of CSV", csv), ("COPY of binary", binary)] {
            let target = (theirs == fastest).then_some(1.0);
            figures.at_least_as_fast(figure, compared_to, Pair { ours, theirs }, target);
        }
    }
    let rate = ROWS as f64 / append.as_secs_f64();
    eprintln!("{rate:.0} rows a second by Flight");
    Ok(())
}
