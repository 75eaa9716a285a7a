//! The differences between two declarations in words, without I/O.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};
use tidewheel_core::catalog::{
    Declaration, EmbedderIdentity, EmbeddingSpec, IndexAction, Part, Selector, TextDeclaration,
};
use tidewheel_core::ports::SourceFilter;

use super::report::whole;

/// Longest filter in a description, in characters.
const LONGEST: usize = 60;

/// What embedders reported, as far as it is known.
#[derive(Clone, Copy, Default)]
pub(super) struct Identities<'a> {
    /// Of the serving generation.
    pub(super) before: Option<&'a EmbedderIdentity>,
    /// Of the declaration.
    pub(super) after: Option<&'a EmbedderIdentity>,
}

/// The differences that an action makes, by part.
pub(super) fn details(action: &IndexAction, identities: &Identities<'_>) -> Vec<String> {
    let mut details = Vec::new();
    match (&action.before, &action.after) {
        (Some(before), Some(after)) => {
            for part in action.difference.parts() {
                details.extend(difference(part, before, after, identities));
            }
            if action.difference.has(Part::Rules) && !action.difference.has(Part::Embedding) {
                details.extend(same_model(&before.embedding, &after.embedding));
            }
        }
        (None, Some(after)) => {
            let dimension = dimension(identities.after, &after.embedding);
            let dimension = dimension.map(|dimension| format!(", {dimension} dimensions")).unwrap_or_default();
            details.push(format!("model {}{dimension}", model(&after.embedding, identities.after)));
        }
        (_, None) => {}
    }
    details.extend(action.details.iter().cloned());
    details
}

/// The differences in one part.
fn difference(part: Part, before: &Declaration, after: &Declaration, identities: &Identities<'_>) -> Vec<String> {
    match part {
        Part::Source => changed([("source", source(&before.source), source(&after.source))]),
        Part::Filter => changed([("filter", filter(before), filter(after))]),
        Part::Text => text(&before.text, &after.text),
        Part::Chunk => {
            let (before, after) = (&before.chunk, &after.chunk);
            changed([
                ("chunk tokens", count(before.tokens), count(after.tokens)),
                ("chunk overlap", before.overlap.to_string(), after.overlap.to_string()),
                ("chunks", before.max.to_string(), after.max.to_string()),
                ("chunk prefix", quoted(before.prefix.as_ref()), quoted(after.prefix.as_ref())),
            ])
        }
        Part::Payload => {
            let (before, after) = (&before.payload, &after.payload);
            changed([
                ("included fields", list(&before.include), list(&after.include)),
                ("excluded fields", list(&before.exclude), list(&after.exclude)),
                ("renamed fields", renamed(&before.rename), renamed(&after.rename)),
                ("payload.full", before.full.to_string(), after.full.to_string()),
            ])
        }
        Part::PayloadIndexes => payload_indexes(before, after),
        Part::Embedding => {
            let details = embedding(before, after, identities);
            if details.is_empty() { Vec::new() } else { vec![details] }
        }
        Part::Layout => {
            let (one, two) = (before.collection.shard_number, after.collection.shard_number);
            changed([
                ("vectors", word(&before.vectors.datatype), word(&after.vectors.datatype)),
                ("shards", count(one.map(|shards| shards as usize)), count(two.map(|shards| shards as usize))),
            ])
        }
        Part::Collection => collection(&before.collection.settings, &after.collection.settings),
        Part::Rules => {
            let (one, two) = (&before.rules, &after.rules);
            let (old, new) = (&before.embedding, &after.embedding);
            changed([
                ("keep", whole(one.keep, " "), whole(two.keep, " ")),
                ("on_dead_letter", word(&one.on_dead_letter), word(&two.on_dead_letter)),
                ("embedding", old.name.clone(), new.name.clone()),
                ("query prefix", quoted(old.query_prefix.as_ref()), quoted(new.query_prefix.as_ref())),
            ])
        }
    }
}

