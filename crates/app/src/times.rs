//! Parses times; formats times and durations.

use std::time::{SystemTime, UNIX_EPOCH};

use tidewheel_core::filter::Date;
pub(crate) use tidewheel_core::time::now_ms;
pub(crate) use tidewheel_ops::times::{milliseconds, show, span};

use crate::exit::Failure;
use crate::settings::parse_duration;

/// Parses a timestamp or an age into milliseconds since the Unix epoch.
pub(crate) fn parse(flag: &str, text: &str, now: SystemTime) -> Result<u64, Failure> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    if let Some(ago) = parse_duration(text) {
        return Ok(milliseconds(now.saturating_sub(ago)));
    }
    Date::parse(text).and_then(since_epoch).ok_or_else(|| {
        Failure::new(format!("invalid {flag} {text:?}: expected a time"))
            .with_hint("use a timestamp such as 2026-05-01T12:00:00Z, or an age such as 90m or 7d")
    })
}

/// Returns the milliseconds since the Unix epoch, rounded down; `None` for earlier dates.
fn since_epoch(date: Date) -> Option<u64> {
    let seconds = u64::try_from(date.seconds).ok()?;
    seconds.checked_mul(1_000)?.checked_add(u64::from(date.nanos / 1_000_000))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_and_ages_are_parsed() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(parse("--since", "1h", now).unwrap(), 996_400_000);
        assert_eq!(parse("--since", "1970-01-02T00:00:00Z", now).unwrap(), 86_400_000);
        assert_eq!(parse("--since", "1970-01-02T01:00:00.5+01:00", now).unwrap(), 86_400_500);
        for wrong in ["", "yesterday", "12", "1960-01-01T00:00:00Z"] {
            assert!(parse("--since", wrong, now).is_err(), "{wrong}");
        }
    }
}
