//! Which predicates of a query stay above the guard and why, for `EXPLAIN` to say.
//!
//! What decides is [`super::total`], over the predicates of the logical plan. Here the
//! same is said of what is left above a guard in the physical one.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, Literal, NegativeExpr,
    NotExpr,
};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr, split_conjunction};
use datafusion::physical_expr_common::physical_expr::{fmt_sql, is_volatile};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

use super::GuardExec;
use super::guard::with_guard_below;
use super::total::{compares, connects};

/// A predicate that is evaluated on rows that the guard has let out alone.
#[derive(Clone, Debug)]
pub(super) struct Held {
    predicate: Arc<dyn PhysicalExpr>,
    why: &'static str,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", fmt_sql(self.predicate.as_ref()), self.why)
    }
}

/// Tells guards which predicates of the filter above them are held there, in plans
/// that are shown.
#[derive(Debug)]
pub(super) struct TellHeld;

impl PhysicalOptimizerRule for TellHeld {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let Some(filter) = node.downcast_ref::<FilterExec>() else {
                return Ok(Transformed::no(node));
            };
            let held = held(filter.predicate());
            if held.is_empty() {
                return Ok(Transformed::no(node));
            }
            let keep = ChildrenPropertiesMode::Keep;
            let holding = |guard: &GuardExec| Some(guard.holding(&held));
            match with_guard_below(filter.input(), keep, &holding) {
                Some(input) => {
                    let keep = ReplaceChildrenOptions::new(keep);
                    let told = Arc::clone(&node).replace_children(vec![input], keep)?;
                    Ok(Transformed::yes(told))
                }
                None => Ok(Transformed::no(node)),
            }
        })
        .map(|told| told.data)
    }

    fn name(&self) -> &str {
        "tell_held"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn held(predicate: &Arc<dyn PhysicalExpr>) -> Vec<Held> {
    let parts = split_conjunction(predicate).into_iter();
    parts
        .filter_map(|part| {
            let why = objection(part)?;
            let predicate = Arc::clone(part);
            Some(Held { predicate, why })
        })
        .collect()
}

/// Why a predicate is not evaluated on every row; `None` where it may be.
fn objection(expr: &Arc<dyn PhysicalExpr>) -> Option<&'static str> {
    if is_volatile(expr) {
        return Some("it may answer differently each time");
    }
    let of_children = || expr.children().into_iter().find_map(objection);
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        use Operator::{Divide, Minus, Modulo, Multiply, Plus};
        return match *binary.op() {
            op if compares(op) || connects(op) => of_children(),
            Plus | Minus | Multiply | Divide | Modulo => Some("arithmetic can fail"),
            _ => Some("its operator can fail"),
        };
    }
    if let Some(list) = expr.downcast_ref::<InListExpr>() {
        return match list.list().iter().all(|item| item.is::<Literal>()) {
            true => objection(list.expr()),
            false => Some("its list is computed"),
        };
    }
    if expr.is::<CastExpr>() {
        return Some("a cast can fail");
    }
    if expr.is::<NegativeExpr>() {
        return Some("arithmetic can fail");
    }
    if expr.is::<ScalarFunctionExpr>() {
        return Some("a function can fail");
    }
    let is_total = expr.is::<Column>()
        || expr.is::<Literal>()
        || expr.is::<NotExpr>()
        || expr.is::<IsNullExpr>()
        || expr.is::<IsNotNullExpr>();
    match is_total {
        true => of_children(),
        false => Some("it is not known to succeed on every row"),
    }
}
