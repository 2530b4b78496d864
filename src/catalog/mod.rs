//! What exists: the sources, models, tables and views of each lane.
//!
//! Rows live in the lane that owns them, so registering an object is one
//! transaction in one database. Reads put the lane's predicate into the
//! database's SQL; writes pass [`Transaction::assert_tenant_matches`].
//!
//! Architecture invariant: another tenant's object and one that does not exist
//! take the same path and get the same text, because the lane of the one is
//! never opened for the other. Nothing here looks at the files of a source.
//!
//! [`Transaction::assert_tenant_matches`]: crate::backend::Transaction::assert_tenant_matches

mod model;
mod models;
mod name;
mod relation;
pub(crate) mod relations;
pub(crate) mod schema_ipc;
mod snapshot;
mod source;
mod sources;
mod stamp;
mod temporary;

#[cfg(test)]
mod tests;

pub use model::{Model, NewModel};
pub(crate) use name::shown;
pub use name::{
    COLUMN_NAME_BYTES_MAX, MODEL_METADATA_BYTES_MAX, MODEL_NAME_BYTES_MAX, MODEL_URI_BYTES_MAX,
    RELATION_NAME_BYTES_MAX, SOURCE_NAME_BYTES_MAX, check_column_name, check_relation_name,
    check_source_name,
};
pub use relation::{
    COLUMNS_MAX, IndexKind, Relation, RelationBody, TENANT_COLUMN, TableCheck, TableColumn,
    TableDefinition, TableIndex, ViewDefinition,
};
pub use snapshot::{CatalogSnapshot, SnapshotVersion};
pub use source::{NewSource, Source, SourceFormat, TenantColumn, TenantEncoding};
pub use temporary::{Leftovers, TemporaryOwner, TemporarySessions};

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::backend::{Backend, OpenTransaction};
use crate::error::{Error, Result};
use crate::tenant::{Lane, Scope};
use name::{check_model, check_source};
use snapshot::Snapshots;

/// Says the time: Unix time in milliseconds.
pub type Clock = fn() -> i64;

/// The sources and models of every lane. Clones share what they have cached.
#[derive(Clone, Debug)]
pub struct Catalog {
    backend: Backend,
    snapshots: Snapshots,
    temporary: TemporarySessions,
    clock: Clock,
}

impl Catalog {
    /// The catalog that is in the lanes of `backend`.
    pub fn new(backend: Backend) -> Self {
        Catalog::with_clock(backend, system_clock)
    }

    /// As [`Catalog::new`], with another clock for what is registered.
    pub fn with_clock(backend: Backend, clock: Clock) -> Self {
        let temporary = TemporarySessions::new(backend.incarnation());
        Catalog {
            snapshots: Snapshots::new(backend.clone(), temporary.clone()),
            backend,
            temporary,
            clock,
        }
    }

    /// The sessions that have temporary tables.
    pub fn temporary(&self) -> &TemporarySessions {
        &self.temporary
    }

    /// Records a source in the scope's writable lane.
    pub async fn register_source(&self, scope: &Scope, new: NewSource) -> Result<Arc<Source>> {
        scope.require_writing()?;
        check_source(&new)?;
        let now_ms = (self.clock)();
        let source = Arc::new(Source {
            lane: scope.writable(),
            definition: new,
            registered_at_ms: now_ms,
            refreshed_at_ms: now_ms,
        });
        let row = Arc::clone(&source);
        let inserted = self
            .backend
            .write(scope.writable(), move |tx| sources::insert(tx, &row))
            .await?;
        match inserted {
            Some(()) => Ok(source),
            None => Err(Error::AlreadyExists(format!(
                "source {} exists already: choose another name, or drop it first with `jammi \
                 sources drop`",
                shown(&source.definition.name)
            ))),
        }
    }

    /// Gives a source of the scope's writable lane another definition. It keeps
    /// the time of its registration.
    pub async fn refresh_source(&self, scope: &Scope, new: NewSource) -> Result<Arc<Source>> {
        scope.require_writing()?;
        check_source(&new)?;
        self.writable_source(scope, &new.name, "refresh").await?;
        let now_ms = (self.clock)();
        let mut source = Source {
            lane: scope.writable(),
            definition: new,
            registered_at_ms: now_ms,
            refreshed_at_ms: now_ms,
        };
        let row = source.clone();
        let updated = self
            .backend
            .write(scope.writable(), move |tx| sources::update(tx, &row))
            .await?;
        match updated {
            Some(registered_at_ms) => {
                source.registered_at_ms = registered_at_ms;
                Ok(Arc::new(source))
            }
            None => Err(no_source(&source.definition.name)),
        }
    }

    /// The source that the name means to the scope: the tenant's own before a
    /// shared one.
    pub async fn source(&self, scope: &Scope, name: &str) -> Result<Arc<Source>> {
        let snapshot = self.snapshot(scope).await?;
        snapshot
            .source(name)
            .cloned()
            .ok_or_else(|| no_source(name))
    }

    /// Every source that a name means to the scope, by name.
    pub async fn sources(&self, scope: &Scope) -> Result<Vec<Arc<Source>>> {
        Ok(self.snapshot(scope).await?.sources().cloned().collect())
    }

    /// Forgets a source of the scope's writable lane. Its files stay.
    pub async fn drop_source(&self, scope: &Scope, name: &str) -> Result<()> {
        scope.require_writing()?;
        self.writable_source(scope, name, "drop").await?;
        let owned = name.to_owned();
        let deleted = self
            .backend
            .write(scope.writable(), move |tx| sources::delete(tx, &owned))
            .await?;
        if deleted {
            Ok(())
        } else {
            Err(no_source(name))
        }
    }

