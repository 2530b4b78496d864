//! The object stores that sources read from, opened when first needed.

use std::sync::Arc;
use std::time::Duration;

use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use object_store::aws::AmazonS3Builder;
use object_store::client::SpawnedReqwestConnector;
use object_store::limit::LimitStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use tokio::runtime::Handle;

use super::Location;
use crate::config::SourcesConfig;
use crate::error::{Error, Result};

/// Requests that one bucket's client has under way at most.
const S3_REQUESTS_MAX: usize = 64;

/// Opens a location's store and registers it with DataFusion's runtime.
#[derive(Clone, Debug)]
pub struct Stores {
    runtime: Arc<RuntimeEnv>,
    config: SourcesConfig,
    // Requests go out from the threads that serve sockets: those that run plans
    // are busy for longer than a connection waits.
    sockets: Handle,
}

impl Stores {
    /// Stores with the endpoint and region of `config`, and credentials from
    /// the `AWS_*` environment. Requests are sent by the runtime `sockets`.
    pub fn new(runtime: Arc<RuntimeEnv>, config: SourcesConfig, sockets: Handle) -> Self {
        Stores {
            runtime,
            config,
            sockets,
        }
    }

    /// The store that holds `location`.
    pub fn open(&self, location: &Location) -> Result<Arc<dyn ObjectStore>> {
        let url = location.store();
        if let Ok(store) = self.runtime.object_store(url) {
            return Ok(store);
        }
        let store: Arc<dyn ObjectStore> =
            Arc::new(LimitStore::new(self.open_s3(url)?, S3_REQUESTS_MAX));
        self.runtime
            .register_object_store(url.as_ref(), Arc::clone(&store));
        Ok(store)
    }

    fn open_s3(&self, url: &ObjectStoreUrl) -> Result<impl ObjectStore + use<>> {
        let url: &url::Url = url.as_ref();
        let bucket = url.host_str().unwrap_or_default();
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_http_connector(SpawnedReqwestConnector::new(self.sockets.clone()))
            // A store that is not there is reported, not waited for.
            .with_retry(RetryConfig {
                max_retries: 3,
                retry_timeout: Duration::from_secs(15),
                ..RetryConfig::default()
            });
        if let Some(endpoint) = &self.config.s3_endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = &self.config.s3_region {
            builder = builder.with_region(region);
        }
        if self.config.s3_allow_http {
            builder = builder.with_client_options(ClientOptions::new().with_allow_http(true));
        }
        builder.build().map_err(|error| {
            tracing::warn!(bucket, %error, "an S3 client cannot be made");
            Error::InvalidArgument(format!(
                "bucket {bucket:?} cannot be opened: set sources.s3_region and the server's AWS_* \
                 credentials"
            ))
        })
    }
}
