//! The `jammi` command.
//!
//! `args` says what can be typed; each command has a file of its own and works
//! on a [`target::Target`], which is the engine in this process or one behind
//! a server. Rows leave through [`output`], alone on stdout; everything else
//! goes to stderr.
//!
//! Architecture invariant: this is the only layer that prints, and the only
//! one that ends the process.

pub mod args;
pub mod failure;
pub mod output;
pub mod progress;
pub mod statements;
pub mod target;

mod audit;
mod backup;
mod catalog_rows;
mod interrupt;
mod keys;
mod models;
mod queries;
mod query;
mod sample;
mod schema_file;
mod serve;
mod sessions;
mod settings;
mod shell;
mod sources;
mod table_rows;
mod tables;
mod tenants;
mod users;
mod verify;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread::available_parallelism;

use self::args::{Cli, Command, ConfigCommand, GlobalArgs, OutputArgs, OutputFormat};
use self::failure::{Failure, Outcome};
use self::interrupt::Interrupt;
use self::target::Target;

/// The stack of a worker. Planning deep expressions is recursive, and an
/// unoptimized build needs several times the room of an optimized one.
const WORKER_STACK_BYTES: usize = 8 << 20;

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    // Usage errors, help and the version are printed by the parser, which ends
    // the process with 2 or 0.
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let outcome = runtime().and_then(|runtime| {
        let outcome = runtime.block_on(run(cli));
        // Cancelled work may sit in a blocking read, which nobody waits for. The
        // threads end with the process: to detach one that ends by itself is a race
        // in glibc (sourceware bug 19951).
        std::mem::forget(runtime);
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn runtime() -> Outcome<tokio::runtime::Runtime> {
    let cores = available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        // Short statements run on them, and as many as there are cores may wait for
        // a disk.
        .worker_threads(2 * cores)
        .on_thread_unpark(crate::engine::cores::woken)
        .enable_all()
        .thread_stack_size(WORKER_STACK_BYTES)
        .build()
        .map_err(|error| Failure::Usage(format!("cannot start threads: {error}")))
}

async fn run(cli: Cli) -> Outcome {
    let global = cli.global;
    let shell = Command::Shell(OutputArgs {
        format: OutputFormat::Table,
    });
    match cli.command.unwrap_or(shell) {
        Command::Serve(args) => serve::run(&global, args).await,
        Command::Config(ConfigCommand::Show) => settings::show(&global),
        Command::Shell(output) => shell::run(open(&global).await?, output.format).await,
        Command::Sources(command) => {
            on_target(&global, async |target| sources::run(target, command).await).await
        }
        Command::Tables(command) => {
            on_target(&global, async |target| tables::run(target, command).await).await
        }
        Command::Models(command) => {
            on_target(&global, async |target| models::run(target, command).await).await
        }
        Command::Query(args) => {
            // What is wrong with the arguments is said before anything opens.
            let job = query::Job::new(args)?;
            on_target(&global, async |target| job.run(target).await).await
        }
        Command::Keys(command) => {
            on_installation(&global, async |target| keys::run(target, command).await).await
        }
        Command::Users(command) => {
            on_installation(&global, async |target| users::run(target, command).await).await
        }
        Command::Sessions(command) => {
            on_installation(&global, async |target| sessions::run(target, command).await).await
        }
        Command::Queries(command) => {
            on_installation(&global, async |target| queries::run(target, command).await).await
        }
        Command::Tenants(command) => {
            let global = GlobalArgs {
                tenant: tenants::bound(&global, &command),
                ..global
            };
            on_target(&global, async |target| tenants::run(target, command).await).await
        }
        Command::Verify(args) => {
            let interrupt = Interrupt::listen();
            interrupt.or(verify::run(&global, args)).await
        }
        Command::Audit(command) => {
            let interrupt = Interrupt::listen();
            interrupt.or(audit::run(&global, command)).await
        }
        Command::Backup { file } => {
            let interrupt = Interrupt::listen();
            interrupt.or(backup::backup(&global, &file)).await
        }
        Command::Restore { file } => {
            let interrupt = Interrupt::listen();
            interrupt.or(backup::restore(&global, &file)).await
        }
    }
}

/// Opens the target, runs `command` on it until Ctrl-C, and leaves the target.
async fn on_target(global: &GlobalArgs, command: impl AsyncFnOnce(&Target) -> Outcome) -> Outcome {
    let interrupt = Interrupt::listen();
    let target = interrupt.or(open(global)).await?;
    let outcome = interrupt.or(command(&target)).await;
    target.close().await;
    outcome
}

/// As [`on_target`], of a command that is about no tenant.
async fn on_installation(
    global: &GlobalArgs,
    command: impl AsyncFnOnce(&Target) -> Outcome,
) -> Outcome {
    let global = GlobalArgs {
        tenant: None,
        ..global.clone()
    };
    on_target(&global, command).await
}

async fn open(global: &GlobalArgs) -> Outcome<Target> {
    match settings::server_url(global)? {
        Some(url) => {
            let credential = settings::credential(global)?;
            let tls = settings::client_tls(global)?;
            Target::remote(&url, global.tenant, credential.as_ref(), tls).await
        }
        None => Target::embedded(&settings::load(global, None)?, global.tenant).await,
    }
}

/// Says on stderr what the user should know beside the rows.
fn notice(text: impl Display) {
    // Nobody is left to be told when stderr is gone.
    let _ = writeln!(io::stderr(), "notice: {text}");
}

/// Says on stderr why something failed.
fn report(failure: &Failure) {
    if let Some(text) = failure.message() {
        let _ = writeln!(io::stderr(), "error: {text}");
    }
}

#[cfg(test)]
mod tests;
