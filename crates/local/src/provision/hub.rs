//! One model on the Hugging Face hub, or on a mirror of it.
//!
//! A file's URL is `{endpoint}/{id}/resolve/{revision}/{file}`. Large files redirect to a storage host; the hub's first
//! response has the file's SHA-256 in `x-linked-etag`. Redirects are followed here, one by one, so that the checksum is
//! seen and the user's token never leaves the hub's own host.
//!
//! A branch is resolved to its commit before anything else is fetched, so that all files have the same version. From a
//! mirror without the hub's API the branch itself is requested, and the commit is read from the first file's response.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use reqwest::{Client, Response, StatusCode, Url, header};
use serde::Deserialize;
use tidewheel_core::error::with_causes;
use tokio::io::AsyncWriteExt;

use super::{
    error::ProvisionError,
    model_id::{ModelId, is_commit},
};
use crate::{Event, Part, Report};

const PUBLIC_HUB: &str = "https://huggingface.co";

/// The branch of a model without a revision.
const BRANCH: &str = "main";

/// Short, because other sources follow.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two chunks of a file: tolerates slow connections, not dead ones.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// The hub uses two.
const MOST_REDIRECTS: usize = 5;
/// Between two progress reports.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// A hub's endpoint and token, and the cache of Hugging Face's own tools. Not `Debug`: the token is a secret.
#[derive(Clone)]
pub(super) struct Hub {
    endpoint: String,
    token: Option<String>,
    pub(super) cache: Option<PathBuf>,
}

/// The hub API's response for a revision.
#[derive(Deserialize)]
struct Revision {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Hub {
    /// Reads the variables and files of Hugging Face's own tools: `HF_ENDPOINT`, else the public hub; `HF_TOKEN`, else the
    /// token file of `hf auth login`; `HF_HUB_CACHE`.
    pub(super) fn from_env() -> Self {
        Self::from_variables(|name| env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name| variable(name).filter(|value| !value.trim().is_empty());
        let path = |name| set(name).map(PathBuf::from);
        let caches = path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")));
        let home = path("HF_HOME").or_else(|| Some(caches?.join("huggingface")));
        let within_home = |name: &str| Some(home.as_ref()?.join(name));
        let saved = || fs::read_to_string(path("HF_TOKEN_PATH").or_else(|| within_home("token"))?).ok();
        let token = set("HF_TOKEN").or_else(saved).map(|token| token.trim().to_owned());
        Self {
            cache: path("HF_HUB_CACHE").or_else(|| within_home("hub")),
            ..Self::new(set("HF_ENDPOINT").as_deref().unwrap_or(PUBLIC_HUB), token.filter(|token| !token.is_empty()))
        }
    }

    pub(super) fn new(endpoint: &str, token: Option<String>) -> Self {
        let endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        Self { endpoint, token, cache: None }
    }

    /// Opens a model at a revision, resolved to its commit if the hub supports that.
    pub(super) async fn open(&self, model: &ModelId) -> Result<RemoteModel<'_>, ProvisionError> {
        let failed = |reason: String| self.failed(&model.id, reason);
        let client = tidewheel_http::builder(&self.endpoint)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .build()
            .map_err(|error| failed(with_causes(&error)))?;
        let revision = model.revision.clone().unwrap_or_else(|| BRANCH.to_owned());
        let mut remote = RemoteModel { hub: self, client, id: model.id.clone(), revision, names: None };
        let url = remote.url("api/models/", "/revision/")?;
        let mut request = remote.client.get(url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.map_err(|error| failed(with_causes(&error)))?;
        if response.status() == StatusCode::OK
            && let Ok(found) = response.json::<Revision>().await
            && is_commit(&found.sha)
        {
            remote.revision = found.sha;
            remote.names = Some(found.siblings.into_iter().map(|file| file.rfilename).collect());
        }
        Ok(remote)
    }

    fn failed(&self, id: &str, reason: String) -> ProvisionError {
        ProvisionError::Hub { id: id.to_owned(), endpoint: self.endpoint.clone(), reason }
    }
}

/// A model whose files can be fetched.
pub(super) struct RemoteModel<'a> {
    hub: &'a Hub,
    client: Client,
    id: String,
    /// Its commit, or the branch if the hub does not report the commit.
    revision: String,
    /// Its files, if the hub lists them.
    names: Option<BTreeSet<String>>,
}

impl RemoteModel<'_> {
    /// Returns the commit that is fetched, if known.
    pub(super) fn commit(&self) -> Option<&str> {
        Some(&self.revision[..]).filter(|revision| is_commit(revision))
    }

    /// Returns the model's id.
    pub(super) fn name(&self) -> &str {
        &self.id
    }

    /// Returns where Hugging Face's own tools keep a large file with this SHA-256.
    pub(super) fn blob(&self, sha256: &str) -> Option<PathBuf> {
        let model = format!("models--{}", self.id.replace('/', "--"));
        Some(self.hub.cache.as_ref()?.join(model).join("blobs").join(sha256))
    }

    pub(super) fn failed(&self, reason: String) -> ProvisionError {
        self.hub.failed(&self.id, reason)
    }

