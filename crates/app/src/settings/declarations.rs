//! Declarations: those of `[[index]]`, and that of the short form.
//!
//! `mongodb.database`, `mongodb.collection`, `[documents]` and `qdrant.collection` are the short form of one index. Its declaration
//! states what the services do with these settings.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};
use tidewheel_core::catalog::{
    Blank, ChunkDeclaration, CollectionSpec, Datatype, Declaration, IndexName, OnDeadLetter, PayloadDeclaration,
    PayloadIndex, Rules, Selector, SelectorError, TextDeclaration, VectorLayout,
};
use tidewheel_core::payload::RESERVED;
use tidewheel_core::ports::SourceFilter;
use tidewheel_pipeline::processor::{Renderer, TextOptions};

use super::error::Problem;
use super::filter;
use super::keys::SHORT_FORM;
use super::layers::Declared;
use super::names::Family;
use super::origin::Origin;
use super::reader::Reader;
use super::resolve::{excluded, is_kept};
use super::resolved::{Embedding, Settings};
use super::units;
use super::value::{Value, quoted};

/// The declaration of the short form. Without `mongodb.database` it covers nothing.
pub(super) fn short_form(settings: &Settings) -> Declaration {
    let documents = &settings.documents;
    let (fields, exclude) = (documents.fields.clone(), documents.exclude.clone());
    let source = match &settings.mongodb.database {
        Some(database) => Selector::of_database(database, &settings.mongodb.collection),
        None => Selector::default(),
    };
    let name = IndexName::of_collection(&settings.qdrant.collection);
    Declaration {
        text: text(documents.template.clone(), fields, exclude.clone(), documents.skips_blank),
        chunk: ChunkDeclaration {
            tokens: documents.chunk_tokens,
            overlap: documents.chunk_overlap,
            max: documents.max_chunks,
            prefix: None,
        },
        payload: PayloadDeclaration { include: documents.include.clone(), exclude, ..PayloadDeclaration::default() },
        rules: Rules { on_dead_letter: on_dead_letter(documents.removes_parked), ..Rules::default() },
        ..Declaration::new(name, source, settings.embedding.spec())
    }
}

/// The declarations of `[[index]]`, in the order of the file.
pub(super) fn declared(reader: &mut Reader<'_>, settings: &Settings) -> Vec<Declaration> {
    let layers = reader.layers;
    let tables = layers.declared(Family::Index);
    if !tables.is_empty() {
        for (key, by) in SHORT_FORM.iter().copied() {
            if let Some(origin) = reader.origin(key).filter(|origin| **origin != Origin::Default).cloned() {
                reader.problems.push(Problem::Replaced { key, origin, by });
            }
        }
    }
    let read = |table: &Declared| Table { name: &table.name, reader: &mut *reader }.declaration(table, settings);
    tables.iter().filter_map(read).collect()
}

/// Reads one `[[index]]`.
struct Table<'a, 'r> {
    name: &'a str,
    reader: &'a mut Reader<'r>,
}

impl Table<'_, '_> {
    fn key(&self, key: &str) -> String {
        Family::Index.full(self.name, key)
    }

    fn text(&self, key: &str) -> Option<String> {
        self.reader.text(&self.key(key))
    }

    fn names(&self, key: &str) -> Vec<String> {
        self.reader.names(&self.key(key))
    }

    fn size(&self, key: &str) -> Option<usize> {
        self.reader.size(&self.key(key))
    }

    fn flag(&self, key: &str) -> bool {
        matches!(self.reader.value(&self.key(key)), Some(Value::Flag(true)))
    }

    fn structured(&self, key: &str) -> Map<String, Json> {
        match self.reader.value(&self.key(key)) {
            Some(Value::Structured(Json::Object(fields))) => fields.clone(),
            _ => Map::new(),
        }
    }

    fn invalid_part(&mut self, key: &str, given: &str, expected: &str) {
        let key = self.key(key);
        self.reader.invalid_part(&key, given, expected);
    }

    /// Reports every problem, and returns a declaration unless it lacks what it requires.
    fn declaration(mut self, table: &Declared, settings: &Settings) -> Option<Declaration> {
        let name = IndexName::new(self.name).ok()?;
        let source = self.source(table, settings.mongodb.database.as_deref());
        let embedding = self.text("embedding").unwrap_or_default();
        let spec = settings.embedding_of(&embedding).map(Embedding::spec);
        if spec.is_none() {
            let names: Vec<&str> = settings.embedding_names().collect();
            self.invalid_part("embedding", &embedding, &format!("the name of an embedding: {}", names.join(", ")));
        }
        let payload = self.payload();
        let prefix = self.template("chunk.prefix");
        Some(Declaration {
            filter: self.filter(),
            text: self.document_text(&payload.exclude),
            chunk: ChunkDeclaration {
                tokens: self.size("chunk.tokens"),
                overlap: self.size("chunk.overlap").unwrap_or_default(),
                max: self.size("chunk.max").unwrap_or_default(),
                prefix,
            },
            payload,
            payload_indexes: self.payload_indexes(),
            vectors: self.vectors(),
            collection: self.collection(),
            rules: self.rules(),
            ..Declaration::new(name, source?, spec?)
        })
    }

