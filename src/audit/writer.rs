//! The one thread of a process that writes its records.
//!
//! Records wait in a queue for others to be written with. A record has room there from
//! before its request is run, so that it never waits when the request has ended, and
//! is never lost: where there is no room it is the next request that waits. A disk that
//! takes no records keeps them in the queue, and has further requests refused, until it
//! does.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use metrics::counter;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::Event;
use super::store::Store;
use crate::config::AuditConfig;

/// How soon a disk that took no records is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// How many records are written at a time.
const BATCH_MAX: usize = 1_024;

/// The clock: microseconds since 1970.
pub(super) type Clock = fn() -> i64;

/// What the thread and those who ask share.
pub(super) struct Queue {
    pub config: AuditConfig,
    pub directory: PathBuf,
    pub now_us: Clock,
    /// Room for records.
    pub room: Arc<Semaphore>,
    /// Whether records cannot be written.
    failing: watch::Sender<bool>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<Queued>,
    /// When the first of them is to be written.
    due: Option<Instant>,
    /// Told when all that waits now is on the disk.
    asking: Vec<Asking>,
    is_over: bool,
}

struct Asking {
    told: oneshot::Sender<()>,
    /// Whether it has to be signed too.
    signed: bool,
}

/// A record that is to be written.
pub(super) struct Queued {
    pub event: Event,
    /// Told whether it is on the disk, as soon as that is known.
    pub told: Option<oneshot::Sender<bool>>,
    /// Given back when it is written; a record may go without, beside one that has it.
    pub room: Option<OwnedSemaphorePermit>,
}

impl Queue {
    pub fn new(config: AuditConfig, directory: PathBuf, now_us: Clock) -> Self {
        Queue {
            room: Arc::new(Semaphore::new(config.queue_max)),
            config,
            directory,
            now_us,
            failing: watch::Sender::new(false),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    pub fn is_failing(&self) -> bool {
        *self.failing.borrow()
    }

    /// Completes when records cannot be written.
    pub async fn fails(&self) {
        // The sender lives as long as this.
        let _ = self.failing.subscribe().wait_for(|failing| *failing).await;
    }

    pub fn push(&self, record: Queued) {
        let flush = Duration::from_millis(self.config.flush_ms);
        let mut state = self.state.lock();
        // Where there is no room left, others wait for this one's.
        let is_full = self.room.available_permits() == 0;
        let is_urgent = record.told.is_some() || is_full || state.waiting.len() + 1 == BATCH_MAX;
        let at = Instant::now() + if is_urgent { Duration::ZERO } else { flush };
        let is_sooner = state.due.is_none_or(|due| at < due);
        if is_sooner {
            state.due = Some(at);
        }
        state.waiting.push(record);
        drop(state);
        if is_sooner {
            self.changed.notify_one();
        }
    }

    /// Completes when all that waits now is on the disk, and signed where that is asked
    /// for, or cannot be.
    pub fn written(&self, signed: bool) -> oneshot::Receiver<()> {
        let (told, written) = oneshot::channel();
        self.state.lock().asking.push(Asking { told, signed });
        self.changed.notify_one();
        written
    }

    /// Lets the thread end when everything is written.
    pub fn end(&self) {
        self.state.lock().is_over = true;
        self.changed.notify_one();
    }

    /// Waits until there is something to do, and takes it.
    fn next(&self, retry_at: Option<Instant>, sign_at: Option<Instant>) -> Work {
        let mut state = self.state.lock();
        loop {
            let now = Instant::now();
            let at = [state.due, retry_at, sign_at].into_iter().flatten().min();
            let is_asked = state.is_over || !state.asking.is_empty();
            if is_asked || at.is_some_and(|at| at <= now) {
                state.due = None;
                // As many may come again: their room is made here, and not by them.
                let room = Vec::with_capacity(state.waiting.len());
                return Work {
                    records: std::mem::replace(&mut state.waiting, room),
                    asking: std::mem::take(&mut state.asking),
                    is_over: state.is_over,
                };
            }
            match at {
                Some(at) => {
                    self.changed.wait_until(&mut state, at);
                }
                None => self.changed.wait(&mut state),
            }
        }
    }
}

/// What there is to do.
struct Work {
    records: Vec<Queued>,
    asking: Vec<Asking>,
    is_over: bool,
}

/// Starts the thread that writes what is in `queue`.
pub(super) fn start(queue: Arc<Queue>, store: Option<Store>) -> std::io::Result<Thread> {
    let writer = Writer {
        queue: Arc::clone(&queue),
        store,
        records: Vec::new(),
        sign_at: None,
    };
    let handle = thread::Builder::new()
        .name("jammi-audit".into())
        .spawn(move || writer.run())?;
    Ok(Thread {
        queue,
        handle: Some(handle),
    })
}

/// The thread, which is waited for when this is dropped.
pub(super) struct Thread {
    queue: Arc<Queue>,
    handle: Option<thread::JoinHandle<()>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.queue.end();
        if let Some(handle) = self.handle.take() {
            // One that panicked has said why.
            let _ = handle.join();
        }
    }
}

struct Writer {
    queue: Arc<Queue>,
    store: Option<Store>,
    /// What is not on the disk yet.
    records: Vec<Queued>,
    /// When what was written is to be signed.
    sign_at: Option<Instant>,
}

impl Writer {
    fn run(mut self) {
        loop {
            let failing = self.queue.is_failing();
            let retry_at = failing.then(|| Instant::now() + RETRY);
            let sign_at = self.sign_at.filter(|_| !failing);
            let work = self.queue.next(retry_at, sign_at);
            self.records.extend(work.records);
            let is_asked = work.is_over || work.asking.iter().any(|asking| asking.signed);
            let is_due = is_asked || self.sign_at.is_some_and(|at| at <= Instant::now());
            let done = self.write().and_then(|()| match is_due {
                true => self.sign(),
                false => Ok(()),
            });
            self.note(done);
            for asking in work.asking {
                // Whoever asked may have gone.
                let _ = asking.told.send(());
            }
            if work.is_over {
                break;
            }
        }
        if !self.records.is_empty() {
            let records = self.records.len();
            tracing::error!(records, "records could not be written to the audit trail");
        }
    }

