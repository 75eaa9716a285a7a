//! The contracts of the streams on the fakes.

use std::sync::Arc;

use async_trait::async_trait;
use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{
    Backlog, CatalogStore, CollectionRegistry, DeadLetters, EntryFinder, EntryId, Follower, Handover, Journal,
    QueueServerInspector, ReportReader, StageInspector, StageQueue, StreamLog, TargetStates, Tombstones,
};
use tidewheel_core::stage::Stage;
use tidewheel_stores::redis::keys::{STAGE_1, STAGE_2_REPLAY, StreamKeys};
use tidewheel_stores::redis::wire::RawFields;
use tidewheel_testkit::contracts::catalog::CatalogHarness;
use tidewheel_testkit::contracts::streams::StreamsHarness;
use tidewheel_testkit::fakes::queue_server::FakeQueueServer;
use tidewheel_testkit::fakes::reports::FakeReports;
use tidewheel_testkit::fakes::streams::FakeStreams;

#[derive(Default)]
struct Fakes {
    streams: FakeStreams,
    reports: FakeReports,
}

#[async_trait]
impl StreamsHarness for Fakes {
    fn journal(&self) -> Arc<dyn Journal> {
        Arc::new(self.streams.journal())
    }

    fn changes(&self, stage: StreamKeys, consumer: &str) -> Arc<dyn StageQueue<Change>> {
        Arc::new(self.streams.queue(stage, consumer))
    }

    fn embedded(&self, consumer: &str) -> Arc<dyn StageQueue<Embedded>> {
        Arc::new(self.streams.embedded(consumer))
    }

    fn handover(&self) -> Arc<dyn Handover> {
        Arc::new(self.streams.handover())
    }

    fn tombstones(&self) -> Arc<dyn Tombstones> {
        Arc::new(self.streams.tombstones())
    }

    fn collection_registry(&self) -> Arc<dyn CollectionRegistry> {
        Arc::new(self.streams.collection_registry())
    }

    fn stream_log(&self) -> Arc<dyn StreamLog<Change>> {
        Arc::new(self.streams.stream_log(STAGE_1))
    }

    fn backlog(&self, stage: Stage) -> Arc<dyn Backlog> {
        Arc::new(self.streams.stream_log::<Change>(stage))
    }

    fn follower(&self) -> Arc<dyn Follower> {
        Arc::new(self.streams.follower())
    }

    fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        Arc::new(self.streams.dead_letters())
    }

    fn replay(&self, consumer: &str) -> Arc<dyn StageQueue<Embedded>> {
        Arc::new(self.streams.queue(STAGE_2_REPLAY, consumer))
    }

    fn stages(&self) -> Arc<dyn StageInspector> {
        Arc::new(self.streams.inspector())
    }

    fn finder(&self) -> Arc<dyn EntryFinder> {
        Arc::new(self.streams.inspector())
    }

    fn queue_server(&self) -> Arc<dyn QueueServerInspector> {
        Arc::new(FakeQueueServer::new(self.streams.clone()))
    }

    fn reports(&self) -> Arc<dyn ReportReader> {
        Arc::new(self.reports.clone())
    }

    async fn publish(&self, process: &str, text: &str) {
        self.reports.publish(process, text);
    }

    async fn add_raw(&self, stream: &'static str, fields: RawFields) -> EntryId {
        self.streams.add_raw(stream, fields)
    }

    async fn raw(&self, stream: &'static str) -> Vec<RawFields> {
        self.streams.raw(stream)
    }

    async fn delete_entry(&self, stream: &'static str, id: &EntryId) {
        self.streams.delete_entry(stream, id);
    }

    async fn delete_stream(&self, stream: &'static str) {
        self.streams.delete_stream(stream);
    }

    async fn destroy_group(&self, stage: StreamKeys) {
        self.streams.destroy_group(stage);
    }
}

impl CatalogHarness for Fakes {
    fn catalog(&self) -> Arc<dyn CatalogStore> {
        Arc::new(self.streams.catalog())
    }

    fn targets(&self) -> Arc<dyn TargetStates> {
        Arc::new(self.streams.clone())
    }
}

tidewheel_testkit::streams_contract_tests!(Fakes::default());
tidewheel_testkit::catalog_contract_tests!(Fakes::default());
tidewheel_testkit::targets_contract_tests!(Fakes::default());
