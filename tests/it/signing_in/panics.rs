//! What is printed when a request is ended by a panic.

use std::panic;
use std::sync::Arc;

use async_trait::async_trait;
use jammi_db::TenantId;
use jammi_db::auth::{AuthenticationError, Credentials, TenantExtension};
use jammi_db::engine::Engine;
use jammi_db::server::Server;
use jammi_db::tenant::Principal;
use parking_lot::Mutex;
use tonic::Code;
use tonic::transport::Channel;

use crate::authentication::call;
use crate::harness::config;

/// Panics with all that it is asked with.
struct Panics;

#[async_trait]
impl TenantExtension for Panics {
    async fn authenticate(
        &self,
        credentials: &Credentials<'_>,
    ) -> Result<Principal, AuthenticationError> {
        panic!("asked with {credentials:?}")
    }

    async fn list_tenants(&self) -> jammi_db::error::Result<Vec<TenantId>> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn a_panic_prints_no_credential() {
    let printed = Arc::new(Mutex::new(String::new()));
    let (kept, before) = (Arc::clone(&printed), panic::take_hook());
    panic::set_hook(Box::new(move |info| {
        kept.lock().push_str(&info.to_string());
        before(info);
    }));
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let engine = Engine::open(&config).await.unwrap();
    let server = Server::bind(config, engine).await.unwrap();
    let server = server.with_extension(Arc::new(Panics));
    let address = format!("http://{}", server.grpc_addr());
    tokio::spawn(server.serve(std::future::pending()));
    let endpoint = Channel::from_shared(address).unwrap();
    let channel = endpoint.connect().await.unwrap();

    let method = "/jammi.v1.session.SessionService/GetTenant";
    let answer = call(&channel, method, Some("Bearer canary-of-a-panic")).await;
    assert_eq!(answer.code(), Code::Internal);
    assert!(!answer.message().contains("canary"), "{answer:?}");
    let printed = printed.lock().clone();
    assert!(printed.contains("asked with"), "{printed}");
    assert!(!printed.contains("canary-of-a-panic"), "{printed}");
}
