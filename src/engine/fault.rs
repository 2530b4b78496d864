//! DataFusion's errors as ours. What a statement's author can mend keeps
//! DataFusion's text; a defect gets one text of ours, and its detail the log.

use datafusion::common::DataFusionError;

use crate::error::Error;

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
        DataFusionError::SchemaError(schema, _) => {
            Error::InvalidArgument(plain(&schema.to_string()))
        }
        DataFusionError::NotImplemented(text) => Error::Unimplemented(plain(text)),
        DataFusionError::ResourcesExhausted(text) => Error::ResourceExhausted(format!(
            "the statement needs more memory than the setting engine.memory_bytes leaves it: \
             ask for less at a time, or raise it ({})",
            plain(text)
        )),
        DataFusionError::ParquetError(_)
        | DataFusionError::ObjectStore(_)
        | DataFusionError::IoError(_) => unreadable(error),
        DataFusionError::ExecutionJoin(_)
        | DataFusionError::Internal(_)
        | DataFusionError::Ffi(_) => defect(error),
    }
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
        IoError(..) | IpcError(_) | ParquetError(_) | AvroError(_) => {
            Error::DataLoss(plain(&error.to_string()))
        }
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

fn unreadable(error: &DataFusionError) -> Error {
    Error::DataLoss(format!(
        "a file cannot be read: {}",
        plain(&error.strip_backtrace())
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
