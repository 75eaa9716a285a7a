//! Redaction of the servers' addresses in settings and output.

use tidewheel_core::address;
use tidewheel_stores::ADDRESSES;

/// Replaces everything in the address that may be secret by `***`.
pub(crate) fn shown(address: &str) -> String {
    address::shown(address, ADDRESSES)
}

/// Whether [`shown`] redacts anything.
pub(crate) fn holds_secret(address: &str) -> bool {
    address::holds_secret(address, ADDRESSES)
}
