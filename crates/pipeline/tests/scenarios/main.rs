//! Faults that are told one by one, on the fakes: each test asserts that its fault really happened, and that the index
//! equals the source when it is over.

#[path = "../world/mod.rs"]
mod world;

mod consumers;
mod identities;
mod isolation;
mod losses;
mod outages;
mod producers;
mod regressions;
mod reuse;
mod rollback;
mod tombstones;
mod traces;
