//! One request that reads rows of tenants for whom its sender need not act: of those
//! whom it names, for a reason that it gives.
//!
//! Invariants: it takes a role; it is recorded for each of those tenants before the
//! request is served; nothing of it is kept for the next request; it reads, and does
//! nothing else.

use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request};

use super::tenant::Admitted;
use crate::audit::{self, Entry};
use crate::error::{Error, Result};
use crate::tenancy::Tenants;
use crate::tenant::{SUPER_ADMIN, TenantId};

/// Why the request reads them.
pub(crate) const REASON_HEADER: &str = "jammi-bypass-reason";
/// Whose rows it reads, separated by commas.
pub(crate) const TENANTS_HEADER: &str = "jammi-bypass-tenants";

/// The longest reason, in bytes.
const REASON_BYTES_MAX: usize = 500;
/// The most tenants of one request.
const TENANTS_MAX: usize = 64;

/// The calls by which a query is prepared and its rows are fetched. What of them would
/// do more is refused where that is known.
const READING: [&str; 5] = [
    "/arrow.flight.protocol.FlightService/GetFlightInfo",
    "/arrow.flight.protocol.FlightService/GetSchema",
    "/arrow.flight.protocol.FlightService/DoGet",
    "/arrow.flight.protocol.FlightService/DoPut",
    "/arrow.flight.protocol.FlightService/DoAction",
];

/// Whether a request says anything of it.
pub(super) fn is_asked(headers: &HeaderMap) -> bool {
    headers.contains_key(REASON_HEADER) || headers.contains_key(TENANTS_HEADER)
}

/// Lets an admitted request read the rows of the tenants that it names, once that is
/// on record.
///
/// # Errors
/// `PermissionDenied` without the role, and for tenants who may not be used;
/// `InvalidArgument` for headers that cannot be read, and for what is no query;
/// `FailedPrecondition` where nothing is recorded; `Unavailable` where it cannot be.
pub(super) async fn admit<B>(tenants: &Tenants, request: &mut Request<B>) -> Result<()> {
    let admitted = request.extensions().get::<Admitted>();
    let principal = admitted.map(|admitted| admitted.principal().clone());
    principal.ok_or_else(unadmitted)?.require(SUPER_ADMIN)?;
    if !READING.contains(&request.uri().path()) {
        return Err(no_query());
    }
    let asked = Asked::of(request.headers())?;
    let entry = request.extensions().get::<audit::Entry>().cloned();
    for tenant in asked.tenants.iter() {
        tenants.standing(*tenant).await?.require()?;
    }
    let entry: Entry = entry.ok_or_else(|| {
        Error::FailedPrecondition(
            "a request that bypasses tenants is recorded before it is served, and this server \
             records nothing: have the setting audit.enabled changed"
                .into(),
        )
    })?;
    entry.bypasses(&asked.tenants, &asked.reason).await?;
    match request.extensions_mut().get_mut::<Admitted>() {
        Some(admitted) => admitted.bypasses(asked.tenants),
        None => return Err(unadmitted()),
    }
    Ok(())
}

/// Why a request that is no query is refused.
pub(super) fn no_query() -> Error {
    Error::InvalidArgument(format!(
        "a request that bypasses tenants is a query by Flight SQL outside a transaction: send \
         this one without {REASON_HEADER}"
    ))
}

/// What stands behind admission has an admission.
fn unadmitted() -> Error {
    Error::Internal {
        message: "the request was not admitted".into(),
        source: None,
    }
}

/// What a request says of it.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    tenants: Arc<[TenantId]>,
    reason: String,
}

