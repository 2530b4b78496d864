//! The metadata commands: catalogs, schemas, tables and their types, keys, and
//! what the server says of itself.
//!
//! Architecture invariant: what exists comes from `Engine::tables` under the
//! request's scope and from nowhere else, so a listing shows what a query would
//! find. Tickets of these commands are the commands themselves: they are answered
//! anew, for whoever shows them.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{
    GetCatalogsBuilder, GetDbSchemasBuilder, GetTablesBuilder, SqlInfoData, XdbcTypeInfoData,
};
use arrow_flight::sql::{
    Command, CommandGetCatalogs, CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetSqlInfo,
    CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
};

use crate::catalog::CatalogSnapshot;
use crate::config::JammiConfig;
use crate::engine::{Engine, LOCAL_TEMPORARY, MUTABLE_CATALOG, PUBLIC_SCHEMA, TableEntry};
use crate::error::{Error, Result};
use crate::tenant::Scope;

use super::like::LikePattern;
use super::{sql_info, type_info, unserved};

/// The kinds of tables there are.
const TABLE_TYPES: [&str; 4] = [LOCAL_TEMPORARY, "SYSTEM TABLE", "TABLE", "VIEW"];

/// A command that asks for metadata.
#[derive(Debug)]
pub(super) enum MetadataCommand {
    /// About the server, whatever the request is admitted as: clients ask before
    /// they send the headers of a session.
    Server(ServerCommand),
    /// About what the request's scope shows.
    Catalog(CatalogCommand),
}

/// A command about the server.
#[derive(Debug)]
pub(super) enum ServerCommand {
    SqlInfo(CommandGetSqlInfo),
    XdbcTypeInfo(CommandGetXdbcTypeInfo),
    TableTypes,
}

/// A command about what exists.
#[derive(Debug)]
pub(super) enum CatalogCommand {
    Catalogs,
    DbSchemas(CommandGetDbSchemas),
    Tables(CommandGetTables),
    /// Of a table.
    PrimaryKeys(CommandGetPrimaryKeys),
    /// From a table, to it, or between two. No table refers to another.
    ForeignKeys,
}

impl MetadataCommand {
    /// `command` as a metadata command, or why it is not served.
    pub fn parse(command: Command) -> Result<Self> {
        let server = |command| Ok(MetadataCommand::Server(command));
        let catalog = |command| Ok(MetadataCommand::Catalog(command));
        match command {
            Command::CommandGetSqlInfo(command) => server(ServerCommand::SqlInfo(command)),
            Command::CommandGetXdbcTypeInfo(command) => {
                server(ServerCommand::XdbcTypeInfo(command))
            }
            Command::CommandGetTableTypes(CommandGetTableTypes {}) => {
                server(ServerCommand::TableTypes)
            }
            Command::CommandGetCatalogs(CommandGetCatalogs {}) => catalog(CatalogCommand::Catalogs),
            Command::CommandGetDbSchemas(command) => catalog(CatalogCommand::DbSchemas(command)),
            Command::CommandGetTables(command) => catalog(CatalogCommand::Tables(command)),
            Command::CommandGetPrimaryKeys(command) => {
                catalog(CatalogCommand::PrimaryKeys(command))
            }
            Command::CommandGetExportedKeys(_)
            | Command::CommandGetImportedKeys(_)
            | Command::CommandGetCrossReference(_) => catalog(CatalogCommand::ForeignKeys),
            other => Err(unserved(&other)),
        }
    }
}

/// What the server says of itself, which never changes while it runs.
pub(super) struct ServerInfo {
    sql_info: SqlInfoData,
    type_info: XdbcTypeInfoData,
}

impl ServerInfo {
    /// The information of a server with `config`.
    pub fn new(config: &JammiConfig) -> Result<Self> {
        Ok(ServerInfo {
            sql_info: sql_info::sql_info(config)?,
            type_info: type_info::type_info()?,
        })
    }

