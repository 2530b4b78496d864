//! The commands of the shell itself, which start with `\`.

use clap::ValueEnum;

use super::super::args::OutputFormat;
use crate::tenant::TenantId;

/// What `\?` prints.
pub const HELP: &str = "\
\\d                list tables
\\d TABLE          describe a table
\\tenant           show the tenant that statements are for
\\tenant UUID      work for a tenant
\\tenant -         work for no tenant, on the shared rows alone
\\format FORMAT    write rows as table, csv, json or ndjson
\\timing [on|off]  show how long statements take
\\?                this help
\\q                leave; so does Ctrl-D
Statements end with `;`. Ctrl-C cancels the one that runs. Tab completes names.";

/// The names of the commands, for completion.
pub const NAMES: [&str; 6] = ["\\d", "\\tenant", "\\format", "\\timing", "\\?", "\\q"];

/// A command of the shell.
#[derive(Debug, PartialEq, Eq)]
pub enum ShellCommand {
    /// `\d`.
    Tables,
    /// `\d TABLE`.
    Columns(String),
    /// `\tenant`.
    ShowTenant,
    /// `\tenant UUID`, or `\tenant -` for none.
    BindTenant(Option<TenantId>),
    /// `\timing`, with what it is to be unless it is to be the other.
    Timing(Option<bool>),
    /// `\format FORMAT`.
    Format(OutputFormat),
    /// `\?`.
    Help,
    /// `\q`.
    Quit,
}

/// Whether `input` is for the shell, not for the engine. The words that people
/// try first are among them.
pub fn is_command(input: &str) -> bool {
    let input = input.trim();
    input.starts_with('\\') || word_command(input).is_some()
}

impl ShellCommand {
    /// Reads a command, or says what is wrong with it.
    pub fn parse(input: &str) -> Result<Self, String> {
        let input = input.trim();
        if let Some(command) = word_command(input) {
            return Ok(command);
        }
        let input = input.trim_end_matches(|end: char| end == ';' || end.is_whitespace());
        let words: Vec<&str> = input.split_whitespace().collect();
        match words.as_slice() {
            ["\\d"] => Ok(ShellCommand::Tables),
            ["\\d", name] => Ok(ShellCommand::Columns((*name).to_owned())),
            ["\\tenant"] => Ok(ShellCommand::ShowTenant),
            ["\\tenant", "-"] => Ok(ShellCommand::BindTenant(None)),
            ["\\tenant", id] => match id.parse() {
                Ok(tenant) => Ok(ShellCommand::BindTenant(Some(tenant))),
                Err(error) => Err(format!("{error}")),
            },
            ["\\timing"] => Ok(ShellCommand::Timing(None)),
            ["\\timing", "on"] => Ok(ShellCommand::Timing(Some(true))),
            ["\\timing", "off"] => Ok(ShellCommand::Timing(Some(false))),
            ["\\format", name] => OutputFormat::from_str(name, true)
                .map(ShellCommand::Format)
                .map_err(|_| {
                    format!("format {name:?} is not known: use table, csv, json or ndjson")
                }),
            ["\\?" | "\\h" | "\\help"] => Ok(ShellCommand::Help),
            ["\\q"] => Ok(ShellCommand::Quit),
            _ => Err(format!("{input} is not a command: \\? lists the commands")),
        }
    }
}

fn word_command(input: &str) -> Option<ShellCommand> {
    match input.trim_end_matches(';') {
        "exit" | "quit" => Some(ShellCommand::Quit),
        "help" => Some(ShellCommand::Help),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_sql() {
        let tenant = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a";
        let bind = format!("\\tenant {tenant};");
        for (input, expected) in [
            ("\\d", Some(ShellCommand::Tables)),
            (" \\d inbox ;", Some(ShellCommand::Columns("inbox".into()))),
            ("\\tenant", Some(ShellCommand::ShowTenant)),
            ("\\tenant -", Some(ShellCommand::BindTenant(None))),
            (&bind, Some(ShellCommand::BindTenant(tenant.parse().ok()))),
            ("\\timing", Some(ShellCommand::Timing(None))),
            ("\\timing off", Some(ShellCommand::Timing(Some(false)))),
            (
                "\\format CSV",
                Some(ShellCommand::Format(OutputFormat::Csv)),
            ),
            ("\\?", Some(ShellCommand::Help)),
            ("exit", Some(ShellCommand::Quit)),
            ("quit;", Some(ShellCommand::Quit)),
            ("\\q", Some(ShellCommand::Quit)),
            ("\\tenant me", None),
            ("\\format xml", None),
            ("\\unknown", None),
            ("\\d a b", None),
        ] {
            assert!(is_command(input), "{input}");
            assert_eq!(ShellCommand::parse(input).ok(), expected, "{input}");
        }
        for sql in ["", "select 1;", "select '\\d'", "exits", "help me"] {
            assert!(!is_command(sql), "{sql}");
        }
    }
}
