//! Formats times and durations.

use std::time::Duration;

use tidewheel_core::time::rfc3339;

/// The last time that RFC 3339 expresses: its years have four digits.
const LAST: &str = "9999-12-31T23:59:59.999999999Z";

/// Milliseconds from the Unix epoch to the year 10000.
const YEAR_10000: i64 = 253_402_300_800_000;

/// Formats a time, in milliseconds since the Unix epoch, as RFC 3339 in UTC. Fractions have no trailing zeros; times
/// after the year 9999 are shown as its last nanosecond.
pub fn show(milliseconds: u64) -> String {
    let Some(time) = i64::try_from(milliseconds).ok().filter(|time| *time < YEAR_10000) else {
        return LAST.to_owned();
    };
    let text = rfc3339(time);
    match text.split_once('.') {
        Some((seconds, fraction)) => format!("{seconds}.{}Z", fraction.trim_end_matches(['0', 'Z'])),
        None => text,
    }
}

/// Formats a measured duration to one decimal. [`duration`](crate::text::duration) rounds estimates to about two digits.
pub fn span(milliseconds: u64) -> String {
    match milliseconds {
        0..=999 => format!("{milliseconds} ms"),
        1_000..=59_999 => format!("{:.1} s", milliseconds as f64 / 1e3),
        60_000..=3_599_999 => format!("{:.1} min", milliseconds as f64 / 6e4),
        3_600_000..=172_799_999 => format!("{:.1} h", milliseconds as f64 / 3.6e6),
        _ => format!("{:.1} d", milliseconds as f64 / 8.64e7),
    }
}

/// A duration in milliseconds.
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_are_formatted() {
        assert_eq!(show(86_400_000), "1970-01-02T00:00:00Z");
        assert_eq!(show(86_400_500), "1970-01-02T00:00:00.5Z");
        assert_eq!(show(86_400_042), "1970-01-02T00:00:00.042Z");
        assert_eq!(show(253_402_300_799_999), "9999-12-31T23:59:59.999Z");
        assert_eq!(show(253_402_300_800_000), "9999-12-31T23:59:59.999999999Z");
        assert_eq!(show(u64::MAX), "9999-12-31T23:59:59.999999999Z");
        let spans = [(999, "999 ms"), (90_000, "1.5 min"), (5_400_000, "1.5 h"), (259_200_000, "3.0 d")];
        assert!(spans.into_iter().all(|(milliseconds, shown)| span(milliseconds) == shown));
    }
}
