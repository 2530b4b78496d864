//! What a stranger's headers say of its session.

use std::str::FromStr;

use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::metadata::MetadataMap;

use super::admission::session_of;
use super::cookie;
use crate::server::bypass::{Asked, REASON_HEADER, TENANTS_HEADER};
use crate::tenant::{SessionId, TenantId};

/// The headers that are read, which the first byte of a line chooses from.
const NAMES: [&str; 6] = [
    "origin",
    "x-request-id",
    REASON_HEADER,
    TENANTS_HEADER,
    super::SESSION_HEADER,
    "cookie",
];

/// Reads lines as headers: a session that they name is one that could be named.
pub fn headers(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let Some((name, value)) = line.split_first() else {
            continue;
        };
        let name = NAMES[usize::from(*name) % NAMES.len()];
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(HeaderName::from_static(name), value);
        }
        if let Ok(text) = str::from_utf8(value)
            && let Ok(tenant) = TenantId::from_str(text)
        {
            // Canonical, so that it is one spelling that is stored.
            assert_eq!(tenant.to_string(), text.to_ascii_lowercase());
        }
    }
    if let Ok(asked) = Asked::of(&headers) {
        asked.check();
    }
    let metadata = MetadataMap::from_headers(headers);
    let _ = cookie::is_of_page(&metadata);
    let named = session_of(&metadata).ok().flatten();
    let kept = cookie::sessions_of(&metadata).unwrap_or_default();
    for session in named.iter().chain(&kept) {
        let again = SessionId::from_str(session.as_str());
        assert!(again.is_ok_and(|again| again == *session));
    }
    // A cookie that is given is read back as what was given.
    for session in kept {
        let given = cookie::giving(&session);
        let pair = given.to_str().ok().and_then(|text| text.split(';').next());
        let mut headers = HeaderMap::new();
        if let Some(value) = pair.and_then(|pair| HeaderValue::from_str(pair).ok()) {
            headers.insert("cookie", value);
        }
        let read = cookie::sessions_of(&MetadataMap::from_headers(headers));
        assert!(read.is_ok_and(|read| read == [session]));
    }
}