    fn source(&mut self, table: &Declared, database: Option<&str>) -> Option<Selector> {
        let key = self.key("source");
        if self.reader.value(&key).is_none() {
            if !self.reader.problems.iter().any(|problem| problem.invalid_key() == Some(key.as_str())) {
                let needed_by = format!("[[index]] ({})", table.origin);
                self.reader.problems.push(Problem::Missing { key, needed_by });
            }
            return None;
        }
        let error = match Selector::parse(&self.names("source"), database) {
            Ok(selector) => return Some(selector),
            Err(error) => error,
        };
        match &error {
            SelectorError::Malformed(text) => {
                self.invalid_part("source", text, "database.collection, such as \"shop.notes_*\" or \"!shop.tmp_*\"");
            }
            SelectorError::NoDatabase(text) => {
                self.invalid_part("source", text, "database.collection, or mongodb.database to be set");
            }
            SelectorError::System(text) => {
                self.invalid_part("source", text, "a collection outside of admin, config, local and system.*");
            }
            SelectorError::Empty => {
                self.reader.invalid(&key, "at least one pattern without \"!\", such as \"shop.tickets\"");
            }
        }
        None
    }

    fn filter(&self) -> Option<SourceFilter> {
        match self.reader.value(&self.key("filter")) {
            // Without conditions it selects every document. It was validated when it was read.
            Some(Value::Query(query)) if query.as_object().is_some_and(|query| !query.is_empty()) => {
                filter::canonical(query).ok()
            }
            _ => None,
        }
    }

    fn document_text(&mut self, not_in_payload: &[String]) -> TextDeclaration {
        let template = self.template("text.template");
        let fields = self.names("text.fields");
        // The texts of chunks are part of points too: what payloads exclude stays out of them.
        let exclude = match self.reader.value(&self.key("text.exclude")) {
            Some(Value::Names(paths)) => paths.clone(),
            _ => not_in_payload.to_vec(),
        };
        text(template, fields, exclude, self.text("text.blank").as_deref() == Some("skip"))
    }

    /// Reads and checks a template.
    fn template(&mut self, key: &str) -> Option<String> {
        let template = self.text(key)?;
        let options = TextOptions { template: Some(template.clone()), ..TextOptions::default() };
        if let Err(error) = Renderer::new(&options) {
            // The message names the setting of the short form.
            let cause = error.message.split_once(": ").map_or(error.message.as_str(), |(_, cause)| cause);
            let cause = cause.replace("documents.template", "template");
            let key = self.key(key);
            let origin = self.reader.origin(&key).cloned().unwrap_or(Origin::Default);
            self.reader.problems.push(Problem::Rejected { key, origin, cause });
        }
        Some(template)
    }

    fn payload(&mut self) -> PayloadDeclaration {
        let exclude = self.key("payload.exclude");
        let include = self.names("payload.include");
        let rename = self.rename(&include);
        PayloadDeclaration {
            include,
            exclude: excluded(self.reader, &exclude),
            rename,
            full: self.flag("payload.full"),
        }
    }

    fn rename(&mut self, include: &[String]) -> BTreeMap<String, String> {
        let text = |(path, name): (String, Json)| Some((path, name.as_str()?.to_owned()));
        let rename: BTreeMap<String, String> = self.structured("payload.rename").into_iter().filter_map(text).collect();
        for (path, name) in &rename {
            if is_kept(path) {
                self.invalid_part(
                    "payload.rename",
                    path,
                    "fields other than _id and _tidewheel, which keep their names",
                );
            }
            if name.starts_with('$') || name.contains('.') || is_kept(name) {
                let expected = "new names without dots, other than _id and _tidewheel";
                self.invalid_part("payload.rename", name, expected);
            }
        }
        if let Some((first, second)) = collision(&rename, include) {
            let expected = format!("another name than that of {}", quoted(&second));
            self.invalid_part("payload.rename", &first, &expected);
        }
        rename
    }

    fn payload_indexes(&mut self) -> BTreeMap<String, PayloadIndex> {
        let mut indexes = BTreeMap::new();
        for (path, index) in self.structured("payload.indexes") {
            if path.split('.').next() == Some(RESERVED) {
                self.invalid_part("payload.indexes", &path, "fields other than _tidewheel, which tidewheel indexes");
            } else if let Ok(index) = serde_json::from_value(index) {
                indexes.insert(path, index);
            }
        }
        indexes
    }

