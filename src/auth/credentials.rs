//! What a request carries that may say who asks.

use std::fmt;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

use super::attempts::Attempt;
use super::{AuthenticationError, PeerCertificate};
use crate::tenant::Principal;

/// As RFC 7617 wants it, and without padding too: arrow-go's clients leave it out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a request carries. Its debug output has no values of headers.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    headers: &'a HeaderMap,
    peer: Option<SocketAddr>,
    transport: Transport,
    certificate: Option<&'a PeerCertificate>,
    attempt: Option<&'a Attempt<'a>>,
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.keys().map(HeaderName::as_str).collect();
        f.debug_struct("Credentials")
            .field("headers", &headers)
            .field("peer", &self.peer)
            .field("transport", &self.transport)
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
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

/// A credential of the kind that is looked for. It has no debug output.
pub(super) enum Shown<'a> {
    /// A bearer token.
    Bearer(&'a str),
    /// A user with a password, which may be a token: some drivers know no other way.
    Basic(UserAndPassword),
}

impl Shown<'_> {
    /// The token, or the password in its place.
    pub fn text(&self) -> &str {
        match self {
            Shown::Bearer(token) => token,
            Shown::Basic(basic) => &basic.password,
        }
    }

    /// The holder of the text, if that is the user with whom it was sent.
    pub fn by(&self, holder: Principal) -> Result<Principal, AuthenticationError> {
        match self {
            Shown::Basic(basic) if basic.user != holder.user() => Err(AuthenticationError::Refused),
            _ => Ok(holder),
        }
    }
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
            attempt: None,
        }
    }

    /// As an attempt of their peer's.
    #[must_use]
    pub(crate) fn in_attempt(self, attempt: &'a Attempt<'a>) -> Self {
        Credentials {
            attempt: Some(attempt),
            ..self
        }
    }

    /// Counts the request among those of its peer whose credentials were not accepted,
    /// until it is: for what could be guessed, before it is looked at, so that many at
    /// a time are not let by.
    ///
    /// # Errors
    /// [`AuthenticationError::Throttled`] when there were too many, by
    /// `auth.failures_max`.
    pub fn attempt(&self) -> Result<(), AuthenticationError> {
        match self.attempt {
            Some(attempt) => attempt.count_ahead(),
            None => Ok(()),
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

    /// The credential of a kind: a bearer that is like one, or else a user's password
    /// that is.
    ///
    /// # Errors
    /// As of [`Credentials::header`], and [`AuthenticationError::Absent`] where what is
    /// sent is of another kind.
    pub(super) fn shown(
        &self,
        is_bearer: fn(&str) -> bool,
        is_password: fn(&str) -> bool,
    ) -> Result<Shown<'a>, AuthenticationError> {
        if let Some(token) = self.bearer()? {
            return match is_bearer(token) {
                true => Ok(Shown::Bearer(token)),
                false => Err(AuthenticationError::Absent),
            };
        }
        match self.basic()? {
            Some(basic) if is_password(&basic.password) => Ok(Shown::Basic(basic)),
            _ => Err(AuthenticationError::Absent),
        }
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
