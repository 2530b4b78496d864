//! Mutual TLS: who holds the certificate that a connection began with, by a file that
//! maps names in certificates to users.
//!
//! ```toml
//! [[clients]]
//! certificate = "uri:spiffe://example.com/nightly"
//! user = "nightly-export"
//! tenants = ["018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a"]
//!
//! [[clients]]
//! certificate = "cn:workbench"
//! user = "workbench"
//! all_tenants = true
//! roles = ["global-writer"]
//! ```
//!
//! Invariant: a certificate whose names are of two clients is nobody's.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;

use super::{AuthenticationError, Credentials, PeerCertificate, TenantExtension};
use crate::backend::Backend;
use crate::config::MtlsConfig;
use crate::config::watched::{Reload, SettingFile, Watched};
use crate::error::{Error, Result};
use crate::tenant::{ActsFor, Principal, ROLES, TenantId};

/// What clients with certificates are users of.
const REALM: &str = "mtls";

/// Principals by the certificates of clients.
#[derive(Clone)]
pub struct ClientCertificates {
    backend: Backend,
    clients: Arc<Watched<Clients>>,
}

/// Clients by the name in their certificate.
type Clients = HashMap<Name, Principal>;

/// A name in a certificate, and where it stands there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Name {
    /// The common name of the subject, as it is written.
    Common(String),
    /// An alternative name of DNS, in lower case.
    Dns(String),
    /// An alternative name that is a URI, as it is written.
    Uri(String),
}

impl ClientCertificates {
    /// By the file that `config` names.
    ///
    /// # Errors
    /// `InvalidArgument` that names the file and what is wrong with it.
    pub fn open(backend: Backend, config: &MtlsConfig) -> Result<Self> {
        let path = config.clients_file.clone().ok_or_else(|| {
            Error::InvalidArgument("auth.methods names mtls: set auth.mtls.clients_file".into())
        })?;
        let file = SettingFile {
            setting: "auth.mtls.clients_file",
            path,
        };
        let named = file.clone();
        let clients = Watched::open(vec![file], move |contents| {
            let content = contents.first().map_or(&[][..], Vec::as_slice);
            clients(content).map_err(|(why, mend)| named.wrong(&why, mend))
        })?;
        Ok(ClientCertificates { backend, clients })
    }

    /// What reads the file again.
    pub fn reload(&self) -> Arc<dyn Reload> {
        Arc::clone(&self.clients) as Arc<dyn Reload>
    }
}

#[async_trait]
impl TenantExtension for ClientCertificates {
    async fn authenticate(
        &self,
        credentials: &Credentials<'_>,
    ) -> Result<Principal, AuthenticationError> {
        let certificate = credentials.peer_certificate();
        let certificate = certificate.ok_or(AuthenticationError::Absent)?;
        let clients = self.clients.current();
        let mut found = names(certificate).filter_map(|name| clients.get(&name));
        let first = found.next().ok_or(AuthenticationError::Refused)?;
        match found.all(|other| other == first) {
            true => Ok(first.clone()),
            false => Err(AuthenticationError::Refused),
        }
    }

    async fn list_tenants(&self) -> Result<Vec<TenantId>> {
        Ok(self.backend.tenants().await?)
    }
}

