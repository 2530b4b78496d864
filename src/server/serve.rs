//! The server's assembly: ports, layers, services, and the way it stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::service::{InterceptorLayer, Routes};
use tonic::transport::Server as Transport;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Builder as Reflection;
use tonic_web::GrpcWebLayer;
use tower::{BoxError, Service, ServiceBuilder};
use tracing::{info, warn};

use super::accept::Port;
use super::authenticate::AuthenticateLayer;
use super::catalog::{Catalogs, SourceRegistration};
use super::console;
use super::evictions::Evictions;
use super::flight::{FlightServer, SessionNames, Transactions};
use super::health::{HealthService, Readiness};
use super::http;
use super::observe::ObserveLayer;
use super::operations::Operations;
use super::operator::Operators;
use super::origin::{AllowedOrigins, cors};
use super::proto;
use super::proto::catalog::catalog_service_server::CatalogServiceServer;
use super::proto::operator::operator_service_server::OperatorServiceServer;
use super::proto::session::session_service_server::SessionServiceServer;
use super::proto::tenants::tenant_service_server::TenantServiceServer;
use super::request::RequestIdLayer;
use super::running::Runs;
use super::session::{Bindings, Sessions};
use super::standing::StandingLayer;
use super::telemetry::{self, METRICS_UPKEEP};
use super::tenant::{
    Clock, SessionKeys, SessionMap, SystemBindings, SystemClock, TenantInterceptor,
};
use super::tenants::TenantOffice;
use super::tls::Tls;
use crate::auth::{
    ApiKeys, ClientCertificates, DefaultTenantExtension, InOrder, Jwts, Passwords, TenantExtension,
};
use crate::backend::ServerLock;
use crate::config::watched::{self, Reload};
use crate::config::{AuthenticationMethod, JammiConfig};
use crate::engine::{Activity, Engine};
use crate::error::{Error, Result};

/// How long the last scrape may take after everything else has stopped.
const HTTP_STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// How long requests that were cut off may take to end before the last records are
/// signed.
const AUDIT_STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest time between two looks for idle sessions.
const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// The longest time between two looks for idle transactions.
const TRANSACTION_SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(10);

/// How often it is looked for tenants whom another process has suspended or erased.
const EVICTION_INTERVAL: Duration = Duration::from_secs(1);
/// How often what tenants use is written down.
const USAGE_FLUSH_INTERVAL: Duration = Duration::from_secs(10);

/// What is read from files, and again when these change.
type Reloads = Vec<Arc<dyn Reload>>;

/// Makes servers.
pub struct Server;

/// A server that listens and does not answer yet: what arrives waits until
/// [`BoundServer::serve`].
pub struct BoundServer {
    config: JammiConfig,
    engine: Engine,
    extension: Arc<dyn TenantExtension>,
    tls: Option<Tls>,
    reloads: Reloads,
    operations: Arc<Operations>,
    evictions: Evictions,
    readiness: Readiness,
    grpc: Port,
    http: Port,
    grpc_addr: SocketAddr,
    http_addr: SocketAddr,
    _lock: ServerLock,
}

