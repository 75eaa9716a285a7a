//! Estimates what a change of an index embeds and writes, from samples of its collections, without I/O.
//!
//! Sampled documents are rendered and split as by the processor, under the new declaration and under those whose vectors
//! can be reused. What remains is scaled to the number of documents.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Map, Value};
use tidewheel_core::catalog::{Blank, Declaration, TextDeclaration};
use tidewheel_core::chunking::{ChunkLimits, chunk};
use tidewheel_core::embedded::input;
use tidewheel_core::identity::Namespace;
use tidewheel_core::payload::plain_document;
use tidewheel_core::ports::{PortResult, SourceFilter, SourceRow};
use tidewheel_core::tokens::Tokens;
use tidewheel_pipeline::processor::Renderer;

/// Minimum tokens that a prefix leaves for a chunk, as in the processor.
const LEAST: usize = 8;

/// Maximum texts to keep for a measurement of the embedder.
const KEPT: usize = 32;

/// Sampled documents of one collection.
#[derive(Clone, Debug)]
pub(super) struct Sampled {
    pub(super) namespace: Namespace,
    /// Documents that the rows represent.
    pub(super) documents: f64,
    pub(super) rows: Vec<SourceRow>,
}

/// What a declaration makes of documents.
pub(super) struct Maker {
    declaration: Arc<Declaration>,
    /// The number of its filter in the verdicts of rows.
    filter: Option<usize>,
    text: Renderer,
    prefix: Option<Renderer>,
    tokens: Arc<dyn Tokens>,
    limits: ChunkLimits,
}

impl Maker {
    /// Adds its filter to those by which the rows have to be judged. `max_tokens` is the limit of the model.
    ///
    /// # Errors
    /// Fatal, if a template is invalid.
    pub(super) fn new(
        declaration: Arc<Declaration>,
        filters: &mut Vec<SourceFilter>,
        tokens: Arc<dyn Tokens>,
        max_tokens: usize,
    ) -> PortResult<Self> {
        let filter = declaration.filter.as_ref().map(|filter| {
            filters.iter().position(|known| known == filter).unwrap_or_else(|| {
                filters.push(filter.clone());
                filters.len() - 1
            })
        });
        let text = Renderer::new(&declaration.text)?;
        let prefix =
            declaration.chunk.prefix.clone().map(|template| {
                Renderer::new(&TextDeclaration { template: Some(template), ..TextDeclaration::default() })
            });
        let longest = declaration.chunk.tokens.map_or(max_tokens, |tokens| tokens.min(max_tokens));
        let limits = ChunkLimits::new(longest, declaration.chunk.overlap);
        Ok(Self { filter, text, prefix: prefix.transpose()?, tokens, limits, declaration })
    }

    /// Whether the document belongs to the index.
    fn covers(&self, namespace: &Namespace, row: &SourceRow) -> bool {
        self.declaration.source.covers(namespace)
            && self.filter.is_none_or(|number| row.verdicts.get(number) == Some(true))
    }

    /// The inputs of the embedder: none for a document without text, which has a point nevertheless. `None` for one
    /// without a point.
    fn inputs(&self, document: &Map<String, Value>) -> Option<Vec<String>> {
        let text = self.text.render(document).ok()?;
        if text.trim().is_empty() {
            return (self.declaration.text.blank == Blank::Index).then(Vec::new);
        }
        let prefix = self.prefix.as_ref().map(|prefix| prefix.render(document)).transpose().ok()?;
        let prefix = prefix.filter(|prefix| !prefix.trim().is_empty()).unwrap_or_default();
        let overhead = if prefix.is_empty() { 0 } else { self.count(&input(&prefix, "")) };
        if overhead > 0 && overhead + LEAST > self.limits.max_tokens() {
            return None;
        }
        let limits = self.limits.with_max_tokens(self.limits.max_tokens() - overhead);
        let chunks = chunk(&text, &self.tokens.spans(&text), limits);
        if chunks.len() > self.declaration.chunk.max {
            return None;
        }
        Some(chunks.into_iter().map(|range| input(&prefix, &text[range]).into_owned()).collect())
    }

    fn count(&self, text: &str) -> usize {
        self.tokens.spans(text).len()
    }
}

/// What is estimated.
pub(super) struct Question {
    /// The new declaration.
    pub(super) after: Maker,
    /// The declaration to which the points conform that are changed in place.
    pub(super) before: Option<Maker>,
    /// Other declarations whose vectors can be reused.
    pub(super) known: Vec<Maker>,
    /// Whether vectors of unchanged texts are reused.
    pub(super) reuses: bool,
    /// Whether only documents are written that the index lacks.
    pub(super) missing_only: bool,
}

