//! Detects missing collections, also without writes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidewheel_core::catalog::TargetId;
use tidewheel_core::ports::PortResult;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::targets::{Applied, CatalogPorts, Target, Targets};

/// How often the existence of collections is checked.
const WATCH: Duration = Duration::from_secs(5);

/// Checks after which a collection is reported although nothing has changed: another client may have lost the record.
const REPORT_EVERY: u32 = 12;

/// Checks the collections until `stop`.
pub(super) async fn watch(targets: Arc<Targets>, stop: CancellationToken) {
    let mut watch = Watch { targets, reported: HashMap::new(), checks: 0 };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(WATCH) => {}
        }
        // The work itself reports an outage.
        if let Err(error) = watch.look().await {
            debug!("failed to check the collections: {error}");
        }
    }
}

struct Watch {
    targets: Arc<Targets>,
    /// The collections that were last reported as existing, by target.
    reported: HashMap<TargetId, String>,
    checks: u32,
}

impl Watch {
    async fn look(&mut self) -> PortResult<()> {
        let targets = self.targets.clone();
        let applied = targets.at_least(0).await?;
        match targets.ports().filter(|_| applied.revision() > 0) {
            Some(ports) => self.look_at_all(&applied, ports).await,
            None => {
                for target in applied.routed() {
                    let exists = target.ports.index.exists().await?;
                    report(target, exists).await?;
                }
                Ok(())
            }
        }
    }

    /// One list of all collections costs as much as a check of one of them, and reports are made only of changes.
    async fn look_at_all(&mut self, applied: &Applied, ports: &CatalogPorts) -> PortResult<()> {
        if self.checks.is_multiple_of(REPORT_EVERY) {
            self.reported.clear();
        }
        self.checks = self.checks.wrapping_add(1);
        // After a loss of the catalog, an index that is created again may have the same first target.
        self.reported.retain(|target, _| applied.target(Some(target)).is_some());
        let listed = ports.collections.list().await?;
        let exists = |target: &Target| {
            let collection = &target.generation.collection;
            listed.collections.contains(collection) || listed.aliases.contains_key(collection)
        };
        let (there, missing): (Vec<_>, Vec<_>) = applied.routed().partition(|target| exists(target));
        for target in there {
            let collection = &target.generation.collection;
            if self.reported.get(&target.id) != Some(collection) {
                report(target, true).await?;
                self.reported.insert(target.id.clone(), collection.clone());
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        // A collection of a target that was retired meanwhile is deleted on purpose.
        let applied = self.targets.reload().await?;
        for target in missing.into_iter().filter(|target| applied.target(Some(&target.id)).is_some()) {
            self.reported.remove(&target.id);
            report(target, false).await?;
        }
        Ok(())
    }
}

async fn report(target: &Target, exists: bool) -> PortResult<()> {
    match &target.ports.registry {
        Some(registry) => registry.collection(target.ports.index.name(), exists).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::catalog::{CollectionSpec, State, VectorLayout};
    use tidewheel_core::ports::{CatalogStore as _, CollectionAdmin as _};

    use super::*;
    use crate::targets::samples::{Servers, catalog};

    /// The lost targets after a look.
    async fn lost_after(watch: &mut Watch, servers: &Servers) -> Vec<String> {
        watch.look().await.unwrap();
        let lost = servers.streams.catalog().lost().await.unwrap();
        lost.into_iter().map(|(target, _)| target.to_string()).collect()
    }

    #[tokio::test]
    async fn missing_collections_of_routed_targets_are_lost() {
        let servers = Servers::new();
        let names = ["kept", "retired", "tickets"];
        let of = |revision, state| {
            let states = [("kept", State::Kept), ("retired", state), ("tickets", State::Serving)];
            catalog(revision, &states.map(|(name, state)| (name, state, true)))
        };
        servers.apply(&of(7, State::Kept)).await;
        for name in names {
            let index = servers.collections.index(&format!("{name}.g1"));
            index.create(&CollectionSpec::default(), &VectorLayout::default(), 2).await.unwrap();
        }
        let mut watch = Watch { targets: Arc::new(servers.targets()), reported: HashMap::new(), checks: 0 };
        assert!(lost_after(&mut watch, &servers).await.is_empty());
        assert_eq!(watch.reported.len(), 3);

        // The watch still has the earlier catalog.
        servers.apply(&of(8, State::Retiring)).await;
        for name in ["retired", "tickets"] {
            servers.collections.index(&format!("{name}.g1")).drop_collection();
        }
        assert_eq!(lost_after(&mut watch, &servers).await, ["tickets.g1"]);
    }

    #[tokio::test]
    async fn collection_of_local_settings_is_checked_by_name() {
        let servers = Servers::new();
        let mut watch = Watch { targets: Arc::new(servers.targets()), reported: HashMap::new(), checks: 0 };
        assert!(lost_after(&mut watch, &servers).await.is_empty());
        assert!(watch.reported.is_empty(), "reported at every look");
    }
}
