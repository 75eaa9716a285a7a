//! Plans replays and rejects invalid ones.

#[cfg(test)]
mod tests;

use serde::Serialize;
use tidewheel_core::catalog::{Catalog, Generation, IndexName, TargetId};
use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{
    Aliases, Checkpoint, Embedder, EmbedderInfo, Extent, Index, Journal, Named, PortResult, SourceFilter,
    StageInspector, StreamLog,
};
use tidewheel_core::stage::Stage;
use tidewheel_pipeline::NO_PRODUCER;

use crate::catalog::CatalogReader;
use crate::text::thousands;
use crate::{selection, times};

/// Idle time in milliseconds after which a processor counts as stopped: processors poll every second.
const SILENT_MS: u64 = 20_000;

/// Where a replay reads from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Stage 2, with its vectors.
    Embedded,
    /// Stage 1.
    Raw,
    /// The source.
    Source,
}

/// A requested replay.
#[derive(Clone, Debug)]
pub struct ReplayRequest {
    /// Where to read from.
    pub from: Origin,
    /// Only changes since this time, in milliseconds since the Unix epoch.
    pub since: Option<u64>,
    /// Only documents of the source that match this filter.
    pub filter: Option<SourceFilter>,
    /// The new collection; `None` for the live one.
    pub into: Option<String>,
    /// Only this index.
    pub index: Option<IndexName>,
}

/// Why a replay is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The reason.
    pub message: String,
    /// What to do instead.
    pub hint: &'static str,
}

impl Rejection {
    fn new(message: impl Into<String>, hint: &'static str) -> Self {
        Self { message: message.into(), hint }
    }
}

/// The ports of a plan.
pub struct PlanPorts<'a> {
    /// The catalog.
    pub catalog: &'a CatalogReader,
    /// Stage 1.
    pub raw: &'a dyn StreamLog<Change>,
    /// Stage 2.
    pub embedded: &'a dyn StreamLog<Embedded>,
    /// The checkpoints.
    pub journal: &'a dyn Journal,
    /// The processors of stage 1.
    pub stages: &'a dyn StageInspector,
    /// The embedder; `None` if nothing is embedded.
    pub embedder: Option<&'a dyn Embedder>,
    /// The aliases in the index.
    pub aliases: &'a dyn Aliases,
    /// The new collection.
    pub into: Option<&'a dyn Index>,
}

/// Indexes of an applied catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveIndexes {
    names: Vec<IndexName>,
    /// The models of their points, with dimensions if they are known.
    models: Vec<String>,
}

impl LiveIndexes {
    fn of(catalog: &Catalog) -> Self {
        let model = |(_, generation): (TargetId, &Generation)| match &generation.embedder {
            Some(identity) => format!("{} ({} dimensions)", identity.model, identity.dimension),
            None => generation.declaration.embedding.model.clone(),
        };
        let mut models: Vec<String> = catalog.routed().map(model).collect();
        models.sort_unstable();
        models.dedup();
        Self { names: catalog.indexes.keys().cloned().collect(), models }
    }

    /// The embedders that the replayed documents go through.
    fn through(&self) -> String {
        let models = self.models.join(", ");
        if self.models.len() == 1 {
            format!("embedder with model {models}")
        } else {
            format!("embedders with models {models}")
        }
    }

    /// The indexes, as the end of the replay.
    fn shown(&self) -> String {
        let names: Vec<String> = self.names.iter().map(|name| format!("{:?}", name.as_str())).collect();
        let indexes = if names.len() == 1 { "index" } else { "indexes" };
        format!("{indexes} {}; newer changes win", names.join(", "))
    }
}

/// Input of the plan.
pub struct ReplayFacts {
    /// The selected indexes of the applied catalog; `None` before one is applied.
    pub indexes: Option<LiveIndexes>,
    /// The contents of stage 1.
    pub raw: Extent,
    /// The contents of stage 2.
    pub embedded: Extent,
    /// `None` if nothing is embedded.
    pub embedder: Option<EmbedderInfo>,
    /// `qdrant.collection`.
    pub collection: String,
    /// What that name resolves to.
    pub resolved: Named,
    /// The new collection with its number of points, which is `None` if it does not exist.
    pub into: Option<(String, Option<u64>)>,
    /// The model of the newest vectors in stage 2.
    pub model: Option<String>,
    /// Whether a running processor adds more of them.
    pub processors: bool,
    /// The producer's position.
    pub checkpoint: Option<Checkpoint>,
}

/// Gathers the input of the plan. `collection` is the live collection, or its alias.
///
/// # Errors
/// If a server fails, or there is no such index.
pub async fn facts(ports: &PlanPorts<'_>, request: &ReplayRequest, collection: &str) -> PortResult<ReplayFacts> {
    let catalog = ports.catalog.read().await?;
    let selected = selection::restricted(&catalog, request.index.as_ref())?;
    let indexes = (!selected.is_short_form()).then(|| LiveIndexes::of(&selected));
    let (raw, embedded) = tokio::try_join!(ports.raw.extent(), ports.embedded.extent())?;
    // Local settings state nothing about indexes of an applied catalog.
    let embedder = match ports.embedder.filter(|_| indexes.is_none()) {
        Some(embedder) => Some(embedder.info().await?),
        None => None,
    };
    let into = match (&request.into, ports.into) {
        (Some(name), Some(index)) => Some((name.clone(), index.count().await?)),
        _ => None,
    };
    let resolved = match indexes {
        None => ports.aliases.resolve(collection).await?,
        Some(_) => Named::Nothing,
    };
    let model = newest_model(ports.embedded, &embedded).await?;
    let checkpoint = ports.journal.load().await?;
    let consumers = ports.stages.status(Stage::Raw).await?.consumers;
    let processors = consumers.iter().any(|consumer| consumer.idle_ms < SILENT_MS);
    let collection = collection.to_owned();
    Ok(ReplayFacts { indexes, raw, embedded, embedder, collection, resolved, into, model, processors, checkpoint })
}

