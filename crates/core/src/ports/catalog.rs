//! The catalog: what was applied, and what its targets have lost.

use async_trait::async_trait;
use uuid::Uuid;

use super::PortResult;
use super::journal::Appended;
use crate::catalog::{Catalog, Declaration, Index, IndexName, TargetId};

/// Stores the catalog next to the queues.
#[async_trait]
pub trait CatalogStore: Send + Sync {
    /// The catalog, and the time by the clock of the store in milliseconds since the Unix epoch. Revision 0 and no
    /// indexes before the first catalog is applied.
    async fn load(&self) -> PortResult<(Catalog, u64)>;

    /// The catalog's revision alone; 0 before the first catalog is applied.
    async fn revision(&self) -> PortResult<u64>;

    /// Replaces these indexes and the revision by `next`, atomically, if the saved revision is `expected`. `None` removes
    /// everything that is stored under the name; of a dropped index, [`Index::dropped`] is saved. `next` is max(`expected` +
    /// 1, the time that [`Self::load`] returned). `layout` is the layout of the stored keys that the catalog requires; `None`
    /// leaves it.
    ///
    /// `change` identifies the change: a call whose response was lost returns [`Appended::Saved`] when repeated with the
    /// same one.
    async fn save(
        &self,
        change: Uuid,
        expected: u64,
        next: u64,
        indexes: &[(IndexName, Option<Index>)],
        layout: Option<u32>,
    ) -> PortResult<Appended>;

    /// The declaration that the points of the short form conform to; `None` if it was never saved.
    async fn plain(&self) -> PortResult<Option<Declaration>>;

    /// Saves that declaration.
    async fn set_plain(&self, declaration: &Declaration) -> PortResult<()>;

    /// The targets that lost something, each with a text that names what and when: their collection is missing or was
    /// replaced, or records were skipped. Sorted.
    async fn lost(&self) -> PortResult<Vec<(TargetId, String)>>;

    /// Forgets the loss of this target, unless a newer one has replaced its text.
    async fn found(&self, target: &TargetId, text: &str) -> PortResult<()>;

    /// Removes a page of the [state](super::TargetState) of a target whose collection is deleted; returns whether any is
    /// left.
    async fn forget(&self, target: &TargetId) -> PortResult<bool>;
}
