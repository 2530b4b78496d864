//! Looking at the files of a location to fix a source's schema and tenant
//! column. Nothing is recorded here: the caller records what comes back.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::Session;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;

use super::files::{self, SourceFile};
use super::location::{Location, LocationKind, LocationPolicy};
use super::{Stores, format};
use crate::catalog::{NewSource, Source, SourceFormat, TenantColumn};
use crate::error::{Error, Result};
use crate::policy::TenantEncoding;
use crate::tenant::Lane;

/// The tenant column that is taken without being named.
const TENANT_COLUMN: &str = "tenant_id";

/// Files whose schemas are read at a time.
const INFER_CONCURRENCY: usize = 8;

/// Which column says whose a row is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TenantColumnChoice {
    /// `tenant_id`, where the files have it; a column that only looks like one
    /// is refused.
    #[default]
    Infer,
    /// The column of this name.
    Named(String),
    /// None: whoever sees the source sees every row.
    Waived,
}

/// A source to be looked at and recorded.
#[derive(Clone, Debug)]
pub struct RegisterSource {
    /// The name in SQL.
    pub name: String,
    /// A file, a glob or a directory; a path, or a `file://` or `s3://` URL.
    pub location: String,
    /// How the files are encoded; `None` reads it from their names' ending.
    pub format: Option<SourceFormat>,
    /// Which column says whose a row is.
    pub tenant_column: TenantColumnChoice,
}

/// A source that was recorded, and what its registrant should know.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The source as recorded.
    pub source: Arc<Source>,
    /// Sentences for the registrant.
    pub notices: Vec<String>,
}

/// Reads what a request's location holds.
///
/// # Errors
/// `InvalidArgument` or `DataLoss` that names what does not fit: no file, files
/// of several formats, a damaged file, columns of conflicting types, a tenant
/// column that is missing in a file or that only looks like one.
pub async fn inspect(
    session: &dyn Session,
    stores: &Stores,
    policy: &LocationPolicy,
    request: &RegisterSource,
) -> Result<NewSource> {
    let mut location = Location::parse(&request.location, policy)?;
    let store = stores.open(&location)?;
    let mut listed = files::list(&store, &location, policy, None).await;
    // A key without a trailing slash may be what objects start with.
    if !location.is_local() && *location.kind() == LocationKind::File && listed.is_err() {
        let directory = location.clone().into_directory()?;
        if let Ok(files) = files::list(&store, &directory, policy, None).await
            && !files.is_empty()
        {
            location = directory;
            listed = Ok(files);
        }
    }
    let (format, files) = one_format(listed?, &location, request.format)?;
    format::common_compression(format, files.iter().map(|file| file.relative.as_str()))?;

    let partition_fields = files::partition_fields(&files)?;
    let schemas = infer_each(session, &store, format, &files).await?;
    let schema = merge(&schemas, &partition_fields)?;
    let tenant_column = choose_tenant_column(&schema, &request.tenant_column)?;
    if let Some(column) = tenant_column.name()
        && !partition_fields.iter().any(|field| field.name() == column)
    {
        require_in_every_file(column, &schemas)?;
    }
    Ok(NewSource {
        name: request.name.clone(),
        location: location.canonical().to_owned(),
        format,
        tenant_column,
        schema,
        partition_columns: partition_fields
            .iter()
            .map(|field| field.name().clone())
            .collect(),
    })
}

/// Reads what the location of a recorded source holds now.
pub async fn inspect_again(
    session: &dyn Session,
    stores: &Stores,
    policy: &LocationPolicy,
    source: &NewSource,
) -> Result<NewSource> {
    let request = RegisterSource {
        name: source.name.clone(),
        location: source.location.clone(),
        format: Some(source.format),
        tenant_column: match source.tenant_column.name() {
            Some(column) => TenantColumnChoice::Named(column.to_owned()),
            None => TenantColumnChoice::Waived,
        },
    };
    inspect(session, stores, policy, &request).await
}

