//! tidewheel
fn main() {}
