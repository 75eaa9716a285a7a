//! Transactions: their events share one cluster time, and several may affect one document.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::error::{Result, TRANSIENT_TRANSACTION_ERROR};
use mongodb::{Client, ClientSession, Collection};

use super::world::{World, ticket};

/// The number of hot documents, which transactions update in turn.
const HOT: i32 = 5;

/// Commits one transaction: two updates of a hot document; an insert, update and delete of one document; an insert and
/// update of another; a delete and reinsert of a second hot document.
async fn transact(session: &mut ClientSession, tickets: &Collection<Document>, number: i32) -> Result<()> {
    let set = |content: String| doc! {"$set": {"content": content}};
    session.start_transaction().await?;
    let hot = doc! {"_id": number % HOT};
    for step in ["first", "second"] {
        let change = set(format!("The {step} text of transaction {number}."));
        tickets.update_one(hot.clone(), change).session(&mut *session).await?;
    }
    let (gone, stays) = (10_000 + number, 20_000 + number);
    tickets.insert_one(ticket(gone)).session(&mut *session).await?;
    tickets.insert_one(ticket(stays)).session(&mut *session).await?;
    for id in [gone, stays] {
        tickets.update_one(doc! {"_id": id}, set(format!("Changed by {number}."))).session(&mut *session).await?;
    }
    tickets.delete_one(doc! {"_id": gone}).session(&mut *session).await?;
    let again = 100 + number % HOT;
    tickets.delete_one(doc! {"_id": again}).session(&mut *session).await?;
    tickets.insert_one(ticket(again)).session(&mut *session).await?;
    session.commit_transaction().await
}

/// Commits transactions until `stop`.
async fn write(client: Client, tickets: Collection<Document>, stop: Arc<AtomicBool>, committed: Arc<AtomicI32>) {
    let mut session = client.start_session().await.unwrap();
    while !stop.load(Ordering::Relaxed) {
        match transact(&mut session, &tickets, committed.load(Ordering::Relaxed)).await {
            Ok(()) => _ = committed.fetch_add(1, Ordering::Relaxed),
            // The transaction was aborted and is retried.
            Err(error) if error.contains_label(TRANSIENT_TRANSACTION_ERROR) => {
                let _ = session.abort_transaction().await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_one_document_in_transaction_keep_order_across_kills() {
    let mut world = World::running().await;
    let tickets = world.collection("tickets");
    tickets.insert_many((0..HOT).chain(100..100 + HOT).map(ticket)).await.unwrap();
    world.equal().await;
    let (stop, committed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI32::new(0)));
    let client = world.database.client().clone();
    let writer = tokio::spawn(write(client, tickets, stop.clone(), committed.clone()));
    for _ in 0..4 {
        let before = committed.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(900)).await;
        world.kill("producer");
        assert!(committed.load(Ordering::Relaxed) > before, "killed during transactions");
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.start("producer");
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    world.equal().await;
    world.each_change_once().await;

    // The case did occur: several changes of one document with one cluster time, distinguished only by the ordinal.
    let mut ordinals: HashMap<(String, String), Vec<u32>> = HashMap::new();
    for (name, version, _) in world.appended().await {
        let (time, ordinal) = version.rsplit_once('.').unwrap();
        // Snapshot rows have ordinal 0, and may follow an event of the same time.
        if ordinal != "0" {
            ordinals.entry((name, time.to_owned())).or_default().push(ordinal.parse().unwrap());
        }
    }
    let shared = ordinals.values().filter(|ordinals| ordinals.len() > 1).count() as i32;
    assert!(shared >= committed.load(Ordering::Relaxed), "{shared}");
    for ordinals in ordinals.values() {
        assert!(ordinals.is_sorted_by(|a, b| a < b), "{ordinals:?}");
    }
}
