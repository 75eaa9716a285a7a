//! Fingerprints of declarations, and what a difference between two of them requires.
//!
//! Fingerprints are stored with the catalog, on collections and on points, so they must not change between releases. A
//! later release that adds a field leaves it out of the canonical JSON while it has its default. One that has to change
//! the meaning of a part gives the part's form a new number.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::action::Action;
use super::declaration::Declaration;
use super::generation::{Needs, Rows};

/// A fingerprint of a declaration or of a part of it: the first 64 bits of a SHA-256. Written as 16 hexadecimal digits,
/// also in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fp(u64);

impl Fp {
    /// The fingerprint of a value: equal for values that differ only in the order of keys and in nulls. `form` names what
    /// the value is, and the number of its form.
    fn of(form: &str, value: &Value) -> Self {
        let mut text = format!("{form}\n");
        canonical(value, &mut text);
        let hash = Sha256::digest(text.as_bytes());
        Self(hash.iter().take(8).fold(0_u64, |number, byte| (number << 8) | u64::from(*byte)))
    }
}

impl fmt::Display for Fp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Fp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        digits
            .then(|| u64::from_str_radix(text, 16).ok())
            .flatten()
            .map(Self)
            .ok_or_else(|| format!("invalid fingerprint {text:?}: expected 16 hexadecimal digits"))
    }
}

impl TryFrom<String> for Fp {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Fp> for String {
    fn from(fingerprint: Fp) -> Self {
        fingerprint.to_string()
    }
}

/// Appends a value as JSON with sorted keys and without null fields.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<&String, &Value> = fields.iter().filter(|(_, value)| !value.is_null()).collect();
            out.push('{');
            for (at, (name, value)) in fields.into_iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                let _ = write!(out, "{comma}{}:", Value::from(name.as_str()));
                canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(values) => {
            out.push('[');
            for (at, value) in values.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                canonical(value, out);
            }
            out.push(']');
        }
        scalar => {
            let _ = write!(out, "{scalar}");
        }
    }
}

/// A part of a declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The collections of the source.
    Source,
    /// The condition on documents.
    Filter,
    /// The text to embed.
    Text,
    /// How a text is split, and the prefix of chunks.
    Chunk,
    /// The fields that points carry.
    Payload,
    /// The indexes of payload fields.
    PayloadIndexes,
    /// The model, except its name in the settings and the prefix of queries, which change no vector of a point.
    Embedding,
    /// What the index cannot alter in place: vectors and shards.
    Layout,
    /// Other properties of the collection.
    Collection,
    /// Rules that change no point; also the name of the model in the settings, and the prefix of queries.
    Rules,
}

impl Part {
    /// All parts.
    pub const ALL: [Self; 10] = [
        Self::Source,
        Self::Filter,
        Self::Text,
        Self::Chunk,
        Self::Payload,
        Self::PayloadIndexes,
        Self::Embedding,
        Self::Layout,
        Self::Collection,
        Self::Rules,
    ];

