//! Lets an aggregate that asks for the least and the greatest values alone read
//! the rows that have them, which an index finds, and no others.
//!
//! The aggregate stays as it is, and so does the guard between: what changes is
//! which rows the scan below the guard has to offer.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

use super::GuardExec;
use super::guard::with_guard_below;

/// `plan`, of which scans below such aggregates offer the rows they need.
pub(super) fn narrowed(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        let Some(columns) = node.downcast_ref::<AggregateExec>().and_then(extremes_of) else {
            return Ok(Transformed::no(node));
        };
        let recompute = ChildrenPropertiesMode::Recompute;
        let offering = |guard: &GuardExec| guard.offering_extremes(&columns);
        let inputs = node.children();
        let input = inputs.first();
        match input.and_then(|input| with_guard_below(input, recompute, &offering)) {
            Some(input) => {
                let recompute = ReplaceChildrenOptions::new(recompute);
                let narrowed = Arc::clone(&node).replace_children(vec![input], recompute)?;
                Ok(Transformed::yes(narrowed))
            }
            None => Ok(Transformed::no(node)),
        }
    })
    .map(|narrowed| narrowed.data)
}

/// The columns of its input whose least or greatest values are all that the
/// aggregate asks for.
fn extremes_of(aggregate: &AggregateExec) -> Option<Vec<usize>> {
    let groups = !aggregate.group_expr().is_true_no_grouping();
    let filters = aggregate.filter_expr().iter().any(Option::is_some);
    if groups || filters || aggregate.aggr_expr().is_empty() {
        return None;
    }
    let columns = aggregate.aggr_expr().iter().map(|call| {
        call.get_minmax_desc()?;
        match call.expressions().as_slice() {
            [value] => value.downcast_ref::<Column>().map(Column::index),
            _ => None,
        }
    });
    columns.collect()
}