/// Whatever decides vectors, in one line.
fn embedding(before: &Declaration, after: &Declaration, identities: &Identities<'_>) -> String {
    let (one, two) = (&before.embedding, &after.embedding);
    let mut details = changed([
        ("model", model(one, identities.before).to_owned(), model(two, identities.after).to_owned()),
        ("provider", one.provider.to_string(), two.provider.to_string()),
        ("precision", word(&one.rounding), word(&two.rounding)),
        ("passage prefix", quoted(one.passage_prefix.as_ref()), quoted(two.passage_prefix.as_ref())),
        ("server", quoted(one.url.as_ref()), quoted(two.url.as_ref())),
    ]);
    if let (Some(one), Some(two)) = (dimension(identities.before, one), dimension(identities.after, two))
        && one != two
    {
        details.push(format!("{one} → {two} dimensions"));
    }
    details.join(", ")
}

/// What is recorded of a model that returns the vectors of the one before. Every service then reaches it by this.
fn same_model(before: &EmbeddingSpec, after: &EmbeddingSpec) -> Vec<String> {
    let details = changed([
        ("model", model(before, None).to_owned(), model(after, None).to_owned()),
        ("provider", before.provider.to_string(), after.provider.to_string()),
        ("server", quoted(before.url.as_ref()), quoted(after.url.as_ref())),
    ]);
    details.into_iter().map(|detail| format!("{detail} with the same vectors")).collect()
}

fn dimension(identity: Option<&EmbedderIdentity>, spec: &EmbeddingSpec) -> Option<usize> {
    identity.map(|identity| identity.dimension).or(spec.dimensions)
}

/// The name of a model without its owner. For what is declared without one, it is the reported name, if that is known.
fn model<'a>(spec: &'a EmbeddingSpec, reported: Option<&'a EmbedderIdentity>) -> &'a str {
    let reported = reported.filter(|_| spec.is_nameless()).map_or("", |identity| identity.model.as_str());
    let mut names = [spec.model.as_str(), reported].into_iter().filter_map(|name| name.rsplit('/').next());
    match names.find(|name| !name.is_empty()) {
        Some(name) => name,
        None => spec.url.as_deref().unwrap_or_else(|| spec.provider.as_str()),
    }
}

/// Templates are too long for a line.
fn text(before: &TextDeclaration, after: &TextDeclaration) -> Vec<String> {
    if before.template.is_some() && after.template.is_some() && before.template != after.template {
        return vec!["template of the text".to_owned()];
    }
    let of = |text: &TextDeclaration| match &text.template {
        Some(_) => "template".to_owned(),
        None if text.fields.is_empty() => "every string".to_owned(),
        None => list(&text.fields),
    };
    changed([
        ("text", of(before), of(after)),
        ("excluded text", list(&before.exclude), list(&after.exclude)),
        ("documents without text", word(&before.blank), word(&after.blank)),
    ])
}

fn payload_indexes(before: &Declaration, after: &Declaration) -> Vec<String> {
    let of = |declaration: &Declaration| {
        let indexes = declaration.payload_indexes.iter();
        let indexes: Vec<_> = indexes.map(|(path, index)| format!("{path} ({})", index.kind.name())).collect();
        list(&indexes)
    };
    let (one, two) = (of(before), of(after));
    if one == two {
        return vec![format!("options of payload indexes {two}")];
    }
    changed([("payload indexes", one, two)])
}

