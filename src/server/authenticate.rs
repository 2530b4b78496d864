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

use super::accept::ConnectionInfo;
use crate::auth::{AuthenticationError, Credentials, TenantExtension};
use crate::tenant::Principal;

/// Puts a service behind an extension.
#[derive(Clone)]
pub(super) struct AuthenticateLayer {
    extension: Arc<dyn TenantExtension>,
}

impl AuthenticateLayer {
    pub(super) fn new(extension: Arc<dyn TenantExtension>) -> Self {
        AuthenticateLayer { extension }
    }
}

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticated<S>;

    fn layer(&self, inner: S) -> Authenticated<S> {
        Authenticated {
            extension: Arc::clone(&self.extension),
            inner,
        }
    }
}

/// A service behind an extension.
#[derive(Clone)]
pub(super) struct Authenticated<S> {
    extension: Arc<dyn TenantExtension>,
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
        let extension = Arc::clone(&self.extension);
        // The one that was ready is the one that is called.
        let waiting = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, waiting);
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            match principal(&*extension, &parts).await {
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

/// Who sends the request.
async fn principal(
    extension: &dyn TenantExtension,
    request: &Parts,
) -> Result<Principal, AuthenticationError> {
    let connection = request.extensions.get::<ConnectionInfo>();
    let peer = connection.and_then(|connection| connection.tcp.remote_addr());
    let credentials = Credentials::new(&request.headers, peer);
    extension.authenticate(&credentials).await
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
