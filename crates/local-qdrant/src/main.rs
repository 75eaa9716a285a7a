//! `tidewheel-local-qdrant`: the server of [`tidewheel_local_qdrant`] as a process. The local stack starts and supervises it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use rustix::fs::Mode;
use rustix::process::umask;
use tidewheel_local_qdrant::{QdrantError, bind, require_key, serve_on};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Serves Qdrant's API from Qdrant Edge. For development: the local stack of `tidewheel up` runs it.
///
/// Clients have to send the API key in QDRANT__SERVICE__API_KEY, if that variable is set. An address beyond loopback requires a
/// key of at least 16 characters. Connections are not encrypted. RUST_LOG sets the level of the log on stderr.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Directory of the collections
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Address of the REST API
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6333")]
    http: SocketAddr,
    /// Address of the gRPC API
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6334")]
    grpc: SocketAddr,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Documents are private to the user, also without the local stack, which sets the same mask.
    umask(Mode::RWXG | Mode::RWXO);
    log();
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Logs to stderr at the level of RUST_LOG, by default `info`.
fn log() {
    let directives = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let filter = EnvFilter::new(directives.as_deref().unwrap_or("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}

async fn run(arguments: Arguments) -> Result<(), QdrantError> {
    // Not a flag, which every user of the machine could read.
    let api_key = std::env::var("QDRANT__SERVICE__API_KEY").ok();
    require_key(&[arguments.http, arguments.grpc], api_key.as_deref())?;
    let (http, grpc) = (bind(arguments.http).await?, bind(arguments.grpc).await?);
    // Both ports accept connections from here on, and answer them when the collections are open.
    if let (Ok(http), Ok(grpc)) = (http.local_addr(), grpc.local_addr()) {
        ready(format_args!("ready http=http://{http} grpc=http://{grpc}"));
    }
    serve_on(http, grpc, arguments.data, api_key, stopped()).await
}

#[allow(clippy::print_stdout, reason = "the line is for the process that starts this one")]
fn ready(line: std::fmt::Arguments<'_>) {
    println!("{line}");
}

#[allow(clippy::print_stderr, reason = "the last line for a person, like that of Qdrant")]
fn report(line: std::fmt::Arguments<'_>) {
    eprintln!("{line}");
}

/// Waits for SIGTERM or Ctrl-C.
async fn stopped() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
