//! The layout of the keys in Redis.

use tidewheel_core::error::Cause;
use tidewheel_core::ports::{PortResult, Registry};

/// Checks that no newer release has written the keys, which this release could misread. For read-only use cases that
/// report unreachable servers: every other failure to read the registration is ignored.
///
/// # Errors
/// Fatal, if a newer release has written the keys.
pub async fn check_layout(registry: &dyn Registry) -> PortResult<()> {
    match registry.installation().await {
        Err(error) if error.cause == Cause::Newer => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_testkit::fakes::faults::Fault;
    use tidewheel_testkit::fakes::ownership::FakeRegistry;

    use super::*;

    #[tokio::test]
    async fn only_a_newer_layout_is_rejected() {
        let registry = FakeRegistry::default();
        assert_eq!(check_layout(&registry).await, Ok(()));
        registry.set_newer_layout();
        assert_eq!(check_layout(&registry).await.unwrap_err().cause, Cause::Newer);
        registry.faults().always("installation", Fault::unreachable());
        assert_eq!(check_layout(&registry).await, Ok(()));
    }
}
