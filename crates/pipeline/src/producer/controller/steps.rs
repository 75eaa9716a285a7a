//! Executes steps outside the catalog: collections and aliases.
//!
//! Each can be repeated, and each reads what it must not be wrong about again, right before its effect.

use std::time::Duration;

use tidewheel_core::catalog::{
    Compared, Declaration, Generation, Index, IndexName, Step, Switch, TargetId, TargetRecord,
};
use tidewheel_core::error::PortError;
use tidewheel_core::ports::PortResult;
use tokio::time::sleep;
use tracing::info;

use super::compare::compare;
use super::tools::Tools;

/// The pause between two pages of stored state that is deleted: the store serves the pipeline meanwhile.
const PAGE_PAUSE: Duration = Duration::from_millis(10);

/// Time after which a deleted collection is looked for again: longer than a request that an upserter sent before may be
/// in flight.
const LATE: Duration = Duration::from_secs(60);

/// The effect of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Creates the collection of this generation.
    Create(u32),
    /// Points the alias to the collection of this generation; `None` deletes it.
    Alias(Option<u32>),
    /// Compares this generation with the source.
    Compare(u32),
    /// Moves the alias.
    Move(Switch),
    /// Makes the collection of this generation conform to its declaration.
    Alter(u32),
    /// Deletes the collection of this generation, and everything stored about it.
    Delete(u32),
}

impl Effect {
    /// The effect of a step; `None` of one that only changes the catalog or the flow of changes.
    pub(super) fn of(step: &Step) -> Option<Self> {
        match *step {
            Step::Create(number) => Some(Self::Create(number)),
            Step::Alias { to } => Some(Self::Alias(to)),
            Step::Compare(number) => Some(Self::Compare(number)),
            Step::Move(switch) => Some(Self::Move(switch)),
            Step::Alter(number) => Some(Self::Alter(number)),
            Step::Delete(number) => Some(Self::Delete(number)),
            Step::Save(_) | Step::Refill { .. } | Step::Remove | Step::Quiesce(_) => None,
        }
    }

    /// The generation that it is about, if there is one.
    pub(super) fn generation(self) -> Option<u32> {
        match self {
            Self::Create(number) | Self::Compare(number) | Self::Alter(number) | Self::Delete(number) => Some(number),
            Self::Alias(to) => to,
            Self::Move(switch) => Some(switch.to),
        }
    }

    /// Whether other steps of the index must not wait for it.
    pub(super) fn takes_long(self) -> bool {
        matches!(self, Self::Compare(_) | Self::Delete(_))
    }

    /// What it does; completes "failed to …".
    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Create(_) => "create the collection",
            Self::Alias(Some(_)) => "set the alias",
            Self::Alias(None) => "delete the alias",
            Self::Compare(_) => "compare the index with the source",
            Self::Move(_) => "move the alias",
            Self::Alter(_) => "alter the collection",
            Self::Delete(_) => "delete the collection",
        }
    }
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// It is done, or was not possible any more: the next facts show which.
    Done,
    /// The comparison has this result.
    Compared(Compared),
    /// The comparison has no result, because changes were in flight for too long.
    Inconclusive,
    /// Nothing is left of the generation but its entry in the catalog.
    Deleted(u32),
}

/// A step of an index, and what it needs of the catalog at one revision.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) name: IndexName,
    pub(super) index: Index,
    pub(super) revision: u64,
    pub(super) effect: Effect,
    /// The record of the generation's collection, if it has one.
    pub(super) record: Option<TargetRecord>,
}

impl Task {
    fn generation(&self, number: u32) -> PortResult<&Generation> {
        self.index.generations.get(&number).ok_or_else(|| gone(&self.target(number)))
    }

    fn target(&self, number: u32) -> TargetId {
        self.name.target(number)
    }

    /// The record that the collection of a generation has to have.
    fn record_of(&self, number: u32) -> PortResult<TargetRecord> {
        self.index.record(&self.name, number, self.revision).ok_or_else(|| gone(&self.target(number)))
    }
}

fn gone(target: &TargetId) -> PortError {
    PortError::transient(format!("generation {target} is not in the catalog"))
}

/// Executes a step.
pub(super) async fn execute(tools: &Tools, task: &Task) -> PortResult<Outcome> {
    match task.effect {
        Effect::Create(number) => create(tools, task, number).await?,
        Effect::Alias(to) => set_alias(tools, task, to).await?,
        Effect::Compare(number) => return compare(tools, &task.target(number)).await,
        Effect::Move(switch) => move_alias(tools, task, switch).await?,
        Effect::Alter(number) => alter(tools, task, number).await?,
        Effect::Delete(number) => return delete(tools, task, number).await,
    }
    Ok(Outcome::Done)
}

/// Creates the collection with its payload indexes and its record. The collections mark it as that of the installation,
/// and refuse one of another client.
async fn create(tools: &Tools, task: &Task, number: u32) -> PortResult<()> {
    let generation = task.generation(number)?;
    let Some(identity) = &generation.embedder else { return Ok(()) };
    let collection = tools.open(generation);
    let record = task.record_of(number)?;
    if let Some(other) = collection.record().await?.filter(|found| found.target() != record.target()) {
        let found = other.target();
        return Err(PortError::fatal(format!("collection {:?} holds {found}", generation.collection))
            .with_hint("delete it if its points are not needed"));
    }
    let Declaration { collection: spec, vectors, payload_indexes, .. } = &*generation.declaration;
    if collection.create(spec, vectors, identity.dimension).await? {
        info!(index = %task.name, collection = generation.collection, "created the collection");
    }
    collection.field_indexes(payload_indexes).await?;
    collection.set_record(&record).await
}

