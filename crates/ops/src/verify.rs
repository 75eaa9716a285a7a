//! Compares each index with the source, and repairs differences on request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tidewheel_core::catalog::IndexName;
use tidewheel_core::change::Change;
use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Covered, EntryFinder, Journal, PortResult, Source, SourceInspector, StreamLog};
use tidewheel_core::stage::Stage;
use tidewheel_pipeline::audit::{self, AuditOptions, AuditPorts, Difference, Found, Kind, Range, Report, Scope};
use tidewheel_pipeline::targets::{Target, Targets};

use crate::selection::{self, concerns};
use crate::text::none_of;

/// Dead letters to scan for the reasons of differences.
const LETTERS: u64 = 10_000;

/// Documents to look up among the dead letters.
const EXPLAINED: usize = 1_000;

/// The ports of a verification.
pub struct VerifyPorts {
    /// The source.
    pub source: Arc<dyn Source>,
    /// The indexes.
    pub targets: Arc<Targets>,
    /// The checkpoints.
    pub journal: Arc<dyn Journal>,
    /// Stage 1, for a repair; `None` for a verification without repair.
    pub repair: Option<Arc<dyn StreamLog<Change>>>,
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
    /// Only this index.
    pub index: Option<IndexName>,
    /// Only these collections; all selected ones if empty.
    pub namespaces: Vec<Namespace>,
    /// Only a sample of each index.
    pub sample: Option<Sample>,
    /// Only this range of `_id`s.
    pub range: Option<Range>,
    /// Compare the digest alone, instead of every field of the payload.
    pub quick: bool,
    /// How long to wait for earlier commits to reach the index.
    pub settle: Duration,
}

/// The planned comparison of one index.
pub struct Comparison {
    target: Arc<Target>,
    /// How it is compared.
    pub options: AuditOptions,
}

impl Comparison {
    /// The index; `None` before a catalog is applied.
    pub fn index(&self) -> Option<&IndexName> {
        (!self.target.is_local()).then_some(&self.target.id.index)
    }
}

/// Result of an audit, with known reasons.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// The index; `None` before a catalog is applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<IndexName>,
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

/// Checks the request against the source, and returns the comparisons: one for each selected index. Changes nothing.
///
/// # Errors
/// Fatal, if none of the existing collections is selected: an empty index would match it, which is misleading. Fatal, if
/// there is no such index. If a server fails.
pub async fn plan(
    ports: &VerifyPorts,
    inspector: &dyn SourceInspector,
    request: &VerifyRequest,
) -> PortResult<Vec<Comparison>> {
    let applied = ports.targets.reload().await?;
    let mut targets = selection::serving(&applied, request.index.as_ref())?;
    if applied.catalog().is_short_form() {
        let passed_over = inspector.passed_over().await?;
        if !passed_over.is_empty() {
            return Err(PortError::fatal(format!("mongodb.collection selects {}", none_of(&passed_over)))
                .with_hint("correct mongodb.collection: a name, or a pattern such as \"tickets_*\""));
        }
    }
    let named = |target: &Arc<Target>| request.namespaces.iter().any(|name| target.declaration().source.covers(name));
    if targets.iter().any(named) {
        targets.retain(named);
    }
    let (mut comparisons, mut collections) = (Vec::new(), 0);
    for target in targets {
        let source = covered(ports, &target);
        let selected = selected(&source, &request.namespaces).await?;
        collections += selected.len();
        let share = match request.sample {
            None => None,
            Some(Sample::Share(share)) => Some(share.min(1.0)),
            Some(Sample::Documents(wanted)) => {
                Some((wanted as f64 / documents(&source, &selected).await?.max(1) as f64).min(1.0))
            }
        };
        let scope = Scope { namespaces: request.namespaces.clone(), share, range: request.range.clone() };
        let payload = (!request.quick).then(|| target.declaration().payload.clone());
        let of_target = AuditOptions::of(&target, applied.revision())?;
        let options = AuditOptions { scope, payload, settle: request.settle, ..of_target };
        comparisons.push(Comparison { target, options });
    }
    if collections == 0 && request.namespaces.is_empty() && !applied.catalog().is_short_form() {
        return Err(PortError::fatal("none of the existing collections belongs to the index")
            .with_hint("correct `source` of the index, and run `tidewheel apply`"));
    }
    Ok(comparisons)
}

