//! A checkpoint as human-readable hash fields.

use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Checkpoint, ResumeToken, SnapshotState};
use tidewheel_core::version::ClusterTime;

/// The hash's fields. All are always written; those that do not apply are empty. A missing field counts as empty: older
/// releases did not write it.
pub(super) const FIELDS: [&str; 11] = [
    "token",
    "time",
    "ordinal",
    "epoch",
    "selection",
    "snapshot",
    "snapshot_time",
    "snapshot_rows",
    "snapshot_namespace",
    "snapshot_key",
    "through",
];

/// The fields' values, in the order of [`FIELDS`]. Equal checkpoints have equal values.
pub(super) fn encode(checkpoint: &Checkpoint) -> [String; FIELDS.len()] {
    let (state, time, rows, after) = match &checkpoint.snapshot {
        SnapshotState::Running { time, after, rows } => ("running", time, rows, after.as_ref()),
        SnapshotState::Sweeping { time, rows, .. } => ("sweeping", time, rows, None),
        SnapshotState::Done { time, rows } => ("done", time, rows, None),
    };
    let (namespace, key) = match &checkpoint.snapshot {
        SnapshotState::Sweeping { after: Some(point), .. } => (String::new(), point.to_string()),
        _ => after.map_or_else(Default::default, |(namespace, key)| (namespace.as_str().to_owned(), key.clone())),
    };
    [
        checkpoint.token.0.clone(),
        write_time(checkpoint.last.0),
        checkpoint.last.1.to_string(),
        checkpoint.epoch.to_string(),
        checkpoint.selection.clone(),
        state.to_owned(),
        write_time(*time),
        rows.to_string(),
        namespace,
        key,
        if checkpoint.through == ClusterTime::default() { String::new() } else { write_time(checkpoint.through) },
    ]
}

/// Decodes a checkpoint, or returns the name of the invalid field.
pub(super) fn decode(values: [Option<String>; FIELDS.len()]) -> Result<Checkpoint, &'static str> {
    let mut fields = FIELDS.into_iter().zip(values);
    let mut next = || {
        let (field, value) = fields.next().expect("as many values are taken as there are fields");
        value.map(|value| (field, value)).ok_or(field)
    };
    let (_, token) = next()?;
    let last = read_time(next()?)?;
    let ordinal = number(next()?)?;
    let epoch = number(next()?)?;
    let (_, selection) = next()?;
    let (field, state) = next()?;
    let time = read_time(next()?)?;
    let rows = number(next()?)?;
    let (namespace_field, namespace) = next()?;
    let (key_field, key) = next()?;
    let through = match next() {
        Ok((_, through)) if through.is_empty() => ClusterTime::default(),
        Ok(through) => read_time(through)?,
        Err(_) => ClusterTime::default(),
    };
    let snapshot = match state.as_str() {
        "done" => SnapshotState::Done { time, rows },
        "sweeping" if key.is_empty() => SnapshotState::Sweeping { time, rows, after: None },
        "sweeping" => {
            let after = Some(key.parse().map_err(|_| key_field)?);
            SnapshotState::Sweeping { time, rows, after }
        }
        "running" if namespace.is_empty() => SnapshotState::Running { time, after: None, rows },
        "running" => {
            let namespace = Namespace::parse(&namespace).ok_or(namespace_field)?;
            SnapshotState::Running { time, after: Some((namespace, key)), rows }
        }
        _ => return Err(field),
    };
    Ok(Checkpoint { token: ResumeToken(token), last: (last, ordinal), through, epoch, selection, snapshot })
}

fn write_time(time: ClusterTime) -> String {
    format!("{}.{}", time.seconds, time.increment)
}

fn read_time((field, text): (&'static str, String)) -> Result<ClusterTime, &'static str> {
    let (seconds, increment) = text.split_once('.').ok_or(field)?;
    let part = |part: &str| part.parse().map_err(|_| field);
    Ok(ClusterTime { seconds: part(seconds)?, increment: part(increment)? })
}

fn number<T: std::str::FromStr>((field, text): (&'static str, String)) -> Result<T, &'static str> {
    text.parse().map_err(|_| field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(snapshot: SnapshotState) -> Checkpoint {
        Checkpoint {
            token: ResumeToken(r#"{"_data":"82"}"#.into()),
            last: (ClusterTime { seconds: 1_700_000_000, increment: 4 }, 2),
            through: ClusterTime { seconds: 1_700_000_001, increment: 0 },
            epoch: 1,
            selection: "shop.*".into(),
            snapshot,
        }
    }

    fn time() -> ClusterTime {
        ClusterTime { seconds: 1_600_000_000, increment: 9 }
    }

    #[test]
    fn checkpoint_round_trips_in_every_snapshot_state() {
        let after = Some((Namespace::new("shop", "tickets"), r#"{"$numberInt":"7"}"#.to_owned()));
        for snapshot in [
            SnapshotState::Running { time: time(), after: None, rows: 0 },
            SnapshotState::Running { time: time(), after, rows: 1000 },
            SnapshotState::Sweeping { time: time(), rows: 1500, after: None },
            SnapshotState::Sweeping { time: time(), rows: 1500, after: Some(uuid::Uuid::from_u128(7)) },
            SnapshotState::Done { time: time(), rows: 2000 },
        ] {
            let checkpoint = checkpoint(snapshot);
            assert_eq!(decode(encode(&checkpoint).map(Some)), Ok(checkpoint));
        }
    }

    #[test]
    fn checkpoint_fields_are_human_readable() {
        let values = encode(&checkpoint(SnapshotState::Done { time: time(), rows: 12 }));
        let shown: Vec<_> = FIELDS.iter().zip(&values).map(|(field, value)| format!("{field}={value}")).collect();
        assert_eq!(
            shown.join(" "),
            "token={\"_data\":\"82\"} time=1700000000.4 ordinal=2 epoch=1 selection=shop.* snapshot=done \
             snapshot_time=1600000000.9 snapshot_rows=12 snapshot_namespace= snapshot_key= \
             through=1700000001.0"
        );
    }

    #[test]
    fn checkpoint_of_older_release_decodes() {
        let older =
            Checkpoint { through: ClusterTime::default(), ..checkpoint(SnapshotState::Done { time: time(), rows: 1 }) };
        let mut values = encode(&older).map(Some);
        assert_eq!(values[10].take(), Some(String::new()), "scripts treat a missing field as empty");
        assert_eq!(decode(values), Ok(older));
    }

    #[test]
    fn decode_error_names_invalid_field() {
        let values = encode(&checkpoint(SnapshotState::Done { time: time(), rows: 12 })).map(Some);
        for (at, wrong) in [(1, "soon"), (2, "-1"), (3, "x"), (5, "paused"), (6, "1"), (7, "")] {
            let mut broken = values.clone();
            broken[at] = Some(wrong.into());
            assert_eq!(decode(broken), Err(FIELDS[at]));
            let mut missing = values.clone();
            missing[at] = None;
            assert_eq!(decode(missing), Err(FIELDS[at]));
        }
    }
}
