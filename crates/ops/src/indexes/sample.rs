//! Gathers what estimates rest on: documents, models, and the throughput of embedders.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidewheel_core::catalog::{EmbedderIdentity, EmbeddingSpec, Rounding, Selector};
use tidewheel_core::error::{Cause, PortError};
use tidewheel_core::ports::{
    Embedder, Embedders, PortResult, PublishedReport, Purpose, ReportReader, Source, SourceFilter,
};
use tidewheel_core::tokens::{Estimate, Tokens};
use tokio::time::Instant;

use super::estimate::Sampled;
use super::report::RateSource;
use crate::within;

/// Timeout of an embedder.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of collections to sample: the largest ones represent the others.
const COLLECTIONS: usize = 50;

/// Time between two looks at the reports of embedders: longer than their interval.
const AGAIN: Duration = Duration::from_secs(4);

/// Assumed limit of a model that does not answer, in tokens.
const USUAL_TOKENS: usize = 256;

/// Samples about `most` documents of the selected collections, in proportion to their sizes. The rows are judged by the
/// filters.
pub(super) async fn sample(
    source: &dyn Source,
    selectors: &[&Selector],
    filters: &[SourceFilter],
    most: usize,
) -> PortResult<Vec<Sampled>> {
    let mut namespaces = BTreeSet::new();
    for selector in selectors {
        namespaces.extend(source.collections(selector).await?);
    }
    let mut sizes = Vec::new();
    for namespace in namespaces {
        let documents = source.estimate(&namespace).await?;
        if documents > 0 {
            sizes.push((documents, namespace));
        }
    }
    let total = |sizes: &[(u64, _)]| sizes.iter().map(|(documents, _)| *documents).sum::<u64>() as f64;
    let all = total(&sizes);
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    sizes.truncate(COLLECTIONS);
    let sampled = total(&sizes);
    let mut samples = Vec::with_capacity(sizes.len());
    for (documents, namespace) in sizes {
        let share = documents as f64 / sampled;
        let count = ((most as f64 * share).ceil() as usize).max(1);
        let rows = source.sample(&namespace, count, filters).await?;
        samples.push(Sampled { namespace, documents: all * share, rows });
    }
    Ok(samples)
}

/// A declared model, as far as its embedder answers.
pub(super) struct Model {
    /// The embedder and what it reported; `None` if it does not answer.
    pub(super) reported: Option<(Arc<dyn Embedder>, EmbedderIdentity)>,
    /// Why the embedder will not round as declared until a person acts.
    pub(super) refusal: Option<PortError>,
    /// Its tokeniser, or an estimate.
    pub(super) tokens: Arc<dyn Tokens>,
    /// Maximum tokens of a text.
    pub(super) max_tokens: usize,
}

impl Model {
    /// What the embedder reported.
    pub(super) fn identity(&self) -> Option<&EmbedderIdentity> {
        self.reported.as_ref().map(|(_, identity)| identity)
    }
}

/// The models of a plan. Each embedder is asked once.
pub(super) struct Models<'a> {
    embedders: &'a dyn Embedders,
    asked: BTreeMap<EmbeddingSpec, Arc<Model>>,
    /// What is unknown about which of them.
    pub(super) warnings: Vec<String>,
}

impl<'a> Models<'a> {
    pub(super) fn new(embedders: &'a dyn Embedders) -> Self {
        Self { embedders, asked: BTreeMap::new(), warnings: Vec::new() }
    }

    /// The model of this specification.
    pub(super) async fn of(&mut self, spec: &EmbeddingSpec) -> Arc<Model> {
        if let Some(model) = self.asked.get(spec) {
            return Arc::clone(model);
        }
        let model = match ask(self.embedders, spec).await {
            Ok(model) => model,
            Err(error) => {
                let name = &spec.name;
                let is_refused = error.cause == Cause::Refused && spec.rounding == Rounding::Int8;
                let refusal = is_refused.then(|| error.clone());
                if refusal.is_none() {
                    self.warnings
                        .push(format!("embedding {name:?} does not answer, so its tokens are estimated: {error}"));
                }
                Model { reported: None, refusal, tokens: Arc::new(Estimate), max_tokens: USUAL_TOKENS }
            }
        };
        let model = Arc::new(model);
        self.asked.insert(spec.clone(), Arc::clone(&model));
        model
    }
}

