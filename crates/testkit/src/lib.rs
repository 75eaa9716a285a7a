//! tidewheel testkit.

pub mod contracts;
pub mod fakes;
pub mod oracle;
pub mod proxy;
pub mod soak;
