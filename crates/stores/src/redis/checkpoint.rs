//! A checkpoint as human-readable hash fields.

use tidewheel_core::catalog::Due;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Checkpoint, ResumeToken, SnapshotState, Swept};
use tidewheel_core::version::ClusterTime;

/// The hash's fields. All are always written; those that do not apply are empty. A missing field counts as empty: older
/// releases did not write it.
pub(super) const FIELDS: [&str; 13] = [
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
    "catalog",
    "scope",
];

/// The fields' values, in the order of [`FIELDS`]. Equal checkpoints have equal values.
pub(super) fn encode(checkpoint: &Checkpoint) -> [String; FIELDS.len()] {
    let (state, time, rows, after) = match &checkpoint.snapshot {
        SnapshotState::Running { time, after, rows } => ("running", time, rows, after.as_ref()),
        SnapshotState::Sweeping { time, rows, .. } => ("sweeping", time, rows, None),
        SnapshotState::Done { time, rows } => ("done", time, rows, None),
    };
    let (namespace, key) = match &checkpoint.snapshot {
        SnapshotState::Sweeping { after: Some(Swept { target, point }), .. } => {
            (target.as_ref().map_or_else(String::new, ToString::to_string), point.to_string())
        }
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
        if checkpoint.catalog == 0 { String::new() } else { checkpoint.catalog.to_string() },
        write_scope(&checkpoint.scope),
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
    let mut next_optional = || next().ok().filter(|(_, value)| !value.is_empty());
    let through = next_optional().map(read_time).transpose()?.unwrap_or_default();
    let catalog = next_optional().map(number).transpose()?.unwrap_or_default();
    let scope = next_optional().map(read_scope).transpose()?.unwrap_or_default();
    let snapshot = match state.as_str() {
        "done" => SnapshotState::Done { time, rows },
        "sweeping" if key.is_empty() => SnapshotState::Sweeping { time, rows, after: None },
        "sweeping" => {
            let target = (!namespace.is_empty()).then(|| namespace.parse().map_err(|_| namespace_field)).transpose()?;
            let point = key.parse().map_err(|_| key_field)?;
            SnapshotState::Sweeping { time, rows, after: Some(Swept { target, point }) }
        }
        "running" if namespace.is_empty() => SnapshotState::Running { time, after: None, rows },
        "running" => {
            let namespace = Namespace::parse(&namespace).ok_or(namespace_field)?;
            SnapshotState::Running { time, after: Some((namespace, key)), rows }
        }
        _ => return Err(field),
    };
    Ok(Checkpoint {
        token: ResumeToken(token),
        last: (last, ordinal),
        through,
        epoch,
        selection,
        snapshot,
        catalog,
        scope,
    })
}

/// A list of targets as JSON; empty without one.
fn write_scope(scope: &[Due]) -> String {
    if scope.is_empty() {
        return String::new();
    }
    serde_json::to_string(scope).expect("a list of strings is JSON")
}

fn read_scope((field, text): (&'static str, String)) -> Result<Vec<Due>, &'static str> {
    serde_json::from_str(&text).map_err(|_| field)
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
            catalog: 0,
            scope: Vec::new(),
        }
    }

    /// A checkpoint of a snapshot of two targets.
    fn scoped(snapshot: SnapshotState) -> Checkpoint {
        let scope = ["tickets.g3@17", "a.g1.g2@18"].map(|due| due.parse::<Due>().unwrap()).to_vec();
        Checkpoint { catalog: 1_764_489_600_123, scope, ..checkpoint(snapshot) }
    }

    fn time() -> ClusterTime {
        ClusterTime { seconds: 1_600_000_000, increment: 9 }
    }

    fn swept(target: Option<&str>) -> Swept {
        Swept { target: target.map(|target| target.parse().unwrap()), point: uuid::Uuid::from_u128(7) }
    }

    #[test]
    fn checkpoint_round_trips_in_every_snapshot_state() {
        let after = Some((Namespace::new("shop", "tickets"), r#"{"$numberInt":"7"}"#.to_owned()));
        for snapshot in [
            SnapshotState::Running { time: time(), after: None, rows: 0 },
            SnapshotState::Running { time: time(), after, rows: 1000 },
            SnapshotState::Sweeping { time: time(), rows: 1500, after: None },
            SnapshotState::Sweeping { time: time(), rows: 1500, after: Some(swept(None)) },
            SnapshotState::Sweeping { time: time(), rows: 1500, after: Some(swept(Some("tickets.g3"))) },
            SnapshotState::Done { time: time(), rows: 2000 },
        ] {
            for checkpoint in [checkpoint(snapshot.clone()), scoped(snapshot)] {
                assert_eq!(decode(encode(&checkpoint).map(Some)), Ok(checkpoint));
            }
        }
    }

    #[test]
    fn checkpoint_fields_are_human_readable() {
        let shown = |checkpoint: &Checkpoint| {
            let values = encode(checkpoint);
            let fields = FIELDS.iter().zip(&values).map(|(field, value)| format!("{field}={value}"));
            fields.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            shown(&checkpoint(SnapshotState::Done { time: time(), rows: 12 })),
            "token={\"_data\":\"82\"} time=1700000000.4 ordinal=2 epoch=1 selection=shop.* snapshot=done \
             snapshot_time=1600000000.9 snapshot_rows=12 snapshot_namespace= snapshot_key= \
             through=1700000001.0 catalog= scope="
        );
        let after = Some(swept(Some("tickets.g3")));
        let sweeping = shown(&scoped(SnapshotState::Sweeping { time: time(), rows: 12, after }));
        let expected = "snapshot_namespace=tickets.g3 snapshot_key=00000000-0000-0000-0000-000000000007 \
                        through=1700000001.0 catalog=1764489600123 scope=[\"tickets.g3@17\",\"a.g1.g2@18\"]";
        assert!(sweeping.ends_with(expected), "{sweeping}");
    }

    #[test]
    fn checkpoint_of_older_release_decodes() {
        let older =
            Checkpoint { through: ClusterTime::default(), ..checkpoint(SnapshotState::Done { time: time(), rows: 1 }) };
        let mut values = encode(&older).map(Some);
        for value in &mut values[10..] {
            assert_eq!(value.take(), Some(String::new()), "scripts treat a missing field as empty");
        }
        assert_eq!(decode(values), Ok(older));
    }

    #[test]
    fn decode_error_names_invalid_field() {
        let mut sweeping = encode(&checkpoint(SnapshotState::Sweeping {
            time: time(),
            rows: 12,
            after: Some(swept(Some("tickets.g3"))),
        }))
        .map(Some);
        for (at, wrong) in
            [(8, "tickets"), (9, "7"), (10, "soon"), (11, "-1"), (12, "tickets.g3@17"), (12, "[\"tickets.g3\"]")]
        {
            let sound = sweeping[at].replace(wrong.into());
            assert_eq!(decode(sweeping.clone()), Err(FIELDS[at]));
            sweeping[at] = sound;
        }
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
