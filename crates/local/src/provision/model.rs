//! The files of a model: every file that affects a vector, all of one version, and a record of that version.
//!
//! An entry of an older release lacks prompts and tokenizer settings. It has no record, so it is completed: everything
//! is fetched again except weights whose checksum still matches the hub's.

use std::{fs, path::Path, time::Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidewheel_core::model_files::SENTENCE_CONFIGS;

use super::{
    checksum,
    error::ProvisionError,
    hub::{Hub, RemoteFile, RemoteModel},
    model_id::ModelId,
    pins, tool,
};
use crate::{Event, Part, Report};

/// The record of the entry's version; written last.
const RECORD: &str = "tidewheel-model.json";
/// Incremented when a release needs more files.
const FORMAT: u32 = 1;

pub(super) const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Settings of the tokenizer and of an adapter, beside `config.json`, `tokenizer.json` and [`SENTENCE_CONFIGS`].
const SETTINGS: [&str; 4] =
    ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "adapter_config.json"];

/// The version of an entry.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Record {
    format: u32,
    pub(super) id: String,
    /// The requested revision. `None`: the newest at that time.
    requested: Option<String>,
    /// The commit that it resolved to, if the hub reported it. The entry stays at it.
    pub(super) commit: Option<String>,
}

/// Returns the record of a complete entry.
pub(super) fn record(entry: &Path) -> Option<Record> {
    let record: Record = serde_json::from_slice(&fs::read(entry.join(RECORD)).ok()?).ok()?;
    (record.format >= FORMAT).then_some(record)
}

fn write_record(entry: &Path, model: &ModelId, commit: Option<&str>) -> Result<(), ProvisionError> {
    let record = Record {
        format: FORMAT,
        id: model.id.clone(),
        requested: model.revision.clone(),
        commit: commit.map(str::to_owned),
    };
    let path = entry.join(RECORD);
    let json = serde_json::to_vec(&record).map_err(|error| ProvisionError::Io {
        action: "write",
        path: path.clone(),
        source: error.into(),
    })?;
    fs::write(&path, json).map_err(ProvisionError::io("write", path))
}

/// Checks that a directory looks like a model; missing files are reported when it is loaded.
pub(super) fn check(dir: &Path) -> Result<(), ProvisionError> {
    if ["config.json", "modules.json", "adapter_config.json"].iter().any(|name| dir.join(name).is_file()) {
        return Ok(());
    }
    let reason = "missing modules.json and config.json".to_owned();
    Err(ProvisionError::Given { part: Part::MODEL, path: dir.to_owned(), reason })
}

/// Whether all present files of the default model match their pins and no required file is missing. If so, writes the
/// record, so that checksums are not computed at every start.
pub(super) fn adopt_default(entry: &Path) -> bool {
    let good = pins::DEFAULT_MODEL_FILES.iter().all(|file| {
        let path = entry.join(file.name);
        match path.is_file() {
            true => checksum::verify(Part::MODEL, &path, file.sha256).is_ok(),
            false => !file.needed,
        }
    });
    if good {
        let model = ModelId { id: pins::DEFAULT_MODEL.to_owned(), revision: None };
        // If this fails, the next start checks again.
        let _ = write_record(entry, &model, Some(pins::DEFAULT_MODEL_COMMIT));
    }
    good
}

/// Verifies the default model's pinned files and writes the record.
pub(super) fn seal_default(entry: &Path, model: &ModelId) -> Result<(), ProvisionError> {
    for file in pins::DEFAULT_MODEL_FILES {
        checksum::verify(Part::MODEL, &entry.join(file.name), file.sha256)?;
    }
    write_record(entry, model, Some(pins::DEFAULT_MODEL_COMMIT))
}

/// Fetches a model into `entry`. `old` is an earlier entry of the same model whose weights may be reused.
pub(super) async fn download(
    hub: &Hub,
    model: &ModelId,
    entry: &Path,
    old: &Path,
    report: &Report,
) -> Result<(), ProvisionError> {
    let pinned = model.is(pins::DEFAULT_MODEL);
    let asked = match pinned {
        true => ModelId { revision: Some(pins::DEFAULT_MODEL_COMMIT.to_owned()), ..model.clone() },
        false => model.clone(),
    };
    let begun = Instant::now();
    let remote = hub.open(&asked).await?;
    let mut fetch = Fetch { remote, entry, old, pinned, report, announced: false };
    fetch.all().await?;
    if fetch.remote.commit().is_none() {
        report(Event::Warned { part: Part::MODEL, reason: unpinned(&model.id) });
    }
    write_record(entry, model, fetch.remote.commit())?;
    report(Event::Fetched { part: Part::MODEL, took: begun.elapsed() });
    Ok(())
}

/// The warning about a hub that does not report the commit of a branch, such as a mirror without the API.
fn unpinned(id: &str) -> String {
    format!(
        "the hub does not report the commit of {id}, so the model is not pinned: another machine may fetch another version; \
         pin a commit with {id}@COMMIT"
    )
}

struct Fetch<'a> {
    remote: RemoteModel<'a>,
    entry: &'a Path,
    old: &'a Path,
    /// Whether the files must be those of [`pins::DEFAULT_MODEL_FILES`].
    pinned: bool,
    report: &'a Report,
    announced: bool,
}

