//! Two things timed side by side, and the table of what came out.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use super::Outcome;

/// The medians of two things that ran in turns, so that what slows the machine
/// slows both.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// What is measured.
    pub ours: Duration,
    /// What it is compared to.
    pub theirs: Duration,
}

impl Pair {
    /// How many times as long as the other the measured thing took.
    pub fn ratio(self) -> f64 {
        self.ours.as_secs_f64() / self.theirs.as_secs_f64()
    }
}

/// Runs both `repetitions` times in turns, after one tenth as many turns that
/// are not counted.
pub async fn in_turns(
    repetitions: usize,
    mut ours: impl AsyncFnMut() -> Outcome,
    mut theirs: impl AsyncFnMut() -> Outcome,
) -> Outcome<Pair> {
    let mut times = (vec![], vec![]);
    let warm_up = repetitions.div_ceil(10);
    for turn in 0..warm_up + repetitions {
        let (our_time, their_time) = if turn % 2 == 0 {
            let ours = timed(&mut ours).await?;
            (ours, timed(&mut theirs).await?)
        } else {
            let theirs = timed(&mut theirs).await?;
            (timed(&mut ours).await?, theirs)
        };
        if turn >= warm_up {
            times.0.push(our_time);
            times.1.push(their_time);
        }
    }
    Ok(Pair {
        ours: median(times.0),
        theirs: median(times.1),
    })
}

/// How long `work` takes.
pub async fn timed(work: &mut impl AsyncFnMut() -> Outcome) -> Outcome<Duration> {
    let start = Instant::now();
    work().await?;
    Ok(start.elapsed())
}

/// The median of what is not empty.
pub fn median<T: PartialOrd + Copy>(mut measured: Vec<T>) -> T {
    measured.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
    measured[measured.len() / 2]
}

/// The figures, in the order in which they were measured.
pub struct Figures {
    table: Table,
    missed: usize,
}

impl Figures {
    /// No figures yet.
    pub fn new() -> Figures {
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED).set_header([
            "figure",
            "value",
            "compared to",
            "its value",
            "ratio",
            "target",
            "ok?",
        ]);
        for column in [1, 3, 4] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Figures { table, missed: 0 }
    }

    /// `pair`'s ratio is to be at most `target`.
    pub fn at_most(&mut self, figure: &str, compared_to: &str, pair: Pair, target: f64) {
        let ratio = pair.ratio();
        self.row(
            [figure, compared_to],
            [shown(pair.ours), shown(pair.theirs)],
            format!("{ratio:.2}"),
            format!("<= {target}x"),
            Some(ratio <= target),
        );
    }

    /// `pair`'s difference is to be at most `target`.
    pub fn at_most_more(&mut self, figure: &str, compared_to: &str, pair: Pair, target: Duration) {
        let ours_is_less = pair.ours < pair.theirs;
        let difference = pair.ours.abs_diff(pair.theirs);
        let sign = if ours_is_less { "-" } else { "+" };
        self.row(
            [figure, compared_to],
            [shown(pair.ours), shown(pair.theirs)],
            format!("{sign}{}", shown(difference)),
            format!("<= +{}", shown(target)),
            Some(ours_is_less || difference <= target),
        );
    }

    /// `bytes` are to arrive at `target` times the other's rate or more, or are only
    /// shown.
    pub fn at_least_rate(
        &mut self,
        figure: &str,
        compared_to: &str,
        bytes: usize,
        pair: Pair,
        target: Option<f64>,
    ) {
        let rate = |time: Duration| {
            let gigabytes = bytes as f64 / 1e9;
            format!("{:.2} GB/s", gigabytes / time.as_secs_f64())
        };
        let rates = [rate(pair.ours), rate(pair.theirs)];
        self.speed([figure, compared_to], rates, 1.0 / pair.ratio(), target);
    }

    /// `pair` is to be `target` times as fast as the other, or only shown.
    pub fn at_least_as_fast(
        &mut self,
        figure: &str,
        compared_to: &str,
        pair: Pair,
        target: Option<f64>,
    ) {
        let times = [shown(pair.ours), shown(pair.theirs)];
        self.speed([figure, compared_to], times, 1.0 / pair.ratio(), target);
    }

    /// Things done a second: ours are to be `target` times the others, or only
    /// shown.
    pub fn at_least_per_second(
        &mut self,
        figure: &str,
        compared_to: &str,
        [ours, theirs]: [f64; 2],
        target: Option<f64>,
    ) {
        let rates = [ours, theirs].map(|rate| format!("{rate:.0} /s"));
        self.speed([figure, compared_to], rates, ours / theirs, target);
    }

    fn speed(&mut self, names: [&str; 2], values: [String; 2], ratio: f64, target: Option<f64>) {
        self.row(
            names,
            values,
            format!("{ratio:.2}"),
            target.map_or_else(|| "-".into(), |target| format!(">= {target}x")),
            target.map(|target| ratio >= target),
        );
    }

    /// `bytes` are to be at most `most` more than `base`.
    pub fn at_most_more_bytes(
        &mut self,
        figure: &str,
        compared_to: &str,
        [bytes, base]: [u64; 2],
        most: u64,
    ) {
        let shown = |bytes: u64| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20));
        self.row(
            [figure, compared_to],
            [shown(bytes), shown(base)],
            format!("{:.2}", bytes as f64 / base as f64),
            format!("<= +{}", shown(most)),
            Some(bytes <= base + most),
        );
    }

    /// `ratio` is to be at most `target` times `base`.
    pub fn flat(&mut self, figure: &str, compared_to: &str, ratios: [f64; 2], target: f64) {
        let [ratio, base] = ratios;
        let growth = ratio / base;
        self.row(
            [figure, compared_to],
            [format!("{ratio:.2}"), format!("{base:.2}")],
            format!("{growth:.2}"),
            format!("<= {target}x"),
            Some(growth <= target),
        );
    }

    fn row(
        &mut self,
        [figure, compared_to]: [&str; 2],
        [value, its_value]: [String; 2],
        ratio: String,
        target: String,
        ok: Option<bool>,
    ) {
        eprintln!("{figure}: {value}, {compared_to}: {its_value}, {ratio} (target {target})");
        self.missed += usize::from(ok == Some(false));
        let ok = match ok {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "-",
        };
        self.table.add_row([
            figure.to_owned(),
            value,
            compared_to.to_owned(),
            its_value,
            ratio,
            target,
            ok.to_owned(),
        ]);
    }

    /// The table, and how many targets were missed.
    pub fn finish(self) -> (Table, usize) {
        (self.table, self.missed)
    }
}

fn shown(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds >= 1.0 {
        format!("{seconds:.2} s")
    } else if seconds >= 1e-3 {
        format!("{:.2} ms", seconds * 1e3)
    } else {
        format!("{:.1} us", seconds * 1e6)
    }
}
