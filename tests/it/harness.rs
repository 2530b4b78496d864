//! A server for one test.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use jammi_db::config::JammiConfig;
use jammi_db::engine::Engine;
use jammi_db::error::Result;
use jammi_db::server::Server;
use jammi_db::server::proto::catalog::catalog_service_client::CatalogServiceClient;
use jammi_db::server::proto::session::session_service_client::SessionServiceClient;
use jammi_db::server::proto::session::{GetTenantRequest, SetTenantRequest, Tenant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Request, Status};

pub const ALICE: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a";
pub const BOB: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b";

/// A running server and its directory.
pub struct TestServer {
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<()>>,
    dir: Arc<TempDir>,
}

/// The settings of a server in `dir`, on free ports.
pub fn config(dir: &Path) -> JammiConfig {
    let mut config = JammiConfig {
        artifact_dir: dir.to_owned(),
        ..JammiConfig::default()
    };
    config.server.listen = "127.0.0.1:0".into();
    config.server.http_listen = "127.0.0.1:0".into();
    config
}

impl TestServer {
    pub async fn start() -> TestServer {
        TestServer::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut JammiConfig)) -> TestServer {
        TestServer::start_in(Arc::new(tempfile::tempdir().unwrap()), change).await
    }

    pub async fn start_in(dir: Arc<TempDir>, change: impl FnOnce(&mut JammiConfig)) -> TestServer {
        let mut config = config(dir.path());
        change(&mut config);
        let engine = Engine::open(&config).await.unwrap();
        let server = Server::bind(config, engine).await.unwrap();
        let (grpc, http) = (server.grpc_addr(), server.http_addr());
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server.serve(async {
            // Dropping the sender stops the server too.
            let _ = stopped.await;
        }));
        TestServer {
            grpc,
            http,
            stop,
            serving,
            dir,
        }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Tells the server to stop, and gives what completes when it has.
    pub fn begin_stop(self) -> (JoinHandle<Result<()>>, Arc<TempDir>) {
        let _ = self.stop.send(());
        (self.serving, self.dir)
    }

    /// Stops the server and keeps its directory.
    pub async fn stop(self) -> Arc<TempDir> {
        let (serving, dir) = self.begin_stop();
        serving.await.unwrap().unwrap();
        dir
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.grpc)).unwrap();
        endpoint.connect().await.unwrap()
    }

    pub async fn sessions(&self) -> SessionServiceClient<Channel> {
        SessionServiceClient::new(self.channel().await)
    }

    pub async fn catalog(&self) -> CatalogServiceClient<Channel> {
        CatalogServiceClient::new(self.channel().await)
    }

    /// A page of the second port: its status line and body.
    pub async fn page(&self, path: &str) -> (String, String) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: jammi\r\nconnection: close\r\n\r\n");
        let answer = http1(self.http, request.as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }
}

/// Sends `request` as it stands and reads until the server closes.
pub async fn http1(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// `message` in `session`.
pub fn in_session<T>(session: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = session.parse().unwrap();
    request.metadata_mut().insert("jammi-session-id", value);
    request
}

pub fn set_tenant(tenant: &str) -> SetTenantRequest {
    SetTenantRequest {
        tenant: Some(Tenant { id: tenant.into() }),
    }
}

/// Binds `session` and answers the tenant that the server says.
pub async fn bind(
    client: &mut SessionServiceClient<Channel>,
    session: &str,
    tenant: &str,
) -> Result<String, Status> {
    let answer = client
        .set_tenant(in_session(session, set_tenant(tenant)))
        .await?;
    Ok(answer.into_inner().tenant.unwrap().id)
}

/// The tenant that `session` is bound to.
pub async fn bound(client: &mut SessionServiceClient<Channel>, session: &str) -> Option<String> {
    let request = in_session(session, GetTenantRequest {});
    let answer = client.get_tenant(request).await.unwrap();
    answer.into_inner().tenant.map(|tenant| tenant.id)
}