impl Fetch<'_> {
    async fn all(&mut self) -> Result<(), ProvisionError> {
        self.file("modules.json").await?;
        let folders = folders(&self.entry.join("modules.json"));
        let network = folders.first().cloned().unwrap_or_default();
        let inside = |name: &str| within(&network, name);
        if !self.file(&inside("config.json")).await? && !self.file(&inside("adapter_config.json")).await? {
            return Err(self.remote.failed(format!("missing {}", inside("config.json"))));
        }
        self.file("config_sentence_transformers.json").await?;
        for name in SETTINGS.into_iter().chain(SENTENCE_CONFIGS) {
            self.file(&inside(name)).await?;
        }
        for folder in folders.iter().skip(1).filter(|folder| !folder.is_empty()) {
            self.file(&within(folder, "config.json")).await?;
        }
        if !self.file(&inside("tokenizer.json")).await? {
            return Err(self.remote.failed(format!("missing {}", inside("tokenizer.json"))));
        }
        if self.file(&inside(WEIGHTS)).await? {
            return Ok(());
        }
        if !self.file(&inside(INDEX)).await? {
            return Err(self.remote.failed(format!("missing {}", inside(WEIGHTS))));
        }
        for shard in shards(&self.entry.join(inside(INDEX))) {
            if !self.file(&inside(&shard)).await? {
                return Err(self.remote.failed(format!("missing {shard}, which {INDEX} lists")));
            }
        }
        Ok(())
    }

    /// Fetches one file and verifies it. `false`: the hub does not have it.
    async fn file(&mut self, name: &str) -> Result<bool, ProvisionError> {
        let pin = pins::DEFAULT_MODEL_FILES.iter().find(|file| file.name == name).map(|file| file.sha256);
        if self.pinned && pin.is_none() {
            return Ok(false);
        }
        let Some(file) = self.remote.get(name).await? else { return Ok(false) };
        let is_weights = name.ends_with(".safetensors");
        let sum = pin.filter(|_| self.pinned).map(str::to_owned).or_else(|| file.sha256.clone());
        let path = self.entry.join(name);
        if let Some(sum) = sum.clone().filter(|_| is_weights)
            && self.reuse(name, &path, sum).await
        {
            return Ok(true);
        }
        if is_weights {
            self.announce(&file);
        }
        self.remote.save(file, &path, is_weights.then_some(self.report)).await?;
        if let Some(sum) = sum {
            tool::blocking(move || checksum::verify(Part::MODEL, &path, &sum)).await?;
        }
        Ok(true)
    }

    /// Reuses a file of the old entry, or of the cache of Hugging Face's own tools, if its checksum matches.
    /// Resolves links first: a hard link to a relative link would dangle.
    async fn reuse(&self, name: &str, to: &Path, sum: String) -> bool {
        let sources = [Some(self.old.join(name)), self.remote.blob(&sum)];
        let to = to.to_owned();
        tool::blocking(move || {
            let parent = to.parent().map_or(Ok(()), fs::create_dir_all);
            parent.is_ok()
                && sources.into_iter().flatten().filter_map(|from| fs::canonicalize(from).ok()).any(|from| {
                    checksum::sha256(&from).is_ok_and(|found| found == sum)
                        && (fs::hard_link(&from, &to).is_ok() || fs::copy(&from, &to).is_ok())
                })
        })
        .await
    }

    fn announce(&mut self, file: &RemoteFile) {
        if std::mem::replace(&mut self.announced, true) {
            return;
        }
        let licence = if self.pinned { pins::DEFAULT_MODEL_WHEEL.licence } else { "see the model card" };
        let what = self.remote.name().to_owned();
        let from = "the Hugging Face hub";
        (self.report)(Event::Fetching { part: Part::MODEL, what, from, bytes: file.bytes, licence });
    }
}

/// Returns the folders of the modules, in order; the first has the network. The loader rejects other forms.
fn folders(modules: &Path) -> Vec<String> {
    let Ok(Value::Array(modules)) = fs::read(modules).map(|json| serde_json::from_slice(&json).unwrap_or_default())
    else {
        return Vec::new();
    };
    let folder = |module: &Value| module["path"].as_str().unwrap_or_default().trim_end_matches('/').to_owned();
    modules.iter().map(folder).filter(|folder| is_inside(folder)).collect()
}

/// Returns the files that a weight index lists.
fn shards(index: &Path) -> Vec<String> {
    let index: Value = fs::read(index).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
    let files = index["weight_map"].as_object().into_iter().flat_map(|map| map.values());
    let mut files: Vec<String> = files.filter_map(Value::as_str).map(str::to_owned).collect();
    files.retain(|name| is_inside(name) && !name.contains('/'));
    files.sort_unstable();
    files.dedup();
    files
}

fn within(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Whether a path from a model file stays inside the entry.
fn is_inside(path: &str) -> bool {
    !path.starts_with('/')
        && !path.contains(['\\', '\0', '%'])
        && path.split('/').all(|part| part != ".." && part != ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_model_is_adopted_only_with_pinned_files() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        assert!(!adopt_default(dir.path()), "without any file");
        // The smallest file, and a copy with one number changed.
        let small = dir.path().join("sentence_bert_config.json");
        let pin = pins::DEFAULT_MODEL_FILES.iter().find(|file| file.name == "sentence_bert_config.json");
        let sum = pin.expect("pinned").sha256;
        fs::write(&small, "{\n  \"max_seq_length\": 256,\n  \"do_lower_case\": false\n}")?;
        assert!(checksum::verify(Part::MODEL, &small, sum).is_ok());
        fs::write(&small, "{\n  \"max_seq_length\": 512,\n  \"do_lower_case\": false\n}")?;
        assert!(checksum::verify(Part::MODEL, &small, sum).is_err());
        assert!(!adopt_default(dir.path()) && record(dir.path()).is_none());
        Ok(())
    }

    #[test]
    fn default_model_pins_configuration_and_tokenizer() {
        for name in ["modules.json", "config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS] {
            assert!(pins::DEFAULT_MODEL_FILES.iter().any(|file| file.name == name), "{name}");
        }
    }
}
