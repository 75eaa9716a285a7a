//! One comparison: the documents of the source, batch by batch, with the points of the index.

use std::collections::{BTreeSet, HashMap};

use bson::{Bson, Document, RawDocumentBuf};
use qdrant_client::qdrant::{PointId, RetrievedPoint};
use serde_json::Value;
use tidewheel_core::identity::Namespace;
use tidewheel_core::key;
use tidewheel_core::row::row;

use super::points::{Identity, Owner, canonical, compare_vectors, vector_of};
use super::record::Record;
use super::report::{Difference, Report};
use super::{Declared, Oracle, OracleError, coverage, payload};

/// A running comparison.
pub(super) struct Comparison<'a> {
    pub(super) oracle: &'a Oracle,
    /// The record of the collection of a declared index.
    pub(super) record: Option<Record>,
    /// The points of documents that were not compared yet.
    pub(super) points: HashMap<Owner, Vec<Identity>>,
    pub(super) report: Report,
}

/// What the points of a document have to hold.
struct Expected {
    fields: Document,
    /// Whether all of its points carry all fields.
    on_all: bool,
    /// The text; `None` if it is not checked.
    text: Option<String>,
    /// The text in front of every chunk in the input of the embedder.
    prefix: String,
}

impl Comparison<'_> {
    /// Compares some documents of a collection.
    pub(super) async fn batch(&mut self, namespace: &Namespace, documents: Vec<Document>) -> Result<(), OracleError> {
        let mut pairs = Vec::with_capacity(documents.len());
        for document in documents {
            let Some(expected) = self.expected(&document) else { continue };
            let report = &mut self.report;
            report.documents += 1;
            let key = key::canonical(&canonical(document.get("_id").cloned().unwrap_or(Bson::Null))).into_owned();
            let owner = (namespace.to_string(), key);
            let parked = self.oracle.parked.as_ref().is_some_and(|parked| parked(&document));
            match self.points.remove(&owner) {
                Some(_) if parked => report.extra.push(format!("{} {}, which cannot be indexed", owner.0, owner.1)),
                None if parked => report.parked.push(format!("{} {}", owner.0, owner.1)),
                Some(identities) => pairs.push((owner, expected, identities)),
                None => report.missing.push(format!("{} {}", owner.0, owner.1)),
            }
        }
        let ids: Vec<PointId> =
            pairs.iter().flat_map(|(_, _, identities)| identities).map(|identity| identity.id.clone().into()).collect();
        let contents = self.oracle.contents(ids).await?;
        for (owner, expected, mut identities) in pairs {
            identities.sort_by_key(|identity| identity.chunk);
            let name = format!("{} {}", owner.0, owner.1);
            let chunks = row(&identities, Identity::place);
            let surplus = chunks.surplus.iter().map(|identity| format!("{name}, chunk {}", identity.chunk));
            self.report.surplus_chunks.extend(surplus);
            let same = chunks.whole.and_then(|()| self.contents(&expected, chunks.row, &contents));
            if let Err(what) = same {
                self.report.stale.push(Difference { document: name, what });
            }
        }
        Ok(())
    }

    /// What the points of a document have to hold; `None` if it has no points.
    fn expected(&self, document: &Document) -> Option<Expected> {
        let render = self.oracle.render.as_ref();
        let Some(declared) = &self.oracle.declared else {
            let text = render.map(|render| render(document));
            return Some(Expected { fields: document.clone(), on_all: false, text, prefix: String::new() });
        };
        let text = declared.text(document)?;
        let text = render.map_or(text, |render| render(document));
        // A document without text is not embedded.
        let prefix = if text.trim().is_empty() { String::new() } else { declared.prefix(document) };
        let fields = declared.payload(document);
        Some(Expected { fields, on_all: declared.carries_all(), text: Some(text), prefix })
    }

    /// Compares the points of a document.
    fn contents(
        &self,
        expected: &Expected,
        chunks: &[Identity],
        contents: &HashMap<String, RetrievedPoint>,
    ) -> Result<(), String> {
        let Expected { fields, on_all, prefix, .. } = expected;
        let mut texts = Vec::with_capacity(chunks.len());
        for Identity { id, chunk, .. } in chunks {
            let point = contents.get(id).ok_or_else(|| format!("chunk {chunk} disappeared during the comparison"))?;
            let payload: serde_json::Map<String, Value> =
                point.payload.iter().map(|(name, value)| (name.clone(), value.clone().into_json())).collect();
            payload::compare(fields, &payload, *on_all || *chunk == 0)
                .map_err(|what| format!("payload of chunk {chunk}: {what}"))?;
            let reserved = payload.get("_tidewheel").unwrap_or(&Value::Null);
            let text = reserved.get("text").and_then(Value::as_str);
            let text = text.ok_or_else(|| format!("chunk {chunk} has no text"))?;
            if let Some(record) = &self.record {
                record.check(reserved, prefix, text).map_err(|what| format!("chunk {chunk}: {what}"))?;
            }
            self.length(prefix, text).map_err(|what| format!("chunk {chunk}: {what}"))?;
            self.vector(point, prefix, text).map_err(|what| format!("vector of chunk {chunk}: {what}"))?;
            texts.push(text.to_owned());
        }
        match &expected.text {
            Some(text) => coverage::covers(&texts, text),
            None => Ok(()),
        }
    }

    /// Checks the length of a chunk: each word has at least one token.
    fn length(&self, prefix: &str, text: &str) -> Result<(), String> {
        let Some(most) = self.oracle.declared.as_ref().and_then(Declared::most_tokens) else { return Ok(()) };
        let words = prefix.split_whitespace().chain(text.split_whitespace()).count();
        if words <= most { Ok(()) } else { Err(format!("{words} words, but at most {most} tokens")) }
    }

    /// Checks the vector of a chunk, if there are expectations.
    fn vector(&self, point: &RetrievedPoint, prefix: &str, text: &str) -> Result<(), String> {
        let Some(embed) = &self.oracle.embed else { return Ok(()) };
        match vector_of(point) {
            None if text.trim().is_empty() => Ok(()),
            None => Err("missing".to_owned()),
            Some(_) if text.trim().is_empty() => Err("unexpected, because the chunk has no text".to_owned()),
            Some(found) if prefix.is_empty() => compare_vectors(embed(text), found),
            Some(found) => compare_vectors(embed(&format!("{prefix}\n{text}")), found),
        }
    }

    /// Compares a collection whose documents the driver cannot decode.
    pub(super) async fn serials(
        &mut self,
        namespace: &Namespace,
        documents: &[RawDocumentBuf],
    ) -> Result<(), OracleError> {
        let namespace = namespace.to_string();
        self.report.documents += documents.len() as u64;
        let mut wanted: BTreeSet<i64> =
            documents.iter().filter_map(|document| serial_of(document.as_bytes())).collect();
        let mut ids: Vec<PointId> = Vec::new();
        self.points.retain(|(of, _), identities| {
            let other = *of != namespace;
            if !other {
                ids.extend(identities.iter().map(|identity| PointId::from(identity.id.clone())));
            }
            other
        });
        for point in self.oracle.contents(ids).await?.into_values() {
            let serial = point.payload.get("serial").and_then(|value| value.clone().into_json().as_i64());
            if !serial.is_some_and(|serial| wanted.remove(&serial)) {
                self.report.extra.push(format!("{namespace} with serial {serial:?}"));
            }
        }
        self.report.missing.extend(wanted.into_iter().map(|serial| format!("{namespace} with serial {serial}")));
        Ok(())
    }

    /// Ends the comparison: points that are left belong to no document.
    pub(super) fn finish(mut self) -> Report {
        let left = self.points.into_keys().map(|(namespace, key)| format!("{namespace} {key}"));
        self.report.extra.extend(left);
        self.report.extra.sort_unstable();
        self.report
    }
}

/// The field `serial` of a document, found in its bytes: a long.
fn serial_of(document: &[u8]) -> Option<i64> {
    const NAME: &[u8] = b"\x12serial\0";
    let at = document.windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
    Some(i64::from_le_bytes(document.get(at..at + 8)?.try_into().ok()?))
}
