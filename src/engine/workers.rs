//! The threads that plan and run statements.
//!
//! A plan computes for long between its pauses. On the threads that serve
//! sockets it would keep health probes, cancellations and other tenants' small
//! statements waiting, so plans have a runtime of their own. What is known to be
//! short stays where it is asked for: see [`super::short`].

use std::future::Future;
use std::sync::Arc;
use std::thread::available_parallelism;

use datafusion::prelude::SessionConfig;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;

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
            .on_thread_start(let_thread_block)
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
