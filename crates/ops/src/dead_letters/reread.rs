//! Retries dead letters without a usable document: reads the current document from the source, and sends it to the targets
//! of the dead letter to which it belongs. It is removed from the others.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tidewheel_core::catalog::{Catalog, Routed, TargetId, routes};
use tidewheel_core::change::{Change, Operation};
use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{
    DeadLetters, EntryId, Journal, Judged, PortResult, Registry, Source, SourceRow, StreamLog,
};
use tidewheel_core::stage::Stage;
use tidewheel_core::time::now_ms;
use tidewheel_core::version::Version;
use tidewheel_pipeline::NO_PRODUCER;

use super::{LetterView, Outcome, RecordView, put_back};
use crate::catalog::CatalogReader;

/// Documents read at a time, which bounds memory.
const AT_ONCE: usize = 20;

/// The ports of a retry.
pub struct RetryPorts<'a> {
    /// The installation.
    pub registry: &'a dyn Registry,
    /// The catalog.
    pub catalog: &'a CatalogReader,
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
    source: impl Future<Output = PortResult<Arc<dyn Source>>>,
    chosen: &[LetterView],
) -> PortResult<Outcome> {
    // Fails if this release cannot use the keys.
    ports.registry.installation().await?;
    let catalog = ports.catalog.read().await?;
    let (mut outcome, old) = put_back(ports.letters, &catalog, chosen).await?;
    let own = chosen.iter().filter(|letter| letter.reread && letter.is_readable()).cloned();
    let again: Vec<LetterView> = own.chain(old).collect();
    if !again.is_empty() {
        outcome += reread(ports, &*source.await?, &catalog, &again).await?;
    }
    Ok(outcome)
}

