//! Flags for settings, and the commands that show them.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::OutputArgs;
use crate::settings::Given;

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
