//! Statements about the transaction that a session has open: BEGIN, COMMIT and
//! the like. The engine reads them; whoever keeps sessions acts on them.

use datafusion::sql::sqlparser::ast::{self, TransactionAccessMode, TransactionMode};

use super::define::folded;
use crate::error::{Error, Result};

/// What a session is to do with its transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionControl {
    /// `BEGIN`, `START TRANSACTION`.
    Begin,
    /// `COMMIT`, `END`.
    Commit,
    /// `ROLLBACK`.
    Rollback,
    /// `SAVEPOINT name`.
    Savepoint(String),
    /// `ROLLBACK TO name`.
    RollbackTo(String),
    /// `RELEASE name`.
    Release(String),
}

/// Reads a statement about transactions. Every transaction is serializable, so
/// each isolation level that can be asked for is given.
pub(super) fn read(statement: &ast::Statement) -> Result<TransactionControl> {
    use ast::Statement::*;
    match statement {
        StartTransaction {
            modes,
            begin: _,
            transaction: _,
            modifier: None,
            statements,
            exception: None,
            has_end_keyword: false,
        } if statements.is_empty() => {
            let read_only = TransactionMode::AccessMode(TransactionAccessMode::ReadOnly);
            if modes.contains(&read_only) {
                return Err(Error::Unimplemented(
                    "READ ONLY in BEGIN is not served: leave it out".into(),
                ));
            }
            Ok(TransactionControl::Begin)
        }
        Commit {
            chain: false,
            end: _,
            modifier: None,
        } => Ok(TransactionControl::Commit),
        Rollback {
            chain: false,
            savepoint: None,
        } => Ok(TransactionControl::Rollback),
        Rollback {
            chain: false,
            savepoint: Some(name),
        } => Ok(TransactionControl::RollbackTo(folded(name))),
        Savepoint { name } => Ok(TransactionControl::Savepoint(folded(name))),
        ReleaseSavepoint { name } => Ok(TransactionControl::Release(folded(name))),
        other => Err(Error::Unimplemented(format!(
            "`{other}` is not served: send BEGIN, COMMIT, ROLLBACK, SAVEPOINT name, ROLLBACK TO \
             name or RELEASE name"
        ))),
    }
}
