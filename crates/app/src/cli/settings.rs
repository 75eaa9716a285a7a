//! Flags for settings, and arguments of `config`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::OutputArgs;
use crate::settings::Given;

/// Flags for settings, common to all commands.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
pub(crate) struct SettingsArgs {
    /// Settings file [default: $TIDEWHEEL_CONFIG, else ./tidewheel.toml, else /etc/tidewheel/tidewheel.toml]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
    /// Override any setting, as table.key=value (repeatable)
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub(crate) assignments: Vec<String>,
    /// MongoDB URI (mongodb.uri) [default: mongodb://127.0.0.1:27017]
    #[arg(long, global = true, value_name = "URI")]
    pub(crate) mongodb_uri: Option<String>,
    /// Database to keep searchable (mongodb.database)
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// Collections, comma-separated, with * as a wildcard (mongodb.collection) [default: *]
    #[arg(long, global = true, value_name = "NAMES")]
    pub(crate) collection: Option<String>,
    /// Redis URL (redis.url) [default: redis://127.0.0.1:6379]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) redis_url: Option<String>,
    /// URL of Qdrant's gRPC API (qdrant.url) [default: http://127.0.0.1:6334]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) qdrant_url: Option<String>,
    /// Embedder URL (embedding.url) [default: the built-in embedder]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) embedding_url: Option<String>,
    /// Model of the built-in embedder (embedder.model) [default: sentence-transformers/all-MiniLM-L6-v2]
    #[arg(long, global = true, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Log format: text (default on a terminal) or json (log.format)
    #[arg(long, global = true, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
    /// Log level: error, warn, info, debug, trace (log.level)
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
}

impl SettingsArgs {
    /// The settings given as flags and in this environment.
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

/// `config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show every setting, its value and its origin
    #[command(after_help = "Example: tidewheel config show --output json | jq '.[] | select(.origin != \"default\")'")]
    Show {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Validate the settings without connecting to any server
    #[command(after_help = "\
Examples:
  tidewheel config check
  tidewheel config check --config deploy/tidewheel.toml

Exit codes:
  0  valid
  1  invalid")]
    Check,
    /// Print the path of the settings file
    #[command(after_help = "\
Exit codes:
  0  path printed
  1  no settings file found
  2  error")]
    Path,
    /// Print an example file that documents every setting and its default
    #[command(after_help = "Example: tidewheel config example > tidewheel.toml")]
    Example,
}
