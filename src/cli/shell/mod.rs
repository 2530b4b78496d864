//! The interactive shell, and the same without prompts when stdin is a file.
//!
//! A statement ends with `;`, a command of the shell starts with `\` and ends
//! with its line. An error ends a script; a person goes on after it.

mod command;
mod completion;
mod editor;
mod line;

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::io::{AsyncBufReadExt, BufReader};

use self::command::ShellCommand;
use self::completion::Names;
use self::editor::{Editor, Input};
use super::args::OutputFormat;
use super::catalog_rows;
use super::failure::{Failure, Outcome};
use super::interrupt::Interrupt;
use super::output::Output;
use super::progress::Progress;
use super::query::run_statement;
use super::statements::{is_complete, split, split_script};
use super::tables::{describe, is_stored};
use super::target::{TableRecord, Target};
use super::{notice, report};
use crate::tenant::TenantId;

/// Reads statements until the input ends, from a person or from a script.
pub async fn run(target: Target, format: OutputFormat) -> Outcome {
    let is_interactive = io::stdin().is_terminal() && io::stderr().is_terminal();
    let mut shell = Shell {
        target,
        format,
        shows_times: false,
        is_interactive,
        names: Arc::default(),
        names_are_stale: true,
        interrupt: Interrupt::listen(),
    };
    let outcome = if is_interactive {
        shell.converse().await
    } else {
        shell.run_script().await
    };
    shell.target.close().await;
    outcome
}

/// Whether the shell goes on.
#[derive(Debug, PartialEq, Eq)]
enum Flow {
    Continue,
    Leave,
}

struct Shell {
    target: Target,
    format: OutputFormat,
    /// Whether how long a statement took is shown.
    shows_times: bool,
    /// Whether a person is there to read what is not rows.
    is_interactive: bool,
    /// What completion offers, shared with the editor.
    names: Arc<RwLock<Names>>,
    names_are_stale: bool,
    interrupt: Interrupt,
}

impl Shell {
    async fn converse(&mut self) -> Outcome {
        let mut editor = Editor::new(Arc::clone(&self.names));
        self.remark(concat!(
            "jammi ",
            env!("CARGO_PKG_VERSION"),
            ": statements end with `;`, \\? helps, \\q leaves"
        ));
        loop {
            self.refresh_names().await;
            let input = match editor.read(self.target.tenant()) {
                Ok(Input::Text(text)) => text,
                Ok(Input::Abandoned) => continue,
                Ok(Input::End) => return Ok(()),
                Err(error) => {
                    return Err(Failure::Usage(format!("cannot read the terminal: {error}")));
                }
            };
            self.interrupt.forget();
            match self.run_input(&input).await {
                Ok(Flow::Continue) => {}
                Ok(Flow::Leave) => return Ok(()),
                Err(Failure::OutputClosed) => return Err(Failure::OutputClosed),
                Err(failure) => {
                    report(&failure);
                    self.names_are_stale = true;
                }
            }
        }
    }

    async fn run_script(&mut self) -> Outcome {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        let mut text = String::new();
        loop {
            let line = self.interrupt.or(async {
                let line = lines.next_line().await;
                line.map_err(|error| Failure::Usage(format!("cannot read stdin: {error}")))
            });
            let Some(line) = line.await? else {
                break;
            };
            if command::is_command(&line) && is_complete(&text) {
                text.clear();
                if self.run_command(&line).await? == Flow::Leave {
                    return Ok(());
                }
                continue;
            }
            text.push_str(&line);
            text.push('\n');
            // Only a line with a semicolon can end a statement.
            if line.contains(';') {
                let split = split(&text);
                for sql in split.ended {
                    self.run_statement(sql).await?;
                }
                text = split.rest.to_owned();
                text.push('\n');
            }
        }
        for sql in split_script(&text) {
            self.run_statement(sql).await?;
        }
        Ok(())
    }

    async fn run_input(&mut self, input: &str) -> Outcome<Flow> {
        if command::is_command(input) {
            return self.run_command(input).await;
        }
        for sql in split_script(input) {
            self.run_statement(sql).await?;
        }
        Ok(Flow::Continue)
    }

    async fn run_statement(&mut self, sql: &str) -> Outcome {
        let mut output = Output::stdout(self.format)?;
        let work = run_statement(&self.target, sql, &mut output);
        let progress = self.interrupt.or(work).await?;
        output.finish()?;
        self.names_are_stale |= !only_reads(sql);
        self.remark(match progress.rows() {
            1 => "1 row".to_owned(),
            rows => format!("{rows} rows"),
        });
        self.remark_time(&progress);
        Ok(())
    }

