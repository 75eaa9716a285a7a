//! The stages of the pipeline.

/// A queue between two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Stage 1: changes, from the producer to the processors.
    Raw,
    /// Stage 2: changes with their vectors, from the processors to the upserters.
    Embedded,
}

impl Stage {
    /// Both stages, in order.
    pub const ALL: [Self; 2] = [Self::Raw, Self::Embedded];

    /// Its name in metrics, traces, reports and commands.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw_document_changes",
            Self::Embedded => "embedded_documents",
        }
    }

    /// The name of its consumers in traces and reports.
    pub const fn group(self) -> &'static str {
        match self {
            Self::Raw => "embedding_processors",
            Self::Embedded => "qdrant_upserters",
        }
    }
}
