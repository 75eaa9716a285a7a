//! Plans the processing of a batch of stage 1, without I/O.

use serde_json::{Map, Value};
use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::error::PortError;
use tidewheel_core::identity::DocumentId;
use tidewheel_core::payload::plain_document;
use tidewheel_core::ports::{DeadLetter, Delivery, EntryId};

use super::blank::is_blank;
use super::options::Blank;
use super::render::Renderer;
use super::split::{Chunks, Splitter};
use super::template::Template;
use crate::newest::{Kept, newest};
use crate::parking::{OnDeadLetter, ParkingPlan, deletion_at, park};

/// One document to embed.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// The newest change of the document in the batch.
    pub change: Change,
    /// Its chunks, at least one.
    pub chunks: Vec<String>,
    /// The text in front of every chunk in the input of the embedder; the chunks do not contain it.
    pub prefix: String,
    /// Maximum number of tokens per chunk used for the split.
    pub limit: usize,
    /// Its entry, followed by the entries of older changes of the same document, which it supersedes.
    pub entries: Vec<EntryId>,
}

/// A change that is passed on without a vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Passed {
    /// The delete, or the change of a whole collection.
    pub change: Change,
    /// Its entry and those that it supersedes.
    pub entries: Vec<EntryId>,
}

/// The plan for a batch. Every entry of the batch is in exactly one place.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Documents to embed, in order of arrival.
    pub jobs: Vec<Job>,
    /// Changes to pass on.
    pub passed: Vec<Passed>,
    /// Entries to park.
    pub letters: Vec<DeadLetter>,
    /// Entries of older changes of documents whose newest change is parked.
    pub superfluous: Vec<EntryId>,
}

/// Splits documents into chunks.
pub(super) struct Planner {
    /// Renders documents to texts.
    pub(super) renderer: Renderer,
    /// Renders the prefix of a document's chunks.
    pub(super) prefix: Option<Template>,
    /// Splits texts into chunks.
    pub(super) splitter: Splitter,
    /// The handling of documents without text.
    pub(super) blank: Blank,
    /// Effect of a parked change on the indexed version.
    pub(super) on_dead_letter: OnDeadLetter,
}

impl Plan {
    /// Adds a parked change.
    pub(super) fn park(&mut self, change: &Change, parked: ParkingPlan) {
        let ParkingPlan { letter, deletion, older } = parked;
        self.letters.push(letter);
        match deletion {
            Some(version) => self.passed.push(Passed { change: deletion_at(version, change), entries: older }),
            None => self.superfluous.extend(older),
        }
    }
}

impl Planner {
    /// Reduces the batch to the newest change of each document, renders and chunks the documents.
    pub(super) fn plan(&self, deliveries: Vec<Delivery<Change>>) -> Plan {
        let mut plan = Plan::default();
        for Kept { record: change, mut entries, deletion } in newest(deliveries, &mut plan.letters) {
            if let Some(version) = deletion.filter(|_| change.operation.has_document()) {
                // Applied regardless of what happens to the newest change, here or later.
                let older = entries.split_off(1);
                plan.passed.push(Passed { change: deletion_at(version, &change), entries: older });
            }
            match change.document.as_ref().map(|document| self.chunks(change.document_id(), document)) {
                None => plan.passed.push(Passed { change, entries }),
                Some(Ok((_, chunks)))
                    if self.blank == Blank::Skip && chunks.texts.iter().all(|text| is_blank(text)) =>
                {
                    plan.passed.push(Passed { change: deletion_at(change.version, &change), entries });
                }
                Some(Ok((prefix, Chunks { texts: chunks, limit }))) => {
                    plan.jobs.push(Job { change, chunks, prefix, limit, entries });
                }
                Some(Err(error)) => {
                    plan.park(&change, park(self.on_dead_letter, change.version, entries, None, &error));
                }
            }
        }
        plan
    }

