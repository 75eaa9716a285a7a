//! `config.json`: the network's architecture and sizes.

use serde_json::{Map, Value};

use super::LoadError;
use super::files::{Files, within};
use super::problems::{Problems, is_unset};

/// The activation of the feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · Φ(x)` with the exact normal distribution.
    Gelu,
    /// The tanh approximation of [`Activation::Gelu`], which some models were trained with.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

/// Upper bounds for `config.json`. Far above every model of this family, and small enough that products of any three
/// of them stay below 2^63. Memory use is bounded by the tensors, whose sizes are bounded by the file's length.
const LARGEST: [(&str, usize); 6] = [
    ("hidden_size", 1 << 16),
    ("num_attention_heads", 1 << 12),
    ("num_hidden_layers", 1 << 10),
    ("intermediate_size", 1 << 20),
    ("vocab_size", 1 << 24),
    ("max_position_embeddings", 1 << 20),
];

/// Settings that change the computation and must therefore be unset.
const MUST_BE_UNSET: [&str; 8] = [
    "is_decoder",
    "is_encoder_decoder",
    "add_cross_attention",
    "auto_map",
    "pruned_heads",
    "quantization_config",
    "feed_forward_type",
    "lora_adaptations",
];

/// The validated content of `config.json`.
#[derive(Clone, Debug)]
pub(super) struct Architecture {
    pub(super) hidden: usize,
    pub(super) heads: usize,
    pub(super) layers: usize,
    pub(super) intermediate: usize,
    pub(super) activation: Activation,
    pub(super) norm_epsilon: f32,
    pub(super) vocabulary: usize,
    /// Rows of the position embedding.
    pub(super) positions: usize,
    /// RoBERTa family: the padding id, which has its own position.
    pub(super) padding: Option<u32>,
    /// The tokenizer class, used if the tokenizer's own file names none.
    pub(super) tokenizer_class: Option<String>,
    /// The model type.
    pub(super) model_type: String,
}

/// Reads `config.json` in a folder of the model. `None` if the architecture is unsupported; `problems` has the reasons.
pub(super) fn read(
    files: &Files,
    folder: &str,
    has_modules: bool,
    problems: &mut Problems,
) -> Result<Option<Architecture>, LoadError> {
    let name = within(folder, "config.json");
    let config = match files.optional::<Map<String, Value>>(&name)? {
        Some(config) => config,
        None if files.has(&within(folder, "adapter_config.json")) => {
            problems.other(format!("adapter_config.json without {name}: a LoRA adapter without its base model"));
            return Ok(None);
        }
        // The problems found so far already reject the model.
        None if !problems.is_empty() => return Ok(None),
        None => files.required(&name)?,
    };
    let known = check_kind(&config, &name, has_modules, problems);
    if files.has(&within(folder, "adapter_config.json")) {
        problems.other("adapter_config.json is present: a LoRA adapter (supported: merged weights)".to_owned());
    }
    if !known {
        return Ok(None);
    }
    let malformed = |cause: String| LoadError::malformed(&files.path(&name), cause);
    let size = |key: &str| {
        let largest = LARGEST.iter().find(|(name, _)| *name == key).map_or(usize::MAX, |(_, largest)| *largest);
        let value = config.get(key).ok_or_else(|| malformed(format!("missing {key}")))?;
        match value.as_u64().and_then(|value| usize::try_from(value).ok()) {
            Some(size) if (1..=largest).contains(&size) => Ok(size),
            _ => Err(malformed(format!("invalid {key} {value}: expected an integer from 1 to {largest}"))),
        }
    };
    let (hidden, heads, vocabulary) = (size("hidden_size")?, size("num_attention_heads")?, size("vocab_size")?);
    if !hidden.is_multiple_of(heads) {
        return Err(malformed(format!("num_attention_heads {heads} does not divide hidden_size {hidden}")));
    }
    let model_type = model_type(&config).to_owned();
    let padding = match (model_type.as_str(), config.get("pad_token_id")) {
        ("bert", _) => None,
        (_, None | Some(Value::Null)) => Some(1),
        (_, Some(value)) => match value.as_u64().filter(|id| (*id as usize) < vocabulary) {
            Some(id) => u32::try_from(id).ok(),
            None => {
                return Err(malformed(format!("invalid pad_token_id {value}: expected an id below {vocabulary}")));
            }
        },
    };
    Ok(Some(Architecture {
        hidden,
        heads,
        layers: size("num_hidden_layers")?,
        intermediate: size("intermediate_size")?,
        activation: activation(&config, &name, problems),
        norm_epsilon: norm_epsilon(&config).map_err(malformed)?,
        vocabulary,
        positions: size("max_position_embeddings")?,
        padding,
        tokenizer_class: config.get("tokenizer_class").and_then(Value::as_str).map(str::to_owned),
        model_type,
    }))
}

fn model_type(config: &Map<String, Value>) -> &str {
    config.get("model_type").and_then(Value::as_str).unwrap_or("bert")
}

/// Checks the architecture. Returns whether the other settings should be read.
fn check_kind(config: &Map<String, Value>, file: &str, has_modules: bool, problems: &mut Problems) -> bool {
    let model_type = config.get("model_type").filter(|value| !value.is_null());
    if let Some(value) = model_type.filter(|value| !matches!(value.as_str(), Some("bert" | "roberta" | "xlm-roberta")))
    {
        problems.value(file, "model_type", value, "bert, roberta, xlm-roberta");
        return false;
    }
    if let Some(value) = config.get("position_embedding_type").filter(|value| !value.is_null())
        && value != "absolute"
    {
        problems.value(file, "position_embedding_type", value, "absolute");
    }
    for key in MUST_BE_UNSET {
        if let Some(value) = config.get(key).filter(|value| !is_unset(value)) {
            let supported = if key == "auto_map" { "no custom code" } else { "unset" };
            problems.value(file, key, value, supported);
        }
    }
    let names: Vec<&str> = match config.get("architectures") {
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let supported = if has_modules {
        "Bert, Roberta and XLMRoberta"
    } else {
        "BertModel, RobertaModel and XLMRobertaModel without modules.json; others are not embedding models on their own"
    };
    for name in names {
        let class = ["XLMRoberta", "Roberta", "Bert"].iter().find_map(|family| name.strip_prefix(family));
        let good = match class {
            Some("Model") => true,
            Some(head) => has_modules && head.starts_with("For"),
            None => false,
        };
        if !good {
            problems.value(file, "architectures", &Value::from(name), supported);
        }
    }
    true
}

fn activation(config: &Map<String, Value>, file: &str, problems: &mut Problems) -> Activation {
    match config.get("hidden_act").map(|value| (value, value.as_str())) {
        None | Some((_, Some("gelu" | "gelu_python"))) => Activation::Gelu,
        Some((_, Some("gelu_new" | "gelu_fast" | "gelu_pytorch_tanh"))) => Activation::GeluTanh,
        Some((_, Some("relu"))) => Activation::Relu,
        Some((value, _)) => {
            problems.value(file, "hidden_act", value, "gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu");
            Activation::Gelu
        }
    }
}

fn norm_epsilon(config: &Map<String, Value>) -> Result<f32, String> {
    let Some(value) = config.get("layer_norm_eps") else { return Ok(1e-12) };
    let epsilon = value.as_f64().filter(|epsilon| (0.0..1.0).contains(epsilon));
    #[expect(clippy::cast_possible_truncation, reason = "below 1")]
    let epsilon = epsilon.map(|epsilon| epsilon as f32);
    epsilon.ok_or_else(|| format!("invalid layer_norm_eps {value}: expected a number from 0 to 1"))
}
