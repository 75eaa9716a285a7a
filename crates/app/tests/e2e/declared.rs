//! Worlds whose indexes are declared: settings, commands, the catalog, and the oracle of each index.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tidewheel_engine::hash::HashEngine;
use tidewheel_engine::{Engine as _, Text};
use tidewheel_stores::redis::keys::{INDEXES, LEASE};
use tidewheel_testkit::oracle::{Declared, Oracle, OracleOptions, Report};

use super::world::World;

/// Timeout on a machine that runs other tests in parallel.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Dimension of the vectors of the default model, which is not a real one.
const DIMENSION: usize = 64;

/// A command that has ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// The output as one JSON value.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The output as lines of JSON.
    pub fn lines(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        self.out.lines().map(parse).collect()
    }
}

/// A command that runs. Killed when it is dropped.
pub struct Running(Child);

impl Running {
    /// Starts a command whose output nobody reads.
    pub fn start(world: &World, arguments: &[&str]) -> Self {
        let mut command = world.command(arguments);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts"))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl World {
    /// Writes settings with these lines, which declare indexes and embeddings, or are the short form. Several services in
    /// one process listen only where the lines say so.
    pub fn declare(&self, lines: &str) {
        let (stack, embedder) = (&self.stack, &self.embedder);
        let settings = format!(
            r#"
            mongodb.uri = "{}"
            redis.url = "{}"
            qdrant.url = "{}"
            embedder.listen = "{embedder}"
            embedder.model = "hash:{DIMENSION}"
            processor.claim_after = "2s"
            upserter.claim_after = "2s"
            http.listen = "off"
            console.listen = "off"
            {lines}
            "#,
            stack.mongodb_uri(),
            stack.redis_url(),
            stack.qdrant_grpc_url().expect("the stack has a Qdrant"),
        );
        std::fs::write(self.settings(), settings).expect("a writable settings file");
    }

    /// The declaration of an index in the present settings, for its oracle.
    pub fn declared(&self, name: &str) -> Declared {
        let settings = std::fs::read_to_string(self.settings()).expect("a settings file");
        Declared::of(&settings, name).expect("a declaration that the oracle supports")
    }

    /// Waits until what the alias of an index names equals its declaration in the present settings.
    pub async fn equal_index(&self, name: &str) -> Report {
        self.equal_as(&self.declared(name), name, Some(DIMENSION)).await
    }

    /// Waits until a collection or an alias equals a declaration. With a dimension, its vectors are those of the model
    /// `hash` of that dimension.
    pub async fn equal_as(&self, declared: &Declared, collection: &str, dimension: Option<usize>) -> Report {
        let options = OracleOptions {
            mongodb_uri: self.stack.mongodb_uri(),
            database: String::new(),
            collections: Vec::new(),
            qdrant_url: self.stack.qdrant_grpc_url().expect("the stack has a Qdrant"),
            qdrant_api_key: None,
            collection: collection.to_owned(),
        };
        let oracle = Oracle::connect(options).await.expect("valid URLs").with_declaration(declared.clone());
        let oracle = match dimension {
            Some(dimension) => oracle.with_vectors(hash(dimension)),
            None => oracle,
        };
        let name = declared.name();
        match oracle.wait_until_equal(TIMEOUT).await {
            Ok(report) if report.is_equal() => report,
            Ok(report) => self.fail(&format!("{collection} differs from the declaration of index {name}: {report}")),
            Err(error) => self.fail(&format!("failed to compare {collection} with index {name}: {error}")),
        }
    }

    /// Runs a command to its end.
    pub async fn ran(&self, arguments: &[&str]) -> Ran {
        let mut command = self.command(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().expect("the binary starts")).await;
        let output = output.expect("no panic");
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a command that prints JSON and has to end with this code.
    pub async fn answer(&self, arguments: &[&str], code: i32) -> Value {
        let ran = self.ran(&[arguments, &["--output", "json"]].concat()).await;
        if ran.code != code {
            self.fail(&format!("{arguments:?} ended with another code than {code}: {ran:?}"));
        }
        ran.json()
    }

    /// Applies the present settings, and shows every step of it.
    pub async fn apply(&self, more: &[&str]) -> Vec<Value> {
        let ran = self.ran(&[&["apply", "--yes", "--output", "json"], more].concat()).await;
        if ran.code != 0 {
            self.fail(&format!("apply failed: {ran:?}"));
        }
        ran.lines()
    }

    /// An index in the applied catalog; null if it is not there.
    pub async fn index(&self, name: &str) -> Value {
        let json: Option<String> = self.redis(&["HGET", INDEXES, name]).await;
        json.map_or(Value::Null, |json| serde_json::from_str(&json).expect("an index as JSON"))
    }

    /// Waits until the catalog states something about an index.
    pub async fn until_index(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let index = self.index(name).await;
            if holds(&index) {
                return index;
            }
            if begun.elapsed() > TIMEOUT {
                self.fail(&format!("timed out waiting for: {what}; index {name} is {index}"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until these collections exist in Qdrant.
    pub async fn until_collections(&self, what: &str, holds: impl Fn(&[String]) -> bool) {
        let url = format!("{}/collections", self.stack.qdrant_http_url().expect("the stack has a Qdrant"));
        let begun = Instant::now();
        loop {
            let page = super::clients::http().get(&url).send().await.expect("Qdrant answers").text().await;
            let listed: Value = serde_json::from_str(&page.expect("a whole answer")).expect("JSON");
            let listed = listed["result"]["collections"].as_array().expect("a list");
            let names: Vec<String> = listed.iter().filter_map(|one| one["name"].as_str().map(str::to_owned)).collect();
            if holds(&names) {
                return;
            }
            if begun.elapsed() > TIMEOUT {
                self.fail(&format!("timed out waiting for: {what}; the collections are {names:?}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills the producer, and starts another one as if the lease of the first had expired.
    pub async fn replace_producer(&mut self) {
        self.kill("producer");
        self.redis::<u64>(&["DEL", LEASE]).await;
        self.start("producer");
    }
}

/// The generation that an index in the catalog serves.
pub fn serving(index: &Value) -> Option<u64> {
    index["serving"].as_u64()
}

/// The state of a generation in the catalog; empty if there is no such generation.
pub fn state(index: &Value, generation: u32) -> &str {
    index["generations"][generation.to_string()]["state"].as_str().unwrap_or_default()
}

/// The vectors of the model `hash` of this dimension.
fn hash(dimension: usize) -> impl Fn(&str) -> Vec<f32> + Send + Sync + 'static {
    let engine = HashEngine::new(dimension);
    move |text: &str| {
        let mut vector = vec![0.0; dimension];
        engine.embed_one(Text::plain(&engine.tokenize(text).ids), &mut vector);
        vector
    }
}
