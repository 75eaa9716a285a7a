//! The pipeline with TLS and client certificates on every connection that supports them.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::routing::post;
use tidewheel_serving::{Server, Tls, TlsFiles};
use tidewheel_testkit::certificates::{Certificates, Signed};
use tidewheel_testkit::tls_proxy::TlsProxy;
use tokio::net::TcpListener;

use super::super::world::{World, free_port, ticket};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Returns a client that trusts the CA, with an optional client certificate.
fn client(ca: &Certificates, identity: Option<&Signed>) -> reqwest::Client {
    let roots = reqwest::Certificate::from_pem_bundle(&std::fs::read(ca.ca_file()).unwrap()).unwrap();
    let mut builder = reqwest::Client::builder().tls_certs_only(roots);
    if let Some(signed) = identity {
        builder = builder.identity(reqwest::Identity::from_pem(&std::fs::read(&signed.both_file).unwrap()).unwrap());
    }
    builder.build().unwrap()
}

/// Starts a trace collector and webhook receiver that counts requests of both.
async fn receiver(server: &Signed, ca: &Certificates) -> (u16, Arc<[AtomicU32; 2]>) {
    let counts: Arc<[AtomicU32; 2]> = Arc::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let files = TlsFiles {
        cert_file: Some(server.cert_file.clone()),
        key_file: Some(server.key_file.clone()),
        client_ca_file: Some(ca.ca_file()),
    };
    let count = |number: usize| {
        let counts = counts.clone();
        post(move || {
            counts[number].fetch_add(1, Ordering::Relaxed);
            std::future::ready("")
        })
    };
    let router = Router::new().route("/v1/traces", count(0)).route("/hook", count(1));
    let server = Server::new(listener).with_tls(Tls::load("test", &files).unwrap());
    tokio::spawn(server.serve(router, std::future::pending()));
    (port, counts)
}

#[tokio::test(flavor = "multi_thread")]
async fn pipeline_converges_with_client_certificates_on_all_connections() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut world = World::new().await;
    let dir = tempfile::tempdir().unwrap();
    let ca = Certificates::new(dir.path(), "ca").unwrap();
    let (server, identity) = (ca.sign("server").unwrap(), ca.sign("client").unwrap());
    let redis_port = free_port();
    let (cert, key, ca_file) = (text(&server.cert_file), text(&server.key_file), ca.ca_file());
    let tls = ["CONFIG", "SET", "tls-cert-file", cert, "tls-key-file", key, "tls-ca-cert-file", text(&ca_file)];
    let port = redis_port.to_string();
    world.redis::<()>(&[&tls[..], &["tls-auth-clients", "yes", "tls-port", &port]].concat()).await;
    let qdrant = world.stack.qdrant_grpc_url().unwrap();
    let qdrant = TlsProxy::start(qdrant.trim_start_matches("http://").to_owned(), &server, &ca).await.unwrap();
    let (receiver_port, received) = receiver(&server, &ca).await;
    let (operations, console) = (free_port(), free_port());

    let outgoing = |prefix: &str| {
        let (cert, key) = (text(&identity.cert_file), text(&identity.key_file));
        let ca = ca.ca_file();
        format!("{prefix}ca_file = {:?}\n{prefix}cert_file = {cert:?}\n{prefix}key_file = {key:?}\n", text(&ca))
    };
    let serving = |table: &str| {
        let ca = ca.ca_file();
        format!("{table}.cert_file = {cert:?}\n{table}.key_file = {key:?}\n{table}.client_ca_file = {:?}\n", text(&ca))
    };
    world.detours.redis_url = Some(format!("rediss://localhost:{redis_port}"));
    world.detours.qdrant_url = Some(format!("https://localhost:{}", qdrant.address().port()));
    world.detours.embedding_url = Some(format!("https://{}", world.embedder));
    let settings = [
        ["redis.", "qdrant.", "embedding.", "traces.", "monitor.webhook_"].map(outgoing).concat(),
        ["embedder", "http", "console"].map(serving).concat(),
        format!("console.listen = \"127.0.0.1:{console}\"\ntraces.endpoint = \"https://localhost:{receiver_port}\"\n"),
        format!("monitor.webhook = \"https://localhost:{receiver_port}/hook\"\nmonitor.interval = \"300ms\"\n"),
    ]
    .concat();
    world.write_settings(&settings);
    for service in super::super::world::SERVICES {
        world.start(service);
    }
    world.collection("tickets").insert_many((0..20).map(ticket)).await.unwrap();
    world.equal().await;
    world.until("spans arrive", || async { received[0].load(Ordering::Relaxed) > 0 }).await;

    let check = world.command(&["check"]).output().unwrap();
    let shown = String::from_utf8_lossy(&check.stdout).into_owned() + &String::from_utf8_lossy(&check.stderr);
    assert_ne!(check.status.code(), Some(2), "{shown}");
    assert!(!shown.contains("cannot") && !shown.contains("failed to"), "{shown}");

    // The operations port and the console, each with and without a certificate.
    world.write_settings(&format!("{settings}http.listen = \"127.0.0.1:{operations}\"\n"));
    world.start("upserter");
    world.start("console");
    for (port, path) in [(operations, "/health"), (console, "/api/session")] {
        let url = format!("https://127.0.0.1:{port}{path}");
        let (known, unknown) = (client(&ca, Some(&identity)), client(&ca, None));
        world
            .until("the server responds", || async {
                known.get(&url).send().await.is_ok_and(|answer| answer.status() == 200)
            })
            .await;
        assert!(unknown.get(&url).send().await.is_err(), "{url} without a certificate");
    }
    let embedder = format!("https://{}/health", world.embedder);
    assert!(client(&ca, None).get(&embedder).send().await.is_err(), "the embedder without a certificate");

    // A problem is sent to the webhook.
    world.terminate("upserter");
    world.terminate("upserter");
    let mut monitor = world.command(&["monitor"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    world.collection("tickets").insert_one(ticket(100)).await.unwrap();
    world.until("the webhook is called", || async { received[1].load(Ordering::Relaxed) > 0 }).await;
    monitor.kill().unwrap();
    monitor.wait().unwrap();
}
