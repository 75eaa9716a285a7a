//! The one place where a service waits out a failure.

use std::future::Future;
use std::time::{Duration, Instant};

use tidewheel_core::error::{ErrorClass, PortError};
use tidewheel_core::ports::PortResult;
use tidewheel_core::retry::Backoff;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::health::Health;

/// Why an attempt was given up.
#[derive(Debug)]
pub(crate) enum GivenUp {
    /// The service is asked to stop.
    Shutdown,
    /// The failure will not pass: poison or fatal.
    Failed(PortError),
}

/// Runs port calls until they succeed, fail for good, or the service is asked to stop.
#[derive(Clone)]
pub(crate) struct Patience {
    pub(crate) health: Health,
    pub(crate) shutdown: CancellationToken,
}

impl Patience {
    /// Waits, unless the service is asked to stop.
    pub(crate) async fn pause(&self, duration: Duration) -> Result<(), GivenUp> {
        tokio::select! {
            () = self.shutdown.cancelled() => Err(GivenUp::Shutdown),
            () = tokio::time::sleep(duration) => Ok(()),
        }
    }

    /// Calls `attempt` until it succeeds. Transient failures are waited out for ever; the first and the recovery are
    /// logged, so that an outage is two lines. `what` completes "cannot …".
    pub(crate) async fn call<T, F, A>(&self, what: &'static str, mut attempt: A) -> Result<T, GivenUp>
    where
        A: FnMut() -> F,
        F: Future<Output = PortResult<T>>,
    {
        let mut backoff = Backoff::for_servers();
        let begun = Instant::now();
        loop {
            let error = match attempt().await {
                Ok(answer) => {
                    if backoff.attempts() > 0 {
                        self.health.works(what);
                        info!(
                            attempts = backoff.attempts() + 1,
                            seconds = begun.elapsed().as_secs(),
                            "can {what} again"
                        );
                    }
                    return Ok(answer);
                }
                Err(error) if error.class == ErrorClass::Transient => error,
                Err(error) => {
                    self.health.works(what);
                    return Err(GivenUp::Failed(error));
                }
            };
            self.health.fails(what, &error.message);
            if backoff.attempts() == 0 {
                warn!(hint = error.hint, "cannot {what}, will keep trying: {error}");
            } else {
                debug!(attempts = backoff.attempts(), "still cannot {what}: {error}");
            }
            self.pause(backoff.next_delay(error.retry_after)).await?;
        }
    }
}
