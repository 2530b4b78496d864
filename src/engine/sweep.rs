//! Removes what tenants' lanes keep of shared tables that were dropped, in the
//! background.
//!
//! Every lane is looked at when a shared table was dropped and when a server
//! starts, and a lane by itself when a statement of its tenant is the first since
//! what tables there are has changed. So also what a crash, another process or a
//! restored lane has left goes.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::error::Error as _;
use std::sync::{Arc, Weak};
use std::time::Duration;

use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tracing::warn;

use crate::backend::{Backend, BackendError};
use crate::catalog::SnapshotVersion;
use crate::table;
use crate::tenant::Lane;

/// How long to wait before a lane that is in use is tried again, at first and at
/// most.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Looks after the lanes of one backend. Clones share what is done.
#[derive(Clone, Debug)]
pub(super) struct Sweeper(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    backend: Backend,
    /// Of which state of the catalog a lane was looked at last.
    looked_at: Cache<Lane, SnapshotVersion>,
    /// The lanes that are being swept, and whether once more after that.
    sweeping: Mutex<HashMap<Lane, bool>>,
    /// The lanes whose log may still hold what was removed.
    unclean: Mutex<HashSet<Lane>>,
    /// Had by whoever sweeps, so that many lanes are not in use for it at once.
    turn: Semaphore,
}

impl Sweeper {
    pub fn new(backend: &Backend) -> Self {
        Sweeper(Arc::new(Inner {
            backend: backend.clone(),
            looked_at: Cache::new(backend.lanes_open_max() as u64),
            sweeping: Mutex::default(),
            unclean: Mutex::default(),
            turn: Semaphore::new(1),
        }))
    }

    /// Sweeps a tenant's lane, unless that was done in this state of the catalog.
    pub fn look_after(&self, lane: Lane, version: SnapshotVersion) {
        if self.0.looked_at.get(&lane).as_ref() == Some(&version) {
            return;
        }
        self.0.looked_at.insert(lane, version);
        self.start(lane);
    }

    /// Sweeps every tenant's lane.
    pub fn sweep_all(&self) {
        let sweeper = self.clone();
        tokio::spawn(async move {
            match sweeper.0.backend.tenants().await {
                Ok(tenants) => {
                    for tenant in tenants {
                        sweeper.start(Lane::Tenant(tenant));
                    }
                }
                Err(error) => warn!(
                    cause = error.source(),
                    "rows of dropped shared tables stay until the next start: {error}"
                ),
            }
        });
    }

    fn start(&self, lane: Lane) {
        match self.0.sweeping.lock().entry(lane) {
            Entry::Occupied(mut again) => {
                again.insert(true);
            }
            Entry::Vacant(sweeping) => {
                sweeping.insert(false);
                tokio::spawn(until_swept(Arc::downgrade(&self.0), lane));
            }
        }
    }
}

/// Sweeps a lane until nothing is left, or until nobody uses the backend.
async fn until_swept(inner: Weak<Inner>, lane: Lane) {
    let mut pause = PAUSE;
    while let Some(inner) = inner.upgrade() {
        let swept = inner.sweep(lane).await;
        if let Err(error) = &swept {
            warn!(
                cause = error.source(),
                "rows of dropped shared tables are tried to be removed again: {error}"
            );
        }
        if inner.ends(lane, matches!(swept, Ok(true))) {
            return;
        }
        drop(inner);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

impl Inner {
    /// Whether nothing is left in the lane and in its log.
    async fn sweep(&self, lane: Lane) -> Result<bool, BackendError> {
        let _turn = self.turn.acquire().await;
        if table::sweep(&self.backend, lane).await? > 0 {
            self.unclean.lock().insert(lane);
        }
        if !self.unclean.lock().contains(&lane) {
            return Ok(true);
        }
        let emptied = self.backend.empty_log(lane).await?;
        if emptied {
            self.unclean.lock().remove(&lane);
        }
        Ok(emptied)
    }

    /// Whether the lane needs no more of it. Says so to those who ask later.
    fn ends(&self, lane: Lane, swept: bool) -> bool {
        let mut sweeping = self.sweeping.lock();
        let again = sweeping.insert(lane, false).unwrap_or(false);
        let ends = swept && !again;
        if ends {
            sweeping.remove(&lane);
        }
        ends
    }
}
