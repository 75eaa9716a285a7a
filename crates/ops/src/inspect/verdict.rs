//! Derives the verdict on a document from its facts.

use serde::Serialize;
use tidewheel_core::version::Version;

use super::facts::{Deletions, EntryFacts, IndexFacts, LetterFacts, Progress, SourceFacts, StageFacts};
use crate::{Probe, times};

/// State of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentState {
    /// The index matches MongoDB.
    Searchable,
    /// Deleted in MongoDB and in the index.
    Deleted,
    /// In MongoDB, and left out of the index by its filter.
    Excluded,
    /// A change of it is in flight.
    OnItsWay,
    /// A change of it is a dead letter.
    Parked,
    /// In MongoDB but not in the index, with no change in flight.
    Missing,
    /// The index differs from MongoDB, with no change in flight.
    Stale,
    /// No server knows it.
    Unheard,
    /// A server did not answer.
    Unknown,
}

/// State and explanation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DocumentVerdict {
    /// The state.
    pub state: DocumentState,
    /// One line: state, place and cause.
    pub text: String,
}

/// Input of the verdict.
pub(super) struct Facts<'a> {
    pub(super) source: &'a Probe<SourceFacts>,
    pub(super) raw: &'a Probe<StageFacts>,
    pub(super) embedded: &'a Probe<StageFacts>,
    pub(super) index: &'a Probe<Option<IndexFacts>>,
    pub(super) deleted: &'a Probe<Deletions>,
    pub(super) letters: &'a Probe<Vec<LetterFacts>>,
    /// Whether a producer holds the lease; `None` if unknown.
    pub(super) producer: Option<bool>,
}

/// Returns the verdict.
pub(super) fn verdict(facts: &Facts<'_>) -> DocumentVerdict {
    let result = |state, text: String| DocumentVerdict { state, text };
    let (Some(source), Some(index)) = (facts.source.known(), facts.index.known()) else {
        let silent = if facts.source.known().is_none() { "MongoDB" } else { "Qdrant" };
        return result(DocumentState::Unknown, format!("{silent} did not answer"));
    };
    if source.belongs() && index.as_ref().is_some_and(|index| is_same(source, index)) {
        return result(DocumentState::Searchable, "searchable and up to date with MongoDB".into());
    }
    let indexed = index.as_ref().and_then(|index| index.version.parse::<Version>().ok());
    if let Some(way) = on_its_way(facts, indexed) {
        return result(DocumentState::OnItsWay, way);
    }
    if source.excluded && index.is_none() {
        return result(DocumentState::Excluded, "left out: the document does not match the filter of the index".into());
    }
    if !source.exists && index.is_none() {
        return settled_without(facts);
    }
    let newer = |letter: &&LetterFacts| {
        let version = letter.version.parse::<Version>().ok();
        version.is_none() || version > indexed
    };
    let mut letters = facts.letters.known().into_iter().flatten();
    if let Some(letter) = letters.rfind(newer) {
        let text = format!(
            "parked in the {} dead-letter queue ({}): {}. Fix the cause, then run `tidewheel dead-letters retry --id {} --yes`",
            letter.stage.title(),
            letter.id,
            letter.reason,
            letter.id
        );
        return result(DocumentState::Parked, text);
    }
    // Without the streams it is unknown whether a change is in flight.
    if facts.raw.known().is_none() || facts.embedded.known().is_none() {
        return result(DocumentState::Unknown, "the index differs from MongoDB, and Redis did not answer".into());
    }
    let partly = [facts.raw, facts.embedded].into_iter().flat_map(Probe::known).any(|stage| !stage.complete);
    let more = match (facts.producer, partly) {
        (Some(false), _) => "; no producer is running, so the latest change may not have been read yet",
        (_, true) => "; the streams were scanned only in part: increase --scan",
        _ => "; run `tidewheel verify --repair` to send it again",
    };
    match index {
        None => result(
            DocumentState::Missing,
            format!("missing: in MongoDB but not in the index, with no change in flight{more}"),
        ),
        Some(index) => {
            let what = if !source.exists {
                "deleted in MongoDB".to_owned()
            } else if source.excluded {
                "the document does not match the filter of the index any more".to_owned()
            } else if source.digest.as_ref() != Some(&index.digest) {
                "the index and MongoDB have different content".to_owned()
            } else {
                format!("the index has {} of {} chunks, {} surplus", index.present, index.chunks, index.surplus)
            };
            result(DocumentState::Stale, format!("stale: {what}, with no change in flight{more}"))
        }
    }
}

fn is_same(source: &SourceFacts, index: &IndexFacts) -> bool {
    source.digest.as_ref() == Some(&index.digest) && index.present == index.chunks && index.surplus == 0
}

