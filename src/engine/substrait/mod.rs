//! Plans in the format of [Substrait](https://substrait.io): another way to say a
//! query, which is planned and run as one of SQL is.
//!
//! ```text
//! bytes -> version   a release of Substrait that means here what it says
//!       -> check     relations, expressions and limits that are served
//!       -> consumer  DataFusion's consumer over the statement's own names
//! ```
//!
//! Architecture invariant: a plan names tables by the same resolver as a text does,
//! and what comes of it passes the same rule, guard and proof. Deliberately absent:
//! relations that write or define, files by their paths, and extensions. A server
//! that is built without the feature `substrait` refuses every plan by that name.

#[cfg(feature = "substrait")]
mod check;
#[cfg(feature = "substrait")]
mod consumer;
#[cfg(feature = "substrait")]
mod version;

use datafusion::logical_expr::LogicalPlan;

use super::limits::Limits;
use super::names::Resolver;
use crate::error::Result;

/// A plan as it is sent.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct SentPlan {
    /// A message `substrait.Plan`.
    pub bytes: Box<[u8]>,
    /// The release of Substrait that its sender says it is of; may be empty.
    pub version: Box<str>,
}

/// The oldest and the newest release of Substrait that plans may be of, such as
/// `0.64.0`; none in a server that is built without the feature `substrait`.
pub fn substrait_versions() -> Option<(String, String)> {
    #[cfg(feature = "substrait")]
    return Some(version::served());
    #[cfg(not(feature = "substrait"))]
    None
}

/// The logical plan of what was sent.
///
/// # Errors
/// `InvalidArgument` for what is malformed, too large or of another release,
/// `Unimplemented` for parts that are not served, `NotFound` for a table that the
/// scope does not see.
#[cfg(feature = "substrait")]
pub(super) fn logical_plan(
    sent: &SentPlan,
    limits: &Limits,
    resolver: &Resolver<'_>,
) -> Result<LogicalPlan> {
    let plan = version::read(sent)?;
    let checked = check::check(&plan, limits)?;
    consumer::consume(&plan, &checked, resolver)
}

#[cfg(not(feature = "substrait"))]
pub(super) fn logical_plan(_: &SentPlan, _: &Limits, _: &Resolver<'_>) -> Result<LogicalPlan> {
    Err(crate::error::Error::Unimplemented(
        "plans of Substrait are not served by this server, which is built without the feature \
         `substrait`: send the query as SQL, or build the server with `cargo build --features \
         substrait`"
            .into(),
    ))
}
