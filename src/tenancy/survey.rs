//! What a tenant's lane holds, by name and number.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Tenants;
use crate::backend::{BackendError, Transaction};
use crate::catalog::{Relation, RelationBody, relations};
use crate::error::Result;
use crate::table::Stored;
use crate::tenant::{Lane, Principal, Scope, TenantId};

/// What a tenant's lane holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The tables of the lane, and those shared ones of which it has rows.
    pub tables: Vec<TableRows>,
    /// The names of its views.
    pub views: Vec<String>,
    /// Its sources, whose files are elsewhere.
    pub sources: Vec<SourceEntry>,
    /// Its models, as `NAME VERSION`.
    pub models: Vec<String>,
}

/// The rows of one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRows {
    /// The table's name, or how the rows are stored where it has none any more.
    pub name: String,
    /// Whether it is shared, and others have rows of it too.
    pub shared: bool,
    /// How many the tenant has.
    pub rows: u64,
    /// How the lane stores them.
    #[serde(skip)]
    pub stored: String,
}

/// A source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceEntry {
    /// The name of the source.
    pub name: String,
    /// Where its files are.
    pub location: String,
}

impl Contents {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        *self == Contents::default()
    }

    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}

impl Tenants {
    /// What the tenant's lane holds now: nothing, where it has none.
    ///
    /// # Errors
    /// The storage's.
    pub async fn contents(&self, tenant: TenantId) -> Result<Contents> {
        let lane = Lane::Tenant(tenant);
        let Some((counts, own)) = self.backend().read(lane, counted).await? else {
            return Ok(Contents::default());
        };
        let shared = self.shared_tables(lane).await?;
        let mut contents = Contents::default();
        let mut named = HashSet::new();
        for relation in &own {
            match &relation.body {
                RelationBody::View(_) => contents.views.push(relation.name.clone()),
                RelationBody::Table(_) => {
                    let stored = Stored::of(relation, lane).as_str().to_owned();
                    named.insert(stored.clone());
                    contents.tables.push(TableRows {
                        name: relation.name.clone(),
                        shared: false,
                        rows: counts.get(&stored).copied().unwrap_or_default(),
                        stored,
                    });
                }
            }
        }
        let mut others: Vec<_> = counts.into_iter().collect();
        others.retain(|(stored, rows)| *rows > 0 && !named.contains(stored));
        others.sort();
        for (stored, rows) in others {
            let name = shared.get(&stored);
            contents.tables.push(TableRows {
                // What temporary and dropped tables have left goes by itself.
                name: name.cloned().unwrap_or_else(|| stored.clone()),
                shared: stored.starts_with('g'),
                rows,
                stored,
            });
        }
        self.add_catalog(tenant, &mut contents).await?;
        Ok(contents)
    }

    async fn add_catalog(&self, tenant: TenantId, contents: &mut Contents) -> Result<()> {
        let scope = Scope::tenant_bound(Principal::trusted_network(), tenant);
        let own = Lane::Tenant(tenant);
        for source in self.catalog().sources(&scope).await? {
            if source.lane == own {
                contents.sources.push(SourceEntry {
                    name: source.definition.name.clone(),
                    location: source.definition.location.clone(),
                });
            }
        }
        for model in self.catalog().models(&scope, None).await? {
            if model.lane == own {
                let (name, version) = (model.definition.name, model.definition.version);
                contents.models.push(format!("{name} {version}"));
            }
        }
        Ok(())
    }

    /// The names of shared tables, by how `lane` stores their rows.
    pub(super) async fn shared_tables(&self, lane: Lane) -> Result<HashMap<String, String>> {
        let shared = self
            .backend()
            .read(Lane::Global, |global| relations::all(global, None))
            .await?
            .unwrap_or_default();
        let stored = shared
            .iter()
            .filter(|relation| matches!(relation.body, RelationBody::Table(_)))
            .map(|relation| {
                let stored = Stored::of(relation, lane).as_str().to_owned();
                (stored, relation.name.clone())
            });
        Ok(stored.collect())
    }
}

type Counted = (HashMap<String, u64>, Vec<Arc<Relation>>);

/// How many rows are stored under each name, and what the lane defines.
fn counted(lane: &Transaction<'_>) -> Result<Counted, BackendError> {
    let mut select = lane
        .connection()
        .prepare_cached("SELECT stored, sum(rows) FROM table_chunks GROUP BY stored")?;
    let rows = select.query_map([], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
    })?;
    let counts = rows.collect::<rusqlite::Result<_>>()?;
    Ok((counts, relations::all(lane, None)?))
}
