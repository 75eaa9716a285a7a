//! `tidewheel console`: serves the web console.

use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::console;
use crate::exit::{Answer, Failure};
use crate::settings::{Listen, Settings};
use crate::signals;

/// Serves until a signal.
pub(crate) async fn run(settings: &Settings) -> Result<Answer, Failure> {
    let mut settings = settings.clone();
    if settings.console.listen == Listen::Default {
        // An explicit `tidewheel console` reports a bind failure.
        settings.console.listen = Listen::At(console::USUAL.to_owned());
    }
    let shutdown = CancellationToken::new();
    let Some(listener) = console::bind(&settings.console).await? else {
        return Err(Failure::new("console.listen is off").with_hint("set it to an address such as 127.0.0.1:9091"));
    };
    let stop = shutdown.clone();
    tokio::spawn(async move {
        signals::received().await;
        stop.cancel();
    });
    console::serve(listener, settings, shutdown).await?;
    info!("stopped");
    Ok(Answer::Fine)
}
