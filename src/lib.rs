//! A multi-tenant database engine and server: a session is bound to a tenant
//! once, and every statement it runs from then on sees that tenant's rows and
//! the shared ones, and nothing else.
//!
//! ```
//! extern crate jammi_db;
//! extern crate tokio;
//! use std::str::FromStr;
//! use jammi_db::TenantId;
//! use jammi_db::session::JammiSession;
//! use jammi_db::config::JammiConfig;
//! async fn ex() -> jammi_db::error::Result<()> {
//! let config = JammiConfig::default();
//! let alice = TenantId::from_str("018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a")?;
//! let session = JammiSession::new(config).await?.with_tenant(alice);
//! // Every catalog read and write on `session` now scopes to Alice.
//! Ok(())
//! }
//! # let dir = tempfile::tempdir().unwrap();
//! # std::env::set_current_dir(dir.path()).unwrap();
//! # tokio::runtime::Runtime::new().unwrap().block_on(ex()).unwrap();
//! ```
//!
//! Layers, each of which uses only those before it (`error` and `config` stand
//! beside them):
//!
//! | room | what it holds |
//! |---|---|
//! | [`tenant`] | who: tenants, lanes, the scope of a request |
//! | [`policy`] | what a scope means for rows |
//! | [`backend`] | lanes as databases |
//! | [`auth`] | who asks: credentials, and the contract for others' |
//! | [`audit`] | who asked for what, and how it ended |
//! | [`catalog`] | sources, models, tables and views of each lane |
//! | [`source`] | tables whose rows are in files |
//! | [`table`] | tables whose rows are in lanes |
//! | [`tenancy`] | tenants as the operator has them: how one comes, stands and goes |
//! | [`engine`] | statements: names, rule, guard, proof |
//! | [`session`] | the embedding API |
//! | [`verify`] | whether an installation keeps its promises |
//! | [`server`] | gRPC, Flight SQL, gRPC-Web, health, metrics |
//! | [`cli`] | the `jammi` command |
//!
//! A statement's walk from the wire to the rows:
//!
//! ```text
//! bytes -> server/accept, request, origin   a connection, an id, CORS
//!       -> server/authenticate              credential -> Principal, or a refusal
//!       -> server/tenant     jammi-session-id -> Admitted -> Scope, or a refusal
//!       -> server/standing   how the tenant stands with the operator now
//!       -> server/flight     command -> statement text, parameters
//!       -> engine            allow-list -> names -> plan -> rule -> optimize -> verify
//!       -> source            scan(scope): lane predicate to the reader
//!       -> engine/guard      rows of the scope's lanes alone
//!       -> server/flight     record batches, streamed back
//! ```
//!
//! A registration's walk from the wire to the disk:
//!
//! ```text
//! bytes -> server/catalog    request -> what to register
//!       -> source/register   files -> schema, tenant column, or a refusal
//!       -> catalog           the row, stamped with the scope's lane
//!       -> backend           Transaction::assert_tenant_matches, durable commit
//! ```

pub mod audit;
pub mod auth;
pub mod backend;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod engine;
pub mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod policy;
pub mod server;
pub mod session;
pub mod source;
pub mod table;
pub mod tenancy;
pub mod tenant;
pub mod verify;

pub use tenant::{TenantBinding, TenantId};
