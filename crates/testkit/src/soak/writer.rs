//! Writes to MongoDB directly during the whole run.

use std::time::Duration;

use mongodb::Client;
use mongodb::options::ClientOptions;
use tokio::sync::watch;

use super::apply::{Databases, apply};
use super::documents::COLLECTIONS;
use super::operations::{Planner, Write};
use super::tally::{Tally, Written};
use super::world::World;
use super::{SoakError, SoakOptions};

/// Server selection timeout: while mongod is down, a write fails after this time, and the next one starts.
const SELECTION: Duration = Duration::from_secs(2);

/// Documents per collection before the first service starts.
const BEFORE: usize = 60;

/// Writes one seed's operations.
pub(super) struct Writer {
    databases: Databases,
    planner: Planner,
}

impl Writer {
    pub(super) async fn connect(world: &World, options: &SoakOptions) -> Result<Self, SoakError> {
        let mut connection = ClientOptions::parse(world.stack.mongodb_uri()).await.map_err(source)?;
        connection.server_selection_timeout = Some(SELECTION);
        let client = Client::with_options(connection).map_err(source)?;
        let planner = Planner::new(options.seed);
        let planner = if options.indexes { planner.with_statuses(options.seed) } else { planner };
        Ok(Self { databases: Databases::new(&client, options.indexes), planner })
    }

    /// Writes the documents of the initial snapshot.
    pub(super) async fn prepare(&mut self, tally: &Tally) -> Result<(), SoakError> {
        for place in 0..COLLECTIONS.len() {
            let write = self.planner.first(place, BEFORE);
            apply(&self.databases, &write).await.map_err(source)?;
            tally.operation(write.kind, &Written::Changed);
        }
        Ok(())
    }

    /// Writes until the end.
    pub(super) async fn write(
        &mut self,
        tally: &Tally,
        per_second: u32,
        mut end: watch::Receiver<bool>,
    ) -> Result<(), SoakError> {
        let mut every = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = end.wait_for(|over| *over) => return Ok(()),
                _ = every.tick() => {}
            }
            // Outside the `select!`: driver futures must not be cancelled.
            let write: Write = self.planner.next();
            let written = match apply(&self.databases, &write).await {
                Ok(0) => Written::Nothing,
                Ok(_) => Written::Changed,
                Err(_) => Written::Unacknowledged,
            };
            tally.operation(write.kind, &written);
        }
    }
}

fn source(error: impl std::fmt::Display) -> SoakError {
    SoakError::Source(error.to_string())
}
