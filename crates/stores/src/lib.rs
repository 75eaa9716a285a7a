//! tidewheel stores.
