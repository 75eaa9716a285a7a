//! Decides what to do with a batch of stage 1, without doing it.

use tidewheel_core::change::Change;
use tidewheel_core::chunking::{ChunkLimits, chunk};
use tidewheel_core::embedded::Embedded;
use tidewheel_core::error::PortError;
use tidewheel_core::payload::plain_document;
use tidewheel_core::ports::{DeadLetter, Delivery, EntryId};
use tidewheel_core::tokens::Tokens;

use super::render::Renderer;
use crate::newest::{letter, newest};

/// One document to embed.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// The newest change of the document in the batch.
    pub change: Change,
    /// Its chunks, at least one.
    pub chunks: Vec<String>,
    /// Its entry, and the entries of older changes of the same document that it makes superfluous.
    pub entries: Vec<EntryId>,
}

/// A change that goes on without a vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Passed {
    /// The delete, or the change of a whole collection.
    pub change: Change,
    /// Its entry and those that it makes superfluous.
    pub entries: Vec<EntryId>,
}

/// What to do with a batch. Every entry of the batch is in exactly one place.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Documents to embed, in the order in which they arrived.
    pub jobs: Vec<Job>,
    /// Changes to pass on.
    pub passed: Vec<Passed>,
    /// Entries that can never be embedded.
    pub letters: Vec<DeadLetter>,
}

/// Reduces the batch to the newest change of each document, renders and chunks the documents.
pub fn plan(deliveries: Vec<Delivery<Change>>, renderer: &Renderer, tokens: &dyn Tokens, limits: ChunkLimits) -> Plan {
    let mut plan = Plan::default();
    for (change, entries) in newest(deliveries, &mut plan.letters) {
        match chunks(&change, renderer, tokens, limits) {
            None => plan.passed.push(Passed { change, entries }),
            Some(Ok(chunks)) => plan.jobs.push(Job { change, chunks, entries }),
            Some(Err(error)) => plan.letters.extend(entries.into_iter().map(|id| letter(id, &error))),
        }
    }
    plan
}

/// The chunks of the change's document; `None` if it has none by its nature.
fn chunks(
    change: &Change,
    renderer: &Renderer,
    tokens: &dyn Tokens,
    limits: ChunkLimits,
) -> Option<Result<Vec<String>, PortError>> {
    let document = change.document.as_ref()?;
    let text = plain_document(document)
        .map_err(|error| PortError::poison(error.to_string()))
        .and_then(|document| renderer.render(&document));
    Some(text.map(|text| {
        if limits.surely_fit(text.len()) {
            return vec![text];
        }
        let ranges = chunk(&text, &tokens.spans(&text), limits);
        ranges.into_iter().map(|range| text[range].to_owned()).collect()
    }))
}

/// Records to hand over in one step, with the entries that they settle.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Handful {
    /// The records for stage 2.
    pub records: Vec<Embedded>,
    /// The entries of stage 1 that they settle.
    pub entries: Vec<EntryId>,
}

/// Most bytes in one step, about: a Lua script blocks Redis while it runs, and its arguments are held twice.
const STEP_BYTES: usize = 4 << 20;

/// Divides records into steps of bounded size; a record and its entries stay together.
pub fn handfuls(records: Vec<(Embedded, Vec<EntryId>)>) -> Vec<Handful> {
    let mut handfuls: Vec<Handful> = Vec::new();
    let mut bytes = usize::MAX;
    for (record, entries) in records {
        let size = size(&record);
        if bytes.saturating_add(size) > STEP_BYTES {
            handfuls.push(Handful::default());
            bytes = 0;
        }
        bytes += size;
        let handful = handfuls.last_mut().expect("one was just begun");
        handful.records.push(record);
        handful.entries.extend(entries);
    }
    handfuls
}

