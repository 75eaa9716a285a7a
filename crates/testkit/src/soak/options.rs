//! What to run.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Says how far a soak is, one line at a time.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

/// The vector that a chunk with this text should have.
pub type Embed = Arc<dyn Fn(&str) -> Vec<f32> + Send + Sync>;

/// One soak.
#[derive(Clone)]
pub struct SoakOptions {
    /// Decides the writes and the faults.
    pub seed: u64,
    /// How long writes and faults go on. Healing and converging come on top.
    pub duration: Duration,
    /// Faults that are begun in a minute. One that turns out to have had no effect is followed by another at once.
    pub faults_per_minute: u32,
    /// Writes that are begun in a second, while MongoDB is there.
    pub operations_per_second: u32,
    /// The binary of the services.
    pub tidewheel: PathBuf,
    /// An existing, empty folder for the servers' data, the settings and all logs. The caller removes it.
    pub folder: PathBuf,
    /// How long the pipeline may take to converge after everything is healed.
    pub patience: Duration,
    /// Checks the vectors as well, of [`SoakOptions::MODEL`]. Not made here, so that the testkit needs no engine.
    pub embed: Option<Embed>,
    /// Where progress goes.
    pub progress: Progress,
}

impl SoakOptions {
    /// The embedder's model: vectors without a model, so that the run is about the pipeline.
    pub const MODEL: &'static str = "hash:64";
    /// Length of its vectors.
    pub const DIMENSION: usize = 64;

    /// Ten minutes, silent.
    #[must_use]
    pub fn new(seed: u64, tidewheel: impl Into<PathBuf>, folder: impl Into<PathBuf>) -> Self {
        Self {
            seed,
            duration: Duration::from_secs(600),
            faults_per_minute: 30,
            operations_per_second: 40,
            tidewheel: tidewheel.into(),
            folder: folder.into(),
            patience: Duration::from_secs(120),
            embed: None,
            progress: Arc::new(|_| {}),
        }
    }
}

impl fmt::Debug for SoakOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoakOptions")
            .field("seed", &self.seed)
            .field("duration", &self.duration)
            .field("faults_per_minute", &self.faults_per_minute)
            .field("operations_per_second", &self.operations_per_second)
            .field("tidewheel", &self.tidewheel)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}
