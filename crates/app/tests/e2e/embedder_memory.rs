//! Memory of the embedder process with the real model.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::future::join_all;
use serde_json::json;

use super::clients::http;
use super::world::free_port;

/// The embedder's process. Killed on drop.
struct Embedder(Child);

impl Drop for Embedder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Limit for weights, workspaces and the largest bodies together.
const MOST_MEGABYTES: u64 = 250;

#[tokio::test(flavor = "multi_thread")]
async fn embedder_memory_is_bounded_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("tidewheel.toml");
    std::fs::write(&settings, "").unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewheel"));
    command.arg("--config").arg(&settings).args(["embedder", "--set", &format!("embedder.listen={address}")]);
    command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let embedder = Embedder(command.spawn().unwrap());
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = http();
    // Includes fetching the model if it is not cached.
    let ready = async {
        while !client.get(format!("http://{address}/ready")).send().await.is_ok_and(|it| it.status().is_success()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(300), ready).await.expect("the embedder is ready");

    // Texts beyond the model's limit in eight concurrent requests, and bodies near the maximum size.
    let many = json!({"texts": vec!["the tide turns the wheel ".repeat(80); 32]});
    let large = json!({"texts": ["wheel ".repeat(1_000_000)]});
    let requests = std::iter::repeat_n(&many, 8).chain(std::iter::repeat_n(&large, 4));
    let send = |body| client.post(format!("http://{address}/encode_batch")).json(body).send();
    for answer in join_all(requests.map(send)).await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", embedder.0.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM on Linux");
    let megabytes = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024 / 1_000_000;
    assert!(megabytes < MOST_MEGABYTES, "{megabytes} MB");
}
