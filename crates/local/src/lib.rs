//! tidewheel local.
