//! Payload indexes of every kind, and the vector index.

use std::time::{Duration, Instant};

use qdrant_client::qdrant::{
    CollectionStatus, Condition, CountPointsBuilder, CreateCollectionBuilder, CreateFieldIndexCollectionBuilder,
    DatetimeRange, DeleteFieldIndexCollectionBuilder, Distance, FacetCountsBuilder, FieldType, Filter,
    KeywordIndexParamsBuilder, OptimizersConfigDiffBuilder, PayloadSchemaType, PointStruct, QueryPointsBuilder, Range,
    SearchParamsBuilder, TextIndexParamsBuilder, Timestamp, TokenizerType, UpsertPointsBuilder, VectorParamsBuilder,
};
use serde_json::json;

use super::server::{DOCS, TestServer, all, create, id_text, point, upsert};

#[tokio::test]
async fn every_kind_of_payload_index_filters_correctly() {
    let server = TestServer::start().await;
    let client = server.client();
    create(&client, DOCS, 4).await;
    let uuid = |last: u64| format!("00000000-0000-4000-8000-{last:012}");
    let document = |id: u64| {
        point(
            id,
            &[1.0, id as f32, 0.0, 0.0],
            json!({
                "keyword": format!("k{id}"), "integer": id, "float": id as f64 + 0.5, "bool": id == 2, "uuid": uuid(id),
                "datetime": format!("2024-01-0{id}T00:00:00Z"), "text": format!("the quick number{id} fox"),
                "list": [format!("k{id}"), "all"], "nested": {"deep": format!("k{id}")},
            }),
        )
    };
    // Half of the points are inserted before the indexes exist, half after.
    upsert(&client, vec![document(1), document(2)]).await;
    let plain = [
        ("integer", FieldType::Integer),
        ("float", FieldType::Float),
        ("bool", FieldType::Bool),
        ("uuid", FieldType::Uuid),
        ("datetime", FieldType::Datetime),
        ("list", FieldType::Keyword),
        ("nested.deep", FieldType::Keyword),
    ];
    for (field, kind) in plain {
        let request = CreateFieldIndexCollectionBuilder::new(DOCS, field, kind).wait(true);
        client.create_field_index(request).await.unwrap();
    }
    let keyword = KeywordIndexParamsBuilder::default().is_tenant(true);
    let request = CreateFieldIndexCollectionBuilder::new(DOCS, "keyword", FieldType::Keyword);
    client.create_field_index(request.field_index_params(keyword).wait(true)).await.unwrap();
    let text = TextIndexParamsBuilder::new(TokenizerType::Word).lowercase(true);
    let request = CreateFieldIndexCollectionBuilder::new(DOCS, "text", FieldType::Text);
    client.create_field_index(request.field_index_params(text).wait(true)).await.unwrap();
    upsert(&client, vec![document(3), document(4)]).await;

    let range = |lt: f64| Range { lt: Some(lt), ..Range::default() };
    let before = Timestamp { seconds: 1_704_153_600, nanos: 0 };
    let cases = [
        ("keyword", Condition::matches("keyword", "k2".to_owned()), vec!["2"]),
        ("any of", Condition::matches("keyword", vec!["k2".to_owned(), "k4".to_owned()]), vec!["2", "4"]),
        ("integer", Condition::matches("integer", 3), vec!["3"]),
        ("range", Condition::range("integer", range(3.0)), vec!["1", "2"]),
        ("float", Condition::range("float", range(2.0)), vec!["1"]),
        ("bool", Condition::matches("bool", true), vec!["2"]),
        ("uuid", Condition::matches("uuid", uuid(4)), vec!["4"]),
        (
            "datetime",
            Condition::datetime_range("datetime", DatetimeRange { lte: Some(before), ..Default::default() }),
            vec!["1", "2"],
        ),
        ("text", Condition::matches_text("text", "NUMBER3 quick"), vec!["3"]),
        ("list", Condition::matches("list", "all".to_owned()), vec!["1", "2", "3", "4"]),
        ("nested", Condition::matches("nested.deep", "k1".to_owned()), vec!["1"]),
    ];
    for (case, condition, expected) in cases {
        let request = qdrant_client::qdrant::ScrollPointsBuilder::new(DOCS).filter(Filter::must([condition]));
        let found = client.scroll(request).await.unwrap().result;
        let ids: Vec<_> = found.into_iter().map(|point| id_text(point.id.unwrap())).collect();
        assert_eq!(ids, expected, "{case}");
    }

    let info = client.collection_info(DOCS).await.unwrap().result.unwrap();
    let kinds: Vec<_> = ["keyword", "integer", "float", "bool", "uuid", "datetime", "text", "nested.deep"]
        .map(|field| info.payload_schema[field].data_type())
        .into();
    use PayloadSchemaType as T;
    assert_eq!(kinds, [T::Keyword, T::Integer, T::Float, T::Bool, T::Uuid, T::Datetime, T::Text, T::Keyword]);
    assert_eq!(info.payload_schema["keyword"].points, Some(4));

    let facet = client.facet(FacetCountsBuilder::new(DOCS, "list").exact(true)).await.unwrap();
    assert_eq!(facet.hits[0].count, 4, "the most frequent value comes first");

    let drop = DeleteFieldIndexCollectionBuilder::new(DOCS, "keyword").wait(true);
    client.delete_field_index(drop).await.unwrap();
    let info = client.collection_info(DOCS).await.unwrap().result.unwrap();
    assert!(!info.payload_schema.contains_key("keyword"));
}

