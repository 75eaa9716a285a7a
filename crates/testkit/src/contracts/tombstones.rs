//! The contract of [`Tombstones`](tidewheel_core::ports::Tombstones).

use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Fence, FenceTarget};
use tidewheel_core::version::{ClusterTime, MAX_EPOCH, MAX_ORDINAL, Version};

use super::samples::change;
use super::streams::StreamsHarness;

fn document(number: u32) -> FenceTarget {
    FenceTarget::Document(change(number).document_id())
}

fn version(epoch: u32, seconds: u32, increment: u32, ordinal: u32) -> Version {
    Version { epoch, time: ClusterTime { seconds, increment }, ordinal, replay: 0 }
}

/// Nothing is known of what was never raised.
pub async fn what_was_never_deleted_has_no_version(harness: &dyn StreamsHarness) {
    let tombstones = harness.tombstones();
    assert_eq!(tombstones.of(&[document(1), document(2)]).await.unwrap(), [None, None]);
    assert_eq!(tombstones.of(&[]).await.unwrap(), []);
    tombstones.raise(&[]).await.unwrap();
}

/// Older versions that come late change nothing, also within one call.
pub async fn a_version_is_never_lowered(harness: &dyn StreamsHarness) {
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

/// Each part counts as a number, the first that differs decides.
pub async fn versions_are_compared_as_numbers(harness: &dyn StreamsHarness) {
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

/// Documents and namespaces keep their own versions, and answers come in the order of the question.
pub async fn targets_are_not_confused(harness: &dyn StreamsHarness) {
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

/// Old deletions of documents are forgotten, those of namespaces are not; none while a dead letter could bring one back.
pub async fn old_deletions_are_collected(harness: &dyn StreamsHarness) {
    let tombstones = harness.tombstones();
    let namespace = FenceTarget::Namespace(Namespace::new("shop", "tickets"));
    let raised: Vec<Fence> = (1..=3000u32)
        .map(|number| Fence { target: document(number), version: version(0, number, 1, 1) })
        .chain([Fence { target: namespace.clone(), version: version(0, 1, 1, 1) }])
        .collect();
    tombstones.raise(&raised).await.unwrap();
    let letter = harness.add_raw(tidewheel_core::streams::RAW_DEAD_LETTERS, vec![(b"a".into(), b"b".into())]).await;
    assert_eq!(tombstones.collect(version(0, 9999, 0, 0)).await.unwrap(), 0, "there is a dead letter");
    harness.delete_entry(tidewheel_core::streams::RAW_DEAD_LETTERS, &letter).await;
    assert_eq!(tombstones.collect(version(0, 2001, 1, 1)).await.unwrap(), 2000);
    assert_eq!(tombstones.collect(version(0, 2001, 1, 1)).await.unwrap(), 0);
    let known = tombstones.of(&[document(2000), document(2001), namespace]).await.unwrap();
    assert_eq!(known, [None, Some(version(0, 2001, 1, 1)), Some(version(0, 1, 1, 1))]);
}
