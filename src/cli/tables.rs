//! `jammi tables`.

use std::path::Path;

use arrow::datatypes::Schema;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::{IpcMessage, SchemaAsIpc};
use futures::TryStreamExt;

use super::args::{CreateTableArgs, OutputFormat, TablesCommand};
use super::failure::Outcome;
use super::output::Output;
use super::sources::{say, show};
use super::target::Target;
use super::{schema_file, table_rows};
use crate::server::proto::catalog::{CreateTableRequest, IndexKind, Table, UniqueConstraint};

/// Runs one of the commands about tables.
pub async fn run(target: &Target, command: TablesCommand) -> Outcome {
    match command {
        TablesCommand::List(output) => {
            let tables = target.stored_tables().await?;
            show(output, |output| output.batch(&table_rows::list(&tables)?))
        }
        TablesCommand::Describe { name, output } => {
            let table = target.stored_table(&name).await?;
            show(output, |output| describe(&table, output))
        }
        TablesCommand::Create(args) => create(target, args).await,
        TablesCommand::Drop { name } => {
            target.drop_table(&name).await?;
            say(&format!("dropped table {name}"))
        }
    }
}

async fn create(target: &Target, args: CreateTableArgs) -> Outcome {
    let table = match &args.schema_from {
        Some(file) => target.create_table(request(&args, file)?).await?,
        None => {
            let rows = target.query(&statement(&args)).await?;
            rows.try_for_each(async |_| Ok(())).await?;
            target.stored_table(&args.name).await?
        }
    };
    let (name, shape) = (&table.sql_name, shape(&table));
    say(&match args.if_not_exists {
        true => format!("{name} is there ({shape})"),
        false => format!("created {name} ({shape})"),
    })
}

fn request(args: &CreateTableArgs, file: &Path) -> Outcome<CreateTableRequest> {
    Ok(CreateTableRequest {
        name: args.name.clone(),
        schema: message(schema_file::read(file)?.as_ref())?,
        primary_key: args.primary_key.clone(),
        unique: unique(args)
            .map(|columns| UniqueConstraint {
                columns: columns.map(str::to_owned).collect(),
            })
            .collect(),
        if_not_exists: args.if_not_exists,
    })
}

/// The columns of each `--unique`.
fn unique(args: &CreateTableArgs) -> impl Iterator<Item = impl Iterator<Item = &str>> {
    args.unique.iter().map(|columns| columns.split(','))
}

/// A schema as clients send it.
fn message(schema: &Schema) -> Outcome<Vec<u8>> {
    let options = IpcWriteOptions::default();
    let message = IpcMessage::try_from(SchemaAsIpc::new(schema, &options))?;
    Ok(message.0.to_vec())
}

/// The SQL for columns that are given as SQL.
fn statement(args: &CreateTableArgs) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let list = |columns: &mut dyn Iterator<Item = &str>| {
        let quoted: Vec<String> = columns.map(quoted).collect();
        quoted.join(", ")
    };
    let mut parts = vec![args.columns.clone().unwrap_or_default()];
    if !args.primary_key.is_empty() {
        let columns = list(&mut args.primary_key.iter().map(String::as_str));
        parts.push(format!("PRIMARY KEY ({columns})"));
    }
    parts.extend(unique(args).map(|mut columns| format!("UNIQUE ({})", list(&mut columns))));
    let if_not_exists = match args.if_not_exists {
        true => "IF NOT EXISTS ",
        false => "",
    };
    // Line feeds, because what was given may end in a comment.
    format!(
        "CREATE TABLE {if_not_exists}mutable.public.{} ({}\n)",
        quoted(&args.name),
        parts.join("\n, ")
    )
}

/// For people, facts, columns and constraints below each other; for programs,
/// one row that has all of them.
pub fn describe(table: &Table, output: &mut Output) -> Outcome {
    match output.format() {
        OutputFormat::Table => {
            output.batch(&table_rows::sheet(table)?)?;
            output.batch(&table_rows::columns(&table.columns)?)?;
            if table.indexes.is_empty() && table.checks.is_empty() {
                return Ok(());
            }
            output.batch(&table_rows::constraints(table)?)
        }
        _ => output.batch(&table_rows::whole(table)?),
    }
}

/// A few words on what the table is.
fn shape(table: &Table) -> String {
    let columns = match table.columns.len() {
        1 => "1 column".to_owned(),
        count => format!("{count} columns"),
    };
    let key = table
        .indexes
        .iter()
        .find(|index| index.kind() == IndexKind::PrimaryKey)
        .map_or_else(
            || "no primary key".to_owned(),
            |index| format!("primary key {}", index.columns.join(", ")),
        );
    format!("{columns}, {key}")
}

/// Whether the tables of a schema are stored ones and views.
pub fn is_stored(catalog: &str, schema: &str) -> bool {
    (catalog, schema) == ("mutable", "public")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::proto::catalog::{Column, TableIndex};

    #[test]
    fn columns_become_a_statement() {
        let args = |primary_key: &[&str], unique: &[&str], if_not_exists| CreateTableArgs {
            name: "My \"notes\"".into(),
            schema_from: None,
            columns: Some("id BIGINT, a INT -- last".into()),
            primary_key: primary_key.iter().map(|key| (*key).to_owned()).collect(),
            unique: unique.iter().map(|key| (*key).to_owned()).collect(),
            if_not_exists,
        };
        assert_eq!(
            statement(&args(&[], &[], false)),
            "CREATE TABLE mutable.public.\"My \"\"notes\"\"\" (id BIGINT, a INT -- last\n)"
        );
        assert_eq!(
            statement(&args(&["id"], &["a", "id,a"], true)),
            "CREATE TABLE IF NOT EXISTS mutable.public.\"My \"\"notes\"\"\" (id BIGINT, a INT -- \
             last\n, PRIMARY KEY (\"id\")\n, UNIQUE (\"a\")\n, UNIQUE (\"id\", \"a\")\n)"
        );
    }

    #[test]
    fn a_tables_shape_is_its_columns_and_key() {
        let mut table = Table {
            columns: vec![Column::default(); 3],
            ..Table::default()
        };
        assert_eq!(shape(&table), "3 columns, no primary key");
        table.indexes.push(TableIndex {
            name: "notes_pkey".into(),
            kind: IndexKind::PrimaryKey.into(),
            columns: vec!["id".into(), "day".into()],
        });
        assert_eq!(shape(&table), "3 columns, primary key id, day");
    }
}
