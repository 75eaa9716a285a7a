//! `modules.json` and its folders: the modules around the network.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::LoadError;
use super::files::{Files, is_inside, within};
use super::problems::{Problems, is_unset};

/// How token vectors are pooled into the vector of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The mean.
    Mean,
    /// The vector of the first token.
    Cls,
    /// The largest value in each dimension.
    Max,
    /// The sum divided by the square root of the token count.
    MeanSqrtLength,
}

impl Pooling {
    /// Returns the name shown in `/info`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::Max => "max",
            Self::MeanSqrtLength => "mean_sqrt_len",
        }
    }
}

/// The validated content of `modules.json`.
#[derive(Clone, Debug)]
pub(super) struct Modules {
    /// The folder with the network and its tokenizer.
    pub(super) folder: String,
    /// Whether `modules.json` exists.
    pub(super) found: bool,
    pub(super) pooling: Pooling,
    /// Whether prompt tokens are pooled too.
    pub(super) include_prompt: bool,
    /// Dimension of token vectors, if the pooling config has one.
    pub(super) dimension: Option<(String, u64)>,
    pub(super) normalize: bool,
}

#[derive(Deserialize)]
struct RawModule {
    #[serde(default)]
    path: String,
    r#type: String,
}

/// Package prefix of sentence-transformers' modules, current and former.
const OWN: &str = "sentence_transformers.";

pub(super) fn read(files: &Files, problems: &mut Problems) -> Result<Modules, LoadError> {
    // Without the file, sentence-transformers uses mean pooling.
    let mut modules = Modules {
        folder: String::new(),
        found: false,
        pooling: Pooling::Mean,
        include_prompt: true,
        dimension: None,
        normalize: false,
    };
    let Some(list) = files.optional::<Vec<RawModule>>("modules.json")? else { return Ok(modules) };
    modules.found = true;
    let mut pooled = false;
    for (index, module) in list.iter().enumerate() {
        if !is_inside(&module.path) {
            let cause = format!("invalid path {:?}: expected a folder of the model", module.path);
            return Err(LoadError::malformed(&files.path("modules.json"), cause));
        }
        let kind = module.r#type.rsplit('.').next().unwrap_or_default();
        let own = module.r#type.starts_with(OWN);
        match kind {
            "Transformer" if own && index == 0 => modules.folder.clone_from(&module.path),
            "Pooling" if own && index == 1 => {
                pooled = true;
                read_pooling(files, &module.path, &mut modules, problems)?;
            }
            "Normalize" if own && pooled => {
                modules.normalize = true;
                check_normalize(files, &module.path, problems)?;
            }
            _ => problems.other(format!(
                "modules.json has {:?} as module {index} (supported: Transformer, Pooling and Normalize of \
                 sentence-transformers, in this order)",
                module.r#type
            )),
        }
    }
    if !pooled && problems.is_empty() {
        problems.other("modules.json has no Pooling".to_owned());
    }
    Ok(modules)
}

fn read_pooling(files: &Files, folder: &str, modules: &mut Modules, problems: &mut Problems) -> Result<(), LoadError> {
    const SUPPORTED: &str = "one of cls, mean, max, mean_sqrt_len_tokens";
    let name = within(folder, "config.json");
    let config: Map<String, Value> = files.required(&name)?;
    let mut flags = Vec::new();
    for (key, value) in &config {
        match key.as_str() {
            "pooling_mode" => {}
            "embedding_dimension" | "word_embedding_dimension" => {
                modules.dimension = value.as_u64().map(|dimension| (name.clone(), dimension));
            }
            "include_prompt" => modules.include_prompt = value != &Value::Bool(false),
            key => match key.strip_prefix("pooling_mode_") {
                Some(mode) if value == &Value::Bool(true) => flags.push(mode),
                None if !is_unset(value) => problems.value(&name, key, value, "unset"),
                _ => {}
            },
        }
    }
    // As in sentence-transformers: the newer key takes precedence, and the default is the mean.
    let modes: Vec<&str> = match config.get("pooling_mode") {
        Some(Value::String(mode)) => vec![mode],
        Some(Value::Array(modes)) => modes.iter().map(|mode| mode.as_str().unwrap_or("?")).collect(),
        Some(Value::Null) | None if flags.is_empty() => vec!["mean"],
        Some(Value::Null) | None => flags,
        Some(other) => {
            problems.value(&name, "pooling_mode", other, SUPPORTED);
            return Ok(());
        }
    };
    modules.pooling = match modes[..] {
        ["cls_token" | "cls"] => Pooling::Cls,
        ["mean_tokens" | "mean"] => Pooling::Mean,
        ["max_tokens" | "max"] => Pooling::Max,
        ["mean_sqrt_len_tokens" | "mean_sqrt_len"] => Pooling::MeanSqrtLength,
        _ => {
            problems.value(&name, "pooling mode", &Value::from(modes), SUPPORTED);
            Pooling::Mean
        }
    };
    Ok(())
}

/// Rejects `Normalize` configs that name vectors other than the text's.
fn check_normalize(files: &Files, folder: &str, problems: &mut Problems) -> Result<(), LoadError> {
    // In the model's own folder, `config.json` is the network's.
    if within(folder, "config.json") == "config.json" {
        return Ok(());
    }
    let name = within(folder, "config.json");
    let config = files.optional::<Map<String, Value>>(&name)?.unwrap_or_default();
    for (key, value) in &config {
        if !is_unset(value) && value != "sentence_embedding" {
            problems.value(&name, key, value, "sentence_embedding");
        }
    }
    Ok(())
}
