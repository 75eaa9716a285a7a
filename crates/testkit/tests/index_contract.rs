//! The contract of the index on the fake.

use tidewheel_core::ports::{Index, IndexInspector, KnownVectors, Searcher};
use tidewheel_testkit::contracts::{self, index::IndexHarness};
use tidewheel_testkit::fakes::index::FakeIndex;
use tidewheel_testkit::fakes::ownership::FakeRegistry;

struct Fake(FakeIndex);

#[async_trait::async_trait]
impl IndexHarness for Fake {
    fn index(&self) -> Box<dyn Index> {
        Box::new(self.0.clone())
    }

    fn searcher(&self) -> Box<dyn Searcher> {
        Box::new(self.0.clone())
    }

    fn known(&self) -> Box<dyn KnownVectors> {
        Box::new(self.0.clone())
    }

    fn inspector(&self) -> Box<dyn IndexInspector> {
        Box::new(self.0.clone())
    }

    async fn drop_collection(&self) {
        self.0.drop_collection();
    }
}

#[tokio::test]
async fn collection_mark_is_kept_until_replaced() {
    let index = FakeIndex::new();
    contracts::ownership::collection_mark_is_kept_until_replaced(&Fake(index.clone()), &index).await;
}

#[tokio::test]
async fn first_installation_is_registered_and_kept() {
    contracts::ownership::first_installation_is_registered_and_kept(&FakeRegistry::default()).await;
}

#[tokio::test]
async fn newer_layout_is_rejected_and_kept() {
    let registry = FakeRegistry::default();
    contracts::ownership::newer_layout_is_rejected_and_kept(&registry, async |layout| registry.set_layout(layout))
        .await;
}

tidewheel_testkit::index_contract!(Fake(FakeIndex::new()));
