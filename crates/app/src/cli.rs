//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::settings::{Given, parse_duration};

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

/// Flags for settings; every command has them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
pub(crate) struct SettingsArgs {
    /// The settings file [default: $TIDEWHEEL_CONFIG, else ./tidewheel.toml, else /etc/tidewheel/tidewheel.toml]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
    /// Any setting, as table.key=value; may be given several times
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub(crate) assignments: Vec<String>,
    /// Where MongoDB is (mongodb.uri)
    #[arg(long, global = true, value_name = "URI")]
    pub(crate) mongodb_uri: Option<String>,
    /// The database to keep searchable (mongodb.database)
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// Its collections, with * for any letters, separated by commas (mongodb.collection)
    #[arg(long, global = true, value_name = "NAMES")]
    pub(crate) collection: Option<String>,
    /// Where Redis is (redis.url)
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) redis_url: Option<String>,
    /// Where Qdrant's gRPC API is (qdrant.url)
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) qdrant_url: Option<String>,
    /// Where the embedder is (embedding.url)
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) embedding_url: Option<String>,
    /// The model of our own embedder (embedder.model)
    #[arg(long, global = true, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Logs as text or JSON (log.format)
    #[arg(long, global = true, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
    /// How much is logged: error, warn, info, debug, trace (log.level)
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
}

impl SettingsArgs {
    /// What was given, with this environment.
    pub(crate) fn given(&self, environment: Vec<(String, String)>) -> Given {
        let named = [
            ("--mongodb-uri", "mongodb.uri", &self.mongodb_uri),
            ("--database", "mongodb.database", &self.database),
            ("--collection", "mongodb.collection", &self.collection),
            ("--redis-url", "redis.url", &self.redis_url),
            ("--qdrant-url", "qdrant.url", &self.qdrant_url),
            ("--embedding-url", "embedding.url", &self.embedding_url),
            ("--model", "embedder.model", &self.model),
            ("--log-format", "log.format", &self.log_format),
            ("--log-level", "log.level", &self.log_level),
        ];
        let named = named.into_iter().filter_map(|(flag, key, value)| {
            value.as_ref().map(|value| (flag.to_owned(), key.to_owned(), value.clone()))
        });
        Given {
            config: self.config.clone(),
            environment,
            assignments: self.assignments.clone(),
            flags: named.collect(),
        }
    }
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
    /// Show or check the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script for a shell
    #[command(after_help = "Example: tidewheel completions bash > /etc/bash_completion.d/tidewheel")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Serve Qdrant's API from a directory (the local stack starts this)
    #[command(hide = true)]
    LocalQdrant(LocalQdrantArgs),
}

/// `up`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel up --demo                 with a few documents and a search
  tidewheel up --demo --exit          the same, and stop after the search
  tidewheel up --data /srv/tidewheel --mongodb-port 27018

What is on PATH is used first (mongod 6.0, redis-server 7.0, qdrant); the rest is fetched once, checked and cached.
With qdrant.url set, that Qdrant is used and none is started.")]
pub(crate) struct UpArgs {
    /// Insert a few documents, wait until they can be found, and search
    #[arg(long)]
    pub(crate) demo: bool,
    /// With --demo: stop everything after the search
    #[arg(long, requires = "demo")]
    pub(crate) exit: bool,
    /// Where the servers keep their data (local.data) [default: ~/.local/share/tidewheel]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<String>,
    /// MongoDB's port (local.mongodb_port) [default: 27017]
    #[arg(long, value_name = "PORT")]
    pub(crate) mongodb_port: Option<u16>,
    /// Redis' port (local.redis_port) [default: 6379]
    #[arg(long, value_name = "PORT")]
    pub(crate) redis_port: Option<u16>,
    /// The port of Qdrant's REST API (local.qdrant_http_port) [default: 6333]
    #[arg(long, value_name = "PORT")]
    pub(crate) qdrant_http_port: Option<u16>,
    /// The port of Qdrant's gRPC API (local.qdrant_grpc_port) [default: 6334]
    #[arg(long, value_name = "PORT")]
    pub(crate) qdrant_grpc_port: Option<u16>,
    /// The embedder's port (embedder.listen) [default: 8080]
    #[arg(long, value_name = "PORT")]
    pub(crate) embedder_port: Option<u16>,
    /// The operations server's port (http.listen) [default: 9090]
    #[arg(long, value_name = "PORT")]
    pub(crate) http_port: Option<u16>,
    /// The web console's port (console.listen) [default: 9091]
    #[arg(long, value_name = "PORT")]
    pub(crate) console_port: Option<u16>,
}

