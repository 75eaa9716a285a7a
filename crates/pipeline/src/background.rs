//! Work beside a loop.
//!
//! A loop that stores a future polls it only while it waits for it. If the future holds what the loop needs meanwhile, a
//! lock of a connection for example, both wait forever. Work on a task of its own makes progress whatever its owner does.

use std::future::Future;
use std::pin::Pin;

use tokio::task::JoinHandle;
use tracing::Instrument as _;

/// Work that has begun, and ends when it is dropped.
pub(crate) type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Begins work on a task of its own, in the current span.
pub(crate) fn begin<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Work<T> {
    let mut task = Task(tokio::spawn(work.in_current_span()));
    Box::pin(async move {
        match (&mut task.0).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime shuts down.
                Err(_) => std::future::pending().await,
            },
        }
    })
}

/// A task that ends when it is dropped.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::Mutex;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_holds_a_lock_of_its_owner_ends() {
        let lock = Arc::new(Mutex::new(0));
        let held = lock.clone();
        let work = begin(async move {
            let mut value = held.lock().await;
            sleep(Duration::from_secs(1)).await;
            *value += 1;
        });
        tokio::task::yield_now().await;
        let value = tokio::time::timeout(Duration::from_secs(10), lock.lock()).await.expect("the work ends by itself");
        assert_eq!(*value, 1);
        work.await;
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_work_ends() {
        let value = Arc::new(());
        let held = value.clone();
        let work = begin(async move {
            let _held = held;
            sleep(Duration::from_secs(10)).await;
        });
        tokio::task::yield_now().await;
        drop(work);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[tokio::test]
    #[should_panic(expected = "of the work")]
    async fn panic_of_work_reaches_its_owner() {
        begin(async { panic!("panic of the work") }).await;
    }
}
