//! Secrets in the logs of services.

use std::fs::File;
use std::time::{Duration, Instant};

use super::super::world::free_port;
use super::{Servers, TIMEOUT};

/// Settings with a secret in every place that may contain one. All start with Xk9q, and no server listens.
fn secrets(port: u16, password: &str) -> String {
    format!(
        "mongodb.uri = 'mongodb://ann:{password}@127.0.0.1:{port}/?serverSelectionTimeoutMS=500'\nmongodb.database = 'shop'\n\
         redis.url = 'redis://:{password}@127.0.0.1:{port}'\nqdrant.url = 'http://127.0.0.1:{port}'\n\
         qdrant.api_key = 'Xk9qQdrant7'\nembedding.api_key = 'Xk9qEmbedding7'\nembedder.model = 'hash:8'\n\
         embedding.url = 'http://127.0.0.1:{port}/?key=Xk9qQuery7'\nmonitor.webhook = 'http://127.0.0.1:{port}/hook/Xk9qHook7'\n\
         traces.endpoint = 'http://127.0.0.1:{port}'\ntraces.headers = 'api-key=Xk9qTraces7'\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn service_logs_contain_no_secret_while_servers_are_unreachable() {
    // A valid address, and two that do not parse, which are errors at the start.
    for password in ["Xk9qPlain7", "Xk9q?Mark7", "Xk9q/Slash:Colon@At7"] {
        let mut servers = Servers::prepare("");
        let port = free_port();
        servers.settings = secrets(port, password);
        servers.settings += &format!(
            "console.listen = '127.0.0.1:{}'\nconsole.token = 'Xk9q console token'\nhttp.token = 'Xk9q operations token'\n",
            free_port()
        );
        let services = ["producer", "processor", "upserter", "console", "monitor"];
        for service in services {
            let log = File::create(servers.log_file(service)).unwrap();
            let mut command = servers.command(service);
            command.env("RUST_LOG", "warn,tidewheel=debug").stderr(log);
            servers.processes.push(command.spawn().unwrap());
        }
        // Long enough for several attempts to connect, unless the service has exited with an error.
        let begun = Instant::now();
        for (number, service) in services.into_iter().enumerate() {
            while servers.log(service).is_empty() && servers.processes[number].try_wait().unwrap().is_none() {
                assert!(begun.elapsed() < TIMEOUT, "{service} logs nothing");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        for service in services {
            let log = servers.log(service);
            assert!(!log.is_empty(), "{service} logs nothing");
            let connects = password == "Xk9qPlain7" && !["console", "monitor"].contains(&service);
            assert!(!connects || log.contains(&format!("127.0.0.1:{port}")), "{service} names no server: {log}");
            assert!(!log.contains("Xk9q") && !log.contains("At7") && !log.contains("Mark7"), "{service}: {log}");
        }
    }
}