impl UpArgs {
    /// The flags of `up` that are settings: flag, key, value.
    pub(crate) fn settings(&self) -> Vec<(String, String, String)> {
        let port = |port: Option<u16>| port.map(|port| port.to_string());
        let loopback = |port: Option<u16>| port.map(|port| format!("127.0.0.1:{port}"));
        [
            ("--data", "local.data", self.data.clone()),
            ("--mongodb-port", "local.mongodb_port", port(self.mongodb_port)),
            ("--redis-port", "local.redis_port", port(self.redis_port)),
            ("--qdrant-http-port", "local.qdrant_http_port", port(self.qdrant_http_port)),
            ("--qdrant-grpc-port", "local.qdrant_grpc_port", port(self.qdrant_grpc_port)),
            ("--embedder-port", "embedder.listen", loopback(self.embedder_port)),
            ("--http-port", "http.listen", loopback(self.http_port)),
            ("--console-port", "console.listen", loopback(self.console_port)),
        ]
        .into_iter()
        .filter_map(|(flag, key, value)| Some((flag.to_owned(), key.to_owned(), value?)))
        .collect()
    }
}

/// `search`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel search \"parcel never arrived\"
  tidewheel search \"invoice\" --limit 3 --filter '{\"must\": [{\"key\": \"product\", \"match\": {\"value\": \"Atlas\"}}]}'
  tidewheel search \"invoice\" --output json | jq '.[0].document'

