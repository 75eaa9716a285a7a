//! Trace spans of changes.

use serde_json::json;
use tidewheel_core::change::Operation;
use tidewheel_core::error::{Cause, PortError, Server};
use tidewheel_core::identity::Namespace;
use tidewheel_core::trace::{ChangeTrace, SamplingRatio, Span, SpanKind, Tracer, Value};
use tidewheel_core::version::Version;
use tidewheel_testkit::fakes::faults::{Fault, Gate};
use tidewheel_testkit::fakes::spans::FakeSpans;

use crate::world::{CHUNK, DATABASE, PROCESSOR, UPSERTER, World, document, seconds, until};

/// A calm world that samples this ratio of traces.
fn traced(ratio: f64) -> (World, FakeSpans) {
    let (mut world, spans) = (World::calm(), FakeSpans::default());
    world.tracer = Some(Tracer::new(SamplingRatio::new(ratio), std::sync::Arc::new(spans.clone())));
    (world, spans)
}

fn text<'s>(span: &'s Span, name: &str) -> Option<&'s str> {
    span.attributes.iter().find(|(found, _)| *found == name).map(|(_, value)| match value {
        Value::Word(word) => *word,
        Value::Text(text) => text,
        Value::Number(_) => panic!("{name} is a number"),
    })
}

fn number(span: &Span, name: &str) -> Option<u64> {
    span.attributes.iter().find(|(found, _)| *found == name).map(|(_, value)| match value {
        Value::Number(number) => *number,
        other => panic!("{name} is {other:?}"),
    })
}

/// The roots of this operation, in order.
fn roots(spans: &FakeSpans, operation: Operation) -> Vec<Span> {
    let mut all = spans.all();
    all.retain(|span| span.parent.is_none() && text(span, "tidewheel.operation") == Some(operation.as_str()));
    all
}

/// The trace derived from the attributes of a root span.
fn trace(root: &Span) -> ChangeTrace {
    let namespace = Namespace::parse(text(root, "tidewheel.namespace").unwrap()).unwrap();
    let version: Version = text(root, "tidewheel.version").unwrap().parse().unwrap();
    ChangeTrace::of(&namespace, text(root, "tidewheel.key").unwrap(), version)
}

/// The spans of a root's trace called `name`.
fn called(spans: &FakeSpans, root: &Span, name: &str) -> Vec<Span> {
    spans.of(trace(root)).into_iter().filter(|span| span.name == name).collect()
}

fn outcomes(spans: &[Span]) -> Vec<&str> {
    spans.iter().filter_map(|span| text(span, "tidewheel.outcome")).collect()
}

#[tokio::test(start_paused = true)]
async fn change_is_traced_across_both_stages() {
    let (mut world, spans) = traced(1.0);
    world.start_all();
    seconds(3.0).await;
    let words = ["ebb"; CHUNK].join(" ") + " " + &["flow"; CHUNK].join(" ");
    let state = |state| json!({"_id": 1, "text": words, "state": state});
    world.source.insert("tickets", state("open"));
    world.settle("an insert").await;
    world.source.replace("tickets", state("closed"));
    world.settle("another payload").await;
    world.source.delete("tickets", json!(1));
    world.settle("a deletion").await;

    for (operation, processed, upserted) in [
        (Operation::Insert, "embedded", "written"),
        (Operation::Replace, "embedded", "refreshed"),
        (Operation::Delete, "passed_on", "deleted"),
    ] {
        let found = roots(&spans, operation);
        let [root] = &found[..] else { panic!("{operation}: {found:?}") };
        let (derived, is_insert) = (trace(root), operation == Operation::Insert);
        assert_eq!(
            (root.trace, root.id, root.name, root.kind),
            (derived.id, derived.root, "change", SpanKind::Producer)
        );
        assert_eq!(text(root, "db.collection.name"), Some("tickets"));
        let (process, upsert) = (called(&spans, root, "process"), called(&spans, root, "upsert"));
        assert_eq!((outcomes(&process), outcomes(&upsert)), (vec![processed], vec![upserted]));
        for span in [&process[0], &upsert[0]] {
            assert_eq!((span.parent, span.kind, &span.error), (Some(root.id), SpanKind::Consumer, &None));
        }
        assert!(root.began <= root.ended && root.ended <= process[0].ended, "{root:?} {process:?}");
        assert!(process[0].began <= process[0].ended && process[0].ended <= upsert[0].ended);
        // The embedder was called once: the vectors of the second state were in the index.
        let embed = called(&spans, root, "embed");
        assert_eq!(embed.len(), usize::from(is_insert));
        if let [embed] = &embed[..] {
            assert_eq!((embed.parent, embed.kind), (Some(process[0].id), SpanKind::Client));
            let numbers = ["tidewheel.chunks", "tidewheel.vectors.from_index"].map(|name| number(embed, name));
            assert_eq!(numbers, [Some(2), Some(0)]);
            assert!(process[0].began <= embed.began && embed.ended <= process[0].ended);
        }
        if operation == Operation::Replace {
            assert_eq!(number(&process[0], "tidewheel.vectors.from_index"), Some(2));
        }
        assert_eq!(spans.of(derived).len(), 3 + usize::from(is_insert));
    }
}

