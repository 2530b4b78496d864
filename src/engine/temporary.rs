//! Tables that belong to one session, and their end.
//!
//! They are rows of the same lane, so one transaction spans them and the tables that
//! stay. What a session has is removed when the session ends; where that fails it is
//! seen by nobody, and removed when it is tried again. What another run of a process
//! left, the next that opens the directory removes.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use uuid::Uuid;

use super::Engine;
use crate::backend::{Backend, BackendError, LaneVersion, Transaction};
use crate::catalog::{Leftovers, TemporaryOwner, TemporarySessions, relations};
use crate::config::SessionsConfig;
use crate::error::{Error, Result};
use crate::table;
use crate::tenant::{Lane, Scope, SessionKey};

/// How many lanes are tidied at a time.
const LANES_AT_ONCE: usize = 16;

/// What the engine keeps of temporary tables.
pub(super) struct Temporary {
    /// How many a session may have in a lane (`sessions.temporary_tables_max`).
    tables_max: usize,
    /// How many sessions may have any (`sessions.max`).
    sessions_max: usize,
    /// The lanes of which it is noted that something may be left there.
    noted: Mutex<HashSet<Lane>>,
}

/// The right to make one temporary table.
#[derive(Clone)]
pub(super) struct Claim {
    pub owner: TemporaryOwner,
    sessions: TemporarySessions,
    tables_max: usize,
}

impl Claim {
    /// Refuses one table more than a session may have, and one of a session that has
    /// ended since.
    pub fn check(&self, lane: &Transaction<'_>) -> Result<(), BackendError> {
        if !self.sessions.lives(&self.owner) {
            return Err(BackendError::refused(Error::FailedPrecondition(
                "the session was closed meanwhile: send the statement again".into(),
            )));
        }
        if relations::count(lane, self.owner)? >= self.tables_max {
            return Err(BackendError::refused(Error::ResourceExhausted(format!(
                "the session has {} temporary tables, as many as it may: drop one, or raise \
                 sessions.temporary_tables_max",
                self.tables_max
            ))));
        }
        Ok(())
    }
}

impl Temporary {
    pub fn new(config: &SessionsConfig) -> Self {
        Temporary {
            tables_max: config.temporary_tables_max,
            sessions_max: config.max,
            noted: Mutex::default(),
        }
    }
}

/// The session that a temporary table is for.
///
/// # Errors
/// `InvalidArgument` where the request is made in none.
pub(super) fn session_of(scope: &Scope) -> Result<SessionKey> {
    scope.session().ok_or_else(|| {
        Error::InvalidArgument(
            "a temporary table belongs to a session, and the request names none: send \
             jammi-session-id, such as a UUID, on this call and on every one that is to see the \
             table"
                .into(),
        )
    })
}

impl Engine {
    /// Lets the scope's session make a temporary table.
    pub(super) async fn claim_temporary(&self, scope: &Scope) -> Result<Claim> {
        let (session, lane) = (session_of(scope)?, scope.writable());
        let parts = &self.0;
        let sessions = parts.catalog.temporary();
        // One that is bound to nobody is counted nowhere else.
        if sessions.life(session).is_none() && sessions.len() >= parts.temporary.sessions_max {
            return Err(Error::ResourceExhausted(format!(
                "{} sessions have temporary tables, as many as may: try again later, or raise \
                 sessions.max",
                parts.temporary.sessions_max
            )));
        }
        let is_noted = parts.temporary.noted.lock().contains(&lane);
        if !is_noted {
            parts.backend.note_leftovers(lane).await?;
            parts.temporary.noted.lock().insert(lane);
        }
        Ok(Claim {
            owner: sessions.claim(session, lane, parts.catalog.now_ms()),
            sessions: sessions.clone(),
            tables_max: parts.temporary.tables_max,
        })
    }

    /// Ends a session: its temporary tables are gone. What cannot be removed now is
    /// not seen any more, and is removed by [`Engine::remove_ended`].
    pub async fn end_session(&self, session: SessionKey) {
        let sessions = self.catalog().temporary();
        if sessions.life(session).is_some() {
            sessions.end(session);
            self.remove_ended().await;
        }
    }

    /// Ends the sessions that have had no request for `idle_timeout_ms`.
    pub async fn end_idle_sessions(&self, now_ms: i64, idle_timeout_ms: i64) {
        self.catalog().temporary().end_idle(now_ms, idle_timeout_ms);
        self.remove_ended().await;
    }

    /// Removes the temporary tables of sessions that have ended.
    pub async fn remove_ended(&self) {
        let sessions = self.catalog().temporary();
        stream::iter(sessions.ended())
            .for_each_concurrent(LANES_AT_ONCE, |(owner, lane)| async move {
                match remove(self.backend(), lane, Leftovers::Of(owner)).await {
                    Ok(()) => sessions.removed(&owner, lane),
                    Err(error) => tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "temporary tables of a session that has ended were not removed: it is \
                         tried again"
                    ),
                }
            })
            .await;
    }

    /// Puts the content of a backup in the place of the lane's, without the temporary
    /// tables that it holds. The lane's sessions lose theirs.
    ///
    /// # Errors
    /// As of [`Backend::restore`].
    pub async fn restore(&self, lane: Lane, from: &Path) -> Result<()> {
        Ok(restore(self.backend(), lane, from).await?)
    }

    /// Begins to remove the temporary tables that runs of a process left which are
    /// over. They are seen by nobody meanwhile, and may be in many lanes.
    pub(super) async fn remove_leftovers(&self) -> Result<()> {
        let leftovers = self.backend().leftovers().await?;
        if !leftovers.is_empty() {
            let backend = self.backend().clone();
            tokio::spawn(async move {
                if let Err(error) = remove_all(&backend, leftovers).await {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "what earlier processes left is not forgotten yet: it is tried again at \
                         the next start"
                    );
                }
            });
        }
        Ok(())
    }
}

/// As [`Engine::restore`], without an engine.
pub async fn restore(backend: &Backend, lane: Lane, from: &Path) -> Result<(), BackendError> {
    let strip = |restored: &Transaction<'_>| table::drop_temporary(restored, &Leftovers::All);
    backend.restore(lane, from, strip).await
}

async fn remove_all(
    backend: &Backend,
    leftovers: BTreeMap<Uuid, Vec<Lane>>,
) -> Result<(), BackendError> {
    for (incarnation, lanes) in leftovers {
        let left = Leftovers::OfIncarnation(incarnation);
        let failed = stream::iter(lanes)
            .map(|lane| async move { remove(backend, lane, left).await.err() })
            .buffer_unordered(LANES_AT_ONCE)
            .filter_map(std::future::ready)
            .collect::<Vec<_>>()
            .await;
        for error in &failed {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "temporary tables of an earlier process were not removed: it is tried again \
                 at the next start"
            );
        }
        if failed.is_empty() {
            backend.forget_leftovers(incarnation).await?;
        }
    }
    Ok(())
}

async fn remove(backend: &Backend, lane: Lane, which: Leftovers) -> Result<(), BackendError> {
    // A lane that was erased is not made for this.
    if backend.version(lane)? == LaneVersion::ABSENT {
        return Ok(());
    }
    backend
        .write(lane, move |transaction| {
            table::drop_temporary(transaction, &which)
        })
        .await
}
