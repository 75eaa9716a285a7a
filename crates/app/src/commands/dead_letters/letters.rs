//! Finds dead letters and acts on them; prints nothing.

use std::collections::HashSet;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tidewheel_core::key;
use tidewheel_core::payload::plain;
use tidewheel_core::ports::{DeadLetters, EntryId, Letter, PortResult, Retried};
use tidewheel_core::streams::{STAGE_1, STAGE_2, Stage};

use crate::cli::{LettersFilterArgs, StageName};
use crate::times;

/// Letters read at a time: each may be as large as a document can be.
const PAGE: usize = 50;

/// Which letters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) stage: Option<StageName>,
    /// Ids of letters, or `_id`s of documents as people write them.
    pub(crate) ids: Vec<String>,
    pub(crate) reason: Option<String>,
    pub(crate) older_than: Option<Duration>,
    pub(crate) newer_than: Option<Duration>,
}

impl From<&LettersFilterArgs> for Filter {
    fn from(args: &LettersFilterArgs) -> Self {
        let LettersFilterArgs { stage, ids, reason, older_than, newer_than } = args.clone();
        Self { stage, ids, reason, older_than, newer_than }
    }
}

impl Filter {
    fn stages(&self) -> impl Iterator<Item = StageName> + use<> {
        let wanted = self.stage;
        [StageName::Raw, StageName::Embedded].into_iter().filter(move |stage| wanted.is_none_or(|one| one == *stage))
    }

    /// Whether every letter of a stage is one of them.
    fn is_of_all(&self) -> bool {
        let Self { stage: _, ids, reason, older_than, newer_than } = self;
        ids.is_empty() && reason.is_none() && older_than.is_none() && newer_than.is_none()
    }

    /// Whether a letter is one of them, at `now` in milliseconds since the Unix epoch.
    fn matches(&self, letter: &Letter, now: u64) -> bool {
        let age = Duration::from_millis(now.saturating_sub(letter.parked_at));
        let named = |id: &String| {
            let of_document = |change: &tidewheel_core::change::Change| {
                change.id == *id || change.key == *id || plain_id(&change.id) == *id
            };
            letter.id.0 == *id || letter.record.as_ref().is_ok_and(|record| of_document(&record.change))
        };
        (self.ids.is_empty() || self.ids.iter().any(named))
            && self.reason.as_ref().is_none_or(|reason| letter.reason.contains(reason.as_str()))
            && self.older_than.is_none_or(|than| age > than)
            && self.newer_than.is_none_or(|than| age <= than)
    }
}

/// The stage of this name.
pub(crate) fn stage_of(name: StageName) -> Stage {
    match name {
        StageName::Raw => STAGE_1,
        StageName::Embedded => STAGE_2,
    }
}

/// An `_id` in relaxed extended JSON as a person would write it: an ObjectId its digits, a text without quotes.
pub(crate) fn plain_id(id: &str) -> String {
    match serde_json::from_str(id).map(plain) {
        Ok(Value::String(text)) => text,
        Ok(value) => value.to_string(),
        Err(_) => id.to_owned(),
    }
}

/// A dead letter.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LetterView {
    pub(crate) stage: StageName,
    pub(crate) id: String,
    /// The id that the entry had in its stage.
    pub(crate) entry: String,
    pub(crate) reason: String,
    /// Not counting those that failed for a passing reason.
    pub(crate) attempts: u32,
    /// RFC 3339 in UTC.
    pub(crate) parked_at: String,
    pub(crate) age_ms: u64,
    /// Its document is not in it, or of no use any more: a retry reads it from MongoDB.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) reread: bool,
    #[serde(flatten)]
    pub(crate) record: RecordView,
}

/// What the letter is about.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum RecordView {
    Change {
        operation: String,
        namespace: String,
        /// As a person would write it; empty for a whole collection.
        document_id: String,
        /// Canonical extended JSON of `_id`.
        key: String,
        version: String,
        /// RFC 3339 in UTC.
        committed_at: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        embedding: Option<Box<EmbeddingView>>,
        /// Only where the whole letter was asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        document: Option<Value>,
    },
    Unreadable {
        unreadable: String,
    },
}

