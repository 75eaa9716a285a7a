//! Points in segments with a vector index.

use std::time::{Duration, Instant};

use qdrant_client::qdrant::{
    CreateCollectionBuilder, Distance, GetPointsBuilder, OptimizersConfigDiffBuilder, PointId, VectorParamsBuilder,
};
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{DocumentPoints, IndexReader as _, IndexWriter as _, Written};
use tidewheel_core::version::{ClusterTime, Version};
use tidewheel_testkit::contracts::index::document;

use super::server::Server;

const DIMENSION: usize = 16;

/// A document whose only chunk has a vector of its own.
fn ticket(number: usize, seconds: u32, text: &str) -> DocumentPoints {
    let version = Version { epoch: 0, time: ClusterTime { seconds, increment: 1 }, ordinal: 1, replay: 0 };
    let mut points = document(&Namespace::new("shop", "tickets"), &number.to_string(), version, &[text]);
    let value = |at: usize| if text.is_empty() { 0.0 } else { ((number * 31 + at * 17) % 97) as f32 - 48.0 };
    points.points[0].vector = (0..DIMENSION).map(value).collect();
    points
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_become_blank_lose_their_vectors_in_an_indexed_segment() {
    const POINTS: usize = 1_000;
    let server = Server::any().await;
    let (index, client) = (server.connect(), server.client());
    let request = CreateCollectionBuilder::new(&server.collection)
        .vectors_config(VectorParamsBuilder::new(DIMENSION as u64, Distance::Cosine))
        // In KiB: the vectors take 62.
        .optimizers_config(OptimizersConfigDiffBuilder::default().indexing_threshold(20));
    client.create_collection(request).await.unwrap();
    index.prepare(DIMENSION).await.unwrap();
    let written: Vec<DocumentPoints> = (0..POINTS).map(|number| ticket(number, 1, "text")).collect();
    for part in written.chunks(500) {
        assert_eq!(index.upsert(&part.iter().collect::<Vec<_>>()).await.unwrap(), Written::Durably);
    }
    // The engine builds indexes at the lowest priority.
    let begun = Instant::now();
    loop {
        let info = client.collection_info(&server.collection).await.unwrap().result.unwrap();
        if info.indexed_vectors_count.unwrap_or(0) >= POINTS as u64 / 2 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(180), "no index: {info:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let blank: Vec<DocumentPoints> = (0..POINTS).step_by(100).map(|number| ticket(number, 2, "")).collect();
    let mut mixed: Vec<&DocumentPoints> = blank.iter().collect();
    let (late, other) = (ticket(200, 1, "late"), ticket(1, 2, "text"));
    mixed.push(&other);
    assert_eq!(index.upsert(&mixed).await.unwrap(), Written::Durably);
    // An older version with a vector, and the same write again, change nothing.
    assert_eq!(index.upsert(&[&late]).await.unwrap(), Written::Durably);
    assert_eq!(index.upsert(&mixed).await.unwrap(), Written::Durably);
    let ids: Vec<PointId> = mixed.iter().map(|document| document.points[0].id.to_string().into()).collect();
    let request = GetPointsBuilder::new(&server.collection, ids).with_vectors(true).with_payload(true);
    let found = client.get_points(request).await.unwrap().result;
    assert_eq!(found.len(), mixed.len());
    for point in found {
        let is_blank = point.id != Some(other.points[0].id.to_string().into());
        assert_eq!(point.vectors.is_none_or(|vectors| vectors.get_vector().is_none()), is_blank, "{:?}", point.id);
    }
    assert_eq!(index.count().await.unwrap(), Some(POINTS as u64));
}
