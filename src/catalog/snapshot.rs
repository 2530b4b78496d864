//! What a scope sees of the catalog at one moment, and the cache that makes
//! looking cheap.
//!
//! Invariant: a snapshot is never older than the request that asks for it,
//! whichever process committed last: the cache is asked for the lane's current
//! version, not for its age.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::{Relation, Source, TemporaryOwner, TemporarySessions, relations, sources, stamp};
use crate::backend::{Backend, BackendError, LaneVersion, OpenTransaction, Transaction};
use crate::tenant::{Lane, Scope};

/// How many sessions' temporary tables are kept: those of others are read for each
/// statement.
const SESSIONS_KEPT: u64 = 4_096;

/// What a scope sees of the catalog at one moment.
#[derive(Clone, Debug)]
pub struct CatalogSnapshot {
    /// The temporary tables of the scope's session, where it has any.
    temporary: Option<Arc<LaneObjects>>,
    /// The tenant's own, where there is one.
    own: Option<Arc<LaneObjects>>,
    /// Those of tenants above that share, from the nearest on.
    above: Vec<Arc<LaneObjects>>,
    global: Arc<LaneObjects>,
}

/// Says whether two snapshots of one scope show the same, also in two sessions. Of
/// two scopes it says nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotVersion {
    temporary: Option<u64>,
    own: Option<u64>,
    above: Vec<u64>,
    global: u64,
}

impl CatalogSnapshot {
    /// The source that the name means: the tenant's own before one of a tenant above,
    /// and that before a shared one.
    pub fn source(&self, name: &str) -> Option<&Arc<Source>> {
        self.find(name, |lane| &lane.sources)
    }

    /// Every source that a name means, by name.
    pub fn sources(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.merged(|lane| &lane.sources)
    }

    /// The table or view that the name means: the session's own before the
    /// tenant's, then one of a tenant above, and then a shared one.
    pub fn relation(&self, name: &str) -> Option<&Arc<Relation>> {
        self.find(name, |lane| &lane.relations)
    }

    /// Every table and view that a name means, by name.
    pub fn relations(&self) -> impl Iterator<Item = &Arc<Relation>> {
        self.merged(|lane| &lane.relations)
    }

    /// The temporary table of the name.
    pub fn temporary(&self, name: &str) -> Option<&Arc<Relation>> {
        let temporary = self.temporary.as_deref()?;
        named(&temporary.relations, name)
    }

    /// Whether the scope's session has temporary tables.
    pub fn has_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// What is seen in no session.
    pub fn without_session(&self) -> Self {
        CatalogSnapshot {
            temporary: None,
            ..self.clone()
        }
    }

    /// Differs from another snapshot's of the same scope if anything that is
    /// seen differs. A temporary table makes it one that no other session's equals.
    pub fn version(&self) -> SnapshotVersion {
        SnapshotVersion {
            temporary: self.temporary.as_ref().map(|temporary| temporary.stamp),
            own: self.own.as_ref().map(|own| own.stamp),
            above: self.above.iter().map(|above| above.stamp).collect(),
            global: self.global.stamp,
        }
    }

    fn find<'a, T: Named + 'a>(
        &'a self,
        name: &str,
        of: impl Fn(&'a LaneObjects) -> &'a Vec<Arc<T>>,
    ) -> Option<&'a Arc<T>> {
        self.layers().find_map(|objects| named(of(objects), name))
    }

    fn merged<'a, T: Named + 'a>(
        &'a self,
        of: impl Fn(&'a LaneObjects) -> &'a Vec<Arc<T>>,
    ) -> impl Iterator<Item = &'a Arc<T>> {
        let mut layers: Vec<_> = self
            .layers()
            .map(|objects| of(objects).iter().peekable())
            .collect();
        std::iter::from_fn(move || {
            let next = layers
                .iter_mut()
                .filter_map(|layer| layer.peek().map(|object| object.name()))
                .min()?;
            let mut found = None;
            for layer in &mut layers {
                let object = layer.next_if(|object| object.name() == next);
                found = found.or(object);
            }
            found
        })
    }

