//! The command line: what can be typed, and what it says of itself.

mod dead_letters;
mod installation;
mod local;
mod output;
mod questions;
mod repair;
mod settings;

use clap::{Parser, Subcommand};

pub(crate) use dead_letters::{
    DeadLettersCommand, LettersActArgs, LettersFilterArgs, LettersListArgs, LettersShowArgs, StageName,
};
pub(crate) use installation::{AdoptArgs, InstallationCommand};
pub(crate) use local::UpArgs;
pub(crate) use output::{Output, OutputArgs};
pub(crate) use questions::{AuditLogArgs, CheckArgs, MonitorArgs, SearchArgs, StatusArgs, TraceArgs, WaitArgs};
pub(crate) use repair::{ReplayArgs, ReplayFrom, VerifyArgs};
pub(crate) use settings::{ConfigCommand, SettingsArgs};

/// Keeps a Qdrant collection equal to a MongoDB collection, continuously: what is written to MongoDB can be searched by
/// meaning within moments.
#[derive(Debug, Parser)]
#[command(
    name = "tidewheel",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  tidewheel up --demo                          everything on this machine, with a few documents to try
  tidewheel run --set mongodb.database=shop    all services against servers of your own
  tidewheel search \"parcel never arrived\"      search by meaning
  tidewheel check                              is everything set up right?"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start everything on this machine: MongoDB, Redis, Qdrant, a model, and all services
    Up(UpArgs),
    /// Run all services in one process, against your own servers
    #[command(after_help = "\
Examples:
  tidewheel run --database shop --collection tickets
  TIDEWHEEL__MONGODB__URI=mongodb://db1,db2/?replicaSet=rs0 tidewheel run --database shop")]
    Run,
    /// Run the producer alone: from MongoDB to the stream raw_document_changes
    #[command(after_help = "\
Examples:
  tidewheel producer --database shop
  tidewheel producer --database shop --set producer.snapshot=never

A second producer waits until the first one is gone.")]
    Producer,
    /// Run the embedder alone: the HTTP service that turns texts into vectors
    #[command(after_help = "\
Examples:
  tidewheel embedder
  tidewheel embedder --model ./my-model --set embedder.listen=0.0.0.0:8080
  curl 127.0.0.1:8080/encode -H 'content-type: application/json' -d '{\"text\": \"hello\"}'")]
    Embedder,
    /// Run a processor: from raw_document_changes through the embedder to embedded_documents
    #[command(after_help = "\
Examples:
  tidewheel processor
  tidewheel processor --embedding-url http://gpu-box:8080
  tidewheel processor --set embedding.provider=tei --embedding-url http://gpu-box:3000
  tidewheel processor --set embedding.provider=ollama --set embedding.model=nomic-embed-text

Start it as often as you like: all of them share the work.")]
    Processor,
    /// Run an upserter: from the stream embedded_documents to Qdrant
    #[command(after_help = "\
Examples:
  tidewheel upserter
  tidewheel upserter --qdrant-url https://qdrant.example.com:6334 --set qdrant.api_key_file=/run/secrets/qdrant

Start it as often as you like: all of them share the work.")]
    Upserter,
    /// Search by meaning
    Search(SearchArgs),
    /// Show whether the index is right, and the whole pipeline as it is now
    Status(StatusArgs),
    /// Serve the web console alone, for services that run elsewhere
    #[command(after_help = "\
Examples:
  tidewheel console
  tidewheel console --set console.listen=127.0.0.1:9191 --set console.token_file=/run/secrets/console

`run` and `up` serve it as well. Without console.token it only shows; with it, dead letters can be retried and dropped.")]
    Console,
    /// Print stage lengths and warnings at an interval, and post to a webhook when a problem begins and when it is over
    Monitor(MonitorArgs),
    /// Connect to every server, do what real work does, and say what is not right
    Check(CheckArgs),
    /// Send through the pipeline once more what a stage still holds, or the whole source
    Replay(ReplayArgs),
    /// Say where one document is, hop by hop, and why
    Trace(TraceArgs),
    /// Wait until what was written to MongoDB can be searched
    Wait(WaitArgs),
    /// Compare the index with MongoDB, document by document, and repair what differs
    Verify(VerifyArgs),
    /// Show, retry or drop the entries that no attempt could process
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Show which installation owns this Redis and this collection, or take them over
    #[command(subcommand)]
    Installation(InstallationCommand),
    /// Show who changed what, and from where
    AuditLog(AuditLogArgs),
    /// Show or check the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script for a shell
    #[command(after_help = "Example: tidewheel completions bash > /etc/bash_completion.d/tidewheel")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}
