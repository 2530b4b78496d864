//! What a scope means for rows: which of them a caller may see.
//!
//! Architecture invariant: nothing here does I/O or knows a table; it turns a
//! [`Scope`](crate::tenant::Scope) into predicates.

mod lane;

pub use lane::{LaneMask, LanePredicate, LaneShare, TenantEncoding};
