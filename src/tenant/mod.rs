//! Who a request is for: tenants, lanes, sessions, and the scope made from them.
//!
//! Architecture invariant: nothing here does I/O, and nothing here is global or
//! task-local. A [`Scope`] is made once, where a request is admitted, and every
//! layer below takes it as its first argument.

mod binding;
mod id;
mod principal;
mod scope;
mod session_key;

pub use binding::TenantBinding;
pub use id::{SessionId, TenantId};
pub use principal::{
    ActsFor, GLOBAL_WRITER, OPERATOR, Principal, ROLES, SUPER_ADMIN, not_ones_own,
};
pub use scope::{Lane, Scope};
pub use session_key::SessionKey;
