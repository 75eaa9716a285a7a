//! Points over gRPC: stored and retrieved by id, by filter, in order, by similarity.

use qdrant_client::qdrant::{
    ClearPayloadPointsBuilder, Condition, CountPointsBuilder, CreateFieldIndexCollectionBuilder,
    DeletePayloadPointsBuilder, DeletePointsBuilder, Direction, FieldType, Filter, Fusion, GetPointsBuilder,
    OrderByBuilder, PointId, PointVectors, PointsIdsList, PrefetchQueryBuilder, Query, QueryPointsBuilder, Range,
    RecommendInputBuilder, ScrollPointsBuilder, SearchBatchPointsBuilder, SearchPointsBuilder, SetPayloadPointsBuilder,
    UpdateBatchPointsBuilder, UpdatePointVectorsBuilder, UpdateStatus, UpsertPointsBuilder,
};
use qdrant_client::qdrant::{PointsUpdateOperation, points_update_operation};
use serde_json::{Value, json};
use tonic::Code;

use super::server::{DOCS, TestServer, all, create, id_text, numbered, point, refused, upsert};

const UUID: &str = "00000000-0000-4000-8000-0000000000ff";

#[tokio::test]
async fn point_round_trips_with_normalised_vector() {
    let server = TestServer::start().await;
    let client = server.client();
    create(&client, DOCS, 4).await;
    let payload = json!({
        "int": i64::MAX, "negative": -1, "float": 0.1, "whole": 2.0, "tiny": 5e-324, "null": null, "yes": true,
        "text": "\u{1f30a} ünïcode \"quoted\" \\ \n", "empty": {}, "list": [1, [2.5, null], {"a": []}],
        "_tidewheel": {"key": "{\"$oid\":\"64b64c\"}", "hi": 1_700_000_000_i64, "lo": 9_007_199_254_740_991_i64},
    });
    let points =
        vec![point(u64::MAX, &[3.0, 0.0, 4.0, 0.0], payload.clone()), point(UUID, &[0.0, 2.0, 0.0, 0.0], json!({}))];
    let outcome = client.upsert_points(UpsertPointsBuilder::new(DOCS, points).wait(true)).await.unwrap();
    assert_eq!(outcome.result.unwrap().status(), UpdateStatus::Completed);

    let ids: Vec<PointId> = vec![UUID.into(), u64::MAX.into(), 7.into()];
    let found =
        client.get_points(GetPointsBuilder::new(DOCS, ids).with_vectors(true).with_payload(true)).await.unwrap();
    let ids: Vec<_> = found.result.iter().map(|point| id_text(point.id.clone().unwrap())).collect();
    assert_eq!(ids, [UUID, &u64::MAX.to_string()], "in the requested order, without the missing one");
    let big = &found.result[1];
    let stored: Value =
        Value::Object(big.payload.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect());
    assert_eq!(stored, payload);
    #[allow(deprecated, reason = "clients read the plain field")]
    let vector = match big.vectors.clone().unwrap().get_vector().unwrap() {
        qdrant_client::qdrant::vector_output::Vector::Dense(dense) => dense.data,
        other => panic!("not dense: {other:?}"),
    };
    for (stored, expected) in vector.iter().zip([0.6, 0.0, 0.8, 0.0]) {
        assert!((stored - expected).abs() < 1e-6, "{vector:?}");
    }
}

