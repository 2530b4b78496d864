//! The settings of a command: its flags over the environment, the file and the
//! defaults.

use std::env::VarError;
use std::ffi::OsStr;
use std::io::{self, IsTerminal};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::args::{GlobalArgs, OutputFormat, ServeArgs};
use super::failure::{Failure, Outcome};
use super::notice;
use super::output::Output;
use super::target::ServerUrl;
use crate::config::{self, ConfigSources, FlagValue, JammiConfig};
use crate::error::Error;

/// The variable that stands in for `--url`.
const URL_VARIABLE: &str = "JAMMI_URL";
/// The variable that holds the key by which a server knows the caller. There is no
/// flag for it: other users of the machine see those.
const API_KEY_VARIABLE: &str = "JAMMI_API_KEY";

/// The settings that `global` and, for a server, `serve` make.
pub fn load(global: &GlobalArgs, serve: Option<&ServeArgs>) -> Outcome<JammiConfig> {
    JammiConfig::load(sources(global, serve)?).map_err(wrong_settings)
}

/// As [`load`], of a command that works on the databases of a directory alone.
pub fn of_directory(global: &GlobalArgs, command: &str) -> Outcome<JammiConfig> {
    if server_url(global)?.is_some() {
        return Err(Failure::Usage(format!(
            "{command} works on the databases themselves, also beside a running server: use \
             --artifact-dir instead of --url"
        )));
    }
    load(global, None)
}

/// `jammi config show`.
pub fn show(global: &GlobalArgs) -> Outcome {
    let text = config::show(sources(global, None)?).map_err(wrong_settings)?;
    let mut output = Output::stdout(OutputFormat::Table)?;
    output.line(text.trim())?;
    output.finish()
}

/// The server to work through, if any. A directory that was asked for by flag
/// is stronger than a server that the environment names.
pub fn server_url(global: &GlobalArgs) -> Outcome<Option<ServerUrl>> {
    if global.url.is_some() || global.artifact_dir.is_some() {
        return Ok(global.url.clone());
    }
    let Some(text) = std::env::var_os(URL_VARIABLE).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let url = text.to_string_lossy().parse().map_err(wrong_settings)?;
    Ok(Some(url))
}

/// What a server is to know the caller by, beside a certificate. It has no debug
/// output.
pub enum Credential {
    /// An API key, or another token.
    Token(String),
    /// A user and a password, which go with every call: what a handshake answers
    /// would end while a shell is open.
    Password { user: String, password: String },
}

impl Credential {
    /// What calls have in their metadata `authorization`.
    pub fn authorization(&self) -> Outcome<MetadataValue<Ascii>> {
        let text = match self {
            Credential::Token(token) => format!("Bearer {token}"),
            Credential::Password { user, password } => {
                format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
            }
        };
        let mut value = MetadataValue::try_from(text)
            .map_err(|_| Failure::Usage(format!("{API_KEY_VARIABLE} holds no API key")))?;
        // Keeps it out of logs of the transport.
        value.set_sensitive(true);
        Ok(value)
    }
}

/// What to show to a server, if there is anything.
pub fn credential(global: &GlobalArgs) -> Outcome<Option<Credential>> {
    let key = match std::env::var(API_KEY_VARIABLE) {
        Ok(key) => Some(key).filter(|key| !key.is_empty()),
        Err(VarError::NotPresent) => None,
        Err(VarError::NotUnicode(_)) => {
            return Err(Failure::Usage(format!(
                "{API_KEY_VARIABLE} holds no API key"
            )));
        }
    };
    let user = global.sign_in_as.as_ref().filter(|user| !user.is_empty());
    match (key, user) {
        (key, None) => Ok(key.map(Credential::Token)),
        (Some(_), Some(_)) => Err(Failure::Usage(format!(
            "{API_KEY_VARIABLE} holds a key and --user names somebody: leave one of them out"
        ))),
        (None, Some(user)) if user.contains(':') => Err(Failure::Usage(
            "--user has a colon, which the name of no user has: name another".into(),
        )),
        (None, Some(user)) => Ok(Some(Credential::Password {
            user: user.clone(),
            password: password(global)?,
        })),
    }
}