/// The vectors of a letter of stage 2.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct EmbeddingView {
    pub(crate) model: String,
    pub(crate) dimension: usize,
    pub(crate) chunks: Vec<String>,
}

impl LetterView {
    fn new(stage: StageName, letter: Letter, now: u64, whole: bool) -> Self {
        let record = match letter.record {
            Err(error) => RecordView::Unreadable { unreadable: error.to_string() },
            Ok(record) => {
                let change = record.change;
                let embedding = (whole && !record.chunks.is_empty()).then(|| {
                    let (dimension, chunks) = (record.vectors.dimension(), record.chunks);
                    Box::new(EmbeddingView { model: record.model, dimension, chunks })
                });
                let text = change.document.filter(|_| whole);
                RecordView::Change {
                    operation: change.operation.to_string(),
                    namespace: change.namespace.to_string(),
                    document_id: plain_id(&change.id),
                    key: change.key,
                    version: change.version.to_string(),
                    committed_at: times::show(change.committed_at),
                    embedding,
                    document: text.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text))),
                }
            }
        };
        Self {
            stage,
            id: letter.id.0,
            entry: letter.entry.0,
            reason: letter.reason,
            attempts: letter.attempts,
            parked_at: times::show(letter.parked_at),
            age_ms: now.saturating_sub(letter.parked_at),
            reread: letter.reread,
            record,
        }
    }

    /// Whether it can be tried again.
    pub(crate) fn is_readable(&self) -> bool {
        match &self.record {
            RecordView::Change { key, .. } => !(self.reread && key::is_clipped(key)),
            RecordView::Unreadable { .. } => false,
        }
    }

    /// Whether it can be put back as it is.
    fn is_whole(&self) -> bool {
        self.is_readable() && !self.reread
    }
}

/// Dead letters that were asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Listing {
    /// Stage by stage, oldest first.
    pub(crate) letters: Vec<LetterView>,
    /// How many match, those beyond the limit included.
    pub(crate) matching: u64,
}

/// The letters that match, up to a limit; with their documents if they are wanted whole.
pub(crate) async fn list(letters: &dyn DeadLetters, filter: &Filter, limit: usize, whole: bool) -> PortResult<Listing> {
    let now = times::now_ms();
    let mut listing = Listing::default();
    for stage in filter.stages() {
        let (mut after, mut seen) = (EntryId::zero(), 0);
        loop {
            // Whether another one matches is known without reading it.
            if listing.letters.len() >= limit && filter.is_of_all() {
                listing.matching += letters.count(stage_of(stage)).await?.saturating_sub(seen);
                break;
            }
            let page = letters.letters(stage_of(stage), &after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.id.clone();
            seen += page.len() as u64;
            for letter in page.into_iter().filter(|letter| filter.matches(letter, now)) {
                listing.matching += 1;
                if listing.letters.len() < limit {
                    listing.letters.push(LetterView::new(stage, letter, now, whole));
                }
            }
        }
    }
    Ok(listing)
}

/// What became of letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Outcome {
    /// Put back, or deleted.
    pub(crate) done: u64,
    /// Not put back, because they cannot be read, or their document cannot be read or appended.
    pub(crate) unreadable: u64,
    /// Somebody else was faster.
    pub(crate) gone: u64,
}

/// Dead letters named in the audit log.
const NAMED: usize = 20;

/// The number of letters, and the names of the first of them, for the audit log.
pub(crate) fn named(chosen: &[LetterView]) -> String {
    let names: Vec<_> =
        chosen.iter().take(NAMED).map(|letter| format!("{} {}", letter.stage.name(), letter.id)).collect();
    let more = if chosen.len() > NAMED { ", …" } else { "" };
    format!("{}: {}{more}", chosen.len(), names.join(", "))
}

impl std::ops::AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.done += other.done;
        self.unreadable += other.unreadable;
        self.gone += other.gone;
    }
}

