//! What the command line accepts and refuses.

use clap::CommandFactory;

use super::args::{Cli, Command, OutputFormat, SourcesCommand};
use crate::catalog::SourceFormat;

const TENANT: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a";

fn parse(line: &str) -> Result<Cli, clap::Error> {
    let words = line.replace("TENANT", TENANT);
    Cli::read(
        std::iter::once("jammi")
            .chain(words.split_whitespace())
            .map(Into::into),
    )
}

#[test]
fn the_parser_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn command_lines_are_accepted_or_refused() {
    for (line, accepted) in [
        ("", true),
        ("shell", true),
        ("--tenant TENANT sources list", true),
        ("sources list --tenant TENANT", true),
        ("--tenant nobody sources list", false),
        (
            "--tenant 00000000-0000-0000-0000-000000000000 sources list",
            false,
        ),
        ("--url grpc://127.0.0.1:1 sources list", true),
        ("sources list --url grpc+tcp://127.0.0.1:1", true),
        ("--url http://127.0.0.1:1 sources list", false),
        (
            "--url grpc://127.0.0.1:1 --artifact-dir d sources list",
            false,
        ),
        (
            "--url grpc://127.0.0.1:1 sources list --artifact-dir d",
            false,
        ),
        (
            "sources add inbox data/ --format csv --tenant-column owner",
            true,
        ),
        ("sources add inbox data/ --no-tenant-column", true),
        (
            "sources add inbox data/ --no-tenant-column --tenant-column owner",
            false,
        ),
        ("sources add inbox data/ --format xml", false),
        ("sources add inbox", false),
        ("sources describe inbox --format json", true),
        ("sources refresh inbox", true),
        ("tables list --format json", true),
        ("tables describe notes", true),
        ("tables drop notes", true),
        (
            "tables create notes --schema-from notes.parquet --primary-key a,b --unique c",
            true,
        ),
        (
            "tables create notes --columns id --unique a --unique b,c --if-not-exists",
            true,
        ),
        (
            "tables create notes --columns id --schema-from notes.parquet",
            false,
        ),
        ("tables create notes", false),
        ("--tenant TENANT backup file", true),
        ("restore file --tenant TENANT --artifact-dir d", true),
        ("backup", false),
        ("models register m 1 s3://bucket/m", true),
        ("models list m --format csv", true),
        ("models drop m", false),
        ("query SELECT", true),
        ("query -c SELECT -o rows.parquet --format parquet", true),
        ("query -f - --format ndjson", true),
        ("query", false),
        ("query SELECT -c SELECT", false),
        ("query SELECT -f file.sql", false),
        ("query SELECT --format xml", false),
        (
            "serve --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 --artifact-dir d --sample",
            true,
        ),
        ("--url grpc://127.0.0.1:1 --user alice shell", true),
        ("query SELECT --user alice --password-file f", true),
        ("keys create alice --user alice", true),
        ("query SELECT --password-file f", false),
        ("query SELECT --user alice --password secret", false),
        ("config show", true),
        ("frobnicate", false),
    ] {
        match parse(line) {
            Ok(_) => assert!(accepted, "{line:?} was accepted"),
            Err(error) => {
                assert!(!accepted, "{line:?}: {error}");
                assert_eq!(error.exit_code(), 2, "{line:?}");
            }
        }
    }
}

#[test]
fn the_two_formats_are_kept_apart() {
    let cli = parse("sources add inbox data/ --format CSV").ok();
    assert!(cli.is_none(), "formats are spelled in lower case");
    let Ok(Cli {
        command: Some(Command::Sources(SourcesCommand::Add(add))),
        ..
    }) = parse("sources add inbox data/ --format ndjson")
    else {
        panic!("not a source to add");
    };
    assert_eq!(add.format, Some(SourceFormat::Ndjson));
    let Ok(Cli {
        command: Some(Command::Query(query)),
        ..
    }) = parse("query x")
    else {
        panic!("not a query");
    };
    assert_eq!(query.format.format, OutputFormat::Table);
}
