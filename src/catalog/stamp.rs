//! The stamp of a lane's catalog: whoever has read the sources and relations under
//! it need not read them again as long as it stays.
//!
//! Invariant: whatever writes `sources` or `relations` renews it in the same
//! transaction.

use crate::backend::{BackendError, Transaction};

/// The stamp. Equal ones are of equal content, whenever and by whomever it was
/// written.
pub(super) fn read(transaction: &Transaction<'_>) -> Result<i64, BackendError> {
    let mut statement = transaction
        .connection()
        .prepare_cached("SELECT stamp FROM catalog_stamp")?;
    Ok(statement.query_row([], |row| row.get(0))?)
}

/// Notes that the sources or relations are others now.
pub(super) fn renew(transaction: &Transaction<'_>) -> Result<(), BackendError> {
    let mut statement = transaction
        .connection()
        .prepare_cached("UPDATE catalog_stamp SET stamp = random()")?;
    transaction.redefines();
    match statement.execute([])? {
        1 => Ok(()),
        _ => Err(transaction.corrupt("the catalog has no stamp")),
    }
}