    /// The name in JSON and messages.
    pub fn name(self) -> &'static str {
        self.form().split_once('/').map_or("", |(name, _)| name)
    }

    /// The name and the number of the form that is hashed.
    const fn form(self) -> &'static str {
        match self {
            Self::Source => "source/1",
            Self::Filter => "filter/1",
            Self::Text => "text/1",
            Self::Chunk => "chunk/1",
            Self::Payload => "payload/1",
            Self::PayloadIndexes => "payload_indexes/1",
            Self::Embedding => "embedding/1",
            Self::Layout => "layout/1",
            Self::Collection => "collection/1",
            Self::Rules => "rules/1",
        }
    }

    /// What a difference in this part alone requires.
    pub const fn action(self) -> Action {
        match self {
            Self::Source | Self::Filter => Action::Adjust,
            Self::Text | Self::Chunk => Action::Text,
            Self::Payload => Action::Payload,
            Self::PayloadIndexes | Self::Collection | Self::Rules => Action::Settings,
            Self::Embedding | Self::Layout => Action::Generation,
        }
    }

    /// What a snapshot has to do because of a difference in this part; `None` if no snapshot is required.
    pub const fn needs(self) -> Option<Needs> {
        match self {
            Self::Source | Self::Filter | Self::Embedding | Self::Layout => {
                Some(Needs { rows: Rows::Missing, sweep: true })
            }
            Self::Text | Self::Chunk => Some(Needs { rows: Rows::Text, sweep: false }),
            Self::Payload => Some(Needs { rows: Rows::Payload, sweep: false }),
            Self::PayloadIndexes | Self::Collection | Self::Rules => None,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The fingerprints of a declaration's parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, Fp>")]
pub struct Parts(BTreeMap<Part, Fp>);

impl Parts {
    /// The fingerprint of a part; `None` if the release that recorded them did not know the part.
    pub fn get(&self, part: Part) -> Option<Fp> {
        self.0.get(&part).copied()
    }

    /// The parts that differ, or that only one of both has.
    pub fn difference(&self, other: &Self) -> Difference {
        Difference(Part::ALL.into_iter().filter(|part| self.get(*part) != other.get(*part)).collect())
    }
}

impl From<BTreeMap<String, Fp>> for Parts {
    /// Restores fingerprints; those of parts that only a later release knows are left out.
    fn from(fingerprints: BTreeMap<String, Fp>) -> Self {
        let of = |part: Part| Some((part, *fingerprints.get(part.name())?));
        Self(Part::ALL.into_iter().filter_map(of).collect())
    }
}

/// What the text and the payload of a point were made by. Points carry it, so that a snapshot finds those that an
/// earlier declaration made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Made {
    /// Fingerprint of [`Part::Text`] and [`Part::Chunk`].
    pub text: Fp,
    /// Fingerprint of [`Part::Payload`].
    pub payload: Fp,
}

impl Declaration {
    /// The fingerprints of the parts.
    pub fn parts(&self) -> Parts {
        Parts(Part::ALL.into_iter().map(|part| (part, self.part(part))).collect())
    }

    /// The fingerprint of all parts. Depends on no name of the index.
    pub fn fingerprint(&self) -> Fp {
        Fp::of("declaration/1", &json!(self.parts()))
    }

    /// What the text and the payload of its points are made by.
    pub fn made(&self) -> Made {
        let text = [self.part(Part::Text), self.part(Part::Chunk)];
        Made { text: Fp::of("made_text/1", &json!(text)), payload: self.part(Part::Payload) }
    }

    /// The parts that differ from those of another declaration of this index.
    pub fn difference(&self, other: &Self) -> Difference {
        self.parts().difference(&other.parts())
    }

    fn part(&self, part: Part) -> Fp {
        let value = match part {
            Part::Source => json!(self.source),
            Part::Filter => json!(self.filter),
            Part::Text => {
                let text = &self.text;
                json!({
                    "template": text.template,
                    "fields": text.fields,
                    "exclude": set(&text.exclude),
                    "blank": text.blank,
                })
            }
            Part::Chunk => json!(self.chunk),
            Part::Payload => {
                let payload = &self.payload;
                json!({
                    "include": set(&payload.include),
                    "exclude": set(&payload.exclude),
                    "rename": payload.rename,
                    "full": payload.full,
                })
            }
            Part::PayloadIndexes => json!(self.payload_indexes),
            Part::Embedding => {
                let embedding = &self.embedding;
                json!({
                    "provider": embedding.provider,
                    "model": embedding.model,
                    "url": embedding.url,
                    "server": embedding.is_nameless().then_some(&embedding.name),
                    "dimensions": embedding.dimensions,
                    "rounding": embedding.rounding,
                    "passage_prefix": embedding.passage_prefix,
                })
            }
            Part::Layout => json!({
                "vectors": self.vectors,
                "shard_number": self.collection.shard_number,
                "sharding_method": self.collection.sharding_method,
            }),
            Part::Collection => json!(self.collection.settings),
            Part::Rules => json!({
                "rules": self.rules,
                "embedding": self.embedding.name,
                "query_prefix": self.embedding.query_prefix,
            }),
        };
        Fp::of(part.form(), &value)
    }
}

/// Paths whose order and repetition have no effect.
fn set(paths: &[String]) -> BTreeSet<&str> {
    paths.iter().map(String::as_str).collect()
}

/// The parts in which two declarations of an index differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference(BTreeSet<Part>);

impl Difference {
    /// The parts, in the order of [`Part::ALL`].
    pub fn parts(&self) -> impl Iterator<Item = Part> {
        self.0.iter().copied()
    }

    /// Whether the part differs.
    pub fn has(&self, part: Part) -> bool {
        self.0.contains(&part)
    }

    /// Whether no part differs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The difference if both models have the same [identity](super::EmbedderIdentity): they return the same vectors, so
    /// that the new model only has to be recorded.
    #[must_use]
    pub fn with_equal_identity(mut self) -> Self {
        if self.0.remove(&Part::Embedding) {
            self.0.insert(Part::Rules);
        }
        self
    }

    /// The difference if the same specification stands for another model now.
    #[must_use]
    pub fn with_other_model(mut self) -> Self {
        self.0.insert(Part::Embedding);
        self
    }

    /// What it requires. A new generation takes all differences; otherwise this names the most expensive step.
    pub fn action(&self) -> Action {
        self.parts().map(Part::action).max().unwrap_or(Action::None)
    }

    /// Whether it requires a new generation.
    pub fn needs_generation(&self) -> bool {
        self.action() == Action::Generation
    }

    /// What a snapshot has to do; `None` if no snapshot is required.
    pub fn needs(&self) -> Option<Needs> {
        self.parts().filter_map(Part::needs).reduce(Needs::and)
    }
}

#[cfg(test)]
mod tests;
