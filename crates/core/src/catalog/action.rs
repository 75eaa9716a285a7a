//! What is done for an index.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is done for an index, in the order of effort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing.
    None,
    /// Settings of the collection are altered, or rules recorded. No point changes.
    Settings,
    /// Documents that belong to the index are added, and others removed.
    Adjust,
    /// Payloads are rewritten. Nothing is embedded.
    Payload,
    /// Changed texts are embedded.
    Text,
    /// The alias returns to a kept generation.
    Switch,
    /// A generation that does not serve is given up.
    Discard,
    /// A new generation is created and filled, and the alias moves to it.
    Generation,
    /// The index is created and filled.
    Create,
    /// The index is removed with its collections.
    Drop,
}

impl Action {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Settings => "settings",
            Self::Adjust => "adjust",
            Self::Payload => "payload",
            Self::Text => "text",
            Self::Switch => "switch",
            Self::Discard => "discard",
            Self::Generation => "generation",
            Self::Create => "create",
            Self::Drop => "drop",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
