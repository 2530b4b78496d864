//! Whether the server takes requests: the gRPC health service, and what
//! `/readyz` says.
//!
//! Invariant: both tell the same, from one switch that is turned once, before
//! the server stops accepting. A watch ends with NOT_SERVING, so that watching
//! clients do not hold up a server that drains.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::LazyLock;

use futures::Stream;
use tokio::sync::watch;
use tonic::{Request, Response, Status, async_trait};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::methods::method_names;

/// The services that can be asked for: each that answers requests, and with the empty
/// name the server itself.
static SERVICES: LazyLock<BTreeSet<&str>> = LazyLock::new(|| {
    let of_others = |service: &&str| !service.starts_with("grpc.");
    let paths = method_names().into_iter();
    let services = paths.filter_map(|path| path.split('/').nth(1));
    services.filter(of_others).chain([""]).collect()
});

/// The switch. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Readiness(watch::Sender<bool>);

impl Readiness {
    /// A server that takes requests.
    pub fn serving() -> Self {
        Readiness(watch::Sender::new(true))
    }

    /// Says from now on that the server takes no more requests.
    pub fn drain(&self) {
        self.0.send_replace(false);
    }

    /// Whether the server takes requests.
    pub fn is_serving(&self) -> bool {
        *self.0.borrow()
    }
}

/// `grpc.health.v1.Health` over the switch.
#[derive(Clone, Debug)]
pub(super) struct HealthService {
    readiness: Readiness,
}

impl HealthService {
    pub fn new(readiness: Readiness) -> Self {
        HealthService { readiness }
    }
}

type Watch = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

#[async_trait]
impl Health for HealthService {
    type WatchStream = Watch;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !SERVICES.contains(&request.get_ref().service.as_str()) {
            return Err(Status::not_found(format!(
                "service is not known: ask for one of {:?}",
                *SERVICES
            )));
        }
        Ok(Response::new(answer(self.readiness.is_serving())))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Watch>, Status> {
        let known = SERVICES.contains(&request.get_ref().service.as_str());
        let first = Some((self.readiness.0.subscribe(), true));
        let answers = futures::stream::unfold(first, move |state| async move {
            let (mut serving, is_first) = state?;
            if !is_first {
                serving.changed().await.ok()?;
            }
            let is_serving = *serving.borrow_and_update();
            let message = match (known, is_serving) {
                (true, _) => answer(is_serving),
                // The protocol has a watch of an unknown service wait for it.
                (false, true) => status(ServingStatus::ServiceUnknown),
                (false, false) => return None,
            };
            Some((Ok(message), is_serving.then_some((serving, false))))
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

fn answer(serving: bool) -> HealthCheckResponse {
    status(match serving {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    })
}

fn status(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    fn ask(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest {
            service: service.into(),
        })
    }

    #[tokio::test]
    async fn a_watch_ends_when_the_server_drains() {
        let readiness = Readiness::serving();
        let health = HealthService::new(readiness.clone());
        for service in SERVICES.iter().copied() {
            let checked = health.check(ask(service)).await.unwrap();
            assert_eq!(checked.get_ref().status(), ServingStatus::Serving);
        }
        assert!(health.check(ask("no.such.Service")).await.is_err());

        let watch = |service| health.watch(ask(service));
        let mut known = watch("").await.unwrap().into_inner();
        let mut unknown = watch("no.such.Service").await.unwrap().into_inner();
        let first = known.next().await.unwrap().unwrap();
        assert_eq!(first.status(), ServingStatus::Serving);
        let first = unknown.next().await.unwrap().unwrap();
        assert_eq!(first.status(), ServingStatus::ServiceUnknown);

        readiness.drain();
        let last = known.next().await.unwrap().unwrap();
        assert_eq!(last.status(), ServingStatus::NotServing);
        assert!(known.next().await.is_none());
        assert!(unknown.next().await.is_none());
        let checked = health.check(ask("")).await.unwrap();
        assert_eq!(checked.get_ref().status(), ServingStatus::NotServing);
    }
}
