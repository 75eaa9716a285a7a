//! The server of the fake streams, for operators.

use async_trait::async_trait;
use tidewheel_core::ports::{PortResult, QueueServer, QueueServerInspector};

use super::state::FakeStreams;

/// Memory of a server without entries.
const EMPTY_BYTES: u64 = 1 << 20;

/// The state of the server: its memory grows with the entries. Its calls share the faults of the streams.
#[derive(Clone)]
pub struct FakeQueueServer(FakeStreams);

impl FakeQueueServer {
    /// The server of these streams.
    pub fn new(streams: FakeStreams) -> Self {
        Self(streams)
    }
}

#[async_trait]
impl QueueServerInspector for FakeQueueServer {
    async fn queue_server(&self) -> PortResult<QueueServer> {
        let server = || {
            let state = self.0.state();
            let fields = state.streams.values().flat_map(|stream| stream.entries.values()).flatten();
            let bytes: usize = fields.map(|(name, value)| name.len() + value.len()).sum();
            Ok(QueueServer {
                address: "memory".to_owned(),
                version: "7.0.0".to_owned(),
                memory_bytes: EMPTY_BYTES + bytes as u64,
                memory_limit_bytes: None,
            })
        };
        self.0.faults().around("queue_server", server).await
    }
}
