//! Whoever makes keys, users, tokens and certificates.

use std::path::PathBuf;

use jammi_db::auth::{ApiKeys, JwtAlgorithm, NewApiKey, NewUser, Users};
use jammi_db::backend::Backend;
use jammi_db::config::{JammiConfig, LanesConfig, TlsConfig};
use jammi_db::tenant::ActsFor;
use rcgen::DnType;
use serde_json::{Value, json};
use tonic::Code;
use tonic::transport::Channel;

use super::{Sent, now_ms};
use crate::client::{ALICE, BOB};
use crate::harness::TestServer;
use crate::jwt::{self, Issuer};
use crate::tls::{Authority, Files, Issued, connect, eventually};

/// Whoever makes keys, beside the server.
pub(super) struct Keys(pub(super) ApiKeys);

impl Keys {
    pub(super) async fn of(server: &TestServer) -> Self {
        let backend = Backend::open(server.dir(), &LanesConfig::default()).await;
        Keys(ApiKeys::new(backend.unwrap(), now_ms))
    }

    pub(super) async fn key(&self, user: &str, tenants: &[&str]) -> String {
        let new = NewApiKey {
            user: user.into(),
            acts_for: ActsFor::only(tenants.iter().map(|tenant| tenant.parse().unwrap())),
            roles: Default::default(),
            expires_at_ms: None,
        };
        self.0.create(new).await.unwrap().text
    }

    pub(super) async fn revoked(&self, user: &str) -> String {
        let key = self.key(user, &[ALICE]).await;
        self.0.revoke(&id_of(&key)).await.unwrap();
        key
    }

    pub(super) async fn expired(&self, user: &str) -> String {
        let key = self.key(user, &[ALICE]).await;
        self.0.rotate(&id_of(&key), now_ms() - 1).await.unwrap();
        key
    }
}

pub(super) fn id_of(key: &str) -> String {
    key.split('_').nth(1).unwrap().to_owned()
}

/// Whoever makes users, beside the server.
pub(super) struct People(Users);

pub(super) fn password_of(user: &str) -> String {
    format!("the password of {user}")
}

impl People {
    pub(super) async fn of(server: &TestServer) -> Self {
        let backend = Backend::open(server.dir(), &LanesConfig::default()).await;
        People(Users::new(backend.unwrap(), now_ms))
    }

    pub(super) async fn create(&self, user: &str, tenants: &[&str]) {
        let new = NewUser {
            name: user.into(),
            acts_for: ActsFor::only(tenants.iter().map(|tenant| tenant.parse().unwrap())),
            roles: Default::default(),
        };
        self.0.create(new, &password_of(user)).await.unwrap();
    }

    pub(super) async fn drop_user(&self, user: &str) {
        self.0.drop_user(user).await.unwrap();
    }

    pub(super) async fn another_password(&self, user: &str) {
        let another = "another password";
        self.0.set_password(user, another).await.unwrap();
    }
}

/// An issuer of tokens, and the file of its keys.
pub(super) struct Tokens {
    issuer: Issuer,
    pub(super) dir: tempfile::TempDir,
    file: PathBuf,
}

impl Tokens {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (issuer, file) = (Issuer::ed25519("one"), dir.path().join("keys.json"));
        std::fs::write(&file, jwt::set(&[&issuer])).unwrap();
        Tokens { issuer, dir, file }
    }

    pub(super) fn configure(&self, config: &mut JammiConfig) {
        jwt::by_tokens(config, &[JwtAlgorithm::EdDSA]);
        config.auth.jwt.keys_file = Some(self.file.clone());
    }

    pub(super) fn token(&self, user: &str, tenants: Value) -> String {
        self.issuer.token(user, tenants)
    }

    pub(super) fn strangers(&self) -> String {
        Issuer::ed25519("one").token("alice", json!(ALICE))
    }

    pub(super) fn expired(&self) -> String {
        let mut claims = jwt::claims("alice", json!(ALICE));
        claims["exp"] = json!(jwt::now_secs() - 31);
        self.issuer.sign(&self.issuer.header(), &claims)
    }
}

/// An authority of certificates, and the files that the server has of it.
pub(super) struct Certificates {
    pub(super) authority: Authority,
    pub(super) files: Files,
}

impl Certificates {
    pub(super) fn new() -> Self {
        let authority = Authority::new("authority");
        let files = Files::of(&authority.issue(|_| {}));
        files.put("ca.pem", &authority.pem());
        files.put("revoked.pem", &authority.revoked(&[]));
        let clients = [
            ("alice", "alice", vec![ALICE]),
            ("bob", "bob", vec![BOB]),
            ("carol-wide", "carol", vec![ALICE, BOB]),
            ("carol-narrow", "carol", vec![ALICE]),
        ];
        let clients = clients.map(|(name, user, tenants)| {
            format!("[[clients]]\ncertificate = \"cn:{name}\"\nuser = \"{user}\"\ntenants = {tenants:?}\n")
        });
        files.put("clients.toml", &clients.concat());
        Certificates { authority, files }
    }

    pub(super) fn configure(&self, config: &mut JammiConfig) {
        config.tls = TlsConfig {
            client_ca_file: Some(self.files.path("ca.pem")),
            client_crl_file: Some(self.files.path("revoked.pem")),
            ..self.files.tls()
        };
        config.auth.mtls.clients_file = Some(self.files.path("clients.toml"));
    }

    pub(super) fn issue(&self, common_name: &str, serial: u64) -> Issued {
        self.authority.issue(|params| {
            params
                .distinguished_name
                .push(DnType::CommonName, common_name);
            params.serial_number = Some(serial.into());
        })
    }

    pub(super) async fn channel(&self, server: &TestServer, issued: Option<&Issued>) -> Channel {
        let tls = self.authority.trusted();
        let tls = match issued {
            Some(issued) => tls.identity(issued.identity()),
            None => tls,
        };
        connect(server, tls).await.unwrap()
    }

    /// Has the authority revoke a certificate by which somebody is connected, and
    /// waits until that is known.
    pub(super) async fn revoke(&self, sent: &Sent, serial: u64) {
        let mut client = sent.client(None);
        client.query("SELECT 1").await.unwrap();
        let revoked = self.authority.revoked(&[serial]);
        self.files.put("revoked.pem", &revoked);
        let error = eventually(async || client.query("SELECT 1").await.err()).await;
        assert_eq!(error.code(), Code::Unauthenticated, "{error:?}");
    }
}
