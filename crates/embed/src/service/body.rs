//! Reads request bodies, bounded in size, in time and in total memory.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use futures::StreamExt;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use super::options::ServiceOptions;

/// How much of an oversized body is read and discarded, as a multiple of the limit: a client that is still sending
/// would otherwise see a connection reset instead of the 413.
const DISCARD: usize = 8;

/// Reads request bodies within the limits.
pub(super) struct Reader {
    limit: usize,
    timeout: Duration,
    pending: Arc<Semaphore>,
}

/// A parsed request body. Releases its share of the memory budget on drop.
pub(super) struct Parsed<T> {
    pub(super) content: T,
    _room: OwnedSemaphorePermit,
}

impl Reader {
    pub(super) fn new(options: &ServiceOptions) -> Self {
        let room = options.max_pending_bytes.max(options.max_body_bytes).min(Semaphore::MAX_PERMITS);
        Self { limit: options.max_body_bytes, timeout: options.read_timeout, pending: Arc::new(Semaphore::new(room)) }
    }

    /// Reads and parses the request's JSON body.
    pub(super) async fn json<T: DeserializeOwned>(&self, request: Request) -> Result<Parsed<T>, ApiError> {
        let announced = request
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok())
            .and_then(|length| length.parse::<usize>().ok());
        let size = announced.unwrap_or(self.limit).min(self.limit);
        let wanted = u32::try_from(size).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.pending)
            .try_acquire_many_owned(wanted)
            .map_err(|_| ApiError::busy("embedder is overloaded: request bodies in memory are at the limit", 1))?;
        let reading = self.read(request.into_body(), announced);
        let body = tokio::time::timeout(self.timeout, reading).await.map_err(|_| {
            ApiError::too_slow(format!("request body not received within {} s", self.timeout.as_secs()))
        })??;
        let content = serde_json::from_slice(&body)
            .map_err(|cause| ApiError::bad_request(format!("invalid request body: {cause}")))?;
        Ok(Parsed { content, _room: room })
    }

    async fn read(&self, body: Body, announced: Option<usize>) -> Result<Vec<u8>, ApiError> {
        let mut stream = body.into_data_stream();
        let mut bytes = Vec::with_capacity(announced.unwrap_or(0).min(self.limit));
        let mut length = 0;
        while let Some(part) = stream.next().await {
            let part = part.map_err(|cause| ApiError::bad_request(format!("failed to read request body: {cause}")))?;
            length += part.len();
            if length <= self.limit {
                bytes.extend_from_slice(&part);
            } else if length > self.limit.saturating_mul(DISCARD) {
                break;
            } else {
                bytes = Vec::new();
            }
        }
        if length > self.limit {
            return Err(ApiError::too_large(format!(
                "request body is longer than the limit of {} bytes; send fewer texts per request",
                self.limit
            )));
        }
        Ok(bytes)
    }
}
