//! Every integration test, in one binary: linking the engine takes longer than
//! running most of them.
//!
//! Tests at the wire start a real server on free loopback ports, in a directory
//! of its own, and stop it.

// A helper that cannot go on fails its test.
#![allow(clippy::unwrap_used)]

#[path = "../../src/table/codec/tests/arrays.rs"]
mod arrays;
mod audit;
mod authentication;
mod bypass;
mod cancel;
mod cli;
mod cli_tables;
mod client;
mod definitions;
mod doors;
mod engine;
mod explained;
#[path = "../../src/backend/tests/failing_disk.rs"]
mod failing_disk;
mod faults;
mod flight;
mod harness;
mod heavy;
mod jwt;
mod layers;
mod limits;
mod literals;
mod matrix;
mod operator;
mod polling;
mod process;
mod pruning;
mod queue;
mod reads;
mod row_groups;
mod server;
mod session;
mod shares;
mod signing_in;
mod slow_readers;
mod stops;
#[cfg(feature = "substrait")]
mod substrait;
mod surface;
mod tables;
mod temporary;
mod tenants;
mod tls;
mod types;
mod verify;
mod writes;
