//! Parses and formats times and durations.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mongodb::bson::DateTime;
pub(crate) use tidewheel_core::time::{now_ms, now_seconds};

use crate::exit::Failure;
use crate::settings::parse_duration;

/// Parses a timestamp or an age into milliseconds since the Unix epoch.
pub(crate) fn parse(flag: &str, text: &str, now: SystemTime) -> Result<u64, Failure> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    if let Some(ago) = parse_duration(text) {
        return Ok(milliseconds(now.saturating_sub(ago)));
    }
    DateTime::parse_rfc3339_str(text).ok().and_then(|time| u64::try_from(time.timestamp_millis()).ok()).ok_or_else(
        || {
            Failure::new(format!("invalid {flag} {text:?}: expected a time"))
                .with_hint("use a timestamp such as 2026-05-01T12:00:00Z, or an age such as 90m or 7d")
        },
    )
}

/// Formats a time as RFC 3339 in UTC.
pub(crate) fn show(milliseconds: u64) -> String {
    let time = DateTime::from_millis(i64::try_from(milliseconds).unwrap_or(i64::MAX));
    time.try_to_rfc3339_string().unwrap_or_else(|_| format!("{milliseconds} ms"))
}

/// Formats a duration to one decimal.
pub(crate) fn span(milliseconds: u64) -> String {
    match milliseconds {
        0..=999 => format!("{milliseconds} ms"),
        1_000..=59_999 => format!("{:.1} s", milliseconds as f64 / 1e3),
        60_000..=3_599_999 => format!("{:.1} min", milliseconds as f64 / 6e4),
        3_600_000..=172_799_999 => format!("{:.1} h", milliseconds as f64 / 3.6e6),
        _ => format!("{:.1} d", milliseconds as f64 / 8.64e7),
    }
}

pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_parsed_and_durations_formatted() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(parse("--since", "1h", now).unwrap(), 996_400_000);
        assert_eq!(parse("--since", "1970-01-02T00:00:00Z", now).unwrap(), 86_400_000);
        assert_eq!(show(86_400_000), "1970-01-02T00:00:00Z");
        let spans = [(999, "999 ms"), (90_000, "1.5 min"), (5_400_000, "1.5 h"), (259_200_000, "3.0 d")];
        assert!(spans.into_iter().all(|(milliseconds, shown)| span(milliseconds) == shown));
        for wrong in ["", "yesterday", "12", "1960-01-01T00:00:00Z"] {
            assert!(parse("--since", wrong, now).is_err(), "{wrong}");
        }
    }
}
