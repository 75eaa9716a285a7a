//! `tokenizer_config.json` and related files, which override parts of `tokenizer.json`.

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::LoadError;
use super::architecture::Architecture;
use super::files::{Files, within};
use super::problems::{Problems, is_unset};
use super::sentence::Sentence;

/// Tokenizer classes of transformers whose settings override parts of `tokenizer.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenizerClass {
    /// `BertTokenizer` and similar: the normaliser follows `do_lower_case`, `strip_accents`, `tokenize_chinese_chars`.
    Bert,
    /// `RobertaTokenizer`: the first word follows `add_prefix_space`.
    Roberta,
    /// `tokenizer.json` without overrides.
    #[default]
    Plain,
}

/// The truncation side of overlong texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The last tokens are dropped.
    Right,
    /// The first tokens are dropped.
    Left,
}

/// How `tokenizer.json` is applied.
#[derive(Clone, Debug, Default)]
pub struct TokenizerSettings {
    /// File name, relative to the model's directory.
    pub file: String,
    /// Whether to lower-case before all other normalisation.
    pub lowercase: bool,
    /// The class whose settings override the file.
    pub class: TokenizerClass,
    /// [`TokenizerClass::Bert`]: lower-case, strip accents, split Chinese characters. `None`: as in the file.
    pub bert: Option<BertSettings>,
    /// [`TokenizerClass::Roberta`]: prepend a space to the text. `None`: as in the file.
    pub prefix_space: Option<bool>,
    /// Whether special tokens inside a text are treated as ordinary text.
    pub split_special_tokens: bool,
    /// Truncation side. `None`: as in the file.
    pub truncation_side: Option<Side>,
    /// Tokens recognised inside a text even if `tokenizer.json` does not list them.
    pub special_tokens: Vec<AddedToken>,
    /// The required tokens before and after a text, by name.
    pub around: Option<[String; 2]>,
}

/// The normaliser of BERT's tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BertSettings {
    /// `do_lower_case`.
    pub lowercase: bool,
    /// `strip_accents`; `None`: as `lowercase`.
    pub strip_accents: Option<bool>,
    /// `tokenize_chinese_chars`.
    pub chinese: bool,
}

/// Keys of special tokens in the files of transformers.
const ROLES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Classes implemented in code that `tokenizer.json` does not describe.
const NEED_CODE: [&str; 3] = ["BertJapaneseTokenizer", "PhobertTokenizer", "BertweetTokenizer"];

/// Reads the settings and their maximum text length in tokens.
pub(super) fn read(
    files: &Files,
    folder: &str,
    architecture: &Architecture,
    sentence: &Sentence,
    problems: &mut Problems,
) -> Result<(TokenizerSettings, Option<usize>), LoadError> {
    let file = within(folder, "tokenizer.json");
    if !files.has(&file) {
        let others = ["vocab.txt", "sentencepiece.bpe.model", "tokenizer.model", "vocab.json", "spiece.model"];
        let found = others.into_iter().find(|name| files.has(&within(folder, name)));
        problems.other(match found {
            Some(found) => format!("missing tokenizer.json (found {found}); create it with AutoTokenizer"),
            None => "missing tokenizer.json".to_owned(),
        });
    }
    let name = within(folder, "tokenizer_config.json");
    let config = files.optional::<Map<String, Value>>(&name)?;
    // Without the file nothing overrides tokenizer.json.
    let (config, is_there) = (config.clone().unwrap_or_default(), config.is_some());
    check(&config, &name, problems);

    let text = |key: &str| config.get(key).and_then(Value::as_str);
    let class_name = text("tokenizer_class").or(architecture.tokenizer_class.as_deref());
    if let Some(class) = class_name.filter(|class| NEED_CODE.contains(&class.trim_end_matches("Fast"))) {
        problems.value(&name, "tokenizer_class", &Value::from(class), "classes described by tokenizer.json");
    }
    let class = match (class_name.map(|class| class.trim_end_matches("Fast")), architecture.model_type.as_str()) {
        _ if !is_there => TokenizerClass::Plain,
        (Some("BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer"), _) | (None, "bert") => {
            TokenizerClass::Bert
        }
        (Some("RobertaTokenizer"), _) | (None, "roberta") => TokenizerClass::Roberta,
        _ => TokenizerClass::Plain,
    };
    let flag = |key: &str, default: bool| config.get(key).and_then(Value::as_bool).unwrap_or(default);
    let side = sentence.truncation_side.as_deref().or(text("truncation_side"));
    let side = side.map(|side| match side {
        "left" => Some(Side::Left),
        "right" => Some(Side::Right),
        other => {
            problems.value(&name, "truncation_side", &Value::from(other), "left, right");
            None
        }
    });
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "limits of 1e30 saturate")]
    let limit = config.get("model_max_length").and_then(Value::as_f64).map(|limit| limit as usize);
    let settings = TokenizerSettings {
        file,
        lowercase: sentence.lowercase,
        class,
        bert: (class == TokenizerClass::Bert).then(|| BertSettings {
            lowercase: flag("do_lower_case", true),
            strip_accents: config.get("strip_accents").and_then(Value::as_bool),
            chinese: flag("tokenize_chinese_chars", true),
        }),
        prefix_space: (class == TokenizerClass::Roberta).then(|| flag("add_prefix_space", false)),
        split_special_tokens: flag("split_special_tokens", false),
        truncation_side: side.flatten(),
        special_tokens: special_tokens(files, folder, &config)?,
        around: match class {
            TokenizerClass::Plain => None,
            _ => text_of(&config, "cls_token").zip(text_of(&config, "sep_token")).map(Into::into),
        },
    };
    Ok((settings, limit))
}

