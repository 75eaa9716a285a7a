//! The web console in a real browser, before a real pipeline: what a person sees and does there.
//!
//! With `TIDEWHEEL_SCREENSHOTS=DIR`, every page is kept there as a picture, light and dark, for a desk and for a phone.

mod browser;
mod pages;
mod pipeline;
mod refusals;
#[path = "../e2e/world.rs"]
#[allow(dead_code)]
mod world;
