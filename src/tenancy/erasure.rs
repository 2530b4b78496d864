//! The end of a tenant, and the certificate of it.
//!
//! An erasure is noted before it begins and done when all is gone: one that a crash
//! breaks off is found by the next call, and goes on. Meanwhile the tenant is served
//! to nobody, and its lane gets no database. What was there is on record before it is
//! removed, so that the certificate tells of it whichever call ends the erasure.

use std::sync::Arc;

use chrono::{DateTime, SecondsFormat};
use parking_lot::Mutex;
use rusqlite::{OptionalExtension, Transaction};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::record::{missing, state_of};
use super::{Contents, TenantState, Tenants, tree, usage};
use crate::auth::{Withdrawn, withdraw};
use crate::backend::{BackendError, LaneFile, hex};
use crate::error::{Error, Result};
use crate::tenant::{Principal, TenantId};

/// What is left of a tenant that is erased.
const KEPT: [&str; 5] = [
    "the files of its sources, which were never in this installation's keeping",
    "backups, exports and copies that were made before",
    "what logs hold, and the devices of the disk may still hold",
    "records of the audit trail, which only the operator reads from now on",
    "this certificate",
];

/// What was removed of a tenant, and what was not. Its text is compact JSON, with the
/// fields in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The version of this form.
    pub certificate: u32,
    /// Who was erased.
    pub tenant: String,
    /// What the operator called it.
    pub name: String,
    /// Who asked for it.
    pub by: String,
    /// When it began and ended, in RFC 3339.
    pub began_at: String,
    #[serde(default)]
    /// Empty until it has ended.
    pub ended_at: String,
    /// What was removed.
    pub removed: Removed,
    /// What was not.
    pub kept: Vec<String>,
    /// SHA-256 of the text without this field, in hexadecimal digits. Empty until it
    /// has ended.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
}

/// What was removed of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The files of its database.
    pub files: Vec<LaneFile>,
    /// What they held; absent where they could not be read.
    pub contents: Option<Contents>,
    /// How many sessions were bound to it.
    pub session_bindings: usize,
    /// How many queries were counted of it.
    pub queries_counted: u64,
    /// The credentials that acted for it.
    pub credentials: Withdrawn,
}

/// An erasure that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erased {
    /// A number that later ones exceed.
    pub number: i64,
    /// Who was erased.
    pub tenant: TenantId,
}

impl Certificate {
    /// The text that is kept and shown.
    ///
    /// # Errors
    /// None that is met.
    pub fn text(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|error| Error::internal("the certificate cannot be written", error))
    }

    fn sealed(mut self) -> Result<String> {
        self.sha256 = String::new();
        self.sha256 = hex(&Sha256::digest(self.text()?));
        self.text()
    }
}

impl Tenants {
    /// Removes all that is kept of a suspended tenant, and answers the certificate of
    /// it. One that was erased and has not come again is answered the last again.
    ///
    /// # Errors
    /// `FailedPrecondition` for a tenant that is not suspended, or is above others;
    /// `NotFound`;
    /// [`BackendError::Busy`] while its last requests are running: then the erasure is
    /// begun, and ends when it is asked for again.
    pub async fn erase(&self, id: TenantId, by: &Principal) -> Result<String> {
        let _turn = self.turn().await;
        let tenant = match self.find(id).await {
            Err(Error::NotFound(_)) => return self.last_certificate(id).await,
            found => found?,
        };
        let draft = match tenant.state {
            TenantState::Erasing => self.draft(id).await?,
            TenantState::Suspended => self.begin(id, tenant.name, by).await?,
            TenantState::Active => {
                return Err(Error::FailedPrecondition(format!(
                    "tenant {id} is not suspended: suspend it first, and see that nobody misses it"
                )));
            }
        };
        let draft = Arc::new(Mutex::new(draft));
        let record = |files: Vec<LaneFile>| {
            let mut draft = draft.lock();
            // An earlier call may have been broken off after it had noted them.
            let is_new = |known: &LaneFile| files.iter().all(|file| file.file != known.file);
            draft.removed.files.retain(is_new);
            draft.removed.files.extend(files);
            let text = draft.text();
            async move {
                let text = text.map_err(BackendError::refused)?;
                let write = move |system: &Transaction<'_>| Ok(note(system, id, &text)?);
                self.backend().system_write(write).await
            }
        };
        self.backend().erase(id, record).await?;
        self.usage().flush().await?;
        let draft = draft.lock().clone();
        self.end(id, draft).await
    }

