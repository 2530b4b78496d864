//! Session options: the catalog and schema that a session's bare names are
//! looked up in, and the tenant that it is bound to.
//!
//! Options belong to a session, whatever connections share it. The tenant is not
//! kept here: it is the session's binding. Closing a session is what every client does when one of its connections
//! closes, while others go on under the same session id; so options leave with
//! idleness, and what others have in the session stays theirs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use prost::Message;

use crate::engine::NameDefaults;
use crate::error::{Error, Result};
use crate::server::tenant::Admitted;
use crate::tenant::{Principal, SessionId, TenantId};

/// The action that sets options.
pub(super) const SET: &str = "SetSessionOptions";
/// The action that reads them.
pub(super) const GET: &str = "GetSessionOptions";
/// The action that ends a connection's use of a session.
pub(super) const CLOSE: &str = "CloseSession";

/// The option that is the session's binding.
pub(super) const TENANT: &str = "tenant";

/// The longest name of a catalog or schema, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// The name defaults of each session that has set any.
pub struct SessionNames {
    sessions: DashMap<(Principal, SessionId), Entry>,
    defaults: Arc<NameDefaults>,
    sessions_max: usize,
    idle_timeout_ms: u64,
}

struct Entry {
    names: Arc<NameDefaults>,
    used_ms: AtomicU64,
}

impl SessionNames {
    /// Keeps the names of up to `sessions_max` sessions (`sessions.max`), each
    /// until it is idle for `idle_timeout` (`sessions.idle_timeout_secs`).
    pub fn new(sessions_max: usize, idle_timeout: Duration) -> Self {
        SessionNames {
            sessions: DashMap::new(),
            defaults: Arc::default(),
            sessions_max,
            idle_timeout_ms: idle_timeout.as_millis().try_into().unwrap_or(u64::MAX),
        }
    }

    /// The names of a request that was admitted as `admitted`.
    pub(super) fn get(&self, admitted: &Admitted, now_ms: u64) -> Arc<NameDefaults> {
        match &admitted.session() {
            Some(session) => self.of(admitted.principal(), session, now_ms),
            None => self.defaults.clone(),
        }
    }

    /// Applies the options that are right and answers which are not.
    pub(super) fn set(
        &self,
        admitted: &Admitted,
        request: SetSessionOptionsRequest,
        now_ms: u64,
    ) -> Result<SetSessionOptionsResult> {
        let session = admitted.require_session()?;
        self.apply(admitted.principal(), session, request, now_ms)
    }

    /// The sessions that have names of their own, but for idle ones.
    pub(in crate::server) fn owners(&self, now_ms: u64) -> Vec<(Principal, SessionId)> {
        let entries = self.sessions.iter();
        let live = entries.filter(|entry| !self.is_idle(entry.value(), now_ms));
        live.map(|entry| entry.key().clone()).collect()
    }

    /// Forgets the names of a session.
    pub(in crate::server) fn forget(&self, principal: &str, session: &SessionId) {
        self.sessions
            .retain(|(owner, own), _| owner.name() != principal || own != session);
    }

    fn of(&self, principal: &Principal, session: &SessionId, now_ms: u64) -> Arc<NameDefaults> {
        // Most servers have no session with names of its own.
        if self.sessions.is_empty() {
            return self.defaults.clone();
        }
        match self.sessions.get(&(principal.clone(), session.clone())) {
            Some(entry) if !self.is_idle(&entry, now_ms) => {
                entry.used_ms.fetch_max(now_ms, Ordering::Relaxed);
                entry.names.clone()
            }
            _ => self.defaults.clone(),
        }
    }

    fn apply(
        &self,
        principal: &Principal,
        session: &SessionId,
        request: SetSessionOptionsRequest,
        now_ms: u64,
    ) -> Result<SetSessionOptionsResult> {
        let mut names = self.of(principal, session, now_ms).as_ref().clone();
        let mut errors = HashMap::new();
        for (name, value) in request.session_options {
            if let Err(error) = apply(&mut names, &name, value) {
                let value = error as i32;
                errors.insert(name, SetSessionOptionsError { value });
            }
        }
        self.store(principal, session, names, now_ms)?;
        Ok(SetSessionOptionsResult { errors })
    }

