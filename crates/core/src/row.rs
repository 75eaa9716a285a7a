//! Completeness check of a document's points: chunk 0 to the last of one version, and no others.

use std::fmt::Debug;

/// The position of a point: its chunk number, the number of chunks, and the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<V> {
    /// Number of the chunk, from 0.
    pub chunk: u64,
    /// Number of chunks of the document at this version.
    pub chunks: u64,
    /// The document's version.
    pub version: V,
}

/// Splits the points of a document, sorted by chunk, into the expected row and surplus points after it, and checks the
/// row for gaps and mixed versions. Chunk 0 is authoritative.
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
                return Err(format!("chunk {expected} has version {version:?}, chunk 0 has version {other:?}"));
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

/// The points of a document, split into row and surplus.
#[derive(Debug)]
pub struct Row<'a, T> {
    /// The expected points.
    pub row: &'a [T],
    /// Points after the last expected chunk.
    pub surplus: &'a [T],
    /// Whether the row is complete and has one version.
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
    fn complete_row_of_one_version_is_valid() {
        assert_eq!(check(&[(0, 1, 7)]), (0, Ok(())));
        assert_eq!(check(&[(0, 3, 7), (1, 3, 7), (2, 3, 7)]), (0, Ok(())));
    }

    #[test]
    fn points_after_the_last_chunk_are_surplus() {
        assert_eq!(check(&[(0, 1, 7), (1, 4, 6), (3, 4, 6)]), (2, Ok(())));
    }

    #[test]
    fn gaps_and_mixed_versions_are_reported() {
        for (points, part) in [
            (&[][..], "chunk 0 is missing"),
            (&[(1, 2, 7)], "chunk 0 is missing"),
            (&[(0, 2, 7)], "chunk 1 of 2 is missing"),
            (&[(0, 3, 7), (2, 3, 7)], "chunk 1 of 3 is missing"),
            (&[(0, 2, 7), (1, 2, 6)], "chunk 1 has version 6, chunk 0 has version 7"),
        ] {
            let (surplus, whole) = check(points);
            assert_eq!(surplus, 0);
            assert!(whole.unwrap_err().contains(part), "{points:?}");
        }
    }
}
