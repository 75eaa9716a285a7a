//! `tidewheel local-qdrant`: Qdrant's API from Qdrant Edge. The local stack starts it as a process of its own.

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
    // From here on connections are taken; they are answered as soon as the collections are open.
    if let (Ok(http), Ok(grpc)) = (http.local_addr(), grpc.local_addr()) {
        printer::data(format_args!("ready http=http://{http} grpc=http://{grpc}"));
    }
    // As a Qdrant server takes it; not a flag, which every user of the machine could read.
    let api_key = std::env::var("QDRANT__SERVICE__API_KEY").ok();
    qdrant::serve_on(http, grpc, args.data, api_key, services::a_signal())
        .await
        .map_err(|error| Failure::new(error.to_string()))?;
    Ok(Answer::Fine)
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::new(format!("cannot listen on {address} for Qdrant's API: {error}"))
            .with_hint("stop what uses it, or choose another port")
    })
}
