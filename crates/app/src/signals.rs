//! SIGTERM and Ctrl-C, remembered: a signal that arrives while nobody waits for it is not lost.

use std::sync::OnceLock;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::warn;

/// The number of signals since the first wait; until then a signal ends the process.
static RECEIVED: OnceLock<watch::Receiver<u64>> = OnceLock::new();

/// Waits for SIGTERM or Ctrl-C. Returns at once if one has arrived since the first wait of this process.
pub(crate) async fn received() {
    more_than(0).await;
}

/// Waits for the next SIGTERM or Ctrl-C after this call.
pub(crate) fn received_again() -> impl Future<Output = ()> {
    let count = *listener().borrow();
    more_than(count)
}

/// Does work that a SIGTERM or Ctrl-C since the first wait of this process may end before it is done; `None` if one does.
pub(crate) async fn uninterrupted<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = received() => None,
    }
}

async fn more_than(count: u64) {
    if listener().wait_for(|received| *received > count).await.is_err() {
        // Without a handler the signal itself ends the process.
        std::future::pending::<()>().await;
    }
}

fn listener() -> watch::Receiver<u64> {
    RECEIVED.get_or_init(listen).clone()
}

fn listen() -> watch::Receiver<u64> {
    let (sender, receiver) = watch::channel(0);
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        warn!("failed to install signal handlers; stop this process with SIGKILL");
        return receiver;
    };
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            sender.send_modify(|received| *received += 1);
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn signal_before_a_wait_is_remembered() {
        let waits = tokio::spawn(received());
        tokio::task::yield_now().await;
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
        waits.await.unwrap();
        received().await;
        assert_eq!(uninterrupted(std::future::pending::<()>()).await, None);
        assert_eq!(uninterrupted(std::future::ready(1)).await, Some(1), "work that is done");
        let again = tokio::spawn(received_again());
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!again.is_finished(), "only one signal has arrived");
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT).unwrap();
        again.await.unwrap();
    }
}
