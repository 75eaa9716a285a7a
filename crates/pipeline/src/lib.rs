//! tidewheel pipeline.
