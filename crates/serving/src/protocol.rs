//! HTTP/1 or HTTP/2.

/// The protocol of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Protocol {
    Http1,
    /// HTTP/2 without an upgrade from HTTP/1, with this flow-control window in bytes.
    Http2 {
        window: u32,
    },
}