    /// Notes whether the disk takes records, and tells those who wait for theirs that
    /// it does not.
    fn note(&mut self, done: std::io::Result<()>) {
        let was_failing = self.queue.is_failing();
        match done {
            Ok(()) => {
                if was_failing {
                    tracing::info!("the audit trail is written again");
                }
            }
            Err(error) => {
                if !was_failing {
                    tracing::error!(%error, "the audit trail cannot be written");
                }
                counter!("jammi_audit_failures_total").increment(1);
                self.queue.failing.send_replace(true);
                for record in &mut self.records {
                    if let Some(told) = record.told.take() {
                        let _ = told.send(false);
                    }
                }
                return;
            }
        }
        self.queue.failing.send_replace(false);
    }

    fn store(&mut self) -> std::io::Result<&mut Store> {
        if self.store.is_none() {
            let queue = &self.queue;
            let store = Store::open(&queue.directory, &queue.config, (queue.now_us)())?;
            self.store = Some(store);
        }
        self.store
            .as_mut()
            .ok_or_else(|| std::io::Error::other("the audit trail is not open"))
    }

    fn write(&mut self) -> std::io::Result<()> {
        while !self.records.is_empty() {
            let now_us = (self.queue.now_us)();
            let count = self.records.len().min(BATCH_MAX);
            let records = std::mem::take(&mut self.records);
            let events: Vec<&Event> = records[..count]
                .iter()
                .map(|record| &record.event)
                .collect();
            let written = self.store().and_then(|store| store.append(&events, now_us));
            self.records = records;
            written?;
            let checkpoint = Duration::from_secs(self.queue.config.checkpoint_secs);
            self.sign_at.get_or_insert(Instant::now() + checkpoint);
            counter!("jammi_audit_records_total").increment(count as u64);
            for Queued { told, room, .. } in self.records.drain(..count) {
                if let Some(told) = told {
                    let _ = told.send(true);
                }
                drop(room);
            }
        }
        Ok(())
    }

    fn sign(&mut self) -> std::io::Result<()> {
        let now_us = (self.queue.now_us)();
        if let Some(store) = &mut self.store
            && self.sign_at.is_some()
            && store.is_unsigned()
        {
            store.checkpoint(now_us)?;
        }
        self.sign_at = None;
        Ok(())
    }
}
