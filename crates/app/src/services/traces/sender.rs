//! Takes spans out of the queue and posts them to the collector.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, StatusCode, Url};
use tidewheel_core::secret::Secret;
use tidewheel_pipeline::health::{Health, Telling};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::encode::{Process, request};
use super::{Counts, REQUEST, Told};
use crate::exit::Failure;
use crate::settings::{Traces, redact_address};

/// How long the first span of a request waits for others.
const LINGER: Duration = Duration::from_secs(1);

/// For one attempt. A collector only takes the spans in.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How often a request is tried that the collector may take another time.
const ATTEMPTS: u32 = 3;

/// How long after the first failure it is tried again; twice as long each time.
const PAUSE: Duration = Duration::from_secs(1);

/// Most of an answer that is read: it says little.
const ANSWER: usize = 64 << 10;

/// What this does, for the log: completes "cannot …".
const SEND: &str = "send traces";

/// The same for a queue that is full although the collector answers.
const KEEP_UP: &str = "send all traces";

/// The queue's reader.
pub(super) struct Sender {
    client: Client,
    url: Url,
    process: Process,
    told: mpsc::UnboundedReceiver<Told>,
    counts: Arc<Counts>,
    /// What is being sent.
    taken: Vec<Told>,
    /// Decides which failures are worth a line in the log.
    health: Health,
    /// Spans that the collector did not take, since the log last said so.
    refused: u64,
}

/// Why the collector did not take a request.
struct Refusal {
    cause: String,
    /// Whether it may take it another time.
    again: bool,
    /// How many of its spans; `None` for all.
    spans: Option<u64>,
}