async fn ask(embedders: &dyn Embedders, spec: &EmbeddingSpec) -> PortResult<Model> {
    let embedder = embedders.of(spec)?;
    let answer = async { Ok::<_, PortError>((embedder.info().await?, embedder.tokens().await?)) };
    let (info, tokens) = within(TIMEOUT, answer).await?;
    let max_tokens = info.max_tokens;
    Ok(Model { reported: Some((embedder, EmbedderIdentity::from(&info))), refusal: None, tokens, max_tokens })
}

/// The throughput of embedders, in tokens per second.
pub(super) struct Rates<'a> {
    reports: &'a dyn ReportReader,
    /// That of the embedders of this installation; `None` before they are looked at.
    measured: Option<Option<f64>>,
}

impl<'a> Rates<'a> {
    pub(super) fn new(reports: &'a dyn ReportReader) -> Self {
        Self { reports, measured: None }
    }

    /// The throughput of a model, and where the figure comes from. Nothing is sent to an embedder that may charge for it.
    pub(super) async fn of(
        &mut self,
        spec: &EmbeddingSpec,
        model: &Model,
        inputs: &[String],
    ) -> (Option<f64>, RateSource) {
        if !spec.provider.is_own() {
            return (None, RateSource::Unknown);
        }
        let measured = match self.measured {
            Some(measured) => measured,
            None => measured(self.reports).await,
        };
        self.measured = Some(measured);
        if measured.is_some() {
            return (measured, RateSource::Measured);
        }
        match model.reported.as_ref() {
            Some((embedder, _)) => match embed(&**embedder, &*model.tokens, inputs).await {
                Some(rate) => (Some(rate), RateSource::Sampled),
                None => (None, RateSource::Unknown),
            },
            None => (None, RateSource::Unknown),
        }
    }
}

/// The throughput of the embedders that have work, from two of their reports. Idle ones show nothing of it.
async fn measured(reports: &dyn ReportReader) -> Option<f64> {
    let first = loads(reports).await;
    if first.values().all(|load| load.queued_tokens == 0) {
        return None;
    }
    tokio::time::sleep(AGAIN).await;
    let rates = loads(reports).await.into_iter().filter_map(|(process, load)| {
        let before = first.get(&process)?;
        let seconds = load.at.saturating_duration_since(before.at).as_secs_f64();
        (seconds > 0.0).then(|| load.tokens.saturating_sub(before.tokens) as f64 / seconds)
    });
    Some(rates.sum::<f64>()).filter(|rate| *rate > 0.0)
}

/// What an embedder reported.
struct Load {
    at: Instant,
    tokens: u64,
    queued_tokens: u64,
}

/// The loads of embedders by process; none if the reports cannot be read.
async fn loads(reports: &dyn ReportReader) -> BTreeMap<String, Load> {
    let Ok(published) = within(TIMEOUT, reports.reports()).await else { return BTreeMap::new() };
    let now = Instant::now();
    let load = |published: PublishedReport| {
        let embedder = published.report.figures?.embedder?;
        let at = now.checked_sub(Duration::from_millis(published.age_ms)).unwrap_or(now);
        Some((published.process, Load { at, tokens: embedder.tokens, queued_tokens: embedder.queued_tokens }))
    };
    published.into_iter().filter_map(load).collect()
}

