//! Options of a soak.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Receives progress, one line at a time.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

/// Computes the expected vector, of this dimension, of what the embedder is given for a chunk.
pub type Embed = Arc<dyn Fn(usize, &str) -> Vec<f32> + Send + Sync>;

/// Options of one soak.
#[derive(Clone)]
pub struct SoakOptions {
    /// Determines the writes and the faults.
    pub seed: u64,
    /// Duration of writes and faults, without healing and convergence.
    pub duration: Duration,
    /// Faults started per minute. A fault without effect is followed by another immediately.
    pub faults_per_minute: u32,
    /// Writes started per second, while MongoDB is reachable.
    pub operations_per_second: u32,
    /// The binary of the services.
    pub tidewheel: PathBuf,
    /// An existing, empty folder for the servers' data, the settings and all logs. The caller removes it.
    pub folder: PathBuf,
    /// Timeout for convergence after healing.
    pub patience: Duration,
    /// Also checks the vectors, of [`SoakOptions::MODEL`] and, with declared indexes, of other dimensions. Injected, so
    /// that the testkit needs no engine.
    pub embed: Option<Embed>,
    /// Declares three indexes over two databases instead of the short form of one, and changes their declarations
    /// meanwhile.
    pub indexes: bool,
    /// Receiver of progress.
    pub progress: Progress,
}

impl SoakOptions {
    /// The embedder's model: hash vectors, so that the run exercises the pipeline.
    pub const MODEL: &'static str = "hash:64";
    /// Dimension of its vectors.
    pub const DIMENSION: usize = 64;
    /// A timeout for convergence with declared indexes: the controller repeats moves and comparisons minutes after they
    /// have failed.
    pub const PATIENCE_WITH_INDEXES: Duration = Duration::from_secs(360);

    /// Options for a run of ten minutes, without progress output.
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
            indexes: false,
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
            .field("indexes", &self.indexes)
            .finish_non_exhaustive()
    }
}
