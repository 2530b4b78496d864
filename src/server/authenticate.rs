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
use http::request::Parts;
use http::{Request, Response};
use metrics::counter;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::{BoxError, Layer, Service};

use super::accept::Peer;
use super::tls::Tls;
use crate::auth::{AuthenticationError, Credentials, TenantExtension, Transport};
use crate::tenant::Principal;

/// Puts a service behind an extension.
#[derive(Clone)]
pub(super) struct AuthenticateLayer {
    authentication: Authentication,
}

impl AuthenticateLayer {
    pub(super) fn new(extension: Arc<dyn TenantExtension>, tls: Option<Tls>) -> Self {
        AuthenticateLayer {
            authentication: Authentication { extension, tls },
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
            match authentication.principal(&parts).await {
                Ok(principal) => {
                    parts.extensions.insert(principal);
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
}

impl Authentication {
    async fn principal(&self, request: &Parts) -> Result<Principal, AuthenticationError> {
        let peer = request.extensions.get::<Peer>();
        let address = peer.and_then(|peer| peer.address);
        let mut credentials = Credentials::new(&request.headers, address);
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
        self.extension.authenticate(&credentials).await
    }
}

fn refusal(error: AuthenticationError) -> Status {
    let (reason, status) = match error {
        AuthenticationError::Absent => ("absent", Status::unauthenticated(error.to_string())),
        AuthenticationError::Refused => ("refused", Status::unauthenticated(error.to_string())),
        AuthenticationError::Unavailable => ("unavailable", Status::unavailable(error.to_string())),
    };
    counter!("jammi_authentication_failures_total", "reason" => reason).increment(1);
    tracing::info!(reason, "a request was not authenticated");
    status
}
