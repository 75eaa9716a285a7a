//! tidewheel embed.
