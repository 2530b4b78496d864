//! Authentication: each request of a service that acts for a tenant gets the
//! [`Principal`] that its credential proves, or is refused before anything of it is
//! read.
//!
//! Invariant: only what stands behind this layer is admitted: admission without a
//! principal is an error.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{AUTHORIZATION, Entry};
use http::request::Parts;
use http::{Request, Response};
use metrics::counter;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::{BoxError, Layer, Service};

use super::accept::Peer;
use super::tenant::{Clock, SystemClock};
use super::tls::Tls;
use crate::audit;
use crate::auth::{Attempts, AuthenticationError, Credentials, TenantExtension, Transport};
use crate::tenant::Principal;

/// The call by which clients of Flight sign in.
const HANDSHAKE: &str = "/arrow.flight.protocol.FlightService/Handshake";

/// The token that a handshake answers, in the request's extensions. It has no debug
/// output.
#[derive(Clone)]
pub(super) struct GivenToken(pub String);

/// Puts a service behind an extension.
#[derive(Clone)]
pub(super) struct AuthenticateLayer {
    authentication: Authentication,
}

impl AuthenticateLayer {
    /// By `extension`, of whose refusals each network has `failures_max` a minute.
    pub(super) fn new(
        extension: Arc<dyn TenantExtension>,
        tls: Option<Tls>,
        failures_max: u32,
    ) -> Self {
        let attempts = Attempts::new(failures_max, || SystemClock.now_ms());
        AuthenticateLayer {
            authentication: Authentication {
                extension,
                tls,
                attempts: Arc::new(attempts),
            },
        }
    }
}

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticated<S>;

    fn layer(&self, inner: S) -> Authenticated<S> {
        Authenticated {
            authentication: self.authentication.clone(),
            inner,
        }
    }
}

/// A service behind an extension.
#[derive(Clone)]
pub(super) struct Authenticated<S> {
    authentication: Authentication,
    inner: S,
}

impl<S: NamedService> NamedService for Authenticated<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<Body>> for Authenticated<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let authentication = self.authentication.clone();
        // The one that was ready is the one that is called.
        let waiting = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, waiting);
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            // Whoever prints the request from here on prints no credential.
            if let Entry::Occupied(mut sent) = parts.headers.entry(AUTHORIZATION) {
                sent.iter_mut().for_each(|value| value.set_sensitive(true));
            }
            match authentication.of(&parts).await {
                Ok((principal, token)) => {
                    if let Some(entry) = parts.extensions.get::<audit::Entry>() {
                        entry.asks(&principal);
                    }
                    parts.extensions.insert(principal);
                    if let Some(token) = token {
                        parts.extensions.insert(GivenToken(token));
                    }
                    let answer = inner.call(Request::from_parts(parts, body)).await?;
                    Ok(answer.map(Body::new))
                }
                Err(error) => Ok(refusal(error).into_http()),
            }
        })
    }
}

/// Says who sends a request.
#[derive(Clone)]
struct Authentication {
    extension: Arc<dyn TenantExtension>,
    tls: Option<Tls>,
    attempts: Arc<Attempts>,
}

impl Authentication {
    /// Who sends the request, and the token that a handshake answers, where that is
    /// another than what was sent.
    async fn of(
        &self,
        request: &Parts,
    ) -> Result<(Principal, Option<String>), AuthenticationError> {
        let peer = request.extensions.get::<Peer>();
        let address = peer.and_then(|peer| peer.address);
        let attempt = self.attempts.of(address);
        let credentials = Credentials::new(&request.headers, address).in_attempt(&attempt);
        let proved = self.prove(request, peer, credentials).await;
        attempt.ended(proved)
    }

    async fn prove(
        &self,
        request: &Parts,
        peer: Option<&Peer>,
        mut credentials: Credentials<'_>,
    ) -> Result<(Principal, Option<String>), AuthenticationError> {
        if let Some(peer) = peer.filter(|peer| peer.transport == Transport::Tls) {
            let certificate = peer.certificate.as_ref();
            let accepts = |certificate| {
                self.tls
                    .as_ref()
                    .is_some_and(|tls| tls.accepts(certificate))
            };
            if certificate.is_some_and(|certificate| !accepts(certificate)) {
                return Err(AuthenticationError::Refused);
            }
            credentials = credentials.over_tls(certificate);
        }
        let principal = self.extension.authenticate(&credentials).await?;
        let token = match request.uri.path() == HANDSHAKE {
            true => self.extension.token(&credentials, &principal).await?,
            false => None,
        };
        Ok((principal, token))
    }
}

fn refusal(error: AuthenticationError) -> Status {
    let (reason, status) = match error {
        AuthenticationError::Absent => ("absent", Status::unauthenticated(error.to_string())),
        AuthenticationError::Refused => ("refused", Status::unauthenticated(error.to_string())),
        AuthenticationError::Unavailable => ("unavailable", Status::unavailable(error.to_string())),
        AuthenticationError::Throttled => {
            ("throttled", Status::resource_exhausted(error.to_string()))
        }
    };
    counter!("jammi_authentication_failures_total", "reason" => reason).increment(1);
    tracing::info!(reason, "a request was not authenticated");
    status
}
