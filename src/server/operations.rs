//! What a server does now, and the operator's hand: which sessions there are, what
//! runs, and how either is ended.
//!
//! Invariant: a [`Reach`] says whose sessions and statements are told of and ended.
//! What is out of reach is *not found*, in the words of what does not exist.

use std::collections::HashMap;
use std::sync::Arc;

use super::flight::{SessionNames, Transactions};
use super::running::{EndedBy, Running, Runs};
use super::tenant::{BoundSession, Clock, SessionKeys, SessionMap};
use crate::engine::{Activity, Engine, Kill, OpenSession, RunningQuery};
use crate::error::{Error, Result};
use crate::tenant::{OPERATOR, Principal, Scope, SessionId, SessionKey, TenantId};

/// What a server keeps of sessions and of statements that run.
pub struct Operations {
    pub(super) runs: Runs,
    pub(super) sessions: SessionMap,
    pub(super) keys: SessionKeys,
    pub(super) transactions: Transactions,
    pub(super) names: Arc<SessionNames>,
    pub(super) engine: Engine,
    pub(super) clock: Arc<dyn Clock>,
}

/// Whose sessions and statements somebody sees and ends.
#[derive(Clone, Copy, Debug)]
pub enum Reach<'a> {
    /// Everybody's.
    All,
    /// A principal's own for one tenant, or for none.
    Own(&'a Principal, Option<TenantId>),
}

impl<'a> Reach<'a> {
    /// What statements of `scope` reach. One that is bound to a tenant reaches no
    /// other's, whatever roles its principal has.
    pub fn of(scope: &'a Scope) -> Self {
        let principal = scope.principal();
        match scope.tenant() {
            None if principal.has_role(OPERATOR) => Reach::All,
            tenant => Reach::Own(principal, tenant),
        }
    }

    /// Everybody's, for an operator.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`] for anybody else.
    pub fn of_operator(principal: &Principal) -> Result<Self> {
        principal.require_operator()?;
        Ok(Reach::All)
    }

    fn reaches_principal(self, name: &str) -> bool {
        match self {
            Reach::All => true,
            Reach::Own(own, _) => own.name() == name,
        }
    }

    fn reaches(self, name: &str, tenant: Option<TenantId>) -> bool {
        match self {
            Reach::All => true,
            Reach::Own(own, bound) => own.name() == name && bound == tenant,
        }
    }

    fn by(self) -> EndedBy {
        match self {
            Reach::All => EndedBy::Operator,
            Reach::Own(..) => EndedBy::Principal,
        }
    }
}

/// A session of which something is kept.
struct Session {
    id: SessionId,
    principal: String,
    tenant: Option<TenantId>,
    queries: u64,
    transactions: u64,
    has_temporary_tables: bool,
    used_at_ms: Option<i64>,
}

impl Operations {
    /// The statements that run, within `reach`.
    pub fn queries(&self, reach: Reach<'_>) -> Vec<RunningQuery> {
        let reached = |one: &Running| reach.reaches(one.principal().name(), one.tenant());
        let running = self.runs.list(reached);
        let rows = running.iter().map(|one| RunningQuery {
            id: one.number(),
            session: one.session().map(|(_, key)| self.keys.number(*key)),
            tenant: one.tenant(),
            principal: one.principal().name().to_owned(),
            kind: one.kind(),
            state: one.progress().stage().as_str(),
            statement: one.statement(),
            rows: one.progress().rows(),
            began_at_ms: one.began_at_ms(),
        });
        rows.collect()
    }

    /// The sessions of which anything is kept, within `reach`.
    pub fn sessions(&self, reach: Reach<'_>) -> Vec<OpenSession> {
        let sessions = self.collect(reach).into_iter();
        let rows = sessions.map(|(key, session)| OpenSession {
            id: self.keys.number(key),
            tenant: session.tenant,
            principal: session.principal,
            queries: session.queries,
            transactions: session.transactions,
            has_temporary_tables: session.has_temporary_tables,
            used_at_ms: session.used_at_ms,
        });
        rows.collect()
    }

    /// Ends a statement: its work stops, and whoever waits for it is told.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` for one that is being committed.
    pub fn end_query(&self, reach: Reach<'_>, number: u64) -> Result<()> {
        let found = self
            .runs
            .get(number)
            .filter(|one| reach.reaches(one.principal().name(), one.tenant()));
        let Some(running) = found else {
            return Err(Error::NotFound(format!(
                "there is no query {number}: see jammi.server.queries"
            )));
        };
        match self.runs.end(&running, reach.by()) {
            true => Ok(()),
            false => Err(Error::FailedPrecondition(format!(
                "query {number} is being committed and ends by itself: wait for it"
            ))),
        }
    }

