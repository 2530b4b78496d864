//! The innermost layer: how each request ended, in the log and in the metrics,
//! and a status for the requests that a defect would otherwise cut off.
//!
//! Sits inside the gRPC-Web layer, which writes the trailers that hold the
//! status into the body.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
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

use super::methods;
use crate::engine::cores;

/// Watches every request.
#[derive(Clone, Copy, Debug)]
pub(super) struct ObserveLayer;

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe { inner }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Observe<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Observe<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // Whoever floods the server keeps its threads busy, and others wait for a core.
        cores::offer();
        let observed = Observed::new(methods::name_of(request.uri().path()));
        let answering = catch_unwind(AssertUnwindSafe(|| self.inner.call(request)));
        Box::pin(async move {
            let answered = match answering {
                Ok(answering) => AssertUnwindSafe(answering).catch_unwind().await,
                Err(panic) => Err(panic),
            };
            let response = match answered {
                Ok(response) => response?,
                Err(panic) => failed(panic).into_http(),
            };
            Ok(observed.follow(response))
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
}

impl Observed {
    fn new(method: &'static str) -> Self {
        gauge!("jammi_requests_active").increment(1.0);
        Observed {
            method,
            started: Instant::now(),
            code: None,
            span: Span::current(),
        }
    }

    /// Watches the response until its status is known.
    fn follow(mut self, response: Response<Body>) -> Response<Body> {
        match Status::from_header_map(response.headers()) {
            Some(status) => {
                self.code = Some(status.code());
                match name_limit(&status) {
                    Some(named) => {
                        self.code = Some(named.code());
                        named.into_http()
                    }
                    None => response,
                }
            }
            None => response.map(|inner| {
                Body::new(ObservedBody {
                    inner,
                    observed: self,
                    broken: false,
                })
            }),
        }
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        let code = name(self.code.unwrap_or(Code::Cancelled));
        let took = self.started.elapsed();
        let method = self.method;
        gauge!("jammi_requests_active").decrement(1.0);
        counter!("jammi_requests_total", "method" => method, "code" => code).increment(1);
        histogram!("jammi_request_seconds", "method" => method).record(took.as_secs_f64());
        let duration_ms = took.as_secs_f64() * 1_000.0;
        let _entered = self.span.enter();
        if method.starts_with("/grpc.") {
            debug!(code, duration_ms, "request ended");
        } else {
            info!(code, duration_ms, "request ended");
        }
    }
}

/// A response's body, up to the trailers that hold the status.
struct ObservedBody {
    inner: Body,
    observed: Observed,
    broken: bool,
}

impl http_body::Body for ObservedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
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
                this.observed.code = Some(status.code());
                return Poll::Ready(Some(Err(status)));
            }
            Ok(other) => return other,
            Err(panic) => {
                this.broken = true;
                Frame::trailers(trailers(&failed(panic)))
            }
        };
        let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) else {
            return Poll::Ready(Some(Ok(frame)));
        };
        let named = name_limit(&status);
        this.observed.code = Some(named.as_ref().unwrap_or(&status).code());
        Poll::Ready(Some(Ok(match named {
            Some(named) => Frame::trailers(trailers(&named)),
            None => frame,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.broken || self.inner.is_end_stream()
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

    use http_body_util::{BodyExt, StreamBody};
    use tower::ServiceExt;

    use super::*;

    async fn status_of<F>(answer: F) -> Status
    where
        F: Fn() -> Response<Body> + Clone + Send + 'static,
    {
        let inner = tower::service_fn(move |_: Request<Body>| {
            let answer = answer.clone();
            async move { Ok::<_, Infallible>(answer()) }
        });
        let request = Request::new(Body::empty());
        let response = ObserveLayer.layer(inner).oneshot(request).await.unwrap();
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
