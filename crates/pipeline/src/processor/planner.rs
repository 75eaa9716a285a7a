//! Makes the texts and chunks of documents, as a declaration describes them, for one model.

use std::sync::Arc;

use serde_json::{Map, Value};
use tidewheel_core::catalog::{ChunkDeclaration, Declaration};
use tidewheel_core::chunking::ChunkLimits;
use tidewheel_core::error::PortError;
use tidewheel_core::identity::DocumentId;
use tidewheel_core::payload::plain_document;

use super::blank::is_blank;
use super::model::Model;
use super::options::{Blank, SettingNames};
use super::plan::Job;
use super::render::Renderer;
use super::split::{Chunks, Splitter};
use super::template::Template;

/// The text and the prefix of documents. Templates are compiled here, once.
pub(super) struct Texts {
    renderer: Renderer,
    prefix: Option<Template>,
    blank: Blank,
    names: &'static SettingNames,
}

impl Texts {
    /// Compiles the templates of a declaration.
    ///
    /// # Errors
    /// Fatal if one is invalid; the message names these settings.
    pub(super) fn new(declaration: &Declaration, names: &'static SettingNames) -> Result<Self, PortError> {
        let prefix = declaration.chunk.prefix.as_deref().map(|template| Template::new("chunk.prefix", template));
        Ok(Self {
            renderer: Renderer::named(&declaration.text, names)?,
            prefix: prefix.transpose()?,
            blank: declaration.text.blank,
            names,
        })
    }
}

/// Splits documents into chunks. Targets with equal texts and models share one.
pub(super) struct Planner {
    texts: Texts,
    splitter: Splitter,
    /// What embeds the chunks.
    pub(super) model: Arc<Model>,
}

/// A document of a target.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Planned {
    /// It has no text, and such documents are not indexed.
    LeftOut,
    /// Its chunks, and the text in front of each of them.
    Chunks { prefix: String, chunks: Chunks },
}

impl Planner {
    pub(super) fn new(texts: Texts, chunk: &ChunkDeclaration, model: Arc<Model>) -> Self {
        let most = model.info.max_tokens;
        let longest = chunk.tokens.map_or(most, |tokens| tokens.min(most));
        let limits = ChunkLimits::new(longest, chunk.overlap);
        let splitter = Splitter::new(model.tokens.clone(), limits, chunk.max, texts.names);
        Self { texts, splitter, model }
    }

    /// Whether the time to render depends on more than the size of the document.
    pub(super) fn computes(&self) -> bool {
        self.texts.renderer.computes() || self.texts.prefix.is_some()
    }

    /// The number of tokens of a text.
    pub(super) fn count(&self, text: &str) -> usize {
        self.splitter.count(text)
    }

    /// Splits a document. One without text has no prefix: it is not embedded.
    pub(super) fn document(&self, id: DocumentId, document: &Map<String, Value>) -> Result<Planned, PortError> {
        let Texts { renderer, prefix, blank, .. } = &self.texts;
        let text = renderer.render(document)?;
        if is_blank(&text) {
            return Ok(match blank {
                Blank::Skip => Planned::LeftOut,
                Blank::Index => {
                    Planned::Chunks { prefix: String::new(), chunks: Chunks { texts: vec![String::new()], limit: 0 } }
                }
            });
        }
        let prefix = prefix.as_ref().map(|prefix| prefix.render(document)).transpose()?;
        let prefix = prefix.filter(|prefix| !is_blank(prefix)).unwrap_or_default();
        let chunks = self.splitter.split(id, text, &prefix)?;
        if *blank == Blank::Skip && chunks.texts.iter().all(|text| is_blank(text)) {
            return Ok(Planned::LeftOut);
        }
        Ok(Planned::Chunks { prefix, chunks })
    }

    fn split_finer(&self, job: &Job, document: &str) -> Option<Result<Chunks, PortError>> {
        match parsed(document).and_then(|document| self.texts.renderer.render(&document)) {
            Ok(text) => self.splitter.split_finer(job.document, &text, &job.prefix, job.limit),
            Err(error) => Some(Err(error)),
        }
    }
}

/// A job with a chunk that its embedder rejected as too long, the reason, and its document.
pub(super) type TooLong = (Job, PortError, String);

/// Splits the documents of these jobs more finely. A job that cannot be split again is returned with the reason.
pub(super) fn finer(rejected: Vec<TooLong>) -> (Vec<Job>, Vec<(Job, PortError)>) {
    let (mut jobs, mut unsplittable) = (Vec::new(), Vec::new());
    for (mut job, reason, document) in rejected {
        match job.planner.clone().split_finer(&job, &document) {
            Some(Ok(Chunks { texts, limit })) => {
                (job.chunks, job.limit) = (texts, limit);
                jobs.push(job);
            }
            None => unsplittable.push((job, reason)),
            Some(Err(error)) => unsplittable.push((job, error)),
        }
    }
    (jobs, unsplittable)
}

