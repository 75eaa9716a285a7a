//! The Qdrant of `up`: protected against web pages, accessible with its API key.

use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::clients::{http, python};
use super::world::{BINARY, free_port, repository};

struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn qdrant_of_up_requires_api_key_and_rejects_web_pages() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let ports: Vec<String> = (0..7).map(|_| free_port().to_string()).collect();
    let log = std::fs::File::create(dir.path().join("up.log")).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["up", "--demo", "--model", "hash:64", "--data"]).arg(&data);
    command.args(["--mongodb-port", &ports[0], "--redis-port", &ports[1], "--qdrant-http-port", &ports[2]]);
    command.args(["--qdrant-grpc-port", &ports[3], "--embedder-port", &ports[4], "--http-port", &ports[5]]);
    command.args(["--console-port", &ports[6]]).current_dir(dir.path()).stdin(Stdio::null()).env("NO_COLOR", "1");
    let up = Up(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    let printed = || std::fs::read_to_string(dir.path().join("up.log")).unwrap();
    let begun = Instant::now();
    while !printed().contains("all services are running") {
        assert!(begun.elapsed() < Duration::from_secs(120), "{}", printed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let file = data.join("qdrant-api-key");
    let key = std::fs::read_to_string(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(
        key.len() >= 32 && !printed().contains(&key) && printed().contains(file.to_str().unwrap()),
        "{}",
        printed()
    );
    let base = format!("http://127.0.0.1:{}", ports[2]);
    let collection = format!("{base}/collections/documents");
    let status = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();
    assert_eq!(status(http().get(&collection)).await, 401);
    assert_eq!(status(http().get(&collection).header("api-key", "wrong")).await, 401);
    assert_eq!(status(http().get(&collection).header("api-key", &key)).await, 200);
    assert_eq!(status(http().get(format!("{base}/readyz"))).await, 200);

    // Requests that a cross-site page can send without a preflight, and reads after DNS rebinding.
    let delete = || http().post(format!("{collection}/points/delete?wait=true")).body(r#"{"filter": {}}"#);
    assert_eq!(status(delete().header("content-type", "text/plain")).await, 415);
    assert_eq!(status(delete().header("content-type", "text/plain").header("api-key", &key)).await, 415);
    let json = || delete().header("content-type", "application/json").header("api-key", &key);
    assert_eq!(status(json().header("origin", "http://evil.example")).await, 403);
    assert_eq!(status(http().get(&collection).header("api-key", &key).header("host", "evil.example")).await, 421);
    assert_eq!(status(http().get(format!("{base}/")).header("host", "evil.example:6333")).await, 421);
    let info: Value = serde_json::from_str(
        &http().get(&collection).header("api-key", &key).send().await.unwrap().text().await.unwrap(),
    )
    .unwrap();
    let points = info["result"]["points_count"].as_u64().unwrap();
    assert!(points > 0, "nothing was deleted: {info}");

    // Qdrant's own client, and the command that `up` prints.
    let script = repository("crates/app/tests/e2e/read_with_python.py");
    let (rest, grpc, secret) = (ports[2].clone(), ports[3].clone(), key.clone());
    let output = tokio::task::spawn_blocking(move || {
        Command::new(python()).arg(script).args([rest, grpc, secret]).output().unwrap()
    });
    let output = output.await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert_eq!(out.trim(), format!("rest: {points} points\ngrpc: {points} points"));
    let printed = printed();
    let search = printed.lines().find(|line| line.contains(" search ")).unwrap().trim().to_owned();
    let output = Command::new("sh").args(["-c", &search]).current_dir(dir.path()).output().unwrap();
    assert!(output.status.success(), "{search}: {}", String::from_utf8_lossy(&output.stderr));
    let curl = printed.lines().find(|line| line.contains("curl") && line.contains("api-key")).unwrap();
    let output = Command::new("sh").args(["-c", curl.trim()]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("points_count"), "{curl}: {output:?}");
    // The key is found automatically in the data directory.
    let output = Command::new(BINARY)
        .args(["search", "a parcel", "--embedding-url", &format!("http://127.0.0.1:{}", ports[4])])
        .args(["--qdrant-url", &format!("http://127.0.0.1:{}", ports[3])])
        .args(["--set", &format!("local.qdrant_grpc_port={}", ports[3])])
        .args(["--set", &format!("local.data={}", data.display())])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    drop(up);
}