#[tokio::test]
async fn scroll_pages_through_all_points_and_filters() {
    let server = TestServer::start().await;
    let client = server.client();
    create(&client, DOCS, 4).await;
    upsert(&client, (0..25).map(|id| numbered(id, i64::try_from(id % 5).unwrap())).collect()).await;
    let mut seen = Vec::new();
    let mut offset: Option<PointId> = None;
    let mut pages = 0;
    loop {
        let mut request = ScrollPointsBuilder::new(DOCS).limit(10);
        if let Some(offset) = offset {
            request = request.offset(offset);
        }
        let page = client.scroll(request).await.unwrap();
        pages += 1;
        seen.extend(page.result.into_iter().map(|point| id_text(point.id.unwrap())));
        offset = page.next_page_offset;
        if offset.is_none() {
            break;
        }
    }
    assert_eq!(pages, 3);
    assert_eq!(seen, (0..25).map(|id| id.to_string()).collect::<Vec<_>>());

    let threes = Filter::must([Condition::matches("n", 3)]);
    let page = client.scroll(ScrollPointsBuilder::new(DOCS).filter(threes.clone()).limit(100)).await.unwrap();
    assert_eq!(page.result.len(), 5);
    let count = client.count(CountPointsBuilder::new(DOCS).filter(threes).exact(true)).await.unwrap();
    assert_eq!(count.result.unwrap().count, 5);
    assert_eq!(client.count(CountPointsBuilder::new(DOCS)).await.unwrap().result.unwrap().count, 25);
}

#[tokio::test]
async fn scroll_ordered_by_field_requires_its_index() {
    let server = TestServer::start().await;
    let client = server.client();
    create(&client, DOCS, 4).await;
    upsert(&client, vec![numbered(1, 30), numbered(2, 10), numbered(3, 20)]).await;
    let by_n = || {
        let order = OrderByBuilder::new("n").direction(Direction::Desc.into());
        ScrollPointsBuilder::new(DOCS).order_by(order).limit(2)
    };
    assert_eq!(refused(client.scroll(by_n()).await).0, Code::InvalidArgument);
    let index = CreateFieldIndexCollectionBuilder::new(DOCS, "n", FieldType::Integer).wait(true);
    client.create_field_index(index).await.unwrap();
    let page = client.scroll(by_n()).await.unwrap();
    let ids: Vec<_> = page.result.into_iter().map(|point| id_text(point.id.unwrap())).collect();
    assert_eq!(ids, ["1", "3"]);
}

#[tokio::test]
async fn points_are_deleted_by_id_and_by_filter() {
    let server = TestServer::start().await;
    let client = server.client();
    create(&client, DOCS, 4).await;
    upsert(&client, (0..10).map(|id| numbered(id, i64::try_from(id).unwrap())).collect()).await;
    let ids = PointsIdsList { ids: vec![0.into(), 99.into()] };
    client.delete_points(DeletePointsBuilder::new(DOCS).points(ids).wait(true)).await.unwrap();
    let key_and_older = Filter::must([
        Condition::range("n", Range { lt: Some(6.0), ..Range::default() }),
        Condition::range("n", Range { gte: Some(3.0), ..Range::default() }),
    ]);
    client.delete_points(DeletePointsBuilder::new(DOCS).points(key_and_older).wait(true)).await.unwrap();
    let left: Vec<_> = all(&client, DOCS).await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(left, ["1", "2", "6", "7", "8", "9"]);
    let none = Filter::must([Condition::matches("n", 1000)]);
    client.delete_points(DeletePointsBuilder::new(DOCS).points(none).wait(true)).await.unwrap();
    assert_eq!(all(&client, DOCS).await.len(), 6, "a filter that matches nothing deletes nothing");
}

