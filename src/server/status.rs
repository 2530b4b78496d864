//! The one place where errors become gRPC statuses.
//!
//! Invariant: no `_` arm, so that a new kind of error has to be given a code
//! here. A status carries the error's public text; causes go to the log alone.

use std::error::Error as StdError;

use tonic::{Code, Response, Status};

use crate::backend::BackendError;
use crate::error::{Error, Result};

/// What a unary service answers for `result`.
pub fn respond<T>(result: Result<T>) -> Result<Response<T>, Status> {
    match result {
        Ok(message) => Ok(Response::new(message)),
        Err(error) => Err(to_status(&error)),
    }
}

/// The status that a client gets for `error`. Logs the causes that are for the
/// operator alone.
pub fn to_status(error: &Error) -> Status {
    let code = match error {
        Error::InvalidArgument(_) => Code::InvalidArgument,
        Error::NotFound(_) => Code::NotFound,
        Error::AlreadyExists(_) => Code::AlreadyExists,
        Error::PermissionDenied(_) => Code::PermissionDenied,
        Error::FailedPrecondition(_) => Code::FailedPrecondition,
        Error::ResourceExhausted(_) => Code::ResourceExhausted,
        Error::Unimplemented(_) => Code::Unimplemented,
        Error::Unavailable(_) => Code::Unavailable,
        Error::DataLoss(_) => Code::DataLoss,
        Error::DeadlineExceeded(_) => Code::DeadlineExceeded,
        Error::Cancelled(_) => Code::Cancelled,
        Error::Backend(error) => backend_code(error),
        Error::Internal { .. } => Code::Internal,
    };
    if let Some(cause) = error.source() {
        tracing::error!(error = cause, "request failed: {error}");
    }
    match error {
        // Their texts name paths, for the operator who starts a server or copies a
        // lane.
        Error::Backend(
            BackendError::ArtifactDir { .. }
            | BackendError::ServerRunning { .. }
            | BackendError::BackupFile { .. },
        ) => Status::new(
            code,
            "the server's storage cannot be used: ask its operator",
        ),
        error => Status::new(code, error.to_string()),
    }
}

fn backend_code(error: &BackendError) -> Code {
    match error {
        BackendError::TenantMismatch { .. } | BackendError::Erasing { .. } => {
            Code::PermissionDenied
        }
        BackendError::NothingToBackUp { .. } => Code::NotFound,
        BackendError::NewerVersion { .. }
        | BackendError::BackupFile { .. }
        | BackendError::BackupRefused { .. }
        | BackendError::ReadOnly { .. }
        | BackendError::ArtifactDir { .. }
        | BackendError::ServerRunning { .. } => Code::FailedPrecondition,
        BackendError::NoSavepoint { .. } => Code::InvalidArgument,
        BackendError::Corrupt { .. } => Code::DataLoss,
        BackendError::Full { .. }
        | BackendError::LanesExhausted { .. }
        | BackendError::LineExhausted { .. }
        | BackendError::SavepointsExhausted { .. }
        | BackendError::PlacesExhausted { .. }
        | BackendError::FilesExhausted { .. } => Code::ResourceExhausted,
        BackendError::Conflict { .. } => Code::Aborted,
        BackendError::Busy { .. } | BackendError::Replaced { .. } | BackendError::Stopping => {
            Code::Unavailable
        }
        BackendError::Ended => Code::FailedPrecondition,
        // Taken apart where it becomes one of ours.
        BackendError::Refused(_) | BackendError::Statement(_) | BackendError::Storage { .. } => {
            Code::Internal
        }
    }
}
