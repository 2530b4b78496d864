//! `jammi models`.

use super::args::ModelsCommand;
use super::catalog_rows;
use super::failure::Outcome;
use super::sources::{say, show};
use super::target::Target;
use crate::server::proto::catalog::RegisterModelRequest;

/// Runs one of the commands about models.
pub async fn run(target: &Target, command: ModelsCommand) -> Outcome {
    match command {
        ModelsCommand::List { name, output } => {
            let models = target.models(name.as_deref()).await?;
            show(output, |output| {
                output.batch(&catalog_rows::models(&models)?)
            })
        }
        ModelsCommand::Register {
            name,
            version,
            uri,
            metadata,
        } => {
            let request = RegisterModelRequest {
                name,
                version,
                uri,
                metadata,
            };
            let model = target.register_model(request).await?;
            say(&format!(
                "registered model {} version {}",
                model.name, model.version
            ))
        }
        ModelsCommand::Describe {
            name,
            version,
            output,
        } => {
            let model = target.model(&name, version.as_deref()).await?;
            show(output, |output| {
                output.batch(&catalog_rows::models(&[model])?)
            })
        }
        ModelsCommand::Drop { name, version } => {
            target.drop_model(&name, &version).await?;
            say(&format!("dropped model {name} version {version}"))
        }
    }
}
