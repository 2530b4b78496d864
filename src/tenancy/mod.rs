//! Tenants as the operator has them: who is registered, who may be used, what each
//! holds and uses, and how one comes and goes.
//!
//! A tenant is whoever has a lane; being registered gives it a name and a state.
//! `registry` keeps both (`record`) and says who may be used, `tree` who is below whom, `survey` looks at what a lane
//! holds, `usage` counts what a tenant asks for, `archive` carries one to another
//! installation, and `erasure` ends one.
//!
//! Architecture invariant: a scope of a tenant is made of a [`Standing`] that was
//! looked up for the request: what the operator has said in any process holds from
//! the next request on. Nothing here says who may do any of it: that is asked of the
//! [`Principal`](crate::tenant::Principal) where the request comes in.

pub mod archive;
mod erasure;
mod record;
mod registry;
mod survey;
mod tree;
mod usage;

pub use archive::{Archive, ImportOptions, Imported};
pub use erasure::{Certificate, Erased};
pub use record::{NAME_BYTES_MAX, Tenant, TenantChange, TenantState};
pub use registry::{Standing, Tenants};
pub use survey::{Contents, SourceEntry, TableRows};
pub use usage::{Meter, TenantUsage, Usage};
