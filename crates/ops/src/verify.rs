//! Compares the index with the source, and repairs differences on request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Covered, EntryFinder, PortResult, SourceInspector};
use tidewheel_core::stage::Stage;
use tidewheel_pipeline::audit::{self, AuditOptions, AuditPorts, Difference, Found, Kind, Range, Report, Scope};
use tidewheel_pipeline::processor::LeftOut;
use tidewheel_pipeline::upserter::PayloadOptions;

use crate::text::none_of;

/// Dead letters to scan for the reasons of differences.
const LETTERS: u64 = 10_000;

/// Documents to look up among the dead letters.
const EXPLAINED: usize = 1_000;

/// The ports of a verification.
pub struct VerifyPorts {
    /// Both sides of the comparison.
    pub audit: AuditPorts,
    /// The dead letters, for the reasons of differences.
    pub finder: Arc<dyn EntryFinder>,
}

/// A sample of all documents.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sample {
    /// A share, greater than 0.
    Share(f64),
    /// About this many documents.
    Documents(u64),
}

/// What to compare, and how.
#[derive(Clone, Debug)]
pub struct VerifyRequest {
    /// Only these collections; all selected ones if empty.
    pub namespaces: Vec<Namespace>,
    /// Only a sample.
    pub sample: Option<Sample>,
    /// Only this range of `_id`s.
    pub range: Option<Range>,
    /// Compare every field of the payload; `None` compares the digest alone.
    pub payload: Option<PayloadOptions>,
    /// How long to wait for earlier commits to reach the index.
    pub settle: Duration,
    /// Documents that are intentionally not indexed.
    pub left_out: LeftOut,
}

/// Result of an audit, with known reasons.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// The result.
    #[serde(flatten)]
    pub found: Found,
    /// Documents that differ because they are dead letters.
    pub parked: Vec<ParkedDocument>,
    /// Whether only a part of the documents was compared.
    pub partly: bool,
}

/// A document that differs because its change is a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ParkedDocument {
    /// `database.collection`.
    pub namespace: String,
    /// Canonical extended JSON of `_id`.
    pub key: String,
    /// The reason for parking it.
    pub reason: String,
}

impl Verified {
    /// Number of documents that differ, after a repair if there was one.
    pub fn left(&self) -> u64 {
        self.found.repaired.as_ref().map_or_else(|| self.found.drift(), |repaired| repaired.left)
    }
}

/// Checks the request against the source, and returns the options of its audit. Changes nothing.
///
/// # Errors
/// Fatal, if the selection matches none of the existing collections: an empty index would match it, which is misleading.
pub async fn plan(
    source: &Covered,
    inspector: &dyn SourceInspector,
    request: VerifyRequest,
) -> PortResult<AuditOptions> {
    let passed_over = inspector.passed_over().await?;
    if !passed_over.is_empty() {
        return Err(PortError::fatal(format!("mongodb.collection selects {}", none_of(&passed_over)))
            .with_hint("correct mongodb.collection: a name, or a pattern such as \"tickets_*\""));
    }
    let VerifyRequest { namespaces, sample, range, payload, settle, left_out } = request;
    let share = match sample {
        None => None,
        Some(Sample::Share(share)) => Some(share.min(1.0)),
        Some(Sample::Documents(wanted)) => {
            Some((wanted as f64 / documents(source, &namespaces).await?.max(1) as f64).min(1.0))
        }
    };
    let scope = Scope { namespaces, share, range };
    Ok(AuditOptions { scope, payload, settle, left_out, ..AuditOptions::default() })
}

/// Compares source and index, and repairs differences if the ports allow it.
///
/// # Errors
/// If a server fails.
pub async fn verify(ports: &VerifyPorts, options: &AuditOptions, report: &Report) -> PortResult<Verified> {
    let scope = &options.scope;
    let partly = scope.share.is_some() || scope.range.is_some() || !scope.namespaces.is_empty();
    let found = audit::audit(&ports.audit, options, report).await?;
    // The comparison is complete without the reasons.
    let parked = parked(&*ports.finder, &found.differences).await.unwrap_or_default();
    Ok(Verified { found, parked, partly })
}

/// Returns the estimated number of documents.
async fn documents(source: &Covered, namespaces: &[Namespace]) -> PortResult<u64> {
    let mut all = 0;
    for namespace in source.collections().await? {
        if namespaces.is_empty() || namespaces.contains(&namespace) {
            all += source.estimate(&namespace).await?;
        }
    }
    Ok(all)
}

