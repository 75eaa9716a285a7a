//! Every setting of a model's directory is honoured or rejected by name.
//!
//! Expected vectors of honoured settings were computed by sentence-transformers: see `data/settings.py`.

#[expect(dead_code, reason = "reference vectors are used by other tests")]
#[path = "support/madeup.rs"]
mod madeup;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use madeup::Madeup;
use proptest::prelude::*;
use serde_json::{Value, json};
use tidewheel_engine::model::LoadError;
use tidewheel_engine::tokens::Encoding;
use tidewheel_engine::{Engine, Kernel, ModelSource, ModelSpec, Precision, Text, load};

/// The base model, whose settings the cases change.
const PLAIN: Madeup = Madeup::SMALL;

fn open(directory: &Path) -> Result<Arc<dyn Engine>, LoadError> {
    let mut spec = ModelSpec::new(ModelSource::Directory(directory.to_owned()));
    spec.kernel = Some(Kernel::Portable);
    spec.precision = Precision::F32;
    spec.threads = 2;
    load(&spec)
}

/// Sets keys in a file, creating it if missing. `null` is set as a value.
fn set(directory: &Path, file: &str, keys: &Value) {
    let path = directory.join(file);
    let mut content: Value =
        std::fs::read(&path).map_or_else(|_| json!({}), |text| serde_json::from_slice(&text).unwrap());
    for (key, value) in keys.as_object().unwrap() {
        match content.pointer_mut(key) {
            Some(place) if key.starts_with('/') => *place = value.clone(),
            _ => content[key] = value.clone(),
        }
    }
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, serde_json::to_vec(&content).unwrap()).unwrap();
}

/// Writes the model as sentence-transformers and transformers do: with tokenizer settings.
fn write(model: &Madeup, directory: &Path) {
    model.write(directory);
    let special = |id: u32, text: &str| json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let added = json!([special(0, "[PAD]"), special(1, "[UNK]"), special(2, "[CLS]"), special(3, "[SEP]")]);
    set(directory, "tokenizer.json", &json!({"added_tokens": added}));
    let tokens = json!({"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": null,
        "tokenizer_class": "BertTokenizer", "do_lower_case": true, "strip_accents": null, "tokenize_chinese_chars": true, "model_max_length": 24});
    set(directory, "tokenizer_config.json", &tokens);
}

/// A case: name, base model, and change.
type Case = (&'static str, &'static str, fn(&Path));

