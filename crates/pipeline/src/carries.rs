//! The change that a record of either stage carries.

use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;

/// A record that carries a change.
pub(crate) trait Carries {
    /// The change.
    fn change(&self) -> &Change;

    /// Approximate size of the record in bytes.
    fn bytes(&self) -> usize;
}

impl Carries for Change {
    fn change(&self) -> &Change {
        self
    }

    fn bytes(&self) -> usize {
        self.key.len() + self.id.len() + self.document.as_ref().map_or(0, String::len)
    }
}

impl Carries for Embedded {
    fn change(&self) -> &Change {
        &self.change
    }

    fn bytes(&self) -> usize {
        let texts = self.prefix.len() + self.chunks.iter().map(String::len).sum::<usize>();
        self.change.bytes() + texts + size_of_val(self.vectors.values())
    }
}