#[tokio::test(start_paused = true)]
async fn superseded_change_has_superseded_outcome() {
    let (mut world, spans) = traced(1.0);
    world.start_all();
    seconds(3.0).await;
    world.source.insert("tickets", document(1, "calm", 1));
    world.settle("an insert").await;
    world.kill(PROCESSOR);
    for word in ["ebb", "flow", "tide"] {
        world.source.replace("tickets", document(1, word, 1));
    }
    seconds(3.0).await;
    world.start(PROCESSOR);
    world.settle("three states").await;
    let all: Vec<Span> = roots(&spans, Operation::Replace).iter().flat_map(|r| called(&spans, r, "process")).collect();
    assert_eq!(outcomes(&all), ["superseded", "superseded", "embedded"]);
}

#[tokio::test(start_paused = true)]
async fn span_of_a_parked_change_has_its_reason() {
    let (mut world, spans) = traced(1.0);
    world.start_all();
    seconds(3.0).await;
    world.embedder.poison(["bane"; CHUNK].join(" "));
    world.source.insert("tickets", document(1, "bane", 1));
    world.source.insert("tickets", document(2, "boon", 1));
    let recorded =
        || roots(&spans, Operation::Insert).iter().flat_map(|root| called(&spans, root, "process")).count() == 2;
    until("both are recorded", recorded).await;
    seconds(3.0).await;
    let inserts = roots(&spans, Operation::Insert);
    let [bad, good] = &inserts[..] else { panic!("{inserts:?}") };
    let process = called(&spans, bad, "process");
    assert_eq!(outcomes(&process), ["parked"]);
    assert_eq!(text(&process[0], "error.type"), Some("poison"));
    assert!(process[0].error.as_ref().unwrap().contains("cannot be embedded"), "{process:?}");
    let embed = called(&spans, bad, "embed");
    assert_eq!((text(&embed[0], "error.type"), embed[0].error.is_some()), (Some("poison"), true));
    assert!(called(&spans, bad, "upsert").is_empty());
    assert_eq!(outcomes(&called(&spans, good, "upsert")), ["written"]);

    // A change that the producer parks has no other span.
    let refused = PortError::transient("injected: ERR forbidden word").because(Server::opaque("redis"), Cause::Refused);
    world.streams.reject(["barred"; CHUNK].join(" "), refused);
    world.source.insert("tickets", document(3, "barred", 1));
    until("the root is recorded", || roots(&spans, Operation::Insert).len() == 3).await;
    let root = roots(&spans, Operation::Insert).remove(2);
    assert_eq!((root.id, outcomes(std::slice::from_ref(&root))), (trace(&root).root, vec!["parked"]));
    assert_eq!(text(&root, "error.type"), Some("poison"));
    assert!(root.error.as_ref().unwrap().contains("forbidden word"), "{root:?}");
    assert_eq!(spans.of(trace(&root)).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn interrupted_batch_emits_no_spans() {
    let (mut world, spans) = traced(1.0);
    world.start_all();
    seconds(3.0).await;
    world.streams.faults().once("hand_over", Fault::Held(Gate::closed()));
    world.source.insert("tickets", document(1, "calm", 1));
    until("the embedder has responded", || world.streams.faults().hits("hand_over") == 1).await;
    world.kill(PROCESSOR);
    seconds(1.0).await;
    assert!(spans.all().iter().all(|span| span.name == "change"), "{:?}", spans.all());
    world.start(PROCESSOR);
    world.settle("by another processor").await;
    let root = &roots(&spans, Operation::Insert)[0];
    let (process, embed) = (called(&spans, root, "process"), called(&spans, root, "embed"));
    assert_eq!((process.len(), embed.len(), embed[0].parent), (1, 1, Some(process[0].id)));
}

#[tokio::test(start_paused = true)]
async fn late_write_has_fenced_outcome() {
    let (mut world, spans) = traced(1.0);
    (world.consumer.batch, world.consumer.concurrency) = (1, 1);
    world.start_all();
    seconds(3.0).await;
    let gate = Gate::closed();
    world.index.faults().once("upsert", Fault::Held(gate.clone()));
    world.source.insert("tickets", document(1, "early", 2));
    until("the first write is held", || world.index.faults().hits("upsert") == 1).await;
    world.start(UPSERTER);
    world.source.delete("tickets", json!(1));
    let deleted = || roots(&spans, Operation::Delete).iter().any(|root| !called(&spans, root, "upsert").is_empty());
    until("the deletion is recorded", deleted).await;
    gate.open();
    world.settle("both").await;
    let inserts = roots(&spans, Operation::Insert);
    let [insert] = &inserts[..] else { panic!("{inserts:?}") };
    assert_eq!(outcomes(&called(&spans, insert, "upsert")), ["fenced"]);
}

#[tokio::test(start_paused = true)]
async fn trace_is_recorded_completely_or_not_at_all() {
    let (mut world, spans) = traced(0.3);
    world.start_all();
    seconds(3.0).await;
    for id in 0..100 {
        world.source.insert("tickets", document(id, "many", 1));
    }
    world.settle("a hundred").await;
    let inserts = roots(&spans, Operation::Insert);
    assert!((5..70).contains(&inserts.len()), "{} of 100", inserts.len());
    for root in &inserts {
        assert_eq!(called(&spans, root, "process").len(), 1);
        assert_eq!(called(&spans, root, "upsert").len(), 1);
    }
    let known: std::collections::HashSet<_> = inserts.iter().map(|root| root.trace).collect();
    assert!(spans.all().iter().all(|span| known.contains(&span.trace)));
    assert!(inserts.iter().all(|root| text(root, "db.namespace") == Some(DATABASE)));
}
