//! Conditional upserts, on which the upserter's fence relies.

use qdrant_client::qdrant::{Condition, Filter, HasIdCondition, PointStruct, Range, UpdateMode, UpsertPointsBuilder};
use serde_json::json;

use super::server::{DOCS, TestServer, all, create, point, upsert};

/// A point with a version in two integers under a nested key.
fn versioned(id: u64, hi: i64, lo: i64) -> PointStruct {
    point(id, &[1.0, 0.0, 0.5, 0.25], json!({"_tidewheel": {"hi": hi, "lo": lo}}))
}

/// Matches the point of this id if it is older than the version or has none.
fn older(id: u64, hi: f64, lo: f64) -> Condition {
    let below = |key: &str, bound: f64| Condition::range(key, Range { lt: Some(bound), ..Range::default() });
    let same_hi = Filter::must([
        Condition::range("_tidewheel.hi", Range { gte: Some(hi), lte: Some(hi), ..Range::default() }),
        below("_tidewheel.lo", lo),
    ]);
    let older = Filter::should([below("_tidewheel.hi", hi), same_hi.into(), Condition::is_empty("_tidewheel.hi")]);
    let has_id = HasIdCondition { has_id: vec![id.into()] };
    Filter::must([Condition::from(has_id), older.into()]).into()
}

async fn versions(client: &qdrant_client::Qdrant) -> Vec<(String, i64, i64)> {
    let mut found = Vec::new();
    for (id, payload) in all(client, DOCS).await {
        let part = |key: &str| payload["_tidewheel"][key].as_i64().unwrap_or(-1);
        found.push((id, part("hi"), part("lo")));
    }
    found
}

#[tokio::test]
async fn conditional_upsert_replaces_matching_points_and_inserts_missing_ones() {
    let server = TestServer::start().await;
    let client = server.client();
    create(&client, DOCS, 4).await;
    upsert(
        &client,
        vec![
            versioned(1, 10, 5),
            versioned(2, 10, 5),
            versioned(3, 10, 5),
            versioned(4, 11, 0),
            point(5, &[0.0, 1.0, 0.0, 0.0], json!({"by": "another writer"})),
        ],
    )
    .await;
    // One batch, a clause per point; all but point 3 with version (10, 6).
    let batch =
        vec![versioned(1, 10, 6), versioned(3, 10, 5), versioned(4, 10, 6), versioned(5, 10, 6), versioned(6, 10, 6)];
    let guard = Filter::should([
        older(1, 10.0, 6.0),
        older(3, 10.0, 5.0),
        older(4, 10.0, 6.0),
        older(5, 10.0, 6.0),
        older(6, 10.0, 6.0),
    ]);
    let request = UpsertPointsBuilder::new(DOCS, batch).wait(true).update_filter(guard);
    client.upsert_points(request).await.unwrap();
    let expected: Vec<(String, i64, i64)> = [
        (1, 10, 6), // older: replaced
        (2, 10, 5), // not in the batch
        (3, 10, 5), // the same version: kept
        (4, 11, 0), // newer: kept
        (5, 10, 6), // without a version: replaced
        (6, 10, 6), // missing: inserted
    ]
    .map(|(id, hi, lo)| (id.to_string(), hi, lo))
    .into();
    assert_eq!(versions(&client).await, expected);
}

#[tokio::test]
async fn last_occurrence_of_duplicate_point_in_batch_wins() {
    let server = TestServer::start().await;
    let client = server.client();
    create(&client, DOCS, 4).await;
    upsert(&client, vec![versioned(1, 1, 0), versioned(2, 1, 0), versioned(1, 2, 0)]).await;
    assert_eq!(versions(&client).await, [("1".to_owned(), 2, 0), ("2".to_owned(), 1, 0)]);
}

#[tokio::test]
async fn update_mode_restricts_upsert_to_insert_or_update() {
    let server = TestServer::start().await;
    let client = server.client();
    create(&client, DOCS, 4).await;
    upsert(&client, vec![versioned(1, 1, 0)]).await;
    let send = async |mode: UpdateMode, hi: i64| {
        let batch = vec![versioned(1, hi, 0), versioned(hi as u64, hi, 0)];
        let request = UpsertPointsBuilder::new(DOCS, batch).wait(true).update_mode(mode);
        client.upsert_points(request).await.unwrap();
    };
    send(UpdateMode::InsertOnly, 7).await;
    assert_eq!(versions(&client).await, [("1".to_owned(), 1, 0), ("7".to_owned(), 7, 0)]);
    send(UpdateMode::UpdateOnly, 8).await;
    assert_eq!(versions(&client).await, [("1".to_owned(), 8, 0), ("7".to_owned(), 7, 0)]);
    send(UpdateMode::Upsert, 9).await;
    assert_eq!(versions(&client).await, [("1".to_owned(), 9, 0), ("7".to_owned(), 7, 0), ("9".to_owned(), 9, 0)]);
}

/// Many writers race with all versions of one point; the newest wins in any order.
#[tokio::test(flavor = "multi_thread")]
async fn newest_version_wins_every_race() {
    let server = TestServer::start().await;
    let client = std::sync::Arc::new(server.client());
    create(&client, DOCS, 4).await;
    let mut writers = tokio::task::JoinSet::new();
    for version in 1..=40_u32 {
        let client = std::sync::Arc::clone(&client);
        writers.spawn(async move {
            // Spread out so that neighbours do not arrive in order.
            let lo = version * 17 % 41;
            let guard = Filter::should([older(1, 3.0, f64::from(lo))]);
            let request =
                UpsertPointsBuilder::new(DOCS, vec![versioned(1, 3, lo.into())]).wait(true).update_filter(guard);
            client.upsert_points(request).await.unwrap();
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    assert_eq!(versions(&client).await, [("1".to_owned(), 3, 40)]);
}
