//! The contract of [`Tombstones`].

use std::time::Duration;

use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Fence, FenceTarget, Tombstones};
use tidewheel_core::version::{ClusterTime, MAX_EPOCH, MAX_ORDINAL, Version};

use super::samples::change;
use super::streams::StreamsHarness;

const HOUR: Duration = Duration::from_secs(3600);

fn document(number: u32) -> FenceTarget {
    FenceTarget::Document(change(number).document_id())
}

fn version(epoch: u32, seconds: u32, increment: u32, ordinal: u32) -> Version {
    Version { epoch, time: ClusterTime { seconds, increment }, ordinal, replay: 0 }
}

/// A target without a tombstone has no version.
pub async fn undeleted_targets_have_no_version(harness: &dyn StreamsHarness) {
    let tombstones = harness.tombstones();
    assert_eq!(tombstones.of(&[document(1), document(2)]).await.unwrap(), [None, None]);
    assert_eq!(tombstones.of(&[]).await.unwrap(), []);
    tombstones.raise(&[]).await.unwrap();
}

/// Late older versions change nothing, also within one call.
pub async fn tombstone_version_is_never_lowered(harness: &dyn StreamsHarness) {
    let tombstones = harness.tombstones();
    let (old, new) = (version(0, 7, 1, 1), version(0, 7, 2, 1));
    let raise = |versions: &[Version]| -> Vec<Fence> {
        versions.iter().map(|version| Fence { target: document(1), version: *version }).collect()
    };
    for versions in [&[new][..], &[old], &[new, old], &[old, new]] {
        tombstones.raise(&raise(versions)).await.unwrap();
        assert_eq!(tombstones.of(&[document(1)]).await.unwrap(), [Some(new)], "{versions:?}");
    }
}

/// Parts are compared as numbers; the first difference decides.
pub async fn versions_are_compared_numerically(harness: &dyn StreamsHarness) {
    let tombstones = harness.tombstones();
    let rising = [
        version(0, 0, 0, 0),
        version(0, 0, 0, 9),
        version(0, 0, 0, 10),
        version(0, 9, u32::MAX, MAX_ORDINAL),
        version(0, 10, 0, 0),
        version(0, u32::MAX - 1, 1, 0),
        version(0, u32::MAX, 0, 0),
        version(2, 0, 0, 0),
        version(10, 0, 0, 0),
        version(MAX_EPOCH, u32::MAX, u32::MAX, MAX_ORDINAL - 1),
        version(MAX_EPOCH, u32::MAX, u32::MAX, MAX_ORDINAL),
        Version { replay: 9, ..version(MAX_EPOCH, u32::MAX, u32::MAX, MAX_ORDINAL) },
        Version { replay: 10, ..version(MAX_EPOCH, u32::MAX, u32::MAX, MAX_ORDINAL) },
    ];
    for (number, pair) in (1..).zip(rising.windows(2)) {
        for version in [pair[0], pair[1], pair[0]] {
            tombstones.raise(&[Fence { target: document(number), version }]).await.unwrap();
        }
        assert_eq!(tombstones.of(&[document(number)]).await.unwrap(), [Some(pair[1])]);
    }
}

/// Documents and namespaces have separate versions, returned in the requested order.
pub async fn targets_have_separate_tombstones(harness: &dyn StreamsHarness) {
    let tombstones = harness.tombstones();
    let namespace = |collection| FenceTarget::Namespace(Namespace::new("shop", collection));
    let fences = [
        Fence { target: document(1), version: version(0, 1, 0, 0) },
        Fence { target: namespace("tickets"), version: version(0, 2, 0, 0) },
        Fence { target: namespace("tickets.old"), version: version(0, 3, 0, 0) },
    ];
    tombstones.raise(&fences).await.unwrap();
    let asked = [namespace("tickets.old"), document(2), document(1), namespace("tickets"), document(1)];
    let known = tombstones.of(&asked).await.unwrap();
    let seconds: Vec<_> = known.iter().map(|version| version.map(|version| version.time.seconds)).collect();
    assert_eq!(seconds, [Some(3), None, Some(1), Some(2), Some(1)]);
}

/// The time of the streams, after every tombstone raised so far.
async fn now(harness: &dyn StreamsHarness) -> u64 {
    tokio::time::sleep(Duration::from_millis(5)).await;
    harness.journal().positions().await.unwrap().at
}

/// Collects all pages.
async fn collect(tombstones: &dyn Tombstones, grace: Duration, settled: u64) -> u64 {
    let mut forgotten = 0;
    loop {
        let page = tombstones.collect(grace, settled).await.unwrap();
        forgotten += page.forgotten;
        if !page.more {
            return forgotten;
        }
    }
}

/// Tombstones of documents are collected by recording time, regardless of version; those of namespaces are kept.
pub async fn tombstones_are_collected_by_recording_time(harness: &dyn StreamsHarness) {
    let tombstones = harness.tombstones();
    let namespace = FenceTarget::Namespace(Namespace::new("shop", "tickets"));
    let fences: Vec<Fence> = (1..=3000u32)
        .map(|number| Fence { target: document(number), version: version(0, number, 1, 1) })
        .chain([Fence { target: namespace.clone(), version: version(0, 1, 1, 1) }])
        .collect();
    tombstones.raise(&fences).await.unwrap();
    let settled = now(harness).await;
    tombstones.raise(&[Fence { target: document(1), version: version(0, 1, 1, 2) }]).await.unwrap();
    tombstones.raise(&[Fence { target: document(5000), version: version(0, 1, 1, 1) }]).await.unwrap();
    assert_eq!(collect(&*tombstones, HOUR, now(harness).await).await, 0, "their grace period is not over");
    assert_eq!(collect(&*tombstones, Duration::ZERO, settled).await, 2999);
    assert_eq!(collect(&*tombstones, Duration::ZERO, settled).await, 0);
    let known = tombstones.of(&[document(2), document(3000), document(1), document(5000), namespace]).await.unwrap();
    let kept = [Some(version(0, 1, 1, 2)), Some(version(0, 1, 1, 1)), Some(version(0, 1, 1, 1))];
    assert_eq!(known, [None, None, kept[0], kept[1], kept[2]], "tombstones recorded after the barrier are kept");
    assert_eq!(collect(&*tombstones, Duration::ZERO, now(harness).await).await, 2);
}

/// A dead letter does not block the collection.
pub async fn tombstones_are_collected_despite_dead_letters(harness: &dyn StreamsHarness) {
    let tombstones = harness.tombstones();
    tombstones.raise(&[Fence { target: document(1), version: version(0, 1, 1, 1) }]).await.unwrap();
    harness.add_raw(tidewheel_stores::redis::keys::RAW_DEAD_LETTERS, vec![(b"a".into(), b"b".into())]).await;
    assert_eq!(collect(&*tombstones, Duration::ZERO, now(harness).await).await, 1);
}