/// The model of the newest vectors in stage 2.
async fn newest_model(embedded: &dyn StreamLog<Embedded>, extent: &Extent) -> PortResult<Option<String>> {
    let last = embedded.page(&extent.last.preceding(), 1).await?;
    let model = last.into_iter().find_map(|delivery| delivery.record.ok()).map(|record| record.model);
    Ok(model.filter(|model| !model.is_empty()))
}

/// The plan of a replay.
#[derive(Debug, PartialEq, Serialize)]
pub struct ReplayPlan {
    from: String,
    through: String,
    into: String,
    /// The alias that is switched at the end.
    pub alias: Option<String>,
    /// What to consider.
    pub warnings: Vec<String>,
    /// What happens after the replay, or what to do.
    pub afterwards: String,
}

impl ReplayPlan {
    /// Source, embedding and target, each with its label.
    pub fn lines(&self) -> [(&'static str, &str); 3] {
        [("from", &self.from), ("through", &self.through), ("into", &self.into)]
    }
}

/// Plans the replay.
///
/// # Errors
/// If the request is contradictory, or would leave a new collection incomplete.
pub fn plan(request: &ReplayRequest, facts: &ReplayFacts) -> Result<ReplayPlan, Rejection> {
    if request.filter.is_some() && request.from != Origin::Source {
        return Err(Rejection::new(
            "invalid --filter: a MongoDB query requires `replay source`",
            "remove --filter, or replay the source",
        ));
    }
    if facts.indexes.is_some() && request.into.is_some() {
        return Err(Rejection::new(
            "invalid --into: indexes of an applied catalog create their collections themselves",
            "run `tidewheel apply --generation` to fill a new collection",
        ));
    }
    let stage = match request.from {
        Origin::Embedded => Some((Stage::Embedded.name(), &facts.embedded)),
        Origin::Raw => Some((Stage::Raw.name(), &facts.raw)),
        Origin::Source => None,
    };
    if let Some((stream, extent)) = stage
        && extent.entries == 0
    {
        return Err(Rejection::new(
            format!("no entries to replay in {stream}"),
            "run `tidewheel replay source` to read MongoDB again",
        ));
    }
    if facts.checkpoint.is_none() && request.from == Origin::Source {
        return Err(Rejection::new(
            format!("nothing to replay: {NO_PRODUCER}"),
            "run `tidewheel run`: its first start takes an initial snapshot",
        ));
    }
    let mut warnings = Vec::new();
    if let (Some((stream, extent)), Some(_), None) = (stage, &facts.into, request.since)
        && !extent.whole
    {
        return Err(Rejection::new(
            format!("{stream} no longer holds its complete history: a new collection would be incomplete"),
            "run `tidewheel replay source --into`, or raise streams.retention_* to keep more entries",
        ));
    }
    let from = match stage {
        Some((stream, extent)) => {
            let what = match request.since {
                Some(since) => format!("entries since {}", times::show(since)),
                None if extent.whole => format!("all {} entries, the complete history", thousands(extent.entries)),
                None => format!("the {} retained entries", thousands(extent.entries)),
            };
            format!("{stream}: {what}")
        }
        None => match (request.since, &request.filter) {
            (Some(since), _) => {
                format!("MongoDB: changes committed since {}, from the oplog", times::show(since))
            }
            (None, Some(filter)) => format!("MongoDB: every document that matches {}", filter.0),
            (None, None) => "MongoDB: every document".to_owned(),
        },
    };
    let through = match (&facts.indexes, &facts.embedder) {
        (Some(indexes), _) if request.from != Origin::Embedded => indexes.through(),
        (None, Some(info)) => format!("embedder with model {} ({} dimensions)", info.model, info.dimension),
        _ => "no embedder: the stored vectors are reused".to_owned(),
    };
    let Some((name, points)) = &facts.into else {
        let live = || format!("live collection {:?}; newer changes win", facts.collection);
        return Ok(ReplayPlan {
            from,
            through,
            into: facts.indexes.as_ref().map_or_else(live, LiveIndexes::shown),
            alias: None,
            warnings,
            afterwards: "the services process the replay: run `tidewheel status` to see the progress".to_owned(),
        });
    };
    let live = if let Named::Alias(collection) = &facts.resolved { collection } else { &facts.collection };
    if name == live || *name == facts.collection {
        return Err(Rejection::new(
            format!("invalid --into {name:?}: it is the live collection"),
            "choose an unused name, or remove --into",
        ));
    }
    if let (Some(info), Some(model)) = (&facts.embedder, &facts.model)
        && info.model != *model
        && facts.processors
    {
        return Err(Rejection::new(
            format!(
                "the processors embed with {model}, this replay with {}: vectors of concurrent changes would be incompatible",
                info.model
            ),
            "stop the processors and retry after 30 s: stage 1 buffers changes, and new processors embed them with the new model",
        ));
    }
    if let Some(points @ 1..) = points {
        warnings.push(format!("{name:?} already exists; its {} points are kept", thousands(*points)));
    }
    if request.since.is_some() || request.filter.is_some() {
        warnings.push("the new collection will contain only part of the documents".to_owned());
    }
    // An alias cannot have the name of an existing collection.
    let alias = (facts.resolved != Named::Collection).then(|| facts.collection.clone());
    let (into, afterwards) = match &alias {
        Some(alias) => (
            format!("new collection {name:?}, including concurrent changes; then alias {alias:?} switches to it"),
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
    Ok(ReplayPlan { from, through, into, alias, warnings, afterwards })
}
