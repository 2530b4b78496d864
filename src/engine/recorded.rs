//! What embedded sessions do, in the audit trail: as a server records the requests of
//! its clients.

use super::{Engine, MUTABLE_CATALOG, PUBLIC_SCHEMA, RecordStream, Statement};
use crate::audit::{self, Entry, OK};
use crate::error::Result;
use crate::tenant::{Principal, Scope, SessionKey, TenantId};

/// What a call is about that is no statement.
#[derive(Clone, Copy, Debug)]
pub enum About<'a> {
    /// A source.
    Source(&'a str),
    /// A stored table or a view.
    Table(&'a str),
    /// The table of `jammi.catalog` that lists what is listed or changed.
    Listing(&'static str),
}

impl About<'_> {
    /// Its full name.
    pub fn name(self) -> String {
        match self {
            About::Source(name) => format!("{name}.{PUBLIC_SCHEMA}.{name}"),
            About::Table(name) => format!("{MUTABLE_CATALOG}.{PUBLIC_SCHEMA}.{name}"),
            About::Listing(name) => format!("jammi.catalog.{name}"),
        }
    }
}

/// The record of one call of an embedded session.
#[derive(Debug)]
pub struct Recorded(Option<Entry>);

impl Engine {
    /// The scope of a call of `session` by whoever has the directory. That a tenant
    /// who may not be used is refused is recorded.
    ///
    /// # Errors
    /// `PermissionDenied` for such a tenant, and as [`Engine::record`].
    pub async fn scope_of(
        &self,
        method: &str,
        tenant: Option<TenantId>,
        session: SessionKey,
    ) -> Result<Scope> {
        let principal = Principal::trusted_network();
        match self.tenants().scope(principal.clone(), tenant).await {
            Ok(scope) => Ok(scope.in_session(Some(session))),
            Err(refused) => {
                let record = self.record_of(method, &principal, tenant).await?;
                record.finish(Err(refused)).await
            }
        }
    }

    /// Begins the record of a call for `scope`.
    ///
    /// # Errors
    /// `Unavailable` while records cannot be written.
    pub async fn record(&self, method: &str, scope: &Scope) -> Result<Recorded> {
        self.record_of(method, scope.principal(), scope.tenant())
            .await
    }

    async fn record_of(
        &self,
        method: &str,
        principal: &Principal,
        tenant: Option<TenantId>,
    ) -> Result<Recorded> {
        let entry = self.audit().begin(method).await?;
        if let Some(entry) = &entry {
            entry.asks(principal);
            entry.admitted(principal, None, tenant);
        }
        Ok(Recorded(entry))
    }

    /// Does `work` for `scope`, and records what it is about.
    ///
    /// # Errors
    /// Those of `work`, and as [`Engine::record`].
    pub async fn recorded<T>(
        &self,
        method: &str,
        scope: &Scope,
        about: About<'_>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let record = self.record(method, scope).await?;
        if let Some(entry) = &record.0 {
            entry.reads(&[about.name()], scope);
        }
        let done = work.await;
        record.finish(done).await
    }
}

impl Recorded {
    /// The text of the statement.
    pub fn statement(&self, sql: &str) {
        if let Some(entry) = &self.0 {
            entry.statement(sql);
        }
    }

    /// The statement as it was planned.
    pub fn planned(&self, statement: &Statement) {
        if let Some(entry) = &self.0 {
            entry.reads(statement.tables(), statement.scope());
        }
    }

    /// The rows of the statement, whose end is that of the record.
    ///
    /// # Errors
    /// That of the statement.
    pub async fn rows(self, statement: Result<(RecordStream, bool)>) -> Result<RecordStream> {
        match statement {
            Ok((rows, has_written)) => Ok(match self.0 {
                None => rows,
                Some(entry) => {
                    if has_written {
                        entry.note_written();
                    }
                    rows.recorded(entry, has_written)
                }
            }),
            Err(error) => self.finish(Err(error)).await,
        }
    }

    /// Ends the record of what was `done`.
    ///
    /// # Errors
    /// That of what was done; `Unavailable` where the record had to be on the disk
    /// first, and is not.
    pub async fn finish<T>(self, done: Result<T>) -> Result<T> {
        let Some(entry) = self.0 else {
            return done;
        };
        let outcome = match &done {
            Ok(_) => OK,
            Err(error) => error.code(),
        };
        match entry.finish(outcome) {
            None => done,
            Some(written) => match written.await {
                Ok(true) => done,
                _ => Err(audit::unwritable()),
            },
        }
    }
}
