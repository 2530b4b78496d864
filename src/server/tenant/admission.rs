//! Admission: the header `jammi-session-id`, or the cookie of a client that keeps
//! cookies, becomes an [`Admitted`], or the request is refused.
//!
//! Invariant: a header that cannot be read is an error, never "no session", and so
//! are two that name two sessions. Who asks is known before: credentials are not
//! looked at here.

use std::str::FromStr;
use std::sync::Arc;

use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use super::cookie::{self, SESSION_COOKIE};
use super::{SessionKeys, SessionMap};
use crate::audit::Entry;
use crate::engine::About;
use crate::error::{Error, Result};
use crate::server::accept::{ConnectionId, ConnectionInfo};
use crate::server::status::to_status;
use crate::tenancy::Standing;
use crate::tenant::{Principal, Scope, SessionId, SessionKey, TenantId, not_ones_own};

/// The request metadata that names the session.
pub const SESSION_HEADER: &str = "jammi-session-id";

/// What a request was admitted as. Services find it in the request's
/// extensions, by [`Admitted::of`].
#[derive(Clone, Debug)]
pub struct Admitted {
    principal: Principal,
    session: Option<SessionId>,
    keys: SessionKeys,
    tenant: Option<TenantId>,
    /// Whether the session is bound to a tenant that its principal may act as no more.
    is_withdrawn: bool,
    standing: Standing,
    /// The tenants whose rows the request reads in place of what its session is bound to.
    bypassed: Option<Arc<[TenantId]>>,
    generation: u64,
    unbound_generation: u64,
    anonymous_reads: bool,
    connection: Option<ConnectionId>,
    is_of_page: bool,
    /// Whether the session was made for the request, whose answer has to say so.
    is_new: bool,
    entry: Option<Entry>,
}

impl Admitted {
    /// What `request` was admitted as.
    ///
    /// # Errors
    /// [`Error::Internal`] when the service is not behind the interceptor.
    pub fn of<T>(request: &Request<T>) -> Result<&Admitted> {
        request
            .extensions()
            .get::<Admitted>()
            .ok_or_else(|| Error::Internal {
                message: "the request was not admitted".into(),
                source: None,
            })
    }

    /// What the request may touch.
    ///
    /// # Errors
    /// [`Error::FailedPrecondition`] when no tenant is bound and the server
    /// does not allow that, and [`Error::PermissionDenied`] when the principal may not
    /// act as the one that is, or nobody may.
    pub fn scope(&self) -> Result<Scope> {
        if let Some([first, others @ ..]) = self.bypassed.as_deref() {
            let principal = self.principal.clone();
            return Ok(Scope::bypassing(principal, *first, others.iter().copied()));
        }
        if self.is_withdrawn {
            return Err(not_ones_own());
        }
        let above = self.standing.require()?;
        let scope = match self.tenant {
            Some(tenant) => Ok(Scope::tenant_below(
                self.principal.clone(),
                tenant,
                above.iter().copied(),
            )),
            None if self.anonymous_reads => Ok(Scope::global(self.principal.clone())),
            None => Err(Error::FailedPrecondition(format!(
                "no tenant is bound: call jammi.v1.session.SessionService.SetTenant with the \
                 {SESSION_HEADER} that this request carries, or SET app.current_tenant_id"
            ))),
        };
        Ok(scope?.in_session(self.session_key()))
    }

    /// As [`Admitted::scope`], noting what the request is about.
    pub(in crate::server) fn scope_for(&self, about: About<'_>) -> Result<Scope> {
        let scope = self.scope()?;
        if let Some(entry) = &self.entry {
            entry.reads(&[about.name()], &scope);
        }
        Ok(scope)
    }

    /// The request's audit record, where it has one.
    pub(in crate::server) fn entry(&self) -> Option<&Entry> {
        self.entry.as_ref()
    }

    /// Whether the request has a scope.
    pub(in crate::server) fn has_scope(&self) -> bool {
        !self.is_withdrawn
            && self.standing.is_good()
            && (self.tenant.is_some() || self.is_bypass() || self.anonymous_reads)
    }

    /// What a statement that does nothing but bind the session is planned and sealed
    /// under. It is no leave to read.
    pub(in crate::server) fn scope_to_bind(&self) -> Scope {
        self.scope().unwrap_or_else(|_unbound| {
            Scope::global(self.principal.clone()).in_session(self.session_key())
        })
    }

    /// The request in a session of its own, where it names none and no page made it.
    /// Its client has the session only if it keeps the cookie of the answer, so that
    /// nothing may be kept in it whose loss would not show.
    #[must_use]
    pub(in crate::server) fn in_new_session(self) -> Self {
        if self.session.is_some() || self.is_of_page {
            return self;
        }
        Admitted {
            session: Some(SessionId::random()),
            is_new: true,
            ..self
        }
    }

