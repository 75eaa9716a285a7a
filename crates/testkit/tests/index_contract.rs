//! The fake index does what the contract says.

use tidewheel_core::ports::{Index, KnownVectors};
use tidewheel_testkit::contracts::{self, index::IndexHarness};
use tidewheel_testkit::fakes::index::FakeIndex;
use tidewheel_testkit::fakes::ownership::FakeRegistry;

struct Fake(FakeIndex);

#[async_trait::async_trait]
impl IndexHarness for Fake {
    fn index(&self) -> Box<dyn Index> {
        Box::new(self.0.clone())
    }

    fn known(&self) -> Box<dyn KnownVectors> {
        Box::new(self.0.clone())
    }

    async fn drop_collection(&self) {
        self.0.drop_collection();
    }
}

#[tokio::test]
async fn a_mark_stays_with_its_collection() {
    let index = FakeIndex::new();
    contracts::ownership::a_mark_stays_with_its_collection(&Fake(index.clone()), &index).await;
}

#[tokio::test]
async fn the_first_installation_is_registered_and_stays() {
    contracts::ownership::the_first_installation_is_registered_and_stays(&FakeRegistry::default()).await;
}

tidewheel_testkit::index_contract!(Fake(FakeIndex::new()));
