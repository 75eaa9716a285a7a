//! The `tidewheel` binary.

use std::process::ExitCode;

use tidewheel::Measurements;

fn main() -> ExitCode {
    tidewheel::run(Measurements::On)
}
