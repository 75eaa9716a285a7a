//! The engines under measurement.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tidewheel_engine::{Engine, ModelSource, ModelSpec, Precision, Text, load};

use crate::process::{Child, cpu_seconds};

/// tidewheel's precisions, including the automatic choice at load.
pub(crate) const OURS: [Precision; 4] = [Precision::F32, Precision::Bf16, Precision::Int8, Precision::Auto];

/// A third-party engine, run in Python.
pub(crate) struct Other {
    /// Name on the command line and in `engines.py`.
    pub(crate) key: &'static str,
    /// Display name.
    pub(crate) name: &'static str,
    /// Precision of the CPU peak it is compared with.
    pub(crate) precision: Precision,
}

/// The engines of `engines.py`.
pub(crate) const OTHERS: [Other; 7] = [
    Other { key: "st-8", name: "sentence-transformers f32, batch 8", precision: Precision::F32 },
    Other { key: "st-32", name: "sentence-transformers f32, batch 32", precision: Precision::F32 },
    Other { key: "ort-f32", name: "onnxruntime f32", precision: Precision::F32 },
    Other { key: "ort-int8", name: "onnxruntime int8", precision: Precision::Int8 },
    Other { key: "ov-f32", name: "OpenVINO f32", precision: Precision::F32 },
    Other { key: "ov-bf16", name: "OpenVINO bf16", precision: Precision::Bf16 },
    Other { key: "ov-int8", name: "OpenVINO int8", precision: Precision::Int8 },
];

/// One engine under measurement.
pub(crate) enum Contestant {
    Ours(Arc<dyn Engine>),
    Other(Box<Child>),
}

/// Time for all texts, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) clock: f64,
    pub(crate) cpu: f64,
}

impl Contestant {
    /// Embeds all texts. Returns the concatenated vectors.
    pub(crate) fn embed(&mut self, batch: &[&[u32]]) -> Result<Vec<f32>, String> {
        match self {
            Self::Ours(engine) => Ok(engine.embed(&Text::list(batch), 0)),
            Self::Other(child) => child.embed(),
        }
    }

    /// Measures the time for all texts.
    pub(crate) fn time(&mut self, batch: &[&[u32]]) -> Result<Times, String> {
        match self {
            Self::Ours(engine) => {
                let (cpu, start) = (cpu_seconds(std::process::id()), Instant::now());
                let _ = engine.embed(&Text::list(batch), 0);
                let clock = start.elapsed().as_secs_f64();
                Ok(Times { clock, cpu: cpu_seconds(std::process::id()) - cpu })
            }
            Self::Other(child) => child.time(),
        }
    }

    /// Measures repeated embeddings of one text. Returns seconds per run.
    pub(crate) fn single(&mut self, ids: &[u32], repeats: usize) -> Result<Vec<f64>, String> {
        match self {
            Self::Ours(engine) => {
                let mut out = vec![0.0; engine.info().dimension];
                let once = |_| {
                    let start = Instant::now();
                    engine.embed_one(Text::plain(ids), &mut out);
                    start.elapsed().as_secs_f64()
                };
                Ok((0..repeats).map(once).collect())
            }
            Self::Other(child) => child.single(ids, repeats),
        }
    }
}

/// Loads tidewheel's engine with the model in this directory.
pub(crate) fn ours(model: &Path, precision: Precision) -> Result<Arc<dyn Engine>, String> {
    let spec = ModelSpec { precision, ..ModelSpec::new(ModelSource::Directory(model.to_owned())) };
    load(&spec).map_err(|error| error.to_string())
}
