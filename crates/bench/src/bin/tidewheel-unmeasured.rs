//! `tidewheel` with services that neither record metrics nor publish reports, for `tidewheel-bench observability`.

use std::process::ExitCode;

use tidewheel::Measurements;

fn main() -> ExitCode {
    tidewheel::run(Measurements::Off)
}
