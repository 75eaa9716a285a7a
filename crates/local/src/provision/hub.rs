//! Fetches a sentence-transformers model from the Hugging Face hub.
//!
//! The hub's addresses are `{endpoint}/{id}/resolve/main/{file}`. Large files are answered with a redirect to a
//! storage host, whose first response names the file's SHA-256 sum in `x-linked-etag`. Redirects are followed here,
//! one by one, so that the sum is seen and the user's token never leaves the hub's own host.

use std::{
    env, fs,
    path::Path,
    time::{Duration, Instant},
};

use reqwest::{Client, Response, StatusCode, Url, header, redirect};
use tokio::io::AsyncWriteExt;

use super::{checksum, error::ProvisionError, pins, tool};
use crate::{Event, Part, Report};

const PUBLIC_HUB: &str = "https://huggingface.co";

/// Without a hub the user shall not wait for long: other sources follow.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two pieces of a file; slow lines are fine, dead ones are not.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// The hub needs two.
const MOST_REDIRECTS: usize = 5;
/// Between two progress reports.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Without one of these there is no model; `config.json` is the smallest and tells first whether the model exists.
pub(super) const NEEDED: [&str; 3] = ["config.json", "tokenizer.json", WEIGHTS];
/// These refine how texts are cut and vectors pooled; models do well without.
const WELCOME: [&str; 3] = ["modules.json", "sentence_bert_config.json", "1_Pooling/config.json"];
pub(super) const WEIGHTS: &str = "model.safetensors";

/// Which hub, and the key to it. Not `Debug`: the token is a secret.
#[derive(Clone)]
pub(super) struct Hub {
    endpoint: String,
    token: Option<String>,
}

impl Hub {
    /// `HF_ENDPOINT` or the public hub, with `HF_TOKEN` if that is set.
    pub(super) fn from_env() -> Self {
        let set = |name| env::var(name).ok().filter(|value| !value.trim().is_empty());
        Self::new(set("HF_ENDPOINT").as_deref().unwrap_or(PUBLIC_HUB), set("HF_TOKEN"))
    }

    pub(super) fn new(endpoint: &str, token: Option<String>) -> Self {
        let endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        Self { endpoint, token }
    }

    /// Downloads the model's files into `dir`.
    pub(super) async fn download(&self, id: &str, dir: &Path, report: &Report) -> Result<(), ProvisionError> {
        // An error only says that somebody has installed one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|error| self.failed(id, with_causes(&error)))?;
        let begun = Instant::now();
        for name in NEEDED.into_iter().chain(WELCOME) {
            let Some(mut file) = self.get(&client, id, name).await? else {
                if NEEDED.contains(&name) {
                    return Err(self.failed(id, format!("it has no {name}")));
                }
                continue;
            };
            let total = file.bytes;
            if name == WEIGHTS {
                let licence = if id == pins::DEFAULT_MODEL {
                    pins::DEFAULT_MODEL_WHEEL.licence
                } else {
                    "as named on the model's card"
                };
                let from = "the Hugging Face hub";
                report(Event::Fetching { part: Part::Model, what: id.into(), from, bytes: total, licence });
            }
            let path = dir.join(name);
            self.save(id, &mut file, &path, (name == WEIGHTS).then_some(report)).await?;
            if name == WEIGHTS {
                let pinned = (id == pins::DEFAULT_MODEL).then(|| pins::DEFAULT_MODEL_WEIGHTS_SHA256.to_owned());
                if let Some(sum) = pinned.or(file.sha256) {
                    tool::blocking(move || checksum::verify(Part::Model, &path, &sum)).await?;
                }
            }
        }
        report(Event::Fetched { part: Part::Model, took: begun.elapsed() });
        Ok(())
    }

