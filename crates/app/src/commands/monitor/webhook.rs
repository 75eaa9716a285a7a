//! Posts problems that begin or are resolved to a webhook, one message each, in order.
//!
//! An undeliverable message is tried [`ATTEMPTS`] times, then dropped and logged; monitoring continues meanwhile. Neither the URL
//! nor the token is ever printed: with some services the URL alone permits posting.

use std::time::Duration;

use reqwest::{StatusCode, Url};
use serde::Serialize;
use tidewheel_core::catalog::IndexName;
use tidewheel_ops::overview::{Overview, Problem, SyncVerdict};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::changes::Changes;
use crate::exit::Failure;
use crate::settings;

/// Delivery attempts per message.
const ATTEMPTS: u32 = 5;

/// Initial backoff, doubled after each attempt.
const PAUSE: Duration = Duration::from_secs(1);

/// Capacity of the message queue, larger than the number of problem kinds.
const WAITING: usize = 128;

/// A running sender of messages.
pub(super) struct Webhook {
    messages: mpsc::Sender<Message>,
    sender: JoinHandle<()>,
}

/// The posted message.
#[derive(Clone, Debug, Serialize)]
struct Message {
    /// Summary in one line; chat services show this field.
    text: String,
    /// `problem` when the problem begins, `resolved` when it is resolved.
    event: &'static str,
    at_ms: u64,
    problem: Problem,
    verdict: SyncVerdict,
}

impl Webhook {
    /// Starts the sender.
    pub(super) fn start(settings: &settings::Webhook) -> Result<Self, Failure> {
        let invalid =
            || Failure::new("invalid monitor.webhook: expected an http or https URL").with_hint("set the complete URL");
        let url = Url::parse(settings.url.reveal()).map_err(|_| invalid())?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid());
        }
        let pem = settings.tls.read("monitor.webhook_")?;
        let client = tidewheel_http::secure(tidewheel_http::builder(url.as_str()), &pem)?
            .timeout(settings.timeout)
            .build()
            .map_err(|error| Failure::new(format!("failed to set up the webhook: {}", error.without_url())))?;
        let token = settings.token.clone();
        let (messages, mut waiting) = mpsc::channel::<Message>(WAITING);
        let sender = tokio::spawn(async move {
            while let Some(message) = waiting.recv().await {
                let post = || {
                    let request = client.post(url.clone()).json(&message);
                    match &token {
                        Some(token) => request.bearer_auth(token.reveal()),
                        None => request,
                    }
                };
                deliver(&message, &url, post).await;
            }
        });
        Ok(Self { messages, sender })
    }

    /// Queues messages for these changes.
    pub(super) fn post(&self, overview: &Overview, changes: &Changes) {
        let begun = changes.begun.iter().map(|problem| ("problem", problem));
        let over = changes.over.iter().map(|problem| ("resolved", problem));
        for (event, problem) in over.chain(begun) {
            let text = match event {
                "resolved" => format!("tidewheel: resolved: {}", problem.message),
                _ => format!("tidewheel: {} → {}", problem.message, problem.action),
            };
            let verdict = overview.verdict.clone();
            let message = Message { text, event, at_ms: overview.at_ms, problem: problem.clone(), verdict };
            if self.messages.try_send(message).is_err() {
                let index = problem.index.as_ref().map(IndexName::as_str);
                warn!(code = problem.code, index, "webhook queue is full; message dropped");
            }
        }
    }

    /// Delivers the queued messages until the timeout.
    pub(super) async fn finish(self, timeout: Duration) {
        drop(self.messages);
        let _ = tokio::time::timeout(timeout, self.sender).await;
    }
}

async fn deliver(message: &Message, url: &Url, post: impl Fn() -> reqwest::RequestBuilder) {
    let (code, mut pause) = (message.problem.code, PAUSE);
    for attempt in 1..=ATTEMPTS {
        let (cause, again) = match post().send().await {
            Ok(answer) if answer.status().is_success() => {
                if attempt > 1 {
                    info!(code, attempt, "webhook message delivered");
                }
                return;
            }
            Ok(answer) => {
                let status = answer.status();
                // Other client errors are permanent.
                let again = status.is_server_error()
                    || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
                let cause = match tidewheel_http::redirect_host(url, status, answer.headers()) {
                    Some(target) => {
                        format!(
                            "the webhook redirects to {target} ({}); set monitor.webhook to that URL",
                            status.as_u16()
                        )
                    }
                    None => format!("the webhook returned {}", status.as_u16()),
                };
                (cause, again)
            }
            Err(error) => (error.without_url().to_string(), true),
        };
        if !again || attempt == ATTEMPTS {
            warn!(code, attempt, "failed to deliver webhook message, giving up: {cause}");
            return;
        }
        if attempt == 1 {
            warn!(code, "failed to deliver webhook message, will retry: {cause}");
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}