    /// The erasures that were done after `number`, by their numbers.
    ///
    /// # Errors
    /// The storage's.
    pub async fn erased_after(&self, number: i64) -> Result<Vec<Erased>> {
        let rows: Vec<(i64, String)> = self
            .backend()
            .system_read(move |system| {
                let mut select = system.prepare_cached(
                    "SELECT id, tenant_id FROM erasures
                     WHERE id > ?1 AND ended_at_ms IS NOT NULL ORDER BY id",
                )?;
                let rows = select.query_map([number], |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok(rows.collect::<rusqlite::Result<_>>()?)
            })
            .await?;
        let parsed = rows.into_iter().filter_map(|(number, tenant)| {
            let tenant = tenant.parse().ok()?;
            Some(Erased { number, tenant })
        });
        Ok(parsed.collect())
    }

    /// When the last erasure of a tenant was done, in milliseconds since 1970.
    ///
    /// # Errors
    /// The storage's.
    pub async fn erased_at_ms(&self, id: TenantId) -> Result<Option<i64>> {
        let erased = self.backend().system_read(move |system| {
            let mut select = system
                .prepare_cached("SELECT max(ended_at_ms) FROM erasures WHERE tenant_id = ?1")?;
            Ok(select.query_row([id.to_string()], |row| row.get(0))?)
        });
        Ok(erased.await?)
    }

    /// Notes that the erasure has begun, with what there is.
    async fn begin(&self, id: TenantId, name: String, by: &Principal) -> Result<Certificate> {
        let contents = match self.contents(id).await {
            Ok(contents) => Some(contents),
            Err(Error::Backend(
                BackendError::Corrupt { .. } | BackendError::NewerVersion { .. },
            )) => None,
            Err(error) => return Err(error),
        };
        let now_ms = self.now_ms();
        let draft = Certificate {
            certificate: 1,
            tenant: id.to_string(),
            name,
            by: by.name().to_owned(),
            began_at: time_text(now_ms),
            ended_at: String::new(),
            removed: Removed {
                contents,
                ..Removed::default()
            },
            kept: KEPT.map(str::to_owned).into(),
            sha256: String::new(),
        };
        let text = draft.text()?;
        let begun = self.write(move |system| {
            if state_of(system, id)? != Some(TenantState::Suspended) {
                return Ok(false);
            }
            tree::check_is_lowest(system, id)?;
            system.execute(
                "UPDATE tenants SET state = 'erasing', state_at_ms = ?2 WHERE id = ?1",
                (id.to_string(), now_ms),
            )?;
            system.execute(
                "INSERT INTO erasures (tenant_id, began_at_ms, certificate) VALUES (?1, ?2, ?3)",
                (id.to_string(), now_ms, text),
            )?;
            Ok(true)
        });
        match begun.await? {
            true => Ok(draft),
            false => Err(Error::Unavailable(format!(
                "the state of tenant {id} has changed meanwhile: send the request again"
            ))),
        }
    }

    /// What was noted of an erasure that goes on.
    async fn draft(&self, id: TenantId) -> Result<Certificate> {
        let text = self
            .backend()
            .system_read(move |system| {
                let text: Option<String> = system
                    .prepare_cached(
                        "SELECT certificate FROM erasures
                         WHERE tenant_id = ?1 AND ended_at_ms IS NULL",
                    )?
                    .query_row([id.to_string()], |row| row.get(0))
                    .optional()?;
                Ok(text)
            })
            .await?;
        text.and_then(|text| serde_json::from_str(&text).ok())
            .ok_or_else(|| {
                Error::DataLoss(format!(
                    "what is noted of the erasure of tenant {id} is damaged: restore system.db"
                ))
            })
    }

    /// Forgets the tenant, and keeps the certificate.
    async fn end(&self, id: TenantId, draft: Certificate) -> Result<String> {
        let now_ms = self.now_ms();
        self.write(move |system| {
            let tenant = id.to_string();
            let mut certificate = draft;
            certificate.ended_at = time_text(now_ms);
            certificate.removed.queries_counted = usage::read(system, id)?.queries;
            certificate.removed.session_bindings = system.execute(
                "DELETE FROM session_bindings WHERE tenant_id = ?1",
                [&tenant],
            )?;
            certificate.removed.credentials = withdraw(system, id, now_ms)?;
            let text = certificate.sealed().map_err(BackendError::refused)?;
            for sql in [
                "DELETE FROM temporary_lanes WHERE lane = ?1",
                "DELETE FROM tenant_usage WHERE tenant_id = ?1",
                "DELETE FROM tenants WHERE id = ?1",
            ] {
                system.execute(sql, [&tenant])?;
            }
            note(system, id, &text)?;
            system.execute(
                "UPDATE erasures SET ended_at_ms = ?2
                 WHERE tenant_id = ?1 AND ended_at_ms IS NULL",
                (tenant, now_ms),
            )?;
            Ok(text)
        })
        .await
    }

    /// The certificate of the last erasure of a tenant that is no more.
    async fn last_certificate(&self, id: TenantId) -> Result<String> {
        let text = self
            .backend()
            .system_read(move |system| {
                let text: Option<String> = system
                    .prepare_cached(
                        "SELECT certificate FROM erasures
                         WHERE tenant_id = ?1 ORDER BY id DESC LIMIT 1",
                    )?
                    .query_row([id.to_string()], |row| row.get(0))
                    .optional()?;
                Ok(text)
            })
            .await?;
        text.ok_or_else(|| missing(id))
    }
}

/// Keeps what is known of an erasure that goes on.
fn note(system: &Transaction<'_>, id: TenantId, certificate: &str) -> rusqlite::Result<()> {
    system.execute(
        "UPDATE erasures SET certificate = ?2 WHERE tenant_id = ?1 AND ended_at_ms IS NULL",
        (id.to_string(), certificate),
    )?;
    Ok(())
}

/// Unix time in milliseconds in RFC 3339.
fn time_text(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms)
        .unwrap_or_default()
        .to_rfc3339_opts(SecondsFormat::Millis, true)
}
