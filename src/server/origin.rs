//! Which web pages may call.
//!
//! Invariant: a request that a page made carries the page's `Origin`, and is
//! answered only if that origin is in `server.allowed_origins`. Cross-origin
//! rules of browsers alone would not do: a page whose host name is made to
//! resolve to this server is of the same origin to its browser. There is no
//! ambient credential: the cookies of such a request name nothing.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::Either;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use tonic::body::Body;
use tower::{Layer, Service};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::request::REQUEST_ID;
use super::tenant::SESSION_HEADER;

/// How long a browser may remember what a preflight said.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);

/// Tells browsers what pages of the allowed origins may send and read.
pub(super) fn cors(allowed: &AllowedOrigins) -> CorsLayer {
    let header = HeaderName::from_static;
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(allowed.0.iter().cloned()))
        .allow_methods([Method::POST])
        .allow_headers([
            header::CONTENT_TYPE,
            header::AUTHORIZATION,
            header("x-grpc-web"),
            header("x-user-agent"),
            header("grpc-timeout"),
            header("traceparent"),
            header(SESSION_HEADER),
            REQUEST_ID,
        ])
        .expose_headers([
            header("grpc-status"),
            header("grpc-message"),
            header("grpc-status-details-bin"),
            header(SESSION_HEADER),
            REQUEST_ID,
        ])
        .max_age(PREFLIGHT_MAX_AGE)
}

/// The origins whose pages may call.
#[derive(Clone, Debug)]
pub(super) struct AllowedOrigins(Arc<[HeaderValue]>);

impl AllowedOrigins {
    /// The origins of the setting, which is checked when it is read.
    pub fn new(origins: &[String]) -> Self {
        let values = origins.iter().filter_map(|origin| origin.parse().ok());
        AllowedOrigins(values.collect())
    }

    fn allow<B>(&self, request: &Request<B>) -> bool {
        let mut origins = request.headers().get_all(header::ORIGIN).iter();
        origins.all(|origin| self.0.contains(origin))
    }
}

impl<S> Layer<S> for AllowedOrigins {
    type Service = OriginGuard<S>;

    fn layer(&self, inner: S) -> OriginGuard<S> {
        OriginGuard {
            inner,
            allowed: self.clone(),
        }
    }
}

/// Refuses requests of other pages.
#[derive(Clone, Debug)]
pub(super) struct OriginGuard<S> {
    inner: S,
    allowed: AllowedOrigins,
}

impl<S, B> Service<Request<B>> for OriginGuard<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if self.allowed.allow(&request) {
            return Either::Left(self.inner.call(request));
        }
        let mut refusal = Response::new(Body::new(String::from(
            "this origin is not allowed: the operator lists those that are in \
             server.allowed_origins\n",
        )));
        *refusal.status_mut() = StatusCode::FORBIDDEN;
        Either::Right(ready(Ok(refusal)))
    }
}
