//! The one place where a service waits out a failure.

use std::future::Future;
use std::time::Duration;

use tidewheel_core::error::{ErrorClass, PortError};
use tidewheel_core::ports::PortResult;
use tidewheel_core::retry::Backoff;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::health::{Health, Telling};
use crate::meters;

/// Why an attempt was given up.
#[derive(Debug)]
pub enum GivenUp {
    /// The service is asked to stop.
    Shutdown,
    /// The failure will not pass: poison or fatal.
    Failed(PortError),
}

/// Runs port calls until they succeed, fail for good, or the service is asked to stop.
#[derive(Clone)]
pub struct Patience {
    /// Where failures are told.
    pub health: Health,
    /// Asks the service to stop.
    pub shutdown: CancellationToken,
}

impl Patience {
    /// Waits, unless the service is asked to stop.
    pub async fn pause(&self, duration: Duration) -> Result<(), GivenUp> {
        tokio::select! {
            () = self.shutdown.cancelled() => Err(GivenUp::Shutdown),
            () = tokio::time::sleep(duration) => Ok(()),
        }
    }

    /// Calls `attempt` until it succeeds, which counts as progress. Transient failures are waited out for ever. An outage is a
    /// few lines in the log, however many calls it fails: when it begins, less and less often while it lasts, and when
    /// it is over. `what` completes "cannot …".
    pub async fn call<T, F, A>(&self, what: &'static str, attempt: A) -> Result<T, GivenUp>
    where
        A: FnMut() -> F,
        F: Future<Output = PortResult<T>>,
    {
        let answer = self.wait_for(what, attempt).await?;
        self.health.progresses();
        Ok(answer)
    }

    /// The same for a call that achieves nothing by itself, such as a look.
    pub async fn wait_for<T, F, A>(&self, what: &'static str, mut attempt: A) -> Result<T, GivenUp>
    where
        A: FnMut() -> F,
        F: Future<Output = PortResult<T>>,
    {
        let mut backoff = Backoff::for_servers();
        loop {
            let error = match attempt().await {
                Ok(answer) => {
                    if backoff.attempts() > 0 {
                        self.works_again(what);
                    }
                    return Ok(answer);
                }
                Err(error) if error.class == ErrorClass::Transient => error,
                Err(error) => return Err(self.stopped(what, error)),
            };
            self.counts(&error);
            self.fails(what, &error);
            self.pause(backoff.next_delay(error.retry_after)).await?;
        }
    }

    /// Reports progress, and the end of an outage.
    pub(crate) fn succeeds(&self, what: &'static str) {
        self.works_again(what);
        self.health.progresses();
    }

    fn works_again(&self, what: &'static str) {
        if let Some((lasted, attempts)) = self.health.works(what) {
            info!(attempts, seconds = lasted.as_secs(), "can {what} again");
        }
    }

    /// Counts a failure that is tried again.
    pub(crate) fn counts(&self, error: &PortError) {
        meters::failed(self.health.service(), error, true);
    }

    /// Reports a failure that is waited out.
    pub(crate) fn fails(&self, what: &'static str, error: &PortError) {
        match self.health.fails(what, &error.message) {
            Telling::First => warn!(hint = error.hint, "cannot {what}, will keep trying: {error}"),
            Telling::Lasting(lasted, attempts) => {
                warn!(attempts, seconds = lasted.as_secs(), "still cannot {what}: {error}");
            }
            Telling::Not => debug!("still cannot {what}: {error}"),
        }
    }

    /// A failure that is not tried again.
    pub(crate) fn stopped(&self, what: &'static str, error: PortError) -> GivenUp {
        meters::failed(self.health.service(), &error, false);
        self.health.works(what);
        GivenUp::Failed(error)
    }
}
