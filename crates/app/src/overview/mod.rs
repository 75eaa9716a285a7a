//! Renders the overview as text, as a live view and as metrics. [`tidewheel_ops::overview`] gathers and evaluates it.

pub(crate) mod gauges;
mod indexes;
#[cfg(test)]
mod tests;
mod text;
mod view;

pub(crate) use indexes::page;
pub(crate) use text::text;
pub(crate) use view::{History, Paint, draw};
