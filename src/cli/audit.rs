//! `jammi audit`: whether the audit trail is whole, its key, and its records in a file.

use std::path::{Path, PathBuf};

use super::args::{AuditCommand, GlobalArgs, OutputFormat, VerifyAuditArgs};
use super::failure::{Failure, Outcome};
use super::output::Output;
use super::progress::Progress;
use super::query::run_statement;
use super::sources::say;
use super::{notice, open, settings};
use crate::audit::{self, Report};
use crate::error::Error;

/// Runs one of the commands about the audit trail.
pub async fn run(global: &GlobalArgs, command: AuditCommand) -> Outcome {
    match command {
        AuditCommand::Verify(args) => verify(global, args).await,
        AuditCommand::Key => key(global),
        AuditCommand::Export { to, format } => export(global, &to, format).await,
    }
}

fn directory(global: &GlobalArgs) -> Outcome<PathBuf> {
    let config = settings::of_directory(global, "audit")?;
    Ok(audit::directory(&config.artifact_dir))
}

fn key(global: &GlobalArgs) -> Outcome {
    let directory = directory(global)?;
    match audit::public_key(&directory).map_err(unusable)? {
        Some(key) => say(&key.to_string()),
        None => Err(Failure::Usage(format!(
            "there is no audit trail in {}: nothing was recorded yet",
            directory.display()
        ))),
    }
}

async fn verify(global: &GlobalArgs, args: VerifyAuditArgs) -> Outcome {
    let directory = directory(global)?;
    let walked = directory.clone();
    let walk = async {
        let walk = move || audit::verify(&walked, args.public_key, args.checkpoint);
        match tokio::task::spawn_blocking(walk).await {
            Ok(report) => report.map_err(unusable),
            Err(error) => Err(Failure::Engine(error.to_string())),
        }
    };
    let report = Progress::start().watch(walk).await?;
    show(&report)?;
    match report.faults.len() {
        0 => Ok(()),
        count => Err(Failure::Engine(format!(
            "the audit trail in {} does not hold: {count} fault{}",
            directory.display(),
            if count == 1 { "" } else { "s" }
        ))),
    }
}

/// What is wrong, a line each, or what was found to hold.
fn show(report: &Report) -> Outcome {
    let mut output = Output::stdout(OutputFormat::Table)?;
    for fault in &report.faults {
        output.line(&fault.to_string())?;
    }
    if report.faults.is_empty() {
        output.line(&format!(
            "{} records in {} segments hold",
            report.events, report.segments
        ))?;
    }
    if let Some(place) = report.checkpoint {
        output.line(&format!("checkpoint {place}"))?;
    }
    output.finish()?;
    if report.dropped > 0 {
        let dropped = report.dropped;
        notice(format_args!(
            "{dropped} lines before them were dropped for their age"
        ));
    }
    if report.unsigned > 0 {
        let unsigned = report.unsigned;
        notice(format_args!(
            "{unsigned} lines after the last checkpoint are not signed yet"
        ));
    }
    if report.torn_bytes > 0 {
        let bytes = report.torn_bytes;
        notice(format_args!(
            "the last line is not whole ({bytes} bytes): it is being written, or a process was \
             killed while it wrote"
        ));
    }
    Ok(())
}

async fn export(global: &GlobalArgs, to: &Path, format: OutputFormat) -> Outcome {
    let target = open(global).await?;
    let written = async {
        let mut output = Output::file(to, format)?;
        let sql = "SELECT * FROM jammi.audit.events";
        let progress = run_statement(&target, sql, &mut output).await?;
        output.finish()?;
        Ok(progress.rows())
    };
    let written: Outcome<u64> = written.await;
    target.close().await;
    say(&format!("wrote {} records to {}", written?, to.display()))
}

/// What keeps the trail from being looked at.
fn unusable(error: Error) -> Failure {
    match error {
        Error::NotFound(text) | Error::FailedPrecondition(text) => Failure::Usage(text),
        other => other.into(),
    }
}
