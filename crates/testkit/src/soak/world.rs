//! Servers, proxies and services of one soak.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;

use tidewheel_local::provision::Provisioner;
use tidewheel_local::stack::{Fsync, Launch, Server, Stack, StackError, StackOptions};
use tidewheel_local::{ServerKind, silent};

use super::endpoint::Endpoint;
use super::faults::Link;
use super::indexes::Declarations;
use super::service::{Kind, Service};
use super::settings::{Addresses, Settings};
use super::tally::Tally;
use super::{SoakError, SoakOptions};
use crate::proxy::{Proxy, Weather};

/// Instances of each service. Two producers, so that one can take over; three of the services that share work.
const INSTANCES: [(Kind, usize); 4] =
    [(Kind::Embedder, 1), (Kind::Producer, 2), (Kind::Processor, 3), (Kind::Upserter, 3)];

/// All running processes. Dropping it kills them.
pub(super) struct World {
    pub(super) stack: Stack,
    pub(super) services: Vec<Service>,
    links: Vec<(Link, Proxy)>,
    /// The program, without arguments.
    program: Launch,
    /// Settings of the services, which reach the servers through proxies.
    settings: Settings,
    /// Settings of an operator, who reaches the servers directly; `None` without declared indexes.
    direct: Option<Settings>,
    operator_log: PathBuf,
    _endpoint: Endpoint,
}

impl World {
    /// Starts the servers and the proxies; the services are created, but not started.
    pub(super) async fn start(options: &SoakOptions) -> Result<Self, SoakError> {
        let mut wanted = StackOptions::new(options.folder.join("data")).with_free_ports();
        // The soak itself restarts servers.
        wanted.supervise = false;
        wanted.redis_fsync = Fsync::Always;
        let stack = Stack::start(wanted, &Provisioner::new(silent())?, silent()).await?;
        let embedder = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let embedder = embedder.map_err(SoakError::io("find a free port for the embedder"))?.to_string();
        let endpoint = Endpoint::start(embedder.clone()).await.map_err(SoakError::io("start a proxy"))?;
        let local = |port: u16| format!("127.0.0.1:{port}");
        let qdrant = stack.qdrant.as_ref().and_then(Server::grpc_port).ok_or(StackError::NoQdrant)?;
        let mut links = Vec::new();
        for (link, server) in [
            (Link::MongoDb, local(stack.mongod.port())),
            (Link::Redis, local(stack.redis.port())),
            (Link::Qdrant, local(qdrant)),
            (Link::Embedder, endpoint.address().to_string()),
        ] {
            links.push((link, Proxy::start(server).await.map_err(SoakError::io("start a proxy"))?));
        }
        let logs = options.folder.join("logs");
        std::fs::create_dir_all(&logs).map_err(SoakError::io(format!("create {}", logs.display())))?;
        let through = |link| proxy(&links, link).address().to_string();
        let addresses = Addresses {
            mongodb: through(Link::MongoDb),
            redis: through(Link::Redis),
            qdrant: through(Link::Qdrant),
            embedder: through(Link::Embedder),
            listen: embedder,
        };
        let settings = Settings::new(options.folder.join("tidewheel.toml"), &addresses, !options.indexes);
        let (mongodb, redis) = (local(stack.mongod.port()), local(stack.redis.port()));
        let direct = Addresses { mongodb, redis, qdrant: local(qdrant), ..addresses };
        let direct = Settings::new(options.folder.join("operator.toml"), &direct, !options.indexes);
        let program = Launch {
            program: options.tidewheel.clone(),
            args: Vec::new(),
            envs: vec![("NO_COLOR".into(), "1".into())],
            dir: options.folder.clone(),
        };
        let services = INSTANCES
            .iter()
            .flat_map(|(kind, instances)| (1..=*instances).map(move |number| (*kind, number)))
            .map(|(kind, number)| Service::new(kind, number, launch(&program, &settings, [kind.name()]), &logs))
            .collect();
        let (direct, operator_log) = (options.indexes.then_some(direct), logs.join("operator.log"));
        let world = Self { stack, services, links, program, settings, direct, operator_log, _endpoint: endpoint };
        match options.indexes {
            true => world.declare(&Declarations::first())?,
            false => world.settings.write(None)?,
        }
        Ok(world)
    }