    async fn run_command(&mut self, line: &str) -> Outcome<Flow> {
        match ShellCommand::parse(line).map_err(Failure::Usage)? {
            ShellCommand::Tables => {
                let tables = self.tables().await?;
                self.show(|output| output.batch(&catalog_rows::tables(&tables)?))?;
            }
            ShellCommand::Columns(name) => {
                let tables = self.tables().await?;
                let table = named(&tables, &name)?;
                if is_stored(&table.catalog, &table.schema) {
                    let work = self.target.stored_table(&table.name);
                    let stored = self.interrupt.or(work).await?;
                    self.show(|output| describe(&stored, output))?;
                } else {
                    self.show(|output| output.batch(&catalog_rows::table_columns(table)?))?;
                }
            }
            ShellCommand::ShowTenant => {
                let text = match self.target.tenant() {
                    Some(tenant) => tenant.to_string(),
                    None => "no tenant is bound".to_owned(),
                };
                self.show(|output| output.line(&text))?;
            }
            ShellCommand::BindTenant(tenant) => self.bind(tenant).await?,
            ShellCommand::Timing(choice) => {
                self.shows_times = choice.unwrap_or(!self.shows_times);
                let state = if self.shows_times { "on" } else { "off" };
                self.remark(format!("timing is {state}"));
            }
            ShellCommand::Format(format) => {
                // Checked here rather than at the next statement.
                Output::stdout(format)?;
                self.format = format;
            }
            ShellCommand::Help => self.show(|output| output.line(command::HELP))?,
            ShellCommand::Quit => return Ok(Flow::Leave),
        }
        Ok(Flow::Continue)
    }

    async fn bind(&mut self, tenant: Option<TenantId>) -> Outcome {
        // Not to be cancelled halfway: it would be unknown for whom the next
        // statement runs.
        self.names_are_stale = true;
        self.target.bind(tenant).await
    }

    async fn tables(&self) -> Outcome<Vec<TableRecord>> {
        self.interrupt.or(self.target.tables()).await
    }

    /// Reads the names again where they may have changed. Completion does
    /// without when that fails: the next statement says why.
    async fn refresh_names(&mut self) {
        if self.names_are_stale {
            self.names_are_stale = false;
            if let Ok(tables) = self.tables().await {
                *self.names.write() = Names::new(&tables);
            }
        }
    }

    fn show(&self, write: impl FnOnce(&mut Output) -> Outcome) -> Outcome {
        let mut output = Output::stdout(self.format)?;
        write(&mut output)?;
        output.finish()
    }

    /// Says on stderr what only a person wants to know.
    fn remark(&self, text: impl std::fmt::Display) {
        if self.is_interactive {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    fn remark_time(&self, progress: &Progress) {
        if self.shows_times {
            let seconds = progress.elapsed().as_secs_f64();
            let _ = writeln!(io::stderr(), "{:.1} ms", seconds * 1000.0);
        }
    }
}

/// The one table that `name` means: by its whole name first, then by its end.
fn named<'a>(tables: &'a [TableRecord], name: &str) -> Outcome<&'a TableRecord> {
    let path = |table: &TableRecord| format!("{}.{}.{}", table.catalog, table.schema, table.name);
    let name = name.replace('"', "");
    let found: Vec<&TableRecord> = tables
        .iter()
        .filter(|table| path(table) == name || path(table).ends_with(&format!(".{name}")))
        .collect();
    match found.as_slice() {
        [table] => Ok(table),
        [] => Err(Failure::Engine(format!(
            "table `{name}` does not exist: \\d lists what is visible"
        ))),
        several => {
            let paths: Vec<String> = several.iter().map(|table| path(table)).collect();
            Err(Failure::Usage(format!(
                "several tables are called `{name}`: name one of {}",
                paths.join(", ")
            )))
        }
    }
}

/// Whether a statement leaves all names as they are.
fn only_reads(sql: &str) -> bool {
    let keyword = sql
        .split(|character: char| !character.is_ascii_alphabetic())
        .next();
    let readers = ["select", "with", "values", "explain", "show", "describe"];
    keyword.is_some_and(|keyword| {
        readers
            .iter()
            .any(|reader| reader.eq_ignore_ascii_case(keyword))
    })
}
