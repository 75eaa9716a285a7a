//! Validation of vectors before they enter the index.

use tidewheel_core::error::{Cause, PortError, Server};

/// Rejects vectors that would corrupt an index: not finite, or zero, which has no direction. `first` is the index of the
/// first vector in the caller's list.
pub(super) fn usable(values: &[f32], dimension: usize, first: usize) -> Result<(), PortError> {
    for (place, vector) in values.chunks_exact(dimension.max(1)).enumerate() {
        let (what, cause) = if vector.iter().any(|value| !value.is_finite()) {
            ("is not finite", Cause::NotFinite)
        } else if vector.iter().all(|value| *value == 0.0) {
            ("is zero", Cause::Zero)
        } else {
            continue;
        };
        let index = first + place;
        let message = format!("the embedder's vector for the text at index {index} {what}");
        return Err(PortError::poison(message).because(Server::EMBEDDER, cause));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidewheel_core::error::{Cause, ErrorClass};

    use super::usable;

    #[test]
    fn unusable_vector_error_names_text_index() {
        assert_eq!(usable(&[1.0, 0.0, 0.0, -1.0], 2, 0), Ok(()));
        let bad =
            [([f32::NAN, 1.0], Cause::NotFinite), ([1.0, f32::INFINITY], Cause::NotFinite), ([0.0, -0.0], Cause::Zero)];
        for (bad, cause) in bad {
            let error = usable(&[1.0, 0.0, bad[0], bad[1]], 2, 10).unwrap_err();
            assert_eq!((error.class, error.cause), (ErrorClass::Poison, cause));
            assert!(error.message.contains("index 11"), "{}", error.message);
        }
    }
}
