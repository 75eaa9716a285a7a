//! Tokenizes the texts of a request, outside the compute threads.
//!
//! Short requests are tokenized inline, which is cheaper than a hand-over. Long ones run on the blocking thread pool, in
//! up to one part per core, so that no connection waits for another one's texts.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures::future::try_join_all;
use tokio::sync::Semaphore;

use super::error::ApiError;
use tidewheel_engine::Engine;
use tidewheel_engine::tokens::Encoding;

/// Maximum bytes tokenized inline: a search query, about a quarter of a millisecond with a real tokenizer.
const INLINE: usize = 1 << 10;

/// Minimum bytes per part.
const PART: usize = 8 << 10;

/// Tokenizes texts with the tokenizer of their model.
pub(super) struct Splitter {
    /// Limits concurrently tokenized parts, of all models.
    cores: Semaphore,
    parts: usize,
}

impl Splitter {
    pub(super) fn new(cores: usize) -> Self {
        Self { cores: Semaphore::new(cores), parts: cores }
    }

    /// Tokenizes each text with the prefix prepended, of which `unpooled` tokens are not pooled. Without `truncate`, a text
    /// beyond the model's context length is rejected.
    pub(super) async fn split(
        &self,
        engine: &Arc<dyn Engine>,
        texts: Vec<String>,
        prefix: &str,
        unpooled: usize,
        truncate: bool,
    ) -> Result<Vec<Encoding>, ApiError> {
        let lengths: Vec<usize> = texts.iter().map(String::len).collect();
        if lengths.iter().sum::<usize>() <= INLINE {
            return encode(&**engine, &texts, prefix, unpooled, truncate);
        }
        let texts = Arc::new(texts);
        let prefix: Arc<str> = Arc::from(prefix);
        let parts = slices(&lengths, self.parts).into_iter().map(|range| {
            let (engine, texts, prefix) = (Arc::clone(engine), Arc::clone(&texts), Arc::clone(&prefix));
            async move {
                let _core = self.cores.acquire().await.map_err(|_| ApiError::closing())?;
                tokio::task::spawn_blocking(move || encode(&*engine, &texts[range], &prefix, unpooled, truncate))
                    .await
                    .map_err(|cause| ApiError::internal(format!("failed to tokenize texts: {cause}")))?
            }
        });
        Ok(try_join_all(parts).await?.into_iter().flatten().collect())
    }
}

fn encode(
    engine: &dyn Engine,
    texts: &[String],
    prefix: &str,
    unpooled: usize,
    truncate: bool,
) -> Result<Vec<Encoding>, ApiError> {
    let encode = |text: &String| {
        let prefixed = if prefix.is_empty() { None } else { Some(format!("{prefix}{text}")) };
        let encoding = engine.tokenize(prefixed.as_ref().unwrap_or(text));
        let encoding = if prefixed.is_some() { Encoding { unpooled, ..encoding } } else { encoding };
        if truncate { Ok(encoding) } else { whole(engine, prefixed.as_ref().unwrap_or(text), encoding) }
    };
    catch_unwind(AssertUnwindSafe(|| texts.iter().map(encode).collect())).unwrap_or_else(|_| {
        Err(ApiError::unusable("tokenizer failed on one of the texts; send texts one at a time to find it"))
    })
}

/// Rejects a text whose encoding was truncated.
fn whole(engine: &dyn Engine, text: &str, encoding: Encoding) -> Result<Encoding, ApiError> {
    let most = engine.info().max_tokens;
    // An encoding below the maximum is complete. The others are rare and counted exactly.
    if encoding.ids.len() < most {
        return Ok(encoding);
    }
    let specials = engine.tokenize("").ids.len();
    let tokens = engine.token_spans(text).len() + specials;
    if tokens <= most {
        return Ok(encoding);
    }
    Err(ApiError::too_long(format!("text has {tokens} tokens, the model's maximum context length is {most}")))
}

/// Splits a list into at most `parts` slices of about equal length, each of at least [`PART`] bytes.
fn slices(lengths: &[usize], parts: usize) -> Vec<Range<usize>> {
    let total: usize = lengths.iter().sum();
    let goal = total.div_ceil(parts.max(1)).max(PART);
    let mut slices: Vec<Range<usize>> = Vec::with_capacity(parts);
    let (mut start, mut bytes) = (0, 0);
    for (index, length) in lengths.iter().enumerate() {
        bytes += length;
        if bytes >= goal {
            slices.push(start..index + 1);
            (start, bytes) = (index + 1, 0);
        }
    }
    // Trailing empty texts join the last slice.
    match slices.last_mut() {
        Some(last) if bytes == 0 => last.end = lengths.len(),
        _ if start < lengths.len() => slices.push(start..lengths.len()),
        _ => {}
    }
    slices
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn slices_cover_list_in_order(
            lengths in prop::collection::vec(0usize..100_000, 0..50),
            parts in 1usize..9,
        ) {
            let slices = slices(&lengths, parts);
            prop_assert!(slices.len() <= parts, "{slices:?}");
            let covered: Vec<usize> = slices.into_iter().flatten().collect();
            prop_assert_eq!(covered, (0..lengths.len()).collect::<Vec<_>>());
        }
    }
}
