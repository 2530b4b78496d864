//! DataFusion's session, set up once: functions, limits, and no table.

use std::future::Future;
use std::sync::Arc;
use std::thread::available_parallelism;

use datafusion::catalog::Session;
use datafusion::common::alias::AliasGenerator;
use datafusion::common::config::ConfigOptions;
use datafusion::execution::context::SessionState;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{FunctionRegistry, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{Optimizer, OptimizerConfig};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;

use super::activity::Served;
use super::coercion::Operands;
use super::cores;
use super::fault::planning;
use super::held::TellHeld;
use super::limits::Limits;
use super::queue::Queue;
use super::shares::Shares;
use super::short::{self, Places};
use super::stream::ended_early;
use super::turns::{InTurn, Work};
use super::values::bound_functions;
use super::workers::Workers;
use super::yielding::YieldAboveJoins;
use crate::config::EngineConfig;
use crate::error::Result;
use crate::tenant::Scope;

/// Plans and runs.
pub(super) struct Planner {
    state: SessionState,
    /// The same with what makes plans that are shown tell more.
    showing: SessionState,
    /// The same with one partition to a plan.
    in_order: SessionState,
    /// The same without DataFusion's rules for physical plans.
    of_simple: SessionState,
    /// Without the rules that find nothing in a plan of one input.
    optimizer_of_one_input: Optimizer,
    workers: Workers,
    queue: Arc<Queue>,
    places: Arc<Places>,
    limits: Limits,
    served: Served,
}

impl Planner {
    pub(super) fn new(config: &EngineConfig) -> Result<Self> {
        let mut session = SessionConfig::new()
            .with_batch_size(config.batch_rows)
            .with_information_schema(true)
            .with_collect_statistics(false);
        if let Some(partitions) = config.target_partitions {
            session = session.with_target_partitions(partitions);
        }
        let options = session.options_mut();
        // Plain UTF-8 columns: not every client of Flight SQL reads views.
        options.execution.parquet.schema_force_view_types = false;
        options.sql_parser.map_string_types_to_utf8view = false;
        // The values of another lane must not decide in which order a caller's
        // predicates are evaluated.
        options.execution.parquet.reorder_filters = false;
        let shares = Shares::new(config)?;
        let mut state = SessionStateBuilder::new()
            .with_config(session)
            .with_runtime_env(shares.runtime())
            .with_default_features()
            .with_physical_optimizer_rule(Arc::new(YieldAboveJoins))
            .build();
        bound_functions(&mut state, config.memory_bytes)?;
        state
            .register_expr_planner(Arc::new(Operands))
            .map_err(planning)?;
        let showing = SessionStateBuilder::new_from_existing(state.clone())
            .with_physical_optimizer_rule(Arc::new(TellHeld))
            .build();
        let mut in_order = state.clone();
        let options = in_order.config_mut().options_mut();
        options.execution.target_partitions = 1;
        let of_simple = SessionStateBuilder::new_from_existing(in_order.clone())
            .with_physical_optimizer_rules(Vec::new())
            .build();
        let workers = Workers::new(config, shares, state.config())?;
        Ok(Planner {
            showing,
            in_order,
            optimizer_of_one_input: without_idle_rules(state.optimizer()),
            state,
            of_simple,
            workers,
            queue: Queue::new(config),
            // As many as there are cores: servers have twice as many threads.
            places: Arc::new(Places::new(available_parallelism().map_or(1, usize::from))),
            limits: Limits::new(config),
            served: Served::default(),
        })
    }

    pub(super) fn runtime(&self) -> Arc<RuntimeEnv> {
        Arc::clone(self.state.runtime_env())
    }

    pub(super) fn session(&self) -> &dyn Session {
        &self.state
    }

    pub(super) fn state(&self) -> &SessionState {
        &self.state
    }

    /// Runs DataFusion's analyzer and optimizer with the clock read now.
    pub(super) fn optimize(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        if matches!(plan, LogicalPlan::Explain(_)) {
            // EXPLAIN records each rule's output, which only the session's own
            // entry point does.
            let mut state = self.state.clone();
            state.mark_start_execution();
            return state.optimize(&plan).map_err(planning);
        }
        let at = StatementConfig {
            state: &self.state,
            started: chrono::Utc::now(),
            aliases: Arc::new(AliasGenerator::new()),
        };
        let options = at.options();
        let analyzed = self
            .state
            .analyzer()
            .execute_and_check(plan, &options, |_, _| cores::offer())
            .map_err(planning)?;
        let optimizer = match short::has_one_input(&analyzed)? {
            true => &self.optimizer_of_one_input,
            false => self.state.optimizer(),
        };
        optimizer
            .optimize(analyzed, &at, |_, _| cores::offer())
            .map_err(planning)
    }

    pub(super) async fn physical(&self, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        let state = match plan {
            LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) => &self.showing,
            _ => &self.state,
        };
        state
            .query_planner()
            .create_physical_plan(plan, state)
            .await
            .map_err(planning)
    }

    /// A plan that yields rows in the order in which its source does.
    pub(super) async fn physical_in_order(
        &self,
        plan: &LogicalPlan,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.in_order
            .query_planner()
            .create_physical_plan(plan, &self.in_order)
            .await
            .map_err(planning)
    }

    /// The plan of a simple query over few rows, which none of DataFusion's rules
    /// for physical plans would make shorter.
    pub(super) async fn physical_of_simple(
        &self,
        plan: &LogicalPlan,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.of_simple
            .query_planner()
            .create_physical_plan(plan, &self.of_simple)
            .await
            .map_err(planning)
    }

    /// Runs `writing` where plans are run, to its end or until the caller drops it.
    /// When it is due, so is what it reads, and not its commit.
    pub(super) async fn spawn<T: Send + 'static>(
        &self,
        scope: &Scope,
        writing: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.spawn_as(&self.workers.begin(scope), writing).await
    }

    /// Runs `planning` where plans are run, to its end, until the caller drops it or
    /// until it is due.
    pub(super) async fn spawn_planning<T: Send + 'static>(
        &self,
        scope: &Scope,
        planning: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let work = self.workers.begin(scope);
        work.in_time(self.spawn_as(&work, planning)).await
    }

    async fn spawn_as<T: Send + 'static>(
        &self,
        work: &Arc<Work>,
        what: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let turn = InTurn::new(work, Box::pin(what));
        let done = self.workers.spawn(turn).await;
        done.unwrap_or_else(|error| Err(ended_early(Some(error))))
    }

    /// How large a plan a statement may ask for.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What whoever serves says of what runs.
    pub(super) fn served(&self) -> &Served {
        &self.served
    }

    /// The threads that plan and run.
    pub(super) fn workers(&self) -> &Workers {
        &self.workers
    }

    /// Who may run what is not short.
    pub(super) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Where short work may wait for a disk.
    pub(super) fn places(&self) -> &Arc<Places> {
        &self.places
    }
}

