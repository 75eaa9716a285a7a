//! `tidewheel up`: the local stack and all services in one command.
//!
//! Downloads missing servers, starts them, then starts the services with the servers' addresses. On shutdown the services stop
//! first, so that nothing writes to a stopping server.

mod demo;
mod next;
mod progress;
mod tickets;

use std::path::Path;

use tidewheel_local::ServerKind;
use tidewheel_local::provision::Provisioner;
use tidewheel_local::stack::{ApiKey, QdrantSource, Stack, StackError, StackOptions};
use tokio::net::TcpListener;

use crate::Measurements;
use crate::cli::UpArgs;
use crate::console;
use crate::exit::{Answer, Failure};
use crate::local_data;
use crate::printer::{self, DIM, WARN, styled};
use crate::services::{self, Kind, Services};
use crate::settings::{Listen, Loaded, Settings};
use crate::signals;

/// Default database.
const DATABASE: &str = "demo";

/// Runs until a signal, or with `--exit` until the demo is done.
pub(crate) async fn run(args: &UpArgs, loaded: &Loaded, measurements: Measurements) -> Result<Answer, Failure> {
    if args.demo && loaded.settings.is_declared() {
        return Err(Failure::new("--demo requires the short form of one index")
            .with_hint("run `tidewheel up` without --demo, or with a settings file without [[index]]"));
    }
    let data = local_data::directory(loaded.settings.local.data.as_deref())?;
    printer::message(styled(DIM, format_args!("data: {}", data.display())));
    for (key, server) in [("mongodb.uri", "MongoDB"), ("redis.url", "Redis")] {
        if loaded.is_set(key) {
            let note = format!("{key} has no effect: `up` starts its own {server}; to use yours, run `tidewheel run`");
            printer::message(format_args!("{}: {note}", styled(WARN, "note")));
        }
    }
    let kinds = Kind::of_run(&loaded.settings);
    check_addresses(&loaded.settings, &kinds).await?;
    let key = qdrant_key(&data, &loaded.settings)?;
    let stack = tokio::select! {
        started = start_stack(&data, loaded, key.clone()) => started?,
        () = signals::received() => return Ok(Answer::Fine),
    };
    let ran = run_services(args, loaded, &stack, &kinds, key, measurements).await;
    printer::message(styled(DIM, "stopping the servers"));
    stack.stop().await;
    ran
}

/// The API key of the stack's Qdrant: the user's, or a generated one; `None` if the user provides Qdrant.
fn qdrant_key(data: &Path, settings: &Settings) -> Result<Option<ApiKey>, Failure> {
    if settings.qdrant.url_is_set {
        return Ok(None);
    }
    if let Some(key) = &settings.qdrant.api_key {
        return Ok(Some(ApiKey::new(key.reveal())));
    }
    ApiKey::read_or_create(data).map(Some).map_err(|error| {
        let file = ApiKey::file(data);
        Failure::new(format!("failed to write the API key of Qdrant to {}: {error}", file.display()))
            .with_hint("choose a writable directory with --data")
    })
}

async fn start_stack(data: &Path, loaded: &Loaded, key: Option<ApiKey>) -> Result<Stack, Failure> {
    let settings = &loaded.settings;
    let report = progress::report();
    let provisioner = Provisioner::new(report.clone()).map_err(|error| failure(&error.into()))?;
    let mut options = StackOptions::new(data);
    options.mongodb_port = settings.local.mongodb_port;
    options.redis_port = settings.local.redis_port;
    options.qdrant_http_port = settings.local.qdrant_http_port;
    options.qdrant_grpc_port = settings.local.qdrant_grpc_port;
    options.qdrant_api_key = key;
    if settings.qdrant.url_is_set {
        options.qdrant = QdrantSource::Elsewhere;
    }
    let stack = async { Stack::start(options, &provisioner, report.clone()).await.map_err(|error| failure(&error)) };
    // Downloaded in parallel with the servers; the embedder then finds them in the cache.
    let models = async {
        if !settings.embeds_here() {
            return Ok(());
        }
        services::find_models(settings, report.clone()).await
    };
    let (stack, ()) = tokio::try_join!(stack, models)?;
    Ok(stack)
}

