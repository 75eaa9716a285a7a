//! Held connections, and cross-site requests.

use reqwest::Method;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::super::clients::http;
use super::{Servers, TIMEOUT, grpc, grpc_client};

/// More than the servers' limit of open files.
const CONNECTIONS: usize = 1_100;

/// The first bytes of an HTTP/2 connection.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Raises this process' own limit of open files.
fn allow_connections() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    assert!(maximum.is_none_or(|maximum| maximum > 2 * CONNECTIONS as u64), "this test needs more open files");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_and_slow_connections_do_not_block_servers() {
    allow_connections();
    let mut servers = Servers::start("").await;
    let starts: [&[u8]; 4] = [
        b"",
        b"GET /health HTTP/1.1\r\nhost: localhost\r\n",
        b"POST /encode HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
        b"POST /api/search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
    ];
    let qdrant = servers.local_qdrant("").await;
    for (table, url, path) in [
        ("embedder", servers.url("embedder"), "/ready"),
        ("http", servers.url("http"), "/health"),
        ("console", servers.url("console"), "/api/session"),
        ("local Qdrant", qdrant.rest.clone(), "/readyz"),
    ] {
        let mut held = Vec::new();
        for number in 0..CONNECTIONS {
            let connecting = TcpStream::connect(url.trim_start_matches("http://"));
            let mut socket = tokio::time::timeout(TIMEOUT, connecting).await.expect(table).unwrap();
            let _ = socket.write_all(starts[number % starts.len()]).await;
            held.push(socket);
            if number % 100 == 99 {
                let asking = http().get(format!("{url}{path}")).send();
                let answer = tokio::time::timeout(TIMEOUT, asking).await.expect(table).unwrap();
                assert_eq!(answer.status(), 200, "{table} behind {number} connections");
            }
        }
        drop(held);
    }

    // gRPC: nothing, a part of the HTTP/2 preface, no request, and a request without its body.
    let settings = [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    // HEADERS with POST, http, / from HPACK's static table; the stream stays open.
    let open = [&settings[..], &[0, 0, 3, 1, 4, 0, 0, 0, 1, 0x83, 0x86, 0x84]].concat();
    let starts: [&[u8]; 4] = [b"", &PREFACE[..9], &settings, &open];
    let mut held = Vec::new();
    for number in 0..CONNECTIONS {
        let connecting = TcpStream::connect(qdrant.grpc.trim_start_matches("http://"));
        let mut socket = tokio::time::timeout(TIMEOUT, connecting).await.expect("gRPC").unwrap();
        let _ = socket.write_all(starts[number % starts.len()]).await;
        held.push(socket);
        if number % 100 == 99 {
            let client = grpc_client([127, 0, 0, 1]);
            let asking = grpc(&client, &qdrant.grpc, None);
            let (code, body) = tokio::time::timeout(TIMEOUT, asking).await.expect("gRPC").unwrap();
            assert!(code == 0 && body.contains("qdrant"), "gRPC behind {number} connections: {code} {body:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cross_site_reads_and_writes_are_rejected() {
    let servers = Servers::start("embedder.hosts = [\"vectors.example.com\"]\n").await;
    let json = ("content-type", "application/json");
    let evil = ("origin", "http://evil.example.com");
    let ask = async |table: &str, method: &str, path: &str, headers: &[(&str, &str)]| {
        let method: Method = method.parse().unwrap();
        let body = if method == Method::POST { r#"{"text": "hello"}"# } else { "" };
        let mut request = http().request(method, format!("{}{path}", servers.url(table))).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap().status().as_u16()
    };
    for (table, read) in [("embedder", "/info"), ("http", "/ready"), ("console", "/api/session")] {
        for host in ["evil.example.com", "127.0.0.1.evil.example.com:80", "embedder"] {
            assert_eq!(ask(table, "GET", read, &[("host", host)]).await, 421, "{table} {host}");
        }
        for host in ["localhost:1", "[::1]:8080", "192.0.2.1"] {
            assert_ne!(ask(table, "GET", read, &[("host", host)]).await, 421, "{table} {host}");
        }
    }
    for (table, write) in
        [("embedder", "/encode"), ("embedder", "/v1/embeddings"), ("http", "/metrics"), ("console", "/api/search")]
    {
        for origin in [evil, ("origin", "null"), ("sec-fetch-site", "cross-site")] {
            assert_eq!(ask(table, "POST", write, &[json, origin]).await, 403, "{table}{write} {origin:?}");
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
            assert_eq!(ask(table, "POST", write, &[("content-type", kind)]).await, 415, "{table}{write} {kind}");
        }
    }
    assert_eq!(ask("embedder", "POST", "/encode", &[json]).await, 200);
    let page = [json, ("host", "vectors.example.com"), ("origin", "https://vectors.example.com")];
    assert_eq!(ask("embedder", "POST", "/encode", &page).await, 200, "a configured host name");
}
