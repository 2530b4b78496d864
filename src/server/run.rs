//! `jammi serve`: from settings to an exit code.

use std::io::{self, Write};
use std::net::SocketAddr;

use tracing::{info, warn};

use super::catalog::SourceRegistration;
use super::console;
use super::serve::{BoundServer, Server};
use super::telemetry::log_to_stderr;
use crate::config::{JammiConfig, LogFormat};
use crate::engine::Engine;
use crate::error::{Error, Result};

/// Serves until SIGTERM or SIGINT, then drains; a second signal exits at once.
/// Prints where it listens to stdout, one address a line, once requests are
/// taken, and how it is secured to stderr. `prepare` works on the open engine
/// before that, such as to load a sample; `started` is told the address of gRPC
/// after it.
///
/// # Errors
/// Whatever keeps the server from starting, in a text for the operator.
pub async fn run(
    config: JammiConfig,
    prepare: impl AsyncFnOnce(&Engine) -> Result<()>,
    started: impl FnOnce(SocketAddr),
) -> Result<()> {
    config.validate()?;
    log_to_stderr(&config.log)?;
    let engine = Engine::open(&config).await?;
    prepare(&engine).await?;
    let server = Server::bind(config.clone(), engine).await?;
    // From here on a signal stops the server in order.
    let signals = Signals::install()?;
    for note in security_notes(&config, &server) {
        match config.log.format {
            LogFormat::Text => {
                // A closed stderr is no reason not to serve.
                let _ = writeln!(io::stderr(), "{note}");
            }
            LogFormat::Json => warn!("{note}"),
        }
    }
    announce(&server);
    started(server.grpc_addr());
    server.serve(signals.first()).await
}

const NO_SOURCES: &str = "sources cannot be registered over the network: set sources.roots to \
     allow them below some directories and URLs";

const ANY_SOURCE: &str = "sources may be registered from any path and URL: set sources.roots to \
     limit them";

/// What an operator has to know of who may do what.
fn security_notes(config: &JammiConfig, server: &BoundServer) -> Vec<String> {
    let mut notes = vec![
        match config.auth.methods.is_empty() {
            true => {
                "warning: nothing authenticates: whoever reaches this port may act as any tenant, \
                 and read and write the shared rows: set auth.methods to ask for credentials"
            }
            false => "every request of a tenant has to carry a credential (auth.methods)",
        }
        .to_owned(),
        match (config.tls.is_on(), config.tls.http) {
            (false, _) => {
                "warning: connections are not encrypted: set tls.certificate_file and \
                 tls.private_key_file, or let a proxy do that"
            }
            (true, true) => "connections are encrypted (tls.certificate_file)",
            (true, false) => {
                "connections are encrypted (tls.certificate_file), but those for health and \
                 metrics: set tls.http to encrypt these too"
            }
        }
        .to_owned(),
    ];
    let ip = server.grpc_addr().ip();
    notes.push(if ip.is_loopback() {
        format!("listening on loopback only ({ip}): programs of this machine reach it")
    } else {
        format!(
            "warning: listening beyond loopback ({ip}): let only trusted programs reach it, or set \
             server.listen to 127.0.0.1"
        )
    });
    notes.push(
        match (server.source_registration(), &config.sources.roots) {
            (SourceRegistration::Refused, _) => NO_SOURCES.to_owned(),
            (SourceRegistration::Allowed, None) => ANY_SOURCE.to_owned(),
            (SourceRegistration::Allowed, Some(roots)) => {
                format!("sources may be registered below {}", roots.join(", "))
            }
        },
    );
    if server.console() {
        notes.push(console_note(server));
    }
    if !config.tenancy.anonymous_reads {
        notes.push("requests without a bound tenant are refused".to_owned());
    }
    notes
}

/// Where the console is, or why there is none.
fn console_note(server: &BoundServer) -> String {
    let (scheme, address) = (server.http_scheme(), server.http_addr());
    let page = format!("{scheme}://{address}{}", console::PATH);
    if console::is_built_in() {
        format!("the console is at {page}")
    } else {
        format!(
            "warning: console.enabled is set, but {}",
            console::NOT_BUILT_IN
        )
    }
}

/// Scripts wait for these two lines.
fn announce(server: &BoundServer) {
    let (grpc, http) = (server.grpc_addr(), server.http_addr());
    let (grpc_scheme, http_scheme) = (server.grpc_scheme(), server.http_scheme());
    let mut stdout = io::stdout().lock();
    // A closed stdout is no reason not to serve.
    let _ = writeln!(
        stdout,
        "listening {grpc_scheme}://{grpc}\nlistening {http_scheme}://{http}"
    );
    let _ = stdout.flush();
    info!(%grpc, %http, "listening");
}

/// The signals that stop the process.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn install() -> Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| {
            signal(kind).map_err(|error| Error::internal("signals cannot be handled", error))
        };
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    #[cfg(not(unix))]
    fn install() -> Result<Signals> {
        Ok(Signals {})
    }

    /// Completes with the first signal. The second one ends the process.
    async fn first(mut self) {
        self.next().await;
        tokio::spawn(async move {
            let number = self.next().await;
            // Not a return: the runtime would wait for running work to end.
            std::process::exit(128 + number);
        });
    }

    /// The number of the next signal.
    async fn next(&mut self) -> i32 {
        const SIGINT: i32 = 2;
        #[cfg(unix)]
        {
            const SIGTERM: i32 = 15;
            tokio::select! {
                _ = self.terminate.recv() => SIGTERM,
                _ = self.interrupt.recv() => SIGINT,
            }
        }
        #[cfg(not(unix))]
        {
            // Without a handler there is nothing to wait for.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
            SIGINT
        }
    }
}
