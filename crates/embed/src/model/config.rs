//! The configuration files of a sentence-transformers directory, resolved into one description.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::LoadError;

/// The function between the two halves of the feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · Φ(x)` with the exact normal distribution.
    Gelu,
    /// The tanh approximation of [`Activation::Gelu`], which some models were trained with.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

/// How the vectors of the tokens become the vector of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The vector of the first token.
    Cls,
    /// The largest value in each dimension.
    Max,
    /// Their sum divided by the square root of their number.
    MeanSqrtLength,
}

impl Pooling {
    /// The name that `/info` shows.
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

/// Everything about a model but its weights and its vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The directory it was read from.
    pub directory: PathBuf,
    /// Length of a token's vector, and of the answer.
    pub hidden: usize,
    /// Attention heads. They divide [`Description::hidden`].
    pub heads: usize,
    /// Number of transformer layers.
    pub layers: usize,
    /// Width of the feed-forward layer.
    pub intermediate: usize,
    /// Its activation.
    pub activation: Activation,
    /// Added to the variance in every layer normalisation.
    pub norm_epsilon: f32,
    /// Rows of the word embedding.
    pub vocabulary: usize,
    /// Position of the first token: 0 for BERT, the padding id plus one for the RoBERTa family.
    pub first_position: usize,
    /// The longest text in tokens, special tokens included. What is longer is cut.
    pub max_tokens: usize,
    /// Whether the text is lower-cased before the tokeniser sees it (a setting of old models; most leave it to the
    /// tokeniser).
    pub lowercase: bool,
    /// How tokens become one vector.
    pub pooling: Pooling,
    /// Whether the answer has length one.
    pub normalize: bool,
    /// Texts that the model wants in front of its input, by purpose (`query`, `passage`, …).
    pub prompts: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct RawConfig {
    model_type: Option<String>,
    hidden_size: usize,
    num_attention_heads: usize,
    num_hidden_layers: usize,
    intermediate_size: usize,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default = "bert_epsilon")]
    layer_norm_eps: f32,
    max_position_embeddings: usize,
    position_embedding_type: Option<String>,
    vocab_size: usize,
    pad_token_id: Option<usize>,
}

/// What the transformers library assumes when the file is silent.
fn gelu() -> String {
    "gelu".to_owned()
}

/// Likewise.
fn bert_epsilon() -> f32 {
    1e-12
}

#[derive(Deserialize)]
struct RawModule {
    path: String,
    r#type: String,
}

#[derive(Default, Deserialize)]
struct RawSentenceConfig {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

#[derive(Default, Deserialize)]
struct RawTokenizerConfig {
    // Some models write 1e30 for "no limit".
    model_max_length: Option<f64>,
}

#[derive(Deserialize)]
struct RawPooling {
    #[serde(default)]
    pooling_mode: Option<String>,
    #[serde(flatten)]
    flags: BTreeMap<String, serde_json::Value>,
}

#[derive(Default, Deserialize)]
struct RawPrompts {
    #[serde(default)]
    prompts: BTreeMap<String, String>,
}

impl Description {
    /// Reads and checks the configuration files in `directory`.
    ///
    /// # Errors
    /// A file is missing or malformed, or the model is of a kind that the engine does not compute.
    pub fn read(directory: &Path) -> Result<Self, LoadError> {
        let unsupported = |what: String, known| LoadError::Unsupported { model: directory.to_owned(), what, known };
        let path = directory.join("config.json");
        let config: RawConfig = required(&path)?;

        let model_type = config.model_type.as_deref().unwrap_or("bert");
        let roberta = match model_type {
            "bert" => false,
            "roberta" | "xlm-roberta" => true,
            other => {
                return Err(unsupported(format!("model_type {other:?}"), "it computes bert, roberta and xlm-roberta"));
            }
        };
        let position_type = config.position_embedding_type.as_deref().unwrap_or("absolute");
        if position_type != "absolute" {
            return Err(unsupported(
                format!("position_embedding_type {position_type:?}"),
                "it computes absolute positions",
            ));
        }
        let activation = match config.hidden_act.as_str() {
            "gelu" | "gelu_python" => Activation::Gelu,
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            other => {
                return Err(unsupported(
                    format!("hidden_act {other:?}"),
                    "it computes gelu, gelu_new, gelu_fast, gelu_pytorch_tanh and relu",
                ));
            }
        };
        let sizes = [
            ("hidden_size", config.hidden_size),
            ("num_attention_heads", config.num_attention_heads),
            ("num_hidden_layers", config.num_hidden_layers),
            ("intermediate_size", config.intermediate_size),
            ("vocab_size", config.vocab_size),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(LoadError::malformed(&path, format!("{name} is 0")));
        }
        if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            return Err(LoadError::malformed(
                &path,
                format!("{} heads do not divide hidden_size {}", config.num_attention_heads, config.hidden_size),
            ));
        }
        let first_position = if roberta { config.pad_token_id.unwrap_or(1) + 1 } else { 0 };
        let positions = config.max_position_embeddings.saturating_sub(first_position);

