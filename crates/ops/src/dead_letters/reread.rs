//! Retries dead letters without a usable document: reads the current document from the source.

use std::collections::{BTreeMap, HashMap};

use tidewheel_core::change::{Change, Operation, Route};
use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Covered, DeadLetters, EntryId, Journal, PortResult, Registry, StreamLog};
use tidewheel_core::stage::Stage;
use tidewheel_core::time::now_ms;
use tidewheel_core::version::Version;
use tidewheel_pipeline::NO_PRODUCER;

use super::{LetterView, Outcome, RecordView, put_back};

/// Documents read at a time, which bounds memory.
const AT_ONCE: usize = 20;

/// The ports of a retry.
pub struct RetryPorts<'a> {
    /// The installation.
    pub registry: &'a dyn Registry,
    /// The dead letters.
    pub letters: &'a dyn DeadLetters,
    /// The checkpoints.
    pub journal: &'a dyn Journal,
    /// Stage 1.
    pub stream_log: &'a dyn StreamLog<Change>,
}

/// Puts dead letters back into their stage, unchanged or with their documents read again. Connects to the source only if
/// needed.
///
/// # Errors
/// If this release cannot use the keys, before anything is put back. If a server fails; what was put back before stays so.
pub async fn retry(
    ports: &RetryPorts<'_>,
    source: impl Future<Output = PortResult<Covered>>,
    chosen: &[LetterView],
) -> PortResult<Outcome> {
    // Fails if this release cannot use the keys.
    ports.registry.installation().await?;
    let (mut outcome, old) = put_back(ports.letters, chosen).await?;
    let own = chosen.iter().filter(|letter| letter.reread && letter.is_readable()).cloned();
    let again: Vec<LetterView> = own.chain(old).collect();
    if !again.is_empty() {
        outcome += reread(ports, &source.await?, &again).await?;
    }
    Ok(outcome)
}

/// Appends the current documents, or their deletions, to stage 1 and removes their dead letters.
async fn reread(ports: &RetryPorts<'_>, source: &Covered, chosen: &[LetterView]) -> PortResult<Outcome> {
    let mut outcome = Outcome::default();
    let checkpoint = ports.journal.load().await?.ok_or_else(|| {
        PortError::fatal(format!("nothing to retry: {NO_PRODUCER}"))
            .with_hint("run `tidewheel run`: its first start takes an initial snapshot")
    })?;
    let most = ports.journal.most_bytes().await?.unwrap_or(usize::MAX);
    let mut of: BTreeMap<Namespace, Vec<(String, &LetterView)>> = BTreeMap::new();
    for letter in chosen.iter().filter(|letter| letter.reread && letter.is_readable()) {
        let RecordView::Change { namespace, key, .. } = &letter.record else { continue };
        if let Some(namespace) = Namespace::parse(namespace) {
            of.entry(namespace).or_default().push((key.clone(), letter));
        }
    }
    for (namespace, letters) in of {
        for letters in letters.chunks(AT_ONCE) {
            // The time is read before the rows: any later change has a newer version.
            let version = Version::of_snapshot(checkpoint.epoch, source.now().await?);
            let keys: Vec<String> = letters.iter().map(|(key, _)| key.clone()).collect();
            let rows = source.fetch(&namespace, &keys, version.time).await?;
            let mut rows: HashMap<String, _> = rows.into_iter().map(|row| (row.key.clone(), row)).collect();
            let (mut changes, mut settled) = (Vec::new(), BTreeMap::<Stage, Vec<EntryId>>::new());
            for (key, letter) in letters {
                // On an idle source the time may be the one of the parked change, whose removal must not win.
                let version = version_of(letter).map_or(version, |parked| version.max(parked));
                let change = |operation, id, document| Change {
                    operation,
                    namespace: namespace.clone(),
                    key: key.clone(),
                    id,
                    version,
                    committed_at: now_ms(),
                    document,
                    route: Route::Plain,
                };
                let sent = match rows.remove(key) {
                    None => Some(change(Operation::Delete, key.clone(), None)),
                    Some(row) => row
                        .document
                        .ok()
                        .filter(|document| document.len() <= most)
                        .map(|document| change(Operation::Read, row.id, Some(document))),
                };
                match sent {
                    Some(change) => {
                        changes.push(change);
                        settled.entry(letter.stage).or_default().push(EntryId(letter.id.clone()));
                    }
                    None => outcome.unreadable += 1,
                }
            }
            ports.stream_log.append(&changes).await?;
            for (stage, ids) in settled {
                let done = ports.letters.discard(stage, &ids).await?;
                outcome.done += done;
                outcome.gone += ids.len() as u64 - done;
            }
        }
    }
    Ok(outcome)
}

