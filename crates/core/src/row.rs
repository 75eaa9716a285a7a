//! Whether the points of a document are what one version of it leaves: chunk 0 to the last, and nothing else.

use std::fmt::Debug;

/// What a point says of itself: which chunk it is, of how many, at which version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<V> {
    /// From 0.
    pub chunk: u64,
    /// How many the document has at this version.
    pub chunks: u64,
    /// The document's version.
    pub version: V,
}

/// Divides the points of a document, sorted by their chunk, into the row that they should be and those behind it, which are
/// surplus; fails with what is missing or mixed. What chunk 0 says counts.
pub fn row<T, V: PartialEq + Debug>(points: &[T], place: impl Fn(&T) -> Place<V>) -> Row<'_, T> {
    let Some(first) = points.first().map(&place).filter(|first| first.chunk == 0) else {
        return Row { surplus: &[], whole: Err("chunk 0 is missing".to_owned()), row: points };
    };
    let end = points.partition_point(|point| place(point).chunk < first.chunks);
    let (row, surplus) = points.split_at(end);
    let check = || {
        for (expected, point) in (0..).zip(row) {
            let found = place(point);
            if found.chunk != expected {
                return Err(format!("chunk {expected} of {} is missing", first.chunks));
            }
            if found.version != first.version || found.chunks != first.chunks {
                let (version, other) = (found.version, &first.version);
                return Err(format!("chunk {expected} is of version {version:?}, chunk 0 of version {other:?}"));
            }
        }
        if row.len() as u64 == first.chunks {
            Ok(())
        } else {
            Err(format!("chunk {} of {} is missing", row.len(), first.chunks))
        }
    };
    Row { surplus, whole: check(), row }
}

/// The points of a document, divided.
#[derive(Debug)]
pub struct Row<'a, T> {
    /// Those that there should be.
    pub row: &'a [T],
    /// Those behind them.
    pub surplus: &'a [T],
    /// Whether the row is whole and of one version.
    pub whole: Result<(), String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(points: &[(u64, u64, u32)]) -> (usize, Result<(), String>) {
        let row = row(points, |(chunk, chunks, version)| Place { chunk: *chunk, chunks: *chunks, version: *version });
        (row.surplus.len(), row.whole)
    }

    #[test]
    fn a_whole_row_of_one_version_is_right() {
        assert_eq!(check(&[(0, 1, 7)]), (0, Ok(())));
        assert_eq!(check(&[(0, 3, 7), (1, 3, 7), (2, 3, 7)]), (0, Ok(())));
    }

    #[test]
    fn what_is_behind_it_is_surplus() {
        assert_eq!(check(&[(0, 1, 7), (1, 4, 6), (3, 4, 6)]), (2, Ok(())));
    }

    #[test]
    fn gaps_and_mixed_versions_are_told() {
        for (points, part) in [
            (&[][..], "chunk 0 is missing"),
            (&[(1, 2, 7)], "chunk 0 is missing"),
            (&[(0, 2, 7)], "chunk 1 of 2 is missing"),
            (&[(0, 3, 7), (2, 3, 7)], "chunk 1 of 3 is missing"),
            (&[(0, 2, 7), (1, 2, 6)], "chunk 1 is of version 6, chunk 0 of version 7"),
        ] {
            let (surplus, whole) = check(points);
            assert_eq!(surplus, 0);
            assert!(whole.unwrap_err().contains(part), "{points:?}");
        }
    }
}