/// The settings of the collection that differ, by name, and those that keep their values although they are no longer set.
fn collection(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<String> {
    let names = before.keys().chain(after.keys()).filter(|name| before.get(*name) != after.get(*name));
    let mut names: Vec<String> = names.map(|name| format!("qdrant.{name}")).collect();
    names.sort_unstable();
    names.dedup();
    let kept = no_longer_set(before, after);
    let verb = if kept.len() == 1 { "keeps its value" } else { "keep their values" };
    let kept = (!kept.is_empty()).then(|| format!("{} {verb} in Qdrant", list(&kept)));
    [Some(list(&names)), kept].into_iter().flatten().collect()
}

/// The settings that Qdrant cannot return to their defaults. Quantization can be turned off.
fn no_longer_set(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<String> {
    let mut names = Vec::new();
    for (name, value) in before.iter().filter(|(name, _)| *name != "quantization") {
        match (value, after.get(name)) {
            (_, None) => names.push(format!("qdrant.{name}")),
            (Value::Object(before), Some(Value::Object(after))) => {
                let fields = before.keys().filter(|field| !after.contains_key(*field));
                names.extend(fields.map(|field| format!("qdrant.{name}.{field}")));
            }
            _ => {}
        }
    }
    names.sort_unstable();
    names
}

/// Those that differ, as "name before → after".
fn changed<const N: usize>(parts: [(&str, String, String); N]) -> Vec<String> {
    let differing = parts.into_iter().filter(|(_, before, after)| before != after);
    differing.map(|(name, before, after)| format!("{name} {before} → {after}")).collect()
}

fn source(selector: &Selector) -> String {
    let patterns: Vec<String> = selector.patterns().iter().map(ToString::to_string).collect();
    list(&patterns)
}

fn filter(declaration: &Declaration) -> String {
    let Some(SourceFilter(text)) = &declaration.filter else { return "none".to_owned() };
    if text.chars().count() <= LONGEST {
        return text.clone();
    }
    text.chars().take(LONGEST - 1).chain(['…']).collect()
}

fn renamed(names: &BTreeMap<String, String>) -> String {
    let names: Vec<_> = names.iter().map(|(path, name)| format!("{path} as {name}")).collect();
    list(&names)
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn count(number: Option<usize>) -> String {
    number.map_or_else(|| "default".to_owned(), |number| number.to_string())
}

fn quoted(text: Option<&String>) -> String {
    text.map_or_else(|| "none".to_owned(), |text| format!("{text:?}"))
}

/// A word of the settings.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tidewheel_core::catalog::{Blank, Datatype, OnDeadLetter, PayloadIndex, PayloadKind, Rounding};

    use super::*;
    use crate::samples::declaration;

    fn of(change: impl Fn(&mut Declaration)) -> Vec<String> {
        between(&declaration("tickets"), change)
    }

    fn between(before: &Declaration, change: impl Fn(&mut Declaration)) -> Vec<String> {
        let mut after = before.clone();
        change(&mut after);
        let identities = Identities::default();
        let parts: Vec<Part> = after.difference(before).parts().collect();
        parts.into_iter().flat_map(|part| difference(part, before, &after, &identities)).collect()
    }

    #[test]
    fn every_part_is_described() {
        assert_eq!(
            of(|after| after.source = Selector::parse(&["shop.tickets", "!shop.tmp_*"], None).unwrap()),
            ["source shop.* → shop.tickets, !shop.tmp_*"]
        );
        assert_eq!(
            of(|after| after.filter = Some(SourceFilter(r#"{"status":"open"}"#.to_owned()))),
            [r#"filter none → {"status":"open"}"#]
        );
        assert_eq!(of(|after| after.text.fields = vec!["a".into(), "b".into()]), ["text every string → a, b"]);
        assert_eq!(of(|after| after.text.blank = Blank::Skip), ["documents without text index → skip"]);
        assert_eq!(
            of(|after| (after.chunk.tokens, after.chunk.overlap) = (Some(200), 16)),
            ["chunk tokens default → 200", "chunk overlap 32 → 16"]
        );
        assert_eq!(of(|after| after.payload.full = true), ["payload.full false → true"]);
        assert_eq!(of(|after| after.vectors.datatype = Datatype::Float16), ["vectors float32 → float16"]);
        assert_eq!(of(|after| after.collection.shard_number = Some(6)), ["shards default → 6"]);
        assert_eq!(
            of(|after| {
                after.collection.settings.insert("hnsw".into(), json!({"m": 8}));
                after.collection.settings.insert("on_disk_payload".into(), json!(true));
            }),
            ["qdrant.hnsw, qdrant.on_disk_payload"]
        );
        assert_eq!(
            of(|after| {
                after.rules.keep = Duration::from_secs(5_400);
                after.rules.on_dead_letter = OnDeadLetter::Remove;
            }),
            ["keep 24 h → 1 h 30 min", "on_dead_letter keep → remove"]
        );
    }

    #[test]
    fn settings_of_the_collection_that_are_no_longer_set_keep_their_values() {
        let with = |settings: Value| {
            let mut declaration = declaration("tickets");
            let Value::Object(settings) = settings else { unreachable!() };
            declaration.collection.settings = settings;
            declaration
        };
        let before = with(json!({
            "hnsw": {"m": 8, "ef_construct": 64}, "quantization": {"binary": {}}, "on_disk_payload": true,
        }));
        for (after, expected) in [
            (
                json!({"hnsw": {"m": 8, "ef_construct": 64}, "on_disk_payload": false}),
                &["qdrant.on_disk_payload, qdrant.quantization"][..],
            ),
            (
                json!({"hnsw": {"m": 4}, "quantization": {"binary": {}}, "on_disk_payload": true}),
                &["qdrant.hnsw", "qdrant.hnsw.ef_construct keeps its value in Qdrant"][..],
            ),
            (
                json!({"quantization": {"binary": {}}}),
                &[
                    "qdrant.hnsw, qdrant.on_disk_payload",
                    "qdrant.hnsw, qdrant.on_disk_payload keep their values in Qdrant",
                ][..],
            ),
        ] {
            let settings = with(after).collection.settings;
            assert_eq!(between(&before, |declaration| declaration.collection.settings = settings.clone()), expected);
        }
    }

    #[test]
    fn payload_indexes_name_their_types() {
        let with = |declaration: &mut Declaration, options: Value| {
            let Value::Object(options) = options else { unreachable!() };
            let index = PayloadIndex { kind: PayloadKind::Keyword, options };
            declaration.payload_indexes.insert("status".into(), index);
        };
        assert_eq!(of(|after| with(after, json!({}))), ["payload indexes none → status (keyword)"]);
        let mut before = declaration("tickets");
        with(&mut before, json!({}));
        let details = between(&before, |after| with(after, json!({"on_disk": true})));
        assert_eq!(details, ["options of payload indexes status (keyword)"]);
    }

    #[test]
    fn models_are_named_without_owner_and_with_known_dimensions() {
        let mut before = declaration("tickets");
        before.embedding.model = "sentence-transformers/all-MiniLM-L6-v2".into();
        let mut after = before.clone();
        after.embedding.model = "hash:64".into();
        after.embedding.rounding = Rounding::Int8;
        let identity = |dimension| EmbedderIdentity { model: String::new(), revision: String::new(), dimension };
        let (one, two) = (identity(384), identity(64));
        let identities = Identities { before: Some(&one), after: Some(&two) };
        assert_eq!(
            embedding(&before, &after, &identities),
            "model all-MiniLM-L6-v2 → hash:64, precision exact → int8, 384 → 64 dimensions"
        );
        let unknown = Identities { before: Some(&one), after: None };
        assert!(!embedding(&before, &after, &unknown).contains("dimensions"));
        let single = EmbeddingSpec { url: Some("http://tei:3000".into()), ..EmbeddingSpec::new("default", "tei", "") };
        assert_eq!(model(&single, Some(&one)), "http://tei:3000");
        let nameless = EmbeddingSpec::new("default", "tidewheel", "");
        let reported = EmbedderIdentity { model: "org/bge-small".into(), ..two.clone() };
        assert_eq!((model(&nameless, Some(&reported)), model(&nameless, None)), ("bge-small", "tidewheel"));
    }

    #[test]
    fn another_server_of_the_same_model_is_described() {
        let at = |url: &str| EmbeddingSpec { url: Some(url.into()), ..EmbeddingSpec::new("default", "tidewheel", "m") };
        let details = same_model(&at("http://embedder:8080"), &at("http://127.0.0.1:8080"));
        assert_eq!(details, [r#"server "http://embedder:8080" → "http://127.0.0.1:8080" with the same vectors"#]);
        assert!(same_model(&at("http://embedder:8080"), &at("http://embedder:8080")).is_empty());
    }

    #[test]
    fn long_filters_and_templates_are_shortened() {
        let details = of(|after| after.filter = Some(SourceFilter("x".repeat(100))));
        assert_eq!(details, [format!("filter none → {}…", "x".repeat(LONGEST - 1))]);
        let template = |declaration: &mut Declaration, text: &str| declaration.text.template = Some(text.to_owned());
        assert_eq!(of(|after| template(after, "{{ a }}")), ["text every string → template"]);
        let mut before = declaration("tickets");
        template(&mut before, "{{ a }}");
        assert_eq!(between(&before, |after| template(after, "{{ b }}")), ["template of the text"]);
    }
}
