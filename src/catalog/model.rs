//! The record of a model: a name, a version, where it is, and what is known of it.

use crate::tenant::Lane;

/// A model to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewModel {
    /// The model's name.
    pub name: String,
    /// The version, unique for the name within a lane.
    pub version: String,
    /// Where the model's artifact is.
    pub uri: String,
    /// A JSON object as text.
    pub metadata: String,
}

/// A model as recorded in a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// The lane that owns the model.
    pub lane: Lane,
    /// What was recorded.
    pub definition: NewModel,
    /// When it was registered: Unix time in milliseconds.
    pub registered_at_ms: i64,
}