    /// Approximate number of bytes to process; `usize::MAX` if a template may compute for long.
    pub(super) fn cost(&self, deliveries: &[Delivery<Change>]) -> usize {
        if self.renderer.computes() || self.prefix.is_some() {
            return usize::MAX;
        }
        let documents = deliveries.iter().filter_map(|delivery| delivery.record.as_ref().ok()?.document.as_ref());
        documents.map(String::len).sum()
    }

    fn text(&self, document: &str) -> Result<String, PortError> {
        self.renderer.render(&parsed(document)?)
    }

    /// Returns the prefix of a document's chunks, and its chunks. A document without text has no prefix: it is not embedded.
    fn chunks(&self, id: DocumentId, document: &str) -> Result<(String, Chunks), PortError> {
        let document = parsed(document)?;
        let text = self.renderer.render(&document)?;
        if is_blank(&text) {
            return Ok((String::new(), Chunks { texts: vec![String::new()], limit: 0 }));
        }
        let prefix = self.prefix.as_ref().map(|prefix| prefix.render(&document)).transpose()?;
        let prefix = prefix.filter(|prefix| !is_blank(prefix)).unwrap_or_default();
        let chunks = self.splitter.split(id, text, &prefix)?;
        Ok((prefix, chunks))
    }

    /// Splits the documents of these jobs more finely, because the embedder rejected a chunk of each as too long. A job
    /// that cannot be split again is returned with the reason.
    pub(super) fn finer(&self, rejected: Vec<(Job, PortError)>) -> (Vec<Job>, Vec<(Job, PortError)>) {
        let (mut jobs, mut unsplittable) = (Vec::new(), Vec::new());
        for (mut job, reason) in rejected {
            let document = job.change.document.as_deref().unwrap_or_default();
            let id = job.change.document_id();
            let finer = self.text(document).map(|text| self.splitter.split_finer(id, &text, &job.prefix, job.limit));
            match finer {
                Ok(Some(Ok(Chunks { texts, limit }))) => {
                    (job.chunks, job.limit) = (texts, limit);
                    jobs.push(job);
                }
                Ok(None) => unsplittable.push((job, reason)),
                Ok(Some(Err(error))) | Err(error) => unsplittable.push((job, error)),
            }
        }
        (jobs, unsplittable)
    }
}

fn parsed(document: &str) -> Result<Map<String, Value>, PortError> {
    plain_document(document).map_err(|error| PortError::poison(error.to_string()))
}

/// A record for stage 2, with the entries of stage 1 that it settles.
pub type Record = (Embedded, Vec<EntryId>);

/// Records to hand over in one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Handful {
    /// The records for stage 2.
    pub records: Vec<Embedded>,
    /// The entries of stage 1 that each of them settles.
    pub entries: Vec<Vec<EntryId>>,
}

/// Approximate maximum of bytes per step: a Lua script blocks Redis while it runs, and its arguments are held in memory
/// twice.
const STEP_BYTES: usize = 4 << 20;

