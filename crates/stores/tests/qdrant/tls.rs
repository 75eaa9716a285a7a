//! Qdrant behind TLS: a private CA and a client certificate.

use std::time::Duration;

use tidewheel_core::tls::ClientTls;
use tidewheel_stores::qdrant::{QdrantIndex, QdrantOptions};
use tidewheel_testkit::certificates::{Certificates, Signed};
use tidewheel_testkit::tls_proxy::TlsProxy;

use super::server::Server;

#[tokio::test]
async fn qdrant_tls_requires_matching_ca_and_client_certificate() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let qdrant = Server::local(None).await;
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) =
        (Certificates::new(dir.path(), "ours").unwrap(), Certificates::new(dir.path(), "theirs").unwrap());
    let options = qdrant.options();
    let server = options.url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let proxy = TlsProxy::start(server, &ours.sign("server").unwrap(), &ours).await.unwrap();
    let connect = |ca: &Certificates, identity: Option<&Signed>| {
        let tls = ClientTls {
            ca_file: Some(ca.ca_file()),
            cert_file: identity.map(|signed| signed.cert_file.clone()),
            key_file: identity.map(|signed| signed.key_file.clone()),
        };
        let url = format!("https://localhost:{}", proxy.address().port());
        QdrantIndex::connect(QdrantOptions { url, tls, timeout: Duration::from_secs(10), ..options.clone() }).unwrap()
    };
    let client = ours.sign("client").unwrap();
    assert!(connect(&ours, Some(&client)).inspect().await.is_ok());
    assert!(connect(&ours, None).inspect().await.is_err(), "without a certificate");
    assert!(connect(&ours, Some(&theirs.sign("client").unwrap())).inspect().await.is_err(), "of another CA");
    assert!(connect(&theirs, Some(&client)).inspect().await.is_err(), "trusts another CA");

    let tls = ClientTls { ca_file: Some(ours.ca_file()), ..ClientTls::default() };
    let plain = QdrantIndex::connect(QdrantOptions { tls, ..options });
    assert!(plain.unwrap_err().hint.unwrap().contains("https://"));
}