/// Puts letters back into their stage, but for those that cannot be read, which would come back at once, and for those whose documents
/// have to be read from MongoDB: see [`super::reread`]. Also gives those that are older than a deletion that was forgotten: their
/// documents have to be read as well.
pub(crate) async fn retry(letters: &dyn DeadLetters, chosen: &[LetterView]) -> PortResult<(Outcome, Vec<LetterView>)> {
    let mut outcome = Outcome {
        unreadable: chosen.iter().filter(|letter| !letter.is_readable()).count() as u64,
        ..Outcome::default()
    };
    let mut old = Vec::new();
    for stage in [StageName::Raw, StageName::Embedded] {
        let ids = ids(chosen, stage, LetterView::is_whole);
        let Retried { moved, outdated } = letters.retry(stage_of(stage), &ids).await?;
        outcome.done += moved;
        outcome.gone += (ids.len() - outdated.len()) as u64 - moved;
        let outdated: HashSet<&str> = outdated.iter().map(|id| id.0.as_str()).collect();
        let views = chosen.iter().filter(|letter| letter.stage == stage && outdated.contains(letter.id.as_str()));
        old.extend(views.map(|letter| LetterView { reread: true, ..letter.clone() }));
    }
    Ok((outcome, old))
}

/// Deletes letters.
pub(crate) async fn discard(letters: &dyn DeadLetters, chosen: &[LetterView]) -> PortResult<Outcome> {
    let mut outcome = Outcome::default();
    for stage in [StageName::Raw, StageName::Embedded] {
        let ids = ids(chosen, stage, |_| true);
        let done = letters.discard(stage_of(stage), &ids).await?;
        outcome.done += done;
        outcome.gone += ids.len() as u64 - done;
    }
    Ok(outcome)
}

fn ids(chosen: &[LetterView], stage: StageName, wanted: impl Fn(&LetterView) -> bool) -> Vec<EntryId> {
    let of_stage = chosen.iter().filter(|letter| letter.stage == stage && wanted(letter));
    of_stage.map(|letter| EntryId(letter.id.clone())).collect()
}

#[cfg(test)]
mod tests {
    use tidewheel_core::ports::{DeadLetter, Fence, FenceTarget, Queue as _, Tombstones as _};
    use tidewheel_core::wire::RawFields;
    use tidewheel_testkit::contracts::samples::{change, embedded};
    use tidewheel_testkit::fakes::streams::FakeStreams;

    use super::*;

    /// Two letters of stage 1, one of stage 2, and one that nobody can read.
    async fn streams() -> FakeStreams {
        let streams = FakeStreams::new();
        let garbage: RawFields = vec![(b"a".to_vec(), b"b".to_vec())];
        let archive = streams.archive(STAGE_1);
        tidewheel_core::ports::Archive::append(&archive, &[change(1), change(2)]).await.unwrap();
        streams.add_raw(STAGE_1.stream, garbage);
        let archive = streams.archive(STAGE_2);
        tidewheel_core::ports::Archive::append(&archive, &[embedded(2)]).await.unwrap();
        let (one, two) = (streams.changes("a"), streams.embedded("b"));
        let park = |ids: Vec<EntryId>, reason: &str| -> Vec<DeadLetter> {
            ids.into_iter().map(|id| DeadLetter { id, reason: reason.to_owned(), attempts: 3 }).collect()
        };
        let raw = one.read(10, Duration::ZERO).await.unwrap();
        one.park(&park(raw.into_iter().map(|read| read.id).collect(), "the embedder refused it: 422")).await.unwrap();
        let second = two.read(10, Duration::ZERO).await.unwrap();
        two.park(&park(second.into_iter().map(|read| read.id).collect(), "Qdrant refused it")).await.unwrap();
        streams
    }

    async fn found(streams: &FakeStreams, filter: Filter) -> Vec<String> {
        let listing = list(&streams.dead_letters(), &filter, usize::MAX, false).await.unwrap();
        let name = |letter: &LetterView| match &letter.record {
            RecordView::Change { document_id, .. } => format!("{} {document_id}", letter.stage.name()),
            RecordView::Unreadable { .. } => format!("{} unreadable", letter.stage.name()),
        };
        listing.letters.iter().map(name).collect()
    }