#[tokio::test]
async fn payload_indexes_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = TestServer::start_in(dir.path()).await;
    let client = server.client();
    create(&client, DOCS, 4).await;
    let request = CreateFieldIndexCollectionBuilder::new(DOCS, "_tidewheel.hi", FieldType::Integer).wait(true);
    client.create_field_index(request).await.unwrap();
    upsert(&client, vec![point(1, &[1.0; 4], json!({"_tidewheel": {"hi": 5}}))]).await;
    server.stop().await.unwrap();

    let server = TestServer::start_in(dir.path()).await;
    let client = server.client();
    let info = client.collection_info(DOCS).await.unwrap().result.unwrap();
    assert_eq!(info.payload_schema["_tidewheel.hi"].data_type(), PayloadSchemaType::Integer);
    assert_eq!(info.payload_schema["_tidewheel.hi"].points, Some(1));
}

/// Enough points for an index: it is built automatically, during writes, and all points remain stored and searchable.
#[tokio::test(flavor = "multi_thread")]
async fn vector_index_is_built_automatically_during_writes() {
    const POINTS: u64 = 3000;
    let dir = tempfile::tempdir().unwrap();
    let server = TestServer::start_in(dir.path()).await;
    let client = server.client();
    let request = CreateCollectionBuilder::new(DOCS)
        .vectors_config(VectorParamsBuilder::new(16, Distance::Cosine))
        // 16 floats × 3000 points are 190 KiB.
        .optimizers_config(OptimizersConfigDiffBuilder::default().indexing_threshold(20));
    client.create_collection(request).await.unwrap();
    let request = CreateFieldIndexCollectionBuilder::new(DOCS, "n", FieldType::Integer).wait(true);
    client.create_field_index(request).await.unwrap();
    let vector = |id: u64| (0..16).map(|i| ((id * 31 + i * 17) % 97) as f32 - 48.0).collect::<Vec<_>>();
    let make = |id: u64, n: u64| -> PointStruct { point(id, &vector(id), json!({"n": n})) };
    for start in (0..POINTS).step_by(500) {
        upsert(&client, (start..start + 500).map(|id| make(id, 0)).collect()).await;
    }
    // The engine builds indexes at the lowest priority.
    let deadline = Instant::now() + Duration::from_secs(180);
    let mut writes = 0;
    loop {
        let info = client.collection_info(DOCS).await.unwrap().result.unwrap();
        assert_eq!(info.points_count, Some(POINTS), "exact count during the build");
        if info.indexed_vectors_count.unwrap_or(0) >= POINTS / 2 && info.status() == CollectionStatus::Green {
            break;
        }
        assert!(Instant::now() < deadline, "no index: {info:?}");
        // Updates of points that are being indexed must not be lost.
        if info.status() == CollectionStatus::Yellow {
            let id = writes * 7 % POINTS;
            upsert(&client, vec![make(id, 1)]).await;
            writes += 1;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let check = async |client: &qdrant_client::Qdrant| {
        assert_eq!(client.count(CountPointsBuilder::new(DOCS)).await.unwrap().result.unwrap().count, POINTS);
        let changed = Filter::must([Condition::matches("n", 1)]);
        let count = client.count(CountPointsBuilder::new(DOCS).filter(changed)).await.unwrap();
        assert_eq!(count.result.unwrap().count, writes.min(POINTS));
        for id in [0, 777, POINTS - 1] {
            let query = QueryPointsBuilder::new(DOCS)
                .query(vector(id))
                .params(SearchParamsBuilder::default().hnsw_ef(256))
                .limit(1);
            let best = &client.query(query).await.unwrap().result[0];
            assert!((best.score - 1.0).abs() < 1e-4, "point {id} is nearest to itself");
        }
    };
    check(&client).await;
    server.stop().await.unwrap();

    let server = TestServer::start_in(dir.path()).await;
    let client = server.client();
    check(&client).await;
    upsert(&client, vec![make(POINTS, 1)]).await;
    client.upsert_points(UpsertPointsBuilder::new(DOCS, vec![make(0, 5)]).wait(true)).await.unwrap();
    let found = all(&client, DOCS).await;
    assert_eq!(found.len() as u64, POINTS + 1);
    assert_eq!(found[0].1["n"], 5, "an indexed point is replaced, not duplicated");
    let info = client.collection_info(DOCS).await.unwrap().result.unwrap();
    assert_eq!(info.payload_schema["n"].points, Some(POINTS + 1), "every segment has the payload index");
}
