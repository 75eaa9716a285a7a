//! Times as people write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mongodb::bson::DateTime;

use crate::exit::Failure;
use crate::settings::parse_duration;

/// Reads a time, or how long ago it was, as milliseconds since the Unix epoch.
pub(super) fn parse(text: &str, now: SystemTime) -> Result<u64, Failure> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    if let Some(ago) = parse_duration(text) {
        return Ok(milliseconds(now.saturating_sub(ago)));
    }
    DateTime::parse_rfc3339_str(text).ok().and_then(|time| u64::try_from(time.timestamp_millis()).ok()).ok_or_else(
        || {
            Failure::new(format!("--since {text:?} is no time"))
                .with_hint("write it like 2026-05-01T12:00:00Z, or how long ago: 90m, 7d")
        },
    )
}

/// The time in UTC.
pub(super) fn show(milliseconds: u64) -> String {
    let time = DateTime::from_millis(i64::try_from(milliseconds).unwrap_or(i64::MAX));
    time.try_to_rfc3339_string().unwrap_or_else(|_| format!("{milliseconds} ms"))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_spans_are_read() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(parse("1h", now).unwrap(), 996_400_000);
        assert_eq!(parse("1970-01-02T00:00:00Z", now).unwrap(), 86_400_000);
        assert_eq!(show(86_400_000), "1970-01-02T00:00:00Z");
        for wrong in ["", "yesterday", "12", "1960-01-01T00:00:00Z"] {
            assert!(parse(wrong, now).is_err(), "{wrong}");
        }
    }
}
