//! What a scope sees of the catalog at one moment, and the cache that makes
//! looking cheap.
//!
//! Invariant: a snapshot is never older than the request that asks for it,
//! whichever process committed last: the cache is asked for the lane's current
//! version, not for its age.

use std::cmp::Ordering as Order;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::{Source, sources};
use crate::backend::{Backend, BackendError, LaneVersion};
use crate::tenant::{Lane, Scope};

/// What a scope sees of the catalog at one moment.
#[derive(Clone, Debug)]
pub struct CatalogSnapshot {
    /// The tenant's own, where there is one.
    own: Option<Arc<LaneSources>>,
    global: Arc<LaneSources>,
}

/// Says whether two snapshots of one scope show the same. Of two scopes it says
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotVersion {
    own: Option<u64>,
    global: u64,
}

impl CatalogSnapshot {
    /// The source that the name means: the tenant's own before a shared one.
    pub fn source(&self, name: &str) -> Option<&Arc<Source>> {
        self.own_source(name).or_else(|| self.global.source(name))
    }

    /// Every source that a name means, by name.
    pub fn sources(&self) -> impl Iterator<Item = &Arc<Source>> {
        let mut own = self.own_sources().iter().peekable();
        let mut global = self.global.by_name.iter().peekable();
        std::iter::from_fn(move || {
            let order = match (own.peek(), global.peek()) {
                (Some(own), Some(global)) => own.definition.name.cmp(&global.definition.name),
                (_, None) => Order::Less,
                (None, _) => Order::Greater,
            };
            match order {
                Order::Less => own.next(),
                Order::Greater => global.next(),
                Order::Equal => {
                    global.next();
                    own.next()
                }
            }
        })
    }

    /// Differs from another snapshot's of the same scope if anything that is
    /// seen differs.
    pub fn version(&self) -> SnapshotVersion {
        SnapshotVersion {
            own: self.own.as_ref().map(|own| own.stamp),
            global: self.global.stamp,
        }
    }

    fn own_source(&self, name: &str) -> Option<&Arc<Source>> {
        self.own.as_ref()?.source(name)
    }

    fn own_sources(&self) -> &[Arc<Source>] {
        self.own.as_ref().map_or(&[], |own| &own.by_name)
    }
}

/// The sources of one lane.
#[derive(Debug)]
struct LaneSources {
    /// Given to each content once.
    stamp: u64,
    by_name: Vec<Arc<Source>>,
}

impl LaneSources {
    fn source(&self, name: &str) -> Option<&Arc<Source>> {
        let found = self
            .by_name
            .binary_search_by(|source| source.definition.name.as_str().cmp(name));
        found.ok().map(|index| &self.by_name[index])
    }
}

/// The sources of the lanes that were used lately.
#[derive(Clone, Debug)]
pub(super) struct Snapshots {
    backend: Backend,
    lanes: Cache<Lane, CachedLane>,
    stamps: Arc<AtomicU64>,
}

#[derive(Clone, Debug)]
struct CachedLane {
    version: LaneVersion,
    sources: Arc<LaneSources>,
}

impl Snapshots {
    /// Keeps as many tenants' lanes as may be open, and the global one.
    pub fn new(backend: Backend) -> Self {
        let lanes_max = backend.lanes_open_max() as u64 + 1;
        Snapshots {
            backend,
            lanes: Cache::builder()
                .max_capacity(lanes_max)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            stamps: Arc::default(),
        }
    }

    /// What `scope` sees now.
    pub async fn of(&self, scope: &Scope) -> Result<CatalogSnapshot, BackendError> {
        let own = match scope.writable() {
            Lane::Global => None,
            own @ Lane::Tenant(_) => Some(self.lane(own).await?),
        };
        Ok(CatalogSnapshot {
            own,
            global: self.lane(Lane::Global).await?,
        })
    }

    async fn lane(&self, lane: Lane) -> Result<Arc<LaneSources>, BackendError> {
        let version = self.backend.version(lane)?;
        if let Some(cached) = self.lanes.get(&lane)
            && cached.version == version
        {
            return Ok(cached.sources);
        }
        let (version, by_name) = self
            .backend
            .read_versioned(lane, sources::all)
            .await?
            .unwrap_or((LaneVersion::ABSENT, Vec::new()));
        Ok(self.keep(lane, version, by_name))
    }

    /// Puts what was read into the cache. A lane changes its version with every
    /// commit, its stamp only with its sources: what is cached by the stamp
    /// outlives a commit of something else.
    fn keep(
        &self,
        lane: Lane,
        version: LaneVersion,
        by_name: Vec<Arc<Source>>,
    ) -> Arc<LaneSources> {
        let kept = self.lanes.entry(lane).and_compute_with(|cached| {
            let unchanged = cached
                .map(|entry| entry.into_value().sources)
                .filter(|sources| sources.by_name == by_name);
            let sources = unchanged.unwrap_or_else(|| {
                Arc::new(LaneSources {
                    stamp: self.stamps.fetch_add(1, Ordering::Relaxed),
                    by_name,
                })
            });
            Op::Put(CachedLane { version, sources })
        });
        kept.into_entry()
            .expect("a computation that ends in Put has an entry")
            .into_value()
            .sources
    }
}
