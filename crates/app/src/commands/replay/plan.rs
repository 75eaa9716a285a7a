//! Plans a replay and rejects invalid ones.

use serde::Serialize;
use tidewheel_core::ports::{Checkpoint, EmbedderInfo, Extent, Named};
use tidewheel_core::stage::Stage;

use crate::cli::{ReplayArgs, ReplayFrom};
use crate::exit::Failure;
use crate::times;

/// Input of the plan.
pub(super) struct Facts {
    pub(super) raw: Extent,
    pub(super) embedded: Extent,
    /// `None` if nothing is embedded.
    pub(super) embedder: Option<EmbedderInfo>,
    /// `qdrant.collection`, and what the name resolves to.
    pub(super) collection: String,
    pub(super) resolved: Named,
    /// The new collection with its number of points, which is `None` if it does not exist.
    pub(super) into: Option<(String, Option<u64>)>,
    /// The model of the newest vectors in stage 2, and whether a running processor adds more of them.
    pub(super) model: Option<String>,
    pub(super) processors: bool,
    pub(super) checkpoint: Option<Checkpoint>,
}

/// The plan of a replay.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Plan {
    from: String,
    through: String,
    into: String,
    /// The alias that is switched at the end.
    pub(super) alias: Option<String>,
    pub(super) warnings: Vec<String>,
    pub(super) afterwards: String,
}

