//! The console's files, as they were embedded when this binary was built.
//!
//! The console is a program in the browser: it calls the first port by gRPC-Web
//! like any other client, and this module answers nothing but files. What it has
//! to know of the server, the number of that port, is written into its page.
//!
//! Invariant: the console's origins, whose pages may call, are names that mean
//! this machine to every browser, and the address that the operator listens on.
//! No other host name is one, since whoever owns a name may let it mean this
//! machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use rust_embed::{EmbeddedFile, RustEmbed};

/// Where the page is.
pub(super) const PATH: &str = "/console/";

/// What there is to say where the page is not.
pub(super) const NOT_BUILT_IN: &str = "this server was built without the console: run `make console`, \
     which needs Node.js, and build the server again";

/// What stands in the page for the number of the gRPC port, and for where it is behind a
/// proxy.
const GRPC_PORT: &str = "__JAMMI_GRPC_PORT__";
const GRPC_URL: &str = "__JAMMI_GRPC_URL__";

/// What `make console` makes; its `.gitignore` alone where it was not run.
#[derive(RustEmbed)]
#[folder = "console/dist"]
#[allow_missing = true]
struct Files;

/// Whether this binary has the console.
pub(super) fn is_built_in() -> bool {
    Files::get("index.html").is_some()
}

/// Where pages find the gRPC port: by its number on their own host, or at a URL.
struct Grpc {
    port: u16,
    /// An origin of HTTP, which holds nothing that HTML or a header would not.
    url: Option<String>,
}

/// The console of a server whose gRPC port is `port`, which browsers find at `url`
/// where that is not their page's host.
pub(super) fn pages(port: u16, url: Option<String>) -> Router {
    let grpc = Arc::new(Grpc { port, url });
    let page = move |uri: Uri, headers: HeaderMap| async move {
        page(Files::get("index.html"), &grpc, &with_host(uri, headers))
    };
    Router::new()
        .route("/", get(|| async { Redirect::temporary(PATH) }))
        .route("/console", get(|| async { Redirect::temporary(PATH) }))
        .route(PATH, get(page))
        .route("/console/licenses.txt", get(licences))
        .route("/console/assets/{*name}", get(asset))
}

/// The origins that the console may have by `scheme`, of a server that was told to
/// listen on `listen` and does so on `bound`.
pub(super) fn origins(scheme: &str, listen: &str, bound: SocketAddr) -> Vec<String> {
    let port = bound.port();
    let mut hosts = Vec::new();
    if bound.ip().is_loopback() || bound.ip().is_unspecified() {
        let loopback = [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            IpAddr::from(Ipv6Addr::LOCALHOST),
        ];
        hosts.push("localhost".to_owned());
        hosts.extend(loopback.map(|ip| host_of(SocketAddr::new(ip, port))));
    }
    if !bound.ip().is_unspecified() {
        hosts.push(host_of(bound));
        // The name that the operator gave.
        hosts.extend(
            listen
                .rsplit_once(':')
                .map(|(host, _)| host.to_ascii_lowercase()),
        );
    }
    hosts.sort();
    hosts.dedup();
    let origin = |host: String| match (scheme, port) {
        ("http", 80) | ("https", 443) => format!("{scheme}://{host}"),
        _ => format!("{scheme}://{host}:{port}"),
    };
    hosts.into_iter().map(origin).collect()
}

