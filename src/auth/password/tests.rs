//! Signing in by password, without a wire.

use std::sync::atomic::{AtomicI64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::*;
use crate::config::LanesConfig;
use crate::tenant::ActsFor;

const ALICE: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a";

static NOW_MS: AtomicI64 = AtomicI64::new(1_700_000_000_000);

fn now_ms() -> i64 {
    NOW_MS.load(Ordering::SeqCst)
}

async fn shown(at: &Passwords, authorization: &str) -> Result<Principal, AuthenticationError> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, authorization.parse().unwrap());
    let credentials = Credentials::new(&headers, Some(([192, 0, 2, 1], 1).into()));
    at.authenticate(&credentials).await
}

async fn token(at: &Passwords, authorization: &str) -> String {
    let principal = shown(at, authorization).await.unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, authorization.parse().unwrap());
    let credentials = Credentials::new(&headers, None);
    let token = at.token(&credentials, &principal).await.unwrap();
    format!("Bearer {}", token.unwrap())
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn new_user(name: &str) -> NewUser {
    NewUser {
        name: name.into(),
        acts_for: ActsFor::only([ALICE.parse().unwrap()]),
        roles: Default::default(),
    }
}

#[tokio::test]
async fn a_password_and_its_token_end_with_it_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let lanes = LanesConfig::default();
    let backend = Backend::open(dir.path(), &lanes).await.unwrap();
    let elsewhere = Users::new(Backend::open(dir.path(), &lanes).await.unwrap(), now_ms);
    let config = PasswordConfig {
        failures_max: 3,
        token_secs: 10,
    };
    let passwords = Passwords::new(backend, &config, now_ms);
    for name in ["alice", "bob"] {
        let password = format!("the password of {name}");
        elsewhere.create(new_user(name), &password).await.unwrap();
    }
    let right = basic("alice", "the password of alice");
    for _ in 0..20 {
        let principal = shown(&passwords, &right).await.unwrap();
        assert_eq!(principal.name(), "password:alice");
    }
    let given = token(&passwords, &right).await;
    assert!(shown(&passwords, &given).await.is_ok());
    NOW_MS.fetch_add(10_000, Ordering::SeqCst);
    assert_eq!(
        shown(&passwords, &given).await,
        Err(AuthenticationError::Refused)
    );

    // Of another password neither, at once.
    let given = token(&passwords, &right).await;
    elsewhere
        .set_password("alice", "another one")
        .await
        .unwrap();
    assert_eq!(
        shown(&passwords, &given).await,
        Err(AuthenticationError::Refused)
    );
    assert_eq!(
        shown(&passwords, &right).await,
        Err(AuthenticationError::Refused)
    );
    let right = basic("alice", "another one");
    let given = token(&passwords, &right).await;

    // Whoever tries is slowed down, and whoever has signed in is not.
    let wrong = [
        basic("alice", "a wrong one"),
        basic("nobody", "a wrong one"),
    ];
    for wrong in &wrong {
        let mut answers = Vec::new();
        for _ in 0..5 {
            answers.push(shown(&passwords, wrong).await.unwrap_err());
        }
        assert_eq!(answers[0], AuthenticationError::Refused);
        assert_eq!(answers[4], AuthenticationError::Throttled);
    }
    for authorization in [&right, &given, &basic("bob", "the password of bob")] {
        assert!(shown(&passwords, authorization).await.is_ok());
    }
    elsewhere.drop_user("alice").await.unwrap();
    assert!(shown(&passwords, &right).await.is_err());
    assert!(shown(&passwords, &given).await.is_err());

    // What is of another kind is not tried.
    for other in [
        basic("bob", "short"),
        basic("bob", "jammi_0123456789ab_"),
        basic("bob", "eyJ.eyJ.x"),
        "Bearer jammi_x".to_owned(),
    ] {
        let answer = shown(&passwords, &other).await;
        assert_eq!(answer, Err(AuthenticationError::Absent), "{other}");
    }
}

#[tokio::test]
async fn users_that_are_none_are_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::open(dir.path(), &LanesConfig::default())
        .await
        .unwrap();
    let users = Users::new(backend, now_ms);
    let idle = NewUser {
        acts_for: ActsFor::only([]),
        ..new_user("idle")
    };
    for (user, password, part) in [
        (new_user("a:b"), "long enough", "the name of a user"),
        (new_user("alice"), "short", "8 to 1024"),
        (new_user("alice"), "jammi_0123456789ab_x", "no key"),
        (idle, "long enough", "may do nothing"),
    ] {
        let error = users.create(user, password).await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    users
        .create(new_user("alice"), "long enough")
        .await
        .unwrap();
    let again = users.create(new_user("alice"), "long enough").await;
    assert!(matches!(again, Err(Error::AlreadyExists(_))));
    for missing in [
        users.drop_user("bob").await,
        users.set_password("bob", "long enough").await,
    ] {
        assert!(matches!(missing, Err(Error::NotFound(_))));
    }
    let listed = users.list().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].name, "alice");
}