impl Server {
    /// Takes the artifact directory and both ports, and loads the sessions.
    ///
    /// # Errors
    /// A directory that another server uses, an address that cannot be
    /// listened on, or a storage that cannot be read.
    pub async fn bind(config: JammiConfig, engine: Engine) -> Result<BoundServer> {
        config.validate()?;
        // Before the first metric is recorded.
        let _ = telemetry::metrics();
        let lock = engine.backend().lock_for_server()?;
        engine.sweep_dropped_tables();
        let audit = engine.audit().clone();
        tokio::task::spawn_blocking(move || audit.open())
            .await
            .map_err(|error| Error::internal("the audit trail cannot be used", error))??;
        let tls = Tls::open(&config.tls)?;
        let (extension, mut reloads) = extension_of(&config, &engine)?;
        reloads.extend(tls.iter().map(Tls::reload));
        let settings = &config.server;
        let names = ("server.listen", "--listen");
        let transactions = Transactions::new(&config, Arc::new(SystemClock));
        let keys = SessionKeys::new(
            engine.catalog().temporary().clone(),
            Duration::from_secs(config.sessions.idle_timeout_secs),
            Arc::new(SystemClock),
        );
        let (ended, left) = (transactions.clone(), keys.clone());
        let grpc = Port::bind("grpc", &settings.listen, names, settings)
            .await?
            .encrypted(tls.clone())
            .on_end(Arc::new(move |connection| {
                ended.connection_ended(connection);
                left.connection_ended(connection);
            }));
        let names = ("server.http_listen", "--http-listen");
        let http = Port::bind("http", &settings.http_listen, names, settings)
            .await?
            .encrypted(tls.clone().filter(|_| config.tls.http));
        let sessions = SessionMap::open(
            Arc::new(SystemBindings::new(engine.backend().clone())),
            &config.sessions,
            Arc::new(SystemClock),
        )
        .await?;
        let evictions =
            Evictions::new(engine.clone(), sessions.clone(), transactions.clone()).await?;
        let names = SessionNames::new(
            config.sessions.max,
            Duration::from_secs(config.sessions.idle_timeout_secs),
        );
        let handle_ttl = Duration::from_secs(config.server.handle_ttl_secs);
        let operations = Arc::new(Operations {
            runs: Runs::new(handle_ttl, Arc::new(SystemClock)),
            sessions,
            keys,
            transactions,
            names: Arc::new(names),
            engine: engine.clone(),
            clock: Arc::new(SystemClock),
        });
        let activity: Arc<dyn Activity> = Arc::<Operations>::clone(&operations);
        engine.served_by(&activity);
        Ok(BoundServer {
            grpc_addr: grpc.local_addr()?,
            http_addr: http.local_addr()?,
            readiness: Readiness::serving(),
            extension,
            reloads,
            config,
            engine,
            tls,
            operations,
            evictions,
            grpc,
            http,
            _lock: lock,
        })
    }
}

impl BoundServer {
    /// The server with `extension` to say who asks, in place of what the settings
    /// name.
    #[must_use]
    pub fn with_extension(self, extension: Arc<dyn TenantExtension>) -> Self {
        BoundServer { extension, ..self }
    }

    /// Where gRPC, Flight SQL and gRPC-Web are served.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// Where health, readiness and metrics are served.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Serves until `shutdown` completes; then says that it is not ready, stops
    /// accepting, and lets running requests end for `server.drain_timeout_ms`.
    /// What runs longer is cut off.
    ///
    /// # Errors
    /// A defect of the assembly.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
        let stack = self.stack()?;
        let console = self
            .console()
            .then(|| console::pages(self.grpc_addr.port(), self.config.console.grpc_url.clone()));
        let pages = http::pages(self.readiness.clone(), console);
        let (transport, http_transport) = (self.transport(), self.transport());
        let (grpc_closing, http_closing) = (self.grpc.closing(), self.http.closing());
        let drain_timeout = Duration::from_millis(self.config.server.drain_timeout_ms);
        let idle_timeout = Duration::from_secs(self.config.sessions.idle_timeout_secs);