    /// The schema of the answer to `command`.
    pub fn schema(&self, command: &ServerCommand) -> SchemaRef {
        match command {
            ServerCommand::SqlInfo(_) => sql_info::readable_schema(&self.sql_info.schema()),
            ServerCommand::XdbcTypeInfo(_) => self.type_info.schema(),
            ServerCommand::TableTypes => CommandGetTableTypes {}.into_builder().schema(),
        }
    }

    /// The answer to `command`.
    pub fn answer(&self, command: ServerCommand) -> Result<RecordBatch> {
        let answer = match command {
            ServerCommand::SqlInfo(command) => command
                .into_builder(&self.sql_info)
                .build()
                .and_then(|batch| Ok(sql_info::with_readable_maps(&batch)?)),
            ServerCommand::XdbcTypeInfo(command) => command.into_builder(&self.type_info).build(),
            ServerCommand::TableTypes => {
                let mut builder = CommandGetTableTypes {}.into_builder();
                TABLE_TYPES.iter().for_each(|kind| builder.append(kind));
                builder.build()
            }
        };
        answer.map_err(cannot_build)
    }
}

/// The schema of the answer to `command`.
pub(super) fn schema(command: &CatalogCommand) -> SchemaRef {
    match command {
        CatalogCommand::Catalogs => GetCatalogsBuilder::new().schema(),
        CatalogCommand::DbSchemas(_) => db_schemas_builder().schema(),
        CatalogCommand::Tables(command) => tables_builder(command.include_schema).schema(),
        CatalogCommand::PrimaryKeys(_) => PRIMARY_KEYS.clone(),
        CatalogCommand::ForeignKeys => FOREIGN_KEYS.clone(),
    }
}

/// The answer to `command` as `scope` sees it.
pub(super) async fn answer(
    scope: &Scope,
    engine: &Engine,
    command: CatalogCommand,
) -> Result<RecordBatch> {
    match command {
        CatalogCommand::Catalogs => catalogs(&engine.tables(scope).await?),
        CatalogCommand::DbSchemas(command) => db_schemas(&engine.tables(scope).await?, &command),
        CatalogCommand::Tables(command) => tables(&engine.tables(scope).await?, &command),
        CatalogCommand::PrimaryKeys(command) => {
            primary_keys(&*engine.catalog().snapshot(scope).await?, &command)
        }
        CatalogCommand::ForeignKeys => Ok(RecordBatch::new_empty(FOREIGN_KEYS.clone())),
    }
}

/// The primary key of the stored table that `command` names; sources have none,
/// and neither has what does not exist.
fn primary_keys(
    snapshot: &CatalogSnapshot,
    command: &CommandGetPrimaryKeys,
) -> Result<RecordBatch> {
    let is_here =
        |given: &Option<String>, only: &str| given.as_deref().is_none_or(|given| given == only);
    let table = snapshot
        .relation(&command.table)
        .filter(|_| is_here(&command.catalog, MUTABLE_CATALOG))
        .filter(|_| is_here(&command.db_schema, PUBLIC_SCHEMA))
        .and_then(|relation| relation.table());
    let key = table.and_then(|table| Some((table, table.primary_key()?)));
    let Some((table, key)) = key else {
        return Ok(RecordBatch::new_empty(PRIMARY_KEYS.clone()));
    };
    let columns = table.index_columns(key);
    let repeated = |text: &str| -> ArrayRef {
        let texts = std::iter::repeat_n(text, columns.len());
        Arc::new(StringArray::from_iter_values(texts))
    };
    RecordBatch::try_new(
        PRIMARY_KEYS.clone(),
        vec![
            repeated(MUTABLE_CATALOG),
            repeated(PUBLIC_SCHEMA),
            repeated(&command.table),
            Arc::new(StringArray::from_iter_values(&columns)),
            repeated(&key.name),
            Arc::new(Int32Array::from_iter_values(1..=columns.len() as i32)),
        ],
    )
    .map_err(|error| Error::internal("the metadata cannot be put together", error))
}

