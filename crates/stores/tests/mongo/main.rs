//! The MongoDB adapter on a real mongod: the port's contract, and faults that only a real server has.

mod facts;
mod faults;
mod feed;
mod kinds;
mod odd;
mod query;
mod rights;
mod scan;
mod server;
mod tls;

use server::TestMongo;

tidewheel_testkit::source_contract_tests!(TestMongo::start().await);