/// Compares source and index, and repairs differences if the ports allow it.
///
/// # Errors
/// If a server fails.
pub async fn verify(ports: &VerifyPorts, comparison: &Comparison, report: &Report) -> PortResult<Verified> {
    let Comparison { target, options } = comparison;
    let of_target = AuditPorts::of(target, ports.source.clone(), ports.journal.clone());
    let audited = AuditPorts { repair: ports.repair.clone(), ..of_target };
    let scope = &options.scope;
    let partly = scope.share.is_some() || scope.range.is_some() || !scope.namespaces.is_empty();
    let found = audit::audit(&audited, options, report).await?;
    // The comparison is complete without the reasons.
    let parked = parked(&*ports.finder, target, &found.differences).await.unwrap_or_default();
    Ok(Verified { index: comparison.index().cloned(), found, parked, partly })
}

/// The source restricted to the collections of a target.
fn covered(ports: &VerifyPorts, target: &Target) -> Covered {
    Covered::by(ports.source.clone(), target.declaration().source.clone())
}

/// Returns the existing collections of a target, or those among these.
async fn selected(source: &Covered, namespaces: &[Namespace]) -> PortResult<Vec<Namespace>> {
    let mut selected = source.collections().await?;
    selected.retain(|namespace| namespaces.is_empty() || namespaces.contains(namespace));
    Ok(selected)
}

/// Returns the estimated number of documents of these collections.
async fn documents(source: &Covered, namespaces: &[Namespace]) -> PortResult<u64> {
    let mut all = 0;
    for namespace in namespaces {
        all += source.estimate(namespace).await?;
    }
    Ok(all)
}

