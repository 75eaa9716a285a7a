//! The benchmark over HTTP: `tidewheel embedder` in a separate process, and a client with concurrent requests.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use reqwest::Client;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::json;
use tidewheel_engine::Precision;
use tidewheel_engine::tokens::Encoding;
use tokio::runtime::Runtime;

use crate::contestant::Times;
use crate::process::{cpu_seconds, resident};

/// Startup timeout of the service.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A request mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode {
    /// Texts per request.
    pub(crate) texts: usize,
    /// Whether vectors are requested in binary instead of JSON.
    pub(crate) binary: bool,
    /// Concurrent requests.
    pub(crate) concurrency: usize,
}

/// The measured modes: a backfill as sent by the processor, and many concurrent small clients.
pub(crate) const MODES: [Mode; 4] = [
    Mode { texts: 256, binary: true, concurrency: 4 },
    Mode { texts: 256, binary: false, concurrency: 4 },
    Mode { texts: 1, binary: true, concurrency: 32 },
    Mode { texts: 1, binary: false, concurrency: 32 },
];

/// A running service, killed on drop.
pub(crate) struct Served {
    process: Child,
    url: String,
    client: Client,
    runtime: Runtime,
    /// Seconds from process start to the first successful `/ready`.
    pub(crate) start: f64,
    dimension: usize,
}

impl Served {
    /// Starts the binary's embedder with this model, and waits until it is ready.
    pub(crate) fn start(binary: &Path, model: &Path, precision: Precision, dimension: usize) -> Result<Self, String> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = Runtime::new().map_err(|error| format!("failed to start the runtime: {error}"))?;
        let client = Client::builder()
            .tcp_nodelay(true)
            .build()
            .map_err(|error| format!("failed to create the HTTP client: {error}"))?;
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let address = free.map_err(|error| format!("failed to find a free port: {error}"))?;
        let settings = [format!("embedder.listen={address}"), format!("embedder.precision={}", precision.name())];
        let mut command = Command::new(binary);
        command.arg("--config").arg(empty_settings()?).arg("--model").arg(model).arg("embedder");
        command.args(settings.iter().flat_map(|setting| ["--set", setting]));
        let begun = Instant::now();
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("failed to start {}: {error}", binary.display()))?;
        let url = format!("http://{address}");
        let mut served = Self { process, url, client, runtime, start: 0.0, dimension };
        served.wait_until_ready(begun)?;
        served.start = begun.elapsed().as_secs_f64();
        Ok(served)
    }

    fn wait_until_ready(&mut self, begun: Instant) -> Result<(), String> {
        let request = self.client.get(format!("{}/ready", self.url));
        loop {
            let asked = request.try_clone().map(reqwest::RequestBuilder::send).ok_or("failed to clone the request")?;
            if self.runtime.block_on(asked).is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(format!("embedder exited during startup with {status}; run it manually to see the error"));
            }
            if begun.elapsed() > TIMEOUT {
                return Err(format!("embedder not ready within {} s", TIMEOUT.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Embeds all texts. Returns the concatenated vectors.
    pub(crate) fn embed(&self, texts: &[String], mode: Mode) -> Result<Vec<f32>, String> {
        let answers = self.drive(&bodies(texts, mode.texts), mode)?;
        let mut vectors = Vec::with_capacity(texts.len() * self.dimension);
        for answer in answers {
            if mode.binary {
                vectors.extend(answer.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            } else {
                #[derive(serde::Deserialize)]
                struct Answer {
                    embeddings: Vec<Vec<f32>>,
                }
                let answer: Answer = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
                vectors.extend(answer.embeddings.into_iter().flatten());
            }
        }
        match vectors.len() == texts.len() * self.dimension {
            true => Ok(vectors),
            false => Err(format!("received {} values for {} texts", vectors.len(), texts.len())),
        }
    }

    /// Measures wall-clock time and the service's CPU time for all texts. This process sends requests and reads responses
    /// on the same cores; JSON is read but not parsed, because parsing is the client's cost.
    pub(crate) fn time(&self, texts: &[String], mode: Mode) -> Result<Times, String> {
        let bodies = bodies(texts, mode.texts);
        let (cpu, start) = (cpu_seconds(self.process.id()), Instant::now());
        self.drive(&bodies, mode)?;
        let clock = start.elapsed().as_secs_f64();
        Ok(Times { clock, cpu: cpu_seconds(self.process.id()) - cpu })
    }

    /// Measures repeated sequential requests of one text. Returns seconds per request.
    pub(crate) fn single(&self, text: &str, repeats: usize) -> Result<Vec<f64>, String> {
        let mode = Mode { texts: 1, binary: true, concurrency: 1 };
        let bodies = bodies(&[text.to_owned()], 1);
        (0..repeats)
            .map(|_| {
                let start = Instant::now();
                self.drive(&bodies, mode).map(|_| start.elapsed().as_secs_f64())
            })
            .collect()
    }

    /// Returns current and peak resident megabytes.
    pub(crate) fn resident(&self) -> (f64, f64) {
        resident(self.process.id())
    }

    fn drive(&self, bodies: &[Vec<u8>], mode: Mode) -> Result<Vec<bytes::Bytes>, String> {
        let accept = if mode.binary { "application/octet-stream" } else { "application/json" };
        let url = format!("{}/encode_batch", self.url);
        let requests = bodies.iter().map(|body| {
            let request = self.client.post(&url).header(CONTENT_TYPE, "application/json").header(ACCEPT, accept);
            let request = request.body(body.clone());
            async {
                let answer = request.send().await.map_err(|error| error.to_string())?;
                let status = answer.status();
                let body = answer.bytes().await.map_err(|error| error.to_string())?;
                match status.is_success() {
                    true => Ok(body),
                    false => Err(format!("embedder returned {status}: {}", String::from_utf8_lossy(&body))),
                }
            }
        });
        self.runtime.block_on(stream::iter(requests).buffered(mode.concurrency).try_collect())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Builds request bodies with `size` texts each.
fn bodies(texts: &[String], size: usize) -> Vec<Vec<u8>> {
    texts.chunks(size.max(1)).map(|texts| json!({ "texts": texts }).to_string().into_bytes()).collect()
}

/// Creates an empty settings file, so that no settings of this machine are read.
fn empty_settings() -> Result<PathBuf, String> {
    let path = std::env::temp_dir().join("embed-bench-no-settings.toml");
    std::fs::write(&path, "").map_err(|error| format!("failed to write {}: {error}", path.display()))?;
    Ok(path)
}

/// Returns the index of the text whose token count is closest to `length`.
pub(crate) fn nearest(encodings: &[Encoding], length: usize) -> Option<usize> {
    (0..encodings.len()).min_by_key(|&index| encodings[index].ids.len().abs_diff(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_contain_every_text_once_in_order() {
        let texts: Vec<String> = (0..5).map(|number| format!("text \"{number}\"")).collect();
        for size in 1..7 {
            let bodies = bodies(&texts, size);
            assert_eq!(bodies.len(), 5usize.div_ceil(size));
            let mut found = Vec::new();
            for body in bodies {
                let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                found.extend(body["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()));
            }
            assert_eq!(found, texts, "{size}");
        }
    }

    #[test]
    fn nearest_finds_text_closest_in_length() {
        let encodings: Vec<Encoding> = [3, 30, 25, 200].map(|length| Encoding::new(vec![0; length])).into();
        assert_eq!(nearest(&encodings, 28), Some(1));
        assert_eq!(nearest(&encodings, 209), Some(3));
        assert_eq!(nearest(&[], 28), None);
    }
}