#[tokio::test]
async fn payloads_are_set_overwritten_and_deleted() {
    let server = TestServer::start().await;
    let client = server.client();
    create(&client, DOCS, 4).await;
    upsert(&client, vec![numbered(1, 1), numbered(2, 2), numbered(3, 3)]).await;
    let object = |value: Value| qdrant_client::Payload::try_from(value).unwrap();
    let ids = |ids: &[u64]| PointsIdsList { ids: ids.iter().copied().map(PointId::from).collect() };
    let over_one = Filter::must([Condition::range("n", Range { gt: Some(1.0), ..Range::default() })]);

    let set = SetPayloadPointsBuilder::new(DOCS, object(json!({"a": {"b": 1}}))).points_selector(over_one).wait(true);
    client.set_payload(set).await.unwrap();
    let deep =
        SetPayloadPointsBuilder::new(DOCS, object(json!({"c": 2}))).key("a").points_selector(ids(&[2])).wait(true);
    client.set_payload(deep).await.unwrap();
    let replace = SetPayloadPointsBuilder::new(DOCS, object(json!({"x": 1}))).points_selector(ids(&[3])).wait(true);
    client.overwrite_payload(replace).await.unwrap();
    let expected = [json!({"n": 1}), json!({"n": 2, "a": {"b": 1, "c": 2}}), json!({"x": 1})];
    let payloads = async || all(&client, DOCS).await.into_iter().map(|(_, payload)| payload).collect::<Vec<_>>();
    assert_eq!(payloads().await, expected);

    let remove = DeletePayloadPointsBuilder::new(DOCS, vec!["a.b".to_owned()]).points_selector(ids(&[2])).wait(true);
    client.delete_payload(remove).await.unwrap();
    client.clear_payload(ClearPayloadPointsBuilder::new(DOCS).points(ids(&[1])).wait(true)).await.unwrap();
    assert_eq!(payloads().await, [json!({}), json!({"n": 2, "a": {"c": 2}}), json!({"x": 1})]);

    let missing = SetPayloadPointsBuilder::new(DOCS, object(json!({"x": 1}))).points_selector(ids(&[77])).wait(true);
    assert_eq!(refused(client.set_payload(missing).await).0, Code::NotFound);
}

#[tokio::test]
async fn batch_operations_are_applied_in_order() {
    let server = TestServer::start().await;
    let client = server.client();
    create(&client, DOCS, 4).await;
    let step = |operation| PointsUpdateOperation { operation: Some(operation) };
    let insert = points_update_operation::PointStructList {
        points: vec![numbered(1, 1), numbered(2, 2)],
        ..points_update_operation::PointStructList::default()
    };
    let delete = points_update_operation::DeletePoints {
        points: Some(Filter::must([Condition::matches("n", 1)]).into()),
        shard_key_selector: None,
    };
    let operations = vec![
        step(points_update_operation::Operation::Upsert(insert)),
        step(points_update_operation::Operation::DeletePoints(delete)),
    ];
    let answer = client.update_points_batch(UpdateBatchPointsBuilder::new(DOCS, operations).wait(true)).await.unwrap();
    assert_eq!(answer.result.len(), 2);
    assert!(answer.result.iter().all(|result| result.status() == UpdateStatus::Completed));
    assert_eq!(all(&client, DOCS).await, [("2".to_owned(), json!({"n": 2}))]);

    let moved = PointVectors { id: Some(2.into()), vectors: Some(vec![0.0, 0.0, 0.0, 1.0].into()) };
    client.update_vectors(UpdatePointVectorsBuilder::new(DOCS, vec![moved]).wait(true)).await.unwrap();
    let nearest = client.search_points(SearchPointsBuilder::new(DOCS, vec![0.0, 0.0, 0.0, 9.0], 1)).await.unwrap();
    assert!((nearest.result[0].score - 1.0).abs() < 1e-5, "the vector was replaced");
}

