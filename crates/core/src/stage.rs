//! The stages of the pipeline.

use serde::Serialize;

/// A queue between two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Stage 1: changes, from the producer to the processors.
    Raw,
    /// Stage 2: changes with their vectors, from the processors to the upserters.
    Embedded,
}

impl Stage {
    /// Both stages, in pipeline order.
    pub const ALL: [Self; 2] = [Self::Raw, Self::Embedded];

    /// Its label in metrics, traces and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw_document_changes",
            Self::Embedded => "embedded_documents",
        }
    }

    /// Its name in arguments and JSON.
    pub const fn short_name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Embedded => "embedded",
        }
    }

    /// Its name in messages.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Raw => "stage 1",
            Self::Embedded => "stage 2",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stage_serializes_as_its_short_name() {
        for stage in Stage::ALL {
            assert_eq!(serde_json::to_value(stage).unwrap(), stage.short_name());
        }
    }
}
