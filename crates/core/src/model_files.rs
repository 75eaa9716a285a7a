//! Names of files of sentence-transformers models: the provisioner fetches what the engine reads.

/// Settings of sentence-transformers, in its lookup order; the first non-empty file is used.
pub const SENTENCE_CONFIGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];
