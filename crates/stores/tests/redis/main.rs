//! The Redis adapters on a real redis-server: the ports' contracts, and faults that only a real server and network
//! have.

mod audit_log;
mod bytes;
mod faults;
mod indexes;
mod memory;
mod ownership;
mod persistence;
mod rights;
mod server;
mod services;
mod setup;
mod sizes;
mod tls;

use server::TestRedis;

tidewheel_testkit::streams_contract_tests!(TestRedis::start().await);
tidewheel_testkit::catalog_contract_tests!(TestRedis::start().await);
tidewheel_testkit::targets_contract_tests!(TestRedis::start().await);
