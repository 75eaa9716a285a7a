//! The measured pipelines: their commands, and the point id of a document.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use tidewheel_core::identity::{DocumentId, Namespace};
use uuid::Uuid;

use crate::process::Service;
use crate::servers::{COLLECTION, DATABASE, Servers};

/// tidewheel's services, in start order.
pub const SERVICES: [&str; 4] = ["embedder", "producer", "processor", "upserter"];

/// Creates the command of a service, once per round.
type MakeCommand = Box<dyn Fn() -> Command>;

/// A pipeline.
pub struct Side {
    pub name: &'static str,
    commands: Vec<(&'static str, MakeCommand)>,
    point: fn(i32) -> Uuid,
}

impl Side {
    /// Starts the wanted services.
    pub fn start(&self, dir: &Path, wanted: impl Fn(&str) -> bool) -> std::io::Result<Vec<Service>> {
        self.commands
            .iter()
            .filter(|(name, _)| wanted(name))
            .map(|(name, command)| Service::start(name, command(), &dir.join(format!("{}-{name}.log", self.name))))
            .collect()
    }

    /// Returns the point id of the document with this `_id`.
    pub fn point(&self, id: i32) -> Uuid {
        (self.point)(id)
    }
}

/// The model of both sides.
#[derive(Clone, Debug)]
pub enum Model {
    /// Vectors of this dimension without a model.
    None(usize),
    /// The model in this directory.
    Directory(PathBuf),
}

/// tidewheel, one process per service.
pub fn tidewheel(binary: &Path, dir: &Path, servers: &Servers, model: &Model) -> Result<Side, Box<dyn Error>> {
    tidewheel_as("tidewheel", binary, dir, servers, model, &[])
}

/// tidewheel under another name, with additional commands: name and arguments of each. A command with a service's name
/// replaces that service.
pub fn tidewheel_as(
    name: &'static str,
    binary: &Path,
    dir: &Path,
    servers: &Servers,
    model: &Model,
    more: &[(&'static str, Vec<String>)],
) -> Result<Side, Box<dyn Error>> {
    let model = match model {
        Model::None(dimension) => format!("hash:{dimension}"),
        Model::Directory(directory) => directory.display().to_string(),
    };
    let embedder = format!("127.0.0.1:{}", free_port()?);
    let settings = dir.join(format!("{name}.toml"));
    std::fs::write(
        &settings,
        format!(
            "mongodb.uri = \"{}\"\nmongodb.database = \"{DATABASE}\"\nredis.url = \"{}\"\nqdrant.url = \"{}\"\n\
             embedding.url = \"http://{embedder}\"\nembedder.listen = \"{embedder}\"\nembedder.model = \"{model}\"\n",
            servers.mongodb_uri, servers.redis_url, servers.qdrant_grpc_url,
        ),
    )?;
    let command = |(name, arguments): (&'static str, Vec<String>)| {
        let (binary, settings) = (binary.to_owned(), settings.clone());
        let command = move || {
            let mut command = Command::new(&binary);
            command.arg("--config").arg(&settings).args(&arguments).env_remove("RUST_LOG");
            command
        };
        (name, Box::new(command) as MakeCommand)
    };
    let mut commands: Vec<_> = SERVICES.iter().map(|name| (*name, vec![(*name).to_owned()])).collect();
    for (name, arguments) in more {
        match commands.iter_mut().find(|(other, _)| other == name) {
            Some(command) => command.1.clone_from(arguments),
            None => commands.push((*name, arguments.clone())),
        }
    }
    Ok(Side {
        name,
        commands: commands.into_iter().map(command).collect(),
        point: |id| {
            let key = format!(r#"{{"$numberInt":"{id}"}}"#);
            DocumentId::new(&Namespace::new(DATABASE, COLLECTION), &key).point(0)
        },
    })
}

/// The baseline, one process per script.
pub fn baseline(python: &Path, folder: &Path, servers: &Servers, model: &Model) -> Side {
    let mut embedder = match model {
        Model::None(_) => vec!["--null".to_owned()],
        Model::Directory(directory) => vec!["--model".to_owned(), directory.display().to_string()],
    };
    let port = free_port().unwrap_or(8099);
    let variables = vec![
        ("MONGODB_URI", servers.mongodb_uri.clone()),
        ("MONGODB_DATABASE", DATABASE.to_owned()),
        ("MONGODB_COLLECTION", COLLECTION.to_owned()),
        ("REDIS_URL", servers.redis_url.clone()),
        ("EMBEDDING_URL", format!("http://127.0.0.1:{port}/encode")),
        ("QDRANT_URL", servers.qdrant_http_url.clone()),
        ("QDRANT_COLLECTION", "documents".to_owned()),
        ("VECTOR_SIZE", servers.dimension.to_string()),
    ];
    embedder.extend(["--port".to_owned(), port.to_string()]);
    let script = |name: &'static str, file: &'static str, arguments: Vec<String>| {
        let (python, folder, variables) = (python.to_owned(), folder.to_owned(), variables.clone());
        let command = move || {
            let mut command = Command::new(&python);
            command.arg(file).args(&arguments).current_dir(&folder).envs(variables.iter().map(|(k, v)| (k, v)));
            command.env("PYTHONDONTWRITEBYTECODE", "1");
            command
        };
        (name, Box::new(command) as MakeCommand)
    };
    Side {
        name: "baseline",
        commands: vec![
            script("embedder", "embedding_service.py", embedder),
            script("producer", "mongo_producer.py", vec![]),
            script("processor", "embedding_processor.py", vec![]),
            script("upserter", "qdrant_consumer.py", vec![]),
        ],
        point: |id| Uuid::new_v5(&Uuid::NAMESPACE_URL, id.to_string().as_bytes()),
    }
}

/// Returns a Python with the baseline's packages, created once in the cache directory.
pub fn python() -> Result<PathBuf, Box<dyn Error>> {
    let environment = tidewheel_local::provision::default_cache()?.join("bench-python");
    let python = environment.join("bin/python");
    let finished = environment.join("finished");
    if !finished.exists() {
        println!("creating a Python environment for the baseline in {}", environment.display());
        run("python3".as_ref(), &["-m".as_ref(), "venv".as_ref(), environment.as_os_str()])?;
        let packages =
            ["-m", "pip", "install", "--quiet", "pymongo", "redis", "qdrant-client", "requests", "fastapi", "uvicorn"];
        run(&python, &packages.map(AsRef::as_ref))?;
        std::fs::write(finished, "")?;
    }
    Ok(python)
}

fn run(program: &Path, arguments: &[&std::ffi::OsStr]) -> Result<(), Box<dyn Error>> {
    let output = Command::new(program).args(arguments).output()?;
    if !output.status.success() {
        return Err(format!("{}: {}", program.display(), String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(())
}

/// Returns a free port.
pub fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
