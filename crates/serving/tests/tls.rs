//! Certificates of servers and of clients, on real sockets.

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
    // Each request shakes hands anew.
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
async fn a_server_with_a_client_ca_answers_its_clients_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) =
        (Certificates::new(dir.path(), "ours").unwrap(), Certificates::new(dir.path(), "theirs").unwrap());
    let Signed { cert_file, key_file, .. } = ours.sign("server").unwrap();
    let files = TlsFiles { cert_file: Some(cert_file), key_file: Some(key_file), client_ca_file: Some(ours.ca_file()) };
    let address = start(&files).await;
    assert!(answers(&client(&ours, Some(&ours.sign("client").unwrap())), address).await);
    assert!(!answers(&client(&ours, Some(&theirs.sign("client").unwrap())), address).await, "of another CA");
    assert!(!answers(&client(&ours, None), address).await, "without a certificate");
    assert!(!answers(&client(&theirs, Some(&ours.sign("client").unwrap())), address).await, "trusts another CA");
    let plain = client(&ours, None).get(format!("http://{address}/")).send().await;
    assert!(plain.is_err(), "without TLS");

    let open = start(&TlsFiles { client_ca_file: None, ..files }).await;
    assert!(answers(&client(&ours, None), open).await, "without a client CA nobody needs a certificate");
}

#[tokio::test]
async fn a_renewed_certificate_is_used_without_a_restart_and_a_broken_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (Certificates::new(dir.path(), "old").unwrap(), Certificates::new(dir.path(), "new").unwrap());
    let (first, second) = (old.sign("server").unwrap(), new.sign("server").unwrap());
    let Signed { cert_file, key_file, .. } = first;
    let address =
        start(&TlsFiles { cert_file: Some(cert_file.clone()), key_file: Some(key_file.clone()), client_ca_file: None })
            .await;
    assert!(answers(&client(&old, None), address).await);
    // Half of a renewal: the certificate does not belong to the key.
    std::fs::copy(&second.cert_file, &cert_file).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(answers(&client(&old, None), address).await, "the previous certificate stays in use");
    std::fs::copy(&second.key_file, &key_file).unwrap();
    let begun = Instant::now();
    while !answers(&client(&new, None), address).await {
        assert!(begun.elapsed() < Duration::from_secs(60), "the renewed certificate is not used");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn files_that_make_no_tls_are_named_by_their_setting() {
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
        let Err(error) = Tls::load("embedder", &files) else { panic!("{files:?} was accepted") };
        let text = error.to_string();
        assert!(text.contains(setting) && !text.contains("hunter2"), "{text}");
    }
    assert!(Tls::load("embedder", &TlsFiles::default()).unwrap().is_none());
}
