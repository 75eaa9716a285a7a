//! Finds, retries and deletes dead letters.

mod act;
mod reread;
mod targets;
mod view;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde::Serialize;
use tidewheel_core::catalog::Catalog;
use tidewheel_core::change::Operation;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{DeadLetters, EntryId, Letter, PortResult, Registry, Retried};
use tidewheel_core::stage::Stage;
use tidewheel_core::time::now_ms;

pub use self::act::{Acted, Action, Plan, SourceProvider, act, plan};
pub use self::reread::{RetryPorts, retry};
pub use self::targets::OfIndex;
use self::view::plain_id;
pub use self::view::{EmbeddingView, LetterView, RecordView};

/// Dead letters per page: each can be as large as a document.
const PAGE: usize = 50;

/// Dead letters to act on at once, without their documents.
const AT_ONCE: usize = 500;

/// A filter for dead letters.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only this stage.
    pub stage: Option<Stage>,
    /// Only this index.
    pub index: Option<OfIndex>,
    /// Ids of dead letters, or `_id`s of documents in plain form.
    pub ids: Vec<String>,
    /// A part of the reason.
    pub reason: Option<String>,
    /// Minimum age, exclusive.
    pub older_than: Option<Duration>,
    /// Maximum age, inclusive.
    pub newer_than: Option<Duration>,
}

impl Filter {
    fn stages(&self) -> impl Iterator<Item = Stage> + use<> {
        let wanted = self.stage;
        Stage::ALL.into_iter().filter(move |stage| wanted.is_none_or(|one| one == *stage))
    }

    /// Whether every dead letter of a selected stage matches.
    fn matches_all(&self) -> bool {
        let Self { stage: _, index, ids, reason, older_than, newer_than } = self;
        index.is_none() && ids.is_empty() && reason.is_none() && older_than.is_none() && newer_than.is_none()
    }

    /// Whether a dead letter matches at `now`, in milliseconds since the Unix epoch.
    fn matches(&self, letter: &Letter, now: u64) -> bool {
        let age = Duration::from_millis(now.saturating_sub(letter.parked_at));
        let named = |id: &String| {
            let of_document = |change: &tidewheel_core::change::Change| {
                change.id == *id || change.key == *id || plain_id(&change.id) == *id
            };
            letter.id.0 == *id || letter.record.as_ref().is_ok_and(|record| of_document(&record.change))
        };
        let concerns = |index: &OfIndex| letter.record.as_ref().is_ok_and(|record| index.holds(record));
        (self.ids.is_empty() || self.ids.iter().any(named))
            && self.index.as_ref().is_none_or(concerns)
            && self.reason.as_ref().is_none_or(|reason| letter.reason.contains(reason.as_str()))
            && self.older_than.is_none_or(|than| age > than)
            && self.newer_than.is_none_or(|than| age <= than)
    }
}

/// The dead letters that match a filter.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Listing {
    /// Stage by stage, oldest first.
    pub letters: Vec<LetterView>,
    /// Number of matches, including those beyond the limit.
    pub matching: u64,
}

