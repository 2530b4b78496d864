//! The threads that run plans.
//!
//! A plan computes for long between its pauses. On the threads that serve
//! sockets it would keep health probes, cancellations and other tenants' small
//! statements waiting, so plans have a runtime of their own.

use std::future::Future;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;

use crate::error::{Error, Result};

/// The runtime of the plans. Dropping it abandons what still runs.
pub(super) struct Workers(Option<Runtime>);

impl Workers {
    /// As many threads as plans have partitions, or as there are cores.
    pub(super) fn new(partitions: Option<usize>) -> Result<Self> {
        let cores = available_parallelism().map_or(1, usize::from);
        Builder::new_multi_thread()
            .worker_threads(partitions.unwrap_or(cores).max(1))
            .thread_name("jammi-plan")
            .enable_all()
            .build()
            .map(|runtime| Workers(Some(runtime)))
            .map_err(|error| Error::internal("the engine's threads cannot be started", error))
    }

    /// Runs `work` until it ends or the handle is dropped.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> AbortOnDropHandle<T> {
        let runtime = self.0.as_ref().expect("taken by drop alone");
        AbortOnDropHandle::new(runtime.spawn(work))
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Waiting for the threads is not allowed where futures run, and the
        // last clone of an engine may well be dropped there.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