/// Each honoured setting, on the plain BERT or a RoBERTa-family model.
fn honoured() -> Vec<Case> {
    vec![
        ("plain", "bert", |_| {}),
        ("include_prompt", "bert", |dir| {
            set(dir, "1_Pooling/config.json", &json!({"include_prompt": false}));
            prompts(dir, &json!({"query": "the wheel: ", "document": "a mill "}));
        }),
        ("include_prompt_cls", "bert", |dir| {
            let flags =
                json!({"include_prompt": false, "pooling_mode_mean_tokens": false, "pooling_mode_cls_token": true});
            set(dir, "1_Pooling/config.json", &flags);
            prompts(dir, &json!({"query": "the wheel: ", "document": "a mill "}));
        }),
        ("document_before_passage", "bert", |dir| {
            prompts(dir, &json!({"query": "turn ", "passage": "mill ", "document": "tide "}));
        }),
        ("null_prompts", "bert", |dir| prompts(dir, &json!({"query": null, "document": null, "corpus": "tide "}))),
        ("lower_case_of_a_cased_model", "bert", |dir| {
            cased(dir);
            set(dir, "tokenizer_config.json", &json!({"do_lower_case": false}));
            set(dir, "sentence_bert_config.json", &json!({"max_seq_length": 20, "do_lower_case": true}));
        }),
        ("cased", "bert", |dir| {
            cased(dir);
            set(dir, "tokenizer_config.json", &json!({"do_lower_case": false}));
        }),
        ("tokenizer_config_lowers_what_tokenizer_json_does_not", "bert", cased),
        ("truncation_left", "bert", |dir| set(dir, "tokenizer_config.json", &json!({"truncation_side": "left"}))),
        ("old_sentence_config", "bert", |dir| {
            set(dir, "sentence_xlm-roberta_config.json", &json!({"max_seq_length": 9}));
        }),
        ("processing_kwargs", "bert", |dir| {
            set(dir, "sentence_bert_config.json", &json!({"processing_kwargs": {"text": {"max_length": 8}}}));
        }),
        ("tokenizer_args", "bert", |dir| {
            set(dir, "sentence_bert_config.json", &json!({"tokenizer_args": {"model_max_length": 7}}));
        }),
        ("special_tokens_map", "bert", |dir| {
            set(dir, "tokenizer.json", &json!({"added_tokens": []}));
            let tokens =
                json!({"cls_token": {"content": "[CLS]", "lstrip": false}, "sep_token": "[SEP]", "pad_token": "[PAD]"});
            set(dir, "special_tokens_map.json", &tokens);
        }),
        ("split_special_tokens", "bert", |dir| {
            set(dir, "tokenizer_config.json", &json!({"split_special_tokens": true}));
        }),
        ("added_token_with_a_space", "bert", |dir| {
            let token = json!({"id": 8, "content": "mill wheel", "single_word": false, "lstrip": false, "rstrip": false, "normalized": true, "special": false});
            let text = std::fs::read_to_string(dir.join("tokenizer.json")).unwrap();
            let mut tokenizer: Value = serde_json::from_str(&text).unwrap();
            tokenizer["added_tokens"].as_array_mut().unwrap().push(token);
            // Replaces a word that no test text contains.
            let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
            vocabulary.remove("wheel");
            vocabulary.insert("mill wheel".to_owned(), json!(8));
            std::fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
        }),
        ("network_in_a_folder", "bert", |dir| {
            std::fs::create_dir(dir.join("0_Transformer")).unwrap();
            for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
                std::fs::rename(dir.join(name), dir.join("0_Transformer").join(name)).unwrap();
            }
            set(dir, "modules.json", &json!({"/0/path": "0_Transformer"}));
        }),
        ("shards", "bert", shard),
        ("padding_in_a_text", "xlm-roberta", |dir| {
            set(dir, "tokenizer_config.json", &json!({"tokenizer_class": "PreTrainedTokenizerFast"}));
            set(dir, "config.json", &json!({"pad_token_id": 0}));
        }),
    ]
}

fn prompts(dir: &Path, prompts: &Value) {
    set(dir, "config_sentence_transformers.json", &json!({"prompts": prompts, "default_prompt_name": null}));
}

/// Makes the tokenizer's own file keep upper case.
fn cased(dir: &Path) {
    set(dir, "tokenizer.json", &json!({"/normalizer/lowercase": false}));
}

/// Splits the weights into two files.
fn shard(dir: &Path) {
    let path = dir.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let length = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let mut weight_map = BTreeMap::new();
    for (number, file) in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"].iter().enumerate() {
        let (mut own, mut data) = (serde_json::Map::new(), Vec::new());
        for (name, tensor) in header.iter().enumerate().filter(|(at, _)| at % 2 == number).map(|(_, entry)| entry) {
            let at = |place: usize| usize::try_from(tensor["data_offsets"][place].as_u64().unwrap()).unwrap();
            let begin = data.len();
            data.extend(&bytes[8 + length..][at(0)..at(1)]);
            let mut tensor = tensor.clone();
            tensor["data_offsets"] = json!([begin, data.len()]);
            own.insert(name.clone(), tensor);
            weight_map.insert(name.clone(), json!(file));
        }
        let own = serde_json::to_vec(&own).unwrap();
        std::fs::write(dir.join(file), [&(own.len() as u64).to_le_bytes()[..], &own, &data].concat()).unwrap();
    }
    std::fs::remove_file(path).unwrap();
    set(dir, "model.safetensors.index.json", &json!({"metadata": {}, "weight_map": weight_map}));
}

