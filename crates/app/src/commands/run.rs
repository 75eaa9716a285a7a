//! `tidewheel run`, and the commands that run a single service.

use tidewheel_local::{Event, Report};
use tracing::{debug, info, warn};

use crate::Measurements;
use crate::exit::{Answer, Failure};
use crate::services::{Kind, Services};
use crate::settings::Settings;

/// Runs services until a signal, or until one of them fails permanently.
pub(crate) async fn run(kinds: &[Kind], settings: &Settings, measurements: Measurements) -> Result<Answer, Failure> {
    let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
    info!(version = env!("CARGO_PKG_VERSION"), services = names.join(" "), "starting");
    Services::start(kinds, settings, logged(), measurements).await?.until_stopped().await?;
    info!("stopped");
    Ok(Answer::Fine)
}

/// Logs downloads.
fn logged() -> Report {
    std::sync::Arc::new(|event| match event {
        Event::Fetching { what, from, bytes, licence, .. } => info!(what, from, bytes, licence, "downloading"),
        Event::Fetched { part, took } => info!(%part, seconds = took.as_secs(), "downloaded"),
        Event::Waiting { part } => info!(%part, "waiting for another process to download it"),
        Event::Skipped { part, reason } => info!(%part, "{reason}"),
        Event::Warned { part, reason } => warn!(%part, "{reason}"),
        other => debug!("{other:?}"),
    })
}
