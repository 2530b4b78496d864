//! Tenants as objects, at the wire: registered, suspended, carried elsewhere, erased
//! and counted, with another tenant beside, of whom nothing may change or appear.

mod archives;
mod commands;
mod erased;
mod standing;
mod tree;
mod used;

use jammi_db::engine::Engine;
use jammi_db::server::proto::tenants::tenant_service_client::TenantServiceClient;
use jammi_db::server::proto::tenants::{
    EraseTenantRequest, ExportTenantRequest, GetUsageRequest, GetUsageResponse,
    ImportTenantRequest, ImportTenantResponse, ListTenantsRequest, ResumeTenantRequest,
    SuspendTenantRequest, TenantState,
};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::client::{ALICE, BOB, Client, alice_and_bob};
use crate::harness::{TestServer, config};

/// What is Alice's alone.
const HERS: &str = "canary of alice";
/// What is Bob's alone.
const HIS: &str = "canary of bob";

type Office = TenantServiceClient<Channel>;

impl TestServer {
    pub async fn office(&self) -> Office {
        TenantServiceClient::new(self.channel().await)
    }

    /// Another process on the server's directory, as good as one.
    async fn beside(&self) -> Engine {
        Engine::open(&config(self.dir())).await.unwrap()
    }
}

/// A server with a note of each of two tenants, in tables of one name.
async fn world() -> (TestServer, Client, Client) {
    let server = TestServer::start().await;
    let (mut alice, mut bob) = alice_and_bob(&server).await;
    for (client, canary) in [(&mut alice, HERS), (&mut bob, HIS)] {
        client.note(canary).await;
    }
    (server, alice, bob)
}

impl Client {
    async fn note(&mut self, canary: &str) {
        for sql in [
            "CREATE TABLE notes (id BIGINT PRIMARY KEY, note VARCHAR)".to_owned(),
            format!("INSERT INTO notes VALUES (1, '{canary}')"),
        ] {
            self.query(&sql).await.unwrap();
        }
    }

    async fn notes(&mut self) -> String {
        self.shows("SELECT note FROM notes ORDER BY id").await
    }
}

async fn suspend(office: &mut Office, id: &str) {
    let request = SuspendTenantRequest { id: id.into() };
    let answer = office.suspend_tenant(request).await.unwrap().into_inner();
    assert_eq!(answer.tenant.unwrap().state(), TenantState::Suspended);
}

async fn resume(office: &mut Office, id: &str) {
    let request = ResumeTenantRequest { id: id.into() };
    let answer = office.resume_tenant(request).await.unwrap().into_inner();
    assert_eq!(answer.tenant.unwrap().state(), TenantState::Active);
}

async fn erase(office: &mut Office, id: &str) -> Result<String, Status> {
    let request = EraseTenantRequest {
        id: id.into(),
        confirm: id.into(),
    };
    Ok(office.erase_tenant(request).await?.into_inner().certificate)
}

async fn export(office: &mut Office, id: &str) -> Result<Vec<u8>, Status> {
    let request = ExportTenantRequest { id: id.into() };
    let mut messages = office.export_tenant(request).await?.into_inner();
    let mut archive = Vec::new();
    while let Some(message) = messages.message().await? {
        archive.extend(message.chunk);
    }
    Ok(archive)
}

async fn import(
    office: &mut Office,
    archive: &[u8],
    request: ImportTenantRequest,
) -> Result<ImportTenantResponse, Status> {
    let chunks: Vec<ImportTenantRequest> = archive
        .chunks(1_000)
        .map(|chunk| ImportTenantRequest {
            chunk: chunk.to_vec(),
            ..request.clone()
        })
        .collect();
    let answer = office.import_tenant(futures::stream::iter(chunks)).await?;
    Ok(answer.into_inner())
}

async fn usage(office: &mut Office, id: &str) -> GetUsageResponse {
    let request = GetUsageRequest { id: id.into() };
    office.get_usage(request).await.unwrap().into_inner()
}

/// The id and state of every tenant, in order.
async fn listed(office: &mut Office) -> Vec<(String, TenantState, bool)> {
    let answer = office.list_tenants(ListTenantsRequest {}).await.unwrap();
    let tenants = answer.into_inner().tenants.into_iter();
    tenants
        .map(|tenant| {
            let is_registered = tenant.created_at_ms.is_some();
            (tenant.id.clone(), tenant.state(), is_registered)
        })
        .collect()
}

fn in_session<T>(session: &str, message: T) -> Request<T> {
    crate::harness::in_session(session, message)
}

/// The two tenants of every test.
const BOTH: [&str; 2] = [ALICE, BOB];
