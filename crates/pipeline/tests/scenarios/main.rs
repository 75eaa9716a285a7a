//! Individual fault scenarios on the fakes: each test asserts that its fault really occurred, and that the index
//! converges to the source afterwards.

#[path = "../declared/mod.rs"]
mod declared;
#[path = "../world/mod.rs"]
mod world;

mod consumers;
mod filters;
mod generations;
mod identities;
mod indexes;
mod isolation;
mod losses;
mod outages;
mod producers;
mod regressions;
mod reuse;
mod rollback;
mod tombstones;
mod traces;
mod upgrades;
