//! `tidewheel local-qdrant`: serves Qdrant's API from Qdrant Edge. The local stack starts it as a separate process.

use std::net::SocketAddr;

use tidewheel_local::qdrant;
use tokio::net::TcpListener;

use crate::cli::LocalQdrantArgs;
use crate::exit::{Answer, Failure};
use crate::printer;
use crate::services;

/// Serves until SIGTERM or Ctrl-C.
pub(crate) async fn run(args: LocalQdrantArgs) -> Result<Answer, Failure> {
    let http = bind(args.http).await?;
    let grpc = bind(args.grpc).await?;
    // Connections are accepted from here on; they are answered once the collections are open.
    if let (Ok(http), Ok(grpc)) = (http.local_addr(), grpc.local_addr()) {
        printer::data(format_args!("ready http=http://{http} grpc=http://{grpc}"));
    }
    // The variable of a Qdrant server; every user of the machine could read a flag.
    let api_key = std::env::var("QDRANT__SERVICE__API_KEY").ok();
    qdrant::serve_on(http, grpc, args.data, api_key, services::a_signal())
        .await
        .map_err(|error| Failure::new(error.to_string()))?;
    Ok(Answer::Fine)
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::new(format!("failed to bind {address} for Qdrant's API: {error}"))
            .with_hint("stop the process that uses the address, or choose another port")
    })
}
