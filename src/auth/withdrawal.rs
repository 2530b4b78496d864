//! Takes a tenant out of every credential, for one that is no more: whoever uses its
//! id after that is not to be reached by what was given for it.

use rusqlite::Transaction;
use serde::{Deserialize, Serialize};

use super::registry::{acts_for_of, rights_text};
use crate::backend::BackendError;
use crate::tenant::{ActsFor, TenantId};

/// What became of the credentials that named a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// Ids of API keys that acted for it alone.
    pub keys_revoked: Vec<String>,
    /// Ids of API keys that act for others still.
    pub keys_narrowed: Vec<String>,
    /// Users who acted for it alone.
    pub users_dropped: Vec<String>,
    /// Users who act for others still.
    pub users_narrowed: Vec<String>,
}

/// Revokes and narrows what `system` holds.
pub(crate) fn withdraw(
    system: &Transaction<'_>,
    tenant: TenantId,
    now_ms: i64,
) -> Result<Withdrawn, BackendError> {
    let mut withdrawn = Withdrawn::default();
    for (id, others) in naming(system, "api_keys", "id", "revoked_at_ms IS NULL", tenant)? {
        if others.is_empty() {
            system
                .prepare_cached("UPDATE api_keys SET revoked_at_ms = ?2 WHERE id = ?1")?
                .execute((&id, now_ms))?;
            withdrawn.keys_revoked.push(id);
        } else {
            system
                .prepare_cached("UPDATE api_keys SET acts_for = ?2 WHERE id = ?1")?
                .execute((&id, others))?;
            withdrawn.keys_narrowed.push(id);
        }
    }
    for (name, others) in naming(system, "users", "name", "TRUE", tenant)? {
        if others.is_empty() {
            system
                .prepare_cached("DELETE FROM users WHERE name = ?1")?
                .execute([&name])?;
            withdrawn.users_dropped.push(name);
        } else {
            system
                .prepare_cached("UPDATE users SET acts_for = ?2 WHERE name = ?1")?
                .execute((&name, others))?;
            withdrawn.users_narrowed.push(name);
        }
    }
    system.execute(
        "UPDATE credential_changes SET changes = changes + 1 WHERE kind IN ('api_keys', 'users')",
        [],
    )?;
    Ok(withdrawn)
}

/// Those of a table that name the tenant, and the others that each names.
fn naming(
    system: &Transaction<'_>,
    table: &str,
    name: &str,
    which: &str,
    tenant: TenantId,
) -> Result<Vec<(String, String)>, BackendError> {
    let mut select = system.prepare(&format!(
        "SELECT {name}, acts_for FROM {table} WHERE {which} AND instr(acts_for, ?1) > 0 \
         ORDER BY rowid"
    ))?;
    let rows = select.query_map([tenant.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows: Vec<(String, String)> = rows.collect::<rusqlite::Result<_>>()?;
    let others = rows.into_iter().filter_map(|(name, acts_for)| {
        // What is damaged acts for nobody.
        let Some(ActsFor::Only(mut tenants)) = acts_for_of(&acts_for) else {
            return None;
        };
        tenants.remove(&tenant).then(|| {
            let (others, _roles) = rights_text(&ActsFor::Only(tenants), []);
            (name, others)
        })
    });
    Ok(others.collect())
}
