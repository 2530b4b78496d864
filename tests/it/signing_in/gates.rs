//! Servers that authenticate, one for each method, and those who come to them.

use jammi_db::config::{AuthenticationMethod, JammiConfig};
use serde_json::json;

use super::people::{Certificates, Keys, People, Tokens, id_of, password_of};
use super::{Change, Gate, Withdrawn, bound_to_bob, holder, nothing, sent, shake, shown};
use crate::authentication::{ANY_NUMBER, basic, bearer};
use crate::client::{ALICE, BOB};
use crate::harness::TestServer;

impl Gate {
    /// One for each method, and one for all of them in order.
    pub(super) async fn all(change: Change) -> Vec<Gate> {
        vec![
            Gate::api_key(change).await,
            Gate::jwt(change).await,
            Gate::mtls(change).await,
            Gate::password(change, By::Basic).await,
            Gate::password(change, By::Token).await,
            Gate::in_order(change).await,
        ]
    }

    async fn api_key(change: Change) -> Gate {
        let server = TestServer::start_with(|config| {
            of_methods(config, &[AuthenticationMethod::ApiKey], change);
        })
        .await;
        let channel = server.channel().await;
        let keys = Keys::of(&server).await;
        let sent = |what, text: &str| sent(what, &channel, &bearer(text));
        let (alices, bobs) = (
            keys.key("alice", &[ALICE]).await,
            keys.key("bob", &[BOB]).await,
        );
        let bad = alices.replace(&id_of(&alices), "0123456789ab");
        let (revoked, expired) = (keys.revoked("alice").await, keys.expired("alice").await);
        let wide = sent("wide key", &keys.key("carol", &[ALICE, BOB]).await);
        let (session, ticket) = bound_to_bob(&wide).await;
        Gate {
            name: "api_key",
            holders: vec![
                holder(sent("alice's key", &alices), ALICE),
                holder(
                    super::sent("bob's key as his password", &channel, &basic("bob", &bobs)),
                    BOB,
                ),
            ],
            absent: nothing(&channel),
            bad: vec![
                sent("an unknown key", &bad),
                sent("no key at all", "jammi_"),
                super::sent("another's password", &channel, &basic("bob", &alices)),
            ],
            over: vec![
                sent("a revoked key", &revoked),
                sent("an expired key", &expired),
            ],
            withdrawn: Withdrawn {
                sent: sent("narrow key", &keys.key("carol", &[ALICE]).await),
                session,
                ticket,
            },
            server,
            _files: Vec::new(),
            _tls: None,
        }
    }

    async fn jwt(change: Change) -> Gate {
        let tokens = Tokens::new();
        let server = TestServer::start_with(|config| {
            tokens.configure(config);
            of_methods(config, &[AuthenticationMethod::Jwt], change);
        })
        .await;
        let channel = server.channel().await;
        let sent = |what, text: &str| sent(what, &channel, &bearer(text));
        let wide = sent("wide token", &tokens.token("carol", json!([ALICE, BOB])));
        let (session, ticket) = bound_to_bob(&wide).await;
        let bobs = basic("bob", &tokens.token("bob", json!([BOB])));
        Gate {
            name: "jwt",
            holders: vec![
                holder(
                    sent("alice's token", &tokens.token("alice", json!(ALICE))),
                    ALICE,
                ),
                holder(
                    super::sent("bob's token as his password", &channel, &bobs),
                    BOB,
                ),
            ],
            absent: nothing(&channel),
            bad: vec![
                sent("a stranger's token", &tokens.strangers()),
                sent("no token at all", "eyJ.eyJ.x"),
            ],
            over: vec![sent("an expired token", &tokens.expired())],
            withdrawn: Withdrawn {
                sent: sent("narrow token", &tokens.token("carol", json!([ALICE]))),
                session,
                ticket,
            },
            server,
            _files: vec![tokens.dir],
            _tls: None,
        }
    }

    async fn mtls(change: Change) -> Gate {
        let certificates = Certificates::new();
        let server = TestServer::start_with(|config| {
            certificates.configure(config);
            of_methods(config, &[AuthenticationMethod::Mtls], change);
        })
        .await;
        let sent = async |what, name: &str, serial| {
            let issued = certificates.issue(name, serial);
            shown(what, certificates.channel(&server, Some(&issued)).await)
        };
        let wide = sent("wide certificate", "carol-wide", 1).await;
        let (session, ticket) = bound_to_bob(&wide).await;
        let revoked = sent("a revoked certificate", "alice", 66).await;
        let gate = Gate {
            name: "mtls",
            holders: vec![
                holder(sent("alice's certificate", "alice", 2).await, ALICE),
                holder(sent("bob's certificate", "bob", 3).await, BOB),
            ],
            absent: shown("nothing", certificates.channel(&server, None).await),
            bad: vec![
                sent("nobody's certificate", "mallory", 4).await,
                sent("a name in other letters", "Alice", 5).await,
            ],
            over: vec![revoked],
            withdrawn: Withdrawn {
                sent: sent("narrow certificate", "carol-narrow", 6).await,
                session,
                ticket,
            },
            server,
            _files: Vec::new(),
            _tls: None,
        };
        certificates.revoke(&gate.over[0], 66).await;
        Gate {
            _tls: Some(certificates.files),
            ..gate
        }
    }

