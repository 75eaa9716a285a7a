//! A server killed, stopped or frozen while a feed is open.

use std::time::Duration;

use serde_json::json;
use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::{Covered, Feed, FeedError, ResumeToken, StartAt};
use tidewheel_local::stack::Server;
use tidewheel_testkit::contracts::source::{SourceHarness, SourceWrite};

use super::server::{TestMongo, own_server};

const TIMEOUT: Duration = Duration::from_secs(90);

fn insert(id: usize) -> SourceWrite {
    SourceWrite::Insert { collection: "tickets".into(), document: json!({"_id": id}) }
}

/// Reads as the producer does: reopens the feed at the last token after each transient error.
struct Reader<'a> {
    source: &'a Covered,
    token: ResumeToken,
    ids: Vec<String>,
    failures: usize,
}

impl Reader<'_> {
    async fn read_to(&mut self, count: usize) {
        let all = async {
            let mut feed: Option<Box<dyn Feed>> = None;
            while self.ids.len() < count {
                let result = match &mut feed {
                    Some(open) => open.next().await.map(|batch| {
                        self.ids.extend(batch.events.into_iter().map(|event| event.id));
                        self.token = batch.token;
                    }),
                    None => self.source.open(StartAt::Token(self.token.clone())).await.map(|open| feed = Some(open)),
                };
                match result {
                    Ok(()) => {}
                    Err(FeedError::Port(error)) if error.class == ErrorClass::Transient => {
                        self.failures += 1;
                        feed = None;
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
        };
        tokio::time::timeout(TIMEOUT, all).await.expect("reading timed out");
    }
}

async fn survives(disturb: impl AsyncFn(&Server)) -> usize {
    let data = tempfile::tempdir().unwrap();
    let server = own_server(data.path()).await;
    let mongo = TestMongo::on(&server).await;
    let source = mongo.covered(&["tickets"]).await;
    let mut feed = source.open(StartAt::Time(source.now().await.unwrap())).await.unwrap();
    let token = feed.next().await.unwrap().token;
    drop(feed);
    let mut reader = Reader { source: &source, token, ids: Vec::new(), failures: 0 };
    for round in 0..3 {
        for id in round * 10..round * 10 + 5 {
            mongo.commit(vec![insert(id)]).await;
        }
        reader.read_to(round * 10 + 5).await;
        let reading = reader.read_to(round * 10 + 10);
        let disturbing = async {
            // The feed is open and idle.
            tokio::time::sleep(Duration::from_millis(100)).await;
            disturb(&server).await;
            for id in round * 10 + 5..round * 10 + 10 {
                mongo.commit(vec![insert(id)]).await;
            }
        };
        tokio::join!(reading, disturbing);
    }
    assert_eq!(reader.ids, (0..30).map(|id| id.to_string()).collect::<Vec<_>>());
    reader.failures
}

#[tokio::test]
async fn feed_loses_no_event_when_server_is_killed() {
    let failures = survives(async |server| {
        server.kill().await;
        server.start().await.unwrap();
    })
    .await;
    assert!(failures >= 3, "the feed saw too few failures: {failures}");
}

#[tokio::test]
async fn feed_loses_no_event_when_server_restarts() {
    let failures = survives(async |server| server.restart().await.unwrap()).await;
    assert!(failures >= 3, "the feed saw too few failures: {failures}");
}

#[tokio::test]
async fn feed_survives_a_frozen_server() {
    survives(async |server| {
        server.pause();
        tokio::time::sleep(Duration::from_secs(3)).await;
        server.resume();
    })
    .await;
}

/// Its connections stay open, so only a ping detects it.
#[tokio::test]
async fn permanently_frozen_server_is_a_transient_error() {
    let data = tempfile::tempdir().unwrap();
    let server = own_server(data.path()).await;
    let mongo = TestMongo::on(&server).await;
    let source = mongo.covered(&["tickets"]).await;
    let mut feed = source.open(StartAt::Time(source.now().await.unwrap())).await.unwrap();
    let token = feed.next().await.unwrap().token;
    mongo.commit(vec![insert(0)]).await;
    server.pause();
    let noticed = async {
        loop {
            match feed.next().await {
                Ok(_) => {}
                Err(FeedError::Port(error)) => return error,
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    let error = tokio::time::timeout(TIMEOUT, noticed).await.expect("no error within the timeout");
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    assert!(source.now().await.is_err_and(|error| error.class == ErrorClass::Transient));
    server.resume();
    let mut reader = Reader { source: &source, token, ids: Vec::new(), failures: 0 };
    reader.read_to(1).await;
    assert_eq!(reader.ids, ["0"]);
}

#[tokio::test]
async fn scan_during_a_restart_fails_as_transient_and_resumes() {
    let data = tempfile::tempdir().unwrap();
    let server = own_server(data.path()).await;
    let mongo = TestMongo::on(&server).await;
    let source = mongo.covered(&["tickets"]).await;
    let documents = (0..8_000).map(|id| bson::doc! {"_id": id, "text": "x".repeat(500)});
    mongo.collection("tickets").insert_many(documents).await.unwrap();
    let namespace = tidewheel_core::identity::Namespace::new(&mongo.database, "tickets");
    let start = source.now().await.unwrap();
    let mut ids = Vec::new();
    let mut last: Option<String> = None;
    let mut failures = 0;
    let mut scan = source.scan(&namespace, None, start, None).await.unwrap();
    loop {
        match scan.next().await {
            Ok(page) if page.is_empty() => break,
            Ok(page) => {
                last = page.last().map(|row| row.key.clone());
                ids.extend(page.into_iter().map(|row| row.id));
                if ids.len() == 1_000 {
                    server.kill().await;
                    server.start().await.unwrap();
                }
            }
            Err(error) => {
                assert_eq!(error.class, ErrorClass::Transient, "{error}");
                failures += 1;
                scan = source.scan(&namespace, last.as_deref(), start, None).await.unwrap();
            }
        }
    }
    assert_eq!(ids, (0..8_000).map(|id| id.to_string()).collect::<Vec<_>>());
    assert!(failures >= 1, "the scan saw no failure");
}