/// Returns the documents that have a dead letter of this target, with its reason.
async fn parked(
    finder: &dyn EntryFinder,
    target: &Target,
    differences: &[Difference],
) -> PortResult<Vec<ParkedDocument>> {
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
            if !concerns(&entry, target) {
                continue;
            }
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
    use tidewheel_core::catalog::State;
    use tidewheel_core::change::{Operation, Route, Stamp};
    use tidewheel_core::ports::{Checkpoint, IndexWriter as _, ParkedChange, ResumeToken, SnapshotState, SourceRow};
    use tidewheel_core::version::{ClusterTime, Version};
    use tidewheel_testkit::contracts::index::document;
    use tidewheel_testkit::fakes::faults::Fault;
    use tidewheel_testkit::fakes::index::FakeIndex;
    use tidewheel_testkit::fakes::source::FakeSource;
    use tidewheel_testkit::fakes::streams::FakeStreams;

    use super::*;
    use crate::samples::{Servers, catalog, filtered, fixed, index, target};

    const TIME: ClusterTime = ClusterTime { seconds: 2_000, increment: 0 };

    fn request() -> VerifyRequest {
        VerifyRequest {
            index: None,
            namespaces: Vec::new(),
            sample: None,
            range: None,
            quick: true,
            settle: Duration::from_secs(1),
        }
    }

    /// Indexes a document of `shop.tickets`.
    async fn index_row(index: &FakeIndex, row: &SourceRow) {
        let tickets = Namespace::new("shop", "tickets");
        let version = Version::of_snapshot(0, TIME);
        let points = document(&tickets, &row.key, version, &[row.document.as_ref().unwrap()]);
        let _ = index.upsert(&[&points]).await.unwrap();
    }

    /// Parks the change of a document of `shop.tickets`, and lets the pipeline be idle.
    async fn park(streams: &FakeStreams, row: SourceRow, route: Route) {
        let checkpoint = Checkpoint {
            token: ResumeToken("1".into()),
            last: (TIME, 1),
            through: TIME,
            epoch: 0,
            selection: String::new(),
            snapshot: SnapshotState::Done { time: TIME, rows: 2 },
            catalog: route.catalog(),
            scope: Vec::new(),
        };
        let change = Change {
            operation: Operation::Insert,
            namespace: Namespace::new("shop", "tickets"),
            key: row.key,
            id: row.id,
            version: Version::of_snapshot(0, TIME),
            committed_at: 7,
            document: None,
            route,
        };
        let parked = ParkedChange { change, reason: "too large".into() };
        let journal = streams.journal();
        journal.append_and_park(None, &[], &[parked], &checkpoint).await.unwrap();
        journal.confirm(&checkpoint, &checkpoint).await.unwrap();
    }

    fn ports(source: &FakeSource, streams: &FakeStreams, targets: Arc<Targets>) -> VerifyPorts {
        VerifyPorts {
            source: Arc::new(source.clone()),
            targets,
            journal: Arc::new(streams.journal()),
            repair: None,
            finder: Arc::new(streams.inspector()),
        }
    }

    /// Two tickets, of which the second is parked instead of indexed.
    async fn world() -> (FakeSource, VerifyPorts, FakeStreams) {
        let (source, index, streams) = (FakeSource::new("shop"), FakeIndex::new(), FakeStreams::new());
        source.insert("tickets", json!({"_id": 1, "subject": "one"}));
        source.insert("tickets", json!({"_id": 2, "subject": "two"}));
        index.prepare(4).await.unwrap();
        let mut rows = source.rows("tickets").into_iter();
        index_row(&index, &rows.next().unwrap()).await;
        park(&streams, rows.next().unwrap(), Route::Plain).await;
        let ports = ports(&source, &streams, fixed(&index, &streams));
        (source, ports, streams)
    }

    fn silent() -> Report {
        Arc::new(|_| {})
    }

    #[tokio::test(start_paused = true)]
    async fn dead_letter_explains_a_missing_document() {
        let (source, ports, streams) = world().await;
        let comparisons = plan(&ports, &source, &request()).await.unwrap();
        let [comparison] = &comparisons[..] else { panic!("one index") };
        let verified = verify(&ports, comparison, &silent()).await.unwrap();
        assert_eq!((verified.left(), verified.found.missing, verified.partly), (1, 1, false), "{verified:?}");
        assert_eq!(verified.index, None);
        let (namespace, reason) = ("shop.tickets".to_owned(), "too large".to_owned());
        assert_eq!(verified.parked, [ParkedDocument { namespace, key: r#"{"$numberInt":"2"}"#.into(), reason }]);
        streams.faults().always("letters_of", Fault::unreachable());
        let verified = verify(&ports, comparison, &silent()).await.unwrap();
        assert!(verified.left() == 1 && verified.parked.is_empty(), "the result needs no reasons");
    }

    #[tokio::test(start_paused = true)]
    async fn sample_becomes_a_share_of_all_documents() {
        let (source, ports, _) = world().await;
        let share = async |sample| {
            let request = VerifyRequest { sample: Some(sample), ..request() };
            plan(&ports, &source, &request).await.unwrap()[0].options.scope.share
        };
        assert_eq!(share(Sample::Documents(1)).await, Some(0.5));
        assert_eq!(share(Sample::Documents(100)).await, Some(1.0));
        assert_eq!(share(Sample::Share(0.05)).await, Some(0.05));
    }

    #[tokio::test(start_paused = true)]
    async fn selection_without_collections_and_unreachable_source_are_errors() {
        let (source, ports, _) = world().await;
        let wrong = source.selecting(&["orders"]);
        let error = plan(&ports, &wrong, &request()).await.err().unwrap();
        assert_eq!(error.message, "mongodb.collection selects none of the 1 existing collections: tickets");
        let comparisons = plan(&ports, &source, &request()).await.unwrap();
        source.faults().always("collections", Fault::unreachable());
        assert!(verify(&ports, &comparisons[0], &silent()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn each_index_is_compared_with_its_own_documents() {
        let (servers, source) = (Servers::new(), FakeSource::new("shop"));
        source.insert("tickets", json!({"_id": 1, "status": "open"}));
        source.insert("tickets", json!({"_id": 2, "status": "closed"}));
        let indexes = [("all", State::Serving), ("open", State::Serving)];
        servers.apply(&filtered(catalog(7, &indexes), "open", r#"{"status": "open"}"#)).await;
        let mut rows = source.rows("tickets").into_iter();
        let (first, second) = (rows.next().unwrap(), rows.next().unwrap());
        for name in ["all.g1", "open.g1"] {
            let collection = servers.collections.index(name);
            collection.prepare(4).await.unwrap();
            index_row(&collection, &first).await;
        }
        let stamp = Stamp { catalog: 7, targets: vec![target("all.g1")], leaves: Vec::new() };
        park(&servers.streams, second, stamp.into()).await;
        let ports = ports(&source, &servers.streams, servers.targets());
        let mut results = Vec::new();
        for comparison in plan(&ports, &source, &request()).await.unwrap() {
            let verified = verify(&ports, &comparison, &silent()).await.unwrap();
            results.push((verified.index.clone().unwrap(), verified.left(), verified.parked.len()));
        }
        assert_eq!(results, [(index("all"), 1, 1), (index("open"), 0, 0)]);

        let open = VerifyRequest { index: Some(index("open")), ..request() };
        assert_eq!(plan(&ports, &source, &open).await.unwrap().len(), 1);
        let users = VerifyRequest { index: Some(index("users")), ..request() };
        assert!(plan(&ports, &source, &users).await.err().unwrap().message.contains("expected one of all, open"));
        let elsewhere = FakeSource::new("crm");
        let ports = VerifyPorts { source: Arc::new(elsewhere.clone()), ..ports };
        let error = plan(&ports, &elsewhere, &request()).await.err().unwrap();
        assert!(error.message.contains("none of the existing collections"), "{error}");
    }
}
