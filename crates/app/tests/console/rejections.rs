//! Rejected requests, and the console without reachable servers.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::browser::{Browser, Screen};
use super::world::{BINARY, free_port};

/// A console without reachable servers and without a token.
struct Offline {
    child: Child,
    base: String,
    _folder: tempfile::TempDir,
}

impl Drop for Offline {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(folder: &tempfile::TempDir, port: u16, more: &[&str]) -> Command {
    let settings = folder.path().join("tidewheel.toml");
    let closed = free_port();
    let text = format!(
        "mongodb.uri = \"mongodb://127.0.0.1:{closed}/?serverSelectionTimeoutMS=500\"\nmongodb.database = \"shop\"\n\
        redis.url = \"redis://:hunter2@127.0.0.1:{closed}\"\nqdrant.url = \"http://127.0.0.1:{closed}\"\n\
        embedding.url = \"http://127.0.0.1:{closed}\"\nqdrant.api_key = \"hunter2\"\n"
    );
    std::fs::write(&settings, text).unwrap();
    let mut command = Command::new(BINARY);
    command.arg("--config").arg(settings).arg("console").args(["--set", &format!("console.listen=127.0.0.1:{port}")]);
    command.args(more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

async fn offline() -> Offline {
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let child = command(&folder, port, &[]).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "the console does not listen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Offline { child, base: format!("http://127.0.0.1:{port}"), _folder: folder }
}

fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

#[tokio::test(flavor = "multi_thread")]
async fn console_rejects_writes_without_token_and_cross_site_requests() {
    let console = offline().await;
    let post = |path: &str, headers: &[(&str, &str)]| {
        let mut request = http().post(format!("{}{path}", console.base)).body(r#"{"filter": {}}"#);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        async { request.send().await.unwrap() }
    };
    let json = ("content-type", "application/json");
    let rollback = "/api/indexes/documents/rollback";
    for path in ["/api/dead-letters/retry", "/api/dead-letters/drop", "/api/session", rollback] {
        let refused = post(path, &[json, ("authorization", "Bearer ")]).await;
        assert_eq!(refused.status(), 403, "{path}");
        let text = refused.text().await.unwrap();
        assert!(text.contains("read-only") && text.contains("console.token"), "{text}");
    }
    assert_eq!(post("/api/search", &[json, ("origin", "http://evil.example.com")]).await.status(), 403);
    assert_eq!(post("/api/search", &[]).await.status(), 415, "a cross-site form cannot send JSON");
    let get = |path: &str, host: Option<&str>| {
        let request = http().get(format!("{}{path}", console.base));
        let request = host.into_iter().fold(request, |request, host| request.header("host", host));
        async { request.send().await.unwrap() }
    };
    assert_eq!(get("/api/overview", Some("evil.example.com")).await.status(), 421);
    assert_eq!(get("/", Some("localhost:1")).await.status(), 200);
    assert_eq!(get("/../secrets", None).await.status(), 404);
    for path in ["/", "/app.css", "/api/session", "/nothing"] {
        let answer = get(path, None).await;
        let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers()["referrer-policy"], "no-referrer");
    }
    for path in ["/api/dead-letters?stage=other", "/api/inspect", "/api/dead-letters?older_than=x"] {
        let answer = get(path, None).await;
        assert_eq!(answer.status(), 400, "{path}");
        let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert!(body["error"].is_string(), "{body}");
    }
    assert_eq!(get("/api/indexes/nothing", None).await.status(), 404);
    let overview = get("/api/overview", None).await.text().await.unwrap();
    assert!(!overview.contains("hunter2"), "{overview}");
    let overview: Value = serde_json::from_str(&overview).unwrap();
    assert_eq!(overview["overview"]["verdict"]["state"], "unknown");
    let indexes: Value = serde_json::from_str(&get("/api/indexes", None).await.text().await.unwrap()).unwrap();
    assert_eq!(
        (&indexes["indexes"][0]["name"], &indexes["indexes"][0]["state"]),
        (&"documents".into(), &"unknown".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_servers_are_shown_as_unknown_not_zero() {
    let console = offline().await;
    let browser = Browser::start().await;
    for theme in ["light", "dark"] {
        browser.show_on(Screen { width: 360, height: 740, theme }).await;
        browser.open(&console.base).await;
        browser.until_text(".verdict", "Sync state unknown").await;
    }
    browser.until_text(".problems", "qdrant-unreachable").await;
    browser.until_text("[aria-label=\"stage 1\"]", "unknown").await;
    let dash = "[...document.querySelectorAll('.tile')].every((tile) => tile.innerText.includes('–'))";
    browser.until("no tile shows a number", dash).await;
    browser.open(&format!("{}/#/dead-letters", console.base)).await;
    browser.until_text(".problem", "failed to read").await;
    browser.open(&format!("{}/#/search?q=parcel", console.base)).await;
    browser.until("the search shows an error", "document.querySelector('.result .problem') !== null").await;
    let exceptions: Vec<_> =
        browser.errors().into_iter().filter(|text| !text.contains("Failed to load resource")).collect();
    assert_eq!(exceptions, Vec::<String>::new());
}

#[test]
fn console_requires_token_for_non_loopback_address() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let refused = command(&folder, port, &["--set", &format!("console.listen=0.0.0.0:{port}")]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(text.contains("console.token"), "{text}");
}