/// The throughput of one request with these texts.
async fn embed(embedder: &dyn Embedder, tokens: &dyn Tokens, inputs: &[String]) -> Option<f64> {
    let count: usize = inputs.iter().map(|input| tokens.spans(input).len()).sum();
    if count == 0 {
        return None;
    }
    let begun = Instant::now();
    within(TIMEOUT, embedder.embed(inputs, Purpose::Passage)).await.ok()?;
    Some(count as f64 / begun.elapsed().as_secs_f64().max(1e-3))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidewheel_core::catalog::Provider;
    use tidewheel_core::identity::Namespace;
    use tidewheel_core::report::FORMAT;
    use tidewheel_testkit::fakes::embedder::FakeEmbedder;
    use tidewheel_testkit::fakes::embedders::FakeEmbedders;
    use tidewheel_testkit::fakes::faults::Fault;
    use tidewheel_testkit::fakes::reports::FakeReports;
    use tidewheel_testkit::fakes::source::FakeSource;

    use super::*;

    fn spec(provider: &str) -> EmbeddingSpec {
        EmbeddingSpec::new("default", provider, "fake:4")
    }

    #[tokio::test]
    async fn collections_are_sampled_in_proportion_to_their_sizes() {
        let source = FakeSource::new("shop");
        for (collection, documents) in [("large", 30), ("small", 10)] {
            for id in 0..documents {
                source.insert(collection, json!({"_id": id}));
            }
        }
        let selector = Selector::of_database::<&str>("shop", &[]);
        let samples = sample(&source, &[&selector, &selector], &[], 8).await.unwrap();
        let found: Vec<_> = samples.iter().map(|one| (one.namespace.clone(), one.documents, one.rows.len())).collect();
        assert_eq!(found, [(Namespace::new("shop", "large"), 30.0, 6), (Namespace::new("shop", "small"), 10.0, 2)]);
        let none = Selector::of_database("shop", &["missing"]);
        assert!(sample(&source, &[&none], &[], 8).await.unwrap().is_empty());
        source.faults().always("estimate", Fault::unreachable());
        assert!(sample(&source, &[&selector], &[], 8).await.is_err());
    }

    #[tokio::test]
    async fn largest_collections_represent_the_others() {
        let source = FakeSource::new("shop");
        for collection in 0..COLLECTIONS + 10 {
            source.insert(&format!("c{collection}"), json!({"_id": 1}));
        }
        let selector = Selector::of_database::<&str>("shop", &[]);
        let samples = sample(&source, &[&selector], &[], 500).await.unwrap();
        assert_eq!(samples.len(), COLLECTIONS);
        let documents: f64 = samples.iter().map(|one| one.documents).sum();
        assert!((documents - (COLLECTIONS + 10) as f64).abs() < 1e-6, "{documents}");
    }

    #[tokio::test]
    async fn model_without_an_embedder_is_estimated_with_a_warning() {
        let embedder = FakeEmbedder::new(4);
        let embedders = FakeEmbedders::new([embedder.clone()]);
        let mut models = Models::new(&embedders);
        let model = models.of(&spec("tidewheel")).await;
        assert_eq!(model.identity().map(|identity| identity.dimension), Some(4));
        embedder.faults().always("info", Fault::unreachable());
        assert!(models.of(&spec("tidewheel")).await.identity().is_some(), "asked once");
        assert!(models.warnings.is_empty());
        let other = EmbeddingSpec { model: "other".into(), ..spec("tidewheel") };
        assert!(models.of(&other).await.identity().is_none());
        assert!(models.warnings[0].starts_with("embedding \"default\" does not answer"), "{:?}", models.warnings);
    }

    fn report(tokens: u64, queued: u64) -> String {
        let embedder = json!({"tokens": tokens, "queued_tokens": queued});
        json!({"format": FORMAT, "figures": {"embedder": embedder}}).to_string()
    }

    #[tokio::test(start_paused = true)]
    async fn busy_embedders_are_measured_and_an_idle_one_embeds_the_sample() {
        let embedder = FakeEmbedder::new(4);
        let (embedders, reports) = (FakeEmbedders::new([embedder.clone()]), FakeReports::default());
        let model = Models::new(&embedders).of(&spec("tidewheel")).await;
        let inputs = ["one two".to_owned()];
        reports.publish("a", &report(1_000, 0));
        let (rate, from) = Rates::new(&reports).of(&spec("tidewheel"), &model, &inputs).await;
        assert!(rate.is_some() && from == RateSource::Sampled, "{rate:?}");
        assert_eq!(embedder.batches().len(), 1);
        reports.publish("a", &report(1_000, 500));
        let busy = reports.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            busy.publish("a", &report(5_000, 500));
        });
        let mut rates = Rates::new(&reports);
        let (rate, from) = rates.of(&spec("tidewheel"), &model, &inputs).await;
        assert!(rate.is_some_and(|rate| (1_990.0..=2_010.0).contains(&rate)), "{rate:?}");
        assert_eq!(from, RateSource::Measured);
        assert_eq!(rates.of(&spec("tidewheel"), &model, &inputs).await, (rate, RateSource::Measured), "looked at once");
        assert_eq!(rates.of(&spec("openai"), &model, &inputs).await, (None, RateSource::Unknown));
        assert_eq!(embedder.batches().len(), 1, "nothing else was embedded");
    }

    #[tokio::test]
    async fn throughput_of_a_model_that_does_not_answer_is_unknown() {
        let (embedders, reports) = (FakeEmbedders::new([]), FakeReports::default());
        let model = Models::new(&embedders).of(&spec(Provider::own().as_str())).await;
        let rate = Rates::new(&reports).of(&spec("tidewheel"), &model, &["one".to_owned()]).await;
        assert_eq!(rate, (None, RateSource::Unknown));
    }
}