fn version_of(letter: &LetterView) -> Option<Version> {
    match &letter.record {
        RecordView::Change { version, .. } => version.parse().ok(),
        RecordView::Unreadable { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tidewheel_core::error::{Cause, ErrorClass};
    use tidewheel_core::ports::{
        Checkpoint, DeadLetter, Park as _, ParkedChange, Queue as _, ResumeToken, SnapshotState,
    };
    use tidewheel_core::version::ClusterTime;
    use tidewheel_testkit::contracts::samples::change;
    use tidewheel_testkit::fakes::ownership::FakeRegistry;
    use tidewheel_testkit::fakes::source::FakeSource;
    use tidewheel_testkit::fakes::streams::FakeStreams;

    use super::*;
    use crate::dead_letters::{Filter, list};

    fn parked(key: &str) -> ParkedChange {
        let change = Change {
            operation: Operation::Insert,
            namespace: Namespace::new("shop", "tickets"),
            key: key.to_owned(),
            id: key.to_owned(),
            version: Version::default(),
            committed_at: 7,
            document: None,
            route: Route::Plain,
        };
        ParkedChange { change, reason: "too large".into() }
    }

    #[tokio::test]
    async fn retry_reads_missing_documents_from_the_source() {
        let source = FakeSource::new("shop");
        for (id, text) in [(1, "short"), (2, "a text that is longer than the limit of Redis in this test scenario")] {
            let document = json!({"_id": id, "text": text});
            source.insert("tickets", document);
        }
        let streams = FakeStreams::new();
        let (letters, journal, stream_log) =
            (streams.dead_letters(), streams.journal(), streams.stream_log(Stage::Raw));
        let time = ClusterTime { seconds: 1, increment: 1 };
        let checkpoint = Checkpoint {
            token: ResumeToken("1".into()),
            last: (time, 1),
            through: time,
            epoch: 3,
            selection: String::new(),
            snapshot: SnapshotState::Done { time, rows: 0 },
            catalog: 0,
            scope: Vec::new(),
        };
        let gone = r#"{"$numberInt":"3"}"#;
        let keys = [r#"{"$numberInt":"1"}"#, r#"{"$numberInt":"2"}"#, gone, &tidewheel_core::key::clipped("x")];
        let mut letters_of = keys.map(parked);
        let newest = Version {
            epoch: 3,
            time: ClusterTime { seconds: u32::MAX, increment: 1 },
            ordinal: 1,
            ..Version::default()
        };
        letters_of[0].change.version = newest;
        journal.append_and_park(None, &[], &letters_of, &checkpoint).await.unwrap();
        streams.limit(60);
        let chosen = list(&letters, &Filter::default(), 10, false).await.unwrap().letters;
        assert!(chosen.iter().all(|letter| letter.reread));
        let registry = FakeRegistry::default();
        let ports = RetryPorts { registry: &registry, letters: &letters, journal: &journal, stream_log: &stream_log };
        let (outcome, old) = put_back(&letters, &chosen).await.unwrap();
        assert_eq!((outcome, old.len()), (Outcome { unreadable: 1, ..Outcome::default() }, 0));
        let outcome = reread(&ports, &source.covered(), &chosen).await.unwrap();
        assert_eq!(outcome, Outcome { done: 2, unreadable: 1, gone: 0 });
        let entries = streams.records::<Change>(Stage::Raw.name()).into_iter().map(|(_, change)| change);
        let sent: Vec<Change> = entries.collect();
        let brief = sent.iter().map(|change| (change.operation, change.key.as_str(), change.version.epoch));
        assert_eq!(brief.collect::<Vec<_>>(), [(Operation::Read, keys[0], 3), (Operation::Delete, gone, 3)]);
        assert_eq!(sent[0].version, newest, "not older than the parked change");
        let left = list(&letters, &Filter::default(), 10, false).await.unwrap();
        assert_eq!(left.matching, 2, "the one that is still too large, and the one with an unknown key");
    }

    #[tokio::test]
    async fn retry_is_rejected_if_a_newer_release_has_written_the_keys() {
        let streams = FakeStreams::new();
        let (letters, journal, stream_log) =
            (streams.dead_letters(), streams.journal(), streams.stream_log(Stage::Raw));
        stream_log.append(&[change(1)]).await.unwrap();
        let queue = streams.changes("a");
        let read = queue.read(1, Duration::ZERO).await.unwrap();
        let letter = DeadLetter::new(read[0].id.clone(), "refused", 1);
        queue.park(&[letter]).await.unwrap();
        let chosen = list(&letters, &Filter::default(), 10, false).await.unwrap().letters;
        let registry = FakeRegistry::default();
        registry.set_newer_layout();
        let ports = RetryPorts { registry: &registry, letters: &letters, journal: &journal, stream_log: &stream_log };
        let source = async { Err(PortError::transient("unreachable")) };
        let error = retry(&ports, source, &chosen).await.unwrap_err();
        assert_eq!((error.class, error.cause), (ErrorClass::Fatal, Cause::Newer));
        let left = list(&letters, &Filter::default(), 10, false).await.unwrap();
        assert_eq!(left.matching, 1, "it stays");
    }

    #[tokio::test]
    async fn source_is_connected_only_for_documents_to_read_again() {
        let streams = FakeStreams::new();
        let (letters, journal, stream_log) =
            (streams.dead_letters(), streams.journal(), streams.stream_log(Stage::Raw));
        let registry = FakeRegistry::default();
        let ports = RetryPorts { registry: &registry, letters: &letters, journal: &journal, stream_log: &stream_log };
        let unreachable = || async { Err(PortError::transient("unreachable")) };
        assert_eq!(retry(&ports, unreachable(), &[]).await, Ok(Outcome::default()));
        let time = ClusterTime { seconds: 1, increment: 1 };
        let checkpoint = Checkpoint {
            token: ResumeToken("1".into()),
            last: (time, 1),
            through: time,
            epoch: 0,
            selection: String::new(),
            snapshot: SnapshotState::Done { time, rows: 0 },
            catalog: 0,
            scope: Vec::new(),
        };
        journal.append_and_park(None, &[], &[parked(r#"{"$numberInt":"1"}"#)], &checkpoint).await.unwrap();
        let chosen = list(&letters, &Filter::default(), 10, false).await.unwrap().letters;
        assert_eq!(retry(&ports, unreachable(), &chosen).await.unwrap_err().message, "unreachable");
        let left = list(&letters, &Filter::default(), 10, false).await.unwrap();
        assert_eq!(left.matching, 1, "it stays");
    }
}
