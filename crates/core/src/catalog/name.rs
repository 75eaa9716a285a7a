//! Names of indexes and of their generations.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Maximum length of the name of a declared index, in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// The name of an index. Cheap to clone.
///
/// The name of a declared index has ASCII letters, digits, `_` and `-`. The short form uses the name of its collection,
/// unchanged: see [`IndexName::of_collection`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct IndexName(Arc<str>);

impl IndexName {
    /// The name of a declared index.
    ///
    /// # Errors
    /// The name is empty, longer than [`MAX_NAME_BYTES`], or has another character.
    pub fn new(name: &str) -> Result<Self, NameError> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(valid) {
            return Err(NameError::Index(name.to_owned()));
        }
        Ok(Self(name.into()))
    }

    /// The name of the only index of the short form: that of its collection, without a check.
    pub fn of_collection(collection: &str) -> Self {
        Self(collection.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The target of a generation.
    pub fn target(&self, generation: u32) -> TargetId {
        TargetId { index: self.clone(), generation }
    }
}

impl fmt::Display for IndexName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for IndexName {
    /// Restores a name read from a store, without a check.
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<IndexName> for String {
    fn from(name: IndexName) -> Self {
        name.as_str().to_owned()
    }
}

/// One generation of an index. Written as `tickets.g2`, also in JSON.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetId {
    /// The index.
    pub index: IndexName,
    /// The number of the generation, from 1.
    pub generation: u32,
}

impl TargetId {
    /// The name of its collection, unless that is plain: see [`Generation::collection`](super::Generation::collection).
    pub fn collection(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.g{}", self.index, self.generation)
    }
}

impl FromStr for TargetId {
    type Err = NameError;

    /// Splits at the last `.g`, because the name of a plain collection may contain one.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (index, generation) = text.rsplit_once(".g")?;
            (!index.is_empty()).then_some(())?;
            // One spelling for each target: no sign, no leading zeros.
            let digits = generation.bytes().all(|byte| byte.is_ascii_digit()) && !generation.starts_with('0');
            let generation = digits.then(|| generation.parse().ok()).flatten()?;
            Some(Self { index: IndexName::of_collection(index), generation })
        };
        parse().ok_or_else(|| NameError::Target(text.to_owned()))
    }
}

impl TryFrom<String> for TargetId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TargetId> for String {
    fn from(target: TargetId) -> Self {
        target.to_string()
    }
}

/// A target that a snapshot fills, and the revision that made it due. Written as `tickets.g3@17`, also in JSON.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Due {
    /// The target.
    pub target: TargetId,
    /// The [`Generation::due`](super::Generation::due) that the snapshot satisfies.
    pub due: u64,
}

impl fmt::Display for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.target, self.due)
    }
}

impl FromStr for Due {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (target, due) = text.rsplit_once('@')?;
            let digits = due.bytes().all(|byte| byte.is_ascii_digit());
            Some(Self { target: target.parse().ok()?, due: digits.then(|| due.parse().ok()).flatten()? })
        };
        parse().ok_or_else(|| NameError::Due(text.to_owned()))
    }
}

impl TryFrom<String> for Due {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Due> for String {
    fn from(due: Due) -> Self {
        due.to_string()
    }
}

/// An invalid name. Its text states the expected form.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Of an index.
    #[error(
        "invalid index name {0:?}: expected 1 to {MAX_NAME_BYTES} letters, digits, \"_\" or \"-\", such as \"tickets\""
    )]
    Index(String),
    /// Of a target.
    #[error("invalid target {0:?}: expected the name of an index and its generation, such as \"tickets.g2\"")]
    Target(String),
    /// Of a target in the scope of a snapshot.
    #[error("invalid target {0:?} of a snapshot: expected a target and a revision, such as \"tickets.g2@17\"")]
    Due(String),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn index_name_has_letters_digits_underscores_and_hyphens() {
        for name in ["tickets", "A-1_b", "0", &"x".repeat(MAX_NAME_BYTES)] {
            assert_eq!(IndexName::new(name).unwrap().as_str(), name);
        }
        for name in ["", "a b", "a.g1", "tickets*", "ü", "#plain", &"x".repeat(MAX_NAME_BYTES + 1)] {
            let error = IndexName::new(name).unwrap_err().to_string();
            assert!(error.contains(&format!("{name:?}")) && error.contains("letters, digits"), "{error}");
        }
    }

    #[test]
    fn malformed_targets_are_rejected() {
        for text in [
            "",
            "tickets",
            "tickets.g",
            "tickets.g0",
            "tickets.g02",
            "tickets.g+2",
            "tickets.g2x",
            ".g2",
            "a.g4294967296",
        ] {
            let error = text.parse::<TargetId>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains("tickets.g2"), "{error}");
            assert!(serde_json::from_value::<TargetId>(text.into()).is_err());
        }
        for text in ["tickets.g2", "tickets.g2@", "tickets.g2@-1", "tickets.g2@+1", "tickets@1", "@1"] {
            assert!(text.parse::<Due>().is_err(), "{text:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn text_and_json_round_trip(index in "[a-z.@g0-9 ]{1,12}", generation in 1..=u32::MAX, due: u64) {
            let target = IndexName::of_collection(&index).target(generation);
            let text = target.to_string();
            prop_assert_eq!(text.parse(), Ok(target.clone()));
            prop_assert_eq!(serde_json::to_value(&target).unwrap(), text.clone());
            prop_assert_eq!(serde_json::from_value::<TargetId>(text.into()).unwrap(), target.clone());
            let due = Due { target, due };
            prop_assert_eq!(due.to_string().parse(), Ok(due.clone()));
            prop_assert_eq!(serde_json::from_value::<Due>(serde_json::to_value(&due).unwrap()).unwrap(), due);
        }
    }
}
