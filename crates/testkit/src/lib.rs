//! Fakes of the servers, contract tests of the ports, the oracle, a fault proxy and the chaos soak; for tests only.

pub mod certificates;
pub mod contracts;
pub mod fakes;
pub mod mongodb_proxy;
pub mod openapi;
pub mod oracle;
pub mod programs;
pub mod proxy;
pub mod redis_proxy;
pub mod soak;
pub mod source_write;
pub mod tls_proxy;