    /// The cookie that the answer has to set.
    pub(in crate::server) fn new_cookie(&self) -> Option<MetadataValue<Ascii>> {
        let session = self.session.as_ref()?;
        self.is_new.then(|| cookie::giving(session))
    }

    /// Who is asking.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The session that the request names.
    pub fn session(&self) -> Option<&SessionId> {
        self.session.as_ref()
    }

    /// What the session's own things are kept under.
    pub fn session_key(&self) -> Option<SessionKey> {
        let session = self.session.as_ref()?;
        Some(self.keys.key(&self.principal, session))
    }

    /// The tenant that the session was bound to when the request came in.
    pub fn tenant(&self) -> Option<TenantId> {
        self.tenant
    }

    /// Changes whenever the session's binding does: what was made under one
    /// generation is not to be used under another. When nothing is bound it is 0, or
    /// another one since the session was ended.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The generation of the session once it is bound to nothing.
    pub(in crate::server) fn unbound_generation(&self) -> u64 {
        self.unbound_generation
    }

    /// Refuses to go on in a session that was ended since the request came in.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub(in crate::server) fn require_unended(&self) -> Result<()> {
        let now = self.session.as_ref().map_or(0, |session| {
            self.keys.unbound_generation(&self.principal, session)
        });
        match now == self.unbound_generation {
            true => Ok(()),
            false => Err(Error::Cancelled(
                "the session was ended meanwhile: bind it anew".into(),
            )),
        }
    }

    /// The connection that the request came by.
    pub fn connection(&self) -> Option<ConnectionId> {
        self.connection
    }

    /// Whether the session may be bound to `tenant`.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`], in the same words whether or not there is such a
    /// tenant.
    pub(in crate::server) fn require_acting_for(&self, tenant: TenantId) -> Result<()> {
        self.principal.require_acting_for(tenant)
    }

    /// Refuses a request that is bound to a tenant who may not be used.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`].
    pub(in crate::server) fn require_standing(&self) -> Result<()> {
        self.standing.require().map(drop)
    }

    /// Has the request read the rows of `tenants`, and do nothing else.
    pub(in crate::server) fn bypasses(&mut self, tenants: Arc<[TenantId]>) {
        self.tenant = None;
        self.is_withdrawn = false;
        self.bypassed = Some(tenants);
    }

    /// Whether the request reads rows of tenants for whom its principal need not act.
    pub(in crate::server) fn is_bypass(&self) -> bool {
        self.bypassed.is_some()
    }

    /// Notes how the tenant that is bound stands with the operator.
    pub(in crate::server) fn stands(&mut self, standing: Standing) {
        self.standing = standing;
    }

    /// The session, for what makes no sense without one.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the request names none.
    pub fn require_session(&self) -> Result<&SessionId> {
        self.session.as_ref().ok_or_else(|| {
            Error::InvalidArgument(format!(
                "request metadata {SESSION_HEADER} is missing: send one of your own choosing, such \
                 as a UUID, on this call and on every one that is to see the binding; or keep \
                 cookies, and let GetSessionOptions give you {SESSION_COOKIE}"
            ))
        })
    }
}

/// Admits the requests of every service that acts for a tenant.
#[derive(Clone, Debug)]
pub struct TenantInterceptor {
    sessions: SessionMap,
    keys: SessionKeys,
    anonymous_reads: bool,
}

impl TenantInterceptor {
    /// Admits by the bindings of `sessions`, each of which has its key of `keys`.
    /// `anonymous_reads` says whether a request without a binding has a scope at
    /// all.
    pub fn new(sessions: SessionMap, keys: SessionKeys, anonymous_reads: bool) -> Self {
        TenantInterceptor {
            sessions,
            keys,
            anonymous_reads,
        }
    }

    /// What a request of `principal` with this metadata is admitted as: bound as its
    /// session is, or else to the one tenant that the principal acts as.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the session's header or cookie cannot be
    /// read, or they name two sessions.
    pub fn admit(&self, principal: &Principal, metadata: &MetadataMap) -> Result<Admitted> {
        let is_of_page = cookie::is_of_page(metadata);
        let mut session = session_of(metadata)?;
        if !is_of_page {
            for named in cookie::sessions_of(metadata)? {
                if *session.get_or_insert_with(|| named.clone()) != named {
                    return Err(Error::InvalidArgument(format!(
                        "{SESSION_HEADER} and cookies {SESSION_COOKIE} name different sessions: \
                         name one"
                    )));
                }
            }
        }
        let bound = session
            .as_ref()
            .and_then(|session| self.sessions.binding(principal, session));
        if let Some(session) = &session {
            self.keys.used(principal, session);
        }
        let tenant = bound.map(|bound| bound.tenant);
        let tenant = tenant.or_else(|| principal.only_tenant());
        let unbound_generation = session.as_ref().map_or(0, |session| {
            self.keys.unbound_generation(principal, session)
        });
        let is_withdrawn = tenant.is_some_and(|tenant| !principal.acts_for(tenant));
        Ok(Admitted {
            principal: principal.clone(),
            session,
            keys: self.keys.clone(),
            tenant: tenant.filter(|_| !is_withdrawn),
            is_withdrawn,
            standing: Standing::default(),
            bypassed: None,
            generation: bound.map_or(unbound_generation, |bound| bound.generation),
            unbound_generation,
            anonymous_reads: self.anonymous_reads,
            connection: None,
            is_of_page,
            is_new: false,
            entry: None,
        })
    }
}

