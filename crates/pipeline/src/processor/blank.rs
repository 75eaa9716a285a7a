//! Documents without text.

use std::sync::Arc;

use tidewheel_core::payload::plain_document;

use super::NAME;
use super::options::{Blank, TextOptions};
use super::render::Renderer;
use crate::service::ServiceError;

/// Whether a text has no content for a model: only white space, control and invisible characters.
pub(super) fn is_blank(text: &str) -> bool {
    let invisible = |sign| matches!(sign, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}');
    text.chars().all(|sign| sign.is_whitespace() || sign.is_control() || invisible(sign))
}

/// Source documents that are intentionally not indexed.
#[derive(Clone, Debug, Default)]
pub struct LeftOut(Option<Arc<Renderer>>);

impl LeftOut {
    /// Selects documents without text, if the setting is `Skip`; fails if the template is invalid.
    pub fn new(text: &TextOptions, blank: Blank) -> Result<Self, ServiceError> {
        if blank == Blank::Index {
            return Ok(Self(None));
        }
        let renderer = Renderer::new(text).map_err(|error| ServiceError::new(NAME, error))?;
        Ok(Self(Some(Arc::new(renderer))))
    }

    /// Whether the time to decide depends on more than the size of the document.
    pub(crate) fn computes(&self) -> bool {
        self.0.as_ref().is_some_and(|renderer| renderer.computes())
    }

    /// Whether a document in extended JSON is not indexed. A document that cannot be rendered does not count: it is
    /// parked.
    pub fn holds(&self, document: &str) -> bool {
        let Some(renderer) = &self.0 else { return false };
        let text = plain_document(document).ok().and_then(|document| renderer.render(&document).ok());
        text.is_some_and(|text| is_blank(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_documents_are_skipped_only_with_the_skip_setting() {
        let left_out = |blank, document| LeftOut::new(&TextOptions::default(), blank).unwrap().holds(document);
        for document in [r#"{"_id":1}"#, r#"{"_id":1,"a":" \n"}"#, r#"{"_id":1,"a":"\u200b","b":null}"#] {
            assert!(left_out(Blank::Skip, document), "{document}");
            assert!(!left_out(Blank::Index, document), "{document}");
        }
        for document in [r#"{"_id":1,"a":"x"}"#, "not json"] {
            assert!(!left_out(Blank::Skip, document), "{document}");
        }
    }
}
