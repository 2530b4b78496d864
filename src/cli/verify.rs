//! `jammi verify`: whether tenants are kept apart in a directory.

use super::args::{GlobalArgs, OutputFormat, VerifyArgs};
use super::failure::{Failure, Outcome};
use super::output::Output;
use super::progress::Progress;
use super::query::read_script;
use super::settings;
use super::statements::split_script;
use crate::error::Error;
use crate::verify::{Checked, Installation, RecordedStatements, Report, standard, verify};

/// `jammi verify`.
pub async fn run(global: &GlobalArgs, args: VerifyArgs) -> Outcome {
    let config = settings::of_directory(global, "verify")?;
    let statements = statements(&args)?;
    let only: Vec<_> = global.tenant.into_iter().collect();
    let work = Installation::open(&config, &only);
    let installation = Progress::start().watch(work).await.map_err(unusable)?;
    let mut invariants = standard();
    if !statements.is_empty() {
        let recorded = RecordedStatements::new(&installation, statements, args.canaries);
        invariants.push(Box::new(recorded.map_err(unusable)?));
    }
    let report = Progress::start()
        .watch(verify(&installation, &invariants))
        .await;
    show(&report)?;
    match report.broken().count() {
        0 => Ok(()),
        broken => Err(Failure::Engine(format!(
            "{broken} of {} invariants do not hold of {}",
            report.checked.len(),
            config.artifact_dir.display()
        ))),
    }
}

/// The statements of all files.
fn statements(args: &VerifyArgs) -> Outcome<Vec<String>> {
    let mut all = Vec::new();
    for file in &args.statements {
        let script = read_script(file)?;
        let statements = split_script(&script);
        if statements.is_empty() {
            return Err(Failure::Usage(format!(
                "{} has no statement",
                file.display()
            )));
        }
        all.extend(statements.into_iter().map(str::to_owned));
    }
    Ok(all)
}

/// What keeps anything from being checked.
fn unusable(error: Error) -> Failure {
    match error {
        Error::NotFound(text) | Error::InvalidArgument(text) | Error::Unimplemented(text) => {
            Failure::Usage(text)
        }
        other => other.into(),
    }
}

/// A line for each invariant, and for each way in which it is broken what is wrong and
/// the conversation that shows it.
fn show(report: &Report) -> Outcome {
    let mut output = Output::stdout(OutputFormat::Table)?;
    for checked in &report.checked {
        output.line(&summary(checked))?;
        for violation in &checked.violations {
            output.line(&format!("  {}:", violation.objection))?;
            for question in &violation.conversation.questions {
                output.line(&format!("    {question}"))?;
            }
        }
    }
    output.finish()
}

fn summary(checked: &Checked) -> String {
    let name = &checked.invariant;
    let holds = match checked.violations.len() {
        0 => "holds",
        _ => "does not hold",
    };
    let asked = match checked.asked {
        1 => "1 question".to_owned(),
        count => format!("{count} questions"),
    };
    let refused = match checked.refused {
        0 => String::new(),
        count => format!(", {count} of them answered with an error"),
    };
    format!("{name} {holds} ({asked}{refused})")
}
