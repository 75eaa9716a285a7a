//! Ports for tests.

use std::sync::Arc;

use tidewheel_testkit::fakes::ownership::FakeRegistry;
use tidewheel_testkit::fakes::reports::FakeReports;

use super::IndexesPorts;
use crate::samples::Servers;

/// The ports of an installation without reports and without a registration.
pub(super) fn ports(servers: &Servers) -> IndexesPorts {
    IndexesPorts {
        registry: Arc::new(FakeRegistry::default()),
        journal: Arc::new(servers.streams.journal()),
        stages: Arc::new(servers.streams.inspector()),
        reports: Arc::new(FakeReports::default()),
        store: Arc::new(servers.streams.catalog()),
        collections: Arc::new(servers.collections.clone()),
    }
}
