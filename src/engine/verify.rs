//! The proof: no physical plan runs before every leaf of it is known to yield
//! rows of the caller's lanes alone.

use std::sync::Arc;

use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::explain::ExplainExec;
use datafusion::physical_plan::memory::LazyMemoryExec;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::work_table::WorkTableExec;

use super::GuardExec;
use super::arrival::ArrivalExec;
use crate::error::{Error, Result};
use crate::tenant::Scope;

/// Refuses a plan with a leaf that is neither a guard for exactly `scope` nor
/// known to read no table.
pub(super) fn verify(plan: &Arc<dyn ExecutionPlan>, scope: &Scope) -> Result<()> {
    let children = plan.children();
    if !children.is_empty() {
        return children
            .into_iter()
            .try_for_each(|child| verify(child, scope));
    }
    if let Some(guard) = plan.downcast_ref::<GuardExec>() {
        if guard.scope() == scope {
            return Ok(());
        }
        return refuse(
            "a scan is guarded for another scope than its statement's",
            plan,
        );
    }
    if reads_no_table(plan) {
        return Ok(());
    }
    refuse("a scan is not guarded", plan)
}

/// Rows that come from the statement's own text, or from its own recursion.
fn reads_no_table(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<EmptyExec>()
        || plan.is::<PlaceholderRowExec>()
        || plan.is::<WorkTableExec>()
        || plan.is::<LazyMemoryExec>()
        || plan.is::<ExplainExec>()
        // Values of parameters, as they come.
        || plan.is::<ArrivalExec>()
        || plan.downcast_ref::<DataSourceExec>().is_some_and(|scan| {
            // VALUES, and DESCRIBE's answer. No memory table can be named by a
            // statement: the resolver makes none.
            scan.data_source()
                .downcast_ref::<MemorySourceConfig>()
                .is_some()
        })
}

fn refuse(why: &str, plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    tracing::error!(
        leaf = plan.name(),
        why,
        "a plan was refused by the proof step"
    );
    Err(Error::internal(
        "the statement was refused: its plan is not proven to stay inside the caller's lanes",
        format!("{why}: {}", plan.name()),
    ))
}
