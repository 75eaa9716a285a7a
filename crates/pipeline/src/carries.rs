//! The change that a record of either stage carries, and where it goes.

use tidewheel_core::catalog::TargetId;
use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;

/// A record that carries a change.
pub(crate) trait Carries {
    /// The change.
    fn change(&self) -> &Change;

    /// The target of a record that has exactly one. `None` for a change, which may have several, and for the record of an
    /// installation without an applied catalog.
    fn target(&self) -> Option<&TargetId>;

    /// The revision of the catalog that the record requires; 0 without one.
    fn catalog(&self) -> u64;

    /// Approximate size of the record in bytes.
    fn bytes(&self) -> usize;
}

impl Carries for Change {
    fn change(&self) -> &Change {
        self
    }

    fn target(&self) -> Option<&TargetId> {
        None
    }

    fn catalog(&self) -> u64 {
        self.route.catalog()
    }

    fn bytes(&self) -> usize {
        self.key.len() + self.id.len() + self.document.as_ref().map_or(0, String::len)
    }
}

impl Carries for Embedded {
    fn change(&self) -> &Change {
        &self.change
    }

    fn target(&self) -> Option<&TargetId> {
        self.target.as_ref().map(|target| &target.id)
    }

    fn catalog(&self) -> u64 {
        self.target.as_ref().map_or(0, |target| target.catalog).max(self.change.catalog())
    }

    fn bytes(&self) -> usize {
        let texts = self.prefix.len() + self.chunks.iter().map(String::len).sum::<usize>();
        self.change.bytes() + texts + size_of_val(self.vectors.values())
    }
}
