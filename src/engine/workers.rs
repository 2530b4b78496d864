//! The threads that plan and run statements.
//!
//! A plan computes for long between its pauses. On the threads that serve
//! sockets it would keep health probes, cancellations and other tenants' small
//! statements waiting, so plans have a runtime of their own, whose threads weigh
//! less with the kernel than those that serve. What is known to be short stays
//! where it is asked for: see [`super::short`].

use std::future::Future;
use std::sync::Arc;
use std::thread::available_parallelism;

use datafusion::prelude::SessionConfig;
use parking_lot::Mutex;
use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};
use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;

use super::cores;
use super::shares::Shares;
use super::turns::{Turns, Work};
use crate::backend::let_thread_block;
use crate::config::EngineConfig;
use crate::error::{Error, Result};
use crate::tenant::Scope;

/// Threads for each core, and those of them that one tenant has at a time.
const THREADS_PER_CORE: usize = 16;
const TENANT_THREADS_PER_CORE: usize = 4;

/// A deep statement makes a deep plan, and plans are walked and dropped by
/// recursion. Of a stack, only what is used takes memory.
const STACK_BYTES: usize = 16 << 20;

/// The weight of a thread with the kernel, from 0 to 99, where 50 is that of any other:
/// on Linux a nice value of 5, a third of the weight. A thread that serves gets its
/// core back from a plan so, and a flood of short statements does not starve plans.
const THREAD_WEIGHT: u8 = 35;

/// The runtime of the plans. Dropping it abandons what still runs.
pub(super) struct Workers {
    runtime: Option<Runtime>,
    turns: Turns,
}

impl Workers {
    pub(super) fn new(
        config: &EngineConfig,
        shares: Shares,
        session: &SessionConfig,
    ) -> Result<Self> {
        let cores = available_parallelism().map_or(1, usize::from);
        let threads = config.threads.unwrap_or(THREADS_PER_CORE * cores);
        let each = config
            .tenant_threads_max
            .unwrap_or(TENANT_THREADS_PER_CORE * cores);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_stack_size(STACK_BYTES)
            .thread_name("jammi-plan")
            // There are more of them than cores, and a tenant has a few at a time.
            .on_thread_start(|| {
                let_thread_block();
                weigh_less();
                cores::woken();
            })
            .on_thread_unpark(cores::woken)
            .enable_all()
            .build()
            .map_err(|error| Error::internal("the engine's threads cannot be started", error))?;
        Ok(Workers {
            runtime: Some(runtime),
            turns: Turns::new(each, config, shares, session),
        })
    }

    /// Starts a piece of work for `scope`.
    pub(super) fn begin(&self, scope: &Scope) -> Arc<Work> {
        self.turns.begin(scope)
    }

    /// Runs `task` until it ends or the handle is dropped.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> AbortOnDropHandle<T> {
        let runtime = self.runtime.as_ref().expect("taken by drop alone");
        AbortOnDropHandle::new(runtime.spawn(task))
    }
}

/// Lets this thread give way to those that serve.
fn weigh_less() {
    // A server that weighs that little as a whole stays as it is.
    if nice().is_some_and(|nice| nice >= 5) {
        return;
    }
    let weight = ThreadPriorityValue::try_from(THREAD_WEIGHT).expect("below 100");
    // Some sandboxes forbid it. Plans run all the same, and others wait a little.
    if let Err(error) = set_current_thread_priority(ThreadPriority::Crossplatform(weight)) {
        tracing::debug!(?error, "a plan thread weighs as much as any other");
    }
}

/// The nice value of this thread, where the kernel tells it.
fn nice() -> Option<i32> {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").ok()?;
    // After the name, which is in parentheses, the state is the first field.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(16)?.parse().ok()
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Waiting for the threads is not allowed where futures run, and the last
        // clone of an engine may well be dropped there. Nor are they left to end by
        // themselves: glibc's pthread_detach reads the thread after it has let it
        // go (sourceware bug 19951), and its stack, too large to be kept, may be
        // gone by then. So a thread waits for them that nobody waits for.
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        let handed = Arc::new(Mutex::new(Some(runtime)));
        let taken = Arc::clone(&handed);
        let waiting = std::thread::Builder::new()
            .name("jammi-plan-end".into())
            .spawn(move || drop(taken.lock().take()));
        if waiting.is_err()
            && let Some(runtime) = handed.lock().take()
        {
            runtime.shutdown_background();
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn threads_of_plans_weigh_less_than_those_that_serve() {
        let config = EngineConfig::default();
        let shares = Shares::new(&config).unwrap();
        let workers = Workers::new(&config, shares, &SessionConfig::new()).unwrap();
        let own = nice().unwrap();
        let of_plans = workers.spawn(async { nice().unwrap() }).await.unwrap();
        assert_eq!(of_plans, own.max(5));
        assert_eq!(nice(), Some(own));
    }
}
