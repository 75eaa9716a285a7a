//! Tokens: minimum length, and throttling of wrong ones.

use std::time::{Duration, Instant};

use super::super::clients::http;
use super::{Servers, TIMEOUT, grpc, grpc_client};

const TOKEN: &str = "a long token for tests";

/// The gRPC port of the local Qdrant.
const GRPC: &str = "gRPC";

/// Sends a token to a server. Returns 200, 401 or 429, for gRPC what corresponds to them, and whether the response says when to
/// retry.
async fn ask(table: &str, url: &str, http: &reqwest::Client, token: Option<&str>) -> (u16, bool) {
    if table == GRPC {
        let (code, _) = grpc(http, url, token).await.unwrap();
        let status = match code {
            0 => 200,
            16 => 401,
            8 => 429,
            other => panic!("gRPC status {other}"),
        };
        return (status, true);
    }
    let request = if table == "console" {
        http.post(url).header("content-type", "application/json").body("{}")
    } else {
        http.get(url)
    };
    let request = token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.headers().contains_key("retry-after"))
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_are_logged_and_throttled_on_every_server() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tokens: String = super::TABLES.map(|table| format!("{table}.token = {TOKEN:?}\n")).concat();
    let mut servers = Servers::start(&tokens).await;
    let qdrant = servers.local_qdrant(TOKEN).await;
    for (number, (table, url, log)) in [
        ("embedder", servers.url("embedder") + "/info", "embedder"),
        ("http", servers.url("http") + "/metrics", "embedder"),
        ("console", servers.url("console") + "/api/session", "console"),
        ("local Qdrant", qdrant.rest + "/collections", "local Qdrant"),
        (GRPC, qdrant.grpc, "local Qdrant"),
    ]
    .into_iter()
    .enumerate()
    {
        // Not 127.0.0.1, from which the console calls the embedder with the right token.
        let address = [127, 0, 0, 10 + number as u8];
        let http = match table {
            GRPC => grpc_client(address),
            _ => reqwest::Client::builder().local_address(std::net::IpAddr::from(address)).build().unwrap(),
        };
        let address = std::net::IpAddr::from(address);
        let status = async |token: Option<&str>| ask(table, &url, &http, token).await.0;
        assert_eq!(status(None).await, 401, "{table}");
        let before = servers.log(log).matches("wrong token").count();
        let begun = Instant::now();
        loop {
            let (status, retry_after) = ask(table, &url, &http, Some("hunter2 hunter2 hunter2")).await;
            if status == 429 {
                assert!(retry_after || table == "http", "{table}");
                break;
            }
            assert_eq!(status, 401, "{table}");
            assert!(begun.elapsed() < TIMEOUT, "{table} is not throttled");
        }
        assert_eq!(status(Some(TOKEN)).await, 429, "{table}: the address is throttled even with the right token");
        let text = servers.log(log);
        assert!(text.matches("wrong token").count() >= before + 10, "{text}");
        assert!(text.contains(&address.to_string()) && !text.contains("hunter2") && !text.contains(TOKEN), "{text}");
        // The throttle expires.
        while status(Some(TOKEN)).await != 200 {
            assert!(begun.elapsed() < TIMEOUT, "{table}: the throttle does not expire");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        for _ in 0..20 {
            status(Some("wrong")).await;
        }
        assert_eq!(status(Some(TOKEN)).await, 200, "{table}: wrong tokens do not lock out a client with the right one");
    }
    for (table, path) in [("embedder", "/health"), ("embedder", "/ready"), ("http", "/health")] {
        let answer = http().get(format!("{}{path}", servers.url(table))).send().await.unwrap();
        assert_eq!(answer.status(), 200, "probes require no token: {table}{path}");
    }
}

#[test]
fn non_loopback_servers_reject_short_token_and_warn_without_token() {
    for table in super::TABLES {
        let mut servers = Servers::prepare("");
        let service = if table == "console" { "console" } else { "embedder" };
        servers.settings = servers.settings.replace(
            &format!("{table}.listen = \"127.0.0.1:"),
            &format!("{table}.token = \"only hunter2\"\n{table}.listen = \"0.0.0.0:"),
        );
        let refused = servers.command(service).output().unwrap();
        let text = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{text}");
        assert!(text.contains(&format!("invalid {table}.token")) && text.contains("16"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
        if table == "console" {
            continue;
        }
        servers.settings = servers.settings.replace(&format!("{table}.token = \"only hunter2\"\n"), "");
        let log = std::fs::File::create(servers.log_file(service)).unwrap();
        let child = servers.command(service).stderr(log).spawn().unwrap();
        servers.processes.push(child);
        let (begun, warning) = (Instant::now(), format!("{table}.listen = \"0.0.0.0:"));
        while !servers.log(service).lines().any(|line| line.contains("WARN") && line.contains(&warning)) {
            assert!(begun.elapsed() < TIMEOUT, "{}", servers.log(service));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
