//! A real mongod with TLS that requires a client certificate: the options are the driver's own, in the URI.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bson::doc;
use tidewheel_core::secret::Secret;
use tidewheel_stores::mongo::{MongoOptions, MongoSource};
use tidewheel_testkit::certificates::Certificates;

/// Killed when the test ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn mongodb_accepts_client_certificate_from_uri() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Certificates::new(dir.path(), "ours").unwrap();
    let (server, client) = (ours.sign("server").unwrap(), ours.sign("client").unwrap());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let program = super::server::program().await;
    let data = dir.path().join("db");
    std::fs::create_dir(&data).unwrap();
    let mut command = Command::new(&program.path);
    if let Some(path) = &program.library_path {
        command.env("LD_LIBRARY_PATH", path);
    }
    command.args(["--replSet", "rs0", "--bind_ip", "127.0.0.1", "--port", &port.to_string(), "--nounixsocket"]);
    command.args(["--wiredTigerCacheSizeGB", "0.25", "--tlsMode", "requireTLS", "--dbpath"]).arg(&data);
    command.arg("--tlsCertificateKeyFile").arg(&server.both_file).arg("--tlsCAFile").arg(ours.ca_file());
    let _mongod = Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());

    let uri = |with_certificate: bool| {
        let files = format!("tlsCAFile={}", ours.ca_file().display());
        let certificate = format!("&tlsCertificateKeyFile={}", client.both_file.display());
        let certificate = if with_certificate { certificate } else { String::new() };
        format!(
            "mongodb://localhost:{port}/?tls=true&directConnection=true&serverSelectionTimeoutMS=1000&{files}{certificate}"
        )
    };
    let driver = mongodb::Client::with_uri_str(uri(true)).await.unwrap();
    let begun = Instant::now();
    let member = doc! {"_id": 0, "host": format!("localhost:{port}")};
    let initiate = doc! {"replSetInitiate": {"_id": "rs0", "members": [member]}};
    while let Err(error) = driver.database("admin").run_command(initiate.clone()).await {
        assert!(begun.elapsed() < Duration::from_secs(60), "mongod with TLS does not respond: {error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let facts = async |with_certificate| {
        let options = MongoOptions::of_database(Secret::new(uri(with_certificate)), "shop", &["*".to_owned()]);
        MongoSource::connect(options).await.unwrap().inspect().await
    };
    facts(true).await.unwrap();
    assert!(facts(false).await.is_err(), "without a certificate");
}