/// Splits records into steps of bounded size; a record and its entries stay together.
pub fn handfuls(records: Vec<Record>) -> Vec<Handful> {
    let mut handfuls: Vec<Handful> = Vec::new();
    let mut bytes = usize::MAX;
    for (record, entries) in records {
        let size = record.bytes();
        if bytes.saturating_add(size) > STEP_BYTES {
            handfuls.push(Handful::default());
            bytes = 0;
        }
        bytes += size;
        let handful = handfuls.last_mut().expect("a step was just pushed");
        handful.records.push(record);
        handful.entries.push(entries);
    }
    handfuls
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::json;
    use tidewheel_core::change::{Operation, Route};
    use tidewheel_core::chunking::ChunkLimits;
    use tidewheel_core::identity::Namespace;
    use tidewheel_core::ports::RecordError;
    use tidewheel_core::tokens::Words;
    use tidewheel_core::version::{ClusterTime, Version};

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
            route: Route::Plain,
        }
    }

    fn plan_of(deliveries: Vec<Delivery<Change>>) -> Plan {
        plan_with(deliveries, Blank::Index, OnDeadLetter::Keep)
    }

    fn plan_with(deliveries: Vec<Delivery<Change>>, blank: Blank, on_dead_letter: OnDeadLetter) -> Plan {
        planner(None, blank, on_dead_letter).plan(deliveries)
    }

    fn planner(prefix: Option<&str>, blank: Blank, on_dead_letter: OnDeadLetter) -> Planner {
        let renderer = Renderer::new(&TextOptions { fields: vec!["text".into()], ..TextOptions::default() }).unwrap();
        let prefix = prefix.map(|template| Template::new("chunk.prefix", template).unwrap());
        let splitter = Splitter::new(Arc::new(Words), ChunkLimits::new(256, 32), 1_000);
        Planner { renderer, prefix, splitter, blank, on_dead_letter }
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
        fn newest_change_of_each_document_wins_in_any_order_and_every_entry_is_settled_once(
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
                // Plus the newest of the deletions that it supersedes.
                prop_assert_eq!(kept.iter().max(), newest.as_ref());
                let deletions = changes.iter().filter(|(operation, k, _)| *k == key && *operation == Operation::Delete);
                let deletion = deletions.map(|(_, _, time)| *time).max().filter(|time| Some(*time) != newest);
                prop_assert!(kept.iter().all(|time| Some(*time) == newest || Some(*time) == deletion), "{:?}", kept);
                prop_assert!(kept.len() <= 2);
            }
            let wide = changes.iter().filter(|(operation, ..)| operation.is_of_collection()).count();
            let passed = plan.passed.iter().filter(|passed| passed.change.operation.is_of_collection()).count();
            prop_assert_eq!(passed, wide);
        }
    }

    #[test]
    fn unreadable_entries_are_parked_and_their_neighbours_proceed() {
        let mut batch = deliveries(&[(Operation::Insert, 1, 1), (Operation::Insert, 2, 1)]);
        batch.push(Delivery { id: EntryId("9-0".into()), record: Err(RecordError::Missing("key")) });
        if let Ok(change) = &mut batch[1].record {
            change.document = Some("not json".into());
        }
        let plan = plan_of(batch);
        assert_eq!(plan.jobs.len(), 1);
        let parked: Vec<_> = plan.letters.iter().map(|letter| letter.id.0.as_str()).collect();
        assert_eq!(parked, ["9-0", "1-0"]);
        assert!(plan.letters[1].reason.contains("invalid document"), "{}", plan.letters[1].reason);
    }

    #[test]
    fn long_text_becomes_several_chunks_and_empty_text_one_empty_chunk() {
        let mut batch = deliveries(&[(Operation::Insert, 1, 1), (Operation::Insert, 2, 1)]);
        for (delivery, text) in batch.iter_mut().zip(["word ".repeat(600), String::new()]) {
            if let Ok(change) = &mut delivery.record {
                change.document = Some(json!({ "text": text }).to_string());
            }
        }
        let plan = plan_of(batch);
        assert_eq!(plan.jobs[0].chunks.len(), 3);
        assert_eq!(plan.jobs[1].chunks, [""]);
    }

    #[test]
    fn prefix_is_rendered_once_per_document_and_shortens_its_chunks() {
        let planner = planner(Some("{{ subject }} by {{ by }}"), Blank::Index, OnDeadLetter::Keep);
        let plan = |document: Value| {
            let mut batch = deliveries(&[(Operation::Insert, 1, 1)]);
            batch[0].record.as_mut().unwrap().document = Some(document.to_string());
            planner.plan(batch)
        };
        let (text, subject) = ("word ".repeat(600), "late ".repeat(150));
        let plain = plan(json!({ "text": text }));
        assert_eq!((plain.jobs[0].prefix.as_str(), plain.jobs[0].chunks.len()), ("", 3));
        let job = plan(json!({ "text": text, "subject": subject, "by": "Ada" })).jobs.remove(0);
        assert_eq!(job.prefix, format!("{subject} by Ada"));
        assert!(job.chunks.len() > 3 && job.chunks.iter().all(|chunk| chunk.starts_with("word")));
        let (finer, _) = planner.finer(vec![(job.clone(), PortError::poison("too long"))]);
        assert_eq!(finer[0].prefix, job.prefix);
        assert!(finer[0].chunks.len() > job.chunks.len());
        let (none, rest) = planner.finer(vec![(finer[0].clone(), PortError::poison("too long"))]);
        assert_eq!((none.len(), rest.len()), (0, 1), "the prefix leaves no room for smaller chunks");

        let blank = plan(json!({ "text": " ", "subject": 7 })).jobs.remove(0);
        assert_eq!((blank.prefix.as_str(), blank.chunks), ("", vec![String::new()]));
        let letters = plan(json!({ "text": "short", "subject": "late ".repeat(250) })).letters;
        assert!(letters[0].reason.contains("shorten chunk.prefix"), "{}", letters[0].reason);
    }

    #[test]
    fn document_without_visible_text_is_indexed_as_one_empty_chunk_or_skipped() {
        for blank in ["", "  \n\t", "\u{200b}\u{feff}", "\u{0}\u{7}", "\u{a0}\u{3000}"] {
            let batch = || {
                let mut batch = deliveries(&[(Operation::Insert, 1, 1), (Operation::Update, 2, 1)]);
                for delivery in &mut batch {
                    let change = delivery.record.as_mut().unwrap();
                    change.document = Some(json!({ "text": blank }).to_string());
                }
                batch
            };
            let indexed = plan_with(batch(), Blank::Index, OnDeadLetter::Keep);
            assert!(indexed.jobs.iter().all(|job| job.chunks == [""]), "{blank:?}");
            let skipped = plan_with(batch(), Blank::Skip, OnDeadLetter::Keep);
            assert!(skipped.jobs.is_empty() && skipped.letters.is_empty(), "{blank:?}");
            let operations: Vec<_> = skipped.passed.iter().map(|passed| passed.change.operation).collect();
            assert_eq!(operations, [Operation::Delete; 2], "an older version is deleted");
        }
        assert!(!is_blank("\u{200b}a") && !is_blank("."));
    }

    #[test]
    fn older_deletion_is_applied_when_the_newest_change_cannot_be_rendered() {
        let batch = |changes: &[(Operation, u8, u32)]| {
            let mut batch = deliveries(changes);
            let newest = batch.iter_mut().max_by_key(|delivery| delivery.record.as_ref().unwrap().version).unwrap();
            newest.record.as_mut().unwrap().document = Some("not json".into());
            batch
        };
        use Operation::{Delete, Insert, Update};
        let deleted = [(Update, 1, 1), (Delete, 1, 2), (Insert, 1, 3)];
        let readable = plan_with(deliveries(&deleted), Blank::Index, OnDeadLetter::Keep);
        assert_eq!((readable.jobs[0].entries.len(), readable.passed[0].change.operation), (1, Delete));
        let plan = plan_with(batch(&deleted), Blank::Index, OnDeadLetter::Keep);
        assert_eq!(plan.letters.iter().map(|letter| letter.id.0.as_str()).collect::<Vec<_>>(), ["2-0"]);
        assert_eq!(plan.passed.len(), 1);
        assert_eq!((plan.passed[0].change.operation, plan.passed[0].change.version.time.seconds), (Delete, 2));
        assert_eq!(plan.passed[0].entries.len(), 2);

        let updated = [(Update, 1, 1), (Update, 1, 2), (Update, 1, 3)];
        let plan = plan_with(batch(&updated), Blank::Index, OnDeadLetter::Keep);
        assert_eq!((plan.letters.len(), plan.passed.len(), plan.superfluous.len()), (1, 0, 2));
        for changes in [deleted, updated] {
            let plan = plan_with(batch(&changes), Blank::Index, OnDeadLetter::Remove);
            let removal = &plan.passed.last().unwrap().change;
            assert_eq!((removal.operation, removal.version.time.seconds), (Delete, 3));
        }
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
