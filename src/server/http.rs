//! The second port: health, readiness and metrics by plain HTTP, for probes
//! and scrapers, and the console's files. It reads nothing of any tenant.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::health::Readiness;
use super::telemetry;

/// The pages of the port.
pub(super) fn pages(readiness: Readiness, console: Option<Router>) -> Router {
    let pages = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(readiness)
        .fallback(missing);
    match console {
        Some(console) => pages.merge(console),
        None => pages,
    }
}

async fn readyz(State(readiness): State<Readiness>) -> (StatusCode, &'static str) {
    if readiness.is_serving() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    }
}

async fn metrics() -> Response {
    let text = "text/plain; version=0.0.4; charset=utf-8";
    match telemetry::metrics() {
        Some(metrics) => ([(header::CONTENT_TYPE, text)], metrics.render()).into_response(),
        None => (
            StatusCode::NOT_FOUND,
            "the program that embeds this server records its metrics elsewhere\n",
        )
            .into_response(),
    }
}

async fn missing() -> (StatusCode, &'static str) {
    (
        StatusCode::NOT_FOUND,
        "no such page: this port has /healthz, /readyz and /metrics, and /console/ where \
         console.enabled is set\n",
    )
}
