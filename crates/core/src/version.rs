//! The version that orders all changes of one document.
//!
//! A version is derived from the source's own metadata of a change, never from an entry id or a counter of tidewheel:
//! after a rollback of the queues the same change must get the same version again, or the fence in the index would
//! reject it or, worse, let an old one pass.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Bits of [`Version::low`] that hold the ordinal.
const ORDINAL_BITS: u32 = 21;

/// The largest ordinal: 2²¹ − 1 changes share one cluster time at most.
pub const MAX_ORDINAL: u32 = (1 << ORDINAL_BITS) - 1;

/// The largest epoch, so that [`Version::high`] stays below 2⁵³.
pub const MAX_EPOCH: u32 = (1 << 21) - 1;

/// The source's cluster time: seconds and an increment within the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterTime {
    /// Seconds since the Unix epoch.
    pub seconds: u32,
    /// Position within the second, from 1.
    pub increment: u32,
}

impl ClusterTime {
    /// The latest time before this one.
    #[must_use]
    pub fn before(self) -> Self {
        match self.increment.checked_sub(1) {
            Some(increment) => Self { increment, ..self },
            None => Self { seconds: self.seconds.saturating_sub(1), increment: u32::MAX },
        }
    }
}

/// Orders the changes of one document: a greater version is the newer change.
///
/// Fields are compared in the order in which they are declared. Written as `epoch.seconds.increment.ordinal`, followed by
/// `.replay` if that is not 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Incremented only when the source's time goes backwards (a restored backup, another cluster).
    pub epoch: u32,
    /// The cluster time of the change; for a row of a snapshot, the time at which the snapshot began.
    pub time: ClusterTime,
    /// Position among the changes of one cluster time, from 1: the changes of a transaction share their time.
    /// Rows of a snapshot have 0, so that every change at or after the snapshot's start wins over them.
    pub ordinal: u32,
    /// 0 for the change itself. For a replay, its start time in seconds since the Unix epoch: it replaces the points
    /// that the same change wrote to the index, and nothing newer.
    pub replay: u32,
}

/// A version that cannot be stored or read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum VersionError {
    /// The text is not `epoch.seconds.increment.ordinal` or the same with `.replay`.
    #[error("invalid version {0:?}: expected four or five integers separated by dots")]
    Malformed(String),
    /// A part exceeds the range of two 53-bit integers.
    #[error("version {0:?} is out of range: maximum epoch {MAX_EPOCH}, maximum ordinal {MAX_ORDINAL}")]
    OutOfRange(String),
}

impl Version {
    /// The version of rows of a snapshot that began at `time`.
    pub fn of_snapshot(epoch: u32, time: ClusterTime) -> Self {
        Self { epoch, time, ordinal: 0, replay: 0 }
    }

    /// The more significant half: `epoch·2³² + seconds`, below 2⁵³.
    ///
    /// The index compares ranges as 64-bit floats, which are exact up to 2⁵³; hence two halves instead of one integer.
    pub fn high(self) -> u64 {
        debug_assert!(self.epoch <= MAX_EPOCH);
        (u64::from(self.epoch) << 32) | u64::from(self.time.seconds)
    }

    /// The less significant half: `increment·2²¹ + ordinal`, below 2⁵³.
    pub fn low(self) -> u64 {
        debug_assert!(self.ordinal <= MAX_ORDINAL);
        (u64::from(self.time.increment) << ORDINAL_BITS) | u64::from(self.ordinal)
    }

    /// Restores a version from its halves and its replay number.
    pub fn from_halves(high: u64, low: u64, replay: u32) -> Result<Self, VersionError> {
        let out_of_range = || VersionError::OutOfRange(format!("{high}/{low}"));
        let epoch = u32::try_from(high >> 32).map_err(|_| out_of_range())?;
        let increment = u32::try_from(low >> ORDINAL_BITS).map_err(|_| out_of_range())?;
        if epoch > MAX_EPOCH {
            return Err(out_of_range());
        }
        Ok(Self {
            epoch,
            time: ClusterTime { seconds: (high & u64::from(u32::MAX)) as u32, increment },
            ordinal: (low & u64::from(MAX_ORDINAL)) as u32,
            replay,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.epoch, self.time.seconds, self.time.increment, self.ordinal)?;
        if self.replay > 0 { write!(f, ".{}", self.replay) } else { Ok(()) }
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || VersionError::Malformed(text.to_owned());
        let mut parts = text.split('.').map(|part| part.parse::<u32>().map_err(|_| malformed()));
        let mut next = || parts.next().ok_or_else(malformed)?;
        let (epoch, seconds, increment, ordinal) = (next()?, next()?, next()?, next()?);
        let replay = parts.next().transpose()?.unwrap_or(0);
        let version = Self { epoch, time: ClusterTime { seconds, increment }, ordinal, replay };
        if parts.next().is_some() {
            return Err(malformed());
        }
        if version.epoch > MAX_EPOCH || version.ordinal > MAX_ORDINAL {
            return Err(VersionError::OutOfRange(text.to_owned()));
        }
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn versions() -> impl Strategy<Value = Version> {
        let parts = (0..=MAX_EPOCH, any::<u32>(), any::<u32>(), 0..=MAX_ORDINAL, any::<u32>());
        parts.prop_map(|(epoch, seconds, increment, ordinal, replay)| Version {
            epoch,
            time: ClusterTime { seconds, increment },
            ordinal,
            replay,
        })
    }

    proptest! {
        #[test]
        fn text_and_halves_round_trip(version in versions()) {
            prop_assert_eq!(version.to_string().parse(), Ok(version));
            prop_assert_eq!(Version::from_halves(version.high(), version.low(), version.replay), Ok(version));
        }

        #[test]
        fn halves_as_floats_order_like_versions(a in versions(), b in versions()) {
            let floats = |v: Version| (v.high() as f64, v.low() as f64, f64::from(v.replay));
            prop_assert_eq!(floats(a).partial_cmp(&floats(b)), Some(a.cmp(&b)));
        }
    }

    #[test]
    fn malformed_versions_are_rejected() {
        for text in ["", "1.2.3", "1.2.3.4.5.6", "1.2.3.4.", "1.2.3.x", "-1.2.3.4", "0.0.0.2097152", "2097152.0.0.0"] {
            assert!(text.parse::<Version>().is_err(), "{text:?} was accepted");
        }
    }
}
