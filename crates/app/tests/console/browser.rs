//! Drives Chromium over the DevTools protocol through a pipe, without a port, driver program or library.
//!
//! Messages are zero-terminated JSON; the browser reads from file descriptor 3 and writes to 4.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidewheel_testkit::programs;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::oneshot;

/// Timeout for a page to change, on a machine that runs other tests in parallel.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Flags that disable everything that contacts other machines.
const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
    // Only loopback is reachable.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost , EXCLUDE 127.0.0.1",
];

/// A browser with one tab.
pub struct Browser {
    wire: tokio::sync::Mutex<(ChildStdin, u64)>,
    waiting: Waiting,
    events: Arc<Mutex<Vec<Value>>>,
    session: String,
    _child: Child,
    _profile: TempDir,
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>;

/// Viewport and theme of a page.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    pub width: u32,
    pub height: u32,
    pub theme: &'static str,
}

impl Browser {
    /// Starts a browser with an empty profile and cache.
    pub async fn start() -> Self {
        let program = programs::chromium().await.expect("a browser");
        let profile = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new("sh");
        // Moves the pipes to the descriptors that the browser uses.
        command
            .args(["-c", r#"exec "$@" 3<&0 4>&1 0</dev/null 1>/dev/null 2>&1"#, "sh"])
            .arg(&program.path)
            .args(FLAGS);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        if let Some(libraries) = &program.library_path {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        if let Some(fonts) = programs::fonts(&program) {
            command.env("FONTCONFIG_FILE", fonts).env("XDG_CACHE_HOME", profile.path());
        }
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn();
        let mut child = spawned.expect("the browser starts");
        let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let (waiting, events) = (Waiting::default(), Arc::<Mutex<Vec<Value>>>::default());
        let (answered, happened) = (waiting.clone(), events.clone());
        tokio::spawn(async move {
            let mut messages = BufReader::new(output).split(0);
            while let Ok(Some(message)) = messages.next_segment().await {
                let message: Value = serde_json::from_slice(&message).expect("JSON from the browser");
                match message["id"].as_u64() {
                    Some(id) => {
                        let waiting = answered.lock().unwrap().remove(&id);
                        if let Some(waiting) = waiting {
                            let _ = waiting.send(message);
                        }
                    }
                    None => happened.lock().unwrap().push(message),
                }
            }
        });
        let mut browser = Self {
            wire: tokio::sync::Mutex::new((input, 0)),
            waiting,
            events,
            session: String::new(),
            _child: child,
            _profile: profile,
        };
        let tab = browser.call("Target.createTarget", json!({"url": "about:blank"})).await;
        let attach = json!({"targetId": tab["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach).await;
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser
    }

    async fn call(&self, method: &str, parameters: Value) -> Value {
        let (sender, answer) = oneshot::channel();
        {
            let mut wire = self.wire.lock().await;
            wire.1 += 1;
            let id = wire.1;
            self.waiting.lock().unwrap().insert(id, sender);
            let mut message = json!({"id": id, "method": method, "params": parameters});
            if !self.session.is_empty() {
                message["sessionId"] = json!(self.session);
            }
            let mut bytes = message.to_string().into_bytes();
            bytes.push(0);
            wire.0.write_all(&bytes).await.expect("the browser runs");
        }
        let answer =
            tokio::time::timeout(TIMEOUT, answer).await.expect("a response in time").expect("the browser runs");
        assert!(answer.get("error").is_none(), "{method}: {}", answer["error"]);
        answer["result"].clone()
    }

    /// Opens a URL with a full page load.
    pub async fn open(&self, url: &str) {
        self.call("Page.navigate", json!({"url": "about:blank"})).await;
        self.call("Page.navigate", json!({"url": url})).await;
    }

    /// Evaluates an expression in the page.
    pub async fn value(&self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", asked).await;
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// Returns the text of the first matching element, or an empty string.
    pub async fn text(&self, selector: &str) -> String {
        let text = self.value(&format!("document.querySelector({selector:?})?.innerText ?? ''")).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression is true.
    pub async fn until(&self, condition: &str, expression: &str) {
        let begun = Instant::now();
        // Expressions fail while a page is loading.
        while self
            .value(&format!("Boolean((() => {{ try {{ return {expression} }} catch {{ return false }} }})())"))
            .await
            != true
        {
            if begun.elapsed() > TIMEOUT {
                let page = self.value("document.body?.innerText ?? ''").await;
                panic!(
                    "timed out waiting for: {condition}\n{}\n{:?}",
                    page.as_str().unwrap_or_default(),
                    self.errors()
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the text of an element contains these words.
    pub async fn until_text(&self, selector: &str, words: &str) {
        let expression = format!("document.querySelector({selector:?}).innerText.includes({words:?})");
        self.until(&format!("{selector} contains {words:?}"), &expression).await;
    }

    /// Clicks the centre of an element with the mouse.
    pub async fn click(&self, selector: &str) {
        let element = format!("document.querySelector({selector:?})");
        self.until(&format!("{selector} exists"), &format!("{element} !== null")).await;
        let place = format!(
            "(() => {{ const e = {element}; e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect(); \
             return [r.left + r.width / 2, r.top + r.height / 2]; }})()"
        );
        let place = self.value(&place).await;
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event).await;
        }
    }

    /// Presses keys in sequence: letters, or names such as `Enter`.
    pub async fn press(&self, keys: &[&str]) {
        for key in keys {
            let (code, text) = match *key {
                "Enter" => (13, "\r"),
                "Tab" => (9, ""),
                "Escape" => (27, ""),
                "ArrowLeft" => (37, ""),
                letter => (0, letter),
            };
            let event = |kind| json!({"type": kind, "key": key, "text": text, "windowsVirtualKeyCode": code});
            self.call("Input.dispatchKeyEvent", event("keyDown")).await;
            self.call("Input.dispatchKeyEvent", json!({"type": "keyUp", "key": key})).await;
        }
    }

    /// Types a text into the focused element.
    pub async fn write(&self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// Sets the viewport and the preferred theme.
    pub async fn show_on(&self, screen: Screen) {
        let Screen { width, height, theme } = screen;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.call("Emulation.setDeviceMetricsOverride", metrics).await;
        let features = json!({"features": [
            {"name": "prefers-color-scheme", "value": theme}, {"name": "prefers-reduced-motion", "value": "reduce"},
        ]});
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    /// Captures the full page as PNG.
    pub async fn picture(&self, screen: Screen) -> Vec<u8> {
        use base64::Engine as _;

        let height = self.value("document.documentElement.scrollHeight").await.as_u64().unwrap_or_default();
        let whole = Screen { height: u32::try_from(height).unwrap_or(u32::MAX).clamp(screen.height, 8_000), ..screen };
        self.show_on(whole).await;
        // The charts are redrawn for the new size.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let picture = self.call("Page.captureScreenshot", json!({"format": "png"})).await;
        self.show_on(screen).await;
        let text = picture["data"].as_str().expect("a picture");
        base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
    }

    /// Returns errors and warnings of the browser's log so far, exceptions, and policy violations.
    pub fn errors(&self) -> Vec<String> {
        let events = self.events.lock().unwrap();
        let errors = events.iter().filter(|event| match event["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => true,
            "Runtime.consoleAPICalled" => {
                matches!(event["params"]["type"].as_str(), Some("error" | "warning" | "assert"))
            }
            "Log.entryAdded" => {
                event["params"]["entry"]["level"] != "verbose" && event["params"]["entry"]["level"] != "info"
            }
            _ => false,
        });
        errors.map(|event| event["params"].to_string()).collect()
    }

    /// Returns all requested URLs so far.
    pub fn requests(&self) -> Vec<String> {
        let events = self.events.lock().unwrap();
        let requests = events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        requests.map(|event| event["params"]["request"]["url"].as_str().unwrap_or_default().to_owned()).collect()
    }
}
