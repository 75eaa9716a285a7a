//! Retries dead letters without a usable document: reads the current document from MongoDB.

use std::collections::{BTreeMap, HashMap};

use tidewheel_core::change::{Change, Operation};
use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{DeadLetters, EntryId, Journal, PortResult, Registry as _, Source, StreamLog};
use tidewheel_core::version::Version;
use tidewheel_stores::redis::RedisStore;

use super::letters::{self, LetterView, Outcome, RecordView, stage_of};
use crate::cli::StageName;
use crate::settings::Settings;
use crate::{connect, times};

/// Documents read at a time, which bounds memory.
const AT_ONCE: usize = 20;

/// Puts dead letters back into their stage, unchanged or with their documents read again. Connects to MongoDB only if needed.
pub(crate) async fn retry(settings: &Settings, redis: &RedisStore, chosen: &[LetterView]) -> PortResult<Outcome> {
    // Fails if this release cannot use the keys.
    redis.installation().await?;
    let (mut outcome, old) = letters::retry(redis, chosen).await?;
    let own = chosen.iter().filter(|letter| letter.reread && letter.is_readable()).cloned();
    let again: Vec<LetterView> = own.chain(old).collect();
    if !again.is_empty() {
        let options = connect::mongo_options(settings, "dead-letters retry").map_err(|_| {
            PortError::fatal("these dead letters have no usable document, and mongodb.database is not set")
                .with_hint("set mongodb.database: the documents are read from it")
        })?;
        let source = connect::source(options).await?;
        let stream_log = redis.stream_log::<Change>(stage_of(StageName::Raw));
        let ports = Ports { letters: redis, journal: redis, stream_log: &stream_log, source: &source };
        outcome += reread(&ports, &again).await?;
    }
    Ok(outcome)
}

struct Ports<'a> {
    letters: &'a dyn DeadLetters,
    journal: &'a dyn Journal,
    stream_log: &'a dyn StreamLog<Change>,
    source: &'a dyn Source,
}

/// Appends the current documents, or their deletions, to stage 1 and removes their dead letters.
async fn reread(ports: &Ports<'_>, chosen: &[LetterView]) -> PortResult<Outcome> {
    let mut outcome = Outcome::default();
    let checkpoint = ports.journal.load().await?.ok_or_else(|| {
        PortError::fatal("nothing to retry: no producer has run on this Redis yet")
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
            let version = Version::of_snapshot(checkpoint.epoch, ports.source.now().await?);
            let keys: Vec<String> = letters.iter().map(|(key, _)| key.clone()).collect();
            let rows = ports.source.fetch(&namespace, &keys, version.time).await?;
            let mut rows: HashMap<String, _> = rows.into_iter().map(|row| (row.key.clone(), row)).collect();
            let (mut changes, mut settled) = (Vec::new(), BTreeMap::<StageName, Vec<EntryId>>::new());
            for (key, letter) in letters {
                // On an idle source the time may be the one of the parked change, whose removal must not win.
                let version = version_of(letter).map_or(version, |parked| version.max(parked));
                let change = |operation, id, document| Change {
                    operation,
                    namespace: namespace.clone(),
                    key: key.clone(),
                    id,
                    version,
                    committed_at: times::now_ms(),
                    document,
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
                let done = ports.letters.discard(stage_of(stage), &ids).await?;
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
    use serde_json::json;
    use tidewheel_core::ports::{Checkpoint, Parked, ResumeToken, SnapshotState};
    use tidewheel_core::stage::Stage;
    use tidewheel_core::version::ClusterTime;
    use tidewheel_testkit::fakes::source::FakeSource;
    use tidewheel_testkit::fakes::streams::FakeStreams;

    use super::*;
    use crate::commands::dead_letters::letters::{Filter, list};

    fn parked(key: &str) -> Parked {
        let change = Change {
            operation: Operation::Insert,
            namespace: Namespace::new("shop", "tickets"),
            key: key.to_owned(),
            id: key.to_owned(),
            version: Version::default(),
            committed_at: 7,
            document: None,
        };
        Parked { change, reason: "too large".into() }
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
        let (outcome, old) = letters::retry(&letters, &chosen).await.unwrap();
        assert_eq!((outcome, old.len()), (Outcome { unreadable: 1, ..Outcome::default() }, 0));
        let ports = Ports { letters: &letters, journal: &journal, stream_log: &stream_log, source: &source };
        let outcome = reread(&ports, &chosen).await.unwrap();
        assert_eq!(outcome, Outcome { done: 2, unreadable: 1, gone: 0 });
        let entries = streams.records::<Change>(Stage::Raw.name()).into_iter().map(|(_, change)| change);
        let sent: Vec<Change> = entries.collect();
        let brief = sent.iter().map(|change| (change.operation, change.key.as_str(), change.version.epoch));
        assert_eq!(brief.collect::<Vec<_>>(), [(Operation::Read, keys[0], 3), (Operation::Delete, gone, 3)]);
        assert_eq!(sent[0].version, newest, "not older than the parked change");
        let left = list(&letters, &Filter::default(), 10, false).await.unwrap();
        assert_eq!(left.matching, 2, "the one that is still too large, and the one with an unknown key");
    }
}
