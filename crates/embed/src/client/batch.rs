//! The maximum number of texts per request, learned from rejections.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Full requests before a larger one is tried: the limit may have been one of bytes or of the account, or have been lifted.
/// Keeps rejections below one request in a hundred.
const TRY_MORE_AFTER: u32 = 1_000;

/// The limit as far as it is known. Requests shrink when fewer texts are accepted, and converge on the limit by bisection.
#[derive(Debug, Default)]
pub(super) struct BatchLimit(Mutex<Known>);

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Largest accepted number of texts.
    accepted: usize,
    /// Smallest rejected number of texts whose parts were accepted.
    rejected: Option<usize>,
    /// Full requests since the exact limit is known.
    full: u32,
}

impl BatchLimit {
    /// Returns the number of texts for the next request, at most `most`.
    pub(super) fn size(&self, most: usize) -> usize {
        let Known { accepted, rejected, .. } = *self.known();
        rejected.map_or(most, |rejected| ((accepted + rejected) / 2).clamp(1, most.max(1)))
    }

    /// Whether a rejection of this many texts may be caused by their number.
    pub(super) fn may_be_exceeded_by(&self, texts: usize) -> bool {
        texts > 1 && texts > self.known().accepted
    }

    /// Records an accepted request.
    pub(super) fn record_accepted(&self, texts: usize) {
        let mut known = self.known();
        known.accepted = known.accepted.max(texts);
        let Some(rejected) = known.rejected else { return };
        if texts >= rejected {
            known.rejected = None;
        } else if texts + 1 == rejected {
            known.full += 1;
            if known.full >= TRY_MORE_AFTER {
                (known.full, known.rejected) = (0, Some(rejected.saturating_mul(2)));
            }
        }
    }

    /// Records a rejected request whose parts of this size were accepted.
    pub(super) fn record_rejected(&self, texts: usize, part: usize) {
        let mut known = self.known();
        let rejected = known.rejected.map_or(texts, |rejected| rejected.min(texts));
        *known = Known {
            accepted: known.accepted.max(part).min(rejected.saturating_sub(1)),
            rejected: Some(rejected),
            full: 0,
        };
    }

    /// Records a limit named by the service, after a request of this size was accepted.
    pub(super) fn set(&self, limit: usize) {
        *self.known() = Known { accepted: limit, rejected: Some(limit + 1), full: 0 };
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Extracts the batch limit from a rejection, for example "batch size 64 > maximum allowed batch size 32". Limits of tokens or
/// bytes are ignored.
pub(super) fn named_in(explanation: &str, texts: usize) -> Option<usize> {
    let explanation = explanation.to_lowercase();
    let mentions = |words: &[&str]| words.iter().any(|word| explanation.contains(word));
    if !mentions(&["batch", "array", "inputs", "texts", "items", "requests"])
        || mentions(&["token", "byte", "character", "per minute", "dimension"])
    {
        return None;
    }
    let numbers = explanation.split(|sign: char| !sign.is_ascii_digit()).filter_map(|digits| digits.parse().ok());
    numbers.filter(|number| (1..texts).contains(number)).max()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Simulates the client against a service with this `limit`. Returns rejections and requests.
    fn send(known: &BatchLimit, limit: usize, most: usize, mut texts: usize) -> (usize, usize) {
        let (mut rejections, mut requests) = (0, 0);
        while texts > 0 {
            let mut size = known.size(most).min(texts);
            requests += 1;
            while size > limit {
                assert!(known.may_be_exceeded_by(size));
                rejections += 1;
                requests += 1;
                if size / 2 <= limit {
                    known.record_rejected(size, size / 2);
                }
                size /= 2;
            }
            known.record_accepted(size);
            texts -= size;
        }
        (rejections, requests)
    }

    proptest! {
        #[test]
        fn batch_limit_converges_with_few_rejections(limit in 1usize..200, most in 1usize..300) {
            let known = BatchLimit::default();
            let (rejections, _) = send(&known, limit, most, 20_000);
            prop_assert!(rejections <= 40, "{} rejections", rejections);
            let settled = BatchLimit::default();
            send(&settled, limit, most, 20 * most);
            let (rejections, requests) = send(&settled, limit, most, 5_000);
            prop_assert!(rejections * 20 <= requests + 100, "{} of {}", rejections, requests);
        }
    }

    #[test]
    fn lifted_batch_limit_is_detected() {
        let known = BatchLimit::default();
        send(&known, 10, 128, 1_000);
        assert_eq!(known.size(128), 10);
        send(&known, 128, 128, 200_000);
        assert_eq!(known.size(128), 128);
    }

    #[test]
    fn named_batch_limits_are_parsed() {
        for (explanation, texts, limit) in [
            ("batch size 64 > maximum allowed batch size 32", 64, Some(32)),
            ("batch size is invalid, it should not be larger than 10.: input.contents", 128, Some(10)),
            (
                "Invalid 'input': array too long. Expected an array with maximum length 2048, but got 3000",
                3000,
                Some(2048),
            ),
            ("BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch", 128, Some(100)),
            ("This model's maximum context length is 8192 tokens", 10_000, None),
            ("API key not valid. Please pass a valid API key.", 128, None),
            ("invalid input", 128, None),
            ("batch size 64 is too large", 64, None),
        ] {
            assert_eq!(named_in(explanation, texts), limit, "{explanation}");
        }
    }
}