fn catalogs(entries: &[TableEntry]) -> Result<RecordBatch> {
    let mut builder = GetCatalogsBuilder::new();
    let names: BTreeSet<&str> = entries.iter().map(|entry| entry.catalog.as_str()).collect();
    names.into_iter().for_each(|name| builder.append(name));
    builder.build().map_err(cannot_build)
}

fn db_schemas(entries: &[TableEntry], command: &CommandGetDbSchemas) -> Result<RecordBatch> {
    let pattern = command
        .db_schema_filter_pattern
        .as_deref()
        .map(LikePattern::new);
    let names: BTreeSet<(&str, &str)> = entries
        .iter()
        .filter(|entry| is_in_catalog(entry, command.catalog.as_deref()))
        .filter(|entry| fits(&pattern, &entry.schema))
        .map(|entry| (entry.catalog.as_str(), entry.schema.as_str()))
        .collect();
    let mut builder = db_schemas_builder();
    for (catalog, schema) in names {
        builder.append(catalog, schema);
    }
    builder.build().map_err(cannot_build)
}

fn tables(entries: &[TableEntry], command: &CommandGetTables) -> Result<RecordBatch> {
    let schema_pattern = command
        .db_schema_filter_pattern
        .as_deref()
        .map(LikePattern::new);
    let name_pattern = command
        .table_name_filter_pattern
        .as_deref()
        .map(LikePattern::new);
    let kinds = &command.table_types;
    let shown = entries
        .iter()
        .filter(|entry| is_in_catalog(entry, command.catalog.as_deref()))
        .filter(|entry| fits(&schema_pattern, &entry.schema) && fits(&name_pattern, &entry.name))
        .filter(|entry| kinds.is_empty() || kinds.iter().any(|kind| kind == entry.kind));
    let mut builder = tables_builder(command.include_schema);
    let unused = Schema::empty();
    for entry in shown {
        let described = command
            .include_schema
            .then(|| type_info::table_schema(entry));
        let schema = described.as_ref().unwrap_or(&unused);
        builder
            .append(
                &entry.catalog,
                &entry.schema,
                &entry.name,
                entry.kind,
                schema,
            )
            .map_err(cannot_build)?;
    }
    builder.build().map_err(cannot_build)
}

/// An empty catalog name stands for tables without a catalog, of which there are
/// none.
fn is_in_catalog(entry: &TableEntry, catalog: Option<&str>) -> bool {
    catalog.is_none_or(|catalog| entry.catalog == catalog)
}

fn fits(pattern: &Option<LikePattern>, name: &str) -> bool {
    pattern.as_ref().is_none_or(|pattern| pattern.matches(name))
}

/// Rows are chosen here: the builder's own patterns become regular expressions,
/// which fail on odd ones.
fn db_schemas_builder() -> GetDbSchemasBuilder {
    GetDbSchemasBuilder::new(None::<String>, None::<String>)
}

fn tables_builder(include_schema: bool) -> GetTablesBuilder {
    let any = None::<String>;
    GetTablesBuilder::new(any.clone(), any.clone(), any.clone(), any, include_schema)
}

fn cannot_build(error: FlightError) -> Error {
    Error::internal("the metadata cannot be put together", error)
}

static PRIMARY_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
});

