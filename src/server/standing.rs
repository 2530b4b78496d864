//! Standing: each request that was admitted as a tenant learns whether that tenant
//! may be used, as the operator has it now, and one that asks to read others' rows
//! whether it may.
//!
//! Invariant: it stands behind admission and before every service that acts for a
//! tenant, and what cannot be told is refused.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tower::{BoxError, Layer, Service};

use super::bypass;
use super::status::to_status;
use super::tenant::Admitted;
use crate::error::Result;
use crate::tenancy::Tenants;

/// Puts a service behind the register of tenants.
#[derive(Clone)]
pub(super) struct StandingLayer {
    tenants: Tenants,
}

impl StandingLayer {
    pub(super) fn new(tenants: Tenants) -> Self {
        StandingLayer { tenants }
    }
}

impl<S> Layer<S> for StandingLayer {
    type Service = Stood<S>;

    fn layer(&self, inner: S) -> Stood<S> {
        Stood {
            tenants: self.tenants.clone(),
            inner,
        }
    }
}

/// A service behind the register of tenants.
#[derive(Clone)]
pub(super) struct Stood<S> {
    tenants: Tenants,
    inner: S,
}

impl<S: NamedService> NamedService for Stood<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<Body>> for Stood<S>
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

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let tenants = self.tenants.clone();
        // The one that was ready is the one that is called.
        let waiting = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, waiting);
        Box::pin(async move {
            if let Err(error) = stand(&tenants, &mut request).await {
                return Ok(to_status(&error).into_http());
            }
            let answer = inner.call(request).await?;
            Ok(answer.map(Body::new))
        })
    }
}

/// Has the request know what it may touch as its tenants stand now.
async fn stand(tenants: &Tenants, request: &mut Request<Body>) -> Result<()> {
    if bypass::is_asked(request.headers()) {
        return bypass::admit(tenants, request).await;
    }
    if let Some(admitted) = request.extensions_mut().get_mut::<Admitted>()
        && let Some(tenant) = admitted.tenant()
    {
        admitted.stands(tenants.standing(tenant).await?);
    }
    Ok(())
}