/// Parses a document in extended JSON.
///
/// # Errors
/// Poison if it is not one.
pub(super) fn parsed(document: &str) -> Result<Map<String, Value>, PortError> {
    plain_document(document).map_err(|error| PortError::poison(error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidewheel_core::change::Operation;
    use tidewheel_core::error::ErrorClass;
    use tidewheel_core::identity::Namespace;

    use super::super::options::TextOptions;
    use super::super::samples::{model, planner};
    use super::*;
    use crate::targets::samples::declaration;

    fn id() -> DocumentId {
        DocumentId::new(&Namespace::new("shop", "tickets"), "1")
    }

    fn plan(planner: &Planner, document: &Value) -> Result<(String, Chunks), PortError> {
        match planner.document(id(), &parsed(&document.to_string()).unwrap())? {
            Planned::Chunks { prefix, chunks } => Ok((prefix, chunks)),
            Planned::LeftOut => panic!("it is left out"),
        }
    }

    fn job(planner: &Arc<Planner>, document: &Value) -> Job {
        let (prefix, Chunks { texts: chunks, limit }) = plan(planner, document).unwrap();
        let (planner, operation) = (planner.clone(), Operation::Insert);
        Job { unit: 0, document: id(), operation, to: vec![0], planner, chunks, prefix, limit }
    }

    #[test]
    fn long_text_becomes_several_chunks_and_empty_text_one_empty_chunk() {
        let planner = planner(None, Blank::Index);
        let chunks = |text: &str| plan(&planner, &json!({ "text": text })).unwrap().1.texts;
        assert_eq!(chunks(&"word ".repeat(600)).len(), 3);
        assert_eq!(chunks(""), [""]);
    }

    #[test]
    fn prefix_is_rendered_once_per_document_and_shortens_its_chunks() {
        let planner = planner(Some("{{ subject }} by {{ by }}"), Blank::Index);
        let (text, subject) = ("word ".repeat(600), "late ".repeat(150));
        let plain = job(&planner, &json!({ "text": text }));
        assert_eq!((plain.prefix.as_str(), plain.chunks.len()), ("", 3));
        let document = json!({ "text": text, "subject": subject, "by": "Ada" });
        let first = job(&planner, &document);
        assert_eq!(first.prefix, format!("{subject} by Ada"));
        assert!(first.chunks.len() > 3 && first.chunks.iter().all(|chunk| chunk.starts_with("word")));
        let (prefix, chunks) = (first.prefix.clone(), first.chunks.len());
        let rejected = |job| vec![(job, PortError::poison("too long"), document.to_string())];
        let (mut finer_jobs, _) = finer(rejected(first));
        let second = finer_jobs.remove(0);
        assert_eq!(second.prefix, prefix);
        assert!(second.chunks.len() > chunks);
        let (none, rest) = finer(rejected(second));
        assert_eq!((none.len(), rest.len()), (0, 1), "the prefix leaves no room for smaller chunks");

        let (prefix, chunks) = plan(&planner, &json!({ "text": " ", "subject": 7 })).unwrap();
        assert_eq!((prefix.as_str(), chunks.texts), ("", vec![String::new()]));
        let error = plan(&planner, &json!({ "text": "short", "subject": "late ".repeat(250) })).unwrap_err();
        assert_eq!(error.class, ErrorClass::Poison);
        assert!(error.message.contains("shorten chunk.prefix"), "{}", error.message);
    }

    #[test]
    fn document_without_visible_text_is_one_empty_chunk_or_left_out() {
        for blank in ["", "  \n\t", "\u{200b}\u{feff}", "\u{0}\u{7}", "\u{a0}\u{3000}"] {
            let document = json!({ "text": blank });
            assert_eq!(plan(&planner(None, Blank::Index), &document).unwrap().1.texts, [""], "{blank:?}");
            let skipped = planner(None, Blank::Skip).document(id(), &parsed(&document.to_string()).unwrap());
            assert_eq!(skipped, Ok(Planned::LeftOut), "{blank:?}");
        }
        assert!(!is_blank("\u{200b}a") && !is_blank("."));
    }

    #[test]
    fn messages_name_the_settings_of_the_short_form_or_of_an_index() {
        let mut declaration = declaration("tickets");
        declaration.text.template = Some("{{ text".into());
        for (names, template, chunks) in [
            (&SettingNames::SHORT_FORM, "documents.template", "documents.max_chunks"),
            (&SettingNames::DECLARED, "text.template", "chunk.max"),
        ] {
            let error = Texts::new(&declaration, names).err().unwrap();
            assert_eq!(error.class, ErrorClass::Fatal);
            assert!(error.message.starts_with(&format!("invalid {template}: ")), "{}", error.message);
            let valid = Declaration { text: TextOptions::default(), ..declaration.clone() };
            let chunk = ChunkDeclaration { max: 1, ..ChunkDeclaration::default() };
            let planner = Planner::new(Texts::new(&valid, names).unwrap(), &chunk, model());
            let error = plan(&planner, &json!({ "text": "word ".repeat(600) })).unwrap_err();
            assert!(error.message.contains(chunks), "{}", error.message);
        }
    }
}
