//! An append to stage 1.

use tidewheel_core::change::Change;
use tidewheel_core::ports::{Checkpoint, ParkedChange};

/// An append: the entries and the checkpoint that covers them.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The entries of stage 1.
    pub changes: Vec<Change>,
    /// Changes to park in its dead-letter queue.
    pub parked: Vec<ParkedChange>,
    /// The checkpoint after them.
    pub next: Checkpoint,
}
