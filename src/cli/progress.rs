//! A sign of life on stderr while work takes long.
//!
//! It shows when stderr is a terminal and a second has passed, and is gone
//! before anything else is printed there.

use std::future::Future;
use std::io::IsTerminal;
use std::pin::pin;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How long work may take before anything shows.
const DELAY: Duration = Duration::from_secs(1);
/// How often what shows is drawn again.
const REDRAW_INTERVAL: Duration = Duration::from_millis(120);

/// What is known of the work so far.
pub struct Progress {
    started: Instant,
    rows: u64,
    state: State,
}

enum State {
    /// Nothing shows, now or later.
    Off,
    /// Nothing shows yet.
    Waiting,
    /// The spinner is on the screen.
    Shown(ProgressBar),
}

impl Progress {
    /// Starts the clock. On a terminal, the spinner follows when it is due.
    pub fn start() -> Self {
        Progress {
            started: Instant::now(),
            rows: 0,
            state: if std::io::stderr().is_terminal() {
                State::Waiting
            } else {
                State::Off
            },
        }
    }

    /// Counts rows that came.
    pub fn add_rows(&mut self, rows: usize) {
        self.rows += rows as u64;
    }

    /// The rows counted.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How long it has been since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits for `work` and shows that it goes on.
    pub async fn watch<T>(&mut self, work: impl Future<Output = T>) -> T {
        if matches!(self.state, State::Off) {
            return work.await;
        }
        let mut work = pin!(work);
        let mut redraw = interval(REDRAW_INTERVAL);
        redraw.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                _ = redraw.tick() => self.draw(),
            }
        }
    }

    /// Removes the spinner for good: something else will be printed.
    pub fn stop(&mut self) {
        if let State::Shown(bar) = std::mem::replace(&mut self.state, State::Off) {
            bar.finish_and_clear();
        }
    }

    fn draw(&mut self) {
        if matches!(self.state, State::Waiting) && self.started.elapsed() >= DELAY {
            self.state = State::Shown(spinner());
        }
        if let State::Shown(bar) = &self.state {
            let seconds = self.started.elapsed().as_secs();
            bar.set_message(match self.rows {
                0 => format!("working, {seconds} s"),
                rows => format!("{} rows, {seconds} s", HumanCount(rows)),
            });
            bar.tick();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.with_style(ProgressStyle::default_spinner())
}
