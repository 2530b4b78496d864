//! The crate's error: one kind for each thing that a caller does about it.
//!
//! The text of every kind is public: it goes to the client as it stands, so it
//! never holds another tenant's values, names, paths or counts. What only the
//! operator may see goes into [`Error::Internal`]'s source and the log.

use std::error::Error as StdError;

pub use crate::backend::BackendError;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, by what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is wrong: change it.
    #[error("{0}")]
    InvalidArgument(String),
    /// The thing named is not there, or not for this caller: name another.
    #[error("{0}")]
    NotFound(String),
    /// The name is taken: choose another, or drop the object first.
    #[error("{0}")]
    AlreadyExists(String),
    /// The caller sees the object but may not do this to it: ask its owner.
    #[error("{0}")]
    PermissionDenied(String),
    /// The request was right for an earlier state: prepare it again.
    #[error("{0}")]
    FailedPrecondition(String),
    /// A limit was hit, whose setting the text names: ask for less, or raise it.
    #[error("{0}")]
    ResourceExhausted(String),
    /// The server does not do this: do without.
    #[error("{0}")]
    Unimplemented(String),
    /// The request may succeed when it is sent again.
    #[error("{0}")]
    Unavailable(String),
    /// A file is damaged or does not match its schema: mend or refresh it.
    #[error("{0}")]
    DataLoss(String),
    /// It took longer than it may, by a setting that the text names: ask for less, or
    /// raise it.
    #[error("{0}")]
    DeadlineExceeded(String),
    /// The caller gave up, or the server is stopping.
    #[error("{0}")]
    Cancelled(String),
    /// The lane's storage refused or failed.
    #[error(transparent)]
    Backend(BackendError),
    /// A defect, or a fault of the machine: report it. The source is for the
    /// log alone.
    #[error("{message}")]
    Internal {
        /// What the client is told.
        message: String,
        /// What the operator is told.
        #[source]
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
}

impl From<BackendError> for Error {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Refused(refusal) => *refusal,
            error => Error::Backend(error),
        }
    }
}

impl Error {
    /// An internal error with its cause.
    pub fn internal(
        message: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Error::Internal {
            message: message.into(),
            source: Some(source.into()),
        }
    }

    /// The code of gRPC for the kind, by which records tell what an embedded session was
    /// answered. What the storage refused is `STORAGE`, but for rows of another tenant.
    pub fn code(&self) -> &'static str {
        match self {
            Error::InvalidArgument(_) => "INVALID_ARGUMENT",
            Error::NotFound(_) => "NOT_FOUND",
            Error::AlreadyExists(_) => "ALREADY_EXISTS",
            Error::PermissionDenied(_) | Error::Backend(BackendError::TenantMismatch { .. }) => {
                "PERMISSION_DENIED"
            }
            Error::FailedPrecondition(_) => "FAILED_PRECONDITION",
            Error::ResourceExhausted(_) => "RESOURCE_EXHAUSTED",
            Error::Unimplemented(_) => "UNIMPLEMENTED",
            Error::Unavailable(_) => "UNAVAILABLE",
            Error::DataLoss(_) => "DATA_LOSS",
            Error::DeadlineExceeded(_) => "DEADLINE_EXCEEDED",
            Error::Cancelled(_) => "CANCELLED",
            Error::Backend(_) => "STORAGE",
            Error::Internal { .. } => "INTERNAL",
        }
    }

    /// The same kind and text again, for a holder that may not give its error
    /// away. The source stays behind.
    pub fn restated(&self) -> Self {
        match self {
            Error::InvalidArgument(text) => Error::InvalidArgument(text.clone()),
            Error::NotFound(text) => Error::NotFound(text.clone()),
            Error::AlreadyExists(text) => Error::AlreadyExists(text.clone()),
            Error::PermissionDenied(text) => Error::PermissionDenied(text.clone()),
            Error::FailedPrecondition(text) => Error::FailedPrecondition(text.clone()),
            Error::ResourceExhausted(text) => Error::ResourceExhausted(text.clone()),
            Error::Unimplemented(text) => Error::Unimplemented(text.clone()),
            Error::Unavailable(text) => Error::Unavailable(text.clone()),
            Error::DataLoss(text) => Error::DataLoss(text.clone()),
            Error::DeadlineExceeded(text) => Error::DeadlineExceeded(text.clone()),
            Error::Cancelled(text) => Error::Cancelled(text.clone()),
            Error::Backend(error) => Error::Backend(error.restated()),
            Error::Internal { message, .. } => Error::Internal {
                message: message.clone(),
                source: None,
            },
        }
    }
}
