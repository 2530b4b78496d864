//! The innermost layer: how each request ended, in the log, in the metrics and in the
//! audit trail, and a status for the requests that a defect would otherwise cut off.
//!
//! Invariant: a request that is to be recorded has room for its record before any of it
//! is read, and is refused where there can be none.
//!
//! Sits inside the gRPC-Web layer, which writes the trailers that hold the
//! status into the body.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use metrics::{counter, gauge, histogram};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::{Span, debug, error, info};

use super::accept::Peer;
use super::methods;
use super::request::RequestNames;
use super::status::to_status;
use crate::audit::{self, Audit, Entry, Written};
use crate::engine::cores;

/// Watches every request.
#[derive(Clone, Debug)]
pub(super) struct ObserveLayer {
    audit: Audit,
}

impl ObserveLayer {
    /// Has requests recorded in `audit`.
    pub fn new(audit: Audit) -> Self {
        ObserveLayer { audit }
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe {
            inner,
            audit: self.audit.clone(),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Observe<S> {
    inner: S,
    audit: Audit,
}

impl<S> Service<Request<Body>> for Observe<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error: Send> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // Whoever floods the server keeps its threads busy, and others wait for a core.
        cores::offer();
        let mut observed = Observed::new(methods::name_of(request.uri().path()));
        // The one that was ready is the one that is called.
        let waiting = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, waiting);
        let audit = self.audit.clone();
        Box::pin(async move {
            match observed.begin_record(&audit).await {
                Ok(()) => observed.fill_record(&mut request),
                Err(refused) => return Ok(observed.follow(refused.into_http()).await),
            }
            let answering = catch_unwind(AssertUnwindSafe(|| inner.call(request)));
            let answered = match answering {
                Ok(answering) => AssertUnwindSafe(answering).catch_unwind().await,
                Err(panic) => Err(panic),
            };
            let response = match answered {
                Ok(response) => response?,
                Err(panic) => failed(panic).into_http(),
            };
            Ok(observed.follow(response).await)
        })
    }
}

/// A request that runs. Dropped before its status is known, it was given up by
/// the client.
struct Observed {
    method: &'static str,
    started: Instant,
    code: Option<Code>,
    span: Span,
    /// Its audit record, where there is one.
    entry: Option<Entry>,
}

impl Observed {
    fn new(method: &'static str) -> Self {
        gauge!("jammi_requests_active").increment(1.0);
        Observed {
            method,
            started: Instant::now(),
            code: None,
            span: Span::current(),
            entry: None,
        }
    }

    /// Begins the request's audit record, if it is of those that are recorded.
    async fn begin_record(&mut self, audit: &Audit) -> Result<(), Status> {
        if is_recorded(self.method) {
            let entry = audit.begin(self.method).await;
            self.entry = entry.map_err(|error| to_status(&error))?;
        }
        Ok(())
    }

    /// Says in the record where the request came from, and gives it to those who serve
    /// the request.
    fn fill_record(&self, request: &mut Request<Body>) {
        let Some(entry) = &self.entry else {
            return;
        };
        let names = request.extensions().get::<RequestNames>();
        let peer = request.extensions().get::<Peer>();
        entry.came(
            names.and_then(|names| names.id.to_str().ok()),
            names.and_then(|names| names.trace.as_deref()),
            peer.and_then(|peer| peer.address)
                .map(|address| address.to_string()),
        );
        request.extensions_mut().insert(entry.clone());
    }

    /// Ends the audit record. What is answered has to be waited for before the client
    /// is told how its request ended.
    fn finish(&mut self, code: Code) -> Option<Written> {
        self.code = Some(code);
        self.entry.take()?.finish(name(code))
    }

    /// Watches the response until its status is known.
    async fn follow(mut self, response: Response<Body>) -> Response<Body> {
        let Some(status) = Status::from_header_map(response.headers()) else {
            return response.map(|inner| {
                Body::new(ObservedBody {
                    inner,
                    observed: self,
                    held: None,
                    broken: false,
                })
            });
        };
        let named = name_limit(&status);
        let code = named.as_ref().unwrap_or(&status).code();
        if let Some(written) = self.finish(code)
            && written.await != Ok(true)
        {
            return self.unrecorded().into_http();
        }
        match named {
            Some(named) => named.into_http(),
            None => response,
        }
    }

    /// What is answered where the record had to be on the disk first, and is not.
    fn unrecorded(&mut self) -> Status {
        let status = to_status(&audit::unwritable());
        self.code = Some(status.code());
        status
    }
}

/// Whether requests of a method are in the audit trail: of all but health and
/// reflection, which belong to nobody.
fn is_recorded(method: &str) -> bool {
    !method.starts_with("/grpc.")
}

impl Drop for Observed {
    fn drop(&mut self) {
        let code = name(self.code.unwrap_or(Code::Cancelled));
        if let Some(entry) = self.entry.take() {
            entry.finish(code);
        }
        let took = self.started.elapsed();
        let method = self.method;
        gauge!("jammi_requests_active").decrement(1.0);
        counter!("jammi_requests_total", "method" => method, "code" => code).increment(1);
        histogram!("jammi_request_seconds", "method" => method).record(took.as_secs_f64());
        let duration_ms = took.as_secs_f64() * 1_000.0;
        let _entered = self.span.enter();
        // Those that went well are in the audit trail: a line for each would cost more
        // than the record.
        if is_recorded(method) && self.code != Some(Code::Ok) {
            info!(code, duration_ms, "request ended");
        } else {
            debug!(code, duration_ms, "request ended");
        }
    }
}