/// Texts on which the settings differ.
fn texts() -> Vec<String> {
    let long = "the tides turn the mill wheel and grind . a miller s mills ".repeat(6);
    [
        "",
        "The tides turn.",
        "the TIDE turns THE Wheel",
        "a [SEP] b [CLS] the [PAD] tide [PAD] [PAD] turn",
        "the mill wheel and the mill  wheel",
        "ΣΑΣ tidé 水 the",
        &long,
    ]
    .map(str::to_owned)
    .into()
}

fn written(kind: &'static str, change: fn(&Path)) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    write(&Madeup { kind, ..PLAIN }, directory.path());
    change(directory.path());
    directory
}

/// Embeds as the service does: with a prefix, some tokens of which may be excluded from pooling.
fn embed(engine: &dyn Engine, prefix: &str, text: &str) -> Vec<f32> {
    let encoding = Encoding { unpooled: engine.unpooled(prefix), ..engine.tokenize(&format!("{prefix}{text}")) };
    let mut vector = vec![0.0; engine.info().dimension];
    engine.embed_one(encoding.text(), &mut vector);
    vector
}

#[test]
fn honoured_settings_match_sentence_transformers() {
    let reference: BTreeMap<String, BTreeMap<String, Vec<Vec<f64>>>> =
        serde_json::from_str(include_str!("data/settings_vectors.json")).unwrap();
    for (name, kind, change) in honoured() {
        let directory = written(kind, change);
        let engine = open(directory.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let info = engine.info();
        for (purpose, prefix) in [("documents", &info.passage_prefix), ("queries", &info.query_prefix)] {
            let expected = &reference.get(name).unwrap_or_else(|| panic!("{name}: missing reference"))[purpose];
            assert_eq!(expected.len(), texts().len());
            for (text, expected) in texts().iter().zip(expected) {
                let vector = embed(&*engine, prefix, text);
                for (value, expected) in vector.iter().zip(expected) {
                    assert!(
                        (f64::from(*value) - expected).abs() < 1e-4,
                        "{name}, {purpose}, {text:.40?}: {vector:?}, not {expected:?}"
                    );
                }
            }
        }
    }
}

/// Writes the directories for `data/settings.py` to `MODEL_SETTINGS_OUT`.
#[test]
#[ignore = "writes the models for the sentence-transformers reference"]
fn write_models_for_the_reference() {
    let to = std::path::PathBuf::from(std::env::var_os("MODEL_SETTINGS_OUT").expect("MODEL_SETTINGS_OUT"));
    for (name, kind, change) in honoured() {
        let directory = to.join(name);
        std::fs::create_dir_all(&directory).unwrap();
        write(&Madeup { kind, ..PLAIN }, &directory);
        change(&directory);
    }
    std::fs::write(to.join("texts.json"), serde_json::to_vec(&texts()).unwrap()).unwrap();
}

#[test]
fn settings_that_change_vectors_change_revision() {
    let revision = |name: &str| {
        let (_, kind, change) = honoured().into_iter().find(|(found, ..)| *found == name).unwrap();
        open(written(kind, change).path()).unwrap().info().revision.clone()
    };
    let plain = revision("plain");
    assert_eq!(plain.len(), 16, "revision without suffix: {plain}");
    assert_eq!(revision("truncation_left"), format!("{plain}+cut-left"));
    assert_eq!(revision("include_prompt"), format!("{plain}+prompt-not-pooled"));
    let name = "tokenizer_config_lowers_what_tokenizer_json_does_not";
    assert_eq!(revision(name), format!("{plain}+tokenizer-config"));
}

/// A rejected setting: file, keys, and parts of the message.
type Rejection = (&'static str, Value, &'static [&'static str]);

fn rejected() -> Vec<Rejection> {
    vec![
        ("config.json", json!({"model_type": "mpnet"}), &["config.json has model_type \"mpnet\"", "bert, roberta"]),
        // An unsupported architecture takes precedence over missing sizes.
        ("config.json", json!({"model_type": "distilbert", "hidden_size": null}), &["model_type \"distilbert\""]),
        ("config.json", json!({"model_type": "nomic_bert", "vocab_size": null}), &["model_type \"nomic_bert\""]),
        ("config.json", json!({"hidden_act": "silu"}), &["hidden_act \"silu\""]),
        (
            "config.json",
            json!({"position_embedding_type": "relative_key"}),
            &["position_embedding_type \"relative_key\""],
        ),
        ("config.json", json!({"is_decoder": true}), &["is_decoder true"]),
        ("config.json", json!({"add_cross_attention": true}), &["add_cross_attention true"]),
        ("config.json", json!({"auto_map": {"AutoModel": "modeling.Mine"}}), &["auto_map", "modeling.Mine"]),
        ("config.json", json!({"pruned_heads": {"0": [1]}}), &["pruned_heads"]),
        ("config.json", json!({"quantization_config": {"bits": 4}}), &["quantization_config"]),
        ("config.json", json!({"architectures": ["MyBertModel"]}), &["architectures \"MyBertModel\""]),
        ("config.json", json!({"hidden_size": 13}), &["num_attention_heads 2 does not divide hidden_size 13"]),
        ("config.json", json!({"hidden_size": -12}), &["invalid hidden_size -12"]),
        ("config.json", json!({"num_hidden_layers": 3}), &["missing tensor", "encoder.layer.2"]),
        ("config.json", json!({"vocab_size": 17}), &["has shape [16, 12], config.json requires [17, 12]"]),
        ("config.json", json!({"intermediate_size": 21}), &["has shape [20, 12]"]),
        ("config.json", json!({"max_position_embeddings": 25}), &["has shape [24, 12]"]),
        ("config.json", json!({"layer_norm_eps": 2}), &["invalid layer_norm_eps 2"]),
        ("adapter_config.json", json!({"peft_type": "LORA"}), &["adapter_config.json", "LoRA"]),
        ("modules.json", json!({"/0/type": "custom_st.Transformer"}), &["\"custom_st.Transformer\" as module 0"]),
        ("modules.json", json!({"/0/type": "sentence_transformers.models.StaticEmbedding"}), &["StaticEmbedding"]),
        ("modules.json", json!({"/0/type": "sentence_transformers.base.modules.router.Router"}), &["router.Router"]),
        ("modules.json", json!({"/1/type": "sentence_transformers.models.LSTM"}), &["models.LSTM\" as module 1"]),
        ("modules.json", json!({"/2/type": "sentence_transformers.models.Dense"}), &["models.Dense\" as module 2"]),
        ("modules.json", json!({"/1/path": "../elsewhere"}), &["invalid path \"../elsewhere\""]),
        ("1_Pooling/config.json", json!({"pooling_mode_cls_token": true}), &["[\"cls_token\",\"mean_tokens\"]"]),
        ("1_Pooling/config.json", json!({"pooling_mode": "lasttoken"}), &["[\"lasttoken\"]"]),
        ("1_Pooling/config.json", json!({"pooling_mode": ["cls", "mean"]}), &["[\"cls\",\"mean\"]"]),
        (
            "1_Pooling/config.json",
            json!({"word_embedding_dimension": 13}),
            &["dimension 13 does not match hidden_size 12"],
        ),
        (
            "2_Normalize/config.json",
            json!({"module_input_name": "token_embeddings"}),
            &["module_input_name \"token_embeddings\""],
        ),
        ("sentence_bert_config.json", json!({"transformer_task": "fill-mask"}), &["transformer_task \"fill-mask\""]),
        ("sentence_bert_config.json", json!({"config_kwargs": {"num_hidden_layers": 1}}), &["config_kwargs"]),
        ("sentence_bert_config.json", json!({"model_args": {"rope": 1}}), &["model_args.rope 1"]),
        (
            "sentence_bert_config.json",
            json!({"processor_kwargs": {"do_lower_case": true}}),
            &["processor_kwargs.do_lower_case"],
        ),
        (
            "sentence_bert_config.json",
            json!({"processing_kwargs": {"text": {"add_special_tokens": false, "truncation": "only_second"}}}),
            &["processing_kwargs.text.truncation \"only_second\""],
        ),
        ("sentence_bert_config.json", json!({"query_length": 32}), &["query_length 32"]),
        ("sentence_bert_config.json", json!({"modality_config": {"message": {}}}), &["modality_config"]),
        ("sentence_bert_config.json", json!({"max_seq_length": 2}), &["limit of 2 tokens"]),
        (
            "config_sentence_transformers.json",
            json!({"model_type": "SparseEncoder"}),
            &["model_type \"SparseEncoder\""],
        ),
        ("tokenizer_config.json", json!({"auto_map": {"AutoTokenizer": ["x", null]}}), &["auto_map"]),
        ("tokenizer_config.json", json!({"add_eos_token": true}), &["add_eos_token true"]),
        ("tokenizer_config.json", json!({"tokenizer_class": "BertJapaneseTokenizer"}), &["BertJapaneseTokenizer"]),
        ("tokenizer_config.json", json!({"truncation_side": "middle"}), &["truncation_side \"middle\""]),
        ("tokenizer_config.json", json!({"cls_token": "[PAD]"}), &["cls_token \"[PAD]\"", "tokenizer.json"]),
        ("tokenizer.json", json!({"/model/type": "Nonsense"}), &["invalid", "tokenizer.json"]),
        ("tokenizer.json", json!({"/model/unk_token": "[NONE]"}), &["cannot encode every text"]),
    ]
}

#[test]
fn rejected_settings_error_names_setting() {
    for (file, keys, words) in rejected() {
        let directory = tempfile::tempdir().unwrap();
        write(&PLAIN, directory.path());
        set(directory.path(), file, &keys);
        let error = open(directory.path()).err().unwrap_or_else(|| panic!("{file} {keys} accepted"));
        let message = error.to_string();
        for word in words {
            assert!(message.contains(word), "{file} {keys}: {message}");
        }
    }
}

#[test]
fn unsupported_settings_error_names_all_settings() {
    let directory = tempfile::tempdir().unwrap();
    write(&PLAIN, directory.path());
    set(directory.path(), "config.json", &json!({"is_decoder": true, "hidden_act": "silu"}));
    set(directory.path(), "modules.json", &json!({"/2/type": "sentence_transformers.models.Dense"}));
    std::fs::rename(directory.path().join("model.safetensors"), directory.path().join("pytorch_model.bin")).unwrap();
    let message = open(directory.path()).err().unwrap().to_string();
    for word in ["is_decoder", "silu", "Dense", "pytorch_model.bin"] {
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn non_embedding_models_without_modules_are_rejected() {
    for architecture in ["BertForSequenceClassification", "BertForMaskedLM", "XLMRobertaForSequenceClassification"] {
        let directory = tempfile::tempdir().unwrap();
        write(&PLAIN, directory.path());
        set(directory.path(), "config.json", &json!({"architectures": [architecture]}));
        assert!(open(directory.path()).is_ok(), "{architecture} with modules.json");
        std::fs::remove_file(directory.path().join("modules.json")).unwrap();
        let message = open(directory.path()).err().expect(architecture).to_string();
        assert!(message.contains(architecture), "{message}");
    }
}

#[test]
fn missing_and_damaged_files_error_names_file() {
    for (missing, word) in [
        ("config.json", "config.json"),
        ("tokenizer.json", "missing tokenizer.json"),
        ("model.safetensors", "missing model.safetensors"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        write(&PLAIN, directory.path());
        std::fs::remove_file(directory.path().join(missing)).unwrap();
        let message = open(directory.path()).err().unwrap().to_string();
        assert!(message.contains(word), "{message}");
    }
    let directory = tempfile::tempdir().unwrap();
    write(&PLAIN, directory.path());
    let path = directory.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let message = open(directory.path()).err().unwrap().to_string();
    assert!(message.contains("header describes"), "{message}");
    // An index with paths outside the directory.
    std::fs::remove_file(&path).unwrap();
    for file in ["../model.safetensors", "/etc/passwd", "a/b.safetensors"] {
        set(directory.path(), "model.safetensors.index.json", &json!({"weight_map": {"a": file}}));
        let message = open(directory.path()).err().unwrap().to_string();
        assert!(message.contains("invalid file name"), "{message}");
    }
}

/// Sizes far beyond the tensors: wrapping arithmetic would allocate small buffers for them.
#[test]
fn huge_sizes_are_rejected() {
    for key in [
        "max_position_embeddings",
        "hidden_size",
        "num_attention_heads",
        "num_hidden_layers",
        "intermediate_size",
        "vocab_size",
    ] {
        for size in [1_u64 << 62, (1 << 62) + 24, u64::MAX, 1 << 32, (1 << 32) + 24, 1 << 20, 1 << 16, 0] {
            for max_tokens in [None, Some(24), Some(1_u64 << 62)] {
                let directory = tempfile::tempdir().unwrap();
                write(&PLAIN, directory.path());
                set(directory.path(), "config.json", &json!({key: size}));
                if let Some(limit) = max_tokens {
                    set(directory.path(), "sentence_bert_config.json", &json!({"max_seq_length": limit}));
                }
                let message = open(directory.path()).err().unwrap_or_else(|| panic!("{key} {size}")).to_string();
                assert!(message.contains(key) || message.contains("tensor"), "{key} {size}: {message}");
            }
        }
    }
    let directory = tempfile::tempdir().unwrap();
    write(&Madeup { kind: "xlm-roberta", ..PLAIN }, directory.path());
    for id in [json!(1_u64 << 62), json!(u64::MAX), json!(16), json!(-1), json!("1")] {
        set(directory.path(), "config.json", &json!({"pad_token_id": id}));
        let message = open(directory.path()).err().unwrap_or_else(|| panic!("{id}")).to_string();
        assert!(message.contains("pad_token_id"), "{message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// With any file content, the model is rejected or embeds.
    #[test]
    fn mutated_files_are_rejected_or_work(
        file in prop::sample::select(vec!["config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json",
            "tokenizer_config.json", "model.safetensors"]),
        at: prop::sample::Index,
        with in prop_oneof![
            any::<u8>().prop_map(|byte| vec![byte]),
            any::<u64>().prop_map(|number| number.to_string().into_bytes()),
            prop::sample::select(vec!["null", "true", "-1", "1e300", "[]", "{}", "4611686018427387904", "\"\""])
                .prop_map(|text| text.as_bytes().to_vec()),
        ],
        cut in 0usize..4,
    ) {
        let directory = tempfile::tempdir().unwrap();
        write(&PLAIN, directory.path());
        let path = directory.path().join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        // Of the weights, only mutate the header.
        let span = if file == "model.safetensors" { bytes.len().min(3000) } else { bytes.len() };
        let at = at.index(span);
        bytes.splice(at..(at + cut).min(span), with);
        std::fs::write(&path, bytes).unwrap();
        if let Ok(engine) = open(directory.path()) {
            let mut vector = vec![0.0; engine.info().dimension];
            for text in texts() {
                engine.embed_one(engine.tokenize(&text).text(), &mut vector);
                engine.embed(&[engine.tokenize(&text).text(), Text::default()], 1);
            }
        }
    }
}