/// Lists matching dead letters up to a limit; with their documents if `whole` is set.
///
/// # Errors
/// If the dead letters cannot be read.
pub async fn list(letters: &dyn DeadLetters, filter: &Filter, limit: usize, whole: bool) -> PortResult<Listing> {
    let now = now_ms();
    let mut listing = Listing::default();
    for stage in filter.stages() {
        let (mut after, mut seen) = (EntryId::zero(), 0);
        loop {
            // The rest matches without being read.
            if listing.letters.len() >= limit && filter.matches_all() {
                listing.matching += letters.count(stage).await?.saturating_sub(seen);
                break;
            }
            let page = letters.letters(stage, &after, PAGE).await?;
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

/// Reads the matching dead letters page by page, without their documents. Those that arrive meanwhile are left: a retried
/// one may be parked again.
pub struct Pages<'a> {
    letters: &'a dyn DeadLetters,
    filter: &'a Filter,
    /// The remaining stages, the last one first.
    stages: Vec<Stage>,
    /// The last one read of the current stage, and the number of those that are left.
    place: Option<(EntryId, u64)>,
    now: u64,
    /// The last one to read of each stage; `None` for all that exist at the start.
    ends: Option<&'a BTreeMap<Stage, EntryId>>,
}

impl<'a> Pages<'a> {
    /// Starts with the oldest.
    pub fn new(letters: &'a dyn DeadLetters, filter: &'a Filter) -> Self {
        let mut stages: Vec<Stage> = filter.stages().collect();
        stages.reverse();
        Self { letters, filter, stages, place: None, now: now_ms(), ends: None }
    }

    /// The next page, of about 500 dead letters; empty at the end.
    ///
    /// # Errors
    /// If the dead letters cannot be read.
    pub async fn next(&mut self) -> PortResult<Vec<LetterView>> {
        let mut found = Vec::new();
        while let Some(stage) = self.stages.last().copied() {
            let (after, left) = match self.place.take() {
                Some(place) => place,
                None => (EntryId::zero(), self.letters.count(stage).await?),
            };
            let mut page = self.letters.letters(stage, &after, PAGE).await?;
            page.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            if let Some(ends) = self.ends {
                page.retain(|letter| ends.get(&stage).is_some_and(|end| letter.id <= *end));
            }
            let Some(last) = page.last().map(|letter| letter.id.clone()) else {
                self.stages.pop();
                continue;
            };
            self.place = Some((last, left - page.len() as u64));
            let matching = page.into_iter().filter(|letter| self.filter.matches(letter, self.now));
            found.extend(matching.map(|letter| LetterView::new(stage, letter, self.now, false)));
            if found.len() >= AT_ONCE {
                break;
            }
        }
        Ok(found)
    }
}

/// Outcome of a retry or a deletion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Put back, or deleted.
    pub done: u64,
    /// Not put back: unreadable, or with a document that cannot be read or appended.
    pub unreadable: u64,
    /// Already handled by another process.
    pub gone: u64,
}

/// Maximum number of dead letters named in the audit log.
pub const NAMED: usize = 20;

/// The number of dead letters, and the names of the first ones, for the audit log: at least the first [`NAMED`] are given.
pub fn named(first: &[LetterView], count: u64) -> String {
    let names: Vec<_> =
        first.iter().take(NAMED).map(|letter| format!("{} {}", letter.stage.short_name(), letter.id)).collect();
    let more = if count > names.len() as u64 { ", …" } else { "" };
    format!("{count}: {}{more}", names.join(", "))
}

impl std::ops::AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.done += other.done;
        self.unreadable += other.unreadable;
        self.gone += other.gone;
    }
}

/// Puts dead letters back into their stage, except unreadable ones, which would be parked again at once, and those whose documents
/// have to be read from the source. Returns also the others whose documents have to be read again: those older than a collected
/// tombstone, and those of a target that selects other documents since.
async fn put_back(
    letters: &dyn DeadLetters,
    catalog: &Catalog,
    chosen: &[LetterView],
) -> PortResult<(Outcome, Vec<LetterView>)> {
    let mut outcome = Outcome {
        unreadable: chosen.iter().filter(|letter| !letter.is_readable()).count() as u64,
        ..Outcome::default()
    };
    let again = |letter: &LetterView| LetterView { reread: true, ..letter.clone() };
    let rerouted = chosen.iter().filter(|letter| letter.is_whole() && is_outdated(letter, catalog));
    let mut old: Vec<LetterView> = rerouted.map(again).collect();
    for stage in Stage::ALL {
        let ids = ids(chosen, stage, |letter| letter.is_whole() && !is_outdated(letter, catalog));
        let Retried { moved, outdated } = letters.retry(stage, &ids).await?;
        outcome.done += moved;
        outcome.gone += (ids.len() - outdated.len()) as u64 - moved;
        let outdated: HashSet<&str> = outdated.iter().map(|id| id.0.as_str()).collect();
        let views = chosen.iter().filter(|letter| letter.stage == stage && outdated.contains(letter.id.as_str()));
        old.extend(views.map(again));
    }
    Ok((outcome, old))
}