    /// As [`Catalog::snapshot`], with what a transaction of the scope's writable
    /// lane has defined and not committed.
    pub async fn snapshot_within(
        &self,
        scope: &Scope,
        transaction: &OpenTransaction,
    ) -> Result<Arc<CatalogSnapshot>> {
        Ok(Arc::new(self.snapshots.within(scope, transaction).await?))
    }

    /// Unix time in milliseconds, for what is recorded now.
    pub fn now_ms(&self) -> i64 {
        (self.clock)()
    }

    /// What the scope sees now. Cheap when no process has written to the
    /// scope's lanes since it was last asked for.
    pub async fn snapshot(&self, scope: &Scope) -> Result<Arc<CatalogSnapshot>> {
        Ok(Arc::new(self.snapshots.of(scope).await?))
    }

    /// Lets go of what was read of lanes and is kept in memory.
    pub fn forget(&self) {
        self.snapshots.forget();
    }

    /// Records a version of a model in the scope's writable lane.
    pub async fn register_model(&self, scope: &Scope, new: NewModel) -> Result<Model> {
        scope.require_writing()?;
        check_model(&new)?;
        let model = Model {
            lane: scope.writable(),
            definition: new,
            registered_at_ms: (self.clock)(),
        };
        let row = model.clone();
        let inserted = self
            .backend
            .write(scope.writable(), move |tx| models::insert(tx, &row))
            .await?;
        match inserted {
            Some(()) => Ok(model),
            None => Err(Error::AlreadyExists(format!(
                "model {} exists already in version {}: choose another version, or drop it first \
                 with `jammi models drop`",
                shown(&model.definition.name),
                shown(&model.definition.version)
            ))),
        }
    }

    /// The models that the scope sees, or those of one name: the tenant's own, those
    /// of tenants above, then the shared ones, each by name and in the order of registration.
    pub async fn models(&self, scope: &Scope, name: Option<&str>) -> Result<Vec<Model>> {
        let mut found = Vec::new();
        for &lane in scope.readable() {
            let name = name.map(str::to_owned);
            let rows = self
                .backend
                .read(lane, move |tx| models::all(tx, name.as_deref()))
                .await?;
            found.extend(rows.into_iter().flatten());
        }
        Ok(found)
    }

    /// A version of a model, or the one that was registered last: the tenant's
    /// own before a shared one.
    pub async fn model(&self, scope: &Scope, name: &str, version: Option<&str>) -> Result<Model> {
        for &lane in scope.readable() {
            if let Some(model) = self.model_of(lane, name, version).await? {
                return Ok(model);
            }
        }
        Err(no_model(name, version))
    }

    /// Forgets a version of a model of the scope's writable lane. What its URI
    /// leads to stays.
    pub async fn drop_model(&self, scope: &Scope, name: &str, version: &str) -> Result<()> {
        scope.require_writing()?;
        let own = scope.writable();
        // A lane that has nothing to forget is not given a database for it.
        if self.model_of(own, name, Some(version)).await?.is_none() {
            return Err(match self.model(scope, name, Some(version)).await {
                Ok(shared) => Error::PermissionDenied(format!(
                    "model {} {} can drop it",
                    shown(name),
                    owner_text(shared.lane)
                )),
                Err(error) => error,
            });
        }
        let (owned_name, owned_version) = (name.to_owned(), version.to_owned());
        let deleted = self
            .backend
            .write(own, move |tx| {
                models::delete(tx, &owned_name, &owned_version)
            })
            .await?;
        if deleted {
            Ok(())
        } else {
            Err(no_model(name, Some(version)))
        }
    }

    async fn model_of(
        &self,
        lane: Lane,
        name: &str,
        version: Option<&str>,
    ) -> Result<Option<Model>> {
        let (name, version) = (name.to_owned(), version.map(str::to_owned));
        let found = self
            .backend
            .read(lane, move |tx| models::find(tx, &name, version.as_deref()))
            .await?;
        Ok(found.flatten())
    }

    /// Refuses what is to be done to a source that the scope does not own. Also
    /// keeps a lane that has none from getting a database for it.
    async fn writable_source(&self, scope: &Scope, name: &str, what: &str) -> Result<()> {
        let source = self.source(scope, name).await?;
        if source.lane == scope.writable() {
            return Ok(());
        }
        Err(Error::PermissionDenied(format!(
            "source {} {} can {what} it",
            shown(name),
            owner_text(source.lane)
        )))
    }
}

/// Whose an object is that the scope reads and does not own, and who may do more.
pub(crate) fn owner_text(lane: Lane) -> &'static str {
    match lane {
        Lane::Global => "is shared by every tenant: only a session that is bound to no tenant",
        Lane::Tenant(_) => "is shared by a tenant above: only a session that is bound to that one",
    }
}

fn no_source(name: &str) -> Error {
    Error::NotFound(format!(
        "source {} does not exist: list the sources with `jammi sources list`",
        shown(name)
    ))
}

fn no_model(name: &str, version: Option<&str>) -> Error {
    let name = shown(name);
    let what = match version {
        Some(version) => format!("model {name} in version {}", shown(version)),
        None => format!("model {name}"),
    };
    Error::NotFound(format!(
        "{what} does not exist: list the models with `jammi models list`"
    ))
}

/// A clock that is set to before 1970 says 1970.
pub(crate) fn system_clock() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}
