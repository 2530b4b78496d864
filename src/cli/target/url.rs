//! The address of a server, as `--url` takes it.

use std::fmt;
use std::str::FromStr;

use url::Url;

use crate::error::Error;

/// The port that a server listens on when nothing else is said.
const DEFAULT_PORT: u16 = 50051;

/// The address of a server that speaks gRPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    is_encrypted: bool,
    /// A name, an IPv4 address, or an IPv6 address in brackets.
    host: String,
    port: u16,
}

impl ServerUrl {
    /// The address as HTTP/2 clients spell it.
    pub fn http(&self) -> String {
        let scheme = match self.is_encrypted {
            true => "https",
            false => "http",
        };
        format!("{scheme}://{}:{}", self.host, self.port)
    }

    /// Whether it is spoken to over TLS.
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.is_encrypted {
            true => "grpc+tls",
            false => "grpc",
        };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl FromStr for ServerUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |why: &str| {
            Err(Error::InvalidArgument(format!(
                "url {text:?} {why}: use grpc://HOST:PORT, as in grpc://127.0.0.1:{DEFAULT_PORT}, or \
                 grpc+tls://HOST:PORT"
            )))
        };
        let Ok(url) = Url::parse(text) else {
            return refuse("is not a URL");
        };
        let is_encrypted = match url.scheme() {
            "grpc" | "grpc+tcp" => false,
            "grpc+tls" => true,
            _ => return refuse("has another scheme than grpc and grpc+tls"),
        };
        let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
            return refuse("names no host");
        };
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("holds credentials, which nothing asks for");
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return refuse("goes on after the port");
        }
        Ok(ServerUrl {
            is_encrypted,
            host: host.to_owned(),
            port: url.port().unwrap_or(DEFAULT_PORT),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_host_and_a_port() {
        for (text, expected) in [
            ("grpc://127.0.0.1:50051", Some("http://127.0.0.1:50051")),
            (
                "grpc+tcp://db.example.com:7",
                Some("http://db.example.com:7"),
            ),
            ("grpc://localhost", Some("http://localhost:50051")),
            ("grpc://[::1]:9/", Some("http://[::1]:9")),
            ("grpc+tls://localhost:1", Some("https://localhost:1")),
            ("grpcs://localhost:1", None),
            ("http://localhost:1", None),
            ("localhost:50051", None),
            ("grpc://", None),
            ("grpc://user@host:1", None),
            ("grpc://host:1/db", None),
            ("grpc://host:1?a=b", None),
            ("grpc://host:99999", None),
            ("", None),
        ] {
            let parsed = ServerUrl::from_str(text).ok().map(|url| url.http());
            assert_eq!(parsed.as_deref(), expected, "{text:?}");
        }
    }
}
