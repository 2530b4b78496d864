//! `jammi serve`.

use rlimit::Resource;

use super::args::{GlobalArgs, ServeArgs};
use super::failure::{Failure, Outcome};
use super::sample;
use super::{notice, settings};
use crate::config::LogFormat;
use crate::engine::Engine;
use crate::server;

/// Has a crash leave no image of the memory, which holds what clients have sent.
fn leave_no_core() {
    // A byte is too little for a file, and by core(5) it is what has Linux start no
    // program that would be given the image. No limit that is lower is raised.
    let limited = Resource::CORE.get().and_then(|(_, hard)| {
        let most = hard.min(1);
        Resource::CORE.set(most, most)
    });
    if let Err(error) = limited {
        notice(format_args!(
            "a crash may leave an image of the memory ({error}): set the limit of core files to 0"
        ));
    }
}

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
    leave_no_core();
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