/// Appends the current documents, or their deletions, to stage 1 and removes their dead letters.
async fn reread(
    ports: &RetryPorts<'_>,
    source: &dyn Source,
    catalog: &Catalog,
    chosen: &[LetterView],
) -> PortResult<Outcome> {
    let mut outcome = Outcome::default();
    let checkpoint = ports.journal.load().await?.ok_or_else(|| {
        PortError::fatal(format!("nothing to retry: {NO_PRODUCER}"))
            .with_hint("run `tidewheel run`: its first start takes an initial snapshot")
    })?;
    let most = ports.journal.most_bytes().await?.unwrap_or(usize::MAX);
    let routes = routes(catalog);
    let judged = Judged { filters: routes.coverage().filters.clone(), pushed: None };
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
            let rows = source.fetch(&namespace, &keys, version.time, &judged).await?;
            let rows: HashMap<&str, &SourceRow> = rows.iter().map(|row| (row.key.as_str(), row)).collect();
            let (mut changes, mut settled) = (Vec::new(), BTreeMap::<Stage, Vec<EntryId>>::new());
            for (key, letter) in letters {
                // On an idle source the time may be the one of the parked change, whose removal must not win.
                let version = version_of(letter).map_or(version, |parked| version.max(parked));
                let row = rows.get(key.as_str()).copied();
                let concerns = |target: &TargetId| letter.addressed.concerns(target, catalog);
                // Without a target it is settled: changes are routed to none of those that it names.
                if let Some(routed) = routes.current(&namespace, row, concerns) {
                    let Some(change) = change(&namespace, key, version, row, routed, most) else {
                        outcome.unreadable += 1;
                        continue;
                    };
                    changes.push(change);
                }
                settled.entry(letter.stage).or_default().push(EntryId(letter.id.clone()));
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

/// The change to the current state of a document; `None` if the document cannot be read or appended.
fn change(
    namespace: &Namespace,
    key: &str,
    version: Version,
    row: Option<&SourceRow>,
    routed: Routed,
    most: usize,
) -> Option<Change> {
    let row = row.filter(|_| routed.keeps_document);
    let document = match row {
        None => None,
        Some(row) => Some(row.document.as_ref().ok().filter(|document| document.len() <= most)?.clone()),
    };
    Some(Change {
        operation: if document.is_some() { Operation::Read } else { Operation::Delete },
        namespace: namespace.clone(),
        key: key.to_owned(),
        id: row.map_or_else(|| key.to_owned(), |row| row.id.clone()),
        version,
        committed_at: now_ms(),
        document,
        route: routed.into_route(),
    })
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
    use tidewheel_core::catalog::State;
    use tidewheel_core::change::{Route, Stamp};
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
    use crate::samples::{Servers, catalog, declaration, filtered, target};

    /// The catalog of these streams; before one is applied, that of the index `documents`.
    fn reader(streams: &FakeStreams) -> CatalogReader {
        CatalogReader::new(Arc::new(streams.catalog()), Some(declaration("documents")))
    }

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
        let (registry, catalog) = (FakeRegistry::default(), reader(&streams));
        let ports = RetryPorts {
            registry: &registry,
            catalog: &catalog,
            letters: &letters,
            journal: &journal,
            stream_log: &stream_log,
        };
        let catalog = catalog.read().await.unwrap();
        let (outcome, old) = put_back(&letters, &catalog, &chosen).await.unwrap();
        assert_eq!((outcome, old.len()), (Outcome { unreadable: 1, ..Outcome::default() }, 0));
        let outcome = reread(&ports, &source, &catalog, &chosen).await.unwrap();
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
        let catalog = reader(&streams);
        let ports = RetryPorts {
            registry: &registry,
            catalog: &catalog,
            letters: &letters,
            journal: &journal,
            stream_log: &stream_log,
        };
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
        let (registry, catalog) = (FakeRegistry::default(), reader(&streams));
        let ports = RetryPorts {
            registry: &registry,
            catalog: &catalog,
            letters: &letters,
            journal: &journal,
            stream_log: &stream_log,
        };
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

    /// The checkpoint of a producer that has parked something.
    fn parked_at(seconds: u32) -> Checkpoint {
        let time = ClusterTime { seconds, increment: 1 };
        Checkpoint {
            token: ResumeToken("1".into()),
            last: (time, 1),
            through: time,
            epoch: 0,
            selection: String::new(),
            snapshot: SnapshotState::Done { time, rows: 0 },
            catalog: 7,
            scope: Vec::new(),
        }
    }

    #[tokio::test]
    async fn document_that_is_read_again_goes_to_the_targets_of_its_dead_letter() {
        let (servers, source) = (Servers::new(), FakeSource::new("shop"));
        for (id, status) in [(1, "open"), (2, "closed")] {
            source.insert("tickets", json!({"_id": id, "status": status}));
        }
        let indexes = [("all", State::Serving), ("old", State::Retiring), ("open", State::Serving)];
        servers.apply(&filtered(catalog(7, &indexes), "open", r#"{"status": "open"}"#)).await;
        let routed = |key: &str, targets: &[&str]| {
            let targets = targets.iter().map(|name| target(name)).collect();
            let mut parked = parked(key);
            parked.change.route = Stamp { catalog: 7, targets, leaves: Vec::new() }.into();
            parked
        };
        let (one, two, gone) = (r#"{"$numberInt":"1"}"#, r#"{"$numberInt":"2"}"#, r#"{"$numberInt":"3"}"#);
        let parked = [
            routed(one, &["all.g1", "open.g1"]),
            routed(two, &["all.g1", "open.g1"]),
            routed(two, &["open.g1"]),
            routed(gone, &["open.g1"]),
            routed(one, &["old.g1"]),
        ];
        let streams = &servers.streams;
        let (letters, journal, stream_log) =
            (streams.dead_letters(), streams.journal(), streams.stream_log(Stage::Raw));
        journal.append_and_park(None, &[], &parked, &parked_at(1)).await.unwrap();
        let (registry, catalog) = (FakeRegistry::default(), reader(streams));
        let ports = RetryPorts {
            registry: &registry,
            catalog: &catalog,
            letters: &letters,
            journal: &journal,
            stream_log: &stream_log,
        };
        let chosen = list(&letters, &Filter::default(), 10, false).await.unwrap().letters;
        let source: Arc<dyn Source> = Arc::new(source);
        let outcome = retry(&ports, async { Ok(source.clone()) }, &chosen).await.unwrap();
        assert_eq!(outcome, Outcome { done: 5, ..Outcome::default() });
        let sent: Vec<Change> = streams.records(Stage::Raw.name()).into_iter().map(|(_, change)| change).collect();
        let brief = |change: &Change| {
            let Stamp { catalog, targets, leaves } = change.route.stamp().unwrap().clone();
            assert_eq!(catalog, 7);
            let names = |targets: Vec<TargetId>| targets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            format!("{} {} to {}, not {}", change.operation, change.id, names(targets), names(leaves))
        };
        assert_eq!(
            sent.iter().map(brief).collect::<Vec<_>>(),
            [
                "read 1 to all.g1 open.g1, not ".to_owned(),
                "read 2 to all.g1, not open.g1".to_owned(),
                format!("delete {two} to open.g1, not "),
                format!("delete {gone} to open.g1, not "),
            ]
        );
    }

    #[tokio::test]
    async fn whole_dead_letter_is_read_again_if_its_index_selects_other_documents_since() {
        let (servers, source) = (Servers::new(), FakeSource::new("shop"));
        source.insert("tickets", json!({"_id": 1, "status": "closed"}));
        let streams = &servers.streams;
        let (letters, journal, stream_log) =
            (streams.dead_letters(), streams.journal(), streams.stream_log(Stage::Raw));
        let stamp = Stamp { catalog: 7, targets: vec![target("open.g1")], leaves: Vec::new() };
        stream_log.append(&[Change { route: stamp.into(), ..change(1) }]).await.unwrap();
        let queue = streams.changes("a");
        let read = queue.read(1, Duration::ZERO).await.unwrap();
        queue.park(&[DeadLetter::new(read[0].id.clone(), "refused", 1)]).await.unwrap();
        journal.append(None, &[], &parked_at(1)).await.unwrap();
        servers.apply(&filtered(catalog(9, &[("open", State::Serving)]), "open", r#"{"status": "open"}"#)).await;
        let chosen = list(&letters, &Filter::default(), 10, false).await.unwrap().letters;
        assert!(!chosen[0].reread && chosen[0].index.len() == 1, "{chosen:?}");
        let (registry, catalog) = (FakeRegistry::default(), reader(streams));
        let ports = RetryPorts {
            registry: &registry,
            catalog: &catalog,
            letters: &letters,
            journal: &journal,
            stream_log: &stream_log,
        };
        let source: Arc<dyn Source> = Arc::new(source);
        let outcome = retry(&ports, async { Ok(source.clone()) }, &chosen).await.unwrap();
        assert_eq!(outcome, Outcome { done: 1, ..Outcome::default() });
        let sent: Vec<Change> = streams.records(Stage::Raw.name()).into_iter().map(|(_, change)| change).collect();
        let last = sent.last().unwrap();
        assert_eq!((last.operation, last.route.catalog()), (Operation::Delete, 9));
    }
}
