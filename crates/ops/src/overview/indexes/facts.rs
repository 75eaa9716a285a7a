//! What an overview has gathered about the indexes.

use std::collections::BTreeMap;

use tidewheel_core::catalog::{Catalog, Index, IndexName, State, TargetId};
use tidewheel_core::ports::{Checkpoint, CollectionState, PublishedReport};
use tidewheel_core::report::{Figures, SettingsReport};

use super::{CollectionStates, Declared, MissingEmbedding, MovedAlias};
use crate::indexes::intended;
use crate::overview::Snapshot;

/// What was gathered.
pub(in crate::overview) struct Facts<'a> {
    /// The applied catalog; before that, the short form.
    pub(in crate::overview) catalog: &'a Catalog,
    /// Fingerprints of the applied declarations.
    pub(in crate::overview) fingerprints: &'a BTreeMap<IndexName, String>,
    /// Collections.
    pub(in crate::overview) collections: &'a CollectionStates,
    /// Aliases with their collections; `None` if they are unknown, or older than the catalog.
    pub(in crate::overview) aliases: Option<&'a BTreeMap<String, String>>,
    /// The saved checkpoint.
    pub(in crate::overview) checkpoint: Option<&'a Checkpoint>,
    /// The progress of its snapshot.
    pub(in crate::overview) snapshot: Option<&'a Snapshot>,
    /// Positions of audits, by target.
    pub(in crate::overview) audits: &'a BTreeMap<TargetId, Option<String>>,
    /// What targets have lost.
    pub(in crate::overview) lost: &'a [(TargetId, String)],
    /// Reports of processes.
    pub(in crate::overview) reports: &'a [PublishedReport],
    /// Their figures.
    pub(in crate::overview) figures: &'a [Figures],
    /// Dead letters of all indexes.
    pub(in crate::overview) parked: Option<u64>,
}

impl Facts<'_> {
    /// The state of a collection, if it exists and is known.
    pub(super) fn collection(&self, name: &str) -> Option<&CollectionState> {
        self.collections.get(name)?.as_ref()
    }

    /// Dead letters belong to several indexes, and reading them is expensive.
    pub(super) fn dead_letters(&self) -> Option<u64> {
        self.parked.filter(|parked| *parked == 0 || self.catalog.indexes.len() == 1)
    }

    /// The settings of processes that declare an index. Before a catalog is applied, settings take effect as they are.
    fn settings(&self) -> impl Iterator<Item = &SettingsReport> {
        let reported = self.figures.iter().filter_map(|figures| figures.settings.as_ref());
        reported.filter(|settings| !self.catalog.is_short_form() && !settings.indexes.is_empty())
    }

    /// What the settings declare about an applied index.
    pub(super) fn declared(&self, name: &IndexName) -> Declared {
        if self.catalog.is_short_form() {
            return Declared::Applied;
        }
        let applied = self.fingerprints.get(name);
        let declared: Vec<Option<&String>> = self.settings().map(|settings| settings.indexes.get(name)).collect();
        match declared.as_slice() {
            [] => Declared::Unknown,
            all if all.iter().all(Option::is_none) => Declared::Absent,
            all if all.iter().all(|one| *one == applied) => Declared::Applied,
            _ => Declared::Differs,
        }
    }

    /// The indexes that settings declare and that are not applied.
    pub(super) fn not_applied(&self) -> Vec<IndexName> {
        let declared = self.settings().flat_map(|settings| settings.indexes.keys());
        let mut names: Vec<IndexName> =
            declared.filter(|name| !self.catalog.indexes.contains_key(*name)).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    /// An embedding of the index that a processor cannot reach.
    pub(super) fn missing_embedding(&self, index: &Index) -> Option<MissingEmbedding> {
        if self.catalog.is_short_form() {
            return None;
        }
        let embeds = |state: State| state.is_routed() || state == State::Creating;
        let missing =
            index.generations.values().filter(|generation| embeds(generation.state)).filter_map(|generation| {
                let name = &generation.declaration.embedding.name;
                let processes = self.processors_without(name);
                let blocks = generation.may_block();
                (!processes.is_empty()).then(|| MissingEmbedding { name: name.clone(), processes, blocks })
            });
        missing.max_by_key(|missing| missing.blocks)
    }

    fn processors_without(&self, embedding: &str) -> Vec<String> {
        let lacks = |published: &&PublishedReport| {
            let report = &published.report;
            let settings = report.figures.as_ref().and_then(|figures| figures.settings.as_ref());
            report.services.iter().any(|service| service.service == "processor")
                && settings.is_some_and(|settings| !settings.embeddings.contains(embedding))
        };
        self.reports.iter().filter(lacks).map(|published| published.process.clone()).collect()
    }
}

/// The fingerprints of the applied declarations.
pub(in crate::overview) fn fingerprints(catalog: &Catalog) -> BTreeMap<IndexName, String> {
    let of = |(name, index): (&IndexName, &Index)| Some((name.clone(), intended(index)?.fingerprint().to_string()));
    catalog.indexes.iter().filter_map(of).collect()
}

/// What the alias of an index names instead of its serving collection. While the alias moves, and for a plain collection,
/// there is nothing to compare. A kept generation may stand in for one that lost something.
pub(in crate::overview) fn moved_alias(
    name: &IndexName,
    index: &Index,
    lost: &[(TargetId, String)],
    aliases: &BTreeMap<String, String>,
) -> Option<MovedAlias> {
    let (number, serving) = index.serving_generation()?;
    if index.plain || index.switching.is_some() || serving.state != State::Serving {
        return None;
    }
    let target = name.target(number);
    let is_whole = serving.is_filled() && !lost.iter().any(|(lost, _)| *lost == target);
    let may_name = |collection: &String| {
        index.generations.values().any(|generation| {
            generation.collection == *collection
                && (generation.state == State::Serving || (!is_whole && generation.state == State::Kept))
        })
    };
    let to = aliases.get(name.as_str());
    (!to.is_some_and(may_name)).then(|| MovedAlias { to: to.cloned() })
}
