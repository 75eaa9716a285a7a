//! tidewheel testkit.
