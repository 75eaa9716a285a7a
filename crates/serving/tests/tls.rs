//! Server and client certificates on real sockets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use reqwest::{Certificate, Client, Identity};
use tidewheel_serving::{Server, Tls, TlsFiles};
use tidewheel_testkit::certificates::{Certificates, Signed};
use tokio::net::TcpListener;

async fn start(files: &TlsFiles) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::new(listener).with_tls(Tls::load("embedder", files).unwrap());
    assert_eq!(server.scheme(), "https");
    let router = Router::new().route("/", get(async || "here"));
    tokio::spawn(server.serve(router, std::future::pending()));
    address
}

fn client(ca: &Certificates, identity: Option<&Signed>) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let roots = Certificate::from_pem_bundle(&std::fs::read(ca.ca_file()).unwrap()).unwrap();
    // Every request performs a new handshake.
    let mut builder = Client::builder().tls_certs_only(roots).pool_max_idle_per_host(0);
    if let Some(signed) = identity {
        builder = builder.identity(Identity::from_pem(&std::fs::read(&signed.both_file).unwrap()).unwrap());
    }
    builder.build().unwrap()
}

async fn answers(client: &Client, address: SocketAddr) -> bool {
    client.get(format!("https://{address}/")).send().await.is_ok_and(|response| response.status() == 200)
}

#[tokio::test]
async fn server_with_client_ca_rejects_other_clients() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) =
        (Certificates::new(dir.path(), "ours").unwrap(), Certificates::new(dir.path(), "theirs").unwrap());
    let Signed { cert_file, key_file, .. } = ours.sign("server").unwrap();
    let files = TlsFiles { cert_file: Some(cert_file), key_file: Some(key_file), client_ca_file: Some(ours.ca_file()) };
    let address = start(&files).await;
    assert!(answers(&client(&ours, Some(&ours.sign("client").unwrap())), address).await);
    assert!(
        !answers(&client(&ours, Some(&theirs.sign("client").unwrap())), address).await,
        "client certificate of another CA"
    );
    assert!(!answers(&client(&ours, None), address).await, "no client certificate");
    assert!(!answers(&client(&theirs, Some(&ours.sign("client").unwrap())), address).await, "client trusts another CA");
    let plain = client(&ours, None).get(format!("http://{address}/")).send().await;
    assert!(plain.is_err(), "no TLS");

    let open = start(&TlsFiles { client_ca_file: None, ..files }).await;
    assert!(answers(&client(&ours, None), open).await, "no client CA: clients need no certificate");
}

#[tokio::test]
async fn renewed_certificate_is_loaded_without_restart_and_invalid_one_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (Certificates::new(dir.path(), "old").unwrap(), Certificates::new(dir.path(), "new").unwrap());
    let (first, second) = (old.sign("server").unwrap(), new.sign("server").unwrap());
    let Signed { cert_file, key_file, .. } = first;
    let address =
        start(&TlsFiles { cert_file: Some(cert_file.clone()), key_file: Some(key_file.clone()), client_ca_file: None })
            .await;
    assert!(answers(&client(&old, None), address).await);
    // A half-finished renewal: the certificate does not match the key.
    std::fs::copy(&second.cert_file, &cert_file).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(answers(&client(&old, None), address).await, "the previous certificate stays in use");
    std::fs::copy(&second.key_file, &key_file).unwrap();
    let begun = Instant::now();
    while !answers(&client(&new, None), address).await {
        assert!(begun.elapsed() < Duration::from_secs(60), "renewed certificate not loaded");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn invalid_tls_files_error_names_setting() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Certificates::new(dir.path(), "ca").unwrap();
    let (server, other) = (ca.sign("server").unwrap(), ca.sign("other").unwrap());
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "hunter2").unwrap();
    let files = |cert: &std::path::Path, key: &std::path::Path| TlsFiles {
        cert_file: Some(cert.to_owned()),
        key_file: Some(key.to_owned()),
        client_ca_file: None,
    };
    for (files, setting) in [
        (files("/does/not/exist".as_ref(), &server.key_file), "embedder.cert_file"),
        (files(&server.cert_file, &secret), "embedder.key_file"),
        (files(&secret, &server.key_file), "embedder.cert_file"),
        (files(&server.cert_file, &other.key_file), "embedder.key_file"),
        (TlsFiles { key_file: None, ..files(&server.cert_file, &server.key_file) }, "embedder.key_file is not set"),
        (
            TlsFiles { client_ca_file: Some(secret.clone()), ..files(&server.cert_file, &server.key_file) },
            "embedder.client_ca_file",
        ),
        (
            TlsFiles { client_ca_file: Some(ca.ca_file()), ..TlsFiles::default() },
            "embedder.cert_file is not set, but embedder.client_ca_file is",
        ),
    ] {
        let Err(error) = Tls::load("embedder", &files) else { panic!("{files:?} accepted") };
        let text = error.to_string();
        assert!(text.contains(setting) && !text.contains("hunter2"), "{text}");
    }
    assert!(Tls::load("embedder", &TlsFiles::default()).unwrap().is_none());
}
