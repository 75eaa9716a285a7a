//! The safeguards. The model has each of them unless it is removed.

/// A safeguard of the protocol of generations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Safeguard {
    /// A snapshot begins after the adoption of the revision that makes its targets due.
    AdoptionFirst,
    /// A snapshot begins at a later time than the one before it.
    LaterRows,
    /// A snapshot compares rows when everything appended before is in the index.
    SettledComparison,
    /// A generation is filled when the end of its snapshot is applied.
    AppliedEnd,
    /// The routes of an entry are those of the checkpoint that is saved with it.
    RoutesInCheckpoint,
    /// After a loss of entries, changes are routed by the current revision when they are appended again.
    CurrentRewind,
    /// A processor renders an entry by a catalog that is no older than its stamp.
    StampCheck,
    /// The alias moves when nothing is in flight.
    Rest,
    /// A skipped record is a loss: the generation is filled and compared again.
    RecordedGap,
    /// A collection is deleted when everything is applied that was routed to it.
    Barrier,
    /// An upserter reads the catalog again before it creates a collection.
    ReadAgain,
    /// Nothing is appended between the deletion of a plain collection and the record of the move that replaces it.
    UndisturbedMove,
    /// The alias does not return to a generation that lost something.
    WholeRollback,
    /// A move is saved as intended before it begins.
    Intent,
    /// A document that leaves a generation leaves a tombstone.
    LeaveTombstone,
    /// Each generation has its own tombstones.
    OwnTombstones,
    /// A replacement may have touched every path of a filter.
    Replacements,
}