/// Describes the change in flight that the index does not have yet.
fn on_its_way(facts: &Facts<'_>, indexed: Option<Version>) -> Option<String> {
    let stages = [("stage 2", facts.embedded), ("stage 1", facts.raw)];
    let newest = stages.into_iter().filter_map(|(name, stage)| Some((name, open(stage.known()?, indexed)?)));
    // If both stages hold the same version, stage 2 wins.
    let (place, entry) = newest.rev().max_by_key(|(_, entry)| version(entry))?;
    let how = match &entry.state {
        Progress::Pending { consumer, idle_ms, deliveries } => {
            let again = if *deliveries > 1 { format!(", tried {deliveries} times") } else { String::new() };
            format!("pending at {consumer} for {}{again}", times::span(*idle_ms))
        }
        Progress::Waiting | Progress::Confirmed => "undelivered".to_owned(),
    };
    Some(format!("in flight: {place} ({}), {how}", entry.id))
}

/// The newest unacknowledged entry with a newer version than the index.
fn open(stage: &StageFacts, indexed: Option<Version>) -> Option<&EntryFacts> {
    let open = stage.entries.iter().filter(|entry| entry.state != Progress::Confirmed);
    open.filter(|entry| version(entry) > indexed).max_by_key(|entry| version(entry))
}

fn version(entry: &EntryFacts) -> Option<Version> {
    entry.change.as_ref()?.version.parse().ok()
}

