//! Servers, proxies and services of one soak.

use std::net::TcpListener;
use std::path::PathBuf;

use tidewheel_local::provision::Provisioner;
use tidewheel_local::stack::{Fsync, Launch, Server, Stack, StackError, StackOptions};
use tidewheel_local::{ServerKind, silent};

use super::documents::{COLLECTIONS, DATABASE, UNDECODABLE};
use super::endpoint::Endpoint;
use super::faults::Link;
use super::service::{Kind, Service};
use super::tally::Tally;
use super::{SoakError, SoakOptions};
use crate::proxy::{Proxy, Weather};

/// Instances of each service. Two producers, so that one can take over; three of the services that share work.
const INSTANCES: [(Kind, usize); 4] =
    [(Kind::Embedder, 1), (Kind::Producer, 2), (Kind::Processor, 3), (Kind::Upserter, 3)];

/// At `info` the services' logs are short; at `debug` they show every action on an entry.
const LOG_LEVEL: &str = "debug";

/// All running processes. Dropping it kills them.
pub(super) struct World {
    pub(super) stack: Stack,
    pub(super) services: Vec<Service>,
    links: Vec<(Link, Proxy)>,
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
        let mut world = Self { stack, services: Vec::new(), links, _endpoint: endpoint };
        let logs = options.folder.join("logs");
        std::fs::create_dir_all(&logs).map_err(SoakError::io(format!("create {}", logs.display())))?;
        let settings = options.folder.join("tidewheel.toml");
        std::fs::write(&settings, world.settings(&embedder))
            .map_err(SoakError::io(format!("write {}", settings.display())))?;
        world.services = INSTANCES
            .iter()
            .flat_map(|(kind, instances)| (1..=*instances).map(move |number| (*kind, number)))
            .map(|(kind, number)| Service::new(kind, number, launch(kind, options, &settings), &logs))
            .collect();
        Ok(world)
    }

    /// Short intervals everywhere, so that claims, timeouts and trimming occur many times within a run.
    fn settings(&self, embedder: &str) -> String {
        format!(
            r#"
            mongodb.uri = "mongodb://{mongodb}/?directConnection=true"
            mongodb.database = "{DATABASE}"
            mongodb.collection = {collections:?}
            redis.url = "redis://{redis}/"
            qdrant.url = "http://{qdrant}"
            qdrant.timeout = "5s"
            embedding.url = "http://{through_proxy}"
            embedding.timeout = "4s"
            embedder.listen = "{embedder}"
            embedder.model = "{model}"
            documents.template = "{{{{ subject }}}}\n{{{{ content }}}}"
            documents.chunk_tokens = 24
            documents.chunk_overlap = 6
            processor.batch = 32
            processor.claim_after = "2s"
            upserter.batch = 48
            upserter.claim_after = "3s"
            streams.retention_age = "5s"
            streams.retention_entries = 200
            log.format = "text"
            log.level = "{LOG_LEVEL}"
            "#,
            mongodb = self.link(Link::MongoDb).address(),
            redis = self.link(Link::Redis).address(),
            qdrant = self.link(Link::Qdrant).address(),
            through_proxy = self.link(Link::Embedder).address(),
            collections = COLLECTIONS.iter().chain([&UNDECODABLE]).collect::<Vec<_>>(),
            model = SoakOptions::MODEL,
        )
    }

    /// The proxy in front of a server.
    pub(super) fn link(&self, link: Link) -> &Proxy {
        let found = self.links.iter().find(|(other, _)| *other == link);
        &found.expect("every link has a proxy").1
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
        self.services.iter().map(|service| (service.name.clone(), service.log.clone())).chain(servers)
    }
}

pub(super) async fn start(service: &Service) -> Result<(), SoakError> {
    service.start().await.map_err(SoakError::io(format!("start {}", service.name)))
}

fn launch(kind: Kind, options: &SoakOptions, settings: &std::path::Path) -> Launch {
    Launch {
        program: options.tidewheel.clone(),
        args: vec!["--config".into(), settings.into(), kind.name().into()],
        envs: vec![("NO_COLOR".into(), "1".into())],
        dir: options.folder.clone(),
    }
}
