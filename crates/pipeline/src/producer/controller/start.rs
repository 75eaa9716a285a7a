//! What precedes the opening of a feed: a catalog has to be applied if there has to be one, and a move that was
//! interrupted while searches fail is completed.
//!
//! | store | this process | | |
//! |---|---|---|---|
//! | a catalog | | | complete the moves of plain indexes |
//! | none | has one | | write it back |
//! | none | none | collections with records | restore it from them |
//! | none | none | declared indexes, and no checkpoint | apply them |
//! | none | none | declared indexes, and a checkpoint of the short form | wait for an apply |
//! | none | none | a checkpoint of a catalog, and no declared indexes | wait for an apply |
//! | none | none | else | the short form: record what its points conform to |

use std::collections::{BTreeMap, BTreeSet};

use tidewheel_core::catalog::{
    ApplyOptions, Catalog, Choice, Declaration, Facts, Index, IndexName, Step, TargetRecord, advance, restore, submit,
};
use tidewheel_core::error::{ErrorClass, PortError};
use tidewheel_core::installation::CollectionMark;
use tidewheel_core::ports::{Appended, Checkpoint, Listed, PortResult};
use tracing::{info, warn};
use uuid::Uuid;

use super::super::{ProducerOptions, ProducerPorts};
use super::saves::{Changes, save};
use super::steps::{Effect, Task, execute};
use super::tools::Tools;
use crate::targets::Applied;

/// Most steps of a move: it is made, and it is recorded.
const STEPS_OF_MOVE: usize = 2;

/// Prepares the catalog for a session. Called by the producer that holds the lease.
///
/// # Errors
/// Those of the servers. Transient while the declared indexes have to be applied by an operator; fatal if they are
/// refused.
pub(in crate::producer) async fn prepare(options: &ProducerOptions, ports: &ProducerPorts) -> PortResult<()> {
    let Some(tools) = Tools::of(ports) else { return Ok(()) };
    if tools.catalog.store.revision().await? > 0 {
        let applied = tools.targets.reload().await?;
        return complete_moves(&tools, &applied).await;
    }
    let known = tools.targets.current();
    if known.revision() > 0 {
        let (_, now_ms) = tools.catalog.store.load().await?;
        return write_back(&tools, known.catalog(), now_ms).await.map(drop);
    }
    let saved = tools.journal.load().await?;
    let is_of_short_form = saved.as_ref().is_some_and(|saved| saved.catalog == 0);
    let lost = saved.as_ref().map(|saved| saved.catalog).filter(|revision| *revision > 0);
    let needs_catalog = options.is_declared || lost.is_some();
    if !is_of_short_form && restores(&tools, needs_catalog, lost.unwrap_or_default()).await? {
        return Ok(());
    }
    if let Some(lost) = lost.filter(|_| !options.is_declared) {
        // Entries and checkpoint belong to it: local settings would route to other collections.
        return Err(PortError::transient(format!(
            "the applied catalog of revision {lost} is missing in Redis, and no collection has a record of it"
        ))
        .with_hint("declare the indexes with `[[index]]`, and run `tidewheel apply`"));
    }
    match (options.is_declared, is_of_short_form) {
        (true, false) => apply_first(&tools, &options.declared).await,
        (true, true) => {
            Err(PortError::transient("the declared indexes are not applied").with_hint("run `tidewheel apply`"))
        }
        (false, _) => record_short_form(&tools, &known, saved.is_none()).await,
    }
}

/// Saves the catalog that the store has lost. Its revision is a new one: other services may know a catalog that was saved
/// right before the loss.
pub(super) async fn write_back(tools: &Tools, catalog: &Catalog, now_ms: u64) -> PortResult<Appended> {
    let again = Catalog { revision: catalog.next_revision(now_ms), ..catalog.clone() };
    let saved = save_first(tools, &again).await?;
    if saved == Appended::Saved {
        warn!(revision = again.revision, "the store lost the applied catalog; saved it again");
    }
    Ok(saved)
}

