//! The configuration files of a sentence-transformers directory, resolved into one description.

use std::path::{Path, PathBuf};

use super::architecture::{self, Activation};
use super::files::Files;
use super::modules::{self, Pooling};
use super::problems::Problems;
use super::sentence::{self, Prompts};
use super::tokenizer::{self, TokenizerSettings};
use super::{LoadError, shards};

/// The configuration of a model, without weights and vocabulary.
#[derive(Clone, Debug)]
pub struct Description {
    /// The directory it was read from.
    pub directory: PathBuf,
    /// The folder of the network inside the directory; often empty.
    pub folder: String,
    /// Dimension of token vectors and of the result.
    pub hidden: usize,
    /// Number of attention heads. Divides [`Description::hidden`].
    pub heads: usize,
    /// Number of transformer layers.
    pub layers: usize,
    /// Width of the feed-forward layer.
    pub intermediate: usize,
    /// Activation of the feed-forward layer.
    pub activation: Activation,
    /// Added to the variance in every layer normalisation.
    pub norm_epsilon: f32,
    /// Rows of the word embedding.
    pub vocabulary: usize,
    /// Rows of the position embedding.
    pub positions: usize,
    /// RoBERTa family: the padding id. Its position always equals its id; other tokens count from the next position.
    pub padding: Option<u32>,
    /// Maximum tokens of a text, including special tokens. Longer texts are truncated.
    pub max_tokens: usize,
    /// How `tokenizer.json` is applied.
    pub tokenizer: TokenizerSettings,
    /// How token vectors are pooled.
    pub pooling: Pooling,
    /// Whether prompt tokens are pooled too.
    pub include_prompt: bool,
    /// Whether vectors are normalised to unit length.
    pub normalize: bool,
    /// Prompts to prepend to the input.
    pub prompts: Prompts,
}

impl Description {
    /// Reads and checks the configuration files in `directory`.
    ///
    /// # Errors
    /// A file is missing or malformed, or the engine does not support the model; the message names every unsupported
    /// setting.
    pub fn read(directory: &Path) -> Result<Self, LoadError> {
        let files = Files::new(directory);
        let mut problems = Problems::default();
        let described = Self::parse(&files, &mut problems)?;
        match described {
            Some(description) if problems.is_empty() => Ok(description),
            _ => Err(LoadError::Unsupported { model: directory.to_owned(), problems: problems.into_vec() }),
        }
    }

    fn parse(files: &Files, problems: &mut Problems) -> Result<Option<Self>, LoadError> {
        let modules = modules::read(files, problems)?;
        let folder = &modules.folder;
        let Some(architecture) = architecture::read(files, folder, modules.found, problems)? else { return Ok(None) };
        // Both belong to sentence-transformers, which does not read them without modules.json.
        let (sentence, prompts) = if modules.found {
            (sentence::read(files, folder, problems)?, sentence::prompts(files, problems)?)
        } else {
            Default::default()
        };
        let (tokenizer, tokenizer_limit) = tokenizer::read(files, folder, &architecture, &sentence, problems)?;
        shards::check_present(files, folder, problems);

        let config = files.path(&super::files::within(folder, "config.json"));
        if let Some((file, dimension)) = modules.dimension
            && dimension != architecture.hidden as u64
        {
            let cause = format!("dimension {dimension} does not match hidden_size {}", architecture.hidden);
            return Err(LoadError::malformed(&files.path(&file), cause));
        }
        let first_position = architecture.padding.map_or(0, |id| id as usize + 1);
        let positions = architecture.positions.saturating_sub(first_position);
        let max_tokens = sentence.max_tokens.or(tokenizer_limit).unwrap_or(positions).min(positions);
        // Two special tokens and one of the text: with fewer, every text would have the same vector.
        if max_tokens < 3 {
            return Err(LoadError::malformed(
                &config,
                format!("text limit of {max_tokens} tokens: expected at least 3"),
            ));
        }
        Ok(Some(Self {
            directory: files.directory().to_owned(),
            folder: folder.clone(),
            hidden: architecture.hidden,
            heads: architecture.heads,
            layers: architecture.layers,
            intermediate: architecture.intermediate,
            activation: architecture.activation,
            norm_epsilon: architecture.norm_epsilon,
            vocabulary: architecture.vocabulary,
            positions: architecture.positions,
            padding: architecture.padding,
            max_tokens,
            tokenizer,
            pooling: modules.pooling,
            include_prompt: modules.include_prompt,
            normalize: modules.normalize,
            prompts,
        }))
    }

    /// Returns a revision suffix for settings that change vectors and that earlier releases ignored. Empty for models
    /// whose vectors did not change.
    pub(crate) fn revision_suffix(&self, left: bool, overridden: bool) -> String {
        let tags = [(!self.include_prompt, "prompt-not-pooled"), (left, "cut-left"), (overridden, "tokenizer-config")];
        tags.iter().filter(|(set, _)| *set).map(|(_, tag)| format!("+{tag}")).collect()
    }
}