        let sentence: RawSentenceConfig = optional(&directory.join("sentence_bert_config.json"))?.unwrap_or_default();
        let tokenizer: RawTokenizerConfig = optional(&directory.join("tokenizer_config.json"))?.unwrap_or_default();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "limits of 1e30 saturate")]
        let limit = sentence.max_seq_length.or(tokenizer.model_max_length.map(|limit| limit as usize));
        let max_tokens = limit.unwrap_or(positions).min(positions);
        // Two special tokens and one of the text: with less, every text would be the same.
        if max_tokens < 3 {
            return Err(LoadError::malformed(&path, format!("a text may have only {max_tokens} tokens")));
        }

        let (pooling, normalize) = read_modules(directory, config.hidden_size)?;
        let prompts: RawPrompts = optional(&directory.join("config_sentence_transformers.json"))?.unwrap_or_default();
        Ok(Self {
            directory: directory.to_owned(),
            hidden: config.hidden_size,
            heads: config.num_attention_heads,
            layers: config.num_hidden_layers,
            intermediate: config.intermediate_size,
            activation,
            norm_epsilon: config.layer_norm_eps,
            vocabulary: config.vocab_size,
            first_position,
            max_tokens,
            lowercase: sentence.do_lower_case,
            pooling,
            normalize,
            prompts: prompts.prompts,
        })
    }
}

/// What follows the transformer. Without `modules.json` that is mean pooling, as in sentence-transformers.
fn read_modules(directory: &Path, hidden: usize) -> Result<(Pooling, bool), LoadError> {
    let Some(modules) = optional::<Vec<RawModule>>(&directory.join("modules.json"))? else {
        return Ok((Pooling::Mean, false));
    };
    let mut pooling = None;
    let mut normalize = false;
    for (index, module) in modules.iter().enumerate() {
        let kind = module.r#type.rsplit('.').next().unwrap_or_default();
        match kind {
            "Transformer" if index == 0 => {}
            "Pooling" if pooling.is_none() && !normalize => {
                pooling = Some(read_pooling(directory, &directory.join(&module.path).join("config.json"), hidden)?);
            }
            "Normalize" => normalize = true,
            other => {
                return Err(LoadError::Unsupported {
                    model: directory.to_owned(),
                    what: format!("the module {other:?} at place {index} of modules.json"),
                    known: "it computes Transformer, Pooling and Normalize, in this order",
                });
            }
        }
    }
    Ok((pooling.unwrap_or(Pooling::Mean), normalize))
}

fn read_pooling(directory: &Path, path: &Path, hidden: usize) -> Result<Pooling, LoadError> {
    let raw: RawPooling = required(path)?;
    let dimension = raw.flags.get("word_embedding_dimension").and_then(serde_json::Value::as_u64);
    if dimension.is_some_and(|dimension| dimension != hidden as u64) {
        return Err(LoadError::malformed(path, format!("word_embedding_dimension is not hidden_size {hidden}")));
    }
    let mut modes: Vec<&str> = raw
        .flags
        .iter()
        .filter(|(_, value)| value.as_bool() == Some(true))
        .filter_map(|(name, _)| name.strip_prefix("pooling_mode_"))
        .collect();
    modes.extend(raw.pooling_mode.as_deref());
    match modes[..] {
        ["cls_token" | "cls"] => Ok(Pooling::Cls),
        ["mean_tokens" | "mean"] => Ok(Pooling::Mean),
        ["max_tokens" | "max"] => Ok(Pooling::Max),
        ["mean_sqrt_len_tokens" | "mean_sqrt_len"] => Ok(Pooling::MeanSqrtLength),
        _ => Err(LoadError::Unsupported {
            model: directory.to_owned(),
            what: format!("the pooling {modes:?}"),
            known: "it computes one of cls, mean, max and mean_sqrt_len",
        }),
    }
}

fn required<T: DeserializeOwned>(path: &Path) -> Result<T, LoadError> {
    let text = std::fs::read(path).map_err(|cause| LoadError::io(path, cause))?;
    serde_json::from_slice(&text).map_err(|cause| LoadError::malformed(path, cause.to_string()))
}

fn optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, LoadError> {
    match std::fs::read(path) {
        Ok(text) => {
            serde_json::from_slice(&text).map(Some).map_err(|cause| LoadError::malformed(path, cause.to_string()))
        }
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(LoadError::io(path, cause)),
    }
}