    /// Writes the settings with these declarations. Services read them at their next start.
    pub(super) fn declare(&self, declarations: &Declarations) -> Result<(), SoakError> {
        [&self.settings].into_iter().chain(&self.direct).try_for_each(|settings| settings.write(Some(declarations)))
    }

    /// A command of an operator, and the file for its output.
    pub(super) fn command(&self, arguments: &[String], is_through_proxies: bool) -> Result<(Launch, File), SoakError> {
        let settings = self.direct.as_ref().filter(|_| !is_through_proxies).unwrap_or(&self.settings);
        let opened = File::options().create(true).append(true).open(&self.operator_log).and_then(|mut log| {
            writeln!(log, "$ tidewheel {}", arguments.join(" "))?;
            Ok(log)
        });
        let log = opened.map_err(SoakError::io(format!("write {}", self.operator_log.display())))?;
        Ok((launch(&self.program, settings, arguments), log))
    }

    /// The proxy in front of a server.
    pub(super) fn link(&self, link: Link) -> &Proxy {
        proxy(&self.links, link)
    }

    /// A server of the stack.
    pub(super) fn server(&self, kind: ServerKind) -> &Server {
        match kind {
            ServerKind::Mongod => &self.stack.mongod,
            ServerKind::Redis => &self.stack.redis,
            ServerKind::Qdrant => self.stack.qdrant.as_ref().expect("the stack has a Qdrant"),
        }
    }

    /// Starts all services.
    pub(super) async fn start_services(&self) -> Result<(), SoakError> {
        for service in &self.services {
            start(service).await?;
        }
        Ok(())
    }

    /// Restarts a service that exited unexpectedly, and records it.
    pub(super) async fn revive(&self, service: &Service, tally: &Tally) -> Result<(), SoakError> {
        if let Some(how) = service.unexpected_exit().await {
            tally.finding(how);
            start(service).await?;
        }
        Ok(())
    }

    /// Ends all faults and starts all processes.
    pub(super) async fn heal(&self) -> Result<(), SoakError> {
        for (_, proxy) in &self.links {
            proxy.set(Weather::Fair);
        }
        for server in [ServerKind::Mongod, ServerKind::Redis, ServerKind::Qdrant].map(|kind| self.server(kind)) {
            server.resume();
            server.start().await?;
        }
        for service in &self.services {
            service.resume();
            start(service).await?;
        }
        Ok(())
    }

    /// Every log: its name and its file.
    pub(super) fn logs(&self) -> impl Iterator<Item = (String, PathBuf)> {
        let servers = [ServerKind::Mongod, ServerKind::Redis, ServerKind::Qdrant];
        let servers = servers.map(|kind| (kind.to_string(), self.server(kind).log()));
        let operator = self.direct.iter().map(|_| ("operator".to_owned(), self.operator_log.clone()));
        self.services.iter().map(|service| (service.name.clone(), service.log.clone())).chain(servers).chain(operator)
    }
}

pub(super) async fn start(service: &Service) -> Result<(), SoakError> {
    service.start().await.map_err(SoakError::io(format!("start {}", service.name)))
}

fn proxy(links: &[(Link, Proxy)], link: Link) -> &Proxy {
    let found = links.iter().find(|(other, _)| *other == link);
    &found.expect("every link has a proxy").1
}

/// The program with these settings and arguments.
fn launch(program: &Launch, settings: &Settings, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Launch {
    let mut args: Vec<OsString> = vec!["--config".into(), settings.file().into()];
    args.extend(arguments.into_iter().map(Into::<OsString>::into));
    Launch { args, ..program.clone() }
}