/// Saves a catalog where there is none.
async fn save_first(tools: &Tools, catalog: &Catalog) -> PortResult<Appended> {
    let indexes: Vec<(IndexName, Option<Index>)> = catalog.stored().map(|(name, index)| (name, Some(index))).collect();
    let store = &tools.catalog.store;
    let saved = store.save(Uuid::new_v4(), 0, catalog.revision, &indexes, Some(Catalog::LAYOUT)).await?;
    tools.targets.reload().await?;
    Ok(saved)
}

/// Restores the catalog from the records of the collections, newer than the lost revision; returns whether there are any
/// records. If a catalog is needed, they have to be readable.
async fn restores(tools: &Tools, needs_catalog: bool, lost: u64) -> PortResult<bool> {
    let found = match recorded(tools).await {
        // As before there were catalogs, local settings work without the index.
        Err(error) if !needs_catalog => {
            warn!("failed to look for indexes that were applied before, continuing without them: {error}");
            return Ok(false);
        }
        found => found?,
    };
    let Some((records, aliases)) = found else { return Ok(false) };
    let (_, now_ms) = tools.catalog.store.load().await?;
    // The checkpoint requires its revision or a newer one, whatever became of the clock.
    let catalog = restore(&records, &aliases, now_ms.max(lost + 1));
    let indexes = catalog.indexes.keys().map(IndexName::as_str).collect::<Vec<_>>().join(" ");
    if save_first(tools, &catalog).await? == Appended::Saved {
        warn!(indexes, revision = catalog.revision, "restored the applied catalog from the collections");
    }
    Ok(true)
}

type Records = (BTreeMap<String, TargetRecord>, BTreeMap<String, String>);

/// The records of the collections that belong to this source, and the aliases; `None` if there are no records.
async fn recorded(tools: &Tools) -> PortResult<Option<Records>> {
    let Listed { collections, aliases } = tools.catalog.collections.list().await?;
    let mut records = BTreeMap::new();
    for name in collections {
        let collection = tools.catalog.collections.open(&name);
        let record = match collection.record().await {
            Err(error) if error.class == ErrorClass::Fatal => {
                warn!(collection = name, "ignoring an unreadable record: {error}");
                None
            }
            record => record?,
        };
        let Some(record) = record else { continue };
        let Some(own) = tools.control.registry.installation().await? else {
            return Err(PortError::transient("no installation is registered yet"));
        };
        match collection.mark().await? {
            CollectionMark::Of(owner) if owner.id == own.id || owner.source.is_same(&own.source) => {
                records.insert(name, record);
            }
            _ => info!(collection = name, "ignoring the index of another installation"),
        }
    }
    Ok((!records.is_empty()).then_some((records, aliases)))
}

/// Applies the declared indexes of a new installation, which has nothing to lose.
async fn apply_first(tools: &Tools, declared: &[Declaration]) -> PortResult<()> {
    let Listed { collections, aliases } = tools.catalog.collections.list().await?;
    let (current, now_ms) = tools.catalog.store.load().await?;
    let choice = Choice::Declared(ApplyOptions { collections, aliases, ..ApplyOptions::default() });
    let submitted = submit(&current, declared, &choice, now_ms);
    if let Some(refusal) = submitted.refused.into_iter().next() {
        return Err(PortError::fatal(refusal.reason).with_hint(refusal.hint));
    }
    let catalog = submitted.catalog;
    if !catalog.is_short_form() && save_first(tools, &catalog).await? == Appended::Saved {
        info!(indexes = catalog.indexes.len(), revision = catalog.revision, "applied the declared indexes");
    }
    Ok(())
}

/// Records the declaration that the points of the short form conform to.
async fn record_short_form(tools: &Tools, known: &Applied, is_new: bool) -> PortResult<()> {
    let Some(local) = known.routed().next() else { return Ok(()) };
    let store = &tools.catalog.store;
    match conforming(store.plain().await?.as_ref(), local.declaration(), is_new) {
        Some(declaration) => store.set_plain(&declaration).await,
        None => Ok(()),
    }
}

