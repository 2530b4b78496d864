//! DataFusion's errors as ours. What a statement's author can mend keeps
//! DataFusion's text; a defect gets one text of ours, and its detail the log.

use datafusion::common::{Column, DataFusionError, SchemaError};

use super::shares::ALL_IN_USE;
use crate::error::Error;
use crate::source::reader_text;

/// Columns that an error lists.
const COLUMNS_NAMED: usize = 20;

/// An error from naming, analyzing, optimizing or physical planning.
pub(super) fn planning(error: DataFusionError) -> Error {
    translate(&error)
}

/// An error from a running plan.
pub(super) fn execution(error: DataFusionError) -> Error {
    translate(&error)
}

/// Puts one of our errors into DataFusion's, from where [`translate`] takes it
/// out again.
pub(super) fn carried(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn translate(error: &DataFusionError) -> Error {
    match error {
        DataFusionError::External(inner) => match inner.downcast_ref::<Error>() {
            Some(ours) => ours.restated(),
            None => match inner.downcast_ref::<DataFusionError>() {
                Some(inner) => translate(inner),
                None => defect(error),
            },
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
            translate(inner)
        }
        DataFusionError::Shared(inner) => translate(inner),
        DataFusionError::Collection(errors) => {
            errors.first().map_or_else(|| defect(error), translate)
        }
        DataFusionError::ArrowError(arrow, _) => arrow_error(arrow),
        DataFusionError::SQL(parser, _) => Error::InvalidArgument(plain(&parser.to_string())),
        DataFusionError::Plan(text)
        | DataFusionError::Configuration(text)
        | DataFusionError::Execution(text)
        | DataFusionError::Substrait(text) => Error::InvalidArgument(plain(text)),
        DataFusionError::SchemaError(schema, _) => Error::InvalidArgument(schema_error(schema)),
        DataFusionError::NotImplemented(text) => Error::Unimplemented(plain(text)),
        DataFusionError::ResourcesExhausted(text) => out_of_memory(text),
        DataFusionError::IoError(io) => ours_within(io).unwrap_or_else(|| unreadable(error)),
        DataFusionError::ParquetError(_) | DataFusionError::ObjectStore(_) => unreadable(error),
        DataFusionError::ExecutionJoin(_)
        | DataFusionError::Internal(_)
        | DataFusionError::Ffi(_) => defect(error),
    }
}

fn out_of_memory(text: &str) -> Error {
    Error::ResourceExhausted(match text.contains(ALL_IN_USE) {
        true => "the memory of all queries, the setting engine.memory_bytes, is in use: send the \
                 statement again later, or raise it"
            .into(),
        false => format!(
            "the statement needs more memory than the setting engine.tenant_memory_bytes leaves \
             it: ask for less at a time, or raise it ({})",
            plain(text)
        ),
    })
}

/// Our error, where a file that we write to gave it.
fn ours_within(io: &std::io::Error) -> Option<Error> {
    io.get_ref()?.downcast_ref().map(Error::restated)
}

fn arrow_error(error: &arrow::error::ArrowError) -> Error {
    use arrow::error::ArrowError::*;
    match error {
        ExternalError(inner) => match inner.downcast_ref::<DataFusionError>() {
            Some(inner) => translate(inner),
            None => match inner.downcast_ref::<Error>() {
                Some(ours) => ours.restated(),
                None => Error::internal(
                    "the statement failed: see the server's log",
                    error.to_string(),
                ),
            },
        },
        IoError(text, io) => ours_within(io).unwrap_or_else(|| Error::DataLoss(plain(text))),
        IpcError(_) | ParquetError(_) | AvroError(_) => Error::DataLoss(plain(&error.to_string())),
        NotYetImplemented(text) => Error::Unimplemented(plain(text)),
        MemoryError(_)
        | CDataInterface(_)
        | DictionaryKeyOverflowError
        | RunEndIndexOverflowError
        | OffsetOverflowError(_) => Error::ResourceExhausted(plain(&error.to_string())),
        ArithmeticOverflow(text)
        | CastError(text)
        | ParseError(text)
        | SchemaError(text)
        | ComputeError(text)
        | InvalidArgumentError(text) => Error::InvalidArgument(plain(text)),
        DivideByZero => Error::InvalidArgument("division by zero".into()),
        CsvError(text) | JsonError(text) => Error::DataLoss(plain(text)),
    }
}

/// A column that is not there, with those that are: the columns of tables that
/// the statement itself names, all of which its author sees.
fn schema_error(error: &SchemaError) -> String {
    let SchemaError::FieldNotFound {
        field,
        valid_fields,
    } = error
    else {
        return plain(&error.to_string());
    };
    let named = field.quoted_flat_name();
    if valid_fields.is_empty() {
        return format!(
            "column {named} does not exist: no table is read there, so name one in FROM, or write \
             text in single quotes"
        );
    }
    let shown = valid_fields.iter().take(COLUMNS_NAMED);
    let shown: Vec<String> = shown.map(Column::quoted_flat_name).collect();
    let more = match valid_fields.len().saturating_sub(COLUMNS_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more, which DESCRIBE lists"),
    };
    let alike = valid_fields.iter().find(|valid| {
        valid.name() != field.name() && valid.name().eq_ignore_ascii_case(field.name())
    });
    let quoted = match alike {
        Some(_) => " (a name with capital letters is written in double quotes)",
        None => "",
    };
    format!(
        "column {named} does not exist: the columns there are {}{more}{quoted}",
        shown.join(", ")
    )
}

fn unreadable(error: &DataFusionError) -> Error {
    Error::DataLoss(format!(
        "a file cannot be read: {}",
        plain(&reader_text(error))
    ))
}

fn defect(error: &DataFusionError) -> Error {
    tracing::error!(%error, "a statement met a defect");
    Error::internal(
        "the statement failed inside the engine: see the server's log under this request's id",
        error.strip_backtrace(),
    )
}

/// The first line, without a backtrace.
fn plain(text: &str) -> String {
    let text = text
        .split(DataFusionError::BACK_TRACE_SEP)
        .next()
        .unwrap_or(text);
    text.trim().trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Symptom: "No field named x" and no mend.
    #[test]
    fn a_missing_column_names_those_that_are_there() {
        let error = |field: &str, valid: &[&str]| {
            schema_error(&SchemaError::FieldNotFound {
                field: Box::new(Column::from_name(field)),
                valid_fields: valid.iter().map(|name| Column::from_name(*name)).collect(),
            })
        };
        let many: Vec<String> = (0..25).map(|at| format!("c{at}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for (field, valid, says) in [
            (
                "x",
                &[][..],
                "column x does not exist: no table is read there",
            ),
            ("x", &["id", "title"], "the columns there are id, title"),
            (
                "title",
                &["Title"],
                "are \"Title\" (a name with capital letters",
            ),
            ("x", &many, "c19 and 5 more, which DESCRIBE lists"),
        ] {
            let text = error(field, valid);
            assert!(text.contains(says), "{text}");
        }
    }

    /// Symptom: "Parquet error: Parquet error: EOF".
    #[test]
    fn a_reader_is_named_once() {
        let error = parquet::errors::ParquetError::General("EOF".into());
        let error = unreadable(&DataFusionError::ParquetError(Box::new(error)));
        assert_eq!(
            error.to_string().matches("Parquet error").count(),
            1,
            "{error}"
        );
    }
}
