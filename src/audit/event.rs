//! What one record says.

use serde::{Deserialize, Serialize};

/// The outcome of what ran to its end.
pub const OK: &str = "OK";
/// The outcome of what its client gave up, or what was cut off.
pub const CANCELLED: &str = "CANCELLED";

/// The method of a record that says to a tenant that somebody read its rows who need
/// not act for it.
pub const BYPASS: &str = "bypass";

/// One request or statement, as it is recorded when it has ended. The fields are the
/// columns of `jammi.audit.events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// A UUID of version 7, which no other record has.
    pub id: String,
    /// When it had ended, in microseconds since 1970.
    pub time: i64,
    /// The name of the request in its answer and in the log.
    pub request_id: Option<String>,
    /// The trace that the client said it belongs to.
    pub trace_id: Option<String>,
    /// The tenant that it was bound to.
    pub tenant_id: Option<String>,
    /// Who asked, as `realm:user`; nothing where nobody was authenticated.
    pub user_name: Option<String>,
    /// The roles of whoever asked.
    pub roles: Vec<String>,
    /// The session, as a hash by a key of the trail.
    pub session: Option<String>,
    /// The address that it came from.
    pub peer: Option<String>,
    /// The path of the RPC, or the name of the call of an embedded session.
    pub method: String,
    /// The text of the statement, as `audit.statements` says.
    pub statement: Option<String>,
    /// The tables, views and sources that it named, by their full names.
    pub tables: Vec<String>,
    /// The lanes that the scans of those were confined to.
    pub scopes: Vec<String>,
    /// Why they were confined to those: `own`, `above`, `shared`, `bypass`.
    pub policies: Vec<String>,
    /// Rows that were answered, or those that were written.
    pub rows: i64,
    /// Bytes of the answer.
    pub bytes: i64,
    /// How long it took, in microseconds.
    pub duration_us: i64,
    /// The code of gRPC that it ended with.
    pub outcome: String,
    /// Why it read rows of tenants for whom whoever asked need not act.
    pub bypass_reason: Option<String>,
}
