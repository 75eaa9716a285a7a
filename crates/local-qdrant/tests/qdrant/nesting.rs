//! Payloads up to Qdrant's nesting limit, and hostile requests that nest far deeper.

use qdrant_client::qdrant::points_selector::PointsSelectorOneOf;
use qdrant_client::qdrant::points_update_operation::{Operation, OverwritePayload};
use qdrant_client::qdrant::{
    PointsIdsList, PointsUpdateOperation, SetPayloadPointsBuilder, UpdateBatchPointsBuilder, UpsertPointsBuilder,
};
use serde_json::{Value, json};
use tonic::Code;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;

use super::durability::Killable;
use super::server::{DOCS, TestServer, all, create, point, refused, upsert};

/// The levels that a real Qdrant stores, as measured.
const DEEPEST: usize = 120;

fn objects(levels: usize) -> Value {
    (0..levels).fold(json!("leaf"), |inner, _| json!({"a": inner}))
}

fn lists(levels: usize) -> Value {
    (0..levels).fold(json!("leaf"), |inner, _| json!([inner]))
}

fn mixed(levels: usize) -> Value {
    (0..levels).fold(json!("leaf"), |inner, level| if level % 2 == 0 { json!({"a": inner}) } else { json!([inner]) })
}

const SHAPES: [fn(usize) -> Value; 3] = [objects, lists, mixed];

#[tokio::test(flavor = "multi_thread")]
async fn deep_payloads_round_trip_over_both_apis_and_survive_kill() {
    let dir = tempfile::tempdir().unwrap();
    let server = Killable::start(dir.path()).await;
    let client = &server.client;
    create(client, DOCS, 4).await;
    let vector = [1.0, 0.5, 0.0, 0.0];
    let mut expected = Vec::new();
    let mut id = 0_u64;
    for levels in [33, 64, 100, DEEPEST] {
        for shape in SHAPES {
            let payload = json!({"d": shape(levels)});
            // By upsert, by set payload, and by overwrite payload in a batch.
            upsert(client, vec![point(id, &vector, payload.clone())]).await;
            upsert(client, vec![point(id + 1, &vector, json!({})), point(id + 2, &vector, json!({"old": 1}))]).await;
            let set: qdrant_client::Payload = payload.clone().try_into().unwrap();
            let one = |id: u64| PointsIdsList { ids: vec![id.into()] };
            let request = SetPayloadPointsBuilder::new(DOCS, set.clone()).points_selector(one(id + 1)).wait(true);
            client.set_payload(request).await.unwrap();
            let overwrite = OverwritePayload {
                payload: set.into(),
                points_selector: Some(PointsSelectorOneOf::Points(one(id + 2)).into()),
                ..OverwritePayload::default()
            };
            let operation = PointsUpdateOperation { operation: Some(Operation::OverwritePayload(overwrite)) };
            client.update_points_batch(UpdateBatchPointsBuilder::new(DOCS, vec![operation]).wait(true)).await.unwrap();
            expected.extend((id..id + 3).map(|id| (id.to_string(), payload.clone())));
            id += 3;
        }
    }
    assert_eq!(all(client, DOCS).await, expected);
    server.kill();
    let server = Killable::start(dir.path()).await;
    assert_eq!(all(&server.client, DOCS).await, expected, "replayed from the log");
    server.kill();

    let server = TestServer::start_in(dir.path()).await;
    let rest = server.rest();
    assert_eq!(rest.get("/collections/docs/points/0").await["payload"], expected[0].1);
    let points = json!({"points": [{"id": 1_000, "vector": vector, "payload": {"d": mixed(DEEPEST)}}]});
    rest.put("/collections/docs/points?wait=true", points).await;
    assert_eq!(rest.get("/collections/docs/points/1000").await["payload"], json!({"d": mixed(DEEPEST)}));
}

#[tokio::test(flavor = "multi_thread")]
async fn payload_beyond_nesting_limit_is_rejected() {
    let server = TestServer::start().await;
    let client = server.client();
    create(&client, DOCS, 4).await;
    for levels in [DEEPEST + 1, DEEPEST + 6, 2 * DEEPEST, 500] {
        for shape in SHAPES {
            let points = vec![point(1, &[1.0; 4], json!({})), point(2, &[1.0; 4], json!({"d": shape(levels)}))];
            let answer = client.upsert_points(UpsertPointsBuilder::new(DOCS, points).wait(true)).await;
            assert_eq!(refused(answer).0, Code::InvalidArgument, "{levels} levels");
        }
    }
    let deep = json!({"points": [{"id": 1, "vector": [1.0, 0.0, 0.0, 0.0], "payload": {"d": objects(DEEPEST + 1)}}]});
    let (status, answer) = server.rest().call("PUT", "/collections/docs/points?wait=true", Some(deep)).await;
    assert_eq!(status, 400, "{answer}");
    assert_eq!(all(&client, DOCS).await, [], "a batch with an invalid payload changes nothing");
}

/// Sends raw bytes.
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn encode(&mut self, bytes: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        bytes::BufMut::put_slice(out, &bytes);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = tonic::Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<()>, tonic::Status> {
        bytes::Buf::advance(bytes, bytes::Buf::remaining(bytes));
        Ok(Some(()))
    }
}

/// Returns a message nested `levels` times, in field `field`.
fn messages(levels: usize, field: u8) -> Vec<u8> {
    // Built inside out and reversed, so that a million levels take linear time.
    let mut reversed: Vec<u8> = Vec::new();
    for _ in 0..levels {
        let mut length = reversed.len();
        let mut varint = Vec::new();
        loop {
            varint.push((length & 0x7f) as u8 | if length > 0x7f { 0x80 } else { 0 });
            length >>= 7;
            if length == 0 {
                break;
            }
        }
        reversed.extend(varint.iter().rev());
        reversed.push(field << 3 | 2);
    }
    reversed.reverse();
    reversed
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_nesting_is_rejected_and_server_survives() {
    let server = TestServer::start().await;
    create(&server.client(), DOCS, 4).await;
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", server.grpc)).unwrap().connect_lazy();
    let calls = ["Points/Upsert", "Points/UpdateBatch", "Points/SetPayload", "Points/Query", "Collections/Create"];
    // Unclosed groups; points in points; payloads in payloads; filters in filters.
    let hostile = [vec![0x0b; 8 << 20], messages(1_000_000, 1), messages(1_000_000, 3), messages(1_000_000, 4)];
    for call in calls {
        for bytes in &hostile {
            let mut grpc = tonic::client::Grpc::new(channel.clone());
            grpc.ready().await.unwrap();
            let path: PathAndQuery = format!("/qdrant.{call}").parse().unwrap();
            let answer = grpc.unary(tonic::Request::new(bytes.clone()), path, Raw).await;
            assert!(answer.is_err(), "{call}");
        }
    }
    assert_eq!(all(&server.client(), DOCS).await, []);
}