        let http_stop = CancellationToken::new();
        let mut http =
            AbortOnDropHandle::new(tokio::spawn(http_transport.serve_with_incoming_shutdown(
                pages,
                self.http.connections(),
                http_stop.clone().cancelled_owned(),
            )));
        let transactions = self.operations.transactions.clone();
        let idle_transaction = Duration::from_secs(self.config.transactions.idle_timeout_secs);
        let expiry = async move {
            let mut sweeps = interval((idle_transaction / 4).min(TRANSACTION_SWEEP_INTERVAL_MAX));
            sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                sweeps.tick().await;
                transactions.sweep();
            }
        };
        let _expiry = AbortOnDropHandle::new(tokio::spawn(expiry));
        let sessions = self.operations.sessions.clone();
        let upkeep = upkeep(sessions, self.engine.clone(), idle_timeout);
        let upkeep = AbortOnDropHandle::new(tokio::spawn(upkeep));
        let evicting = evict(self.evictions.clone(), self.engine.clone());
        let _evicting = AbortOnDropHandle::new(tokio::spawn(evicting));
        let reloads = watched::watch(self.reloads.clone());
        let _reloads = AbortOnDropHandle::new(tokio::spawn(reloads));

        let stopping = CancellationToken::new();
        let stop = async {
            shutdown.await;
            info!("stopping: no new requests are taken");
            self.readiness.drain();
            stopping.cancel();
        };
        let overdue = async {
            stopping.cancelled().await;
            tokio::time::sleep(drain_timeout).await;
        };
        let serving = transport.serve_with_incoming_shutdown(stack, self.grpc.connections(), stop);
        let served = tokio::select! {
            served = serving => served,
            () = overdue => {
                warn!("requests that still run after server.drain_timeout_ms are cut off");
                Ok(())
            }
        };
        grpc_closing.cancel();
        self.operations.transactions.stop();
        drop(upkeep);
        self.engine.end_counting().await;
        if let Err(error) = self.operations.sessions.sweep().await {
            warn!(%error, "last uses of sessions were not stored");
        }
        self.engine.audit().settle(AUDIT_STOP_TIMEOUT).await;
        // Last, so that probes see the server drain.
        http_stop.cancel();
        let _ = tokio::time::timeout(HTTP_STOP_TIMEOUT, &mut http).await;
        http_closing.cancel();
        info!("stopped");
        served.map_err(|error| Error::internal("the server cannot serve", error))
    }

    /// How connections are served, on either port.
    fn transport(&self) -> Transport {
        let settings = &self.config.server;
        let keepalive_interval = Duration::from_millis(settings.keepalive_interval_ms);
        let keepalive_timeout = Duration::from_millis(settings.keepalive_timeout_ms);
        Transport::builder()
            // Browsers behind proxies, probes and scrapers.
            .accept_http1(true)
            // A client that vanished answers no ping.
            .http2_keepalive_interval(Some(keepalive_interval))
            .http2_keepalive_timeout(Some(keepalive_timeout))
            .http2_max_header_list_size(settings.header_bytes_max)
            .max_concurrent_streams(settings.connection_streams_max)
    }

    /// The gRPC port, from the outside in.
    fn stack(
        &self,
    ) -> Result<
        impl Service<
            ::http::Request<Body>,
            Response = ::http::Response<Body>,
            Error: Into<BoxError> + Send,
            Future: Send,
        > + Clone
        + Send
        + 'static,
    > {
        let mut origins = self.config.server.allowed_origins.clone();
        if self.console() {
            origins.extend(console::origins(
                self.http_scheme(),
                &self.config.server.http_listen,
                self.http_addr,
            ));
        }
        let origins = AllowedOrigins::new(&origins);
        Ok(ServiceBuilder::new()
            // Outermost, so that refusals and preflights have an id too.
            .layer(RequestIdLayer)
            // Outside gRPC-Web, which would refuse a preflight, and outside the
            // origin guard, so that browsers learn why they may not call.
            .layer(cors(&origins))
            // Before anything reads the request.
            .layer(origins)
            // Outside the tenant layer, because a browser's metadata arrives
            // translated.
            .layer(GrpcWebLayer::new())
            // Inside gRPC-Web, which moves the status into the body.
            .layer(ObserveLayer::new(self.engine.audit().clone()))
            .service(self.routes()?))
    }

    /// The services, each behind admission but those that say what the server is.
    fn routes(&self) -> Result<Routes> {
        let message_bytes_max = self.config.server.message_bytes_max;
        let admission = InterceptorLayer::new(TenantInterceptor::new(
            self.operations.sessions.clone(),
            self.operations.keys.clone(),
            self.config.tenancy.anonymous_reads,
        ));
        let bindings = Bindings::new(
            self.operations.sessions.clone(),
            self.operations.transactions.clone(),
            self.evictions.clone(),
        );
        let sessions = SessionServiceServer::new(Sessions::new(bindings.clone()))
            .max_decoding_message_size(message_bytes_max)
            .max_encoding_message_size(message_bytes_max);
        let registration = self.source_registration();
        let catalogs = CatalogServiceServer::new(Catalogs::new(self.engine.clone(), registration))
            .max_decoding_message_size(message_bytes_max)
            .max_encoding_message_size(message_bytes_max);
        let office = TenantOffice::new(self.engine.clone(), self.evictions.clone());
        let tenants = TenantServiceServer::new(office)
            .max_decoding_message_size(message_bytes_max)
            .max_encoding_message_size(message_bytes_max);
        let operators = OperatorServiceServer::new(Operators::new(Arc::clone(&self.operations)))
            .max_decoding_message_size(message_bytes_max)
            .max_encoding_message_size(message_bytes_max);
        let flight =
            FlightServer::new(bindings, Arc::clone(&self.operations), &self.config)?.into_service();
        let health = HealthServer::new(HealthService::new(self.readiness.clone()));
        let reflection = || {
            Reflection::configure()
                .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(proto::FLIGHT_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let undescribed = |error| Error::internal("the services cannot be described", error);
        let authenticate = AuthenticateLayer::new(
            Arc::clone(&self.extension),
            self.tls.clone(),
            self.config.auth.failures_max,
        );
        let admit = ServiceBuilder::new()
            .layer(authenticate)
            .layer(admission)
            .layer(StandingLayer::new(self.engine.tenants().clone()));
        Ok(Routes::new(admit.service(sessions))
            .add_service(admit.service(catalogs))
            .add_service(admit.service(operators))
            .add_service(admit.service(tenants))
            .add_service(admit.service(flight))
            // Health and reflection belong to no tenant.
            .add_service(health)
            .add_service(reflection().build_v1().map_err(undescribed)?)
            .add_service(reflection().build_v1alpha().map_err(undescribed)?))
    }

    /// The scheme of the port of gRPC, as clients of Flight spell it.
    pub fn grpc_scheme(&self) -> &'static str {
        match self.config.tls.is_on() {
            true => "grpc+tls",
            false => "grpc",
        }
    }

    /// The scheme of the port of health and metrics.
    pub fn http_scheme(&self) -> &'static str {
        match self.config.tls.http {
            true => "https",
            false => "http",
        }
    }

    /// Whether the console is served.
    pub fn console(&self) -> bool {
        self.config.console.enabled
    }

    /// Whether clients may register sources. Whoever reaches the port could read
    /// every file that the server can read by registering it, so beyond
    /// loopback only named roots are open. Sources that are registered on the
    /// machine itself are served all the same.
    pub fn source_registration(&self) -> SourceRegistration {
        match &self.config.sources.roots {
            Some(roots) if roots.is_empty() => SourceRegistration::Refused,
            None if !self.grpc_addr.ip().is_loopback() => SourceRegistration::Refused,
            Some(_) | None => SourceRegistration::Allowed,
        }
    }
}

