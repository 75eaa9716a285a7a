//! The contract of the source on the fake, and the fake's own features.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tidewheel_core::ports::{Covered, FeedError, ResumeToken, Source, SourceInspector, StartAt};
use tidewheel_testkit::contracts::source::{SourceHarness, SourceWrite};
use tidewheel_testkit::fakes::faults::{Fault, Gate};
use tidewheel_testkit::fakes::source::FakeSource;

struct Fake(FakeSource);

#[async_trait]
impl SourceHarness for Fake {
    fn database(&self) -> &str {
        "shop"
    }

    async fn source(&self, collections: &[&str]) -> Covered {
        self.0.selecting(collections).covered()
    }

    async fn inspector(&self, collections: &[&str]) -> Arc<dyn SourceInspector> {
        Arc::new(self.0.selecting(collections))
    }

    async fn commit_in(&self, database: &str, writes: Vec<SourceWrite>) {
        self.0.in_database(database).transaction(writes);
        // A real write takes a while, in which other tasks run.
        tokio::time::sleep(Duration::from_micros(50)).await;
    }
}

tidewheel_testkit::source_contract_tests!(Fake(FakeSource::new("shop")));

#[tokio::test]
async fn position_before_the_history_is_history_lost() {
    let source = FakeSource::new("shop");
    let start = source.now().await.unwrap();
    source.insert("tickets", json!({"_id": 1}));
    let mut feed = source.covered().open(StartAt::Time(start)).await.unwrap();
    source.lose_history();
    assert!(matches!(feed.next().await, Err(FeedError::HistoryLost(_))), "an open feed behind the history");
    for start in [StartAt::Time(start), StartAt::Token(ResumeToken("0".into()))] {
        assert!(matches!(source.covered().open(start).await, Err(FeedError::HistoryLost(_))));
    }
    let now = source.now().await.unwrap();
    source.insert("tickets", json!({"_id": 2}));
    let after = StartAt::Token(ResumeToken("1".into()));
    assert_eq!(source.covered().open(after).await.unwrap().next().await.unwrap().events.len(), 1);
    assert!(source.now().await.unwrap() > now);
}

#[tokio::test]
async fn restored_backup_turns_the_clock_back() {
    let source = FakeSource::new("shop");
    source.insert("tickets", json!({"_id": 1}));
    let backup = source.backup();
    let then = source.now().await.unwrap();
    source.insert("tickets", json!({"_id": 2}));
    source.restore(backup);
    assert_eq!(source.now().await.unwrap(), then);
    assert_eq!(source.rows("tickets").len(), 1);
    let unknown = StartAt::Token(ResumeToken("2".into()));
    assert!(matches!(source.covered().open(unknown).await, Err(FeedError::HistoryLost(_))));
}

#[tokio::test]
async fn faults_hit_feeds_and_scans() {
    let source = FakeSource::new("shop");
    let start = source.now().await.unwrap();
    source.insert("tickets", json!({"_id": 1}));
    for call in ["now", "check", "open", "collections", "estimate", "scan", "next", "page"] {
        source.faults().once(call, Fault::unreachable());
    }
    let namespace = tidewheel_core::identity::Namespace::new("shop", "tickets");
    let covered = source.covered();
    assert!(source.now().await.is_err());
    assert!(source.check(&covered.coverage).await.is_err());
    assert!(covered.collections().await.is_err());
    assert!(source.estimate(&namespace).await.is_err());
    assert!(covered.open(StartAt::Time(start)).await.is_err());
    assert!(covered.scan(&namespace, None, start, None).await.is_err());
    let mut feed = covered.open(StartAt::Time(start)).await.unwrap();
    assert!(feed.next().await.is_err());
    assert_eq!(feed.next().await.unwrap().events.len(), 1);
    let mut scan = covered.scan(&namespace, None, start, None).await.unwrap();
    assert!(scan.next().await.is_err());
    assert_eq!(scan.next().await.unwrap().len(), 1);
    assert_eq!(source.opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn feed_can_be_held() {
    let source = FakeSource::new("shop");
    let start = source.now().await.unwrap();
    let gate = Gate::closed();
    source.faults().always("next", Fault::Held(gate.clone()));
    source.insert("tickets", json!({"_id": 1}));
    let mut feed = source.covered().open(StartAt::Time(start)).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(60), feed.next()).await.is_err());
    gate.open();
    assert_eq!(feed.next().await.unwrap().events.len(), 1, "the cancelled call lost nothing");
}
