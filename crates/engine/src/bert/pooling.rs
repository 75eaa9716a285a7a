//! Pools token vectors into the vector of a text.

use crate::model::Pooling;

/// Pools the rows of one text into `out`, except for the first `unpooled`; a row may be longer than `out`. If no rows
/// remain, the result is zeros, or the first row of all for [`Pooling::Cls`].
pub(super) fn pool<'a>(pooling: Pooling, rows: impl Iterator<Item = &'a [f32]>, unpooled: usize, out: &mut [f32]) {
    let rows = rows.map(|row| &row[..out.len()]).collect::<Vec<_>>();
    let unpooled = if pooling == Pooling::Cls && unpooled >= rows.len() { 0 } else { unpooled.min(rows.len()) };
    let mut rows = rows[unpooled..].iter().copied();
    let count = rows.len();
    let Some(first) = rows.next() else {
        out.fill(0.0);
        return;
    };
    out.copy_from_slice(first);
    match pooling {
        Pooling::Cls => {}
        Pooling::Max => {
            for row in rows {
                out.iter_mut().zip(row).for_each(|(out, value)| *out = out.max(*value));
            }
        }
        Pooling::Mean | Pooling::MeanSqrtLength => {
            for row in rows {
                out.iter_mut().zip(row).for_each(|(out, value)| *out += value);
            }
            #[expect(clippy::cast_precision_loss, reason = "tokens of a text")]
            let count = count as f32;
            let divisor = if pooling == Pooling::Mean { count } else { count.sqrt() };
            out.iter_mut().for_each(|out| *out /= divisor);
        }
    }
}

/// Normalises a vector to unit length; a zero vector is unchanged.
pub(super) fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value /= length);
    }
}

#[cfg(test)]
mod tests {
    use super::{normalize, pool};
    use crate::model::Pooling;

    #[test]
    fn pooling_modes_match_their_definition() {
        let rows = [[1.0, -2.0, 9.0], [3.0, 0.0, 9.0], [-1.0, 5.0, 9.0], [5.0, 1.0, 9.0]];
        for (pooling, expected) in [
            (Pooling::Cls, [1.0, -2.0]),
            (Pooling::Mean, [2.0, 1.0]),
            (Pooling::Max, [5.0, 5.0]),
            (Pooling::MeanSqrtLength, [4.0, 2.0]),
        ] {
            let mut out = [7.0; 2];
            pool(pooling, rows.iter().map(|row| &row[..]), 0, &mut out);
            assert_eq!(out, expected, "{pooling:?}");
            pool(pooling, std::iter::empty(), 0, &mut out);
            assert_eq!(out, [0.0; 2]);
        }
        for (pooling, expected, nothing) in [
            (Pooling::Cls, [-1.0, 5.0], [1.0, -2.0]),
            (Pooling::Mean, [2.0, 3.0], [0.0; 2]),
            (Pooling::Max, [5.0, 5.0], [0.0; 2]),
        ] {
            let mut out = [7.0; 2];
            pool(pooling, rows.iter().map(|row| &row[..]), 2, &mut out);
            assert_eq!(out, expected, "{pooling:?} without a prompt");
            pool(pooling, rows.iter().map(|row| &row[..]), 9, &mut out);
            assert_eq!(out, nothing, "{pooling:?} of a prompt alone");
        }
        let mut vector = [3.0, -4.0];
        normalize(&mut vector);
        assert_eq!(vector, [0.6, -0.8]);
        let mut zeros = [0.0; 2];
        normalize(&mut zeros);
        assert_eq!(zeros, [0.0; 2]);
    }
}