/// The declaration that the points of the short form conform to; `None` if the saved one states it. Points in place keep
/// the text and the payload that they were made by. What is selected, and the rules, are in effect at once.
fn conforming(saved: Option<&Declaration>, local: &Declaration, is_new: bool) -> Option<Declaration> {
    let conforming = match saved.filter(|saved| !is_new && saved.name == local.name) {
        Some(saved) => Declaration {
            source: local.source.clone(),
            filter: local.filter.clone(),
            rules: local.rules.clone(),
            ..saved.clone()
        },
        None => local.clone(),
    };
    (saved != Some(&conforming)).then_some(conforming)
}

/// Completes moves whose plain collection is deleted: searches fail until then. Those that were made are recorded, before
/// anything is routed by the catalog that does not state it.
async fn complete_moves(tools: &Tools, applied: &Applied) -> PortResult<()> {
    let is_plain_move = |index: &Index| index.switching.is_some_and(|switch| switch.plain);
    if !applied.catalog().indexes.values().any(is_plain_move) {
        return Ok(());
    }
    let Some(saved) = tools.journal.load().await? else { return Ok(()) };
    // Nothing but such a move is decided before the catalog is adopted.
    let unadopted = Checkpoint { catalog: 0, ..saved };
    for _ in 0..STEPS_OF_MOVE {
        let (catalog, now_ms) = tools.catalog.store.load().await?;
        let listed = tools.catalog.collections.list().await?;
        for (name, index) in catalog.indexes.iter().filter(|(_, index)| is_plain_move(index)) {
            complete_move(tools, &catalog, name, index, &unadopted, &listed, now_ms).await?;
        }
    }
    Ok(())
}

async fn complete_move(
    tools: &Tools,
    catalog: &Catalog,
    name: &IndexName,
    index: &Index,
    unadopted: &Checkpoint,
    listed: &Listed,
    now_ms: u64,
) -> PortResult<()> {
    let (records, deleted) = (BTreeMap::new(), BTreeSet::new());
    let facts = Facts {
        revision: catalog.revision,
        now_ms,
        current: unadopted,
        applied: None,
        lost: &[],
        damaged: false,
        backlog: u64::MAX,
        quiet: false,
        expired: false,
        collections: &listed.collections,
        alias: listed.aliases.get(name.as_str()).map(String::as_str),
        records: &records,
        settled: false,
        audit: None,
        deleted: &deleted,
    };
    match advance(name, index, &facts) {
        Some(Step::Move(switch)) => {
            warn!(index = %name, "completing the replacement of the plain collection");
            let (effect, index) = (Effect::Move(switch), index.clone());
            let task = Task { name: name.clone(), index, revision: catalog.revision, effect, record: None };
            execute(tools, &task).await.map(drop)
        }
        Some(Step::Save(next)) => {
            let changes = Changes {
                expected: catalog.revision,
                next: facts.next_revision(),
                indexes: [(name.clone(), Some(next))].into(),
                ..Changes::default()
            };
            save(tools, catalog, &changes).await.map(drop)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::targets::samples::declaration;

    #[test]
    fn points_of_the_short_form_conform_to_the_settings_of_their_snapshot() {
        let first = declaration("documents");
        assert_eq!(conforming(None, &first, false), Some(first.clone()), "the first start after an upgrade");
        assert_eq!(conforming(Some(&first), &first, true), None);

        let mut changed = first.clone();
        changed.text.fields = vec!["title".to_owned()];
        changed.rules.keep = Duration::from_secs(60);
        let conforms = conforming(Some(&first), &changed, false).unwrap();
        assert_eq!((conforms.text, conforms.rules), (first.text.clone(), changed.rules.clone()));
        assert_eq!(conforming(Some(&first), &changed, true), Some(changed.clone()), "an initial snapshot");

        let other = declaration("tickets");
        assert_eq!(conforming(Some(&first), &other, false), Some(other), "another collection is filled anew");
    }
}