    /// What names are looked up in, one after the other.
    fn layers(&self) -> impl Iterator<Item = &LaneObjects> {
        let first = [self.temporary.as_deref(), self.own.as_deref()];
        let above = self.above.iter().map(|above| &**above);
        first
            .into_iter()
            .flatten()
            .chain(above)
            .chain([&*self.global])
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

/// The objects of one lane, or those of it that belong to one session, each kind by
/// name.
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
            relations: relations::all(transaction, None)?,
        })
    }

    fn read_temporary(
        transaction: &Transaction<'_>,
        owner: TemporaryOwner,
    ) -> Result<Self, BackendError> {
        Ok(LaneObjects {
            stamp: 0,
            sources: Vec::new(),
            relations: relations::all(transaction, Some(owner))?,
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
    temporary: TemporarySessions,
    objects: Cache<Part, CachedObjects>,
    stamps: Arc<AtomicU64>,
}

/// What is read and kept together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Part {
    lane: Lane,
    /// The session whose temporary tables they are.
    owner: Option<TemporaryOwner>,
}

#[derive(Clone, Debug)]
struct CachedObjects {
    version: LaneVersion,
    /// The state of the lane's catalog at that version, if there is a lane.
    state: Option<i64>,
    /// What was read. A lane changes its version with every commit, this stays as
    /// long as it shows the same: what is cached by its stamp outlives a commit of
    /// something else.
    objects: Arc<LaneObjects>,
}

impl Snapshots {
    /// Keeps as many tenants' lanes as may be open, and the global one; and the
    /// temporary tables of [`SESSIONS_KEPT`] sessions.
    pub fn new(backend: Backend, temporary: TemporarySessions) -> Self {
        let parts_max = backend.lanes_open_max() as u64 + 1 + SESSIONS_KEPT;
        Snapshots {
            backend,
            temporary,
            objects: Cache::builder()
                .max_capacity(parts_max)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            stamps: Arc::default(),
        }
    }

    /// Keeps nothing of any lane any longer.
    pub fn forget(&self) {
        self.objects.invalidate_all();
    }

    /// What `scope` sees now.
    pub async fn of(&self, scope: &Scope) -> Result<CatalogSnapshot, BackendError> {
        let own = match scope.writable() {
            Lane::Global => None,
            own @ Lane::Tenant(_) => Some(self.lane(own).await?),
        };
        let temporary = match self.temporary.owner(scope) {
            None => None,
            owner @ Some(_) => {
                let lane = scope.writable();
                Some(self.part(Part { lane, owner }).await?)
            }
        };
        Ok(CatalogSnapshot {
            temporary: temporary.filter(|temporary| !temporary.relations.is_empty()),
            own,
            above: self.above(scope).await?,
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
        let owner = self.temporary.owner(scope);
        let read = transaction
            .read(move |inner| {
                let temporary = match owner {
                    None => None,
                    Some(owner) => Some(LaneObjects::read_temporary(inner, owner)?),
                };
                Ok((LaneObjects::read(inner)?, temporary))
            })
            .await?;
        let (objects, temporary) = read.unwrap_or_default();
        let objects = self.stamped(objects);
        let temporary = temporary
            .filter(|temporary| !temporary.relations.is_empty())
            .map(|temporary| self.stamped(temporary));
        let (own, global) = match scope.writable() {
            Lane::Global => (None, objects),
            Lane::Tenant(_) => (Some(objects), self.lane(Lane::Global).await?),
        };
        Ok(CatalogSnapshot {
            temporary,
            own,
            above: self.above(scope).await?,
            global,
        })
    }

    async fn above(&self, scope: &Scope) -> Result<Vec<Arc<LaneObjects>>, BackendError> {
        let mut above = Vec::new();
        for lane in scope.above() {
            above.push(self.lane(*lane).await?);
        }
        Ok(above)
    }

    async fn lane(&self, lane: Lane) -> Result<Arc<LaneObjects>, BackendError> {
        self.part(Part { lane, owner: None }).await
    }

    async fn part(&self, part: Part) -> Result<Arc<LaneObjects>, BackendError> {
        let version = self.backend.version(part.lane)?;
        let cached = self.objects.get(&part);
        if let Some(cached) = &cached
            && cached.version == version
        {
            return Ok(Arc::clone(&cached.objects));
        }
        let known = cached.as_ref().and_then(|cached| cached.state);
        let read = self
            .backend
            .read_versioned(part.lane, move |transaction| {
                let state = Some(stamp::read(transaction)?);
                let objects = match part.owner {
                    _ if state == known => None,
                    None => Some(LaneObjects::read(transaction)?),
                    Some(owner) => Some(LaneObjects::read_temporary(transaction, owner)?),
                };
                Ok((state, objects))
            })
            .await?;
        let (version, (state, objects)) =
            read.unwrap_or((LaneVersion::ABSENT, (None, Some(LaneObjects::default()))));
        let keep = |objects| CachedObjects {
            version,
            state,
            objects,
        };
        if objects.is_none()
            && let Some(cached) = cached
        {
            self.objects.insert(part, keep(Arc::clone(&cached.objects)));
            return Ok(cached.objects);
        }
        let read = objects.unwrap_or_default();
        let kept = self.objects.entry(part).and_compute_with(|cached| {
            let unchanged = cached
                .map(|entry| entry.into_value().objects)
                .filter(|objects| objects.shows_the_same(&read));
            Op::Put(keep(unchanged.unwrap_or_else(|| self.stamped(read))))
        });
        Ok(kept
            .into_entry()
            .expect("a computation that ends in Put has an entry")
            .into_value()
            .objects)
    }

    fn stamped(&self, objects: LaneObjects) -> Arc<LaneObjects> {
        Arc::new(LaneObjects {
            stamp: self.stamps.fetch_add(1, Ordering::Relaxed),
            ..objects
        })
    }
}