/// Whether the document of a dead letter may not belong to its targets any more. Deletions always may be applied.
fn is_outdated(letter: &LetterView, catalog: &Catalog) -> bool {
    let RecordView::Change { namespace, operation, .. } = &letter.record else { return false };
    let has_document = operation.parse::<Operation>().is_ok_and(Operation::has_document);
    let namespace = Namespace::parse(namespace).filter(|_| has_document);
    namespace.is_some_and(|namespace| letter.addressed.is_outdated(&namespace, catalog))
}

/// Deletes dead letters.
///
/// # Errors
/// If this release cannot use the keys, before anything is deleted. If a deletion fails; earlier ones stay.
pub async fn discard(registry: &dyn Registry, letters: &dyn DeadLetters, chosen: &[LetterView]) -> PortResult<Outcome> {
    // Fails if this release cannot use the keys.
    registry.installation().await?;
    let mut outcome = Outcome::default();
    for stage in Stage::ALL {
        let ids = ids(chosen, stage, |_| true);
        let done = letters.discard(stage, &ids).await?;
        outcome.done += done;
        outcome.gone += ids.len() as u64 - done;
    }
    Ok(outcome)
}

fn ids(chosen: &[LetterView], stage: Stage, wanted: impl Fn(&LetterView) -> bool) -> Vec<EntryId> {
    let of_stage = chosen.iter().filter(|letter| letter.stage == stage && wanted(letter));
    of_stage.map(|letter| EntryId(letter.id.clone())).collect()
}

#[cfg(test)]
mod tests {
    use tidewheel_core::error::{Cause, ErrorClass};
    use tidewheel_core::ports::{DeadLetter, Fence, FenceTarget, Park as _, Queue as _, Tombstones as _};
    use tidewheel_testkit::contracts::samples::{change, embedded};
    use tidewheel_testkit::fakes::ownership::FakeRegistry;
    use tidewheel_testkit::fakes::streams::FakeStreams;

    use super::*;

    /// Two dead letters of stage 1, one of stage 2, and an unreadable one.
    async fn streams() -> FakeStreams {
        let streams = FakeStreams::new();
        let garbage = vec![(b"a".to_vec(), b"b".to_vec())];
        let stream_log = streams.stream_log(Stage::Raw);
        tidewheel_core::ports::StreamLog::append(&stream_log, &[change(1), change(2)]).await.unwrap();
        streams.add_raw(Stage::Raw.name(), garbage);
        let stream_log = streams.stream_log(Stage::Embedded);
        tidewheel_core::ports::StreamLog::append(&stream_log, &[embedded(2)]).await.unwrap();
        let (one, two) = (streams.changes("a"), streams.embedded("b"));
        let park = |ids: Vec<EntryId>, reason: &str| -> Vec<DeadLetter> {
            ids.into_iter().map(|id| DeadLetter::new(id, reason, 3)).collect()
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
            RecordView::Change { document_id, .. } => format!("{} {document_id}", letter.stage.short_name()),
            RecordView::Unreadable { .. } => format!("{} unreadable", letter.stage.short_name()),
        };
        listing.letters.iter().map(name).collect()
    }

