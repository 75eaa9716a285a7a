//! The contracts of [`StageInspector`](tidewheel_core::ports::StageInspector),
//! [`EntryFinder`](tidewheel_core::ports::EntryFinder), [`ReportReader`](tidewheel_core::ports::ReportReader) and
//! [`QueueServerInspector`](tidewheel_core::ports::QueueServerInspector).

use std::time::Duration;

use tidewheel_core::change::{Change, Operation};
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{DeadLetter, EntryState};
use tidewheel_core::report::{FORMAT, Figures, ProcessReport, ProcessorReport, ServiceReport};
use tidewheel_core::stage::Stage;

use super::samples::{change, changes, embedded};
use super::streams::{NOW, StreamsHarness, append, stage_1};

/// Of the document and of its whole collection, newest first.
pub async fn entries_of_a_document_are_found_with_their_state(harness: &dyn StreamsHarness) {
    append(harness, 1..=3).await;
    let stream_log = harness.stream_log();
    stream_log.append(&changes(2..=2)).await.unwrap();
    let drop =
        Change { operation: Operation::Drop, key: String::new(), id: String::new(), document: None, ..change(9) };
    stream_log.append(&[drop]).await.unwrap();
    let queue = stage_1(harness, "anna");
    let read = queue.read(3, NOW).await.unwrap();
    queue.acknowledge(&[read[0].id.clone()]).await.unwrap();

    let finder = harness.finder();
    let of = |number| vec![(change(number).namespace, change(number).key)];
    let found = finder.entries_of(Stage::Raw, &of(2), 100).await.unwrap();
    assert_eq!((found.looked_at, found.complete), (5, true));
    let states: Vec<_> = found.entries.iter().map(|entry| entry.state.clone()).collect();
    assert_eq!(states[..2], [EntryState::Waiting, EntryState::Waiting], "the drop, and the second insert");
    assert!(
        matches!(&states[2], EntryState::Pending { consumer, deliveries: 1, .. } if consumer == "anna"),
        "{states:?}"
    );
    assert_eq!(found.entries[1].change, Ok(change(2)));
    assert!(found.entries[0].is_drop && !found.entries[1].is_drop);
    let found = finder.entries_of(Stage::Raw, &of(1), 100).await.unwrap();
    assert_eq!(found.entries.last().unwrap().state, EntryState::Confirmed);
    // An incomplete scan is reported.
    let found = finder.entries_of(Stage::Raw, &of(1), 2).await.unwrap();
    assert_eq!((found.looked_at, found.complete, found.entries.len()), (2, false, 1));
    let other = [(Namespace::new("shop", "notes"), change(1).key)];
    assert!(finder.entries_of(Stage::Raw, &other, 100).await.unwrap().entries.is_empty());
}

/// Vectors can be megabytes.
pub async fn found_entries_omit_vectors_and_dead_letters_are_found(harness: &dyn StreamsHarness) {
    let finder = harness.finder();
    let of = [(change(7).namespace, change(7).key)];
    assert!(finder.entries_of(Stage::Embedded, &of, 100).await.unwrap().complete, "the stream does not exist");
    harness.handover().hand_over(&[embedded(7), embedded(8)], &[]).await.unwrap();
    let found = finder.entries_of(Stage::Embedded, &of, 100).await.unwrap();
    let [entry] = &found.entries[..] else { panic!("{found:?}") };
    assert!(entry.embedding.iter().all(|(name, _)| name != "vectors" && name != "document"), "{entry:?}");
    assert!(entry.embedding.contains(&("model".into(), embedded(7).model)), "{entry:?}");
    assert_eq!((entry.chunks, &entry.change), (Some(embedded(7).chunks.len()), &Ok(embedded(7).change)));
    assert_eq!((entry.namespace.as_str(), entry.key.as_str()), (of[0].0.as_str(), of[0].1.as_str()));
    let queue = harness.embedded("b");
    let read = queue.read(10, NOW).await.unwrap();
    let letter = |id| DeadLetter::new(id, "it was refused", 1);
    queue.park(&[letter(read[0].id.clone())]).await.unwrap();
    let letters = finder.letters_of(Stage::Embedded, &of, 100).await.unwrap();
    let parked = letters.entries[0].parked.as_ref().unwrap();
    assert!(parked.reason == "it was refused" && parked.parked_at > 0, "{parked:?}");
}

/// Only while the lease is held.
pub async fn leader_is_the_holder_of_the_lease(harness: &dyn StreamsHarness) {
    let (journal, stages) = (harness.journal(), harness.stages());
    assert_eq!(stages.leader().await.unwrap(), None);
    assert!(journal.lease("anna", Duration::from_secs(60)).await.unwrap());
    assert_eq!(stages.leader().await.unwrap().as_deref(), Some("anna"));
    journal.release("anna").await.unwrap();
    assert_eq!(stages.leader().await.unwrap(), None);
}

/// The server is known by its address and version.
pub async fn memory_of_the_server_grows_with_its_entries(harness: &dyn StreamsHarness) {
    const BYTES: usize = 8 << 20;
    let server = harness.queue_server();
    let before = server.queue_server().await.unwrap();
    assert!(!before.address.is_empty() && !before.version.is_empty() && before.memory_bytes > 0, "{before:?}");
    harness.add_raw(Stage::Raw.name(), vec![(b"large".to_vec(), vec![b'x'; BYTES])]).await;
    let after = server.queue_server().await.unwrap();
    // Redis frees buffers meanwhile.
    assert!(after.memory_bytes >= before.memory_bytes + BYTES as u64 / 2, "{before:?} {after:?}");
}

/// Neither a report of another release nor an undecodable value hides the other reports.
pub async fn reports_of_processes_are_decoded_until_withdrawn(harness: &dyn StreamsHarness) {
    let reader = harness.reports();
    assert!(reader.reports().await.unwrap().is_empty());
    let figures =
        Figures { processor: Some(ProcessorReport { progressed_at: 1.5, tokens_saved: 7 }), ..Figures::default() };
    let report = ProcessReport {
        format: FORMAT,
        version: "1".into(),
        layout: Some(2),
        up_seconds: 2.5,
        operations: None,
        services: vec![ServiceReport { service: "processor".into(), ready: true, reasons: Vec::new() }],
        figures: Some(figures.clone()),
    };
    harness.publish("host-1", "{}").await;
    harness.publish("host-1", &serde_json::to_string(&report).unwrap()).await;
    harness.publish("host-2", r#"{"version": "0.0.9", "measured": {}}"#).await;
    harness.publish("host-3", "no report").await;
    let mut found = reader.reports().await.unwrap();
    found.sort_by(|a, b| a.process.cmp(&b.process));
    let [one, two] = &found[..] else { panic!("{found:?}") };
    assert_eq!((one.process.as_str(), two.process.as_str()), ("host-1", "host-2"));
    assert_eq!((&one.report.figures, &one.report.services), (&Some(figures), &report.services));
    assert!(one.age_ms < 60_000 && two.report.figures.is_none(), "{found:?}");
    harness.publish("host-1", "").await;
    assert_eq!(reader.reports().await.unwrap().len(), 1);
}
