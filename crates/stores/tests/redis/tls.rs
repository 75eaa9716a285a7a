//! A real redis-server with TLS that requires a client certificate.

use tidewheel_core::error::ErrorClass;
use tidewheel_core::tls::ClientTls;
use tidewheel_stores::redis::{RedisOptions, RedisStore};
use tidewheel_testkit::certificates::{Certificates, Signed};

use super::server::TestRedis;

#[tokio::test]
async fn redis_tls_requires_matching_ca_and_client_certificate() {
    let redis = TestRedis::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) =
        (Certificates::new(dir.path(), "ours").unwrap(), Certificates::new(dir.path(), "theirs").unwrap());
    let server = ours.sign("server").unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (port_text, cert, key) = (port.to_string(), file(&server.cert_file), file(&server.key_file));
    let ca = file(&ours.ca_file());
    let set = ["CONFIG", "SET", "tls-cert-file", &cert, "tls-key-file", &key, "tls-ca-cert-file", &ca];
    redis.command::<()>(&[&set[..], &["tls-auth-clients", "yes", "tls-port", &port_text]].concat()).await;

    let connect = async |ca: &Certificates, identity: Option<&Signed>| {
        let tls = ClientTls {
            ca_file: Some(ca.ca_file()),
            cert_file: identity.map(|signed| signed.cert_file.clone()),
            key_file: identity.map(|signed| signed.key_file.clone()),
        };
        let options = RedisOptions { tls, ..RedisOptions::new(format!("rediss://localhost:{port}")) };
        RedisStore::connect(&options).await
    };
    let client = ours.sign("client").unwrap();
    connect(&ours, Some(&client)).await.unwrap();
    assert!(connect(&ours, None).await.is_err(), "without a certificate");
    assert!(connect(&ours, Some(&theirs.sign("client").unwrap())).await.is_err(), "of another CA");
    assert!(connect(&theirs, Some(&client)).await.is_err(), "trusts another CA");
    let mixed = Signed { key_file: ours.sign("other").unwrap().key_file, ..client };
    assert_eq!(connect(&ours, Some(&mixed)).await.unwrap_err().class, ErrorClass::Fatal, "the key of another one");
}
