//! Read your own writes: changes written before a wait are searchable after it.
#![allow(clippy::print_stdout, reason = "the duration is useful even if the test passes")]

use mongodb::bson::doc;
use serde_json::Value;

use super::world::{SERVICES, World, free_port, ticket};
use super::writer::Writer;

/// Returns status and body of `/searchable` on the operations port.
async fn searchable(http: &reqwest::Client, port: u16, query: &str) -> (u16, Value) {
    let url = format!("http://127.0.0.1:{port}/searchable?{query}");
    let answer = http.get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// Returns the field `round` of this document's point.
async fn indexed(http: &reqwest::Client, qdrant: &str, id: i32) -> Option<Value> {
    let is = |key: &str, value: Value| serde_json::json!({"key": key, "match": {"value": value}});
    let must = [is("_id", id.into()), is("_tidewheel.namespace", "shop.tickets".into())];
    let body = serde_json::json!({"filter": {"must": must}, "with_payload": true});
    let url = format!("{qdrant}/collections/documents/points/scroll");
    let answer: Value = http.post(url).json(&body).send().await.unwrap().json().await.unwrap();
    let point = answer["result"]["points"].as_array()?.first()?.clone();
    Some(point["payload"]["round"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_before_wait_are_searchable_after_it() {
    let mut world = World::new().await;
    for service in SERVICES {
        if service != "producer" {
            world.start(service);
        }
    }
    // The settings below are for the producer only.
    let begun =
        |world: &World| ["embedder", "processor", "upserter"].iter().all(|name| world.log(name).contains("starting"));
    world.wait(begun, "the other services have started").await;
    let port = free_port();
    world.write_settings(&format!("http.listen = \"127.0.0.1:{port}\""));
    world.start("producer");
    let http = super::clients::http();
    let tickets = world.collection("tickets");
    tickets.insert_one(ticket(0)).await.unwrap();
    world.equal().await;
    let qdrant = world.stack.qdrant_http_url().unwrap();

    // Idle: without other writes, MongoDB's cluster time does not advance for seconds.
    for _ in 0..5 {
        let (status, answer) = searchable(&http, port, "since=now&timeout=30s").await;
        assert_eq!((status, &answer["searchable"]), (200, &Value::Bool(true)), "{answer}");
    }

    // With writes to this and to another collection.
    let load = Writer::start(world.collection("notes"));
    for round in 0..120 {
        let id = round % 7;
        let update = doc! {"$set": {"subject": format!("Round {round}"), "round": round}};
        tickets.update_one(doc! {"_id": id}, update).upsert(true).await.unwrap();
        if round % 20 == 0 {
            let ran = world.command(&["wait", "--timeout", "60s"]).output().unwrap();
            assert_eq!(ran.status.code(), Some(0), "{ran:?}");
        } else {
            let (status, answer) = searchable(&http, port, "timeout=60s").await;
            assert_eq!((status, &answer["searchable"]), (200, &Value::Bool(true)), "{answer}");
        }
        assert_eq!(indexed(&http, &qdrant, id).await, Some(round.into()), "round {round}");
    }
    load.finish().await;
    world.equal().await;

    // A driver's cluster time, and invalid times.
    let answer = world.database.run_command(doc! {"ping": 1}).await.unwrap();
    let time = answer.get_timestamp("operationTime").unwrap();
    let (status, _) = searchable(&http, port, &format!("since={}.{}&timeout=30s", time.time, time.increment)).await;
    assert_eq!(status, 200);
    assert_eq!(searchable(&http, port, "since=1970-01-02T00:00:00Z").await.0, 200);
    assert_eq!(searchable(&http, port, "since=soon").await.0, 400);
    assert_eq!(searchable(&http, port, "timeout=7").await.0, 400);

    // A change that is not searchable yet is reported with the reason.
    world.terminate("processor");
    tickets.update_one(doc! {"_id": 0}, doc! {"$set": {"subject": "Late"}}).await.unwrap();
    let (status, answer) = searchable(&http, port, "timeout=2s").await;
    assert_eq!((status, &answer["searchable"]), (504, &Value::Bool(false)));
    assert!(answer["why"].as_str().unwrap().contains("backlog of 1 entries in stage 1"), "{answer}");
    let ran = world.command(&["wait", "--timeout", "500ms"]).output().unwrap();
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    world.terminate("producer");
    let ran = world.command(&["wait", "--timeout", "500ms"]).output().unwrap();
    assert!(
        ran.status.code() == Some(1) && String::from_utf8_lossy(&ran.stdout).contains("no producer is running"),
        "{ran:?}"
    );
}