/// The verdict on a document that neither MongoDB nor the index has: deleted or unknown.
fn settled_without(facts: &Facts<'_>) -> DocumentVerdict {
    let remembered =
        facts.deleted.known().and_then(|deleted| deleted.document.as_ref().or(deleted.collection.as_ref()));
    let seen = [facts.raw, facts.embedded].into_iter().flat_map(Probe::known).any(|stage| !stage.entries.is_empty());
    let letters = facts.letters.known().is_some_and(|letters| !letters.is_empty());
    if remembered.is_some() || seen || letters {
        let when = remembered.map(|version| format!(" at version {version}")).unwrap_or_default();
        return DocumentVerdict {
            state: DocumentState::Deleted,
            text: format!("deleted{when}: not in MongoDB and not in the index"),
        };
    }
    DocumentVerdict {
        state: DocumentState::Unheard,
        text: "unknown: not in MongoDB, not in the index, no record of it".into(),
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::stage::Stage;

    use super::super::facts::ChangeFacts;
    use super::*;

    struct Case {
        source: Probe<SourceFacts>,
        raw: Probe<StageFacts>,
        embedded: Probe<StageFacts>,
        index: Probe<Option<IndexFacts>>,
        deleted: Probe<Deletions>,
        letters: Probe<Vec<LetterFacts>>,
        producer: Option<bool>,
    }

    fn unknown<T>() -> Probe<T> {
        Probe::Unknown("away".into())
    }

    /// MongoDB has the document with digest `d`, the index one chunk of version 0.5.1.1 with this digest.
    fn case(digest: &str) -> Case {
        let index = IndexFacts {
            version: "0.5.1.1".into(),
            digest: digest.into(),
            chunks: 1,
            present: 1,
            ..IndexFacts::default()
        };
        let stage = || Probe::Known(StageFacts { complete: true, ..StageFacts::default() });
        Case {
            source: Probe::Known(SourceFacts {
                exists: true,
                digest: Some("d".into()),
                bytes: Some(2),
                ..SourceFacts::default()
            }),
            raw: stage(),
            embedded: stage(),
            index: Probe::Known(Some(index)),
            deleted: Probe::Known(Deletions::default()),
            letters: Probe::Known(Vec::new()),
            producer: Some(true),
        }
    }

    fn of(case: &Case) -> DocumentVerdict {
        let Case { source, raw, embedded, index, deleted, letters, producer } = case;
        verdict(&Facts { source, raw, embedded, index, deleted, letters, producer: *producer })
    }

    fn stage(id: &str, version: &str, state: Progress) -> Probe<StageFacts> {
        let change = ChangeFacts {
            operation: "update".into(),
            version: version.into(),
            trace_id: String::new(),
            committed_at: 0,
            digest: None,
        };
        let entry = EntryFacts {
            id: id.into(),
            added_at: String::new(),
            state,
            change: Some(change),
            unreadable: None,
            embedding: serde_json::Map::new(),
        };
        Probe::Known(StageFacts { entries: vec![entry], looked_at: 1, complete: true })
    }

    fn gone() -> Probe<SourceFacts> {
        Probe::Known(SourceFacts::default())
    }

    #[test]
    fn equal_document_is_searchable_whatever_is_in_flight() {
        let raw = stage("7-0", "0.9.1.1", Progress::Waiting);
        assert_eq!(of(&Case { raw, ..case("d") }).state, DocumentState::Searchable);
        let letters = unknown();
        assert_eq!(
            of(&Case { letters, raw: unknown(), ..case("d") }).state,
            DocumentState::Searchable,
            "Redis is not needed"
        );
    }

    #[test]
    fn change_in_flight_is_reported_in_the_latest_stage() {
        let pending = Progress::Pending { consumer: "anna".into(), idle_ms: 1_500, deliveries: 2 };
        let verdict = of(&Case { raw: stage("7-0", "0.6.1.1", pending), ..case("old") });
        assert_eq!(verdict.state, DocumentState::OnItsWay);
        assert!(verdict.text.contains("stage 1") && verdict.text.contains("anna") && verdict.text.contains("2 times"));
        let both = Case {
            raw: stage("7-0", "0.6.1.1", Progress::Waiting),
            embedded: stage("8-0", "0.6.1.1", Progress::Waiting),
            ..case("old")
        };
        assert!(of(&both).text.contains("stage 2"), "{}", of(&both).text);
        let confirmed = Case { raw: stage("7-0", "0.6.1.1", Progress::Confirmed), ..case("old") };
        assert_eq!(of(&confirmed).state, DocumentState::Stale);
        let older = Case { raw: stage("7-0", "0.4.1.1", Progress::Waiting), ..case("old") };
        assert_eq!(of(&older).state, DocumentState::Stale, "the entry changes nothing");
    }

    #[test]
    fn dead_letter_explains_a_missing_document() {
        let letter = LetterFacts {
            stage: Stage::Raw,
            id: "9-0".into(),
            version: "0.6.1.1".into(),
            trace_id: None,
            reason: "it was refused".into(),
            parked_at: String::new(),
        };
        let letters = || Probe::Known(vec![letter.clone()]);
        for index in [Probe::Known(None), case("old").index] {
            let verdict = of(&Case { letters: letters(), index, ..case("old") });
            assert_eq!(verdict.state, DocumentState::Parked);
            assert!(verdict.text.contains("it was refused") && verdict.text.contains("--id 9-0"), "{}", verdict.text);
        }
        let index = IndexFacts { version: "0.7.1.1".into(), digest: "old".into(), ..IndexFacts::default() };
        let newer = Case { letters: letters(), index: Probe::Known(Some(index)), ..case("old") };
        assert_eq!(of(&newer).state, DocumentState::Stale, "the dead letter is older than the index");
    }

    #[test]
    fn absent_document_is_deleted_or_unknown() {
        let absent = || Case { source: gone(), index: Probe::Known(None), ..case("d") };
        assert_eq!(of(&absent()).state, DocumentState::Unheard);
        let deleted = Probe::Known(Deletions { document: Some("0.6.1.1".into()), collection: None });
        assert_eq!(of(&Case { deleted, ..absent() }).state, DocumentState::Deleted);
        assert_eq!(
            of(&Case { raw: stage("7-0", "0.6.1.1", Progress::Confirmed), ..absent() }).state,
            DocumentState::Deleted
        );
        let leaving = Case { source: gone(), raw: stage("7-0", "0.6.1.1", Progress::Waiting), ..case("d") };
        assert_eq!(of(&leaving).state, DocumentState::OnItsWay);
        assert_eq!(of(&Case { source: gone(), ..case("d") }).state, DocumentState::Stale);
    }

    #[test]
    fn document_outside_the_filter_is_left_out_once_the_index_does_not_have_it() {
        let outside = || {
            let Probe::Known(source) = case("d").source else { unreachable!("it is known") };
            Probe::Known(SourceFacts { excluded: true, ..source })
        };
        let left_out = Case { source: outside(), index: Probe::Known(None), ..case("d") };
        assert_eq!(of(&left_out).state, DocumentState::Excluded);
        let leaving = Case { source: outside(), raw: stage("7-0", "0.6.1.1", Progress::Waiting), ..case("d") };
        assert_eq!(of(&leaving).state, DocumentState::OnItsWay);
        let stale = of(&Case { source: outside(), ..case("d") });
        assert!(stale.state == DocumentState::Stale && stale.text.contains("the filter"), "{}", stale.text);
    }

    #[test]
    fn unexplained_difference_is_missing_or_stale_with_a_hint() {
        let missing = of(&Case { index: Probe::Known(None), ..case("d") });
        assert_eq!(missing.state, DocumentState::Missing);
        assert!(missing.text.contains("verify --repair"));
        let chunks = IndexFacts {
            digest: "d".into(),
            chunks: 3,
            present: 2,
            version: "0.5.1.1".into(),
            ..IndexFacts::default()
        };
        let stale = of(&Case { index: Probe::Known(Some(chunks)), ..case("d") });
        assert!(
            stale.state == DocumentState::Stale && stale.text.contains("the index has 2 of 3 chunks"),
            "{}",
            stale.text
        );
        assert!(of(&Case { producer: Some(false), ..case("old") }).text.contains("no producer"));
        let partly = Probe::Known(StageFacts { looked_at: 9, ..StageFacts::default() });
        assert!(of(&Case { raw: partly, ..case("old") }).text.contains("--scan"));
    }

    #[test]
    fn unanswered_query_makes_the_state_unknown() {
        assert_eq!(of(&Case { source: unknown(), ..case("d") }).state, DocumentState::Unknown);
        assert_eq!(of(&Case { index: unknown(), ..case("d") }).state, DocumentState::Unknown);
        assert_eq!(of(&Case { raw: unknown(), ..case("old") }).state, DocumentState::Unknown);
    }
}
