//! `jammi query`: statements in, rows out.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::args::{OutputFormat, QueryArgs};
use super::failure::{Failure, Outcome};
use super::output::Output;
use super::progress::Progress;
use super::statements::split_script;
use super::target::{Bypass, Rows, Target};

/// Statements and where their rows go.
#[derive(Debug)]
pub struct Job {
    script: String,
    bypass: Option<Bypass>,
    format: OutputFormat,
    output: Option<PathBuf>,
}

impl Job {
    /// Reads the statements that `args` name.
    pub fn new(args: QueryArgs) -> Outcome<Self> {
        let script = match (args.file, args.command.or(args.sql)) {
            (Some(file), _) => read_script(&file)?,
            (None, Some(sql)) => sql,
            (None, None) => String::new(),
        };
        let format = args.format.format;
        let statements = split_script(&script).len();
        if statements == 0 {
            return Err(Failure::Usage(
                "there is no statement to run: give SQL, -c SQL or -f FILE".into(),
            ));
        }
        if statements > 1 && format.is_binary() {
            return Err(Failure::Usage(format!(
                "this format holds one result, and there are {statements} statements: run them \
                 one by one, or use table, csv, json or ndjson"
            )));
        }
        let bypass = args.reason.map(|reason| Bypass {
            tenants: args.bypass,
            reason,
        });
        if statements > 1 && bypass.is_some() {
            return Err(Failure::Usage(format!(
                "--bypass is for one statement, and there are {statements}: run them one by one"
            )));
        }
        Ok(Job {
            script,
            bypass,
            format,
            output: args.output,
        })
    }

    /// Runs the statements in turn, up to the first that fails.
    pub async fn run(self, target: &Target) -> Outcome {
        let mut output = match &self.output {
            Some(path) => Output::file(path, self.format)?,
            None => Output::stdout(self.format)?,
        };
        let statements = split_script(&self.script);
        for (index, sql) in statements.iter().enumerate() {
            let ran = match &self.bypass {
                Some(bypass) => {
                    let rows = target.query_bypassing(sql, bypass);
                    stream_rows(rows, &mut output).await
                }
                None => run_statement(target, sql, &mut output).await,
            };
            match statements.len() {
                1 => ran?,
                _ => ran.map_err(|error| error.in_context(format!("statement {}", index + 1)))?,
            };
        }
        output.finish()
    }
}

/// Runs one statement, and answers what is known of it when it is done.
pub async fn run_statement(target: &Target, sql: &str, output: &mut Output) -> Outcome<Progress> {
    stream_rows(target.query(sql), output).await
}

async fn stream_rows(
    rows: impl Future<Output = Outcome<Rows>>,
    output: &mut Output,
) -> Outcome<Progress> {
    let mut progress = Progress::start();
    let rows = progress.watch(rows).await?;
    output.stream(rows, &mut progress).await?;
    Ok(progress)
}

/// The text of a file of statements, or of stdin where it is called `-`.
pub fn read_script(path: &Path) -> Outcome<String> {
    let (name, bytes) = if path == Path::new("-") {
        let mut bytes = Vec::new();
        let read = io::stdin().lock().read_to_end(&mut bytes);
        ("stdin".to_owned(), read.map(|_| bytes))
    } else {
        (path.display().to_string(), fs::read(path))
    };
    let bytes = bytes.map_err(|error| Failure::Usage(format!("cannot read {name}: {error}")))?;
    String::from_utf8(bytes)
        .map_err(|_| Failure::Usage(format!("{name} is not UTF-8 text: convert it first")))
}

#[cfg(test)]
mod tests {
    use super::super::args::OutputArgs;
    use super::*;

    fn job(sql: Option<&str>, file: Option<&Path>, format: OutputFormat) -> Outcome<Job> {
        Job::new(QueryArgs {
            sql: sql.map(str::to_owned),
            command: None,
            file: file.map(Path::to_owned),
            output: None,
            bypass: Vec::new(),
            reason: None,
            format: OutputArgs { format },
        })
    }

    #[test]
    fn nothing_runs_when_the_arguments_are_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("binary.sql");
        fs::write(&binary, [0xff, 0xfe]).unwrap();
        let missing = dir.path().join("missing.sql");
        for (sql, file, format, expected) in [
            (
                Some(" ; -- none"),
                None,
                OutputFormat::Table,
                "no statement",
            ),
            (Some("a; b"), None, OutputFormat::Parquet, "one result"),
            (
                None,
                Some(binary.as_path()),
                OutputFormat::Table,
                "not UTF-8",
            ),
            (
                None,
                Some(missing.as_path()),
                OutputFormat::Table,
                "missing.sql",
            ),
        ] {
            let failure = job(sql, file, format).expect_err(expected);
            assert_eq!(failure.exit_code(), 2);
            assert!(failure.message().unwrap().contains(expected), "{failure:?}");
        }
        assert!(job(Some("a; b"), None, OutputFormat::Ndjson).is_ok());
    }
}