fn names(certificate: &PeerCertificate) -> impl Iterator<Item = Name> {
    let common = certificate.common_name().map(str::to_owned);
    let dns = certificate.dns_names().iter();
    let uris = certificate.uri_names().iter().cloned();
    common
        .map(Name::Common)
        .into_iter()
        .chain(dns.map(|name| Name::Dns(name.to_ascii_lowercase())))
        .chain(uris.map(Name::Uri))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    clients: Vec<Client>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Client {
    certificate: String,
    user: String,
    #[serde(default)]
    tenants: Vec<String>,
    #[serde(default)]
    all_tenants: bool,
    #[serde(default)]
    roles: Vec<String>,
}

/// What is wrong with a file, and how it is mended.
type Wrong = (String, &'static str);

fn clients(content: &[u8]) -> Result<Clients, Wrong> {
    let text = std::str::from_utf8(content);
    let text = text.map_err(|error| (format!("is not UTF-8 ({error})"), "write TOML"))?;
    let file: File = toml::from_str(text).map_err(|error| {
        let why = format!("is not a list of clients ({})", error.message());
        let mend = "write tables [[clients]] with certificate, user, and tenants or all_tenants";
        (why, mend)
    })?;
    let mut clients = Clients::new();
    for client in file.clients {
        let (name, principal) = client.parse()?;
        if clients.insert(name.clone(), principal).is_some() {
            return Err((format!("names {name:?} twice"), "name each once"));
        }
    }
    Ok(clients)
}

impl Client {
    fn parse(self) -> Result<(Name, Principal), Wrong> {
        let name = match self.certificate.split_once(':') {
            Some(("cn", name)) if !name.is_empty() => Name::Common(name.to_owned()),
            Some(("dns", name)) if !name.is_empty() => Name::Dns(name.to_ascii_lowercase()),
            Some(("uri", name)) if !name.is_empty() => Name::Uri(name.to_owned()),
            _ => {
                let why = format!("has the certificate {:?}", self.certificate);
                return Err((why, "write cn:NAME, dns:NAME or uri:NAME"));
            }
        };
        let of = |why: &str| format!("has, of {}, {why}", self.certificate);
        if self.user.is_empty() || self.user.chars().any(char::is_control) {
            return Err((of("no user"), "name one"));
        }
        let tenants: Result<Vec<TenantId>, _> =
            self.tenants.iter().map(|tenant| tenant.parse()).collect();
        let tenants = tenants.map_err(|error: Error| (of(&error.to_string()), "write a UUID"))?;
        if let Some(role) = self
            .roles
            .iter()
            .find(|role| !ROLES.contains(&role.as_str()))
        {
            let mend = "choose of the roles in the documentation of authentication";
            return Err((of(&format!("the role {role:?}")), mend));
        }
        let acts_for = match (self.all_tenants, tenants.is_empty()) {
            (true, true) => ActsFor::All,
            (true, false) => {
                return Err((of("tenants and all_tenants"), "write one of them"));
            }
            (false, true) if self.roles.is_empty() => {
                let mend = "name a tenant or a role";
                return Err((of("neither tenants nor roles"), mend));
            }
            (false, _) => ActsFor::only(tenants),
        };
        let principal = Principal::new(REALM, &self.user, acts_for).with_roles(self.roles);
        Ok((name, principal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a";

    #[test]
    fn a_file_says_who_is_who() {
        let right = format!(
            "[[clients]]\ncertificate = \"uri:spiffe://a/b\"\nuser = \"u\"\ntenants = [\"{ALICE}\"]\n\
             [[clients]]\ncertificate = \"dns:A.example\"\nuser = \"all\"\nall_tenants = true\n"
        );
        let found = clients(right.as_bytes()).unwrap();
        let one = &found[&Name::Uri("spiffe://a/b".into())];
        assert_eq!(
            (one.name(), one.only_tenant()),
            ("mtls:u", ALICE.parse().ok())
        );
        assert!(found.contains_key(&Name::Dns("a.example".into())));
        for (text, words) in [
            ("clients = 1", "not a list"),
            ("[[clients]]\ncertificate = \"cn:a\"", "user"),
            (
                "[[clients]]\ncertificate = \"a\"\nuser = \"u\"\nall_tenants = true",
                "certificate",
            ),
            (
                "[[clients]]\ncertificate = \"cn:a\"\nuser = \"u\"",
                "neither tenants",
            ),
            (
                "[[clients]]\ncertificate = \"cn:a\"\nuser = \"u\"\ntenants = [\"*\"]",
                "cn:a",
            ),
            (
                "[[clients]]\ncertificate = \"cn:a\"\nuser = \"u\"\nroles = [\"root\"]",
                "root",
            ),
            (
                "[[clients]]\ncertificate = \"cn:a\"\nuser = \"u\"\nall_tenants = true\nx = 1",
                "`x`",
            ),
            (&format!("{right}{right}"), "twice"),
        ] {
            let (why, _) = clients(text.as_bytes()).unwrap_err();
            assert!(why.contains(words), "{text}: {why}");
        }
    }
}
