//! Which tenant is below which.
//!
//! Invariant: what is decided is decided in the transaction that writes it, so that two
//! changes at once make no circle and no tree that is too deep.

use rusqlite::{OptionalExtension, Transaction};

use super::record::{erasing, missing, state_of};
use super::{TenantChange, TenantState};
use crate::backend::BackendError;
use crate::error::Error;
use crate::tenant::TenantId;

/// Changes what is registered of a tenant.
pub(super) fn change(
    system: &Transaction<'_>,
    id: TenantId,
    change: &TenantChange,
    depth_max: usize,
) -> Result<(), BackendError> {
    if let Some(name) = &change.name {
        system.execute(
            "UPDATE tenants SET name = ?2 WHERE id = ?1",
            (id.to_string(), name),
        )?;
    }
    if let Some(shares) = change.shares {
        system.execute(
            "UPDATE tenants SET shares = ?2 WHERE id = ?1",
            (id.to_string(), shares),
        )?;
    }
    if let Some(parent) = change.parent {
        if let Some(parent) = parent {
            check(system, id, parent, depth_max)?;
        }
        system.execute(
            "UPDATE tenants SET parent = ?2 WHERE id = ?1",
            (id.to_string(), parent.map(|parent| parent.to_string())),
        )?;
    }
    Ok(())
}

/// Refuses a tenant above that there is not, that is below, or that makes too many
/// levels.
fn check(
    system: &Transaction<'_>,
    id: TenantId,
    parent: TenantId,
    depth_max: usize,
) -> Result<(), BackendError> {
    match state_of(system, parent)? {
        None => return Err(BackendError::refused(missing(parent))),
        Some(TenantState::Erasing) => return Err(BackendError::refused(erasing(parent))),
        Some(TenantState::Active | TenantState::Suspended) => {}
    }
    let mut levels = height(system, id, depth_max)?;
    let mut next = Some(parent.to_string());
    while let Some(above) = next {
        if above == id.to_string() {
            return Err(BackendError::refused(Error::InvalidArgument(format!(
                "tenant {parent} is tenant {id} or below it: choose another one to be above"
            ))));
        }
        levels += 1;
        if levels > depth_max {
            return Err(BackendError::refused(Error::InvalidArgument(format!(
                "there would be more than {depth_max} levels of tenants: choose one further up, or \
                 raise tenancy.depth_max"
            ))));
        }
        next = system
            .prepare_cached("SELECT parent FROM tenants WHERE id = ?1")?
            .query_row([above], |row| row.get(0))
            .optional()?
            .flatten();
    }
    Ok(())
}

/// The levels of a tenant and those below it, or one more than `depth_max`.
fn height(system: &Transaction<'_>, id: TenantId, depth_max: usize) -> Result<usize, BackendError> {
    let levels: i64 = system
        .prepare_cached(
            "WITH RECURSIVE below (id, level) AS (
                 SELECT ?1, 1
                 UNION
                 SELECT tenants.id, below.level + 1 FROM tenants JOIN below ON parent = below.id
                 WHERE below.level <= ?2
             )
             SELECT max(level) FROM below",
        )?
        .query_row((id.to_string(), depth_max as i64), |row| row.get(0))?;
    Ok(usize::try_from(levels).unwrap_or(usize::MAX))
}

/// Refuses to end a tenant that is above others.
pub(super) fn check_is_lowest(system: &Transaction<'_>, id: TenantId) -> Result<(), BackendError> {
    let below: Option<String> = system
        .prepare_cached("SELECT id FROM tenants WHERE parent = ?1 ORDER BY id LIMIT 1")?
        .query_row([id.to_string()], |row| row.get(0))
        .optional()?;
    match below {
        None => Ok(()),
        Some(below) => Err(BackendError::refused(Error::FailedPrecondition(format!(
            "tenant {below} is below tenant {id}: put another one above it, or none, first"
        )))),
    }
}