/// Rejects settings that change tokens and that only code in transformers applies.
fn check(config: &Map<String, Value>, file: &str, problems: &mut Problems) {
    for key in ["auto_map", "add_bos_token", "add_eos_token"] {
        if let Some(value) = config.get(key).filter(|value| !is_unset(value)) {
            problems.value(file, key, value, "unset");
        }
    }
}

/// Returns the content of a special token: a string, or an object with `content`.
fn text_of(config: &Map<String, Value>, key: &str) -> Option<String> {
    let value = config.get(key)?;
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}

/// Collects the special tokens of all files besides `tokenizer.json`.
fn special_tokens(files: &Files, folder: &str, config: &Map<String, Value>) -> Result<Vec<AddedToken>, LoadError> {
    let mut tokens = Vec::new();
    let mut collect = |table: &Map<String, Value>| {
        for key in ROLES {
            tokens.extend(table.get(key).and_then(token));
        }
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            match table.get(key) {
                Some(Value::Array(list)) => tokens.extend(list.iter().filter_map(token)),
                Some(Value::Object(table)) => tokens.extend(table.values().filter_map(token)),
                _ => {}
            }
        }
        if let Some(Value::Object(decoder)) = table.get("added_tokens_decoder") {
            tokens.extend(decoder.values().filter_map(token));
        }
    };
    collect(config);
    // Legacy files, superseded by the one above.
    if !config.contains_key("added_tokens_decoder") {
        collect(&files.optional(&within(folder, "special_tokens_map.json"))?.unwrap_or_default());
        let added = files.optional::<Map<String, Value>>(&within(folder, "added_tokens.json"))?.unwrap_or_default();
        let special: Vec<String> = tokens.iter().map(|token| token.content.clone()).collect();
        tokens.extend(added.keys().filter(|text| !special.contains(text)).map(|text| AddedToken::from(text, false)));
    }
    Ok(tokens)
}

fn token(value: &Value) -> Option<AddedToken> {
    let content = value.as_str().or_else(|| value.get("content")?.as_str()).filter(|text| !text.is_empty())?;
    let flag = |key: &str, default: bool| value.get(key).and_then(Value::as_bool).unwrap_or(default);
    let special = flag("special", true);
    Some(
        AddedToken::from(content, special)
            .lstrip(flag("lstrip", false))
            .rstrip(flag("rstrip", false))
            .single_word(flag("single_word", false))
            .normalized(flag("normalized", !special)),
    )
}