    fn store(
        &self,
        principal: &Principal,
        session: &SessionId,
        names: NameDefaults,
        now_ms: u64,
    ) -> Result<()> {
        let key = (principal.clone(), session.clone());
        if names == *self.defaults {
            self.sessions.remove(&key);
            return Ok(());
        }
        if !self.sessions.contains_key(&key) && self.sessions.len() >= self.sessions_max {
            self.sessions
                .retain(|_, entry| !self.is_idle(entry, now_ms));
            if self.sessions.len() >= self.sessions_max {
                return Err(Error::ResourceExhausted(format!(
                    "{} sessions have options already: try again later, or raise sessions.max",
                    self.sessions_max
                )));
            }
        }
        let entry = Entry {
            names: Arc::new(names),
            used_ms: AtomicU64::new(now_ms),
        };
        self.sessions.insert(key, entry);
        Ok(())
    }

    fn is_idle(&self, entry: &Entry, now_ms: u64) -> bool {
        let idle_ms = now_ms.saturating_sub(entry.used_ms.load(Ordering::Relaxed));
        idle_ms > self.idle_timeout_ms
    }
}

/// What the client is told of its session. An option without a value is not told.
pub(super) fn describe(names: &NameDefaults, tenant: Option<TenantId>) -> GetSessionOptionsResult {
    let text = |name: &str, value: String| {
        let option_value = Some(OptionValue::String(value));
        (name.to_owned(), SessionOptionValue { option_value })
    };
    let names = [
        text("catalog", names.catalog.clone()),
        text("schema", names.schema.clone()),
    ];
    let tenant = tenant.map(|tenant| text(TENANT, tenant.to_string()));
    GetSessionOptionsResult {
        session_options: names.into_iter().chain(tenant).collect(),
    }
}

/// The tenant of an option, or none where it has no value.
pub(super) fn tenant_of(
    value: SessionOptionValue,
) -> Result<Option<TenantId>, SetSessionOptionsErrorValue> {
    let invalid = SetSessionOptionsErrorValue::InvalidValue;
    match value.option_value {
        None => Ok(None),
        Some(OptionValue::String(text)) => text.parse().map(Some).map_err(|_| invalid),
        Some(_) => Err(invalid),
    }
}

/// The answer to closing a session.
pub(super) fn closed() -> CloseSessionResult {
    CloseSessionResult {
        status: CloseSessionStatus::Closed as i32,
    }
}

/// Sets one option; an option without a value goes back to its default.
fn apply(
    names: &mut NameDefaults,
    option: &str,
    value: SessionOptionValue,
) -> Result<(), SetSessionOptionsErrorValue> {
    let defaults = NameDefaults::default();
    let (target, default) = match option {
        "catalog" => (&mut names.catalog, defaults.catalog),
        "schema" => (&mut names.schema, defaults.schema),
        _ => return Err(SetSessionOptionsErrorValue::InvalidName),
    };
    *target = match value.option_value {
        None => default,
        Some(OptionValue::String(name)) if is_name(&name) => name,
        Some(_) => return Err(SetSessionOptionsErrorValue::InvalidValue),
    };
    Ok(())
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control)
}

// The messages of Flight.proto that arrow-flight leaves out.

/// `arrow.flight.protocol.SessionOptionValue`
#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionOptionValue {
    #[prost(oneof = "OptionValue", tags = "1, 2, 3, 4, 5")]
    pub option_value: Option<OptionValue>,
}

/// The types of an option's value.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum OptionValue {
    #[prost(string, tag = "1")]
    String(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Int64(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    StringList(StringListValue),
}

/// `arrow.flight.protocol.SessionOptionValue.StringListValue`
#[derive(Clone, PartialEq, Message)]
pub(super) struct StringListValue {
    #[prost(string, repeated, tag = "1")]
    pub values: Vec<String>,
}

/// `arrow.flight.protocol.SetSessionOptionsRequest`
#[derive(Clone, PartialEq, Message)]
pub(super) struct SetSessionOptionsRequest {
    #[prost(map = "string, message", tag = "1")]
    pub session_options: HashMap<String, SessionOptionValue>,
}

/// `arrow.flight.protocol.SetSessionOptionsResult`
#[derive(Clone, PartialEq, Message)]
pub(super) struct SetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    pub errors: HashMap<String, SetSessionOptionsError>,
}

/// `arrow.flight.protocol.SetSessionOptionsResult.Error`
#[derive(Clone, PartialEq, Message)]
pub(super) struct SetSessionOptionsError {
    #[prost(enumeration = "SetSessionOptionsErrorValue", tag = "1")]
    pub value: i32,
}

/// `arrow.flight.protocol.SetSessionOptionsResult.ErrorValue`
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum SetSessionOptionsErrorValue {
    Unspecified = 0,
    InvalidName = 1,
    InvalidValue = 2,
    Error = 3,
}

