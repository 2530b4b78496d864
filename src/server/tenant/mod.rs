//! Who a request is for: the session's header and cookie, the bindings, and
//! admission.
//!
//! Architecture invariant: what a request may touch is decided here, once, when
//! it is admitted; a binding that changes later changes the next request.
//! Services learn of it from [`Admitted`] alone and never read the header.

mod admission;
mod clock;
mod cookie;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod key;
mod session_keys;
mod sessions;
mod store;
mod writer;

#[cfg(test)]
mod schedules;
#[cfg(test)]
mod tests;

pub use admission::{Admitted, SESSION_HEADER, TenantInterceptor};
pub use clock::{Clock, SystemClock};
pub use cookie::SESSION_COOKIE;
pub use session_keys::SessionKeys;
pub use sessions::{Bound, BoundSession, SessionMap, Swept};
pub use store::{BindingStore, Change, StoredBinding, SystemBindings};
