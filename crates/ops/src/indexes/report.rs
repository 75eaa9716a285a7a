//! A plan as operators read it: as JSON, whose names never change, and as text.

use std::time::Duration;

use serde::Serialize;
use tidewheel_core::catalog::{Action, IndexName, Part, Refusal};

use super::progress::Progress;
use crate::text::{bytes, documents, estimate, short, thousands};

/// What a change of declarations does, and what that costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The revision of the catalog that it was made from; 0 without one.
    pub revision: u64,
    /// Whether there is something to do.
    pub todo: bool,
    /// Each index, by name.
    pub indexes: Vec<IndexPlan>,
    /// What an earlier plan is still doing.
    pub running: Vec<Progress>,
    /// What prevents it.
    pub refused: Vec<Refused>,
    /// What else there is to know.
    pub warnings: Vec<String>,
}

/// What is done for an index.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IndexPlan {
    /// The index.
    pub index: IndexName,
    /// The most expensive step.
    pub action: Action,
    /// The parts in which its declaration differs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// The generation that is created, changed or switched to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// The differences in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
    /// What is read, embedded and written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// What it means for searches; `None` if it moves no alias.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub searches: Option<Searches>,
    /// How long a rollback is possible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback: Option<String>,
    /// The collections that are deleted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub collections: Vec<String>,
    /// The points in them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub points: Option<u64>,
    /// Whether the generation exists already.
    #[serde(skip)]
    pub exists: bool,
    /// How long the previous generation is kept.
    #[serde(skip)]
    pub keep: Option<Duration>,
}

/// What a change costs, estimated.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Documents to write.
    pub documents: u64,
    /// Texts to embed.
    pub texts: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Points of the documents to write.
    pub points: u64,
    /// The documents on which the estimate rests.
    pub sampled: u64,
    /// Time to embed the texts. If there are none, the longest time that the snapshot takes; `None` if unknown.
    pub seconds: Option<u64>,
    /// Where the throughput comes from.
    pub rate: RateSource,
    /// The throughput in documents per second, if nothing is embedded.
    #[serde(skip)]
    pub documents_per_second: Option<u64>,
    /// The throughput in tokens per second.
    #[serde(skip)]
    pub tokens_per_second: Option<f64>,
    /// Documents to remove.
    pub removed: u64,
    /// Bytes of the vectors of those points; `None` if the dimension is unknown.
    pub vector_bytes: Option<u64>,
}

/// Where a throughput comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RateSource {
    /// The reports of embedders at work, or the last snapshot.
    Measured,
    /// The embedding of some of the texts.
    Sampled,
    /// Nowhere.
    Unknown,
}

impl RateSource {
    fn name(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Sampled => "sampled",
            Self::Unknown => "unknown",
        }
    }
}

/// What a move of an alias means for searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Searches {
    /// How long searches fail, in milliseconds. `None` for the moment between two requests to the index.
    pub interrupted_ms: Option<u64>,
}

/// A reason why nothing is applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The index; `None` if it concerns none in particular.
    pub index: Option<IndexName>,
    /// The reason.
    pub reason: String,
    /// What to do about it.
    pub hint: String,
}

impl From<Refusal> for Refused {
    fn from(Refusal { index, reason, hint }: Refusal) -> Self {
        Self { index, reason, hint }
    }
}

impl Plan {
    /// The number of changes, with what to do about them.
    pub fn summary(&self) -> String {
        let changes = self.indexes.iter().filter(|index| index.action != Action::None).count();
        if !self.refused.is_empty() {
            return "Refused: nothing can be applied.".to_owned();
        }
        match changes {
            0 if self.todo => "Run `tidewheel apply` to apply the declarations.".to_owned(),
            0 => "Nothing to do.".to_owned(),
            1 => "1 change. Run `tidewheel apply` to make it.".to_owned(),
            changes => format!("{changes} changes. Run `tidewheel apply` to make them."),
        }
    }

    /// Whether searches of an index fail for a moment.
    pub fn interrupts_searches(&self) -> bool {
        self.indexes.iter().any(|index| index.searches.is_some_and(|searches| searches.interrupted_ms.is_none()))
    }
}