fn size(record: &Embedded) -> usize {
    record.change.document.as_ref().map_or(0, String::len)
        + record.chunks.iter().map(String::len).sum::<usize>()
        + size_of_val(record.vectors.values())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidewheel_core::change::Operation;
    use tidewheel_core::identity::Namespace;
    use tidewheel_core::tokens::Words;
    use tidewheel_core::version::{ClusterTime, Version};
    use tidewheel_core::wire::WireError;

    use super::*;
    use crate::processor::TextOptions;

    fn change(operation: Operation, key: u8, time: u32) -> Change {
        Change {
            operation,
            namespace: Namespace::new("shop", "tickets"),
            key: if operation.is_of_collection() { String::new() } else { key.to_string() },
            id: key.to_string(),
            version: Version { epoch: 0, time: ClusterTime { seconds: time, increment: 1 }, ordinal: 1, replay: 0 },
            committed_at: 0,
            document: operation.has_document().then(|| format!(r#"{{"_id":{key},"text":"version {time}"}}"#)),
        }
    }

    fn plan_of(deliveries: Vec<Delivery<Change>>) -> Plan {
        plan(deliveries, &Renderer::new(&TextOptions::default()).unwrap(), &Words, ChunkLimits::new(256, 32))
    }

    fn deliveries(changes: &[(Operation, u8, u32)]) -> Vec<Delivery<Change>> {
        let delivery = |(i, (operation, key, time)): (usize, &(Operation, u8, u32))| Delivery {
            id: EntryId(format!("{i}-0")),
            record: Ok(change(*operation, *key, *time)),
        };
        changes.iter().enumerate().map(delivery).collect()
    }

    proptest! {
        #[test]
        fn the_newest_change_of_each_document_wins_in_any_order_and_every_entry_is_settled_once(
            changes in prop::collection::vec((prop::sample::select(&Operation::ALL[..]), 0u8..4, 0u32..6), 0..30),
        ) {
            let plan = plan_of(deliveries(&changes));
            let mut settled: Vec<&EntryId> = plan.jobs.iter().flat_map(|job| &job.entries)
                .chain(plan.passed.iter().flat_map(|passed| &passed.entries))
                .collect();
            settled.sort();
            let mut all: Vec<EntryId> = (0..changes.len()).map(|i| EntryId(format!("{i}-0"))).collect();
            all.sort();
            prop_assert_eq!(settled, all.iter().collect::<Vec<_>>());
            for key in 0..4 {
                let newest = changes.iter().filter(|(operation, k, _)| *k == key && !operation.is_of_collection())
                    .map(|(_, _, time)| *time).max();
                let kept = plan.jobs.iter().map(|job| &job.change)
                    .chain(plan.passed.iter().map(|passed| &passed.change))
                    .filter(|change| change.key == key.to_string())
                    .map(|change| change.version.time.seconds)
                    .collect::<Vec<_>>();
                prop_assert_eq!(kept, newest.into_iter().collect::<Vec<_>>());
            }
            let wide = changes.iter().filter(|(operation, ..)| operation.is_of_collection()).count();
            let passed = plan.passed.iter().filter(|passed| passed.change.operation.is_of_collection()).count();
            prop_assert_eq!(passed, wide);
        }
    }

    #[test]
    fn what_cannot_be_read_is_parked_and_its_neighbours_go_on() {
        let mut batch = deliveries(&[(Operation::Insert, 1, 1), (Operation::Insert, 2, 1)]);
        batch.push(Delivery { id: EntryId("9-0".into()), record: Err(WireError::Missing("key")) });
        if let Ok(change) = &mut batch[1].record {
            change.document = Some("not json".into());
        }
        let plan = plan_of(batch);
        assert_eq!(plan.jobs.len(), 1);
        let parked: Vec<_> = plan.letters.iter().map(|letter| letter.id.0.as_str()).collect();
        assert_eq!(parked, ["9-0", "1-0"]);
        assert!(plan.letters[1].reason.contains("not JSON"), "{}", plan.letters[1].reason);
    }

    #[test]
    fn long_texts_become_several_chunks_and_empty_ones_a_single_empty_one() {
        let mut batch = deliveries(&[(Operation::Insert, 1, 1), (Operation::Insert, 2, 1)]);
        for (delivery, text) in batch.iter_mut().zip(["word ".repeat(600), String::new()]) {
            if let Ok(change) = &mut delivery.record {
                change.document = Some(serde_json::json!({ "text": text }).to_string());
            }
        }
        let plan = plan_of(batch);
        assert_eq!(plan.jobs[0].chunks.len(), 3);
        assert_eq!(plan.jobs[1].chunks, [""]);
    }

    #[test]
    fn steps_are_bounded_and_keep_records_with_their_entries() {
        let record = |bytes: usize| {
            let mut change = change(Operation::Insert, 1, 1);
            change.document = Some("x".repeat(bytes));
            Embedded::without_vectors(change)
        };
        let records = (0..4).map(|i| (record(STEP_BYTES / 2), vec![EntryId(format!("{i}-0"))])).collect();
        let steps = handfuls(records);
        assert_eq!(
            steps.iter().map(|step| (step.records.len(), step.entries.len())).collect::<Vec<_>>(),
            [(2, 2), (2, 2)]
        );
        assert_eq!(handfuls(vec![(record(STEP_BYTES * 2), vec![EntryId("1-0".into())])]).len(), 1);
        assert!(handfuls(vec![]).is_empty());
    }
}
