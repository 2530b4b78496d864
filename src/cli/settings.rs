//! The settings of a command: its flags over the environment, the file and the
//! defaults.

use std::env::VarError;
use std::ffi::OsStr;
use std::path::Path;

use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::args::{GlobalArgs, OutputFormat, ServeArgs};
use super::failure::{Failure, Outcome};
use super::output::Output;
use super::target::ServerUrl;
use crate::config::{self, ConfigSources, FlagValue, JammiConfig};
use crate::error::Error;

/// The variable that stands in for `--url`.
const URL_VARIABLE: &str = "JAMMI_URL";
/// The variable that holds the key by which a server knows the caller. There is no
/// flag for it: other users of the machine see those.
pub const API_KEY_VARIABLE: &str = "JAMMI_API_KEY";

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

/// The key to show to a server, if there is one.
pub fn api_key() -> Outcome<Option<String>> {
    match std::env::var(API_KEY_VARIABLE) {
        Ok(key) if !key.is_empty() => Ok(Some(key)),
        Ok(_) | Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(Failure::Usage(format!(
            "{API_KEY_VARIABLE} holds no API key"
        ))),
    }
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
