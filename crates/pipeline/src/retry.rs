//! The retry policy of all services.

use std::future::Future;
use std::time::Duration;

use tidewheel_core::error::{ErrorClass, PortError};
use tidewheel_core::health::{FailureReport, Health};
use tidewheel_core::ports::PortResult;
use tidewheel_core::retry::Backoff;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::metric;

/// The reason why an operation is not retried.
#[derive(Debug)]
pub enum RetryError {
    /// The service is shutting down.
    Shutdown,
    /// The failure is permanent: poison or fatal.
    Failed(PortError),
}

/// Runs port calls until they succeed, fail permanently, or the service shuts down.
#[derive(Clone)]
pub struct RetryPolicy {
    /// Receives reports of failures.
    pub health: Health,
    /// Stops the service.
    pub shutdown: CancellationToken,
}

impl RetryPolicy {
    /// Waits, unless the service shuts down.
    pub async fn pause(&self, duration: Duration) -> Result<(), RetryError> {
        tokio::select! {
            () = self.shutdown.cancelled() => Err(RetryError::Shutdown),
            () = tokio::time::sleep(duration) => Ok(()),
        }
    }

    /// Waits until the service is not ready, because something that it waits for fails.
    pub(crate) async fn until_failing(&self) {
        /// How often it is checked.
        const LOOK: Duration = Duration::from_secs(1);
        while self.health.readiness().reasons.is_empty() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Calls `attempt` until it succeeds, which counts as progress. Transient failures are retried without limit. An
    /// outage logs a few lines regardless of the number of failed calls: when it begins, at growing intervals while it
    /// lasts, and when it ends. `what` completes "failed to …".
    pub async fn call<T, F, A>(&self, what: &'static str, attempt: A) -> Result<T, RetryError>
    where
        A: FnMut() -> F,
        F: Future<Output = PortResult<T>>,
    {
        let answer = self.wait_for(what, attempt).await?;
        self.health.progresses();
        Ok(answer)
    }

    /// Like [`Self::call`], for a call that is not progress in itself, such as a status check.
    pub async fn wait_for<T, F, A>(&self, what: &'static str, mut attempt: A) -> Result<T, RetryError>
    where
        A: FnMut() -> F,
        F: Future<Output = PortResult<T>>,
    {
        let mut backoff = Backoff::for_servers();
        loop {
            let error = match attempt().await {
                Ok(answer) => {
                    if backoff.attempts() > 0 {
                        report_recovery(&self.health, what);
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
        report_recovery(&self.health, what);
        self.health.progresses();
    }

    /// Counts a failure that is retried.
    pub(crate) fn counts(&self, error: &PortError) {
        metric::failed(self.health.service(), error, true);
    }

    /// Reports a failure that is waited out.
    pub(crate) fn fails(&self, what: &'static str, error: &PortError) {
        report_failure(&self.health, what, error);
    }

    /// A failure that is not retried.
    pub(crate) fn stopped(&self, what: &'static str, error: PortError) -> RetryError {
        metric::failed(self.health.service(), &error, false);
        self.health.works(what);
        RetryError::Failed(error)
    }
}

/// Records a failure that is waited out, and logs it: when the outage begins, and at growing intervals while it lasts.
/// `what` completes "failed to …".
pub(crate) fn report_failure(health: &Health, what: &'static str, error: &PortError) {
    report_failure_with(health, what, "retrying", error);
}

/// Like [`report_failure`]; `meanwhile` states what happens while the failure lasts.
pub(crate) fn report_failure_with(health: &Health, what: &'static str, meanwhile: &str, error: &PortError) {
    match health.fails(what, &error.message) {
        FailureReport::First => warn!(hint = error.hint, "failed to {what}, {meanwhile}: {error}"),
        FailureReport::Lasting(lasted, attempts) => {
            warn!(attempts, seconds = lasted.as_secs(), "still failing to {what}: {error}");
        }
        FailureReport::Not => debug!("still failing to {what}: {error}"),
    }
}

/// Records that `what` succeeds, and logs the end of an outage.
pub(crate) fn report_recovery(health: &Health, what: &'static str) {
    if let Some((lasted, attempts)) = health.works(what) {
        info!(attempts, seconds = lasted.as_secs(), "able to {what} again");
    }
}
