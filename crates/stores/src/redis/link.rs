//! Connections to one Redis, replaced when they break.
//!
//! A command that fails for want of a connection is not repeated here: the caller knows whether that is safe. The
//! next command opens a new connection.

use std::sync::Mutex;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, RedisError, RedisResult, ServerErrorKind, Value};

use super::error::spoils_connection;
use super::script::Script;

/// How long opening a connection may take. Over a good network it takes milliseconds; a server that needs longer is
/// better tried again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long an answer may take. The longest script appends 4 MB, which takes tens of milliseconds; a disk that syncs
/// slowly or a fork for a snapshot may hold up Redis for seconds.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);

/// How much longer than its wait a blocking read may take. A client that gives up before Redis does leaves a read
/// behind that swallows the next entry.
const BLOCK_MARGIN: Duration = Duration::from_secs(5);

/// One connection for commands, shared by all callers, and one for each blocking read that is under way.
pub(super) struct Link {
    client: Client,
    config: AsyncConnectionConfig,
    /// The connection for commands with its number, by which a caller names the one that broke.
    commands: tokio::sync::Mutex<(u64, Option<MultiplexedConnection>)>,
    /// Connections of blocking reads that are not in use. A read takes one out, so that a read that is dropped
    /// half-way drops its connection too, and Redis forgets the read.
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
        let result = answer(connection.send_packed_command(command).await);
        if result.as_ref().is_err_and(spoils_connection) {
            let mut commands = self.commands.lock().await;
            if commands.0 == number {
                commands.1 = None;
            }
        }
        result
    }

    /// Runs a script, which is loaded into Redis if it is not there.
    pub(super) async fn run(&self, script: &Script, command: &Cmd) -> RedisResult<Value> {
        match self.send(command).await {
            // Nothing was carried out, so a second try is safe.
            Err(error) if error.kind() == ServerErrorKind::NoScript.into() => {
                self.send(redis::cmd("SCRIPT").arg("LOAD").arg(script.code())).await?;
                self.send(command).await
            }
            result => result,
        }
    }

    /// Runs a script whose answer is large on a connection of its own: on the shared one it would hold up everything behind it.
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

    /// Sends a command that Redis answers within `wait`, on a connection of its own.
    pub(super) async fn send_blocking(&self, command: &Cmd, wait: Duration) -> RedisResult<Value> {
        let idle = self.idle_readers.lock().expect("no holder panics").pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        connection.set_response_timeout(wait + BLOCK_MARGIN);
        let result = answer(connection.send_packed_command(command).await);
        if !result.as_ref().is_err_and(spoils_connection) {
            self.idle_readers.lock().expect("no holder panics").push(connection);
        }
        result
    }
}

/// Turns an error that the server answered into one. Only at the top: entries hold no errors, and looking for them
/// would walk through every field.
fn answer(result: RedisResult<Value>) -> RedisResult<Value> {
    match result? {
        Value::ServerError(error) => Err(RedisError::from(error)),
        value => Ok(value),
    }
}