impl Sender {
    pub(super) fn new(
        traces: &Traces,
        process: Process,
        told: mpsc::UnboundedReceiver<Told>,
        counts: Arc<Counts>,
    ) -> Result<Self, Failure> {
        let url = address(traces.endpoint.reveal()).ok_or_else(|| {
            Failure::new("traces.endpoint is no http or https address")
                .with_hint("write the collector's base address, such as http://127.0.0.1:4318")
        })?;
        let headers = headers(traces.headers.as_ref().map(Secret::reveal).unwrap_or_default()).ok_or_else(|| {
            Failure::new("traces.headers cannot be sent as headers")
                .with_hint("write them as name=value, separated by commas")
        })?;
        let client = Client::builder()
            .timeout(TIMEOUT)
            .user_agent(concat!("tidewheel/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            // Spans must not go where nobody sent them.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Failure::new(format!("cannot set up traces: {}", error.without_url())))?;
        info!(endpoint = redact_address(url.as_str()), "changes are traced");
        let health = Health::of("traces");
        Ok(Self { client, url, process, told, counts, taken: Vec::new(), health, refused: 0 })
    }

    /// Sends until `finish`, and then what is left, once.
    pub(super) async fn run(mut self, finish: CancellationToken) {
        loop {
            tokio::select! {
                () = finish.cancelled() => break,
                // Dropped anywhere, it leaves in `taken` what it has not sent.
                () = self.turn() => {}
            }
        }
        loop {
            while self.spans() < REQUEST
                && let Ok(told) = self.told.try_recv()
            {
                self.taken.push(told);
            }
            if self.taken.is_empty() {
                return;
            }
            let sent = self.post(self.body()).await;
            self.settle(sent);
        }
    }

    /// Gathers a request and sends it, or gives it up.
    async fn turn(&mut self) {
        self.gather().await;
        let (body, mut pause) = (self.body(), PAUSE);
        for attempt in 1..=ATTEMPTS {
            let sent = self.post(body.clone()).await;
            match sent {
                Err(refusal) if refusal.again && attempt < ATTEMPTS => self.tell(&refusal.cause),
                settled => return self.settle(settled),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// Waits for spans, and a moment longer for more of them.
    async fn gather(&mut self) {
        if self.taken.is_empty() {
            match self.told.recv().await {
                Some(told) => self.taken.push(told),
                None => return std::future::pending().await,
            }
        }
        let late = Instant::now() + LINGER;
        while self.spans() < REQUEST {
            tokio::select! {
                () = sleep_until(late) => return,
                told = self.told.recv() => match told {
                    Some(told) => self.taken.push(told),
                    None => return,
                },
            }
        }
    }

    fn spans(&self) -> usize {
        self.taken.iter().map(|(_, spans)| spans.len()).sum()
    }

    fn body(&self) -> Bytes {
        request(&self.taken, &self.process).encode_to_vec().into()
    }

    async fn post(&self, body: Bytes) -> Result<(), Refusal> {
        let request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/x-protobuf").body(body);
        let failed = |error: reqwest::Error| Refusal { cause: chain(&error.without_url()), again: true, spans: None };
        let mut answer = request.send().await.map_err(failed)?;
        let status = answer.status();
        if !status.is_success() {
            // The ones that the protocol says to try again.
            let again = matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS
                    | StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT
            );
            return Err(Refusal { cause: format!("it answered {}", status.as_u16()), again, spans: None });
        }
        let mut text = Vec::new();
        while text.len() < ANSWER {
            // It has taken the spans: what becomes of the rest of its answer does not matter.
            let Ok(Some(chunk)) = answer.chunk().await else { break };
            text.extend_from_slice(&chunk);
        }
        let partial = ExportTraceServiceResponse::decode(&text[..]).ok().and_then(|answer| answer.partial_success);
        match partial {
            Some(partial) if partial.rejected_spans > 0 => {
                let cause = format!("it rejected {} spans: {}", partial.rejected_spans, partial.error_message);
                Err(Refusal { cause, again: false, spans: u64::try_from(partial.rejected_spans).ok() })
            }
            _ => Ok(()),
        }
    }

    /// What was taken is sent, or given up.
    fn settle(&mut self, sent: Result<(), Refusal>) {
        let spans = self.spans();
        self.taken.clear();
        self.counts.waiting.fetch_sub(spans, Ordering::Relaxed);
        match sent {
            Err(refusal) => {
                self.refused += refusal.spans.unwrap_or(spans as u64);
                self.tell(&refusal.cause);
            }
            Ok(()) => {
                debug!(spans, "sent");
                if let Some((lasted, attempts)) = self.health.works(SEND) {
                    let dropped = self.dropped();
                    info!(dropped, attempts, seconds = lasted.as_secs(), "can {SEND} again");
                }
                self.keeps_up();
            }
        }
    }

    /// Says that the collector answers and spans are dropped nevertheless, if they are.
    fn keeps_up(&mut self) {
        let dropped = self.dropped();
        if dropped == 0 {
            return;
        }
        match self.health.fails(KEEP_UP, "the queue is full") {
            Telling::First | Telling::Lasting(..) => {
                warn!(dropped, "cannot {KEEP_UP}, more come than the collector takes; a smaller traces.share helps");
            }
            Telling::Not => self.refused += dropped,
        }
    }

    /// Says that the collector does not take spans, from time to time.
    fn tell(&mut self, cause: &str) {
        let endpoint = redact_address(self.url.as_str());
        match self.health.fails(SEND, cause) {
            Telling::First => warn!(endpoint, "cannot {SEND}, changes go on without: {cause}"),
            Telling::Lasting(lasted, attempts) => {
                let dropped = self.dropped();
                warn!(endpoint, dropped, attempts, seconds = lasted.as_secs(), "still cannot {SEND}: {cause}");
            }
            Telling::Not => debug!("still cannot {SEND}: {cause}"),
        }
    }

    /// Spans that were dropped since this was last asked.
    fn dropped(&mut self) -> u64 {
        std::mem::take(&mut self.refused) + self.counts.no_room.swap(0, Ordering::Relaxed)
    }
}

/// Where to post, given the collector's base address or the whole one.
fn address(endpoint: &str) -> Option<Url> {
    let mut url = Url::parse(endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    if !url.path().ends_with("/v1/traces") {
        url.path_segments_mut().ok()?.pop_if_empty().extend(["v1", "traces"]);
    }
    Some(url)
}

/// The headers in `name=value,name=value`; `None` if they cannot be sent.
fn headers(text: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for header in text.split(',').map(str::trim).filter(|header| !header.is_empty()) {
        let (name, value) = header.split_once('=')?;
        let name: HeaderName = name.trim().parse().ok()?;
        let mut value: HeaderValue = value.trim().parse().ok()?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Some(headers)
}

/// An error with what caused it: of a failed connection the cause says why.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_added_where_it_is_missing() {
        for (given, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("https://far/otlp/", "https://far/otlp/v1/traces"),
            ("http://far/v1/traces", "http://far/v1/traces"),
            ("http://far/?key=1", "http://far/v1/traces?key=1"),
        ] {
            assert_eq!(address(given).unwrap().as_str(), url);
        }
        assert!(address("grpc://far:4317").is_none() && address("far:4318").is_none());
    }

    #[test]
    fn headers_are_read_and_hidden() {
        let read = headers("authorization=Basic YTpi==, api-key = k ,").unwrap();
        assert_eq!(read["authorization"], "Basic YTpi==");
        assert_eq!(read["api-key"], "k");
        assert!(read.values().all(HeaderValue::is_sensitive));
        assert!(headers("").unwrap().is_empty());
        for wrong in ["token", "a b=c", "a=\u{7}"] {
            assert!(headers(wrong).is_none(), "{wrong:?} was accepted");
        }
    }
}
