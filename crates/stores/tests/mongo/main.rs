//! The source on a real mongod: the port's contract, and what only a real server can do to it.

mod facts;
mod faults;
mod feed;
mod kinds;
mod odd;
mod rights;
mod scan;
mod server;
mod tls;

use server::TestMongo;

tidewheel_testkit::source_contract_tests!(TestMongo::start().await);