/// `arrow.flight.protocol.GetSessionOptionsRequest`
#[derive(Clone, PartialEq, Message)]
pub(super) struct GetSessionOptionsRequest {}

/// `arrow.flight.protocol.GetSessionOptionsResult`
#[derive(Clone, PartialEq, Message)]
pub(super) struct GetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    pub session_options: HashMap<String, SessionOptionValue>,
}

/// `arrow.flight.protocol.CloseSessionRequest`
#[derive(Clone, PartialEq, Message)]
pub(super) struct CloseSessionRequest {}

/// `arrow.flight.protocol.CloseSessionResult`
#[derive(Clone, PartialEq, Message)]
pub(super) struct CloseSessionResult {
    #[prost(enumeration = "CloseSessionStatus", tag = "1")]
    pub status: i32,
}

/// `arrow.flight.protocol.CloseSessionResult.Status`
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum CloseSessionStatus {
    Unspecified = 0,
    Closed = 1,
    Closing = 2,
    NotCloseable = 3,
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    fn text(value: &str) -> SessionOptionValue {
        SessionOptionValue {
            option_value: Some(OptionValue::String(value.into())),
        }
    }

    fn request(options: Vec<(&str, SessionOptionValue)>) -> SetSessionOptionsRequest {
        let options = options.into_iter();
        SetSessionOptionsRequest {
            session_options: options.map(|(name, value)| (name.into(), value)).collect(),
        }
    }

    fn session(id: &str) -> SessionId {
        SessionId::from_str(id).unwrap()
    }

    #[test]
    fn options_belong_to_one_session() {
        let names = SessionNames::new(10, Duration::from_millis(100));
        let principal = Principal::trusted_network();
        let one = session("one");
        let sent = request(vec![
            ("catalog", text("inbox")),
            (
                "schema",
                SessionOptionValue {
                    option_value: Some(OptionValue::Int64(1)),
                },
            ),
            ("tenant", text("b")),
        ]);
        let answer = names.apply(&principal, &one, sent, 0).unwrap();
        let error = |name: &str| answer.errors.get(name).map(|error| error.value());
        assert_eq!(error("catalog"), None);
        assert_eq!(
            error("schema"),
            Some(SetSessionOptionsErrorValue::InvalidValue)
        );
        assert_eq!(
            error("tenant"),
            Some(SetSessionOptionsErrorValue::InvalidName)
        );

        let of = |id: &str, now_ms| names.of(&principal, &session(id), now_ms).catalog.clone();
        assert_eq!(of("one", 90), "inbox");
        assert_eq!(of("two", 90), "mutable");
        // Use keeps a session's names, and idleness ends them.
        assert_eq!(of("one", 180), "inbox");
        assert_eq!(of("one", 300), "mutable");
    }

    #[test]
    fn an_option_without_a_value_goes_back_to_its_default() {
        let names = SessionNames::new(10, Duration::from_millis(100));
        let principal = Principal::trusted_network();
        let one = session("one");
        let set = request(vec![("schema", text("private"))]);
        names.apply(&principal, &one, set, 0).unwrap();
        assert_eq!(names.of(&principal, &one, 0).schema, "private");
        let unset = request(vec![("schema", SessionOptionValue { option_value: None })]);
        names.apply(&principal, &one, unset, 0).unwrap();
        assert_eq!(names.of(&principal, &one, 0).schema, "public");
        assert!(names.sessions.is_empty());
    }

    #[test]
    fn odd_names_are_refused() {
        let names = SessionNames::new(10, Duration::from_millis(100));
        let principal = Principal::trusted_network();
        for odd in ["", "a\nb", &"x".repeat(256)] {
            let sent = request(vec![("catalog", text(odd))]);
            let answer = names.apply(&principal, &session("s"), sent, 0).unwrap();
            let error = answer.errors["catalog"].value();
            assert_eq!(error, SetSessionOptionsErrorValue::InvalidValue, "{odd:?}");
        }
    }

    #[test]
    fn sessions_have_a_cap_that_idle_ones_make_room_in() {
        let names = SessionNames::new(2, Duration::from_millis(100));
        let principal = Principal::trusted_network();
        let set = |id: &str, now_ms| {
            let sent = request(vec![("catalog", text("inbox"))]);
            names.apply(&principal, &session(id), sent, now_ms)
        };
        set("one", 0).unwrap();
        set("two", 50).unwrap();
        let Err(Error::ResourceExhausted(text)) = set("three", 60) else {
            panic!("a third session was accepted");
        };
        assert!(text.contains("sessions.max"));
        set("two", 60).unwrap();
        set("three", 120).unwrap();
    }
}
