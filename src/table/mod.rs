//! Tables whose rows are stored in lanes. So far: how a value is stored.

pub mod codec;