async fn set_alias(tools: &Tools, task: &Task, to: Option<u32>) -> PortResult<()> {
    let to = to.map(|number| task.generation(number)).transpose()?.map(|generation| generation.collection.as_str());
    tools.catalog.collections.point(task.name.as_str(), to).await?;
    info!(index = %task.name, to, "set the alias");
    Ok(())
}

/// Moves the alias, if the generation is still whole. A plain collection is deleted immediately before: from then on the
/// move has to be completed whatever happens, because searches fail.
async fn move_alias(tools: &Tools, task: &Task, switch: Switch) -> PortResult<()> {
    let collections = &tools.catalog.collections;
    let (alias, to) = (task.name.as_str(), task.generation(switch.to)?);
    let replaced = match switch.from.filter(|_| switch.plain) {
        Some(from) => Some(task.generation(from)?),
        None => None,
    };
    let listed = collections.list().await?;
    let exists = |generation: &Generation| listed.collections.contains(&generation.collection);
    if !exists(to) {
        return Ok(());
    }
    let is_between = replaced.is_some_and(|from| !exists(from)) && !listed.aliases.contains_key(alias);
    if !is_between {
        let positions = tools.journal.positions().await?;
        let target = task.target(switch.to);
        let has_lost = positions.lost.iter().any(|(lost, _)| *lost == target);
        if positions.damage.is_some() || has_lost || positions.catalog != task.revision {
            return Ok(());
        }
        if let Some(from) = replaced.filter(|from| exists(from)) {
            info!(index = %task.name, "replacing the plain collection by an alias: searches fail for a moment");
            tools.open(from).drop_collection().await?;
        }
    }
    collections.point(alias, Some(&to.collection)).await?;
    info!(index = %task.name, to = to.collection, "moved the alias");
    Ok(())
}

/// What has to change in a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Alterations {
    settings: bool,
    fields: bool,
}

/// Compares the record of a collection with its declaration. One without a record was created otherwise, or lost the rest
/// of its creation to a crash.
fn alterations(record: Option<&TargetRecord>, declaration: &Declaration) -> Alterations {
    let differs = |part: fn(&TargetRecord, &Declaration) -> bool| record.is_none_or(|record| part(record, declaration));
    Alterations {
        settings: differs(|record, declaration| record.declaration.collection != declaration.collection),
        fields: differs(|record, declaration| record.declaration.payload_indexes != declaration.payload_indexes),
    }
}

/// Makes the collection conform to the declaration. The record is the last: it states what is left of an interrupted
/// change.
async fn alter(tools: &Tools, task: &Task, number: u32) -> PortResult<()> {
    let generation = task.generation(number)?;
    let collection = tools.open(generation);
    let Alterations { settings, fields } = alterations(task.record.as_ref(), &generation.declaration);
    if settings {
        collection.alter(&generation.declaration.collection).await?;
    }
    if fields {
        collection.field_indexes(&generation.declaration.payload_indexes).await?;
    }
    collection.set_record(&task.record_of(number)?).await
}

/// Deletes the collection and the stored state of a target that nothing is routed to any more; both once again after a
/// while, in case that a delayed write has created them again.
async fn delete(tools: &Tools, task: &Task, number: u32) -> PortResult<Outcome> {
    let (generation, target) = (task.generation(number)?, task.target(number));
    for is_second in [false, true] {
        if is_second {
            sleep(LATE).await;
        }
        let listed = tools.catalog.collections.list().await?;
        if listed.aliases.get(task.name.as_str()) == Some(&generation.collection) {
            return Ok(Outcome::Done);
        }
        if listed.collections.contains(&generation.collection) {
            tools.open(generation).drop_collection().await?;
            info!(index = %task.name, collection = generation.collection, "deleted the collection");
        }
        forget(tools, &target).await?;
    }
    Ok(Outcome::Deleted(number))
}

/// Deletes what is stored about a target outside its collection.
pub(super) async fn forget(tools: &Tools, target: &TargetId) -> PortResult<()> {
    while tools.catalog.store.forget(target).await? {
        sleep(PAGE_PAUSE).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidewheel_core::catalog::{PayloadIndex, PayloadKind, State};

    use super::*;
    use crate::targets::samples::{catalog, declaration};

    #[test]
    fn only_what_differs_from_the_record_is_altered() {
        let tickets = IndexName::of_collection("tickets");
        let index = &catalog(7, &[("tickets", State::Serving, true)]).indexes[&tickets];
        let record = index.record(&tickets, 1, 7).unwrap();
        let of = |change: fn(&mut Declaration)| {
            let mut declaration = declaration("tickets");
            change(&mut declaration);
            let Alterations { settings, fields } = alterations(Some(&record), &declaration);
            (settings, fields)
        };
        assert_eq!(of(|_| {}), (false, false));
        assert_eq!(of(|declaration| declaration.payload.exclude = vec!["secret".to_owned()]), (false, false));
        let disk = |declaration: &mut Declaration| {
            declaration.collection.settings.insert("on_disk_payload".to_owned(), json!(true));
        };
        assert_eq!(of(disk), (true, false));
        let keyword = |declaration: &mut Declaration| {
            declaration.payload_indexes.insert("status".to_owned(), PayloadIndex::new(PayloadKind::Keyword));
        };
        assert_eq!(of(keyword), (false, true));
        assert_eq!(alterations(None, &declaration("tickets")), Alterations { settings: true, fields: true });
    }
}
