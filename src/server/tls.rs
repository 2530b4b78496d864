//! Encrypted connections: certificates from files, read again when they change.
//!
//! Invariant: a connection is served once its handshake is done, and the certificate
//! that it tells of was verified against the roots of that handshake.
//!
//! Deliberately absent: TLS before 1.2, and the same session resumed over different
//! files: each set of files has its own.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::auth::PeerCertificate;
use crate::config::TlsConfig;
use crate::config::watched::{Reload, SettingFile, Watched};
use crate::error::{Error, Result};

/// What is offered to clients that ask which protocol is spoken: gRPC, and what
/// browsers and probes speak.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Shakes hands. Clones share the certificates.
#[derive(Clone)]
pub(super) struct Tls {
    current: Arc<Watched<Current>>,
}

/// What a set of files makes.
struct Current {
    server: Arc<ServerConfig>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

impl Tls {
    /// With the files that `config` names, or none where connections are not
    /// encrypted.
    ///
    /// # Errors
    /// `InvalidArgument` that names the file, what is wrong with it, and its setting.
    pub fn open(config: &TlsConfig) -> Result<Option<Tls>> {
        let file = |setting, path: &Option<std::path::PathBuf>| {
            path.clone().map(|path| SettingFile { setting, path })
        };
        let (Some(certificate), Some(key)) = (
            file("tls.certificate_file", &config.certificate_file),
            file("tls.private_key_file", &config.private_key_file),
        ) else {
            return Ok(None);
        };
        let clients = file("tls.client_ca_file", &config.client_ca_file);
        let revoked = file("tls.client_crl_file", &config.client_crl_file);
        let files = Files {
            certificate,
            key,
            clients,
            revoked,
        };
        let watched = files.all();
        let current = Watched::open(watched, move |contents| files.configuration(contents))?;
        Ok(Some(Tls { current }))
    }

    /// What reads the files again.
    pub fn reload(&self) -> Arc<dyn Reload> {
        Arc::clone(&self.current) as Arc<dyn Reload>
    }

    /// Shakes hands with the client of `stream`.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.current.current().server);
        TlsAcceptor::from(config).accept(stream).await
    }

    /// Whether a certificate that was verified when its connection began still is one
    /// of a client: the roots, what is revoked and the time may be others by now.
    pub fn accepts(&self, certificate: &PeerCertificate) -> bool {
        let current = self.current.current();
        let now = UnixTime::now();
        let Some(verifier) = &current.clients else {
            return false;
        };
        certificate.is_verified_by(verifier, now)
    }
}

/// The files of a configuration.
struct Files {
    certificate: SettingFile,
    key: SettingFile,
    clients: Option<SettingFile>,
    revoked: Option<SettingFile>,
}

impl Files {
    fn all(&self) -> Vec<SettingFile> {
        let always = [&self.certificate, &self.key].into_iter();
        let optional = self.clients.iter().chain(&self.revoked);
        always.chain(optional).cloned().collect()
    }

    /// Of the contents of [`Files::all`].
    fn configuration(&self, contents: &[Vec<u8>]) -> Result<Current> {
        let mut contents = contents.iter();
        let mut next = || contents.next().map_or(&[][..], Vec::as_slice);
        let (certificate, key) = (next(), next());
        let chain = certificates(&self.certificate, certificate)?;
        self.is_valid_now(&chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
            self.key.wrong(
                "holds no private key in PEM",
                "name a file with a section PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY, not \
                 protected by a password",
            )
        })?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal("TLS cannot be configured", error))?;
        let verifier = match &self.clients {
            None => None,
            Some(clients) => {
                let roots = certificates(clients, next())?;
                Some(self.verifier(clients, roots, next(), provider)?)
            }
        };
        let builder = match &verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            let certificate = self.certificate.path.display();
            self.key.wrong(
                &format!("does not fit the certificate in {certificate} ({error})"),
                "name the key that the first certificate of tls.certificate_file was made for",
            )
        })?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        Ok(Current {
            server: Arc::new(config),
            clients: verifier,
        })
    }

    /// Refuses a certificate that every client would refuse.
    fn is_valid_now(&self, chain: &[CertificateDer<'_>]) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or(Duration::ZERO);
        for certificate in chain {
            let parsed = Certificate::from_der(certificate).map_err(|error| {
                let why = format!("holds a certificate that is none ({error})");
                self.certificate.wrong(&why, "name another file")
            })?;
            let validity = parsed.tbs_certificate.validity;
            let (from, until) = (validity.not_before, validity.not_after);
            if now < from.to_unix_duration() {
                let why = format!("holds a certificate that is not valid before {from}");
                return Err(self
                    .certificate
                    .wrong(&why, "set the clock, or name another"));
            }
            if now > until.to_unix_duration() {
                let why = format!("holds a certificate that expired on {until}");
                return Err(self.certificate.wrong(&why, "renew it, or name another"));
            }
        }
        Ok(())
    }

    /// Clients may come without a certificate: whether a request needs one is said
    /// where it is authenticated.
    fn verifier(
        &self,
        clients: &SettingFile,
        roots: Vec<CertificateDer<'static>>,
        revoked: &[u8],
        provider: Arc<rustls::crypto::CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>> {
        let unusable = |error: &dyn std::fmt::Display| {
            let why = format!("holds a certificate that is no root ({error})");
            clients.wrong(&why, "name the roots of clients' certificates")
        };
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root).map_err(|error| unusable(&error))?;
        }
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider)
            .allow_unauthenticated();
        if let Some(file) = &self.revoked {
            // A certificate of which no list tells is refused, as is every one once
            // the list is over.
            builder = builder
                .with_crls(revocations(file, revoked)?)
                .enforce_revocation_expiration();
        }
        builder
            .build()
            .map_err(|error| match (error, &self.revoked) {
                (VerifierBuilderError::InvalidCrl(error), Some(file)) => file.wrong(
                    &format!("holds a list of revoked certificates that is none ({error:?})"),
                    "name another file",
                ),
                (error, _) => unusable(&error),
            })
    }
}

fn certificates(file: &SettingFile, content: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(file.wrong(
            "holds no certificate in PEM",
            "name a file with sections CERTIFICATE",
        )),
    }
}

fn revocations(
    file: &SettingFile,
    content: &[u8],
) -> Result<Vec<CertificateRevocationListDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(content).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(file.wrong(
            "holds no list of revoked certificates in PEM",
            "name a file with sections X509 CRL",
        )),
    }
}
