//! Command-line arguments and help texts.

mod dead_letters;
mod indexes;
mod installation;
mod local;
mod output;
mod questions;
mod repair;
mod settings;

use clap::{Parser, Subcommand};

pub(crate) use dead_letters::{DeadLettersCommand, LettersActArgs, LettersListArgs, LettersShowArgs};
pub(crate) use indexes::{ApplyArgs, DEFAULT_SAMPLE, PlanArgs, RollbackArgs};
pub(crate) use installation::{AdoptArgs, InstallationCommand};
pub(crate) use local::UpArgs;
pub(crate) use output::{Output, OutputArgs};
pub(crate) use questions::{AuditLogArgs, CheckArgs, InspectArgs, MonitorArgs, SearchArgs, StatusArgs, WaitArgs};
pub(crate) use repair::{ReplayArgs, VerifyArgs};
pub(crate) use settings::{ConfigCommand, SettingsArgs};

/// Keep a Qdrant collection in sync with MongoDB: every write is searchable by meaning within moments.
#[derive(Debug, Parser)]
#[command(
    name = "tidewheel",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  tidewheel up --demo                          start a local stack with sample documents
  tidewheel run --set mongodb.database=shop    run all services against your own servers
  tidewheel search \"parcel never arrived\"      search by meaning
  tidewheel check                              test every server and setting"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a local stack: MongoDB, Redis, Qdrant, a model and all services
    Up(UpArgs),
    /// Run all services in one process against your own servers
    #[command(after_help = "\
Examples:
  tidewheel run --database shop --collection tickets
  TIDEWHEEL__MONGODB__URI=mongodb://db1,db2/?replicaSet=rs0 tidewheel run --database shop

The operations server listens on 127.0.0.1:9090 by default, the console on 127.0.0.1:9091.")]
    Run,
    /// Run the producer: MongoDB → raw_document_changes
    #[command(after_help = "\
Examples:
  tidewheel producer --database shop
  tidewheel producer --database shop --set producer.snapshot=never

One producer is active. Others stand by and take over within seconds.")]
    Producer,
    /// Run the embedder, the HTTP service that turns text into vectors
    #[command(after_help = "\
Examples:
  tidewheel embedder
  tidewheel embedder --model ./my-model --set embedder.listen=0.0.0.0:8080
  curl 127.0.0.1:8080/encode -H 'content-type: application/json' -d '{\"text\": \"hello\"}'")]
    Embedder,
    /// Run a processor: raw_document_changes → embedder → embedded_documents
    #[command(after_help = "\
Examples:
  tidewheel processor
  tidewheel processor --embedding-url http://gpu-box:8080
  tidewheel processor --set embedding.provider=tei --embedding-url http://gpu-box:3000
  tidewheel processor --set embedding.provider=ollama --set embedding.model=nomic-embed-text

Any number of processors share the work.")]
    Processor,
    /// Run an upserter: embedded_documents → Qdrant
    #[command(after_help = "\
Examples:
  tidewheel upserter
  tidewheel upserter --qdrant-url https://qdrant.example.com:6334 --set qdrant.api_key_file=/run/secrets/qdrant

Any number of upserters share the work.")]
    Upserter,
    /// Search documents by meaning
    Search(SearchArgs),
    /// Show whether the index is in sync, and the state of the pipeline
    Status(StatusArgs),
    /// Serve the web console for services that run elsewhere
    #[command(after_help = "\
Examples:
  tidewheel console
  tidewheel console --set console.listen=127.0.0.1:9191 --set console.token_file=/run/secrets/console

The console listens on 127.0.0.1:9091 by default; `run` and `up` serve it too. It is read-only unless console.token \
is set: then operators can retry and drop dead letters.")]
    Console,
    /// Print backlogs and problems at an interval, and notify a webhook when a problem begins or is resolved
    Monitor(MonitorArgs),
    /// Test every server with the operations that the services use, and report problems
    Check(CheckArgs),
    /// Show what the declared indexes would change, and what that costs
    Plan(PlanArgs),
    /// Apply the declared indexes, and show the progress
    Apply(ApplyArgs),
    /// Switch an index back to its previous generation
    Rollback(RollbackArgs),
    /// Send retained stream entries or source documents through the pipeline again
    Replay(ReplayArgs),
    /// Show where a document is in the pipeline, hop by hop, and why
    #[command(alias = "trace")]
    Inspect(InspectArgs),
    /// Wait until writes to MongoDB are searchable
    Wait(WaitArgs),
    /// Compare the index with MongoDB, document by document, and repair differences
    Verify(VerifyArgs),
    /// List, retry or drop dead letters: entries that failed every attempt
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Show or take over the ownership of Redis and of the collection
    #[command(subcommand)]
    Installation(InstallationCommand),
    /// Show the audit log: who changed what, and from where
    AuditLog(AuditLogArgs),
    /// Show or validate the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a shell completion script
    #[command(after_help = "Example: tidewheel completions bash > /etc/bash_completion.d/tidewheel")]
    Completions {
        /// Shell to print the script for
        shell: clap_complete::Shell,
    },
}