    /// Asks for one file and follows redirects; `None` when the hub does not have it.
    async fn get(&self, client: &Client, id: &str, name: &str) -> Result<Option<RemoteFile>, ProvisionError> {
        let first = Url::parse(&format!("{}/{id}/resolve/main/{name}", self.endpoint))
            .map_err(|error| self.failed(id, error.to_string()))?;
        let mut url = first.clone();
        let mut sha256 = None;
        let mut bytes = None;
        for _ in 0..=MOST_REDIRECTS {
            let mut request = client.get(url.clone());
            if let Some(token) = self.token.as_deref().filter(|_| url.origin() == first.origin()) {
                request = request.bearer_auth(token);
            }
            let response = request.send().await.map_err(|error| self.failed(id, with_causes(&error)))?;
            let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
            sha256 = sha256.or_else(|| text("x-linked-etag").and_then(as_sha256));
            bytes = bytes.or_else(|| text("x-linked-size").and_then(|size| size.parse().ok()));
            let status = response.status();
            if status.is_redirection() {
                url = text(header::LOCATION.as_str())
                    .and_then(|location| url.join(location).ok())
                    .ok_or_else(|| self.failed(id, format!("{name}: a redirect without a target")))?;
                continue;
            }
            return match status {
                StatusCode::OK => {
                    bytes = bytes.or(response.content_length());
                    Ok(Some(RemoteFile { response, sha256, bytes }))
                }
                StatusCode::NOT_FOUND => Ok(None),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    Err(self.failed(id, format!("{name}: {status}: it does not exist, or a token is needed")))
                }
                _ => Err(self.failed(id, format!("{name}: {status}"))),
            };
        }
        Err(self.failed(id, format!("{name}: too many redirects")))
    }

    async fn save(
        &self,
        id: &str,
        file: &mut RemoteFile,
        path: &Path,
        report: Option<&Report>,
    ) -> Result<(), ProvisionError> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(ProvisionError::io("create", parent))?;
        }
        let mut out = tokio::fs::File::create(path).await.map_err(ProvisionError::io("create", path))?;
        let mut done = 0;
        let mut last = Instant::now();
        while let Some(piece) = file.response.chunk().await.map_err(|error| self.failed(id, with_causes(&error)))? {
            out.write_all(&piece).await.map_err(ProvisionError::io("write", path))?;
            done += piece.len() as u64;
            if let Some(report) = report.filter(|_| last.elapsed() >= PROGRESS_INTERVAL) {
                last = Instant::now();
                report(Event::Progress { part: Part::Model, done, total: file.bytes });
            }
        }
        out.flush().await.map_err(ProvisionError::io("write", path))
    }

    fn failed(&self, id: &str, reason: String) -> ProvisionError {
        ProvisionError::Hub { id: id.to_owned(), endpoint: self.endpoint.clone(), reason }
    }
}

struct RemoteFile {
    response: Response,
    /// Named by the hub for large files.
    sha256: Option<String>,
    bytes: Option<u64>,
}

/// The header holds a SHA-256 sum for large files and another kind of sum for small ones.
fn as_sha256(etag: &str) -> Option<String> {
    let sum = etag.trim_start_matches("W/").trim_matches('"');
    (sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| sum.to_ascii_lowercase())
}

/// An error with everything that caused it: the outermost message alone says little.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Whether a name has the form of a model id: `name` or `owner/name`.
pub(super) fn is_id(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    let good = |part: &&str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
            && !part.contains("..")
    };
    parts.len() <= 2 && parts.iter().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_paths_are_told_apart() {
        for id in ["sentence-transformers/all-MiniLM-L6-v2", "BAAI/bge-small-en-v1.5", "gpt2"] {
            assert!(is_id(id), "{id}");
        }
        for path in ["./model", "/srv/model", "../model", "a/b/c", "", "owner/", "~/model", "owner/..", "a b/c"] {
            assert!(!is_id(path), "{path}");
        }
    }

    #[test]
    fn only_sha256_sums_are_taken_from_the_header() {
        let sum = pins::DEFAULT_MODEL_WEIGHTS_SHA256;
        assert_eq!(as_sha256(&format!("\"{sum}\"")).as_deref(), Some(sum));
        assert_eq!(as_sha256("\"59d594003bf59880a884c574bf88ef7555bb0202\""), None);
    }
}
