//! Restore: the catalog that the records of the collections lead to, after its store was wiped.
//!
//! Everything is due, so that a comparing snapshot finds what has changed meanwhile. What is in place is not embedded
//! again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::collection::TargetRecord;
use super::generation::{Catalog, Generation, Index, Needs, State};
use super::name::IndexName;

/// The catalog of these records, by collection. `aliases` name collections; `now_ms` is the clock of the catalog's store,
/// in milliseconds since the Unix epoch. Without a record, it is the catalog of a new installation.
///
/// The serving generation of an index is the one that its alias names, or else the highest one that was recorded as
/// serving, or else as kept. Others that served are kept. Of the rest after it, the highest one is filled. All others end.
/// If the one that searches read was recorded to end, the index was dropped: all of them end.
pub fn restore(records: &BTreeMap<String, TargetRecord>, aliases: &BTreeMap<String, String>, now_ms: u64) -> Catalog {
    let mut indexes: BTreeMap<IndexName, BTreeMap<u32, &TargetRecord>> = BTreeMap::new();
    for record in
        records.iter().filter_map(|(collection, record)| (*collection == collection_of(record)).then_some(record))
    {
        indexes.entry(record.index.clone()).or_default().insert(record.generation, record);
    }
    let Some(newest) = records.values().map(|record| record.revision).max() else { return Catalog::default() };
    let revision = now_ms.max(newest + 1);
    let restored = |(name, records): (IndexName, BTreeMap<u32, &TargetRecord>)| {
        let index = restore_index(&records, aliases.get(name.as_str()), revision, now_ms);
        (name, index)
    };
    Catalog { revision, indexes: indexes.into_iter().map(restored).collect(), ..Catalog::default() }
}

fn restore_index(records: &BTreeMap<u32, &TargetRecord>, alias: Option<&String>, revision: u64, now_ms: u64) -> Index {
    let named = records.values().find(|record| alias == Some(&collection_of(record)));
    let is_read = |record: &TargetRecord| record.plain || alias == Some(&collection_of(record));
    if records.values().any(|record| record.state == State::Retiring && is_read(record)) {
        let ended = |(number, record): (&u32, &&TargetRecord)| {
            (*number, restore_generation(record, State::Retiring, revision, now_ms))
        };
        let plain = records.values().any(|record| record.plain);
        return Index { plain, generations: records.iter().map(ended).collect(), ..Index::default() };
    }
    let recorded = |state: State| records.values().rev().find(|record| record.state == state);
    let serving = named.or_else(|| recorded(State::Serving)).or_else(|| recorded(State::Kept));
    let serving = serving.map(|record| record.generation);
    let is_kept = |record: &TargetRecord| {
        let was_served = matches!(record.state, State::Serving | State::Kept);
        serving.is_some_and(|serving| record.generation != serving && was_served)
    };
    let has_ended =
        |record: &TargetRecord| record.state == State::Retiring || serving.is_some_and(|s| record.generation < s);
    let coming = records
        .values()
        .rev()
        .find(|record| Some(record.generation) != serving && !is_kept(record) && !has_ended(record));
    let coming = coming.map(|record| record.generation);
    let state_of = |record: &TargetRecord| match record.generation {
        number if Some(number) == serving => State::Serving,
        // Without a serving generation, this is the first one.
        number if Some(number) == coming && serving.is_none() => State::Creating,
        number if Some(number) == coming => State::Filling,
        _ if is_kept(record) => State::Kept,
        _ => State::Retiring,
    };
    let generations = records
        .iter()
        .map(|(number, record)| (*number, restore_generation(record, state_of(record), revision, now_ms)))
        .collect();
    let plain = records.values().any(|record| record.plain && Some(record.generation) == serving);
    Index { plain, serving, generations, ..Index::default() }
}

fn restore_generation(record: &TargetRecord, state: State, revision: u64, now_ms: u64) -> Generation {
    let declaration = Arc::new(record.declaration.clone());
    let keep_ms = u64::try_from(declaration.rules.keep.as_millis()).unwrap_or(u64::MAX);
    let was_whole = matches!(state, State::Serving | State::Kept);
    Generation {
        collection: collection_of(record),
        state,
        embedder: record.embedder.clone(),
        needs: Needs::COMPARISON,
        filled: if was_whole { revision - 1 } else { 0 },
        until_ms: (state == State::Kept).then(|| now_ms.saturating_add(keep_ms)),
        ..Generation::new(&record.target(), declaration, revision)
    }
}

/// The collection that a record belongs to. A copy of it under another name does not count.
fn collection_of(record: &TargetRecord) -> String {
    if record.plain { record.index.as_str().to_owned() } else { record.target().collection() }
}

#[cfg(test)]
mod tests;