/// What whoever registered `source` should know about who reads it.
pub fn notices(source: &Source) -> Vec<String> {
    let name = source.sql_name();
    match (source.lane, source.definition.tenant_column.name()) {
        (Lane::Global, None) => vec![format!(
            "{name} is shared and has no tenant column: every tenant reads every row"
        )],
        (Lane::Global, Some(column)) => vec![format!(
            "{name} is shared: a tenant reads the rows whose {column} is its own, \
             and every tenant reads those whose {column} is NULL"
        )],
        (Lane::Tenant(_), Some(column)) => vec![format!(
            "{name} belongs to this tenant, which reads the rows whose {column} is its own or NULL"
        )],
        (Lane::Tenant(_), None) => vec![],
    }
}

fn one_format(
    files: Vec<SourceFile>,
    location: &Location,
    asked: Option<SourceFormat>,
) -> Result<(SourceFormat, Vec<SourceFile>)> {
    let nothing = |what: &str| {
        Error::InvalidArgument(format!(
            "location {:?} holds no {what}: check the path, or name the format",
            location.canonical()
        ))
    };
    let by_ending = |file: &SourceFile| format::by_ending(&file.relative).map(|found| found.0);
    let Some(format) = asked else {
        let mut known = files.iter().filter_map(by_ending);
        let first = known
            .next()
            .ok_or_else(|| nothing("file that ends in .parquet, .csv, .json or .ndjson"))?;
        if let Some(other) = known.find(|other| *other != first) {
            return Err(Error::InvalidArgument(format!(
                "location {:?} holds both {first} and {other} files: name the format, \
                 or give a glob such as *.{first}",
                location.canonical()
            )));
        }
        let files = files
            .into_iter()
            .filter(|f| by_ending(f).is_some())
            .collect();
        return Ok((first, files));
    };
    // In a directory the format chooses files; one that is named, by itself or
    // by a glob, is meant whatever its ending.
    let files: Vec<_> = match location.kind() {
        LocationKind::Directory => files
            .into_iter()
            .filter(|file| by_ending(file) == Some(asked_ending(asked, file)))
            .collect(),
        LocationKind::File | LocationKind::Glob(_) => files,
    };
    if files.is_empty() {
        return Err(nothing(&format!("{format} file")));
    }
    Ok((format, files))
}

/// NDJSON is often kept in files that end in `.json`.
fn asked_ending(asked: Option<SourceFormat>, file: &SourceFile) -> SourceFormat {
    let found = format::by_ending(&file.relative).map(|found| found.0);
    match (asked, found) {
        (Some(SourceFormat::Ndjson), Some(SourceFormat::Json)) => SourceFormat::Json,
        (Some(asked), _) => asked,
        (None, found) => found.unwrap_or(SourceFormat::Parquet),
    }
}

/// Whether a listed file belongs to a recorded source.
pub fn belongs(kind: &LocationKind, format: SourceFormat, file: &SourceFile) -> bool {
    match kind {
        LocationKind::File | LocationKind::Glob(_) => true,
        LocationKind::Directory => {
            format::by_ending(&file.relative).map(|found| found.0)
                == Some(asked_ending(Some(format), file))
        }
    }
}

async fn infer_each(
    session: &dyn Session,
    store: &Arc<dyn ObjectStore>,
    format: SourceFormat,
    files: &[SourceFile],
) -> Result<Vec<(String, SchemaRef)>> {
    // Made before they are streamed: a closure over borrowed files would tie
    // the stream to their lifetime.
    let readings: Vec<_> = files
        .iter()
        .map(|file| infer_one(session, store, format, file))
        .collect();
    futures::stream::iter(readings)
        .buffered(INFER_CONCURRENCY)
        .try_collect()
        .await
}