/// A response's body, up to the trailers that hold the status.
struct ObservedBody {
    inner: Body,
    observed: Observed,
    /// The trailers, which wait for the audit record to be on the disk.
    held: Option<(Frame<Bytes>, Written)>,
    broken: bool,
}

impl ObservedBody {
    /// The trailers that are held, once the record is on the disk.
    fn poll_held(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some((_, written)) = &mut self.held else {
            return Poll::Ready(None);
        };
        let written = ready!(Pin::new(written).poll(context));
        let held = self.held.take().map(|(frame, _)| frame);
        Poll::Ready(match written {
            Ok(true) => held.map(Ok),
            _ => Some(Ok(Frame::trailers(trailers(&self.observed.unrecorded())))),
        })
    }
}

impl http_body::Body for ObservedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.held.is_some() {
            return this.poll_held(context);
        }
        if this.broken {
            return Poll::Ready(None);
        }
        let span = this.observed.span.clone();
        let _entered = span.enter();
        let inner = &mut this.inner;
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll_frame(context)));
        let frame = match polled {
            Ok(Poll::Ready(Some(Ok(frame)))) => frame,
            Ok(Poll::Ready(Some(Err(status)))) => {
                this.observed.finish(status.code());
                return Poll::Ready(Some(Err(status)));
            }
            Ok(other) => return other,
            Err(panic) => {
                this.broken = true;
                Frame::trailers(trailers(&failed(panic)))
            }
        };
        let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) else {
            if let (Some(entry), Some(data)) = (&this.observed.entry, frame.data_ref()) {
                entry.add_bytes(data.len());
            }
            return Poll::Ready(Some(Ok(frame)));
        };
        let named = name_limit(&status);
        let code = named.as_ref().unwrap_or(&status).code();
        let frame = match named {
            Some(named) => Frame::trailers(trailers(&named)),
            None => frame,
        };
        match this.observed.finish(code) {
            None => Poll::Ready(Some(Ok(frame))),
            Some(written) => {
                this.held = Some((frame, written));
                this.poll_held(context)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && (self.broken || self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // Fails for a text that no header can hold, which is then left out.
    if status.add_header(&mut trailers).is_err() {
        trailers.insert("grpc-status", (status.code() as i32).into());
    }
    trailers
}

/// What a client is told when a handler panics. What it panicked with may hold
/// a client's values: it is the panic hook's to print, not ours to send.
fn failed(_panic: Box<dyn Any + Send>) -> Status {
    error!("a request was ended by a panic");
    counter!("jammi_panics_total").increment(1);
    Status::internal("the server failed on this request: report it with its x-request-id")
}

/// tonic's refusal of a message that is too large, as one that says which
/// setting is the limit.
fn name_limit(status: &Status) -> Option<Status> {
    let rest = status.message().strip_prefix("Error, ")?;
    let too_large = status.code() == Code::OutOfRange && rest.contains("message length too large");
    too_large.then(|| {
        Status::resource_exhausted(format!(
            "{rest}: send less at a time, or raise server.message_bytes_max"
        ))
    })
}

/// The code's name in the gRPC specification.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::path::Path;

    use http_body_util::{BodyExt, StreamBody};
    use tower::ServiceExt;

    use super::*;
    use crate::config::AuditConfig;

    async fn status_of<F>(answer: F) -> Status
    where
        F: Fn() -> Response<Body> + Clone + Send + 'static,
    {
        let inner = tower::service_fn(move |_: Request<Body>| {
            let answer = answer.clone();
            async move { Ok::<_, Infallible>(answer()) }
        });
        let request = Request::new(Body::empty());
        let config = AuditConfig {
            enabled: false,
            ..AuditConfig::default()
        };
        let audit = Audit::new(Path::new(""), &config, || 0, str::to_owned);
        let layer = ObserveLayer::new(audit);
        let response = layer.layer(inner).oneshot(request).await.unwrap();
        if let Some(status) = Status::from_header_map(response.headers()) {
            return status;
        }
        let collected = response.into_body().collect().await.unwrap();
        Status::from_header_map(collected.trailers().unwrap()).unwrap()
    }

    fn stream(frame: fn() -> Frame<Bytes>) -> Response<Body> {
        let frames = futures::stream::once(async move { Ok::<_, Status>(frame()) });
        Response::new(Body::new(StreamBody::new(frames)))
    }

    #[tokio::test]
    async fn a_panic_is_a_status_and_a_limit_has_a_name() {
        let panics = status_of(|| panic!("secret")).await;
        assert_eq!(panics.code(), Code::Internal);
        assert!(!panics.message().contains("secret"));

        let later = status_of(|| stream(|| panic!("secret"))).await;
        assert_eq!(later.code(), Code::Internal);

        let text = "Error, decoded message length too large: found 9 bytes, the limit is: 1 bytes";
        let at_once = status_of(move || Status::out_of_range(text).into_http()).await;
        let in_trailers = || Frame::trailers(trailers(&Status::out_of_range(TOO_LARGE)));
        const TOO_LARGE: &str = "Error, encoded message length too large: found 9 bytes";
        let later = status_of(move || stream(in_trailers)).await;
        for status in [at_once, later] {
            assert_eq!(status.code(), Code::ResourceExhausted);
            assert!(status.message().contains("server.message_bytes_max"));
        }

        let other = status_of(|| Status::out_of_range("row 9").into_http()).await;
        assert_eq!((other.code(), other.message()), (Code::OutOfRange, "row 9"));
        let fine = status_of(|| stream(|| Frame::trailers(trailers(&Status::ok(""))))).await;
        assert_eq!(fine.code(), Code::Ok);
    }
}
