//! Decides what a replay would do, and whether it makes sense.

use serde::Serialize;
use tidewheel_core::ports::{Checkpoint, EmbedderInfo, Extent, Named};
use tidewheel_core::streams::{EMBEDDED, RAW};

use crate::cli::{ReplayArgs, ReplayFrom};
use crate::exit::Failure;
use crate::times;

/// What the plan depends on.
pub(super) struct Facts {
    pub(super) raw: Extent,
    pub(super) embedded: Extent,
    /// Unless nothing is embedded anew.
    pub(super) embedder: Option<EmbedderInfo>,
    /// `qdrant.collection`, and what that name stands for.
    pub(super) collection: String,
    pub(super) resolved: Named,
    /// The new collection, and how many points it has; `None` if it is not there.
    pub(super) into: Option<(String, Option<u64>)>,
    /// The model of the vectors that came through stage 2 last, and whether a processor is at work that would make more.
    pub(super) model: Option<String>,
    pub(super) processors: bool,
    pub(super) checkpoint: Option<Checkpoint>,
}

/// What is to be done.
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

/// Describes the replay; refuses one that would leave a new collection with holes, or that is at odds with itself.
pub(super) fn plan(args: &ReplayArgs, since: Option<u64>, facts: &Facts) -> Result<Plan, Failure> {
    if args.filter.is_some() && args.from != ReplayFrom::Source {
        return Err(Failure::new("--filter is a query of MongoDB: it goes with `replay source` only")
            .with_hint("leave --filter out, or replay the source"));
    }
    let stage = match args.from {
        ReplayFrom::Embedded => Some((EMBEDDED, &facts.embedded)),
        ReplayFrom::Raw => Some((RAW, &facts.raw)),
        ReplayFrom::Source => None,
    };
    if let Some((stream, extent)) = stage
        && extent.entries == 0
    {
        return Err(Failure::new(format!("{stream} holds no entry to replay"))
            .with_hint("`tidewheel replay source` reads MongoDB again"));
    }
    if facts.checkpoint.is_none() && args.from == ReplayFrom::Source {
        return Err(Failure::new("no producer has worked on this Redis yet: there is nothing to do again")
            .with_hint("`tidewheel run` reads everything that is there at its first start"));
    }
    let mut warnings = Vec::new();
    if let (Some((stream, extent)), Some(_), None) = (stage, &facts.into, since)
        && !extent.whole
    {
        return Err(Failure::new(format!("{stream} no longer holds everything: a new collection would have holes"))
            .with_hint("`tidewheel replay source --into` reads MongoDB; streams.retention_* keeps more of a stream"));
    }
    let from = match stage {
        Some((stream, extent)) => {
            let what = match since {
                Some(since) => format!("what came in since {}", times::show(since)),
                None if extent.whole => format!("all {} entries, everything since the beginning", extent.entries),
                None => format!("the {} entries that it still holds", extent.entries),
            };
            format!("{stream}: {what}")
        }
        None => match (since, &args.filter) {
            (Some(since), _) => {
                format!("MongoDB: what was committed since {}, from its own history", times::show(since))
            }
            (None, Some(filter)) => format!("MongoDB: every document that matches {filter}"),
            (None, None) => "MongoDB: every document".to_owned(),
        },
    };
    let through = match &facts.embedder {
        Some(info) => format!("the embedder with {} ({} dimensions)", info.model, info.dimension),
        None => "nothing: the vectors are there".to_owned(),
    };
    let Some((name, points)) = &facts.into else {
        return Ok(Plan {
            from,
            through,
            into: format!("the live collection {:?}; newer changes win", facts.collection),
            alias: None,
            warnings,
            afterwards: "the services work on it: `tidewheel status` shows how far they are".to_owned(),
        });
    };
    let stands_for = if let Named::Alias(collection) = &facts.resolved { collection } else { &facts.collection };
    if name == stands_for || *name == facts.collection {
        return Err(Failure::new(format!("{name:?} is the live collection"))
            .with_hint("choose a name that is not in use, or leave --into away"));
    }
    if let (Some(info), Some(model)) = (&facts.embedder, &facts.model)
        && info.model != *model
        && facts.processors
    {
        return Err(Failure::new(format!(
            "the processors make vectors with {model}, this replay would with {}: changes that come in meanwhile would not fit",
            info.model
        ))
        .with_hint(
            "stop the processors and try again in half a minute: changes wait in stage 1, and new processors embed them with the new model",
        ));
    }
    if let Some(points @ 1..) = points {
        warnings.push(format!("{name:?} is there already with {points} points: they stay"));
    }
    if since.is_some() || args.filter.is_some() {
        warnings.push("the new collection will have a part of the documents only".to_owned());
    }
    // A collection's name cannot become an alias while the collection is there.
    let alias = (facts.resolved != Named::Collection).then(|| facts.collection.clone());
    let (into, afterwards) = match &alias {
        Some(alias) => (
            format!(
                "the new collection {name:?}, with all that comes in meanwhile; then the alias {alias:?} stands for it"
            ),
            match &facts.resolved {
                Named::Alias(old) => {
                    format!("{alias:?} stands for {name:?} now; {old:?} is still there, for you to delete")
                }
                _ => format!("{alias:?} stands for {name:?} now"),
            },
        ),
        None => (
            format!("the new collection {name:?}, with all that comes in meanwhile"),
            format!("now set qdrant.collection to {name:?} and start the services again: they compare it with MongoDB"),
        ),
    };
    if alias.is_none() {
        warnings.push(format!(
            "{:?} is a collection and no alias, so that it cannot be switched; qdrant.collection has to be changed",
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
    fn a_plan_says_from_where_through_what_and_where_to() {
        let plan = plan(&args("raw"), None, &facts()).unwrap();
        assert_eq!(plan.lines()[0].1, "raw_document_changes: all 10 entries, everything since the beginning");
        assert!(plan.lines()[1].1.contains("minilm (384 dimensions)"));
        assert!(plan.lines()[2].1.contains("live collection \"documents\""));
        assert_eq!((plan.alias, plan.warnings), (None, vec![]));
    }

    #[test]
    fn a_new_collection_gets_the_alias_at_the_end() {
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
    fn what_makes_no_sense_is_refused_with_a_way_out() {
        let into = |name: &str| Facts { into: Some((name.into(), None)), ..facts() };
        let other_model = Facts { model: Some("bge".into()), ..into("documents_2") };
        let stopped = Facts { processors: false, model: Some("bge".into()), ..into("documents_2") };
        assert!(plan(&args("source --into documents_2"), None, &stopped).is_ok(), "nobody makes such vectors any more");
        let cases = [
            (args("raw --filter {}"), facts(), "--filter"),
            (args("raw"), Facts { raw: extent(0, true), ..facts() }, "no entry"),
            (args("source"), Facts { checkpoint: None, ..facts() }, "no producer"),
            (args("embedded --into documents_2"), into("documents_2"), "holes"),
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