impl IndexPlan {
    /// One line per subject, the first one with the action.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.headline()];
        lines.extend(self.cost.as_ref().map(Cost::line));
        let removed = self.cost.as_ref().map_or(0, |cost| cost.removed);
        if removed > 0 {
            lines.push(format!("remove about {}", documents(removed)));
        }
        lines.extend(self.consequences());
        lines
    }

    fn headline(&self) -> String {
        let number = self.generation.unwrap_or_default();
        let what = match self.action {
            Action::None => "no change".to_owned(),
            Action::Settings => "change settings".to_owned(),
            Action::Adjust => "adjust".to_owned(),
            Action::Payload => "rewrite payloads".to_owned(),
            Action::Text => "embed changed texts".to_owned(),
            Action::Switch => format!("switch to generation {number}"),
            Action::Discard => format!("delete {}", self.deleted()),
            Action::Generation if self.exists => format!("generation {number}"),
            Action::Generation => format!("new generation {number}"),
            Action::Create => format!("create generation {number}"),
            Action::Drop => format!("drop: {}", self.deleted()),
        };
        if self.details.is_empty() { what } else { format!("{what}: {}", self.details.join("; ")) }
    }

    /// The collections that are deleted, with their points.
    fn deleted(&self) -> String {
        if self.collections.is_empty() {
            return "no collection".to_owned();
        }
        let plural = if self.collections.len() == 1 { "" } else { "s" };
        let points = self.points.map(|points| format!(" with {} points", thousands(points))).unwrap_or_default();
        format!("collection{plural} {}{points}", self.collections.join(", "))
    }

    /// What a move of the alias means.
    fn consequences(&self) -> Option<String> {
        let searches = self.searches?;
        let mut parts = Vec::new();
        if self.action == Action::Generation {
            let vectors = self.cost.as_ref().and_then(|cost| cost.vector_bytes);
            let more = vectors.map(|vectors| format!(", about {} of vectors more", bytes(vectors))).unwrap_or_default();
            parts.push(format!("Qdrant holds both generations meanwhile{more}"));
        }
        parts.push(match searches.interrupted_ms {
            Some(_) => "searches: no interruption".to_owned(),
            None => "searches fail for some milliseconds at the switch".to_owned(),
        });
        parts.push(match self.keep {
            Some(keep) => format!("rollback: {} after the switch", whole(keep, " ")),
            None => "rollback: not possible".to_owned(),
        });
        Some(parts.join(" · "))
    }
}

impl Cost {
    fn line(&self) -> String {
        let written = documents(self.documents);
        if self.texts == 0 {
            // The snapshot that it was measured with may have waited for the embedder.
            let eta = self.seconds.zip(self.documents_per_second).map(|(seconds, rate)| {
                let (rate, from) = (short(rate as f64), self.rate.name());
                format!(" · ETA {} at most, at {rate} docs/s ({from})", estimate(seconds as f64))
            });
            return format!("write {written}, embed nothing{}", eta.unwrap_or_default());
        }
        let noun = if self.texts == 1 { "text" } else { "texts" };
        let tokens = short(self.tokens as f64);
        let eta = match (self.seconds, self.tokens_per_second) {
            (Some(seconds), Some(rate)) => {
                let (rate, from) = (short(rate), self.rate.name());
                format!("ETA {} at {rate} tokens/s ({from})", estimate(seconds as f64))
            }
            _ => "ETA unknown".to_owned(),
        };
        format!("embed {} {noun} of {written}, {tokens} tokens · {eta}", thousands(self.texts))
    }
}

/// Formats a duration in its largest units, exactly: "24 h", "1 h 30 min". `space` is between number and unit.
pub(super) fn whole(duration: Duration, space: &str) -> String {
    let mut rest = duration.as_secs();
    let mut parts = Vec::new();
    for (unit, seconds) in [("h", 3_600), ("min", 60), ("s", 1)] {
        if rest >= seconds {
            parts.push(format!("{}{space}{unit}", rest / seconds));
            rest %= seconds;
        }
    }
    if parts.is_empty() { format!("0{space}s") } else { parts.join(" ") }
}

#[cfg(test)]
mod tests;
