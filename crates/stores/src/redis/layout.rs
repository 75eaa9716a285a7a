//! The layout of the keys, which decides whether this release can use them.

use tidewheel_core::catalog::Catalog;
use tidewheel_core::error::{Cause, PortError, Server};
use tidewheel_core::ports::PortResult;

/// The newest layout of the keys beside the streams (checkpoints, counts, tombstones, registration) that this release
/// can use. Stored with the registration. A release that only adds keys or fields keeps it; a release whose keys an
/// earlier one would misread or damage raises it.
pub const LAYOUT: u32 = TARGET_LAYOUT;

/// The layout of a new installation. The first applied catalog raises it, so that releases that know only this one can
/// run beside newer ones until then.
pub const INITIAL_LAYOUT: u32 = 1;

/// The layout in which targets have [keys of their own](super::keys::TargetKeys): that of an installation with a catalog.
pub const TARGET_LAYOUT: u32 = Catalog::LAYOUT;

/// Checks the layout found in `place`.
///
/// # Errors
/// Fatal, if a newer release has written it.
pub fn check_layout(found: u32, place: &str) -> PortResult<()> {
    if found <= LAYOUT {
        return Ok(());
    }
    let message =
        format!("unsupported layout {found} of the keys in {place}: this release uses layouts up to {LAYOUT}");
    Err(PortError::fatal(message)
        .because(Server::OTHER, Cause::Newer)
        .with_hint("upgrade this service: a newer release of tidewheel has written the keys"))
}