    /// Ends a session: its binding, its handles and tickets, its transactions, its
    /// temporary tables, the statements that run in it. What its client sends next is as
    /// in a session that nobody has bound.
    ///
    /// # Errors
    /// `NotFound`, and the storage's; all but the binding has ended then.
    pub async fn end_session(&self, reach: Reach<'_>, number: u64) -> Result<()> {
        let mut sessions = self.collect(reach).into_iter();
        let found = sessions.find(|(key, _)| self.keys.number(*key) == number);
        let Some((key, session)) = found else {
            return Err(Error::NotFound(format!(
                "there is no session {number}: see jammi.server.sessions"
            )));
        };
        let Session { id, principal, .. } = session;
        let cleared = self.sessions.clear_of(&principal, &id).await;
        // From here on requests find it unbound, and those that were admitted before do
        // not begin anything more.
        self.keys.end(key, self.sessions.next_generation());
        for running in self.runs.list(|one| is_in(one, key)) {
            // What commits ends by itself.
            let _ = self.runs.end(&running, reach.by());
        }
        self.transactions.session_ended(&principal, &id);
        self.names.forget(&principal, &id);
        if self.keys.closed(key, None) {
            self.engine.end_session(key).await;
        }
        cleared
    }

    /// Does what a `KILL` of `scope` says.
    ///
    /// # Errors
    /// As of [`Operations::end_query`] and [`Operations::end_session`].
    pub async fn kill(&self, scope: &Scope, kill: Kill) -> Result<()> {
        let reach = Reach::of(scope);
        match kill {
            Kill::Query(number) => self.end_query(reach, number),
            Kill::Session(number) => self.end_session(reach, number).await,
        }
    }

    fn collect(&self, reach: Reach<'_>) -> HashMap<SessionKey, Session> {
        let bound = self.sessions.list(|name| reach.reaches_principal(name));
        let mut sessions: HashMap<SessionKey, Session> = bound
            .into_iter()
            .map(|bound| {
                (
                    self.keys.key_of(&bound.principal, &bound.session),
                    bound.into(),
                )
            })
            .collect();
        let mut note = |principal: &Principal, id: &SessionId, what: &dyn Fn(&mut Session)| {
            if reach.reaches_principal(principal.name()) {
                let key = self.keys.key_of(principal.name(), id);
                let unbound = || Session::unbound(principal, id);
                what(sessions.entry(key).or_insert_with(unbound));
            }
        };
        for (principal, id) in self.transactions.owners() {
            note(&principal, &id, &|session| session.transactions += 1);
        }
        for (principal, id) in self.keys.with_tables() {
            note(&principal, &id, &|session| {
                session.has_temporary_tables = true
            });
        }
        let now_ms = u64::try_from(self.clock.now_ms()).unwrap_or(0);
        for (principal, id) in self.names.owners(now_ms) {
            note(&principal, &id, &|_| {});
        }
        for running in self.runs.list(|_| true) {
            if let Some((id, _)) = running.session() {
                note(running.principal(), id, &|session| session.queries += 1);
            }
        }
        sessions.retain(|_, session| reach.reaches(&session.principal, session.tenant));
        sessions
    }
}

impl Session {
    fn unbound(principal: &Principal, id: &SessionId) -> Self {
        Session {
            id: id.clone(),
            principal: principal.name().to_owned(),
            tenant: principal.only_tenant(),
            queries: 0,
            transactions: 0,
            has_temporary_tables: false,
            used_at_ms: None,
        }
    }
}

impl From<BoundSession> for Session {
    fn from(bound: BoundSession) -> Self {
        Session {
            id: bound.session,
            principal: bound.principal,
            tenant: Some(bound.tenant),
            queries: 0,
            transactions: 0,
            has_temporary_tables: false,
            used_at_ms: Some(bound.used_at_ms),
        }
    }
}

fn is_in(running: &Running, key: SessionKey) -> bool {
    running.session().is_some_and(|(_, own)| *own == key)
}

impl Activity for Operations {
    fn queries(&self, scope: &Scope) -> Vec<RunningQuery> {
        Operations::queries(self, Reach::of(scope))
    }

    fn sessions(&self, scope: &Scope) -> Vec<OpenSession> {
        Operations::sessions(self, Reach::of(scope))
    }
}
