//! `jammi serve`.

use super::args::{GlobalArgs, ServeArgs};
use super::failure::{Failure, Outcome};
use super::sample;
use super::{notice, settings};
use crate::config::LogFormat;
use crate::engine::Engine;
use crate::server;

/// Runs the server until it is told to stop.
pub async fn run(global: &GlobalArgs, args: ServeArgs) -> Outcome {
    if global.url.is_some() {
        return Err(Failure::Usage(
            "--url names a server that runs already: leave it out with serve".into(),
        ));
    }
    if global.tenant.is_some() {
        notice("--tenant has no effect on serve: every session binds a tenant of its own");
    }
    let config = settings::load(global, Some(&args))?;
    let sample_dir = args.sample.then(|| sample::dir(&config));
    let prepare = async |engine: &Engine| match &sample_dir {
        Some(dir) => sample::load(engine, dir).await,
        None => Ok(()),
    };
    // A log for programs is no place for an example.
    let example = sample_dir
        .as_deref()
        .filter(|_| config.log.format == LogFormat::Text);
    let started = |grpc| {
        if let Some(dir) = example {
            notice(sample::first_session(dir, grpc));
        }
    };
    server::run(config.clone(), prepare, started)
        .await
        .map_err(|error| Failure::Connection(error.to_string()))
}
