//! Memory that a thread keeps from tile to tile.

/// The intermediate results of one tile. Starts empty, grows to what the engine needs at its first tile, and stays.
/// Belongs to one thread at a time, and may be used with any engine.
#[derive(Debug, Default)]
pub struct Workspace {}
