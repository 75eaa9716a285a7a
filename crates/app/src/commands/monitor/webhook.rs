//! Posts what has begun and what is over, one message for each, in order.
//!
//! A message that cannot be delivered is tried [`ATTEMPTS`] times and then dropped with a line in the log; looking goes on
//! meanwhile. Neither the address nor the token is ever printed: with some services whoever knows the address may post.

use std::time::Duration;

use reqwest::{StatusCode, Url};
use serde::Serialize;
use tidewheel_embed::client::secure;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::changes::Changes;
use crate::exit::Failure;
use crate::overview::{Overview, Problem, Verdict};
use crate::settings;

/// How often a message is tried.
const ATTEMPTS: u32 = 5;

/// How long after the first failure it is tried again; twice as long each time.
const PAUSE: Duration = Duration::from_secs(1);

/// Messages that may wait. There are fewer kinds of problems than that.
const WAITING: usize = 128;

/// A running sender of messages.
pub(super) struct Webhook {
    messages: mpsc::Sender<Message>,
    sender: JoinHandle<()>,
}

/// What is posted.
#[derive(Clone, Debug, Serialize)]
struct Message {
    /// The same in one line; chat services show this field.
    text: String,
    /// `problem` when it begins, `resolved` when it is over.
    event: &'static str,
    at_ms: u64,
    problem: Problem,
    verdict: Verdict,
}

impl Webhook {
    /// Starts the sender.
    pub(super) fn start(settings: &settings::Webhook) -> Result<Self, Failure> {
        let wrong = || Failure::new("monitor.webhook is no http or https address").with_hint("write the whole address");
        let url = Url::parse(settings.url.reveal()).map_err(|_| wrong())?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong());
        }
        let pem = settings.tls.read("monitor.webhook_")?;
        let client = secure(tidewheel_http::builder(url.as_str()), &pem)?
            .timeout(settings.timeout)
            .build()
            .map_err(|error| Failure::new(format!("cannot set up the webhook: {}", error.without_url())))?;
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

    /// Has these changes posted.
    pub(super) fn tell(&self, overview: &Overview, changes: &Changes) {
        let begun = changes.begun.iter().map(|problem| ("problem", problem));
        let over = changes.over.iter().map(|problem| ("resolved", problem));
        for (event, problem) in over.chain(begun) {
            let text = match event {
                "resolved" => format!("tidewheel: over: {}", problem.message),
                _ => format!("tidewheel: {} → {}", problem.message, problem.action),
            };
            let verdict = overview.verdict.clone();
            let message = Message { text, event, at_ms: overview.at_ms, problem: problem.clone(), verdict };
            if self.messages.try_send(message).is_err() {
                warn!(code = problem.code, "the webhook does not keep up; a message was dropped");
            }
        }
    }

    /// Delivers what waits, for a while.
    pub(super) async fn finish(self, patience: Duration) {
        drop(self.messages);
        let _ = tokio::time::timeout(patience, self.sender).await;
    }
}

async fn deliver(message: &Message, url: &Url, post: impl Fn() -> reqwest::RequestBuilder) {
    let (code, mut pause) = (message.problem.code, PAUSE);
    for attempt in 1..=ATTEMPTS {
        let (cause, again) = match post().send().await {
            Ok(answer) if answer.status().is_success() => {
                if attempt > 1 {
                    info!(code, attempt, "the webhook took the message");
                }
                return;
            }
            Ok(answer) => {
                let status = answer.status();
                // What it does not like now, it will not like later.
                let again = status.is_server_error()
                    || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
                let cause = match tidewheel_http::redirect_host(url, status, answer.headers()) {
                    Some(target) => {
                        format!("it redirects to {target} ({}); set monitor.webhook to that address", status.as_u16())
                    }
                    None => format!("it answered {}", status.as_u16()),
                };
                (cause, again)
            }
            Err(error) => (error.without_url().to_string(), true),
        };
        if !again || attempt == ATTEMPTS {
            warn!(code, attempt, "the webhook did not take a message, which is dropped: {cause}");
            return;
        }
        if attempt == 1 {
            warn!(code, "the webhook did not take a message, will try again: {cause}");
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}
