//! Parses the time to wait for.

use std::time::SystemTime;

use tidewheel_core::version::ClusterTime;
use tidewheel_ops::wait::Since;

use crate::exit::Failure;
use crate::times;

/// Parses the time.
pub(crate) fn parse(text: &str, now: SystemTime) -> Result<Since, Failure> {
    let text = text.trim();
    if text.is_empty() || text == "now" {
        return Ok(Since::Now);
    }
    if let Some((seconds, increment)) = text.split_once('.')
        && let (Ok(seconds), Ok(increment)) = (seconds.parse(), increment.parse())
    {
        return Ok(Since::Cluster(ClusterTime { seconds, increment }));
    }
    let wall = times::parse("--since", text, now).map_err(|_| {
        Failure::new(format!("invalid time {text:?}")).with_hint(
            "use `now`, a cluster time such as 1763842213.7, a timestamp such as 2026-05-01T12:00:00Z, or an age such as 90s",
        )
    })?;
    if wall > times::milliseconds(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()) {
        return Err(Failure::new(format!("invalid time {text:?}: it is in the future")));
    }
    let seconds = u32::try_from(wall / 1_000).unwrap_or(u32::MAX);
    Ok(Since::Wall(ClusterTime { seconds, increment: u32::MAX }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn cluster_times_timestamps_and_ages_are_parsed() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let parse = |text| parse(text, now);
        let time = |seconds, increment| ClusterTime { seconds, increment };
        assert_eq!(parse("now"), Ok(Since::Now));
        assert_eq!(parse(""), Ok(Since::Now));
        assert_eq!(parse("1763842213.7"), Ok(Since::Cluster(time(1_763_842_213, 7))));
        assert_eq!(parse("1970-01-02T00:00:00.5Z"), Ok(Since::Wall(time(86_400, u32::MAX))));
        assert_eq!(parse("40s"), Ok(Since::Wall(time(999_960, u32::MAX))));
        for wrong in ["soon", "7", "1.2.3", "1.x", "1970-03-02T00:00:00Z", "-1.5"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
