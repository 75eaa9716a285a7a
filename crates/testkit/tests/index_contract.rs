//! The fake index does what the contract says.

use tidewheel_core::ports::{Index, KnownVectors};
use tidewheel_testkit::contracts::index::IndexHarness;
use tidewheel_testkit::fakes::index::FakeIndex;

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

tidewheel_testkit::index_contract!(Fake(FakeIndex::new()));
