//! The cookie `arrow_flight_session_id`, by which clients of Arrow Flight name a
//! session: read as RFC 6265 says, and made.
//!
//! Invariant: a cookie names a session for programs alone. A browser sends cookies
//! whichever page asks, so that a request of a page is named by its header or not
//! at all, and is never given a cookie. A cookie that cannot be read is an error,
//! never "no session".

use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

use crate::error::{Error, Result};
use crate::tenant::SessionId;

/// The name of Flight's session cookie.
pub const SESSION_COOKIE: &str = "arrow_flight_session_id";

/// What browsers put on a request of a page, and no page can leave out.
const OF_PAGES: [&str; 2] = ["origin", "sec-fetch-site"];

/// Whether a page of a browser made the request.
pub(super) fn is_of_page(metadata: &MetadataMap) -> bool {
    OF_PAGES.iter().any(|header| metadata.contains_key(*header))
}

/// The sessions that the cookies of a request name, which are the same if its
/// client is in order.
pub(super) fn sessions_of(metadata: &MetadataMap) -> Result<Vec<SessionId>> {
    let mut sessions = Vec::new();
    // HTTP/2 lets a client send each pair in a line of its own.
    for line in metadata.get_all("cookie") {
        let text = line.to_str().map_err(|_| {
            Error::InvalidArgument(
                "the header cookie has a control character or a non-ASCII character: send cookies \
                 as RFC 6265 writes them"
                    .into(),
            )
        })?;
        for pair in text.split(';') {
            let (name, value) = match pair.split_once('=') {
                Some((name, value)) => (name.trim_matches(BLANKS), Some(value)),
                None => (pair.trim_matches(BLANKS), None),
            };
            if name == SESSION_COOKIE {
                let value = value.ok_or_else(malformed)?;
                sessions.push(session_of(value.trim_matches(BLANKS))?);
            }
        }
    }
    Ok(sessions)
}

const BLANKS: [char; 2] = [' ', '\t'];

/// The session of a cookie's value, which may be in quotes and is not encoded.
fn session_of(value: &str) -> Result<SessionId> {
    let quoted = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let value = quoted.unwrap_or(value);
    if !value.bytes().all(is_cookie_octet) {
        return Err(malformed());
    }
    SessionId::parse(value, "cookie arrow_flight_session_id")
}

fn is_cookie_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\')
}

fn malformed() -> Error {
    Error::InvalidArgument(format!(
        "cookie {SESSION_COOKIE} is malformed: send back what Set-Cookie said"
    ))
}

/// What gives a client a session. It has no Max-Age, with which Java's clients
/// would send attributes back.
pub(super) fn giving(session: &SessionId) -> MetadataValue<Ascii> {
    let text = format!(
        "{SESSION_COOKIE}={}; Path=/; HttpOnly; SameSite=Strict",
        session.as_str()
    );
    MetadataValue::try_from(text).expect("a session id that was made is hexadecimal digits")
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    #[test]
    fn a_cookie_names_a_session_or_is_an_error() {
        let longest = format!("{SESSION_COOKIE}={}", "x".repeat(128));
        let too_long = format!("{longest}x");
        // Header lines, and the sessions that they name or a part of the refusal.
        type Case<'a> = (&'a [&'a [u8]], Result<&'a [&'a str], &'a str>);
        let id: &[u8] = b"arrow_flight_session_id=s1";
        let cases: &[Case] = &[
            (&[], Ok(&[])),
            (&[b""], Ok(&[])),
            (&[b"a=b"], Ok(&[])),
            (&[b"a"], Ok(&[])),
            (&[id], Ok(&["s1"])),
            (&[b"a=b; arrow_flight_session_id=s1; c=d"], Ok(&["s1"])),
            // As Go joins them.
            (&[b"a=b;arrow_flight_session_id=s1;c=d"], Ok(&["s1"])),
            // As HTTP/2 may split them.
            (&[b"a=b", id], Ok(&["s1"])),
            (&[b"arrow_flight_session_id=\"s1\""], Ok(&["s1"])),
            // As Java writes a cookie of version 1.
            (
                &[b"$Version=\"1\"; arrow_flight_session_id=\"s1\";$Path=\"/\""],
                Ok(&["s1"]),
            ),
            // Nothing is decoded.
            (&[b"arrow_flight_session_id=s%311"], Ok(&["s%311"])),
            (&[b"arrow_flight_session_id=a=b"], Ok(&["a=b"])),
            (&[id, b"arrow_flight_session_id=s2"], Ok(&["s1", "s2"])),
            // Names are told apart by case, and whole.
            (&[b"Arrow_Flight_Session_Id=s1"], Ok(&[])),
            (&[b"xarrow_flight_session_id=s1"], Ok(&[])),
            (&[longest.as_bytes()], Ok(&[&longest[24..]])),
            (&[too_long.as_bytes()], Err("129 bytes")),
            (&[b"arrow_flight_session_id"], Err("malformed")),
            (&[b"arrow_flight_session_id="], Err("is empty")),
            (&[b"arrow_flight_session_id=\"\""], Err("is empty")),
            (&[b"arrow_flight_session_id=\"s1"], Err("malformed")),
            (&[b"arrow_flight_session_id=s1\""], Err("malformed")),
            (&[b"arrow_flight_session_id=s 1"], Err("malformed")),
            (&[b"arrow_flight_session_id=s1,s2"], Err("malformed")),
            (&[b"arrow_flight_session_id=s\\1"], Err("malformed")),
            (&[b"arrow_flight_session_id=s\xc3\xa9"], Err("non-ASCII")),
            (&[b"a=\xff"], Err("non-ASCII")),
        ];
        for (lines, expected) in cases {
            let mut headers = HeaderMap::new();
            for line in *lines {
                headers.append("cookie", HeaderValue::from_bytes(line).unwrap());
            }
            let found = sessions_of(&MetadataMap::from_headers(headers));
            match (expected, &found) {
                (Ok(expected), Ok(found)) => {
                    let found: Vec<_> = found.iter().map(SessionId::as_str).collect();
                    assert_eq!(found, *expected, "{lines:?}");
                }
                (Err(part), Err(Error::InvalidArgument(text))) => {
                    assert!(text.contains(part), "{lines:?}: {text}");
                    assert!(text.contains("cookie"), "{text}");
                }
                _ => panic!("{lines:?}: {found:?}"),
            }
        }
    }
}
