//! The load, and the measurement of when documents are searchable.

use std::error::Error;
use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use qdrant_client::qdrant::{CreateCollectionBuilder, Distance, PointStruct, UpsertPointsBuilder, VectorParamsBuilder};
use uuid::Uuid;

use crate::servers::Servers;
use crate::side::Side;

/// First id of the latency run, above those of the throughput run.
const LATENCY_IDS: i32 = 1_000_000;
/// Upper bound of a step; longer means that it hangs.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Waits until a first document is searchable. A change stream without a resume token only sees changes after it
/// was opened, so documents are inserted until one arrives.
pub async fn warm_up(servers: &Servers, side: &Side) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    for id in -10_000.. {
        servers.tickets.insert_one(ticket(id)).await?;
        let tried = Instant::now();
        while tried.elapsed() < Duration::from_millis(500) {
            if servers.is_searchable(side.point(id)).await {
                // Lets the other warm-up documents arrive, so that they do not delay the first measurement.
                tokio::time::sleep(Duration::from_secs(2)).await;
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if begun.elapsed() > TIMEOUT {
            break;
        }
    }
    Err(format!("{} did not start", side.name).into())
}

/// Returns milliseconds from the acknowledged commit until the point is readable, for each document, sorted.
///
/// The point is polled about every millisecond, so a value is up to that much too long.
pub async fn latency(
    servers: &Servers,
    side: &Side,
    documents: usize,
    rate: usize,
) -> Result<Vec<f64>, Box<dyn Error>> {
    let mut every = tokio::time::interval(Duration::from_secs_f64(1.0 / rate as f64));
    let mut millis = Vec::with_capacity(documents);
    for id in (LATENCY_IDS..).take(documents) {
        every.tick().await;
        let point = side.point(id);
        servers.tickets.insert_one(ticket(id)).await?;
        let committed = Instant::now();
        while !servers.is_searchable(point).await {
            if committed.elapsed() > TIMEOUT {
                return Err(format!("{}: document {id} never became searchable", side.name).into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        millis.push(committed.elapsed().as_secs_f64() * 1_000.0);
    }
    millis.sort_by(f64::total_cmp);
    Ok(millis)
}

/// Returns seconds from the first insert until all documents are searchable.
pub async fn throughput(servers: &Servers, documents: usize) -> Result<f64, Box<dyn Error>> {
    let goal = servers.points().await + documents as u64;
    let batches: Vec<Vec<Document>> = (0..documents as i32)
        .collect::<Vec<_>>()
        .chunks(1_000)
        .map(|ids| ids.iter().copied().map(ticket).collect())
        .collect();
    let begun = Instant::now();
    for batch in batches {
        servers.tickets.insert_many(batch).await?;
    }
    while servers.points().await < goal {
        if begun.elapsed() > TIMEOUT {
            return Err(format!("only {} of {goal} documents became searchable", servers.points().await).into());
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// Returns documents per second of a loader that only writes prepared points: the limit of the same Qdrant with one
/// client.
pub async fn bare(servers: &Servers, documents: usize) -> Result<f64, Box<dyn Error>> {
    const BATCH: usize = 128;
    const STREAMS: usize = 2;
    let index = "bare";
    let vectors = VectorParamsBuilder::new(servers.dimension as u64, Distance::Cosine);
    servers.qdrant.create_collection(CreateCollectionBuilder::new(index).vectors_config(vectors)).await?;
    let payload = serde_json::to_value(ticket(7))?;
    let points: Vec<PointStruct> = (0..documents)
        .map(|i| {
            let vector: Vec<f32> = (0..servers.dimension).map(|d| ((i * 31 + d * 7) % 101) as f32 - 50.0).collect();
            let payload = qdrant_client::Payload::try_from(payload.clone()).unwrap_or_default();
            PointStruct::new(Uuid::new_v4().to_string(), vector, payload)
        })
        .collect();
    let batches: Vec<Vec<PointStruct>> = points.chunks(BATCH).map(<[_]>::to_vec).collect();
    let begun = Instant::now();
    let streams = (0..STREAMS).map(|stream| {
        let batches = &batches;
        async move {
            for batch in batches.iter().skip(stream).step_by(STREAMS) {
                servers.qdrant.upsert_points(UpsertPointsBuilder::new(index, batch.clone()).wait(true)).await?;
            }
            Ok::<(), qdrant_client::QdrantError>(())
        }
    });
    futures::future::try_join_all(streams).await?;
    let seconds = begun.elapsed().as_secs_f64();
    servers.qdrant.delete_collection(index).await?;
    Ok(documents as f64 / seconds)
}

/// A support ticket with a text of about 110 tokens.
pub fn ticket(id: i32) -> Document {
    const WORDS: [&str; 12] = [
        "parcel",
        "invoice",
        "customer",
        "delivery",
        "telephone",
        "warehouse",
        "refund",
        "address",
        "driver",
        "window",
        "morning",
        "contract",
    ];
    let word = |i: i32| WORDS[(id.wrapping_mul(7) + i * 5 + i * i).rem_euclid(WORDS.len() as i32) as usize];
    // From 10 to 199 words, as in prose: padding texts to the longest of a batch has a cost.
    let words = 10 + id.wrapping_mul(73).rem_euclid(190);
    let content: Vec<&str> = (0..words).map(word).collect();
    doc! {
        "_id": id,
        "product": word(1),
        "customer": format!("Customer {}", id % 500),
        "owner": "ada@example.com",
        "date": mongodb::bson::DateTime::from_millis(1_700_000_000_000 + i64::from(id)),
        "subject": format!("Ticket {id} about a {}", word(2)),
        "content": content.join(" "),
    }
}
