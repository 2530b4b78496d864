use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue};
use tempfile::TempDir;

use super::*;
use crate::config::LanesConfig;
use crate::error::Error;
use crate::tenant::{ActsFor, GLOBAL_WRITER};

const ALICE: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a";
const BOB: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b";

static NOW_MS: AtomicI64 = AtomicI64::new(1_700_000_000_000);

fn now_ms() -> i64 {
    NOW_MS.load(Ordering::SeqCst)
}

fn tenant(text: &str) -> TenantId {
    text.parse().unwrap()
}

async fn open(dir: &TempDir) -> Backend {
    let lanes = LanesConfig::default();
    Backend::open(dir.path(), &lanes).await.unwrap()
}

async fn backend() -> (Backend, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let backend = open(&dir).await;
    (backend, dir)
}

fn new_key(user: &str, tenants: &[&str]) -> NewApiKey {
    NewApiKey {
        user: user.into(),
        acts_for: ActsFor::only(tenants.iter().map(|text| tenant(text))),
        roles: BTreeSet::new(),
        expires_at_ms: None,
    }
}

async fn shown(
    extension: &dyn TenantExtension,
    authorization: &[&str],
) -> Result<Principal, AuthenticationError> {
    let mut headers = HeaderMap::new();
    for value in authorization {
        headers.append("authorization", HeaderValue::from_str(value).unwrap());
    }
    extension
        .authenticate(&Credentials::new(&headers, None))
        .await
}

