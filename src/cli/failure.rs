//! Why a command ended, as text for stderr and as an exit code for scripts.
//!
//! Architecture invariant: the text of a failed statement is the engine's own,
//! word for word, whether the engine is in this process or behind a server.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use arrow::error::ArrowError;
use arrow_flight::error::FlightError;
use tonic::Status;

use crate::error::Error;

/// A result of the command line.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why a command ended early.
#[derive(Debug)]
pub enum Failure {
    /// The command cannot be run as given: change the command line, the
    /// configuration or the files that it names.
    Usage(String),
    /// Nothing that answers is at the target: check the address or directory.
    Connection(String),
    /// The engine refused or failed.
    Engine(String),
    /// Rows could not be written to where they should go.
    Output(String),
    /// Whoever read the output has gone. Nothing is said about it.
    OutputClosed,
    /// The user pressed Ctrl-C.
    Interrupted,
}

impl Failure {
    /// The exit code: 1 for the engine and its rows, 2 for usage and
    /// connection, and what a shell reports for the two signals.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Engine(_) | Failure::Output(_) => 1,
            Failure::Usage(_) | Failure::Connection(_) => 2,
            Failure::Interrupted => 130,
            Failure::OutputClosed => 141,
        }
    }

    /// What is printed after `error: `, unless the failure is a silent one.
    pub fn message(&self) -> Option<&str> {
        match self {
            Failure::Usage(text)
            | Failure::Connection(text)
            | Failure::Engine(text)
            | Failure::Output(text) => Some(text),
            Failure::Interrupted => Some("cancelled"),
            Failure::OutputClosed => None,
        }
    }

    /// The same failure with `context` before its text, where it has one that
    /// is about a statement.
    pub fn in_context(self, context: impl fmt::Display) -> Self {
        match self {
            Failure::Engine(text) => Failure::Engine(format!("{context}: {text}")),
            other => other,
        }
    }

    /// A failure to read or write what `subject` names.
    pub fn output(subject: impl fmt::Display, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Failure::OutputClosed
        } else {
            Failure::Output(format!("cannot write {subject}: {error}"))
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Engine(error.to_string())
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        match transport_cause(&status) {
            Some(cause) => Failure::Connection(format!("the connection was lost: {cause}")),
            None if status.message().is_empty() => {
                Failure::Engine(format!("the server answered {}", status.code()))
            }
            None => Failure::Engine(status.message().to_owned()),
        }
    }
}

impl From<FlightError> for Failure {
    fn from(error: FlightError) -> Self {
        match error {
            FlightError::Tonic(status) => Failure::from(*status),
            FlightError::Arrow(error) => Failure::from(error),
            FlightError::NotYetImplemented(text)
            | FlightError::ProtocolError(text)
            | FlightError::DecodeError(text) => {
                Failure::Engine(format!("the server's answer cannot be read: {text}"))
            }
            FlightError::ExternalError(error) => {
                Failure::Engine(format!("the server's answer cannot be read: {error}"))
            }
        }
    }
}

impl From<ArrowError> for Failure {
    fn from(error: ArrowError) -> Self {
        Failure::Engine(error.to_string())
    }
}

/// The innermost error of a connection that broke, or `None` for a status that
/// a server sent.
fn transport_cause(status: &Status) -> Option<String> {
    status.source().map(root_cause)
}

/// The text of the innermost source, which is where transports say what went
/// wrong.
pub(super) fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_can_tell_failures_apart() {
        for (failure, code, message) in [
            (Failure::from(Error::NotFound("no".into())), 1, Some("no")),
            (Failure::from(Status::not_found("no")), 1, Some("no")),
            (
                Failure::from(FlightError::from(Status::not_found("no"))),
                1,
                Some("no"),
            ),
            (Failure::Usage("use".into()), 2, Some("use")),
            (Failure::Connection("gone".into()), 2, Some("gone")),
            (
                Failure::output("x.csv", &io::Error::from(io::ErrorKind::BrokenPipe)),
                141,
                None,
            ),
            (Failure::Interrupted, 130, Some("cancelled")),
        ] {
            assert_eq!(failure.exit_code(), code, "{failure:?}");
            assert_eq!(failure.message(), message, "{failure:?}");
        }
    }

    #[test]
    fn a_status_from_a_broken_connection_is_no_engine_error() {
        let broken = Status::from_error(Box::new(io::Error::from(io::ErrorKind::ConnectionReset)));
        assert_eq!(Failure::from(broken).exit_code(), 2);
    }

    #[test]
    fn context_goes_before_statement_errors_alone() {
        let failure = Failure::Engine("no".into()).in_context("statement 2");
        assert_eq!(failure.message(), Some("statement 2: no"));
        let failure = Failure::Connection("gone".into()).in_context("statement 2");
        assert_eq!(failure.message(), Some("gone"));
    }
}
