//! Formats times and durations.

use std::time::Duration;

use bson::DateTime;

/// Formats a time, in milliseconds since the Unix epoch, as RFC 3339 in UTC.
pub fn show(milliseconds: u64) -> String {
    let time = DateTime::from_millis(i64::try_from(milliseconds).unwrap_or(i64::MAX));
    time.try_to_rfc3339_string().unwrap_or_else(|_| format!("{milliseconds} ms"))
}

/// Formats a duration to one decimal.
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
        let spans = [(999, "999 ms"), (90_000, "1.5 min"), (5_400_000, "1.5 h"), (259_200_000, "3.0 d")];
        assert!(spans.into_iter().all(|(milliseconds, shown)| span(milliseconds) == shown));
    }
}