/// The password to sign in by, of a file or typed.
fn password(global: &GlobalArgs) -> Outcome<String> {
    let Some(file) = &global.password_file else {
        return typed_password()?.ok_or_else(|| {
            Failure::Usage(
                "there is no terminal to type the password of --user on: name a file of it by \
                 --password-file or JAMMI_PASSWORD_FILE"
                    .into(),
            )
        });
    };
    let unread = |why: String| {
        let path = file.display();
        Failure::Usage(format!(
            "{path} cannot be read ({why}): name a file of the password by --password-file"
        ))
    };
    let text = std::fs::read_to_string(file).map_err(|error| unread(error.to_string()))?;
    match text.lines().next() {
        Some(password) if !password.is_empty() => Ok(password.to_owned()),
        _ => Err(unread("its first line is empty".into())),
    }
}

/// A password that is typed on a terminal, which does not show it; none where stdin
/// is no terminal.
pub fn typed_password() -> Outcome<Option<String>> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    notice("type the password, which is not shown, and press Enter");
    let typed = console::Term::stderr().read_secure_line();
    typed.map(Some).map_err(unread_password)
}

/// Why there is no password.
pub fn unread_password(error: io::Error) -> Failure {
    Failure::Usage(format!("the password cannot be read ({error})"))
}

/// How servers of `grpc+tls://` are known, and how they know the caller.
pub fn client_tls(global: &GlobalArgs) -> Outcome<ClientTlsConfig> {
    let read = |flag: &str, file: &Path| {
        let path = file.display();
        std::fs::read(file).map_err(|error| {
            Failure::Usage(format!(
                "{path} cannot be read ({error}): name a PEM file by {flag}"
            ))
        })
    };
    let tls = ClientTlsConfig::new();
    let tls = match &global.ca_file {
        Some(file) => tls.ca_certificate(Certificate::from_pem(read("--ca-file", file)?)),
        None => tls.with_enabled_roots(),
    };
    let (certificate, key) = (
        &global.client_certificate_file,
        &global.client_private_key_file,
    );
    Ok(match (certificate, key) {
        (Some(certificate), Some(key)) => tls.identity(Identity::from_pem(
            read("--client-certificate-file", certificate)?,
            read("--client-private-key-file", key)?,
        )),
        _ => tls,
    })
}

fn sources(global: &GlobalArgs, serve: Option<&ServeArgs>) -> Outcome<ConfigSources> {
    let mut flags = Vec::new();
    let mut flag = |flag, key, value: Option<&OsStr>| -> Outcome {
        let Some(value) = value else {
            return Ok(());
        };
        let value = value
            .to_str()
            .ok_or_else(|| Failure::Usage(format!("{flag} is not UTF-8: use another name")))?;
        flags.push(FlagValue {
            flag,
            key,
            value: value.to_owned(),
        });
        Ok(())
    };
    let artifact_dir = global.artifact_dir.as_deref();
    flag(
        "--artifact-dir",
        "artifact_dir",
        artifact_dir.map(AsRef::as_ref),
    )?;
    if let Some(serve) = serve {
        let listen = serve.listen.as_deref();
        flag("--listen", "server.listen", listen.map(AsRef::as_ref))?;
        let http_listen = serve.http_listen.as_deref();
        flag(
            "--http-listen",
            "server.http_listen",
            http_listen.map(AsRef::as_ref),
        )?;
    }
    let process = ConfigSources::from_process().map_err(wrong_settings)?;
    Ok(ConfigSources {
        file: global.config.clone(),
        flags,
        ..process
    })
}

fn wrong_settings(error: Error) -> Failure {
    Failure::Usage(error.to_string())
}