/// What authenticates by the settings, and what of it is read from files.
fn extension_of(
    config: &JammiConfig,
    engine: &Engine,
) -> Result<(Arc<dyn TenantExtension>, Reloads)> {
    let backend = engine.backend();
    let now_ms = || SystemClock.now_ms();
    let (mut extensions, mut reloads) = (Vec::new(), Reloads::new());
    for method in &config.auth.methods {
        let extension: Arc<dyn TenantExtension> = match method {
            AuthenticationMethod::ApiKey => Arc::new(ApiKeys::new(backend.clone(), now_ms)),
            AuthenticationMethod::Jwt => {
                let tokens = Jwts::open(backend.clone(), &config.auth.jwt, now_ms)?;
                reloads.extend(tokens.reload());
                Arc::new(tokens)
            }
            AuthenticationMethod::Mtls => {
                let clients = ClientCertificates::open(backend.clone(), &config.auth.mtls)?;
                reloads.push(clients.reload());
                Arc::new(clients)
            }
            AuthenticationMethod::Password => {
                let config = &config.auth.password;
                Arc::new(Passwords::new(backend.clone(), config, now_ms))
            }
        };
        extensions.push(extension);
    }
    let extension: Arc<dyn TenantExtension> = match extensions.is_empty() {
        true => Arc::new(DefaultTenantExtension::new(backend.clone())),
        false => Arc::new(InOrder::new(extensions)),
    };
    Ok((extension, reloads))
}

/// Ends what there is of tenants who are suspended or erased, and writes down what
/// tenants use, for as long as it is polled.
async fn evict(evictions: Evictions, engine: Engine) {
    let mut looks = interval(EVICTION_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut counting = interval(USAGE_FLUSH_INTERVAL);
    counting.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => if let Err(error) = evictions.look().await {
                warn!(%error, "it was not looked for tenants who are suspended or erased");
            },
            _ = counting.tick() => engine.end_counting().await,
        }
    }
}

/// Forgets idle sessions and tidies the metrics, for as long as it is polled.
async fn upkeep(sessions: SessionMap, engine: Engine, idle_timeout: Duration) {
    let idle_timeout_ms = idle_timeout.as_millis().try_into().unwrap_or(i64::MAX);
    let mut sweeps = interval((idle_timeout / 4).min(SWEEP_INTERVAL_MAX));
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tidying = interval(METRICS_UPKEEP);
    tidying.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = sweeps.tick() => {
                if let Err(error) = sessions.sweep().await {
                    warn!(%error, "idle sessions were not swept");
                }
                engine.end_idle_sessions(SystemClock.now_ms(), idle_timeout_ms).await;
            }
            _ = tidying.tick() => if let Some(metrics) = telemetry::metrics() {
                metrics.run_upkeep();
            },
        }
    }
}
