//! What a token says, checked and turned into a principal.
//!
//! Invariant: a claim that has another form than it should is no claim that is
//! absent: the token is refused.

use serde_json::{Map, Value};

use crate::config::JwtConfig;
use crate::tenant::{ActsFor, Principal};

/// What tokens' users are users of.
const REALM: &str = "jwt";
/// The longest name of a user, in bytes.
const USER_BYTES_MAX: usize = 256;
/// What stands for any tenant, where that is accepted.
const ALL_TENANTS: &str = "*";

/// Whom a token proves, as long as it lasts.
#[derive(Clone)]
pub(super) struct Proved {
    pub principal: Principal,
    /// Unix times in milliseconds from which on and until when it is good, with the
    /// leeway that clocks are given.
    from_ms: i64,
    until_ms: i64,
}

impl Proved {
    /// Whether it is good at a time.
    pub fn is_good_at(&self, now_ms: i64) -> bool {
        (self.from_ms..self.until_ms).contains(&now_ms)
    }
}

/// Whom `claims` prove; none for claims of another issuer, for another audience, or
/// of another form.
pub(super) fn proved(claims: &Map<String, Value>, config: &JwtConfig) -> Option<Proved> {
    let text = |name| claims.get(name).and_then(Value::as_str);
    if text("iss")? != config.issuer.as_deref()? || !is_for_us(claims.get("aud")?, config) {
        return None;
    }
    let leeway_ms = i64::try_from(config.leeway_secs).ok()?.checked_mul(1_000)?;
    let until_ms = milliseconds(claims.get("exp")?)?.saturating_add(leeway_ms);
    let from_ms = match claims.get("nbf") {
        None => i64::MIN,
        Some(from) => milliseconds(from)?.saturating_sub(leeway_ms),
    };
    let user = find(claims, &config.user_claim)?.as_str()?;
    if user.is_empty() || user.len() > USER_BYTES_MAX || user.chars().any(char::is_control) {
        return None;
    }
    let acts_for = acts_for(find(claims, &config.tenants_claim), config)?;
    let mut roles = texts(find(claims, &config.roles_claim))?;
    roles.retain(|role| config.roles.iter().any(|accepted| accepted == role));
    if matches!(&acts_for, ActsFor::Only(tenants) if tenants.is_empty()) && roles.is_empty() {
        return None;
    }
    let attributes = config.attribute_claims.iter().filter_map(|name| {
        let value = match find(claims, name)? {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Some((name.clone(), value))
    });
    let principal = Principal::new(REALM, user, acts_for)
        .with_roles(roles.into_iter().map(str::to_owned))
        .with_attributes(attributes);
    Some(Proved {
        principal,
        from_ms,
        until_ms,
    })
}

fn is_for_us(audience: &Value, config: &JwtConfig) -> bool {
    let is_ours = |one: &Value| {
        let one = one.as_str();
        config
            .audiences
            .iter()
            .any(|ours| Some(ours.as_str()) == one)
    };
    match audience {
        Value::Array(several) => several.iter().any(is_ours),
        one => is_ours(one),
    }
}

/// A `NumericDate` of RFC 7519, which may have a fraction.
fn milliseconds(date: &Value) -> Option<i64> {
    let seconds = date.as_f64().filter(|seconds| seconds.is_finite())?;
    // Saturates.
    Some((seconds * 1_000.0) as i64)
}

/// A claim by its name, or by a path of names such as `realm_access.roles`.
fn find<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| {
        let (outer, rest) = name.split_once('.')?;
        find(claims.get(outer)?.as_object()?, rest)
    })
}

/// A text or a list of texts; nothing is an empty one.
fn texts(claim: Option<&Value>) -> Option<Vec<&str>> {
    match claim {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::String(text)) => Some(vec![text]),
        Some(Value::Array(list)) => list.iter().map(Value::as_str).collect(),
        Some(_) => None,
    }
}

fn acts_for(claim: Option<&Value>, config: &JwtConfig) -> Option<ActsFor> {
    let tenants = texts(claim)?;
    if tenants.contains(&ALL_TENANTS) {
        return config.all_tenants.then_some(ActsFor::All);
    }
    let tenants: Result<_, _> = tenants.into_iter().map(str::parse).collect();
    tenants.ok().map(ActsFor::Only)
}
