//! What a vector must be before it may go into the index.

use tidewheel_core::error::PortError;

/// Refuses vectors that would spoil an index: not finite, or zero, which has no direction. `first` is the place of the
/// first vector in the caller's list.
pub(super) fn usable(values: &[f32], dimension: usize, first: usize) -> Result<(), PortError> {
    for (place, vector) in values.chunks_exact(dimension.max(1)).enumerate() {
        let cause = if vector.iter().any(|value| !value.is_finite()) {
            "holds a number that is not finite"
        } else if vector.iter().all(|value| *value == 0.0) {
            "is zero"
        } else {
            continue;
        };
        let index = first + place;
        return Err(PortError::poison(format!("the embedder's vector for the text at index {index} {cause}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidewheel_core::error::ErrorClass;

    use super::usable;

    #[test]
    fn the_text_with_the_bad_vector_is_named() {
        assert_eq!(usable(&[1.0, 0.0, 0.0, -1.0], 2, 0), Ok(()));
        for bad in [[f32::NAN, 1.0], [1.0, f32::INFINITY], [0.0, -0.0]] {
            let error = usable(&[1.0, 0.0, bad[0], bad[1]], 2, 10).unwrap_err();
            assert_eq!(error.class, ErrorClass::Poison);
            assert!(error.message.contains("index 11"), "{}", error.message);
        }
    }
}