    fn vectors(&self) -> VectorLayout {
        let datatype = match self.structured("qdrant.vectors").get("datatype").and_then(Json::as_str) {
            Some("float16") => Datatype::Float16,
            Some("uint8") => Datatype::Uint8,
            _ => Datatype::Float32,
        };
        VectorLayout { datatype, ..VectorLayout::default() }
    }

    fn collection(&self) -> CollectionSpec {
        let mut settings = Map::new();
        for (name, key) in [
            ("replication_factor", "qdrant.replication_factor"),
            ("write_consistency_factor", "qdrant.write_consistency_factor"),
            ("on_disk_payload", "qdrant.on_disk_payload"),
            ("vectors", "qdrant.vectors"),
            ("hnsw", "qdrant.hnsw"),
            ("quantization", "qdrant.quantization"),
            ("optimizers", "qdrant.optimizers"),
            ("strict_mode", "qdrant.strict_mode"),
        ] {
            let mut value = match self.reader.value(&self.key(key)) {
                Some(Value::Count(number)) => Json::from(*number),
                Some(Value::Flag(flag)) => Json::from(*flag),
                Some(Value::Structured(value)) => value.clone(),
                _ => continue,
            };
            if let Json::Object(fields) = &mut value {
                // Part of the layout of vectors, which cannot be altered.
                fields.shift_remove("datatype");
                // An empty table sets nothing. Methods of quantization are never empty as a whole.
                if fields.is_empty() {
                    continue;
                }
            }
            settings.insert(name.to_owned(), value);
        }
        let shards = self.size("qdrant.shard_number");
        let shard_number = shards.map(|shards| u32::try_from(shards).unwrap_or(u32::MAX));
        CollectionSpec { shard_number, sharding_method: None, settings }
    }

    fn rules(&mut self) -> Rules {
        let key = self.key("keep");
        let keep = self.reader.duration(&key);
        if keep < Rules::LEAST_KEEP {
            let expected = format!("a duration of at least {}", units::show_duration(Rules::LEAST_KEEP));
            self.reader.invalid(&key, &expected);
        }
        Rules { on_dead_letter: on_dead_letter(self.text("on_dead_letter").as_deref() == Some("remove")), keep }
    }
}

/// A template replaces fields, so that a change of fields without effect is none of the declaration.
fn text(template: Option<String>, fields: Vec<String>, exclude: Vec<String>, skips_blank: bool) -> TextDeclaration {
    let blank = if skips_blank { Blank::Skip } else { Blank::Index };
    match template {
        Some(_) => TextDeclaration { template, blank, ..TextDeclaration::default() },
        None => TextDeclaration { template, fields, exclude, blank },
    }
}

fn on_dead_letter(removes: bool) -> OnDeadLetter {
    if removes { OnDeadLetter::Remove } else { OnDeadLetter::Keep }
}

/// Returns two fields that would get the same name, or of which one contains the other.
fn collision(rename: &BTreeMap<String, String>, include: &[String]) -> Option<(String, String)> {
    let inside = |path: &str, other: &str| path.strip_prefix(other).is_some_and(|rest| rest.starts_with('.'));
    for (at, (path, name)) in rename.iter().enumerate() {
        for (other, other_name) in rename.iter().skip(at + 1) {
            if name == other_name || inside(other, path) {
                return Some((path.clone(), other.clone()));
            }
        }
        // A field that is known to keep its name.
        let keeps = |kept: &&String| {
            (*kept == name || inside(kept, name)) && !rename.keys().any(|path| path == *kept || inside(kept, path))
        };
        if let Some(kept) = include.iter().find(keeps) {
            return Some((path.clone(), kept.clone()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Renamed fields, included fields, and the two that collide.
    type Case =
        (&'static [(&'static str, &'static str)], &'static [&'static str], Option<(&'static str, &'static str)>);

    #[test]
    fn renamed_fields_collide_by_name_and_by_path() {
        const CASES: &[Case] = &[
            (&[("a", "x"), ("b", "x")], &[], Some(("a", "b"))),
            (&[("a", "x"), ("a.b", "y")], &[], Some(("a", "a.b"))),
            (&[("a", "x")], &["a", "x"], Some(("a", "x"))),
            (&[("a", "x")], &["a", "x.y"], Some(("a", "x.y"))),
            (&[("a", "b"), ("b", "a")], &["a", "b"], None),
            (&[("a", "x"), ("ab", "y")], &["a", "ab", "c"], None),
            (&[("customer.name", "customer")], &["customer.name"], None),
            (&[("a", "x")], &[], None),
        ];
        for (rename, include, expected) in CASES {
            let renamed = rename.iter().map(|(path, name)| ((*path).to_owned(), (*name).to_owned())).collect();
            let included: Vec<String> = include.iter().map(|path| (*path).to_owned()).collect();
            let expected = expected.map(|(first, second)| (first.to_owned(), second.to_owned()));
            assert_eq!(collision(&renamed, &included), expected, "{rename:?} {include:?}");
        }
    }
}
