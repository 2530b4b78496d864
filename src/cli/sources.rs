//! `jammi sources`.

use std::env;

use super::args::{AddSourceArgs, OutputArgs, OutputFormat, SourcesCommand};
use super::failure::{Failure, Outcome};
use super::output::Output;
use super::progress::Progress;
use super::target::Target;
use super::{catalog_rows, notice};
use crate::catalog;
use crate::server::proto::catalog::{RegisterSourceRequest, Source, SourceFormat};

/// Runs one of the commands about sources.
pub async fn run(target: &Target, command: SourcesCommand) -> Outcome {
    match command {
        SourcesCommand::List(output) => {
            let sources = target.sources().await?;
            show(output, |output| {
                output.batch(&catalog_rows::sources(&sources)?)
            })
        }
        SourcesCommand::Add(args) => add(target, args).await,
        SourcesCommand::Describe { name, output } => {
            let source = target.source(&name).await?;
            show(output, |output| describe(&source, output))
        }
        SourcesCommand::Refresh { name } => {
            let source = watched(target.refresh_source(&name)).await?;
            say(&format!("refreshed {}", summary(&source)))
        }
        SourcesCommand::Drop { name } => {
            target.drop_source(&name).await?;
            say(&format!("dropped source {name}"))
        }
    }
}

async fn add(target: &Target, args: AddSourceArgs) -> Outcome {
    let request = RegisterSourceRequest {
        name: args.name,
        location: absolute(args.location)?,
        format: format_message(args.format).into(),
        tenant_column: match args.no_tenant_column {
            true => Some(String::new()),
            false => args.tenant_column,
        },
    };
    let response = watched(target.register_source(request)).await?;
    for text in &response.notices {
        notice(text);
    }
    let source = response.source.unwrap_or_default();
    say(&format!("registered {}", summary(&source)))
}

/// A relative path as one from the directory that the command runs in, which
/// is not where a server runs.
fn absolute(location: String) -> Outcome<String> {
    if location.is_empty() || location.contains("://") {
        return Ok(location);
    }
    let unknown = |error: &dyn std::fmt::Display| {
        Failure::Usage(format!(
            "location {location:?} cannot be made absolute: {error}: write it in full"
        ))
    };
    let here = env::current_dir().map_err(|error| unknown(&error))?;
    // Joined as text, so that what marks a directory or a glob stays.
    match here.join(&location).into_os_string().into_string() {
        Ok(path) => Ok(path),
        Err(_) => Err(unknown(&"the working directory's name is not UTF-8")),
    }
}

/// For people, facts and columns below each other; for programs, one row that
/// has both.
fn describe(source: &Source, output: &mut Output) -> Outcome {
    match output.format() {
        OutputFormat::Table => {
            output.batch(&catalog_rows::source_sheet(source)?)?;
            output.batch(&catalog_rows::source_columns(&source.columns)?)
        }
        _ => output.batch(&catalog_rows::source(source)?),
    }
}

/// Writes rows to stdout.
pub fn show(args: OutputArgs, write: impl FnOnce(&mut Output) -> Outcome) -> Outcome {
    let mut output = Output::stdout(args.format)?;
    write(&mut output)?;
    output.finish()
}

/// Says on stdout what was done.
pub fn say(text: &str) -> Outcome {
    let mut output = Output::stdout(OutputFormat::Table)?;
    output.line(text)?;
    output.finish()
}

async fn watched<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    Progress::start().watch(work).await
}

/// The source in a line.
fn summary(source: &Source) -> String {
    let columns = match source.columns.len() {
        1 => "1 column".to_owned(),
        count => format!("{count} columns"),
    };
    let tenant_column = match source.tenant_column.as_str() {
        "" => "no tenant column".to_owned(),
        column => format!("tenant column {column}"),
    };
    format!("{} ({columns}, {tenant_column})", source.sql_name)
}

fn format_message(format: Option<catalog::SourceFormat>) -> SourceFormat {
    match format {
        None => SourceFormat::Unspecified,
        Some(catalog::SourceFormat::Parquet) => SourceFormat::Parquet,
        Some(catalog::SourceFormat::Csv) => SourceFormat::Csv,
        Some(catalog::SourceFormat::Json) => SourceFormat::Json,
        Some(catalog::SourceFormat::Ndjson) => SourceFormat::Ndjson,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::proto::catalog::Column;

    #[test]
    fn a_location_is_the_same_wherever_it_is_read() {
        let here = env::current_dir().unwrap();
        for relative in ["inbox.csv", "inbox/", "../inbox/*.csv"] {
            let absolute = absolute(relative.into()).unwrap();
            assert_eq!(absolute, format!("{}/{relative}", here.display()));
        }
        for full in ["/data/inbox.csv", "s3://bucket/inbox", "file:///inbox", ""] {
            assert_eq!(absolute(full.into()).unwrap(), full);
        }
    }

    #[test]
    fn a_source_fits_a_line() {
        let mut source = Source {
            sql_name: "inbox.public.inbox".into(),
            columns: vec![Column::default(); 3],
            tenant_column: "tenant_id".into(),
            ..Source::default()
        };
        assert_eq!(
            summary(&source),
            "inbox.public.inbox (3 columns, tenant column tenant_id)"
        );
        source.columns.truncate(1);
        source.tenant_column.clear();
        assert_eq!(
            summary(&source),
            "inbox.public.inbox (1 column, no tenant column)"
        );
    }
}