async fn run_services(
    args: &UpArgs,
    loaded: &Loaded,
    stack: &Stack,
    kinds: &[Kind],
    key: Option<ApiKey>,
    measurements: Measurements,
) -> Result<Answer, Failure> {
    let mut settings = loaded.with(&stack_settings(loaded, stack, key.as_ref()))?.settings;
    if settings.console.listen == Listen::Default && TcpListener::bind(console::USUAL).await.is_err() {
        // Another process uses the default address; the console takes any free port.
        settings.console.listen = Listen::At("127.0.0.1:0".to_owned());
    }
    // The key file is printed only for a generated key.
    let key_file = match &loaded.settings.qdrant.api_key {
        Some(_) => None,
        None => key.map(|_| local_data::directory(settings.local.data.as_deref()).map(|data| ApiKey::file(&data))),
    };
    let key_file = key_file.transpose()?;
    let key_file = key_file.as_deref();
    let mut services = Services::start(kinds, &settings, tidewheel_local::silent(), measurements).await?;
    let bound = services.bound;
    next::addresses(&settings, stack, bound, key_file);
    if !args.demo {
        next::commands(&settings, stack, bound, key_file);
    } else {
        let demo = tokio::select! {
            demo = demo::run(&settings) => demo,
            failure = services.a_failure() => Err(failure),
            () = signals::received() => Err(Failure::new("interrupted before the demo finished")),
        };
        if let Err(failure) = demo {
            // The demo's failure takes precedence over a failure to stop.
            let _ = services.stop().await;
            return Err(failure);
        }
        next::commands(&settings, stack, bound, key_file);
        if args.exit {
            services.stop().await?;
            return Ok(Answer::Fine);
        }
    }
    printer::message(styled(DIM, "all services are running; press Ctrl-C to stop, data is kept"));
    services.until_stopped().await?;
    Ok(Answer::Fine)
}

/// Settings overridden by the stack.
fn stack_settings(loaded: &Loaded, stack: &Stack, key: Option<&ApiKey>) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("mongodb.uri_file", String::new()),
        ("mongodb.uri", stack.mongodb_uri()),
        ("redis.url_file", String::new()),
        ("redis.ca_file", String::new()),
        ("redis.cert_file", String::new()),
        ("redis.key_file", String::new()),
        ("redis.url", stack.redis_url()),
    ];
    if let Some(url) = stack.qdrant_grpc_url() {
        settings.push(("qdrant.url", url));
        settings.extend(["qdrant.ca_file", "qdrant.cert_file", "qdrant.key_file"].map(|key| (key, String::new())));
    }
    if let Some(key) = key {
        settings.push(("qdrant.api_key_file", String::new()));
        settings.push(("qdrant.api_key", key.reveal().to_owned()));
    }
    if loaded.settings.mongodb.database.is_none() && !loaded.settings.is_declared() {
        settings.push(("mongodb.database", DATABASE.to_owned()));
    }
    settings
}

/// Fails before any download if an address is in use.
async fn check_addresses(settings: &Settings, kinds: &[Kind]) -> Result<(), Failure> {
    let operations = services::operations_address(settings, kinds);
    let embedder = settings.embeds_here().then(|| settings.embedder.listen.clone());
    let console = match &settings.console.listen {
        Listen::At(address) => Some(address.clone()),
        // Without an explicit address any other port will do.
        Listen::Default | Listen::Off => None,
    };
    for (address, who, flag) in [
        (operations, "the operations server", "--http-port"),
        (embedder, "the embedder", "--embedder-port"),
        (console, "the console", "--console-port"),
    ] {
        if let Some(address) = address {
            TcpListener::bind(&address).await.map_err(|error| {
                Failure::new(format!("failed to bind {address} for {who}: {error}"))
                    .with_hint(format!("stop the process that uses the port, or choose another one with {flag}"))
            })?;
        }
    }
    Ok(())
}

/// The stack's error, with the flag to set as its hint.
fn failure(error: &StackError) -> Failure {
    let hint = match error {
        StackError::PortTaken { server, .. } => {
            let flag = match server {
                ServerKind::Mongod => "--mongodb-port",
                ServerKind::Redis => "--redis-port",
                ServerKind::Qdrant => "--qdrant-http-port or --qdrant-grpc-port",
            };
            format!("stop the process that uses the port, or choose another one with {flag}")
        }
        StackError::Locked { .. } => "stop the other process, or choose another directory with --data".into(),
        other => other.hint(),
    };
    Failure::new(error.to_string()).with_hint(hint)
}
