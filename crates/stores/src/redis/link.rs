//! Connections to one Redis, replaced when they break.
//!
//! A command that fails on a broken connection is not retried here: only the caller knows whether that is safe. The
//! next command opens a new connection.

use std::sync::Mutex;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, RedisError, RedisResult, ServerErrorKind, Value};

use super::error::spoils_connection;
use super::script::Script;

/// Connect timeout. A healthy network takes milliseconds; beyond this a retry is better.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Response timeout. The longest script appends 4 MB, which takes tens of milliseconds; a slow disk sync or a fork for
/// a snapshot may block Redis for seconds.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);

/// Margin of a blocking read's timeout over its wait. A client that gives up before Redis leaves a read behind that
/// swallows the next entry.
const BLOCK_MARGIN: Duration = Duration::from_secs(5);

/// One connection for commands, shared by all callers, and one per blocking read in progress.
pub(super) struct Link {
    client: Client,
    config: AsyncConnectionConfig,
    /// The connection for commands and its generation, which identifies the one that broke.
    commands: tokio::sync::Mutex<(u64, Option<MultiplexedConnection>)>,
    /// Idle connections for blocking reads. A read takes one out, so that a cancelled read drops its connection too,
    /// and Redis discards the read.
    idle_readers: Mutex<Vec<MultiplexedConnection>>,
}

impl Link {
    pub(super) fn new(client: Client) -> Self {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        Self { client, config, commands: tokio::sync::Mutex::default(), idle_readers: Mutex::default() }
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        self.client.get_multiplexed_async_connection_with_config(&self.config).await
    }

    /// Sends a command on the shared connection.
    pub(super) async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        let (number, mut connection) = {
            let mut commands = self.commands.lock().await;
            match &commands.1 {
                Some(connection) => (commands.0, connection.clone()),
                None => {
                    let connection = self.connect().await?;
                    *commands = (commands.0 + 1, Some(connection.clone()));
                    (commands.0, connection)
                }
            }
        };
        let result = into_result(connection.send_packed_command(command).await);
        if result.as_ref().is_err_and(spoils_connection) {
            let mut commands = self.commands.lock().await;
            if commands.0 == number {
                commands.1 = None;
            }
        }
        result
    }

    /// Runs a script, loading it into Redis if it is missing.
    pub(super) async fn run(&self, script: &Script, command: &Cmd) -> RedisResult<Value> {
        match self.send(command).await {
            // Nothing was executed, so a retry is safe.
            Err(error) if error.kind() == ServerErrorKind::NoScript.into() => {
                self.send(redis::cmd("SCRIPT").arg("LOAD").arg(script.code())).await?;
                self.send(command).await
            }
            result => result,
        }
    }

    /// Runs a script with a large reply on a separate connection: on the shared one it would block every command behind
    /// it.
    pub(super) async fn run_apart(&self, script: &Script, command: &Cmd) -> RedisResult<Value> {
        let wait = RESPONSE_TIMEOUT - BLOCK_MARGIN;
        match self.send_blocking(command, wait).await {
            Err(error) if error.kind() == ServerErrorKind::NoScript.into() => {
                self.send(redis::cmd("SCRIPT").arg("LOAD").arg(script.code())).await?;
                self.send_blocking(command, wait).await
            }
            result => result,
        }
    }

    /// Sends a command that blocks in Redis for up to `wait`, on a separate connection.
    pub(super) async fn send_blocking(&self, command: &Cmd, wait: Duration) -> RedisResult<Value> {
        let idle = self.idle_readers.lock().expect("no holder panics").pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        connection.set_response_timeout(wait + BLOCK_MARGIN);
        let result = into_result(connection.send_packed_command(command).await);
        if !result.as_ref().is_err_and(spoils_connection) {
            self.idle_readers.lock().expect("no holder panics").push(connection);
        }
        result
    }
}

/// Converts a server error reply into an `Err`. Checks the top level only: entries hold no errors, and a deep check
/// would visit every field.
fn into_result(result: RedisResult<Value>) -> RedisResult<Value> {
    match result? {
        Value::ServerError(error) => Err(RedisError::from(error)),
        value => Ok(value),
    }
}
