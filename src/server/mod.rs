//! The network server, and the only user of tonic: one port for gRPC, Flight
//! SQL and gRPC-Web, and one for
//! probes, scrapers and the console.
//!
//! ```text
//! bytes -> accept      a counted connection, encrypted by tls
//!       -> request     an id and a span
//!       -> origin      pages of allowed origins only
//!       -> tonic-web   gRPC-Web becomes gRPC
//!       -> observe     status, duration, panics
//!       -> tenant      jammi-session-id becomes an Admitted, or a refusal
//!       -> standing    whether the tenant may be used, and a bypass of tenants
//!       -> session, catalog, operator, tenants, flight
//! ```
//!
//! Architecture invariant: services learn who a request is for from
//! [`tenant::Admitted`] alone, and turn errors into statuses in [`status`] alone.

mod accept;
mod authenticate;
pub(crate) mod bypass;
pub mod catalog;
mod console;
pub mod credentials;
mod evictions;
pub mod flight;
mod health;
mod held_writes;
mod http;
mod methods;
mod observe;
mod operations;
mod operator;
mod origin;
pub mod proto;
mod request;
mod run;
mod running;
mod serve;
pub mod session;
mod standing;
pub mod status;
pub mod tables;
mod telemetry;
pub mod tenant;
pub mod tenants;
mod tls;

pub use methods::method_names;
pub use run::run;
pub use serve::{BoundServer, Server};
pub use telemetry::log_to_stderr;