Exit code: 0 found something, 1 found nothing, 2 could not search.")]
pub(crate) struct SearchArgs {
    /// What to look for
    pub(crate) text: String,
    /// The most documents to show
    #[arg(long, short = 'n', default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) limit: u64,
    /// A filter in Qdrant's JSON form
    #[arg(long, value_name = "JSON")]
    pub(crate) filter: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel status
  tidewheel status --watch
  tidewheel status --output json | jq '.stages[].pending'

Exit code: 0 everything answered, 2 something did not.")]
pub(crate) struct StatusArgs {
    /// Show it again every second until Ctrl-C
    #[arg(long, short)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `monitor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel monitor
  tidewheel monitor --set monitor.interval=10s --set monitor.stage_1_entries=5000
  TIDEWHEEL__MONITOR__WEBHOOK=https://hooks.example.com/tidewheel tidewheel monitor
  */5 * * * * tidewheel monitor --once || mail -s 'tidewheel' oncall@example.com      (cron)

Thresholds are the settings in the table `monitor`. What is posted is JSON with the fields text, event (problem or resolved),
problem, verdict and at_ms. With --once nothing is posted.
Exit code with --once: 0 no problem, 1 there is one, 2 could not tell.")]
pub(crate) struct MonitorArgs {
    /// Look once, and end with an exit code
    #[arg(long)]
    pub(crate) once: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel check
  tidewheel check --output json | jq '.[] | select(.verdict == \"wrong\")'

Exit code: 0 nothing is wrong, 1 something is.")]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `replay`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel replay source                              what would be done
  tidewheel replay source --yes                        read and send every document anew
  tidewheel replay source --filter '{\"status\": \"open\"}' --yes
  tidewheel replay raw --since 2h --yes                send the changes of the last two hours anew
  tidewheel replay embedded --yes                      write again what stage 2 still holds, without embedding
  tidewheel replay source --into documents_2 --yes     fill a new collection and switch the alias to it

It is safe while everything runs: newer changes always win. It may be interrupted and run again.
Exit code: 0 done, or the plan was printed; 1 interrupted; 2 could not.")]
pub(crate) struct ReplayArgs {
    /// From where: `embedded` (stage 2, with its vectors), `raw` (stage 1, processed anew), `source` (MongoDB)
    #[arg(value_enum)]
    pub(crate) from: ReplayFrom,
    /// Only from then on: a time such as 2026-05-01T12:00:00Z, or how long ago, such as 90m or 7d
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only documents that match this query of MongoDB (with `source`)
    #[arg(long, value_name = "JSON", conflicts_with = "since")]
    pub(crate) filter: Option<String>,
    /// Into this new collection instead of the live one; at the end the alias in qdrant.collection is switched to it
    #[arg(long, value_name = "NAME")]
    pub(crate) into: Option<String>,
    /// Do it; without this only the plan is printed
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `trace`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel trace 65f000000000000000000001
  tidewheel trace 7 --namespace shop.tickets
  tidewheel trace '{\"$numberLong\": \"7\"}' --output json | jq '.documents[].verdict'

An _id is read as people type it: 24 hexadecimal digits as an ObjectId, a number of each type, a UUID, a text, or extended
JSON, which says exactly what is meant. The output tells which reading was found.
Exit code: 0 it is searchable as MongoDB has it, or deleted on both sides; 1 it is on its way, parked, missing, stale, or
nobody knows it; 2 a server did not answer.")]
pub(crate) struct TraceArgs {
    /// The document's _id
    pub(crate) id: String,
    /// Its collection, such as shop.tickets or tickets [default: every selected one]
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// How many of the newest entries of each stage are looked at
    #[arg(long, value_name = "ENTRIES", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) scan: u64,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `wait`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel wait && tidewheel search \"the ticket that I have just written\"
  tidewheel wait --since 1763842213.7 --timeout 10s
  tidewheel wait --output json | jq .waited_ms
  curl '127.0.0.1:9090/searchable?since=now&timeout=10s'      the same, from the operations server

A driver knows the cluster time of its last write: operationTime of its session, written seconds.increment.
Exit code: 0 everything committed up to then is searchable, what was parked or refused apart; 1 not within the timeout;
2 could not tell.")]
pub(crate) struct WaitArgs {
    /// Everything that was committed up to then: `now`, a cluster time such as 1763842213.7, a time such as
    /// 2026-05-01T12:00:00Z, or how long ago
    #[arg(long, value_name = "TIME", default_value = "now")]
    pub(crate) since: String,
    /// How long to wait
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = span)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel verify                                    every document and every point, both ways
  tidewheel verify --sample 5%
  tidewheel verify --namespace shop.tickets --from 65f000000000000000000000
  tidewheel verify --repair                           send what differs through the pipeline again
  tidewheel verify --output json | jq '.differences[] | select(.kind == \"missing\").key'

What differs is looked at again when everything that was committed before has arrived. It is safe while everything runs.
Exit code: 0 the index equals MongoDB, or does so after the repair; 1 it does not; 2 could not tell.")]
pub(crate) struct VerifyArgs {
    /// Send what differs through the pipeline again, and look whether that has helped
    #[arg(long)]
    pub(crate) repair: bool,
    /// Only some documents and points, taken at random: a number, such as 1000, or a part, such as 5%
    #[arg(long, value_name = "N|N%")]
    pub(crate) sample: Option<String>,
    /// Only documents with this _id or a greater one of its type
    #[arg(long, value_name = "ID", conflicts_with = "sample")]
    pub(crate) from: Option<String>,
    /// Only documents with this _id or a smaller one of its type
    #[arg(long, value_name = "ID", conflicts_with = "sample")]
    pub(crate) to: Option<String>,
    /// Only this collection, such as shop.tickets or tickets; may be given several times
    #[arg(long = "namespace", value_name = "NAME")]
    pub(crate) namespaces: Vec<String>,
    /// Compare digests alone instead of every field
    #[arg(long)]
    pub(crate) quick: bool,
    /// How long to wait until what was committed before has arrived
    #[arg(long, value_name = "SPAN", default_value = "30s", value_parser = span)]
    pub(crate) settle: Duration,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `dead-letters`.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// List them, newest last
    List(LettersListArgs),
    /// Show one with its document
    Show(LettersShowArgs),
    /// Put them back into their stage, to be worked on once more
    Retry(LettersRetryArgs),
    /// Delete them
    Drop(LettersDropArgs),
}

/// Which dead letters.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct LettersFilterArgs {
    /// Only of this stage
    #[arg(long, value_enum)]
    pub(crate) stage: Option<StageName>,
    /// Only these: ids of dead letters, or _ids of documents; may be given several times
    #[arg(long = "id", value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Only those whose reason has this text in it
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Only those that were parked longer ago than this, such as 90m or 7d
    #[arg(long, value_name = "AGE", value_parser = span)]
    pub(crate) older_than: Option<Duration>,
    /// Only those that were parked since then
    #[arg(long, value_name = "AGE", value_parser = span)]
    pub(crate) newer_than: Option<Duration>,
}

/// A stage of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StageName {
    /// Stage 1, raw_document_changes
    Raw,
    /// Stage 2, embedded_documents
    Embedded,
}

impl StageName {
    /// As it is written on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Embedded => "embedded",
        }
    }
}

/// `dead-letters list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel dead-letters list
  tidewheel dead-letters list --reason 422 --newer-than 1h
  tidewheel dead-letters list --output json | jq '.letters[].document_id'

Exit code: 0 the list was printed, even if it is empty; 2 could not read them.")]
pub(crate) struct LettersListArgs {
    #[command(flatten)]
    pub(crate) filter: LettersFilterArgs,
    /// The most to show
    #[arg(long, short = 'n', default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) limit: u64,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `dead-letters show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel dead-letters show 1763842213007-0
  tidewheel dead-letters show 65f000000000000000000001 --output json | jq '.[0].reason'

Exit code: 0 there is one, 1 there is none, 2 could not read them.")]
pub(crate) struct LettersShowArgs {
    /// The dead letter's id, or its document's _id
    pub(crate) id: String,
    /// Only of this stage
    #[arg(long, value_enum)]
    pub(crate) stage: Option<StageName>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `dead-letters retry`.
#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("which").required(true).multiple(true).args(["ids", "reason", "older_than", "newer_than", "all"]),
    after_help = "\
Examples:
  tidewheel dead-letters retry --all                       what would be done
  tidewheel dead-letters retry --all --yes
  tidewheel dead-letters retry --id 65f000000000000000000001 --yes
  tidewheel dead-letters retry --reason timeout --newer-than 1d --yes

A change that is tried again keeps its version: a newer state of its document wins. What cannot be read stays.
Exit code: 0 done, or the plan was printed; 1 nothing matches, or some stayed; 2 could not."
)]
pub(crate) struct LettersRetryArgs {
    #[command(flatten)]
    pub(crate) filter: LettersFilterArgs,
    /// All of them
    #[arg(long)]
    pub(crate) all: bool,
    /// Do it; without this only the plan is printed
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `dead-letters drop`.
#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("which").required(true).multiple(true).args(["ids", "reason", "older_than", "newer_than", "all"]),
    after_help = "\
Examples:
  tidewheel dead-letters drop --id 1763842213007-0         asks first
  tidewheel dead-letters drop --older-than 30d --yes

Their documents stay as the index has them, missing or in an older state, until they change; `tidewheel verify` lists
such documents, and `tidewheel verify --repair` sends them again.
Exit code: 0 done, or the plan was printed; 1 nothing matches, or you said no; 2 could not."
)]
pub(crate) struct LettersDropArgs {
    #[command(flatten)]
    pub(crate) filter: LettersFilterArgs,
    /// All of them
    #[arg(long)]
    pub(crate) all: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Reads a span of time.
fn span(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "a span of time is written like 30s, 90m, 12h or 7d".to_owned())
}

/// Where a replay begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ReplayFrom {
    /// Stage 2
    Embedded,
    /// Stage 1
    Raw,
    /// MongoDB
    Source,
}

/// How data is printed.
#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

/// `config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show every setting, its value, and where it was set
    #[command(after_help = "Example: tidewheel config show --output json | jq '.[] | select(.origin != \"default\")'")]
    Show {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Check the settings without connecting to anything
    #[command(after_help = "Exit code: 0 they are valid, 1 they are not.")]
    Check,
    /// Print which settings file is read
    Path,
    /// Print an example file with every setting, its meaning and its default
    #[command(after_help = "Example: tidewheel config example > tidewheel.toml")]
    Example,
}

/// `local-qdrant`.
#[derive(Debug, Args)]
pub(crate) struct LocalQdrantArgs {
    /// Where the collections are kept
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Where the REST API listens
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) http: std::net::SocketAddr,
    /// Where the gRPC API listens
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) grpc: std::net::SocketAddr,
}