    #[tokio::test]
    async fn letters_are_chosen_by_stage_id_reason_and_age() {
        let streams = streams().await;
        let all = ["raw 1", "raw 2", "raw unreadable", "embedded 2"];
        assert_eq!(found(&streams, Filter::default()).await, all);
        let of = |ids: &[&str]| Filter { ids: ids.iter().map(|id| (*id).to_owned()).collect(), ..Filter::default() };
        assert_eq!(found(&streams, of(&["2"])).await, ["raw 2", "embedded 2"]);
        assert_eq!(found(&streams, of(&[r#"{"$numberInt":"1"}"#, "9"])).await, ["raw 1"]);
        let whole = list(&streams.dead_letters(), &Filter::default(), usize::MAX, true).await.unwrap();
        assert_eq!(found(&streams, of(&[&whole.letters[2].id])).await, ["raw unreadable"]);
        let stage = Filter { stage: Some(StageName::Embedded), ..Filter::default() };
        assert_eq!(found(&streams, stage).await, ["embedded 2"]);
        let reason = Filter { reason: Some("422".into()), ids: vec!["2".into()], ..Filter::default() };
        assert_eq!(found(&streams, reason).await, ["raw 2"]);
        // The fake's clock began years ago.
        let day = Some(Duration::from_secs(86_400));
        assert_eq!(found(&streams, Filter { older_than: day, ..Filter::default() }).await, all);
        assert!(found(&streams, Filter { newer_than: day, ..Filter::default() }).await.is_empty());
    }

    #[tokio::test]
    async fn a_limit_leaves_the_rest_counted() {
        let streams = streams().await;
        let listing = list(&streams.dead_letters(), &Filter::default(), 1, true).await.unwrap();
        assert_eq!((listing.letters.len(), listing.matching), (1, 4));
        let json = serde_json::to_value(&listing).unwrap();
        let letter = &json["letters"][0];
        assert_eq!(
            (&letter["document"]["_id"], &letter["document_id"], &letter["attempts"]),
            (&1.into(), &"1".into(), &3.into())
        );
        assert_eq!(letter["version"], change(1).version.to_string());
    }

    #[tokio::test]
    async fn what_cannot_be_read_stays_and_the_rest_goes_back() {
        let streams = streams().await;
        let letters = streams.dead_letters();
        let chosen = list(&letters, &Filter::default(), usize::MAX, false).await.unwrap().letters;
        assert_eq!(discard(&letters, &chosen[..1]).await.unwrap(), Outcome { done: 1, ..Outcome::default() });
        let (outcome, old) = retry(&letters, &chosen).await.unwrap();
        assert!(old.is_empty());
        assert_eq!(outcome, Outcome { done: 2, unreadable: 1, gone: 1 });
        assert_eq!(found(&streams, Filter::default()).await, ["raw unreadable"]);
        let again = streams.changes("c").read(10, Duration::ZERO).await.unwrap();
        assert_eq!(again[0].record, Ok(change(2)));
        assert_eq!(streams.embedded("d").read(10, Duration::ZERO).await.unwrap()[0].record, Ok(embedded(2)));
    }

    #[tokio::test]
    async fn letters_older_than_a_forgotten_deletion_are_to_be_read_again() {
        let streams = streams().await;
        let (letters, tombstones) = (streams.dead_letters(), streams.tombstones());
        let (target, version) = (FenceTarget::Document(change(9).document_id()), change(2).version);
        tombstones.raise(&[Fence { target, version }]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(tombstones.collect(Duration::ZERO, u64::MAX).await.unwrap().forgotten, 1);
        let chosen = list(&letters, &Filter::default(), usize::MAX, false).await.unwrap().letters;
        let (outcome, old) = retry(&letters, &chosen).await.unwrap();
        assert_eq!(outcome, Outcome { done: 2, unreadable: 1, gone: 0 });
        assert_eq!(old.iter().map(|letter| (&letter.id, letter.reread)).collect::<Vec<_>>(), [(&chosen[0].id, true)]);
        assert_eq!(found(&streams, Filter::default()).await, ["raw 1", "raw unreadable"]);
    }

    #[test]
    fn ids_are_shown_as_people_write_them() {
        for (extended, shown) in [
            (r#"{"$oid":"65f000000000000000000001"}"#, "65f000000000000000000001"),
            (r#""abc""#, "abc"),
            ("7", "7"),
            (r#"{"a":1}"#, r#"{"a":1}"#),
            ("", ""),
        ] {
            assert_eq!(plain_id(extended), shown);
        }
    }
}