    fn url(&self, before: &str, after: &str) -> Result<Url, ProvisionError> {
        // A branch name may contain a slash.
        let revision = self.revision.replace('/', "%2F");
        let text = format!("{}/{before}{}{after}{revision}", self.hub.endpoint, self.id);
        Url::parse(&text).map_err(|error| self.failed(error.to_string()))
    }

    /// Requests one file and follows redirects. `None`: the hub does not have it.
    pub(super) async fn get(&mut self, name: &str) -> Result<Option<RemoteFile>, ProvisionError> {
        if self.names.as_ref().is_some_and(|names| !names.contains(name)) {
            return Ok(None);
        }
        let mut first = self.url("", "/resolve/")?;
        first.set_path(&format!("{}/{name}", first.path()));
        let mut url = first.clone();
        let mut sha256 = None;
        let mut bytes = None;
        for _ in 0..=MOST_REDIRECTS {
            let mut request = self.client.get(url.clone());
            if let Some(token) = self.hub.token.as_deref().filter(|_| url.origin() == first.origin()) {
                request = request.bearer_auth(token);
            }
            let response = request.send().await.map_err(|error| self.failed(with_causes(&error)))?;
            let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
            sha256 = sha256.or_else(|| text("x-linked-etag").and_then(as_sha256));
            bytes = bytes.or_else(|| text("x-linked-size").and_then(|size| size.parse().ok()));
            // Pins the version of all further files.
            if let Some(commit) = text("x-repo-commit").filter(|commit| is_commit(commit)) {
                self.revision = commit.to_owned();
            }
            let status = response.status();
            if status.is_redirection() {
                url = text(header::LOCATION.as_str())
                    .and_then(|location| url.join(location).ok())
                    .ok_or_else(|| self.failed(format!("{name}: redirect without Location header")))?;
                continue;
            }
            return match status {
                StatusCode::OK => {
                    bytes = bytes.or(response.content_length());
                    Ok(Some(RemoteFile { response, sha256, bytes }))
                }
                StatusCode::NOT_FOUND => Ok(None),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    Err(self.failed(format!("{name}: {status}: not found, or a token is required")))
                }
                _ => Err(self.failed(format!("{name}: {status}"))),
            };
        }
        Err(self.failed(format!("{name}: too many redirects")))
    }

    /// Writes a file's content and reports progress to `report`, if set.
    pub(super) async fn save(
        &self,
        mut file: RemoteFile,
        path: &Path,
        report: Option<&Report>,
    ) -> Result<(), ProvisionError> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(ProvisionError::io("create", parent))?;
        }
        let mut out = tokio::fs::File::create(path).await.map_err(ProvisionError::io("write", path))?;
        let mut done = 0;
        let mut last = Instant::now();
        while let Some(piece) = file.response.chunk().await.map_err(|error| self.failed(with_causes(&error)))? {
            out.write_all(&piece).await.map_err(ProvisionError::io("write", path))?;
            done += piece.len() as u64;
            if let Some(report) = report.filter(|_| last.elapsed() >= PROGRESS_INTERVAL) {
                last = Instant::now();
                report(Event::Progress { part: Part::MODEL, done, total: file.bytes });
            }
        }
        out.flush().await.map_err(ProvisionError::io("write", path))
    }
}

/// A file whose body has not been read yet.
pub(super) struct RemoteFile {
    response: Response,
    /// Sent by the hub for large files.
    pub(super) sha256: Option<String>,
    pub(super) bytes: Option<u64>,
}

/// Returns the SHA-256 of `x-linked-etag`: the header has one for large files and another hash for small ones.
fn as_sha256(etag: &str) -> Option<String> {
    let sum = etag.trim_start_matches("W/").trim_matches('"');
    (sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| sum.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::{Hub, as_sha256};

    #[test]
    fn hub_reads_variables_and_files_of_hugging_face() -> std::io::Result<()> {
        let home = tempfile::tempdir()?;
        let path = home.path().display().to_string();
        std::fs::write(home.path().join("token"), "saved\n")?;
        let hub = |variables: &[(&str, &str)]| {
            let found =
                |name: &str| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
            Hub::from_variables(found)
        };
        let saved = hub(&[("HF_HOME", &path), ("HF_TOKEN", " ")]);
        assert_eq!(saved.token.as_deref(), Some("saved"));
        assert_eq!(saved.cache.as_deref(), Some(&*home.path().join("hub")));
        assert_eq!(saved.endpoint, super::PUBLIC_HUB);
        let set = hub(&[("HF_HOME", &path), ("HF_TOKEN", "set"), ("HF_ENDPOINT", "https://mirror.example/")]);
        assert_eq!((set.token.as_deref(), &set.endpoint[..]), (Some("set"), "https://mirror.example"));
        let none = hub(&[("HOME", "/nobody"), ("HF_HUB_CACHE", "/elsewhere")]);
        assert_eq!((none.token.as_deref(), none.cache.as_deref()), (None, Some(std::path::Path::new("/elsewhere"))));
        Ok(())
    }

    #[test]
    fn as_sha256_ignores_other_hashes() {
        let sum = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db";
        assert_eq!(as_sha256(&format!("\"{sum}\"")).as_deref(), Some(sum));
        assert_eq!(as_sha256("\"59d594003bf59880a884c574bf88ef7555bb0202\""), None);
    }
}
