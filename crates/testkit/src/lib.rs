//! tidewheel testkit.

pub mod contracts;
pub mod fakes;
pub mod proxy;
