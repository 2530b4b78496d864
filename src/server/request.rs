//! The outermost layer: every request gets an id and a span, and every response
//! says the id.
//!
//! Invariant: the span holds the request's id, method, peer and trace, and
//! nothing that a client wrote without being checked: no session id, no value,
//! no SQL.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version};
use tower::{Layer, Service};
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};
use uuid::Uuid;

use super::accept::ConnectionInfo;
use super::methods;

/// Names the request in responses and in the log.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a request is called, in its extensions.
#[derive(Clone, Debug)]
pub(super) struct RequestNames {
    pub id: HeaderValue,
    pub trace: Option<String>,
}

const REQUEST_ID_BYTES_MAX: usize = 64;

/// Gives every request an id and a span.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestIdLayer;

impl<S> Layer<S> for RequestIdLayer {
    type Service = RequestIds<S>;

    fn layer(&self, inner: S) -> RequestIds<S> {
        RequestIds { inner }
    }
}

#[derive(Clone, Debug)]
pub(super) struct RequestIds<S> {
    inner: S,
}

impl<S, Body, Answer> Service<Request<Body>> for RequestIds<S>
where
    S: Service<Request<Body>, Response = Response<Answer>>,
    S::Future: Send + 'static,
{
    type Response = Response<Answer>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let id = given_id(request.headers()).unwrap_or_else(made_id);
        let span = span_of(&request, &id);
        let connection = request.extensions().get::<ConnectionInfo>();
        if let Some(peer) = connection.map(|connection| connection.peer.clone()) {
            request.extensions_mut().insert(peer);
        }
        let trace = trace_id(request.headers()).map(str::to_owned);
        request.extensions_mut().insert(RequestNames {
            id: id.clone(),
            trace,
        });
        if request.version() < Version::HTTP_2 {
            // Browsers spread their calls over connections that come and go: which of
            // them it was means nothing.
            request.extensions_mut().remove::<ConnectionInfo>();
        }
        let answering = {
            let _entered = span.enter();
            self.inner.call(request)
        };
        Box::pin(
            async move {
                let mut response = answering.await?;
                response.headers_mut().insert(REQUEST_ID, id);
                Ok(response)
            }
            .instrument(span),
        )
    }
}

fn span_of<Body>(request: &Request<Body>, id: &HeaderValue) -> Span {
    let peer = request
        .extensions()
        .get::<ConnectionInfo>()
        .and_then(|connection| connection.peer.address)
        .map(tracing::field::display);
    let span = info_span!(
        "request",
        request_id = id.to_str().unwrap_or_default(),
        method = methods::name_of(request.uri().path()),
        peer,
        trace_id = Empty,
    );
    if let Some(trace) = trace_id(request.headers()) {
        span.record("trace_id", trace);
    }
    span
}

/// The client's own id, if it is one that a log may hold.
fn given_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(REQUEST_ID)?;
    let length_fits = (1..=REQUEST_ID_BYTES_MAX).contains(&id.len());
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    (length_fits && id.as_bytes().iter().all(plain)).then(|| id.clone())
}

fn made_id() -> HeaderValue {
    let id = Uuid::now_v7().hyphenated().to_string();
    HeaderValue::try_from(id).expect("hexadecimal digits and hyphens fit a header")
}

/// The trace that the request belongs to, from a W3C `traceparent` header:
/// `00-<32 hexadecimal digits>-<16>-<2>`.
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut parts = headers.get("traceparent")?.to_str().ok()?.split('-');
    let version = parts.next()?;
    let trace = parts.next()?;
    let hexadecimal = |text: &str| {
        text.bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let valid = version.len() == 2
        && trace.len() == 32
        && hexadecimal(trace)
        && trace.bytes().any(|byte| byte != b'0');
    valid.then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &'static str, value: &str) -> HeaderMap {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        HeaderMap::from_iter([(HeaderName::from_static(name), value)])
    }

    #[test]
    fn a_clients_id_is_kept_if_it_is_plain() {
        let longest = "a".repeat(64);
        let too_long = "a".repeat(65);
        for (id, kept) in [
            ("req-1.2_3", true),
            (longest.as_str(), true),
            (too_long.as_str(), false),
            ("", false),
            ("a b", false),
            ("a\"b", false),
            ("s\u{e9}ance", false),
        ] {
            let given = given_id(&header("x-request-id", id));
            assert_eq!(given.is_some(), kept, "{id:?}");
        }
        assert!(given_id(&HeaderMap::new()).is_none());
        assert_ne!(made_id(), made_id());
    }

    #[test]
    fn a_trace_is_read_if_it_is_well_formed() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let zeros = "0".repeat(32);
        for (text, valid) in [
            (format!("00-{trace}-00f067aa0ba902b7-01"), true),
            (format!("00-{zeros}-00f067aa0ba902b7-01"), false),
            (format!("00-{}-00f067aa0ba902b7-01", &trace[1..]), false),
            ("00".into(), false),
            (String::new(), false),
        ] {
            let headers = header("traceparent", &text);
            assert_eq!(trace_id(&headers).is_some(), valid, "{text:?}");
        }
    }
}