static FOREIGN_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
});

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow_flight::IpcMessage;
    use bytes::Bytes;

    use super::*;

    fn entries() -> Vec<TableEntry> {
        let entry = |catalog: &str, schema: &str, name: &str, kind| TableEntry {
            catalog: catalog.into(),
            schema: schema.into(),
            name: name.into(),
            kind,
            arrow_schema: Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)])),
            tenant_column: None,
        };
        vec![
            entry("jammi", "catalog", "sources", "SYSTEM TABLE"),
            entry("jammi", "catalog", "models", "SYSTEM TABLE"),
            entry("inbox", "public", "inbox", "TABLE"),
            entry("a_b", "public", "a_b", "TABLE"),
        ]
    }

    fn column(batch: &RecordBatch, index: usize) -> Vec<String> {
        let column = batch.column(index).as_string::<i32>();
        column
            .iter()
            .map(|value| value.unwrap().to_owned())
            .collect()
    }

    /// The schemas of FlightSql.proto, word for word.
    #[test]
    fn schemas_are_the_standard_s() {
        const FOREIGN: &str = "pk_catalog_name: utf8, pk_db_schema_name: utf8, \
            pk_table_name: utf8 not null, pk_column_name: utf8 not null, fk_catalog_name: utf8, \
            fk_db_schema_name: utf8, fk_table_name: utf8 not null, fk_column_name: utf8 not null, \
            key_sequence: int32 not null, fk_key_name: utf8, pk_key_name: utf8, \
            update_rule: uint8 not null, delete_rule: uint8 not null";
        let server = ServerInfo::new(&JammiConfig::default()).unwrap();
        let tables = |include_schema| {
            schema(&CatalogCommand::Tables(CommandGetTables {
                include_schema,
                ..Default::default()
            }))
        };
        for (schema, want) in [
            (
                schema(&CatalogCommand::Catalogs),
                "catalog_name: utf8 not null",
            ),
            (
                schema(&CatalogCommand::DbSchemas(Default::default())),
                "catalog_name: utf8, db_schema_name: utf8 not null",
            ),
            (
                tables(false),
                "catalog_name: utf8, db_schema_name: utf8, table_name: utf8 not null, \
                 table_type: utf8 not null",
            ),
            (
                tables(true),
                "catalog_name: utf8, db_schema_name: utf8, table_name: utf8 not null, \
                 table_type: utf8 not null, table_schema: bytes not null",
            ),
            (
                server.schema(&ServerCommand::TableTypes),
                "table_type: utf8 not null",
            ),
            (
                schema(&CatalogCommand::PrimaryKeys(Default::default())),
                "catalog_name: utf8, db_schema_name: utf8, table_name: utf8 not null, \
                 column_name: utf8 not null, key_name: utf8, key_sequence: int32 not null",
            ),
            (schema(&CatalogCommand::ForeignKeys), FOREIGN),
            (
                server.schema(&ServerCommand::XdbcTypeInfo(Default::default())),
                "type_name: utf8 not null, data_type: int32 not null, column_size: int32, \
                 literal_prefix: utf8, literal_suffix: utf8, \
                 create_params: list<utf8 not null>, nullable: int32 not null, \
                 case_sensitive: bool not null, searchable: int32 not null, \
                 unsigned_attribute: bool, fixed_prec_scale: bool not null, auto_increment: bool, \
                 local_type_name: utf8, minimum_scale: int32, maximum_scale: int32, \
                 sql_data_type: int32 not null, datetime_subcode: int32, num_prec_radix: int32, \
                 interval_precision: int32",
            ),
        ] {
            let fields: Vec<_> = schema
                .fields()
                .iter()
                .map(|field| in_words(field))
                .collect();
            assert_eq!(fields.join(", "), want);
        }
    }

    fn in_words(field: &Field) -> String {
        let data_type = match field.data_type() {
            DataType::Utf8 => "utf8".to_owned(),
            DataType::Binary => "bytes".to_owned(),
            DataType::Int32 => "int32".to_owned(),
            DataType::UInt8 => "uint8".to_owned(),
            DataType::Boolean => "bool".to_owned(),
            DataType::List(item) => {
                let item = in_words(item);
                format!("list<{}>", item.trim_start_matches("item: "))
            }
            other => panic!("{other} is in no standard schema"),
        };
        let null = if field.is_nullable() { "" } else { " not null" };
        format!("{}: {data_type}{null}", field.name())
    }

    #[test]
    fn answers_have_the_announced_schemas() {
        let server = ServerInfo::new(&JammiConfig::default()).unwrap();
        for command in [
            ServerCommand::SqlInfo(Default::default()),
            ServerCommand::XdbcTypeInfo(Default::default()),
            ServerCommand::TableTypes,
        ] {
            let schema = server.schema(&command);
            assert_eq!(server.answer(command).unwrap().schema(), schema);
        }
        let kinds = server.answer(ServerCommand::TableTypes).unwrap();
        assert_eq!(column(&kinds, 0), TABLE_TYPES);
    }

    #[test]
    fn catalogs_and_schemas_are_those_of_visible_tables() {
        let batch = catalogs(&entries()).unwrap();
        assert_eq!(column(&batch, 0), ["a_b", "inbox", "jammi"]);
        assert_eq!(batch.schema(), schema(&CatalogCommand::Catalogs));
        let check = |catalog: Option<&str>, pattern: Option<&str>, want: &[&str]| {
            let command = CommandGetDbSchemas {
                catalog: catalog.map(Into::into),
                db_schema_filter_pattern: pattern.map(Into::into),
            };
            let batch = db_schemas(&entries(), &command).unwrap();
            let found: Vec<_> = column(&batch, 0)
                .iter()
                .zip(column(&batch, 1))
                .map(|(catalog, schema)| format!("{catalog}.{schema}"))
                .collect();
            assert_eq!(found, want);
        };
        check(None, None, &["a_b.public", "inbox.public", "jammi.catalog"]);
        check(Some("inbox"), None, &["inbox.public"]);
        check(Some(""), None, &[]);
        check(None, Some("cat%"), &["jammi.catalog"]);
        check(None, Some("select 1"), &[]);
    }

    #[test]
    fn tables_are_filtered_and_sorted() {
        let check = |command: CommandGetTables, want: &[&str]| {
            let batch = tables(&entries(), &command).unwrap();
            assert_eq!(column(&batch, 2), want, "{command:?}");
        };
        let all = CommandGetTables::default;
        let name = |pattern: &str| Some(pattern.to_owned());
        check(all(), &["a_b", "inbox", "models", "sources"]);
        check(
            CommandGetTables {
                catalog: name("jammi"),
                ..all()
            },
            &["models", "sources"],
        );
        check(
            CommandGetTables {
                catalog: name(""),
                ..all()
            },
            &[],
        );
        check(
            CommandGetTables {
                db_schema_filter_pattern: name("p_blic"),
                ..all()
            },
            &["a_b", "inbox"],
        );
        check(
            CommandGetTables {
                table_name_filter_pattern: name("%o%"),
                ..all()
            },
            &["inbox", "models", "sources"],
        );
        check(
            CommandGetTables {
                table_name_filter_pattern: name(r"a\_b"),
                ..all()
            },
            &["a_b"],
        );
        check(
            CommandGetTables {
                table_name_filter_pattern: name("select * from t where x = '%("),
                ..all()
            },
            &[],
        );
        check(
            CommandGetTables {
                table_types: vec!["TABLE".into()],
                ..all()
            },
            &["a_b", "inbox"],
        );
        check(
            CommandGetTables {
                table_types: vec!["VIEW".into()],
                ..all()
            },
            &[],
        );
    }

    #[test]
    fn table_schemas_are_ipc_messages() {
        let command = CommandGetTables {
            table_name_filter_pattern: Some("inbox".into()),
            include_schema: true,
            ..Default::default()
        };
        let batch = tables(&entries(), &command).unwrap();
        let bytes = batch.column(4).as_binary::<i32>().value(0);
        let schema = Schema::try_from(IpcMessage(Bytes::copy_from_slice(bytes))).unwrap();
        assert_eq!(schema.field(0).name(), "id");
        assert_eq!(
            schema.field(0).metadata()["ARROW:FLIGHT:SQL:TABLE_NAME"],
            "inbox"
        );
    }
}
