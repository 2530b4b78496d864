//! Puts a plan's tasks into turns, and makes its joins ask whether anybody
//! still waits for them, and its leaves offer the core to others.
//!
//! Done to a plan that is proven and about to run, for that run alone: what is
//! put in passes everything through, and `EXPLAIN` does not show it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::lit;
use datafusion::physical_plan::analyze::AnalyzeExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder,
};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties,
    PlanProperties, ReplaceChildrenOptions,
};
use futures::StreamExt;

use super::cores;
use super::turns::{InTurn, Work, check};

/// `plan` with leaves that offer the core with every batch: an operator may take all
/// of its input in one poll.
pub(super) fn offering(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        Ok(match node.children().is_empty() {
            true => Transformed::yes(TurnExec::above(&node, None)),
            false => Transformed::no(node),
        })
    })
    .map(|transformed| transformed.data)
}

/// `plan` in one partition, to be run as `work`.
pub(super) fn interruptible(
    plan: Arc<dyn ExecutionPlan>,
    work: &Arc<Work>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let plan: Arc<dyn ExecutionPlan> = match plan.output_partitioning().partition_count() {
        0 | 1 => plan,
        _ => Arc::new(CoalescePartitionsExec::new(plan)),
    };
    plan.transform_up(|node| {
        if spawns_tasks(&node) {
            let children = node.children().into_iter();
            let in_turn = |child| TurnExec::above(child, Some(work));
            let children = children.map(in_turn).collect();
            let recompute = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
            return Ok(Transformed::yes(
                node.replace_children(children, recompute)?,
            ));
        }
        Ok(match asking(&node)? {
            Some(join) => Transformed::yes(join),
            None => Transformed::no(node),
        })
    })
    .map(|transformed| transformed.data)
}

/// Operators that poll their inputs in tasks of their own.
fn spawns_tasks(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.is::<RepartitionExec>()
        || node.is::<CoalescePartitionsExec>()
        || node.is::<SortPreservingMergeExec>()
        || node.is::<AnalyzeExec>()
}

/// A join that may look at pairs of rows for long without one that goes out,
/// with a filter that asks.
fn asking(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        let Some(filter) = asking_filter(join.filter(), *join.join_type()) else {
            return Ok(None);
        };
        let join = NestedLoopJoinExecBuilder::from(join).with_filter(Some(filter));
        return Ok(Some(Arc::new(join.build()?)));
    }
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        let Some(filter) = asking_filter(join.filter(), *join.join_type()) else {
            return Ok(None);
        };
        return join
            .builder()
            .with_filter(Some(filter))
            .build_exec()
            .map(Some);
    }
    Ok(None)
}

/// The filter of a join, which asks as well. Where the join has none and would
/// drop pairs all the same, one that lets everything through.
fn asking_filter(filter: Option<&JoinFilter>, join: JoinType) -> Option<JoinFilter> {
    let filter = match filter {
        Some(filter) => filter.clone(),
        None if finds_each_row_once(join) => {
            JoinFilter::new(lit(true), vec![], Arc::new(Schema::empty()))
        }
        None => return None,
    };
    Some(JoinFilter::new(
        Arc::new(Asking(Arc::clone(filter.expression()))),
        filter.column_indices().to_vec(),
        Arc::clone(filter.schema()),
    ))
}

/// Whether a join without a filter drops pairs all the same: those of a row
/// that has been found.
fn finds_each_row_once(join: JoinType) -> bool {
    match join {
        JoinType::LeftSemi
        | JoinType::RightSemi
        | JoinType::LeftAnti
        | JoinType::RightAnti
        | JoinType::LeftMark
        | JoinType::RightMark => true,
        JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => false,
    }
}

/// An expression that fails where nobody waits for it.
#[derive(Debug, Eq)]
struct Asking(Arc<dyn PhysicalExpr>);

impl PartialEq for Asking {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq(&other.0)
    }
}

impl Hash for Asking {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PhysicalExpr for Asking {
    fn return_field(&self, input_schema: &Schema) -> Result<FieldRef> {
        self.0.return_field(input_schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        check()?;
        self.0.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.0]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(match children.pop() {
            Some(inner) => Arc::new(Asking(inner)),
            None => self,
        })
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_sql(f)
    }
}

/// Polls its input in the turns of its work's tenant, or offers the core with each
/// batch of it where what polls this is in such a turn.
#[derive(Debug)]
struct TurnExec {
    input: Arc<dyn ExecutionPlan>,
    work: Option<Arc<Work>>,
}

impl TurnExec {
    fn above(input: &Arc<dyn ExecutionPlan>, work: Option<&Arc<Work>>) -> Arc<dyn ExecutionPlan> {
        Arc::new(TurnExec {
            input: Arc::clone(input),
            work: work.cloned(),
        })
    }
}

impl DisplayAs for TurnExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TurnExec")
    }
}

impl ExecutionPlan for TurnExec {
    fn name(&self) -> &str {
        "TurnExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(match children.pop() {
            Some(input) => TurnExec::above(&input, self.work.as_ref()),
            None => self,
        })
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let recompute = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        self.replace_children(children, recompute)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let schema = input.schema();
        Ok(match &self.work {
            Some(work) => {
                let input = InTurn::new(work, input);
                Box::pin(RecordBatchStreamAdapter::new(schema, input))
            }
            None => {
                let input = input.inspect(|_| cores::offer());
                Box::pin(RecordBatchStreamAdapter::new(schema, input))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use datafusion::physical_plan::collect;
    use datafusion::prelude::SessionContext;

    use super::*;

    fn leaves(plan: &Arc<dyn ExecutionPlan>) -> Vec<Arc<dyn ExecutionPlan>> {
        let children = plan.children();
        match children.is_empty() {
            true => vec![Arc::clone(plan)],
            false => children.into_iter().flat_map(leaves).collect(),
        }
    }

    fn offerers(plan: &Arc<dyn ExecutionPlan>) -> usize {
        let here = usize::from(plan.is::<TurnExec>());
        here + plan.children().into_iter().map(offerers).sum::<usize>()
    }

    #[tokio::test]
    async fn every_leaf_offers_the_core_and_the_rows_stay() {
        for sql in [
            "SELECT count(*) FROM generate_series(1, 9000) a JOIN generate_series(5, 6000) b \
             ON a.value = b.value",
            "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 100) \
             SELECT sum(n) FROM t",
            "SELECT sum(x) FROM (VALUES (1), (2)) AS v(x)",
        ] {
            let context = SessionContext::new();
            let plan = context.sql(sql).await.unwrap();
            let plan = plan.create_physical_plan().await.unwrap();
            let offered = offering(Arc::clone(&plan)).unwrap();
            assert_eq!(offerers(&offered), leaves(&plan).len(), "{sql}");
            let expected = collect(plan, context.task_ctx()).await.unwrap();
            let found = collect(offered, context.task_ctx()).await.unwrap();
            assert_eq!(found, expected, "{sql}");
        }
    }
}