fn bearer(text: &str) -> String {
    format!("Bearer {text}")
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

#[tokio::test]
async fn a_key_is_its_holders_and_acts_for_its_tenants() {
    let (backend, _dir) = backend().await;
    let keys = ApiKeys::new(backend, now_ms);
    let alices = keys.create(new_key("alice", &[ALICE])).await.unwrap();
    let mut writer = new_key("writer", &[]);
    writer.roles.insert(GLOBAL_WRITER.into());
    let writers = keys.create(writer).await.unwrap();

    let principal = shown(&keys, &[&bearer(&alices.text)]).await.unwrap();
    assert_eq!(principal.name(), "api-key:alice");
    assert!(principal.acts_for(tenant(ALICE)) && !principal.acts_for(tenant(BOB)));
    assert_eq!(principal.only_tenant(), Some(tenant(ALICE)));
    assert!(!principal.has_role(GLOBAL_WRITER));
    let writer = shown(&keys, &[&bearer(&writers.text)]).await.unwrap();
    assert!(writer.has_role(GLOBAL_WRITER) && !writer.acts_for(tenant(ALICE)));

    // By the scheme of users and passwords too, for clients that have no other.
    let as_password = basic("alice", &alices.text);
    // Symptom: ADBC's user and password were refused, which it sends without padding.
    let unpadded = as_password.trim_end_matches('=');
    assert_ne!(unpadded, as_password);
    for as_password in [unpadded, &as_password] {
        let shown = shown(&keys, &[as_password]).await;
        assert_eq!(shown.as_ref(), Ok(&principal));
    }
    let as_another = basic("writer", &alices.text);
    assert_eq!(
        shown(&keys, &[&as_another]).await,
        Err(AuthenticationError::Refused)
    );

    let listed = keys.list().await.unwrap();
    assert_eq!(listed, [alices.key.clone(), writers.key.clone()]);
    let debug = format!("{alices:?} {listed:?}");
    assert!(
        !debug.contains(alices.text.split('_').next_back().unwrap()),
        "{debug}"
    );
}

#[test]
fn credentials_are_printed_without_what_they_prove() {
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_static("Bearer canary-1");
    headers.append("authorization", value);
    headers.append("x-secret", HeaderValue::from_static("canary-2"));
    let printed = format!("{:?}", Credentials::new(&headers, None));
    assert!(printed.contains("x-secret"), "{printed}");
    assert!(!printed.contains("canary"), "{printed}");
}

#[tokio::test]
async fn what_is_no_key_proves_nothing() {
    let (backend, _dir) = backend().await;
    let keys = ApiKeys::new(backend, now_ms);
    let right = keys.create(new_key("alice", &[ALICE])).await.unwrap().text;
    let other = keys.create(new_key("bob", &[BOB])).await.unwrap().text;
    let (id, secret) = right["jammi_".len()..].split_once('_').unwrap();
    let other_secret = other.rsplit('_').next().unwrap();
    let mut flipped = right.clone().into_bytes();
    let last = flipped.last_mut().unwrap();
    *last = if *last == b'0' { b'1' } else { b'0' };
    let flipped = String::from_utf8(flipped).unwrap();
    for text in [
        format!("jammi_{id}_"),
        format!("jammi_{id}_{other_secret}"),
        format!("jammi_{id}_{secret}0"),
        format!("jammi_{id}_{}", secret.to_uppercase()),
        format!("jammi_{}_{secret}", "0".repeat(12)),
        flipped,
        "jammi_".into(),
    ] {
        let refused = shown(&keys, &[&bearer(&text)]).await;
        assert_eq!(refused, Err(AuthenticationError::Refused), "{text}");
    }
    // Two credentials are none.
    let two = shown(&keys, &[&bearer(&right), &bearer(&other)]).await;
    assert_eq!(two, Err(AuthenticationError::Refused));
    let chain = InOrder::new(vec![Arc::new(keys)]);
    for (authorization, error) in [
        (vec![], AuthenticationError::Absent),
        (vec!["Bearer eyJhbGciOi"], AuthenticationError::Refused),
        (vec!["Negotiate abc"], AuthenticationError::Refused),
        (vec!["Bearer"], AuthenticationError::Refused),
        (vec!["Basic %%%"], AuthenticationError::Refused),
    ] {
        assert_eq!(
            shown(&chain, &authorization).await,
            Err(error),
            "{authorization:?}"
        );
    }
}

/// Of two processes on one directory, one revokes what the other knows.
#[tokio::test]
async fn a_key_that_is_revoked_or_over_is_refused_at_once_everywhere() {
    let (backend, dir) = backend().await;
    let elsewhere = ApiKeys::new(open(&dir).await, now_ms);
    let keys = ApiKeys::new(backend, now_ms);

    let issued = keys.create(new_key("alice", &[ALICE])).await.unwrap();
    let authorization = bearer(&issued.text);
    for at in [&keys, &elsewhere, &keys, &elsewhere] {
        assert!(shown(at, &[&authorization]).await.is_ok());
    }
    elsewhere.revoke(&issued.key.id).await.unwrap();
    for at in [&keys, &elsewhere] {
        let refused = shown(at, &[&authorization]).await;
        assert_eq!(refused, Err(AuthenticationError::Refused));
    }
    assert!(matches!(
        keys.revoke(&issued.key.id).await,
        Err(Error::NotFound(_))
    ));

    // A key in place of another acts for the same, for as long.
    let mut expiring = new_key("alice", &[ALICE]);
    expiring.expires_at_ms = Some(now_ms() + 10_000);
    let old = keys.create(expiring).await.unwrap();
    let new = elsewhere
        .rotate(&old.key.id, now_ms() + 1_000)
        .await
        .unwrap();
    for text in [&old.text, &new.text] {
        let principal = shown(&keys, &[&bearer(text)]).await.unwrap();
        assert_eq!(principal.name(), "api-key:alice");
    }
    NOW_MS.fetch_add(1_000, Ordering::SeqCst);
    assert!(shown(&keys, &[&bearer(&old.text)]).await.is_err());
    assert!(shown(&keys, &[&bearer(&new.text)]).await.is_ok());
    NOW_MS.fetch_add(9_000, Ordering::SeqCst);
    assert!(shown(&keys, &[&bearer(&new.text)]).await.is_err());
}

#[tokio::test]
async fn a_key_that_could_do_nothing_is_not_made() {
    let (backend, _dir) = backend().await;
    let keys = ApiKeys::new(backend, now_ms);
    let mut invented = new_key("alice", &[ALICE]);
    invented.roles.insert("admin".into());
    for (new, part) in [
        (new_key("", &[ALICE]), "the user of a key"),
        (new_key("a b", &[ALICE]), "the user of a key"),
        (new_key("a:b", &[ALICE]), "the user of a key"),
        (new_key("alice", &[]), "may do nothing"),
        (invented, "global-writer"),
    ] {
        let error = keys.create(new).await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(keys.list().await.unwrap(), []);
}

/// Symptom: each unknown key was read from the disk, so that a flood of them took the
/// place of who binds sessions.
#[tokio::test]
async fn keys_that_there_are_not_are_refused_from_memory() {
    let (backend, dir) = backend().await;
    let elsewhere = ApiKeys::new(open(&dir).await, now_ms);
    let keys = ApiKeys::new(backend.clone(), now_ms);
    let issued = keys.create(new_key("alice", &[ALICE])).await.unwrap();
    let right = bearer(&issued.text);
    let unknown = bearer(&issued.text.replace(&issued.key.id, "0123456789ab"));
    assert!(shown(&keys, &[&right]).await.is_ok());
    assert!(shown(&keys, &[&unknown]).await.is_err());
    // Nobody can read while all places to do so are taken.
    let places = LanesConfig::default().reads_max;
    let (enter, mut entered) = tokio::sync::mpsc::channel(places);
    let (leave, left) = std::sync::mpsc::channel::<()>();
    let left = std::sync::Arc::new(parking_lot::Mutex::new(left));
    let mut readers = Vec::new();
    for _ in 0..places {
        let (backend, enter, left) = (backend.clone(), enter.clone(), left.clone());
        readers.push(tokio::spawn(async move {
            let read = backend.system_read(move |_| {
                enter.blocking_send(()).unwrap();
                let _ = left.lock().recv();
                Ok(())
            });
            read.await.unwrap();
        }));
        entered.recv().await.unwrap();
    }
    for _ in 0..100 {
        assert!(shown(&keys, &[&unknown]).await.is_err());
        assert!(shown(&keys, &[&right]).await.is_ok());
    }
    drop(leave);
    for reader in readers {
        reader.await.unwrap();
    }
    // What another process makes is known at once.
    let next = elsewhere.create(new_key("alice", &[ALICE])).await.unwrap();
    assert!(shown(&keys, &[&bearer(&next.text)]).await.is_ok());
}
