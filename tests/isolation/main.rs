//! The server's isolation, attacked through the wire by generated conversations.
//!
//! A [`conversation`] is a text: rows of files, definitions and statements, each
//! by somebody. It is played on two servers of their own (`play`), some of whose
//! lines only one of them hears, and what is compared must be the same on both.
//! Generators (`generate`) make conversations of a seed, and one that fails is
//! made small (`shrink`) and printed, to be kept in `regressions/`.
//!
//! `docs/isolation-tests.md` says how to run more of them, and what they do not
//! see.

// A helper that cannot go on fails its test.
#![allow(clippy::unwrap_used)]
// How much was tried, of which seeds.
#![allow(clippy::print_stdout)]

#[allow(dead_code)]
#[path = "../it/client.rs"]
mod client;
#[allow(dead_code)]
#[path = "../it/harness.rs"]
mod harness;

mod ask;
mod concurrency;
mod conversation;
mod dice;
mod files;
mod generate;
mod interference;
mod leaks;
mod observed;
mod oracle;
mod play;
mod runs;
mod shrink;
