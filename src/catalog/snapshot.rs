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

use super::{Relation, Source, relations, sources};
use crate::backend::{Backend, BackendError, LaneVersion, OpenTransaction, Transaction};
use crate::tenant::{Lane, Scope};

/// What a scope sees of the catalog at one moment.
#[derive(Clone, Debug)]
pub struct CatalogSnapshot {
    /// The tenant's own, where there is one.
    own: Option<Arc<LaneObjects>>,
    global: Arc<LaneObjects>,
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
        self.find(name, |lane| &lane.sources)
    }

    /// Every source that a name means, by name.
    pub fn sources(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.merged(|lane| &lane.sources)
    }

    /// The table or view that the name means: the tenant's own before a shared
    /// one.
    pub fn relation(&self, name: &str) -> Option<&Arc<Relation>> {
        self.find(name, |lane| &lane.relations)
    }

    /// Every table and view that a name means, by name.
    pub fn relations(&self) -> impl Iterator<Item = &Arc<Relation>> {
        self.merged(|lane| &lane.relations)
    }

    /// Differs from another snapshot's of the same scope if anything that is
    /// seen differs.
    pub fn version(&self) -> SnapshotVersion {
        SnapshotVersion {
            own: self.own.as_ref().map(|own| own.stamp),
            global: self.global.stamp,
        }
    }

    fn find<'a, T: Named + 'a>(
        &'a self,
        name: &str,
        of: impl Fn(&'a LaneObjects) -> &'a Vec<Arc<T>>,
    ) -> Option<&'a Arc<T>> {
        let own = self.own.as_deref().and_then(|own| named(of(own), name));
        own.or_else(|| named(of(&self.global), name))
    }

    fn merged<'a, T: Named + 'a>(
        &'a self,
        of: impl Fn(&'a LaneObjects) -> &'a Vec<Arc<T>>,
    ) -> impl Iterator<Item = &'a Arc<T>> {
        let own: &[Arc<T>] = self.own.as_deref().map_or(&[], |own| of(own));
        let mut own = own.iter().peekable();
        let mut global = of(&self.global).iter().peekable();
        std::iter::from_fn(move || {
            let order = match (own.peek(), global.peek()) {
                (Some(own), Some(global)) => own.name().cmp(global.name()),
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
}

/// What is looked up by name in a lane.
trait Named {
    fn name(&self) -> &str;
}

impl Named for Source {
    fn name(&self) -> &str {
        &self.definition.name
    }
}

impl Named for Relation {
    fn name(&self) -> &str {
        &self.name
    }
}

/// The object of a name among those of one lane, which are in the order of their
/// names.
fn named<'a, T: Named>(by_name: &'a [Arc<T>], name: &str) -> Option<&'a Arc<T>> {
    let found = by_name.binary_search_by(|object| object.name().cmp(name));
    found.ok().map(|index| &by_name[index])
}

/// The objects of one lane, each kind by name.
#[derive(Debug, Default)]
struct LaneObjects {
    /// Given to each content once.
    stamp: u64,
    sources: Vec<Arc<Source>>,
    relations: Vec<Arc<Relation>>,
}

impl LaneObjects {
    fn read(transaction: &Transaction<'_>) -> Result<Self, BackendError> {
        Ok(LaneObjects {
            stamp: 0,
            sources: sources::all(transaction)?,
            relations: relations::all(transaction)?,
        })
    }

    fn shows_the_same(&self, other: &LaneObjects) -> bool {
        self.sources == other.sources && self.relations == other.relations
    }
}

/// The objects of the lanes that were used lately.
#[derive(Clone, Debug)]
pub(super) struct Snapshots {
    backend: Backend,
    lanes: Cache<Lane, CachedLane>,
    stamps: Arc<AtomicU64>,
}

#[derive(Clone, Debug)]
struct CachedLane {
    version: LaneVersion,
    objects: Arc<LaneObjects>,
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

    /// What `scope` sees in a transaction of its writable lane: what the
    /// transaction has defined too. Nothing of it is kept.
    pub async fn within(
        &self,
        scope: &Scope,
        transaction: &OpenTransaction,
    ) -> Result<CatalogSnapshot, BackendError> {
        let mut objects = transaction
            .read(LaneObjects::read)
            .await?
            .unwrap_or_default();
        objects.stamp = self.stamps.fetch_add(1, Ordering::Relaxed);
        let objects = Arc::new(objects);
        Ok(match scope.writable() {
            Lane::Global => CatalogSnapshot {
                own: None,
                global: objects,
            },
            Lane::Tenant(_) => CatalogSnapshot {
                own: Some(objects),
                global: self.lane(Lane::Global).await?,
            },
        })
    }

    async fn lane(&self, lane: Lane) -> Result<Arc<LaneObjects>, BackendError> {
        let version = self.backend.version(lane)?;
        if let Some(cached) = self.lanes.get(&lane)
            && cached.version == version
        {
            return Ok(cached.objects);
        }
        let (version, objects) = self
            .backend
            .read_versioned(lane, LaneObjects::read)
            .await?
            .unwrap_or((LaneVersion::ABSENT, LaneObjects::default()));
        Ok(self.keep(lane, version, objects))
    }

    /// Puts what was read into the cache. A lane changes its version with every
    /// commit, its stamp only with its objects: what is cached by the stamp
    /// outlives a commit of something else.
    fn keep(&self, lane: Lane, version: LaneVersion, read: LaneObjects) -> Arc<LaneObjects> {
        let kept = self.lanes.entry(lane).and_compute_with(|cached| {
            let unchanged = cached
                .map(|entry| entry.into_value().objects)
                .filter(|objects| objects.shows_the_same(&read));
            let objects = unchanged.unwrap_or_else(|| {
                Arc::new(LaneObjects {
                    stamp: self.stamps.fetch_add(1, Ordering::Relaxed),
                    ..read
                })
            });
            Op::Put(CachedLane { version, objects })
        });
        kept.into_entry()
            .expect("a computation that ends in Put has an entry")
            .into_value()
            .objects
    }
}
