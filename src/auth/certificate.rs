//! The certificate that a client has shown when its connection began.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use x509_cert::Certificate;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, TeletexStringRef, Utf8StringRef};
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;
use x509_cert::der::{self, Decode, Tag, Tagged};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// A client's certificate, whose key the client has proved to hold. Clones share it.
#[derive(Clone, Debug)]
pub struct PeerCertificate(Arc<Shown>);

struct Shown {
    /// The certificate, and those between it and its root.
    chain: Vec<CertificateDer<'static>>,
    common_name: Option<String>,
    dns_names: Vec<String>,
    uri_names: Vec<String>,
    /// What has verified it last, and when it is not valid any more by itself.
    verified: Mutex<Option<Arc<dyn ClientCertVerifier>>>,
    until: UnixTime,
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown")
            .field("common_name", &self.common_name)
            .field("dns_names", &self.dns_names)
            .field("uri_names", &self.uri_names)
            .finish_non_exhaustive()
    }
}

impl PeerCertificate {
    /// The first of `chain`, which goes on with those between it and its root.
    ///
    /// # Errors
    /// For what is no certificate of X.509.
    pub(crate) fn read(chain: Vec<CertificateDer<'static>>) -> der::Result<Self> {
        let first = chain.first().map_or(&[][..], |first| first.as_ref());
        let parsed = Certificate::from_der(first)?.tbs_certificate;
        let mut shown = Shown {
            common_name: None,
            dns_names: Vec::new(),
            uri_names: Vec::new(),
            verified: Mutex::default(),
            until: UnixTime::since_unix_epoch(parsed.validity.not_after.to_unix_duration()),
            chain: Vec::new(),
        };
        let attributes = parsed.subject.0.iter().flat_map(|name| name.0.iter());
        let mut common_names = attributes.filter(|attribute| attribute.oid == COMMON_NAME);
        // Of several, none is the name.
        if let (Some(only), None) = (common_names.next(), common_names.next()) {
            shown.common_name = text(&only.value)?;
        }
        for extension in parsed.extensions.iter().flatten() {
            if extension.extn_id == SubjectAltName::OID {
                for name in SubjectAltName::from_der(extension.extn_value.as_bytes())?.0 {
                    match name {
                        GeneralName::DnsName(name) => shown.dns_names.push(name.to_string()),
                        GeneralName::UniformResourceIdentifier(name) => {
                            shown.uri_names.push(name.to_string());
                        }
                        _ => {}
                    }
                }
            }
        }
        shown.chain = chain;
        Ok(PeerCertificate(Arc::new(shown)))
    }

    /// As it was sent, in DER.
    pub fn der(&self) -> &[u8] {
        self.0.chain.first().map_or(&[][..], |first| first.as_ref())
    }

    /// The common name (CN) of its subject, where that has one and no more.
    pub fn common_name(&self) -> Option<&str> {
        self.0.common_name.as_deref()
    }

    /// The DNS names among its subject's alternative names.
    pub fn dns_names(&self) -> &[String] {
        &self.0.dns_names
    }

    /// The URIs among its subject's alternative names, such as SPIFFE's.
    pub fn uri_names(&self) -> &[String] {
        &self.0.uri_names
    }

    /// Whether `verifier` accepts it at `now`. What has accepted it once is asked no
    /// more: of the time, only the end of this certificate is looked at then.
    pub(crate) fn is_verified_by(
        &self,
        verifier: &Arc<dyn ClientCertVerifier>,
        now: UnixTime,
    ) -> bool {
        if now.as_secs() > self.0.until.as_secs() {
            return false;
        }
        let mut verified = self.0.verified.lock();
        if verified
            .as_ref()
            .is_some_and(|last| Arc::ptr_eq(last, verifier))
        {
            return true;
        }
        let [first, between @ ..] = self.0.chain.as_slice() else {
            return false;
        };
        let accepted = verifier.verify_client_cert(first, between, now).is_ok();
        if accepted {
            *verified = Some(Arc::clone(verifier));
        }
        accepted
    }
}

/// The text of a string of any of the kinds that names are of.
fn text(value: &der::Any) -> der::Result<Option<String>> {
    Ok(match value.tag() {
        Tag::Utf8String => Some(Utf8StringRef::try_from(value)?.to_string()),
        Tag::PrintableString => Some(PrintableStringRef::try_from(value)?.to_string()),
        Tag::Ia5String => Some(Ia5StringRef::try_from(value)?.to_string()),
        Tag::TeletexString => Some(TeletexStringRef::try_from(value)?.to_string()),
        _ => None,
    })
}
