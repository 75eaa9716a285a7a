//! The form of Redis' URLs.

use tidewheel_core::address::{Allowed, Values};

/// Redis' URLs. The values of their options are numbers.
pub const ADDRESSES: Allowed = Allowed {
    schemes: &["redis", "rediss", "valkey", "valkeys", "redis+unix", "valkey+unix", "unix"],
    options: &["db"],
    values: Values::Numbers,
};
