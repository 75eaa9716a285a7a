//! Continuous writes to a collection during a story.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mongodb::Collection;
use mongodb::bson::{Document, doc};
use tokio::task::JoinHandle;

use super::world::ticket;

/// Writes to a collection until stopped: all operations, some on hot documents.
pub struct Writer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<i32>,
}

impl Writer {
    /// Starts writing.
    pub fn start(tickets: Collection<Document>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(write(tickets, stop.clone()));
        Self { stop, task }
    }

    /// Stops, and returns the number of rounds.
    pub async fn finish(self) -> i32 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("every write succeeds")
    }
}

async fn write(tickets: Collection<Document>, stop: Arc<AtomicBool>) -> i32 {
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        tickets.insert_many((0..5).map(|i| ticket(1_000 + round * 5 + i))).await.unwrap();
        let hot = doc! {"_id": round % 7};
        let text = format!("Version {round}. {}", "It grows and shrinks. ".repeat((round as usize * 13) % 120));
        tickets.update_one(hot, doc! {"$set": {"content": text}}).upsert(true).await.unwrap();
        if round % 3 == 0 {
            tickets.delete_one(doc! {"_id": (round + 3) % 7}).await.unwrap();
        }
        if round % 5 == 0 {
            tickets.delete_one(doc! {"_id": 1_000 + round}).await.unwrap();
        }
        round += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    round
}