#[tokio::test]
async fn nearest_points_come_first() {
    let server = TestServer::start().await;
    let client = server.client();
    create(&client, DOCS, 2).await;
    // Unit vectors at 0°, 10°, …, 90°.
    let at = |degrees: u64| {
        let radians = (degrees as f32).to_radians();
        point(degrees, &[radians.cos(), radians.sin()], json!({"even": degrees.is_multiple_of(20)}))
    };
    upsert(&client, (0..10).map(|step| at(step * 10)).collect()).await;
    let ids = |points: &[qdrant_client::qdrant::ScoredPoint]| {
        points.iter().map(|point| id_text(point.id.clone().unwrap())).collect::<Vec<_>>()
    };

    let search = client.search_points(SearchPointsBuilder::new(DOCS, vec![1.0, 0.0], 3)).await.unwrap().result;
    assert_eq!(ids(&search), ["0", "10", "20"]);
    assert!((search[1].score - 10_f32.to_radians().cos()).abs() < 1e-5, "the score is the cosine");
    assert!(search[0].payload.is_empty() && search[0].vectors.is_none(), "neither was requested");

    let even = Filter::must([Condition::matches("even", true)]);
    let query = QueryPointsBuilder::new(DOCS).query(vec![1.0, 0.0]).filter(even).offset(1).limit(2).with_payload(true);
    let found = client.query(query).await.unwrap().result;
    assert_eq!(ids(&found), ["20", "40"]);
    assert_eq!(found[0].payload["even"], true.into());

    let threshold = QueryPointsBuilder::new(DOCS).query(vec![1.0, 0.0]).score_threshold(0.9);
    assert_eq!(ids(&client.query(threshold).await.unwrap().result), ["0", "10", "20"]);

    let like = QueryPointsBuilder::new(DOCS).query(Query::new_nearest(PointId::from(90))).limit(2);
    assert_eq!(ids(&client.query(like).await.unwrap().result), ["80", "70"], "without the point itself");
    let missing = QueryPointsBuilder::new(DOCS).query(Query::new_nearest(PointId::from(1234))).limit(2);
    assert_eq!(refused(client.query(missing).await).0, Code::NotFound);

    let batch = vec![
        SearchPointsBuilder::new(DOCS, vec![1.0, 0.0], 1).build(),
        SearchPointsBuilder::new(DOCS, vec![0.0, 1.0], 1).build(),
    ];
    let answers = client.search_batch_points(SearchBatchPointsBuilder::new(DOCS, batch)).await.unwrap().result;
    assert_eq!(answers.iter().map(|answer| ids(&answer.result)).collect::<Vec<_>>(), [["0"], ["90"]]);

    let from = |vector: Vec<f32>| PrefetchQueryBuilder::default().query(vector).limit(3_u64);
    let fused = QueryPointsBuilder::new(DOCS)
        .add_prefetch(from(vec![1.0, 0.0]))
        .add_prefetch(from(vec![0.94, 0.34]))
        .query(Fusion::Rrf)
        .limit(2);
    let fused = ids(&client.query(fused).await.unwrap().result);
    assert!(fused.contains(&"20".to_owned()) && fused.contains(&"10".to_owned()), "near to both: {fused:?}");

    let recommend = Query::new_recommend(RecommendInputBuilder::default().add_positive(PointId::from(0)));
    let (code, message) = refused(client.query(QueryPointsBuilder::new(DOCS).query(recommend)).await);
    assert_eq!(code, Code::Unimplemented);
    assert!(message.contains("recommend"), "{message}");
}

#[tokio::test]
async fn batch_with_wrong_vector_size_changes_nothing() {
    let server = TestServer::start().await;
    let client = server.client();
    create(&client, DOCS, 4).await;
    let batch = vec![numbered(1, 1), point(2, &[1.0, 2.0, 3.0], json!({}))];
    let (code, message) = refused(client.upsert_points(UpsertPointsBuilder::new(DOCS, batch).wait(true)).await);
    assert_eq!(code, Code::InvalidArgument);
    assert_eq!(message, "Wrong input: Vector dimension error: expected dim: 4, got 3");
    assert!(all(&client, DOCS).await.is_empty(), "the valid point was not written either");
    let (code, _) = refused(client.search_points(SearchPointsBuilder::new(DOCS, vec![1.0], 1)).await);
    assert_eq!(code, Code::InvalidArgument);
    let (code, message) = refused(client.upsert_points(UpsertPointsBuilder::new("nope", vec![numbered(1, 1)])).await);
    assert_eq!((code, message.as_str()), (Code::NotFound, "Not found: Collection `nope` doesn't exist!"));
}