/// DataFusion's rules about joins, set operations, subqueries, aggregates and sorts.
/// One that a newer DataFusion names otherwise is kept.
const IDLE_RULES: [&str; 15] = [
    "rewrite_set_comparison",
    "optimize_unions",
    "unions_to_filter",
    "replace_distinct_aggregate",
    "eliminate_join",
    "decorrelate_predicate_subquery",
    "scalar_subquery_to_join",
    "decorrelate_lateral_join",
    "extract_equijoin_predicate",
    "eliminate_duplicated_expr",
    "eliminate_cross_join",
    "filter_null_join_keys",
    "eliminate_outer_join",
    "single_distinct_aggregation_to_group_by",
    "eliminate_group_by_constant",
];

fn without_idle_rules(optimizer: &Optimizer) -> Optimizer {
    let rules = optimizer.rules.iter();
    let rules = rules.filter(|rule| !IDLE_RULES.contains(&rule.name()));
    Optimizer::with_rules(rules.cloned().collect())
}

/// What the optimizer asks of a statement: the session's settings and the time
/// at which the statement started, so that `now()` is one instant in it.
struct StatementConfig<'a> {
    state: &'a SessionState,
    started: chrono::DateTime<chrono::Utc>,
    aliases: Arc<AliasGenerator>,
}

impl OptimizerConfig for StatementConfig<'_> {
    fn query_execution_start_time(&self) -> Option<chrono::DateTime<chrono::Utc>> {
        Some(self.started)
    }

    fn alias_generator(&self) -> &Arc<AliasGenerator> {
        &self.aliases
    }

    fn options(&self) -> Arc<ConfigOptions> {
        Arc::clone(self.state.config_options())
    }

    fn function_registry(&self) -> Option<&dyn FunctionRegistry> {
        Some(self.state)
    }
}
