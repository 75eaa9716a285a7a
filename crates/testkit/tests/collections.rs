//! The contract of the collections on the fake.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tidewheel_core::catalog::{CollectionSpec, IndexName, PayloadIndex, PayloadKind, VectorLayout};
use tidewheel_core::ports::{Collections, IndexWriter};
use tidewheel_testkit::contracts::collections::CollectionsHarness;
use tidewheel_testkit::contracts::index::DIMENSION;
use tidewheel_testkit::fakes::collections::FakeCollections;
use tidewheel_testkit::fakes::faults::Fault;
use tidewheel_testkit::fakes::process::{CrashPoint, Moment, Process};

#[derive(Default)]
struct Fake(FakeCollections);

#[async_trait]
impl CollectionsHarness for Fake {
    fn collections(&self) -> Arc<dyn Collections> {
        Arc::new(self.0.clone())
    }

    fn index_name(&self) -> IndexName {
        IndexName::new("tickets").expect("a valid name")
    }

    async fn create_foreign(&self, name: &str) {
        self.0.index(name).prepare(DIMENSION).await.unwrap();
    }

    async fn index_field(&self, collection: &str, field: &str, kind: PayloadKind) {
        self.0.index(collection).put_payload_index(field, PayloadIndex::new(kind));
    }

    async fn indexed_fields(&self, collection: &str) -> BTreeMap<String, String> {
        let indexes = self.0.index(collection).payload_indexes();
        indexes.into_iter().map(|(field, index)| (field, index.kind.name().to_owned())).collect()
    }
}

tidewheel_testkit::collections_contract_tests!(Fake::default());

#[tokio::test]
async fn each_collection_has_its_own_faults_and_its_settings_are_seen() {
    let server = FakeCollections::new();
    server.index("a.g1").faults().always("create", Fault::unreachable());
    let (mut spec, layout) = (CollectionSpec::default(), VectorLayout::default());
    spec.settings.insert("on_disk_payload".to_owned(), true.into());
    assert!(server.open("a.g1").create(&spec, &layout, 4).await.is_err());
    assert!(server.open("b.g1").create(&spec, &layout, 4).await.unwrap());
    assert_eq!(server.names(), ["b.g1"]);
    assert_eq!(server.index("b.g1").spec(), Some(spec));
    server.index("b.g1").set_busy(true);
    assert!(!server.open("b.g1").is_settled().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn dead_process_moves_no_alias() {
    let server = FakeCollections::new();
    server.index("a.g1").prepare(4).await.unwrap();
    let process = Process::crashing(CrashPoint { call: "point", number: 2, moment: Moment::Before });
    let of_process = server.used_by(&process);
    of_process.point("a", Some("a.g1")).await.unwrap();
    let second = tokio::spawn(async move { of_process.point("a", None).await });
    process.died().await;
    assert!(!second.is_finished());
    assert_eq!(server.alias("a").as_deref(), Some("a.g1"));
}
