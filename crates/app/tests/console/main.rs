//! The web console in a real browser with a real pipeline.
//!
//! With `TIDEWHEEL_SCREENSHOTS=DIR`, saves a screenshot of every page, in light and dark, for desktop and phone.

mod browser;
mod pages;
mod pipeline;
mod rejections;
#[path = "../e2e/world.rs"]
#[allow(dead_code, reason = "shared with the end-to-end tests; the console tests use a part of it")]
mod world;
