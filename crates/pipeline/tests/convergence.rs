//! The three services on the fakes, under seeded schedules of writes, faults and crashes.
//!
//! Time is tokio's paused clock, so that minutes of backoff and idle time pass instantly. A seed always produces the
//! same writes, faults and crashes. After each schedule all faults are removed, and the index must converge to the
//! source.

mod world;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::EntryId;
use tidewheel_stores::redis::keys::{EMBEDDED, RAW, RAW_DEAD_LETTERS, STAGE_1, STAGE_2};
use tidewheel_testkit::fakes::faults::Fault;
use tidewheel_testkit::fakes::streams::Saved;

use world::{COLLECTIONS, PROCESSOR, PRODUCER, SERVICES, UPSERTER, World};

/// The actions of a schedule.
impl World {
    fn inject(&self, random: &mut StdRng) {
        let kinds = self.faults();
        let (calls, faults) = kinds.choose(random).expect("there are some");
        let fault = match random.random_range(0..3) {
            0 => Fault::unreachable(),
            1 => Fault::answer_lost(),
            _ => Fault::Slow(Duration::from_millis(random.random_range(1..8_000))),
        };
        faults.once(calls.choose(random).expect("there are some"), fault);
    }

    fn hits(&self) -> u64 {
        self.faults().iter().flat_map(|(calls, faults)| calls.iter().map(|call| faults.hits(call))).sum()
    }

    async fn converge(&mut self, seed: u64) {
        for (_, faults) in self.faults() {
            faults.heal();
        }
        self.start_all();
        self.settle(&format!("seed {seed}")).await;
    }

    /// A loss that retries cannot repair.
    fn disaster(&mut self, random: &mut StdRng, saved: &mut Option<Saved>) {
        let stage = if random.random() { STAGE_1 } else { STAGE_2 };
        let which = random.random_range(0..9);
        self.story.push(format!("disaster {which} ({})", stage.stream));
        match which {
            0 => self.source.lose_history(),
            1 => self.streams.delete_checkpoint(),
            2 => self.streams.destroy_group(stage),
            3 => self.streams.delete_stream(stage.stream),
            4 => {
                let entries = match stage.stream {
                    RAW => ids(self.streams.records::<Change>(RAW)),
                    _ => ids(self.streams.records::<Embedded>(EMBEDDED)),
                };
                if let Some(id) = entries.choose(random) {
                    self.streams.delete_entry(stage.stream, id);
                }
            }
            5 => self.index.drop_collection(),
            6 => self.streams.wipe(),
            7 => *saved = Some(self.streams.save()),
            // A Redis restored with older data.
            _ => {
                if let Some(saved) = saved.take() {
                    self.streams.restore(&saved);
                }
            }
        }
    }

    fn write(&self, random: &mut StdRng) {
        let collection = COLLECTIONS[random.random_range(0..COLLECTIONS.len())];
        let id = random.random_range(0..6);
        let exists = self.source.rows(collection).iter().any(|row| row.id == id.to_string());
        let text = "word ".repeat(random.random_range(0..14));
        let document = json!({"_id": id, "text": text, "stamp": random.random::<u32>()});
        match (exists, random.random_range(0..3)) {
            (false, _) => self.source.insert(collection, document),
            (true, 0) => self.source.delete(collection, json!(id)),
            (true, _) => self.source.replace(collection, document),
        }
    }
}

fn ids<T>(records: Vec<(EntryId, T)>) -> Vec<EntryId> {
    records.into_iter().map(|(id, _)| id).collect()
}

/// One schedule. `disasters` adds losses beyond failed calls and crashes: see [`World::disaster`]. Returns the number
/// of faults hit.
async fn schedule(seed: u64, disasters: bool) -> u64 {
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new();
    for _ in 0..random.random_range(0..12) {
        world.write(&mut random);
    }
    for service in [PRODUCER, PRODUCER, PROCESSOR, PROCESSOR, UPSERTER, UPSERTER] {
        world.start(service);
    }
    let mut saved = None;
    for _ in 0..120 {
        match random.random_range(0..20) {
            0..9 => world.write(&mut random),
            9..13 => world.inject(&mut random),
            13..15 => {
                let service = SERVICES[random.random_range(0..3)];
                world.kill(service);
                world.start(service);
            }
            15 if disasters => world.disaster(&mut random, &mut saved),
            _ => tokio::time::sleep(Duration::from_millis(random.random_range(1..2_000))).await,
        }
    }
    world.converge(seed).await;
    assert!(world.streams.raw(RAW_DEAD_LETTERS).is_empty(), "seed {seed}: transient failures were parked");
    world.hits()
}

/// These seeds; with `SEED=1023` in the environment only that one, with logs.
fn seeds(usual: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let Some(seed) = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) else { return usual };
    let _ = tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG).try_init();
    seed..seed + 1
}

#[tokio::test(start_paused = true)]
async fn index_converges_despite_failed_calls_and_crashes() {
    let (mut hits, seeds) = (0, seeds(0..40));
    let schedules = seeds.end - seeds.start;
    for seed in seeds {
        hits += schedule(seed, false).await;
    }
    assert!(hits > 10 * schedules, "only {hits} faults were hit");
}

#[tokio::test(start_paused = true)]
async fn losses_and_deletions_are_repaired_automatically() {
    for seed in seeds(1_000..1_060) {
        schedule(seed, true).await;
    }
}