/// Returns the documents that have a dead letter, with its reason.
async fn parked(finder: &dyn EntryFinder, differences: &[Difference]) -> PortResult<Vec<ParkedDocument>> {
    let wanted: Vec<(Namespace, String)> = differences
        .iter()
        .filter(|difference| matches!(difference.kind, Kind::Missing | Kind::Stale))
        .take(EXPLAINED)
        .filter_map(|difference| Some((Namespace::parse(&difference.namespace)?, difference.key.clone())))
        .collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut reasons: HashMap<(String, String), String> = HashMap::new();
    for stage in [Stage::Raw, Stage::Embedded] {
        for entry in finder.letters_of(stage, &wanted, LETTERS).await?.entries {
            let reason = entry.parked.map(|parked| parked.reason).unwrap_or_default();
            reasons.entry((entry.namespace, entry.key)).or_insert(reason);
        }
    }
    let parked = wanted.into_iter().filter_map(|(namespace, key)| {
        let reason = reasons.get(&(namespace.to_string(), key.clone()))?.clone();
        Some(ParkedDocument { namespace: namespace.to_string(), key, reason })
    });
    Ok(parked.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidewheel_core::change::{Change, Operation, Route};
    use tidewheel_core::ports::{Checkpoint, IndexWriter as _, Journal as _, ResumeToken, SnapshotState};
    use tidewheel_core::version::{ClusterTime, Version};
    use tidewheel_testkit::contracts::index::document;
    use tidewheel_testkit::fakes::faults::Fault;
    use tidewheel_testkit::fakes::index::FakeIndex;
    use tidewheel_testkit::fakes::source::FakeSource;
    use tidewheel_testkit::fakes::streams::FakeStreams;

    use super::*;

    fn request() -> VerifyRequest {
        VerifyRequest {
            namespaces: Vec::new(),
            sample: None,
            range: None,
            payload: None,
            settle: Duration::from_secs(1),
            left_out: LeftOut::default(),
        }
    }

    /// Two tickets, of which the second is parked instead of indexed.
    async fn world() -> (FakeSource, VerifyPorts, FakeStreams) {
        let (source, index, streams) = (FakeSource::new("shop"), FakeIndex::new(), FakeStreams::new());
        source.insert("tickets", json!({"_id": 1, "subject": "one"}));
        source.insert("tickets", json!({"_id": 2, "subject": "two"}));
        index.prepare(4).await.unwrap();
        let tickets = Namespace::new("shop", "tickets");
        let mut rows = source.rows("tickets").into_iter();
        let (first, second) = (rows.next().unwrap(), rows.next().unwrap());
        let time = ClusterTime { seconds: 2_000, increment: 0 };
        let version = Version::of_snapshot(0, time);
        let points = document(&tickets, &first.key, version, &[first.document.as_ref().unwrap()]);
        let _ = index.upsert(&[&points]).await.unwrap();
        let checkpoint = Checkpoint {
            token: ResumeToken("1".into()),
            last: (time, 1),
            through: time,
            epoch: 0,
            selection: String::new(),
            snapshot: SnapshotState::Done { time, rows: 2 },
            catalog: 0,
            scope: Vec::new(),
        };
        let change = Change {
            operation: Operation::Insert,
            namespace: tickets,
            key: second.key,
            id: second.id,
            version,
            committed_at: 7,
            document: None,
            route: Route::Plain,
        };
        let parked = tidewheel_core::ports::ParkedChange { change, reason: "too large".into() };
        let journal = streams.journal();
        journal.append_and_park(None, &[], &[parked], &checkpoint).await.unwrap();
        journal.confirm(&checkpoint, &checkpoint).await.unwrap();
        let audit =
            AuditPorts { source: source.covered(), index: Arc::new(index), journal: Arc::new(journal), repair: None };
        (source, VerifyPorts { audit, finder: Arc::new(streams.inspector()) }, streams)
    }

    fn silent() -> Report {
        Arc::new(|_| {})
    }

    #[tokio::test(start_paused = true)]
    async fn dead_letter_explains_a_missing_document() {
        let (source, ports, streams) = world().await;
        let options = plan(&ports.audit.source, &source, request()).await.unwrap();
        let verified = verify(&ports, &options, &silent()).await.unwrap();
        assert_eq!((verified.left(), verified.found.missing, verified.partly), (1, 1, false), "{verified:?}");
        let (namespace, reason) = ("shop.tickets".to_owned(), "too large".to_owned());
        assert_eq!(verified.parked, [ParkedDocument { namespace, key: r#"{"$numberInt":"2"}"#.into(), reason }]);
        streams.faults().always("letters_of", Fault::unreachable());
        let verified = verify(&ports, &options, &silent()).await.unwrap();
        assert!(verified.left() == 1 && verified.parked.is_empty(), "the result needs no reasons");
    }

    #[tokio::test(start_paused = true)]
    async fn sample_becomes_a_share_of_all_documents() {
        let (source, ports, _) = world().await;
        let share = async |sample| {
            let request = VerifyRequest { sample: Some(sample), ..request() };
            plan(&ports.audit.source, &source, request).await.unwrap().scope.share
        };
        assert_eq!(share(Sample::Documents(1)).await, Some(0.5));
        assert_eq!(share(Sample::Documents(100)).await, Some(1.0));
        assert_eq!(share(Sample::Share(0.05)).await, Some(0.05));
    }

    #[tokio::test(start_paused = true)]
    async fn selection_without_collections_and_unreachable_source_are_errors() {
        let (source, ports, _) = world().await;
        let wrong = source.selecting(&["orders"]);
        let error = plan(&ports.audit.source, &wrong, request()).await.unwrap_err();
        assert_eq!(error.message, "mongodb.collection selects none of the 1 existing collections: tickets");
        let options = plan(&ports.audit.source, &source, request()).await.unwrap();
        source.faults().always("collections", Fault::unreachable());
        assert!(verify(&ports, &options, &silent()).await.is_err());
    }
}