impl Asked {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self> {
        let reason = only(headers, REASON_HEADER, "say why the request is made")?;
        let reason = reason.trim();
        if reason.is_empty() || reason.len() > REASON_BYTES_MAX {
            return Err(Error::InvalidArgument(format!(
                "{REASON_HEADER} has {} characters: say why in 1 to {REASON_BYTES_MAX}",
                reason.len()
            )));
        }
        let named = only(headers, TENANTS_HEADER, "name the tenants to read")?;
        let mut tenants = Vec::new();
        for text in named.split(',') {
            let tenant = TenantId::from_str(text.trim())?;
            if !tenants.contains(&tenant) {
                tenants.push(tenant);
            }
        }
        if tenants.len() > TENANTS_MAX {
            return Err(Error::InvalidArgument(format!(
                "{TENANTS_HEADER} names {} tenants: name up to {TENANTS_MAX} at a time",
                tenants.len()
            )));
        }
        Ok(Asked {
            tenants: tenants.into(),
            reason: reason.to_owned(),
        })
    }
}

#[cfg(any(test, fuzzing))]
impl Asked {
    /// Holds of whatever could be read.
    pub(super) fn check(&self) {
        assert!((1..=TENANTS_MAX).contains(&self.tenants.len()));
        assert!((1..=REASON_BYTES_MAX).contains(&self.reason.len()));
        assert!(
            self.reason
                .bytes()
                .all(|byte| byte == b'\t' || (b' '..0x7f).contains(&byte))
        );
    }
}

/// The one value of a header, which some clients send more than once.
fn only<'a>(headers: &'a HeaderMap, name: &str, mend: &str) -> Result<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().ok_or_else(|| {
        Error::InvalidArgument(format!(
            "request metadata {name} is missing beside {}: {mend}",
            match name {
                REASON_HEADER => TENANTS_HEADER,
                _ => REASON_HEADER,
            }
        ))
    })?;
    if values.any(|value: &HeaderValue| value != first) {
        return Err(Error::InvalidArgument(format!(
            "{name} was sent with different values: send one value"
        )));
    }
    first.to_str().map_err(|_| {
        Error::InvalidArgument(format!(
            "{name} has a control character or a non-ASCII character: send printable ASCII"
        ))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    const ALICE: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a";
    const BOB: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b";

    fn asked(lines: &[(&'static str, &str)]) -> Result<Asked> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        assert!(is_asked(&headers));
        Asked::of(&headers)
    }

    #[test]
    fn tenants_are_read_in_the_order_in_which_they_are_named() {
        let named = format!("{BOB}, {ALICE},{BOB}");
        let read = asked(&[(REASON_HEADER, " ticket 7 "), (TENANTS_HEADER, &named)]).unwrap();
        let tenants = [BOB, ALICE].map(|id| TenantId::from_str(id).unwrap());
        assert_eq!(
            (&*read.tenants, read.reason.as_str()),
            (&tenants[..], "ticket 7")
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_mend() {
        let long = "x".repeat(REASON_BYTES_MAX + 1);
        let many: Vec<String> = (0..=TENANTS_MAX)
            .map(|number| format!("018f5a0e-c4c8-7e10-9c4f-{number:012x}"))
            .collect();
        let many = many.join(",");
        let cases: [(&[(&str, &str)], &str); 8] = [
            (&[(REASON_HEADER, "why")], "jammi-bypass-tenants is missing"),
            (&[(TENANTS_HEADER, ALICE)], "jammi-bypass-reason is missing"),
            (
                &[(REASON_HEADER, " "), (TENANTS_HEADER, ALICE)],
                "has 0 characters",
            ),
            (
                &[(REASON_HEADER, &long), (TENANTS_HEADER, ALICE)],
                "has 501 characters",
            ),
            (
                &[(REASON_HEADER, "d\u{e9}j\u{e0}"), (TENANTS_HEADER, ALICE)],
                "non-ASCII",
            ),
            (
                &[
                    (REASON_HEADER, "a"),
                    (REASON_HEADER, "b"),
                    (TENANTS_HEADER, ALICE),
                ],
                "different values",
            ),
            (&[(REASON_HEADER, "why"), (TENANTS_HEADER, "*")], "UUID"),
            (
                &[(REASON_HEADER, "why"), (TENANTS_HEADER, &many)],
                "names 65 tenants",
            ),
        ];
        for (lines, part) in cases {
            match asked(lines) {
                Err(Error::InvalidArgument(text)) => assert!(text.contains(part), "{text}"),
                other => panic!("{lines:?}: {other:?}"),
            }
        }
    }
}
