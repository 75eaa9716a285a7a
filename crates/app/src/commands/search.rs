//! `tidewheel search`: the documents whose chunks are nearest to a text in meaning.

use serde::Serialize;
use serde_json::{Map, Value};
use tidewheel_core::paths;
use tidewheel_core::payload::RESERVED;
use tidewheel_core::ports::{Embedder, Hit, Index, Purpose};

use crate::cli::{Output, SearchArgs};
use crate::connect;
use crate::escape;
use crate::exit::{Answer, Failure};
use crate::printer::{self, DIM, GOOD, STRONG, styled};
use crate::settings::Settings;
use crate::wrap;

/// Lines of a chunk that are shown.
const SNIPPET_LINES: usize = 3;

/// Searches and prints.
pub(crate) async fn run(args: &SearchArgs, settings: &Settings) -> Result<Answer, Failure> {
    let filter = args.filter.as_deref().map(parse_filter).transpose()?;
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let embedder = connect::embedder(settings, None)?;
    let index = connect::index(settings)?;
    let found = find(&*embedder, &index, &args.text, limit, filter.as_ref()).await?;
    match args.output.output {
        Output::Json => printer::json(&found),
        Output::Text if found.is_empty() => printer::say("nothing found"),
        Output::Text => show(&found, &settings.documents.fields),
    }
    Ok(if found.is_empty() { Answer::No } else { Answer::Fine })
}

/// A document that was found, with its best chunk.
#[derive(Debug, Serialize)]
pub(crate) struct Found {
    /// Cosine similarity of its best chunk.
    pub(crate) score: f32,
    /// The point of that chunk.
    point: String,
    /// `database.collection`.
    namespace: Value,
    /// Canonical extended JSON of `_id`.
    key: Value,
    /// Which chunk, from 0.
    chunk: Value,
    /// The chunk's text.
    text: String,
    /// The document as the index has it.
    pub(crate) document: Map<String, Value>,
}

/// Embeds the text and asks the index, until there are enough documents: several chunks may be of one.
pub(crate) async fn find(
    embedder: &dyn Embedder,
    index: &dyn Index,
    text: &str,
    limit: usize,
    filter: Option<&Value>,
) -> Result<Vec<Found>, Failure> {
    let vectors = embedder.embed(&[text.to_owned()], Purpose::Query).await?;
    let vector = vectors.into_values();
    let mut points = limit.saturating_mul(2).min(MOST_POINTS);
    loop {
        let hits = index.search(vector.clone(), points, filter).await?;
        let all = hits.len() < points || points == MOST_POINTS;
        let found = documents(hits, limit);
        if all || found.len() == limit {
            return Ok(found);
        }
        points = points.saturating_mul(4).min(MOST_POINTS);
    }
}

/// More points than this are not asked for, however few documents they are of.
const MOST_POINTS: usize = 20_000;

/// The best chunk of each document, best first.
fn documents(hits: Vec<Hit>, limit: usize) -> Vec<Found> {
    let mut seen = std::collections::HashSet::new();
    let mut found = Vec::new();
    for mut hit in hits {
        let stamp = match hit.payload.shift_remove(RESERVED) {
            Some(Value::Object(stamp)) => stamp,
            // A point that somebody else put there is found too.
            _ => Map::new(),
        };
        let get = |name: &str| stamp.get(name).cloned().unwrap_or_default();
        // Qdrant keeps no order of fields; the same document should always look the same.
        hit.payload.sort_keys();
        hit.payload.values_mut().for_each(Value::sort_all_objects);
        let document = stamp.get("document").and_then(Value::as_str).map_or_else(|| hit.id.to_string(), str::to_owned);
        if found.len() < limit && seen.insert(document) {
            found.push(Found {
                score: hit.score,
                point: hit.id.to_string(),
                namespace: get("namespace"),
                key: get("key"),
                chunk: get("chunk"),
                text: get("text").as_str().unwrap_or_default().to_owned(),
                document: hit.payload,
            });
        }
    }
    found
}

/// Prints documents for people.
pub(crate) fn show(found: &[Found], fields: &[String]) {
    let width = printer::width();
    for (rank, found) in found.iter().enumerate() {
        let id = found.document.get("_id").map(plain).unwrap_or_default();
        let id = escape::line(&id);
        let (title, rest) = title(found, fields);
        printer::data(format_args!(
            "{:>2}  {}  {}  {}",
            rank + 1,
            styled(GOOD, format_args!("{:.3}", found.score)),
            styled(STRONG, &title),
            styled(DIM, &id)
        ));
        for line in wrap::lines(&rest, width.saturating_sub(INDENT.len()), SNIPPET_LINES) {
            printer::data(format_args!("{INDENT}{line}"));
        }
    }
}

/// Under the title: rank and score are this wide.
const INDENT: &str = "           ";

/// The first field that has a text, and the chunk without it.
fn title(found: &Found, fields: &[String]) -> (String, String) {
    let named = fields.iter().flat_map(|field| paths::values(&found.document, field));
    let any = found.document.iter().filter(|(name, _)| *name != "_id").map(|(_, value)| value);
    let title = named.chain(any).filter_map(Value::as_str).find(|text| !text.trim().is_empty()).unwrap_or("(no text)");
    let rest = found.text.strip_prefix(title).unwrap_or(&found.text);
    (wrap::lines(title, 80, 1).concat(), rest.trim().to_owned())
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn parse_filter(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|error| {
        Failure::new(format!("--filter is not JSON: {error}"))
            .with_hint(r#"for example: --filter '{"must": [{"key": "product", "match": {"value": "Atlas"}}]}'"#)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn hit(score: f32, document: &str, chunk: u32) -> Hit {
        let payload = json!({
            "_id": 1, "subject": "A subject",
            "_tidewheel": {"document": document, "chunk": chunk, "text": "A subject\nand its content", "namespace": "a.b", "key": "1"},
        });
        let Value::Object(payload) = payload else { unreachable!() };
        Hit { id: Uuid::from_u128(u128::from(chunk)), score, payload }
    }

    #[test]
    fn each_document_is_found_once_with_its_best_chunk() {
        let found = documents(vec![hit(0.9, "x", 1), hit(0.8, "y", 0), hit(0.7, "x", 0), hit(0.6, "z", 0)], 2);
        assert_eq!(found.iter().map(|found| found.score).collect::<Vec<_>>(), [0.9, 0.8]);
        assert_eq!(found[0].chunk, 1);
        assert!(!found[0].document.contains_key(RESERVED));
        assert_eq!(title(&found[0], &["subject".into()]), ("A subject".into(), "and its content".into()));
    }

    #[test]
    fn points_of_others_are_found_too() {
        let foreign = Hit { id: Uuid::from_u128(7), score: 0.5, payload: Map::new() };
        let found = documents(vec![foreign], 10);
        assert_eq!(title(&found[0], &[]).0, "(no text)");
    }
}