    async fn password(change: Change, by: By) -> Gate {
        let server = TestServer::start_with(|config| {
            of_methods(config, &[AuthenticationMethod::Password], change);
        })
        .await;
        let channel = server.channel().await;
        let users = People::of(&server).await;
        let sign_in = async |what, user: &str| {
            let by_password = sent(what, &channel, &basic(user, &password_of(user)));
            match by {
                By::Basic => by_password,
                By::Token => sent(what, &channel, &shake(&by_password).await.unwrap()),
            }
        };
        for (user, tenants) in [
            ("alice", &[ALICE][..]),
            ("bob", &[BOB]),
            ("dave", &[ALICE]),
            ("carol", &[ALICE, BOB]),
        ] {
            users.create(user, tenants).await;
        }
        let (session, ticket) = bound_to_bob(&sign_in("wide", "carol").await).await;
        users.drop_user("carol").await;
        users.create("carol", &[ALICE]).await;
        let over = sign_in("another password since", "dave").await;
        users.another_password("dave").await;
        let alice = sign_in("alice", "alice").await;
        let bad = match by {
            By::Basic => vec![
                sent(
                    "a wrong password",
                    &channel,
                    &basic("alice", &password_of("bob")),
                ),
                sent("no user", &channel, &basic("mallory", &password_of("bob"))),
            ],
            By::Token => {
                let given = alice.authorization.as_ref().unwrap();
                vec![sent("an edited token", &channel, &format!("{given}A"))]
            }
        };
        Gate {
            name: match by {
                By::Basic => "password by Basic",
                By::Token => "password by token",
            },
            holders: vec![
                holder(alice, ALICE),
                holder(sign_in("bob", "bob").await, BOB),
            ],
            absent: nothing(&channel),
            bad,
            over: vec![over],
            withdrawn: Withdrawn {
                sent: sign_in("narrow", "carol").await,
                session,
                ticket,
            },
            server,
            _files: Vec::new(),
            _tls: None,
        }
    }

    /// All methods at one server, where everybody is called alice.
    async fn in_order(change: Change) -> Gate {
        let (tokens, certificates) = (Tokens::new(), Certificates::new());
        let server = TestServer::start_with(|config| {
            tokens.configure(config);
            certificates.configure(config);
            let methods = [
                AuthenticationMethod::Mtls,
                AuthenticationMethod::Jwt,
                AuthenticationMethod::ApiKey,
                AuthenticationMethod::Password,
            ];
            of_methods(config, &methods, change);
        })
        .await;
        let channel = certificates.channel(&server, None).await;
        let sent = |what, authorization: &str| sent(what, &channel, authorization);
        let (keys, users) = (Keys::of(&server).await, People::of(&server).await);
        users.create("alice", &[BOB]).await;
        let issued = certificates.issue("alice", 1);
        let by_certificate = certificates.channel(&server, Some(&issued)).await;
        let lost = certificates
            .channel(&server, Some(&certificates.issue("alice", 66)))
            .await;
        let key = keys.key("alice", &[ALICE]).await;
        let wide = sent("wide key", &bearer(&keys.key("carol", &[ALICE, BOB]).await));
        let (session, ticket) = bound_to_bob(&wide).await;
        let password = sent("alice's password", &basic("alice", &password_of("alice")));
        let token = shake(&password).await.unwrap();
        let gate = Gate {
            name: "in order",
            holders: vec![
                holder(shown("alice's certificate", by_certificate), ALICE),
                holder(
                    sent("alice's token", &bearer(&tokens.token("alice", json!(BOB)))),
                    BOB,
                ),
                holder(sent("alice's key", &bearer(&key)), ALICE),
                holder(password, BOB),
            ],
            absent: nothing(&channel),
            bad: vec![
                sent("a stranger's token", &bearer(&tokens.strangers())),
                sent("no key", &bearer("jammi_0")),
                sent("a wrong password", &basic("alice", &password_of("bob"))),
                sent("an edited token", &format!("{token}A")),
                sent("of no kind", &bearer("none")),
                sent("of no scheme", "Negotiate abc"),
            ],
            over: vec![
                shown("a revoked certificate", lost),
                sent("an expired token", &bearer(&tokens.expired())),
                sent("a revoked key", &bearer(&keys.revoked("alice").await)),
            ],
            withdrawn: Withdrawn {
                sent: sent("narrow key", &bearer(&keys.key("carol", &[ALICE]).await)),
                session,
                ticket,
            },
            server,
            _files: vec![tokens.dir],
            _tls: None,
        };
        certificates.revoke(&gate.over[0], 66).await;
        Gate {
            _tls: Some(certificates.files),
            ..gate
        }
    }
}

/// How a user signs in.
#[derive(Clone, Copy)]
enum By {
    Basic,
    Token,
}

fn of_methods(config: &mut JammiConfig, methods: &[AuthenticationMethod], change: Change) {
    config.auth.methods = methods.to_vec();
    config.auth.failures_max = ANY_NUMBER;
    config.auth.password.failures_max = ANY_NUMBER;
    change(config);
}