async fn infer_one(
    session: &dyn Session,
    store: &Arc<dyn ObjectStore>,
    format: SourceFormat,
    file: &SourceFile,
) -> Result<(String, SchemaRef)> {
    let schema = format::infer_schema(session, store, format, &file.meta)
        .await
        .map_err(|error| {
            Error::DataLoss(format!(
                "file {:?} cannot be read as {format}: mend or remove it, \
                         or name another format ({})",
                file.relative,
                first_line(&error)
            ))
        })?;
    if schema.fields().is_empty() {
        let why = match format {
            SourceFormat::Json | SourceFormat::Ndjson => {
                "holds no whole JSON object: it is empty, cut off or no JSON"
            }
            SourceFormat::Csv | SourceFormat::Parquet => "has no columns",
        };
        return Err(Error::DataLoss(format!(
            "file {:?} {why}: mend or remove it, or name another format",
            file.relative
        )));
    }
    Ok((file.relative.clone(), schema))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// One schema of all files' columns, the partition columns last.
fn merge(schemas: &[(String, SchemaRef)], partition_fields: &[Field]) -> Result<SchemaRef> {
    let mut fields: Vec<FieldRef> = vec![];
    for (file, schema) in schemas {
        for (at, field) in schema.fields().iter().enumerate() {
            if schema.fields()[..at]
                .iter()
                .any(|f| f.name() == field.name())
            {
                return Err(Error::InvalidArgument(format!(
                    "file {file:?} has two columns named {:?}: rename one",
                    field.name()
                )));
            }
            merge_field(&mut fields, field, file)?;
        }
    }
    for field in partition_fields {
        if fields.iter().any(|f| f.name() == field.name()) {
            return Err(Error::InvalidArgument(format!(
                "column {:?} is both in the files and in their directories' names: rename one",
                field.name()
            )));
        }
        fields.push(Arc::new(field.clone()));
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn merge_field(fields: &mut Vec<FieldRef>, field: &FieldRef, file: &str) -> Result<()> {
    // A column without a value in the rows that were looked at is text.
    let data_type = match field.data_type() {
        DataType::Null => DataType::Utf8,
        other => other.clone(),
    };
    let Some(known) = fields.iter_mut().find(|f| f.name() == field.name()) else {
        // Another file may lack the column, which then reads as NULL.
        fields.push(Arc::new(Field::new(field.name(), data_type, true)));
        return Ok(());
    };
    if *known.data_type() == data_type {
        return Ok(());
    }
    let wider = match (known.data_type(), &data_type) {
        (a, b) if a.is_integer() && b.is_integer() => Some(DataType::Int64),
        (a, b) if a.is_numeric() && b.is_numeric() => Some(DataType::Float64),
        _ => None,
    };
    match wider {
        Some(wider) => {
            *known = Arc::new(Field::new(field.name(), wider, true));
            Ok(())
        }
        None => Err(Error::InvalidArgument(format!(
            "column {:?} is {data_type} in file {file:?} and {} in another: \
             give the files one type, or register them as several sources",
            field.name(),
            known.data_type()
        ))),
    }
}

fn choose_tenant_column(schema: &SchemaRef, choice: &TenantColumnChoice) -> Result<TenantColumn> {
    let column = match choice {
        TenantColumnChoice::Waived => return Ok(TenantColumn::Absent),
        TenantColumnChoice::Named(column) => column.as_str(),
        TenantColumnChoice::Infer => {
            let lookalikes: Vec<&str> = schema
                .fields()
                .iter()
                .map(|field| field.name().as_str())
                .filter(|name| *name != TENANT_COLUMN && looks_like_tenant_column(name))
                .collect();
            let exact = schema.field_with_name(TENANT_COLUMN).is_ok();
            match (exact, lookalikes.as_slice()) {
                (true, []) => TENANT_COLUMN,
                (false, []) => return Ok(TenantColumn::Absent),
                (_, [lookalike, ..]) => {
                    return Err(Error::InvalidArgument(format!(
                        "column {lookalike:?} looks like a tenant column: say \
                         `--tenant-column {}` if it says whose a row is, or \
                         `--no-tenant-column` if every reader may see every row \
                         (tenant_column in the RPC, empty for none)",
                        if exact { TENANT_COLUMN } else { lookalike }
                    )));
                }
            }
        }
    };
    let field = schema.field_with_name(column).map_err(|_| {
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        Error::InvalidArgument(format!(
            "tenant column {column:?} is not a column of the files: they have {}",
            names.join(", ")
        ))
    })?;
    let encoding = TenantEncoding::of(field.data_type()).ok_or_else(|| {
        Error::InvalidArgument(format!(
            "tenant column {column:?} is {}: a tenant is a UUID as text or as 16 bytes",
            field.data_type()
        ))
    })?;
    Ok(TenantColumn::Named {
        column: column.to_owned(),
        encoding,
    })
}

/// `Tenant_ID`, `tenantId`, `tenant` and their like.
fn looks_like_tenant_column(name: &str) -> bool {
    let plain: String = name
        .chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect();
    matches!(
        plain.as_str(),
        "tenantid" | "tenant" | "tenantuuid" | "tenantguid"
    )
}

/// A file without the column would read as NULL there, and its rows as shared.
fn require_in_every_file(column: &str, schemas: &[(String, SchemaRef)]) -> Result<()> {
    match schemas
        .iter()
        .find(|(_, schema)| schema.field_with_name(column).is_err())
    {
        None => Ok(()),
        Some((file, _)) => Err(Error::InvalidArgument(format!(
            "file {file:?} has no tenant column {column:?}, and its rows would be everybody's: \
             add the column, or register the file as a source of its own"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
        Arc::new(Schema::new(
            fields
                .iter()
                .map(|(name, data_type)| Field::new(*name, data_type.clone(), true))
                .collect::<Vec<_>>(),
        ))
    }

    #[test]
    fn a_lookalike_stops_the_registration_until_it_is_named_or_waived() {
        use TenantColumnChoice::*;
        for name in ["Tenant_ID", "tenantId", "TENANT", "tenant-id"] {
            let schema = schema(&[("id", DataType::Int64), (name, DataType::Utf8)]);
            let error = choose_tenant_column(&schema, &Infer).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
            let named = choose_tenant_column(&schema, &Named(name.into())).unwrap();
            assert_eq!(named.name(), Some(name));
            let waived = choose_tenant_column(&schema, &Waived).unwrap();
            assert_eq!(waived, TenantColumn::Absent);
        }
        let both = schema(&[("tenant_id", DataType::Utf8), ("tenantId", DataType::Utf8)]);
        assert!(choose_tenant_column(&both, &Infer).is_err());
        let plain = schema(&[("id", DataType::Int64), ("tenancy", DataType::Utf8)]);
        assert_eq!(
            choose_tenant_column(&plain, &Infer).unwrap(),
            TenantColumn::Absent
        );
    }

    #[test]
    fn a_tenant_column_of_another_type_or_name_is_refused() {
        let schema = schema(&[("tenant_id", DataType::Int64)]);
        for (choice, says) in [
            (TenantColumnChoice::Infer, "is Int64"),
            (
                TenantColumnChoice::Named("owner".into()),
                "they have tenant_id",
            ),
        ] {
            let error = choose_tenant_column(&schema, &choice).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn schemas_merge_where_no_value_is_lost() {
        let file = |name: &str, data_type| (name.to_owned(), schema(&[("a", data_type)]));
        let merged = |a, b| merge(&[file("1", a), file("2", b)], &[]);
        let ints = merged(DataType::Int32, DataType::Int64).unwrap();
        assert_eq!(*ints.field(0).data_type(), DataType::Int64);
        let floats = merged(DataType::Int64, DataType::Float64).unwrap();
        assert_eq!(*floats.field(0).data_type(), DataType::Float64);
        let error = merged(DataType::Utf8, DataType::Int64).unwrap_err();
        assert!(
            error.to_string().contains("\"a\" is Int64 in file \"2\""),
            "{error}"
        );
    }
}