impl Plan {
    pub(super) fn lines(&self) -> [(&'static str, &str); 3] {
        [("from", &self.from), ("through", &self.through), ("into", &self.into)]
    }
}

/// Plans the replay. Rejects contradictory arguments and replays that would leave a new collection incomplete.
pub(super) fn plan(args: &ReplayArgs, since: Option<u64>, facts: &Facts) -> Result<Plan, Failure> {
    if args.filter.is_some() && args.from != ReplayFrom::Source {
        return Err(Failure::new("invalid --filter: a MongoDB query requires `replay source`")
            .with_hint("remove --filter, or replay the source"));
    }
    let stage = match args.from {
        ReplayFrom::Embedded => Some((Stage::Embedded.name(), &facts.embedded)),
        ReplayFrom::Raw => Some((Stage::Raw.name(), &facts.raw)),
        ReplayFrom::Source => None,
    };
    if let Some((stream, extent)) = stage
        && extent.entries == 0
    {
        return Err(Failure::new(format!("no entries to replay in {stream}"))
            .with_hint("run `tidewheel replay source` to read MongoDB again"));
    }
    if facts.checkpoint.is_none() && args.from == ReplayFrom::Source {
        return Err(Failure::new("nothing to replay: no producer has run on this Redis yet")
            .with_hint("run `tidewheel run`: its first start takes an initial snapshot"));
    }
    let mut warnings = Vec::new();
    if let (Some((stream, extent)), Some(_), None) = (stage, &facts.into, since)
        && !extent.whole
    {
        return Err(Failure::new(format!(
            "{stream} no longer holds its complete history: a new collection would be incomplete"
        ))
        .with_hint("run `tidewheel replay source --into`, or raise streams.retention_* to keep more entries"));
    }
    let from = match stage {
        Some((stream, extent)) => {
            let what = match since {
                Some(since) => format!("entries since {}", times::show(since)),
                None if extent.whole => format!("all {} entries, the complete history", extent.entries),
                None => format!("the {} retained entries", extent.entries),
            };
            format!("{stream}: {what}")
        }
        None => match (since, &args.filter) {
            (Some(since), _) => {
                format!("MongoDB: changes committed since {}, from the oplog", times::show(since))
            }
            (None, Some(filter)) => format!("MongoDB: every document that matches {filter}"),
            (None, None) => "MongoDB: every document".to_owned(),
        },
    };
    let through = match &facts.embedder {
        Some(info) => format!("embedder with model {} ({} dimensions)", info.model, info.dimension),
        None => "no embedder: the stored vectors are reused".to_owned(),
    };
    let Some((name, points)) = &facts.into else {
        return Ok(Plan {
            from,
            through,
            into: format!("live collection {:?}; newer changes win", facts.collection),
            alias: None,
            warnings,
            afterwards: "the services process the replay: run `tidewheel status` to see the progress".to_owned(),
        });
    };
    let live = if let Named::Alias(collection) = &facts.resolved { collection } else { &facts.collection };
    if name == live || *name == facts.collection {
        return Err(Failure::new(format!("invalid --into {name:?}: it is the live collection"))
            .with_hint("choose an unused name, or remove --into"));
    }
    if let (Some(info), Some(model)) = (&facts.embedder, &facts.model)
        && info.model != *model
        && facts.processors
    {
        return Err(Failure::new(format!(
            "the processors embed with {model}, this replay with {}: vectors of concurrent changes would be incompatible",
            info.model
        ))
        .with_hint(
            "stop the processors and retry after 30 s: stage 1 buffers changes, and new processors embed them with the new model",
        ));
    }
    if let Some(points @ 1..) = points {
        warnings.push(format!("{name:?} already exists; its {points} points are kept"));
    }
    if since.is_some() || args.filter.is_some() {
        warnings.push("the new collection will contain only a part of the documents".to_owned());
    }
    // An alias cannot have the name of an existing collection.
    let alias = (facts.resolved != Named::Collection).then(|| facts.collection.clone());
    let (into, afterwards) = match &alias {
        Some(alias) => (
            format!(
                "new collection {name:?}, including concurrent changes; then the alias {alias:?} is switched to it"
            ),
            match &facts.resolved {
                Named::Alias(old) => {
                    format!("alias {alias:?} switched to {name:?}; delete {old:?} when you no longer need it")
                }
                _ => format!("alias {alias:?} switched to {name:?}"),
            },
        ),
        None => (
            format!("new collection {name:?}, including concurrent changes"),
            format!("set qdrant.collection to {name:?} and restart the services: they compare it with MongoDB"),
        ),
    };
    if alias.is_none() {
        warnings.push(format!(
            "{:?} is a collection, not an alias, and cannot be switched: change qdrant.collection after the replay",
            facts.collection
        ));
    }
    Ok(Plan { from, through, into, alias, warnings, afterwards })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use tidewheel_core::ports::{EntryId, ResumeToken, SnapshotState};
    use tidewheel_core::version::ClusterTime;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(line: &str) -> ReplayArgs {
        let words = ["tidewheel", "replay"].into_iter().chain(line.split(' '));
        match Cli::try_parse_from(words).unwrap().command {
            Command::Replay(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn extent(entries: u64, whole: bool) -> Extent {
        Extent { first: None, last: EntryId("7-0".into()), entries, whole }
    }

    fn facts() -> Facts {
        let time = ClusterTime { seconds: 1, increment: 1 };
        Facts {
            raw: extent(10, true),
            embedded: extent(20, false),
            embedder: Some(EmbedderInfo {
                model: "minilm".into(),
                revision: "1".into(),
                dimension: 384,
                max_tokens: 254,
            }),
            collection: "documents".into(),
            resolved: Named::Alias("documents_1".into()),
            into: None,
            model: Some("minilm".into()),
            processors: true,
            checkpoint: Some(Checkpoint {
                token: ResumeToken(String::new()),
                last: (time, 1),
                through: time,
                epoch: 0,
                selection: String::new(),
                snapshot: SnapshotState::Done { time, rows: 0 },
            }),
        }
    }

    #[test]
    fn plan_describes_source_embedder_and_target() {
        let plan = plan(&args("raw"), None, &facts()).unwrap();
        assert_eq!(plan.lines()[0].1, "raw_document_changes: all 10 entries, the complete history");
        assert!(plan.lines()[1].1.contains("minilm (384 dimensions)"));
        assert!(plan.lines()[2].1.contains("live collection \"documents\""));
        assert_eq!((plan.alias, plan.warnings), (None, vec![]));
    }

    #[test]
    fn alias_is_switched_to_a_new_collection() {
        let facts = Facts { into: Some(("documents_2".into(), None)), ..facts() };
        let planned = plan(&args("source --into documents_2"), None, &facts).unwrap();
        assert_eq!(planned.alias.as_deref(), Some("documents"));
        assert!(planned.afterwards.contains("documents_1"), "{}", planned.afterwards);
        let facts = Facts { resolved: Named::Collection, ..facts };
        let planned = plan(&args("source --into documents_2"), None, &facts).unwrap();
        assert_eq!((planned.alias, planned.warnings.len()), (None, 1));
        assert!(planned.afterwards.contains("qdrant.collection"));
    }

    #[test]
    fn invalid_replays_are_rejected_with_a_hint() {
        let into = |name: &str| Facts { into: Some((name.into(), None)), ..facts() };
        let other_model = Facts { model: Some("bge".into()), ..into("documents_2") };
        let stopped = Facts { processors: false, model: Some("bge".into()), ..into("documents_2") };
        assert!(
            plan(&args("source --into documents_2"), None, &stopped).is_ok(),
            "no processor adds such vectors any more"
        );
        let cases = [
            (args("raw --filter {}"), facts(), "--filter"),
            (args("raw"), Facts { raw: extent(0, true), ..facts() }, "no entries"),
            (args("source"), Facts { checkpoint: None, ..facts() }, "no producer"),
            (args("embedded --into documents_2"), into("documents_2"), "incomplete"),
            (args("source --into documents_1"), into("documents_1"), "live collection"),
            (args("source --into documents"), into("documents"), "live collection"),
            (args("source --into documents_2"), other_model, "bge"),
        ];
        for (args, facts, part) in cases {
            let failure = plan(&args, None, &facts).unwrap_err();
            assert!(failure.message.contains(part), "{failure}");
            assert!(failure.hint.is_some());
        }
    }
}
