//! tidewheel core.