    #[tokio::test]
    async fn list_filters_by_stage_id_reason_and_age() {
        let streams = streams().await;
        let all = ["raw 1", "raw 2", "raw unreadable", "embedded 2"];
        assert_eq!(found(&streams, Filter::default()).await, all);
        let of = |ids: &[&str]| Filter { ids: ids.iter().map(|id| (*id).to_owned()).collect(), ..Filter::default() };
        assert_eq!(found(&streams, of(&["2"])).await, ["raw 2", "embedded 2"]);
        assert_eq!(found(&streams, of(&[r#"{"$numberInt":"1"}"#, "9"])).await, ["raw 1"]);
        let whole = list(&streams.dead_letters(), &Filter::default(), usize::MAX, true).await.unwrap();
        assert_eq!(found(&streams, of(&[&whole.letters[2].id])).await, ["raw unreadable"]);
        let stage = Filter { stage: Some(Stage::Embedded), ..Filter::default() };
        assert_eq!(found(&streams, stage).await, ["embedded 2"]);
        let reason = Filter { reason: Some("422".into()), ids: vec!["2".into()], ..Filter::default() };
        assert_eq!(found(&streams, reason).await, ["raw 2"]);
        // The fake's clock began years ago.
        let day = Some(Duration::from_secs(86_400));
        assert_eq!(found(&streams, Filter { older_than: day, ..Filter::default() }).await, all);
        assert!(found(&streams, Filter { newer_than: day, ..Filter::default() }).await.is_empty());
    }

    #[tokio::test]
    async fn list_counts_matches_beyond_the_limit() {
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
    async fn retry_puts_back_readable_letters_and_keeps_unreadable_ones() {
        let streams = streams().await;
        let letters = streams.dead_letters();
        let chosen = list(&letters, &Filter::default(), usize::MAX, false).await.unwrap().letters;
        let discarded = discard(&FakeRegistry::default(), &letters, &chosen[..1]).await;
        assert_eq!(discarded, Ok(Outcome { done: 1, ..Outcome::default() }));
        let (outcome, old) = put_back(&letters, &Catalog::default(), &chosen).await.unwrap();
        assert!(old.is_empty());
        assert_eq!(outcome, Outcome { done: 2, unreadable: 1, gone: 1 });
        assert_eq!(found(&streams, Filter::default()).await, ["raw unreadable"]);
        let again = streams.changes("c").read(10, Duration::ZERO).await.unwrap();
        assert_eq!(again[0].record, Ok(change(2)));
        assert_eq!(streams.embedded("d").read(10, Duration::ZERO).await.unwrap()[0].record, Ok(embedded(2)));
    }

    #[tokio::test]
    async fn discard_is_rejected_if_a_newer_release_has_written_the_keys() {
        let streams = streams().await;
        let (registry, letters) = (FakeRegistry::default(), streams.dead_letters());
        registry.set_newer_layout();
        let chosen = list(&letters, &Filter::default(), usize::MAX, false).await.unwrap().letters;
        let error = discard(&registry, &letters, &chosen).await.unwrap_err();
        assert_eq!((error.class, error.cause), (ErrorClass::Fatal, Cause::Newer));
        assert_eq!(found(&streams, Filter::default()).await.len(), chosen.len(), "they stay");
    }

    #[tokio::test]
    async fn retry_returns_letters_older_than_a_collected_tombstone() {
        let streams = streams().await;
        let (letters, tombstones) = (streams.dead_letters(), streams.tombstones());
        let (target, version) = (FenceTarget::Document(change(9).document_id()), change(2).version);
        tombstones.raise(&[Fence { target, version }]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(tombstones.collect(Duration::ZERO, u64::MAX).await.unwrap().forgotten, 1);
        let chosen = list(&letters, &Filter::default(), usize::MAX, false).await.unwrap().letters;
        let (outcome, old) = put_back(&letters, &Catalog::default(), &chosen).await.unwrap();
        assert_eq!(outcome, Outcome { done: 2, unreadable: 1, gone: 0 });
        assert_eq!(old.iter().map(|letter| (&letter.id, letter.reread)).collect::<Vec<_>>(), [(&chosen[0].id, true)]);
        assert_eq!(found(&streams, Filter::default()).await, ["raw 1", "raw unreadable"]);
    }

    #[tokio::test]
    async fn pages_are_bounded_and_reach_every_dead_letter_once() {
        let streams = FakeStreams::new();
        let fields = vec![(b"reason".to_vec(), b"why".to_vec())];
        for _ in 0..2 * AT_ONCE + 7 {
            streams.add_letter(Stage::Raw, fields.clone());
        }
        let (registry, letters, filter) = (FakeRegistry::default(), streams.dead_letters(), Filter::default());
        let mut pages = Pages::new(&letters, &filter);
        let (mut done, mut count) = (0, 0);
        loop {
            let page = pages.next().await.unwrap();
            if page.is_empty() {
                break;
            }
            assert!(page.len() < AT_ONCE + PAGE, "{}", page.len());
            // A retried one that is parked again at once.
            streams.add_letter(Stage::Raw, fields.clone());
            done += discard(&registry, &letters, &page).await.unwrap().done;
            count += 1;
        }
        assert_eq!((done, count), (2 * AT_ONCE as u64 + 7, 3));
        assert_eq!(letters.count(Stage::Raw).await.unwrap(), 3, "those that arrived meanwhile");
    }
}