fn host_of(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// The headers with the host that the page is asked of, which HTTP/2 has in the
/// address.
fn with_host(uri: Uri, mut headers: HeaderMap) -> HeaderMap {
    let host = uri.into_parts().authority;
    let host = host.and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    if let Some(host) = host {
        headers.entry(header::HOST).or_insert(host);
    }
    headers
}

fn page(index: Option<EmbeddedFile>, grpc: &Grpc, headers: &HeaderMap) -> Response {
    let policy = [
        (header::CONTENT_SECURITY_POLICY, policy(grpc, headers)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    let Some(file) = index else {
        let text = format!("<!doctype html><title>Jammi</title><p>{NOT_BUILT_IN}</p>\n");
        return (StatusCode::NOT_IMPLEMENTED, policy, hardening(), Html(text)).into_response();
    };
    let text = String::from_utf8_lossy(&file.data)
        .replace(GRPC_PORT, &grpc.port.to_string())
        .replace(GRPC_URL, grpc.url.as_deref().unwrap_or_default());
    (policy, hardening(), Html(text)).into_response()
}

/// The page runs its own files alone, and calls the gRPC port alone, of the host that it
/// came from or where that is said to be.
fn policy(grpc: &Grpc, headers: &HeaderMap) -> HeaderValue {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let calls = match (&grpc.url, &host) {
        (Some(url), _) => url.clone(),
        (None, Some(host)) => {
            let (host, port) = (host.host(), grpc.port);
            format!("http://{host}:{port} https://{host}:{port}")
        }
        (None, None) => "'none'".to_owned(),
    };
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; \
         img-src 'self' data:; \
         connect-src {calls}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'"
    );
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

fn hardening() -> [(HeaderName, HeaderValue); 3] {
    [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ]
    .map(|(name, value)| (name, HeaderValue::from_static(value)))
}

/// A file that the page names. Its name changes with what is in it.
async fn asset(Path(name): Path<String>) -> Response {
    let Some(EmbeddedFile { data, metadata }) = Files::get(&format!("assets/{name}")) else {
        return (StatusCode::NOT_FOUND, "the console has no such file\n").into_response();
    };
    let kept = "public, max-age=31536000, immutable".to_owned();
    let headers = [
        (header::CONTENT_TYPE, metadata.mimetype().to_owned()),
        (header::CACHE_CONTROL, kept),
    ];
    (headers, hardening(), data.into_owned()).into_response()
}

/// The licences of what the page's files have in them of others.
async fn licences() -> Response {
    let Some(EmbeddedFile { data, .. }) = Files::get("licenses.txt") else {
        return (StatusCode::NOT_FOUND, "the console has no such file\n").into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, hardening(), data.into_owned()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_names_of_this_machine_alone() {
        for (listen, bound, expected) in [
            (
                "127.0.0.1:0",
                "127.0.0.1:50052",
                vec![
                    "http://127.0.0.1:50052",
                    "http://[::1]:50052",
                    "http://localhost:50052",
                ],
            ),
            (
                "0.0.0.0:80",
                "0.0.0.0:80",
                vec!["http://127.0.0.1", "http://[::1]", "http://localhost"],
            ),
            (
                "10.0.0.5:8080",
                "10.0.0.5:8080",
                vec!["http://10.0.0.5:8080"],
            ),
            (
                "DB.example:8080",
                "10.0.0.5:8080",
                vec!["http://10.0.0.5:8080", "http://db.example:8080"],
            ),
            (
                "[fd00::5]:8080",
                "[fd00::5]:8080",
                vec!["http://[fd00::5]:8080"],
            ),
        ] {
            let bound = bound.parse().unwrap();
            assert_eq!(origins("http", listen, bound), expected, "{listen}");
        }
    }

    #[tokio::test]
    async fn a_server_without_the_files_says_so_on_the_page() {
        let answer = page(None, &Grpc { port: 7, url: None }, &HeaderMap::new());
        assert_eq!(answer.status(), StatusCode::NOT_IMPLEMENTED);
        let body = axum::body::to_bytes(answer.into_body(), 4_096)
            .await
            .unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.contains("make console"), "{text}");
    }

    #[test]
    fn the_page_may_call_the_grpc_port_of_its_own_host_alone() {
        let mut headers = HeaderMap::new();
        for (host, expected) in [
            (
                "127.0.0.1:50052",
                "connect-src http://127.0.0.1:7 https://127.0.0.1:7;",
            ),
            ("[::1]:50052", "connect-src http://[::1]:7 https://[::1]:7;"),
            ("a b", "connect-src 'none';"),
            ("a;script-src *", "connect-src 'none';"),
        ] {
            headers.insert(header::HOST, HeaderValue::from_static(host));
            let policy = policy(&Grpc { port: 7, url: None }, &headers);
            let policy = policy.to_str().unwrap();
            assert!(policy.contains(expected), "{policy}");
            assert!(!policy.contains(" *"), "{policy}");
            let url = "https://grpc.example.com";
            let proxied = Grpc {
                port: 7,
                url: Some(url.into()),
            };
            let policy = super::policy(&proxied, &headers);
            let policy = policy.to_str().unwrap();
            assert!(policy.contains(&format!("connect-src {url};")), "{policy}");
        }
    }

    /// Symptom: over TLS, which browsers speak HTTP/2 by, the page might call nothing.
    #[test]
    fn a_page_that_is_asked_for_by_http2_has_a_host() {
        let asked = "https://db.example:50052/console/".parse().unwrap();
        let headers = with_host(asked, HeaderMap::new());
        let policy = policy(&Grpc { port: 7, url: None }, &headers);
        let policy = policy.to_str().unwrap();
        let calls = "connect-src http://db.example:7 https://db.example:7;";
        assert!(policy.contains(calls), "{policy}");
    }
}