impl Interceptor for TenantInterceptor {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let principal = request.extensions().get::<Principal>();
        let mut admitted = principal
            .ok_or_else(unauthenticated)
            .and_then(|principal| self.admit(principal, request.metadata()))
            .map_err(|error| to_status(&error))?;
        let connection = request.extensions().get::<ConnectionInfo>();
        admitted.connection = connection.map(|connection| connection.id);
        admitted.entry = request.extensions().get::<Entry>().cloned();
        if let Some(entry) = &admitted.entry {
            let session = admitted.session.as_ref();
            entry.admitted(&admitted.principal, session, admitted.tenant);
        }
        request.extensions_mut().insert(admitted);
        Ok(request)
    }
}

/// Nothing is admitted that nobody has asked who it is.
fn unauthenticated() -> Error {
    Error::Internal {
        message: "the request was not authenticated".into(),
        source: None,
    }
}

/// The one session that the metadata names. Clients that set the header on
/// several levels send it more than once, and proxies join repeated headers
/// with commas: both are fine while every value is the same.
pub(super) fn session_of(metadata: &MetadataMap) -> Result<Option<SessionId>> {
    let mut found: Option<SessionId> = None;
    for value in metadata.get_all(SESSION_HEADER) {
        for text in values_of(value)? {
            match &found {
                None => found = Some(SessionId::from_str(text)?),
                Some(session) if session.as_str() == text => {}
                Some(_) => {
                    SessionId::from_str(text)?;
                    return Err(Error::InvalidArgument(format!(
                        "{SESSION_HEADER} was sent with different values: send one value"
                    )));
                }
            }
        }
    }
    Ok(found)
}

/// The values that one header line holds.
fn values_of(value: &MetadataValue<Ascii>) -> Result<impl Iterator<Item = &str>> {
    let text = value.to_str().map_err(|_| {
        Error::InvalidArgument(format!(
            "{SESSION_HEADER} has a control character or a non-ASCII character: send printable \
             ASCII without blanks, such as a UUID"
        ))
    })?;
    let joined = text.contains(',');
    Ok(text.split(',').map(move |part| {
        if joined {
            part.trim_matches([' ', '\t'])
        } else {
            part
        }
    }))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    /// Header lines, and the session that they name or a part of the refusal.
    type Case<'a> = (&'a [&'a [u8]], Result<Option<&'a str>, &'a str>);

    fn metadata(values: &[&[u8]]) -> MetadataMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(SESSION_HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        MetadataMap::from_headers(headers)
    }

    #[test]
    fn a_session_header_is_one_value_or_an_error() {
        let longest = "x".repeat(128);
        let too_long = "x".repeat(129);
        let cases: &[Case] = &[
            (&[], Ok(None)),
            (&[b"s1"], Ok(Some("s1"))),
            (&[longest.as_bytes()], Ok(Some(&longest))),
            (&[b"s1", b"s1"], Ok(Some("s1"))),
            (&[b"s1,s1"], Ok(Some("s1"))),
            (&[b"s1, s1", b"s1"], Ok(Some("s1"))),
            (&[b"s1", b"s2"], Err("different values")),
            (&[b"s1,s2"], Err("different values")),
            (&[b"s1", b""], Err("is empty")),
            (&[b"s1", b"s 1"], Err("a blank")),
            (&[b""], Err("is empty")),
            (&[b","], Err("is empty")),
            (&[b"s1,"], Err("is empty")),
            (&[b" "], Err("a blank")),
            (&[b" s1"], Err("a blank")),
            (&[b"s 1"], Err("a blank")),
            (&[b"s\t1"], Err("a blank")),
            (&[b"s\xc3\xa9"], Err("non-ASCII")),
            (&[b"\xff"], Err("non-ASCII")),
            (&[too_long.as_bytes()], Err("129 bytes")),
        ];
        for (values, expected) in cases {
            let found = session_of(&metadata(values));
            match (expected, &found) {
                (Ok(expected), Ok(found)) => {
                    let found = found.as_ref().map(SessionId::as_str);
                    assert_eq!(found, *expected, "{values:?}");
                }
                (Err(part), Err(Error::InvalidArgument(text))) => {
                    assert!(text.contains(part), "{values:?}: {text}");
                }
                _ => panic!("{values:?}: {found:?}"),
            }
        }
    }
}