/// The answer, in documents of all collections.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Estimate {
    /// Documents to write.
    pub(super) documents: u64,
    /// Documents to remove.
    pub(super) removed: u64,
    /// Documents that the snapshot reads, and those that it removes.
    pub(super) read: u64,
    /// Texts to embed.
    pub(super) texts: u64,
    /// Their tokens.
    pub(super) tokens: u64,
    /// Points of the documents to write.
    pub(super) points: u64,
    /// Sampled documents.
    pub(super) sampled: u64,
    /// Some of the texts to embed.
    pub(super) inputs: Vec<String>,
}

#[derive(Default)]
struct Sums {
    documents: f64,
    removed: f64,
    members: f64,
    texts: f64,
    tokens: f64,
    points: f64,
}

/// Estimates from rows that are judged by the filters of the makers.
pub(super) fn estimate(samples: &[Sampled], question: &Question) -> Estimate {
    let Question { after, before, known, reuses, missing_only } = question;
    let (mut sums, mut sampled, mut kept) = (Sums::default(), 0, Vec::new());
    for Sampled { namespace, documents, rows } in samples {
        let weight = documents / rows.len().max(1) as f64;
        sampled += rows.len() as u64;
        for row in rows {
            let before = before.as_ref().filter(|before| before.covers(namespace, row));
            if !after.covers(namespace, row) {
                sums.removed += before.map_or(0.0, |_| weight);
                continue;
            }
            sums.members += weight;
            // The others are dead-lettered.
            let document = row.document.as_ref().ok().and_then(|text| plain_document(text).ok());
            let Some(document) = document else { continue };
            let Some(inputs) = after.inputs(&document).filter(|_| !missing_only || before.is_none()) else { continue };
            sums.documents += weight;
            sums.points += weight * inputs.len().max(1) as f64;
            let makers = known.iter().filter(|maker| maker.covers(namespace, row)).chain(before.filter(|_| *reuses));
            let reusable: HashSet<String> = makers.filter_map(|maker| maker.inputs(&document)).flatten().collect();
            for input in inputs.into_iter().filter(|input| !reusable.contains(input)) {
                sums.texts += weight;
                sums.tokens += weight * after.count(&input) as f64;
                if kept.len() < KEPT {
                    kept.push(input);
                }
            }
        }
    }
    let rounded = |sum: f64| sum.round() as u64;
    Estimate {
        documents: rounded(sums.documents),
        removed: rounded(sums.removed),
        read: rounded(sums.members + sums.removed),
        texts: rounded(sums.texts),
        tokens: rounded(sums.tokens),
        points: rounded(sums.points),
        sampled,
        inputs: kept,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidewheel_core::ports::Verdicts;
    use tidewheel_core::tokens::Words;

    use super::*;
    use crate::samples::declaration;

    /// Limit of the model in tokens.
    const LIMIT: usize = 32;

    fn maker(filters: &mut Vec<SourceFilter>, change: impl Fn(&mut Declaration)) -> Maker {
        let mut declaration = declaration("tickets");
        declaration.text.fields = vec!["subject".into()];
        change(&mut declaration);
        Maker::new(Arc::new(declaration), filters, Arc::new(Words), LIMIT).unwrap()
    }

    /// Rows of `shop.tickets`, which represent ten times as many documents. Each matches these filters.
    fn samples(rows: &[(Value, &[bool])]) -> Vec<Sampled> {
        let row = |(document, verdicts): &(Value, &[bool])| SourceRow {
            verdicts: verdicts.iter().copied().collect::<Verdicts>(),
            ..SourceRow::new("1", "1", Ok(document.to_string()))
        };
        let rows: Vec<_> = rows.iter().map(row).collect();
        vec![Sampled { namespace: Namespace::new("shop", "tickets"), documents: 10.0 * rows.len() as f64, rows }]
    }

    fn question(after: Maker) -> Question {
        Question { after, before: None, known: Vec::new(), reuses: true, missing_only: false }
    }

    fn counts(estimate: &Estimate) -> [u64; 5] {
        [estimate.documents, estimate.removed, estimate.texts, estimate.tokens, estimate.points]
    }

    #[test]
    fn new_index_embeds_every_text_of_its_documents() {
        let rows = samples(&[
            (json!({"_id": 1, "subject": "late parcel"}), &[]),
            (json!({"_id": 2, "subject": "word ".repeat(40)}), &[]),
            (json!({"_id": 3, "subject": " "}), &[]),
        ]);
        let all = estimate(&rows, &question(maker(&mut Vec::new(), |_| {})));
        assert_eq!((all.documents, all.texts, all.points, all.sampled), (30, 30, 40, 3));
        assert_eq!((all.inputs.len(), all.inputs[0].as_str()), (3, "late parcel"));
        let skip = maker(&mut Vec::new(), |declaration| declaration.text.blank = Blank::Skip);
        assert_eq!(estimate(&rows, &question(skip)).documents, 20);
        let few = maker(&mut Vec::new(), |declaration| declaration.chunk.max = 1);
        assert_eq!(estimate(&rows, &question(few)).documents, 20, "a document with more chunks is dead-lettered");
        assert_eq!(estimate(&[], &question(maker(&mut Vec::new(), |_| {}))), Estimate::default());
    }

    #[test]
    fn prefix_is_part_of_every_text() {
        let rows = samples(&[(json!({"_id": 1, "subject": "word ".repeat(40), "product": "Atlas"}), &[])]);
        let prefix = |template: &str| {
            let template = template.to_owned();
            maker(&mut Vec::new(), move |declaration| declaration.chunk.prefix = Some(template.clone()))
        };
        let prefixed = estimate(&rows, &question(prefix("{{ product }}")));
        assert!(prefixed.inputs.iter().all(|input| input.starts_with("Atlas\nword")), "{:?}", prefixed.inputs);
        assert_eq!(prefixed.texts, 20);
        assert_eq!(estimate(&rows, &question(prefix("{{ subject }}"))).documents, 0, "it leaves no room");
    }

    #[test]
    fn changed_filter_adds_and_removes_documents() {
        let mut filters = Vec::new();
        let open = |declaration: &mut Declaration| declaration.filter = Some(SourceFilter("open".into()));
        let urgent = |declaration: &mut Declaration| declaration.filter = Some(SourceFilter("urgent".into()));
        let (before, after) = (maker(&mut filters, open), maker(&mut filters, urgent));
        assert_eq!(maker(&mut filters, open).filter, before.filter);
        assert_eq!(filters.len(), 2);
        let rows = samples(&[
            (json!({"_id": 1, "subject": "both"}), &[true, true]),
            (json!({"_id": 2, "subject": "leaves"}), &[true, false]),
            (json!({"_id": 3, "subject": "one enters"}), &[false, true]),
            (json!({"_id": 4, "subject": "neither"}), &[false, false]),
        ]);
        let question = Question { before: Some(before), missing_only: true, ..question(after) };
        let estimated = estimate(&rows, &question);
        assert_eq!((counts(&estimated), estimated.read), ([10, 10, 10, 20, 10], 30));
    }

    #[test]
    fn only_changed_texts_are_embedded() {
        let template = |declaration: &mut Declaration| {
            declaration.text.template = Some("{{ subject }}{% if product %} {{ product }}{% endif %}".to_owned());
        };
        let rows = samples(&[
            (json!({"_id": 1, "subject": "late"}), &[]),
            (json!({"_id": 2, "subject": "late", "product": "Atlas"}), &[]),
        ]);
        let after = || maker(&mut Vec::new(), template);
        let in_place = Question { before: Some(maker(&mut Vec::new(), |_| {})), ..question(after()) };
        assert_eq!(counts(&estimate(&rows, &in_place)), [20, 0, 10, 20, 20], "every document is written");
        let without = Question { reuses: false, ..in_place };
        assert_eq!(estimate(&rows, &without).texts, 20);
        let known = Question { known: vec![maker(&mut Vec::new(), template)], ..question(after()) };
        assert_eq!(counts(&estimate(&rows, &known)), [20, 0, 0, 0, 20], "another index has the same texts");
        let elsewhere = maker(&mut Vec::new(), |declaration| {
            declaration.source = tidewheel_core::catalog::Selector::of_database::<&str>("crm", &[]);
        });
        assert_eq!(estimate(&rows, &Question { known: vec![elsewhere], ..question(after()) }).texts, 20);
    }

    #[test]
    fn unreadable_documents_are_left_out() {
        let mut rows = samples(&[(json!({"_id": 1, "subject": "late"}), &[])]);
        rows[0].rows.push(SourceRow::new("2", "2", Err("too deep".to_owned())));
        let estimated = estimate(&rows, &question(maker(&mut Vec::new(), |_| {})));
        assert_eq!((estimated.documents, estimated.sampled), (5, 2));
    }
}
