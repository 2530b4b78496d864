//! What a request carries that may say who asks.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::{AuthenticationError, PeerCertificate};

/// As RFC 7617 wants it, and without padding too: arrow-go's clients leave it out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a request carries.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    headers: &'a HeaderMap,
    peer: Option<SocketAddr>,
    transport: Transport,
    certificate: Option<&'a PeerCertificate>,
}

/// What a connection is carried by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// TCP, which whoever is between can read and change.
    #[default]
    Plain,
    /// TLS.
    Tls,
}

/// A user and what proves it, as HTTP's `Basic` scheme has them (RFC 7617).
#[derive(Clone, PartialEq, Eq)]
pub(super) struct UserAndPassword {
    pub user: String,
    pub password: String,
}

impl<'a> Credentials<'a> {
    /// What is in the metadata of a request, which came from `peer` as far as the
    /// connection tells.
    pub fn new(headers: &'a HeaderMap, peer: Option<SocketAddr>) -> Self {
        Credentials {
            headers,
            peer,
            transport: Transport::Plain,
            certificate: None,
        }
    }

    /// As they came over TLS, from a client that has shown `certificate`.
    #[must_use]
    pub fn over_tls(self, certificate: Option<&'a PeerCertificate>) -> Self {
        Credentials {
            transport: Transport::Tls,
            certificate,
            ..self
        }
    }

    /// What the connection is carried by.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The client's certificate, if it has shown one. Its roots, its time and what is
    /// revoked were checked, for this request too.
    pub fn peer_certificate(&self) -> Option<&'a PeerCertificate> {
        self.certificate
    }

    /// The other end of the connection: a proxy's, where there is one.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The one value of a header.
    ///
    /// # Errors
    /// [`AuthenticationError::Refused`] when it is sent with several values, or has
    /// one that is no visible ASCII text.
    pub fn header(&self, name: &str) -> Result<Option<&'a str>, AuthenticationError> {
        let mut values = self.headers.get_all(name).iter();
        let Some(first) = values.next() else {
            return Ok(None);
        };
        if values.any(|value| value != first) {
            return Err(AuthenticationError::Refused);
        }
        let text = first.to_str().map_err(|_| AuthenticationError::Refused)?;
        Ok(Some(text))
    }

    /// The token of the `Bearer` scheme (RFC 6750).
    ///
    /// # Errors
    /// As of [`Credentials::header`].
    pub fn bearer(&self) -> Result<Option<&'a str>, AuthenticationError> {
        self.of_scheme("bearer")
    }

    /// The user and password of the `Basic` scheme.
    pub(super) fn basic(&self) -> Result<Option<UserAndPassword>, AuthenticationError> {
        let Some(encoded) = self.of_scheme("basic")? else {
            return Ok(None);
        };
        let decoded = BASE64.decode(encoded).ok();
        let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        let (user, password) = text
            .as_deref()
            .and_then(|text| text.split_once(':'))
            .ok_or(AuthenticationError::Refused)?;
        Ok(Some(UserAndPassword {
            user: user.to_owned(),
            password: password.to_owned(),
        }))
    }

    /// What to send as a bearer token from now on: the same, or the password, which is
    /// a token wherever a user with one is accepted.
    pub(crate) fn token(&self) -> Result<Option<String>, AuthenticationError> {
        match self.bearer()? {
            Some(token) => Ok(Some(token.to_owned())),
            None => Ok(self.basic()?.map(|basic| basic.password)),
        }
    }

    /// Whether there is a header `authorization`.
    pub fn has_authorization(&self) -> bool {
        self.headers.contains_key(AUTHORIZATION)
    }

    fn of_scheme(&self, scheme: &str) -> Result<Option<&'a str>, AuthenticationError> {
        let value = self.header(AUTHORIZATION.as_str())?;
        Ok(value.and_then(|value| {
            let (named, rest) = value.split_once(' ')?;
            named
                .eq_ignore_ascii_case(scheme)
                .then(|| rest.trim_start_matches(' '))
        }))
    }
}
