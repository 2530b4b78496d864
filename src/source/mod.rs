//! Sources: tables whose rows are in files that others write.
//!
//! [`register`] looks at the files of a location once and fixes their schema;
//! [`SourceTable`] plans a scan of them for a scope. A scan lists the files
//! anew, leaves out those whose directory names another tenant, checks each
//! file version once against the schema, and hands the lane predicate to the
//! reader so that row groups and pages of other lanes are skipped. Where a
//! Parquet file is ordered enough, which of them these are is found once.
//!
//! Architecture invariant: what a scan prunes is speed alone. Which rows a
//! caller sees is decided by the engine's guard above the plan made here.

mod files;
mod format;
mod lane_view;
mod location;
mod parquet;
mod register;
mod row_groups;
mod scan;
mod stores;

pub use files::FileChecks;
pub use format::reader_text;
pub use lane_view::LaneViews;
pub use location::{Location, LocationPolicy};
pub use register::{
    RegisterSource, Registered, TenantColumnChoice, inspect, inspect_again, notices,
};
pub use row_groups::RowGroupCache;
pub use scan::{LaneScan, SourceTable};
pub use stores::Stores;
