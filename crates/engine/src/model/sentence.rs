//! sentence-transformers settings: maximum length, lower-casing, prompts.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use tidewheel_core::model_files::SENTENCE_CONFIGS;

use super::LoadError;
use super::files::{Files, within};
use super::problems::{Problems, is_unset};

/// The validated content of `sentence_*_config.json`.
#[derive(Clone, Debug, Default)]
pub(super) struct Sentence {
    /// Maximum tokens of a text. Overrides the tokenizer's file.
    pub(super) max_tokens: Option<usize>,
    /// Whether to lower-case text before the tokenizer's own normaliser.
    pub(super) lowercase: bool,
    /// Overrides the tokenizer's file.
    pub(super) truncation_side: Option<String>,
}

pub(super) fn read(files: &Files, folder: &str, problems: &mut Problems) -> Result<Sentence, LoadError> {
    let mut sentence = Sentence::default();
    for name in SENTENCE_CONFIGS {
        let name = within(folder, name);
        let config = files.optional::<Map<String, Value>>(&name)?.unwrap_or_default();
        if config.is_empty() {
            continue;
        }
        let mut limits = [None; 3];
        for (key, value) in &config {
            let mut limit = |at: usize, value: &Value| limits[at] = value.as_u64().or(limits[at]);
            match key.as_str() {
                "max_seq_length" => limit(0, value),
                "do_lower_case" => sentence.lowercase = value == &Value::Bool(true),
                "transformer_task" if value == "feature-extraction" => {}
                "module_output_name" if value == "token_embeddings" => {}
                "modality_config" if is_plain_text(value) => {}
                // Implementation choices that do not change the result.
                "unpad_inputs" | "backend" => {}
                "model_args" | "model_kwargs" => {
                    let harmless = ["torch_dtype", "dtype", "attn_implementation", "trust_remote_code", "device_map"];
                    only(&name, key, value, problems, |inner, _| harmless.contains(&inner));
                }
                "tokenizer_args" | "processor_kwargs" => {
                    only(&name, key, value, problems, |inner, value| match inner {
                        "model_max_length" => {
                            limit(1, value);
                            value.is_u64()
                        }
                        "truncation_side" => {
                            sentence.truncation_side = value.as_str().map(str::to_owned);
                            value.is_string()
                        }
                        "padding_side" | "use_fast" | "trust_remote_code" | "fix_mistral_regex" => true,
                        _ => false,
                    });
                }
                "processing_kwargs" => {
                    for (group, inner) in value.as_object().into_iter().flatten() {
                        let path = format!("processing_kwargs.{group}");
                        only(&name, &path, inner, problems, |inner, value| match (group.as_str(), inner) {
                            ("text", "max_length") => {
                                limit(2, value);
                                value.is_u64()
                            }
                            (_, "truncation") => value == true || value == "longest_first" || value == "only_first",
                            (_, "padding" | "pad_to_multiple_of" | "return_tensors" | "padding_side") => true,
                            ("image" | "audio" | "video", _) => true,
                            _ => false,
                        });
                    }
                }
                key if !is_unset(value) => problems.value(&name, key, value, "unset"),
                _ => {}
            }
        }
        // A call limit overrides the tokenizer's, which overrides the model's.
        let limit = limits[2].or(limits[1]).or(limits[0]);
        sentence.max_tokens = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        break;
    }
    Ok(sentence)
}

/// Reports each set entry of a table that `known` does not accept.
fn only(file: &str, path: &str, table: &Value, problems: &mut Problems, mut known: impl FnMut(&str, &Value) -> bool) {
    match table {
        Value::Object(table) => {
            for (key, value) in table {
                if !known(key, value) && !is_unset(value) {
                    problems.value(file, &format!("{path}.{key}"), value, "unset");
                }
            }
        }
        other if is_unset(other) => {}
        other => problems.value(file, path, other, "a table"),
    }
}

/// Whether the model processes text only, through the network's standard forward call.
fn is_plain_text(value: &Value) -> bool {
    let Some(modalities) = value.as_object() else { return false };
    modalities.iter().all(|(modality, call)| {
        modality == "text" && call["method"] == "forward" && call["method_output_name"] == "last_hidden_state"
    })
}

/// Prompts prepended to embedded texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompts {
    /// Prepended to search queries.
    pub query: String,
    /// Prepended to document texts.
    pub document: String,
}

#[derive(Default, Deserialize)]
struct RawPrompts {
    #[serde(default)]
    prompts: Option<BTreeMap<String, Option<String>>>,
    #[serde(default)]
    model_type: Option<Value>,
}

/// Reads the prompts of `config_sentence_transformers.json`. The document prompt is the first non-empty of `document`,
/// `passage` and `corpus`. The default prompt is ignored, as in `encode_query` and `encode_document`.
pub(super) fn prompts(files: &Files, problems: &mut Problems) -> Result<Prompts, LoadError> {
    const FILE: &str = "config_sentence_transformers.json";
    let raw: RawPrompts = files.optional(FILE)?.unwrap_or_default();
    if let Some(kind) = raw.model_type.filter(|kind| !kind.is_null() && kind != "SentenceTransformer") {
        problems.value(FILE, "model_type", &kind, "SentenceTransformer");
    }
    let known = raw.prompts.unwrap_or_default();
    let first = |names: &[&str]| {
        names.iter().find_map(|name| known.get(*name)?.clone().filter(|text| !text.is_empty())).unwrap_or_default()
    };
    Ok(Prompts { query: first(&["query"]), document: first(&["document", "passage", "corpus"]) })
}
