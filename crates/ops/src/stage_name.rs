//! Names of the stages.

use serde::Serialize;
use tidewheel_core::stage::Stage;

/// A stage of the pipeline, as operators name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StageName {
    /// Stage 1: changes from the source.
    Raw,
    /// Stage 2: changes with their vectors.
    Embedded,
}

impl StageName {
    /// Both stages, in pipeline order.
    pub const ALL: [Self; 2] = [Self::Raw, Self::Embedded];

    /// Name in arguments and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Embedded => "embedded",
        }
    }

    /// Name in messages.
    pub fn title(self) -> &'static str {
        match self {
            Self::Raw => "stage 1",
            Self::Embedded => "stage 2",
        }
    }

    /// The stage of this name.
    pub fn stage(self) -> Stage {
        match self {
            Self::Raw => Stage::Raw,
            Self::Embedded => Stage::Embedded,
        }
    }
}
