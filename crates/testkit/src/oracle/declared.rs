//! What an index was declared to be, read from the settings without tidewheel's own reader.

use std::collections::BTreeMap;

use bson::{Bson, Document, doc};
use serde::Deserialize;
use serde_json::Value;

use super::OracleError;
use super::paths;
use super::text::{Template, of_fields};

/// The declaration of an index in the settings file, as far as the oracle checks it: the collections, the filter, the
/// text, the length and the prefix of chunks, and the payload.
///
/// Templates consist of literal text and fields, and paths lead through documents only: whatever else is declared,
/// [`Declared::all`] refuses or ignores.
#[derive(Clone, Debug)]
pub struct Declared {
    name: String,
    source: Vec<Pattern>,
    filter: Document,
    template: Option<Template>,
    fields: Vec<String>,
    excluded_text: Vec<String>,
    skips_blank: bool,
    prefix: Option<Template>,
    tokens: Option<usize>,
    payload: Payload,
}

/// The settings file.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    mongodb: MongoDb,
    #[serde(default)]
    index: Vec<Table>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MongoDb {
    database: Option<String>,
}

/// `[[index]]`.
#[derive(Deserialize)]
struct Table {
    name: String,
    source: Source,
    filter: Option<Value>,
    #[serde(default)]
    text: Text,
    #[serde(default)]
    chunk: Chunk,
    #[serde(default)]
    payload: Payload,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Source {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
#[serde(default)]
struct Text {
    template: Option<String>,
    fields: Vec<String>,
    exclude: Option<Vec<String>>,
    blank: String,
}

impl Default for Text {
    fn default() -> Self {
        let fields = ["subject", "content"].map(str::to_owned).into();
        Self { template: None, fields, exclude: None, blank: "index".to_owned() }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Chunk {
    tokens: Option<usize>,
    prefix: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Payload {
    include: Vec<String>,
    exclude: Vec<String>,
    rename: BTreeMap<String, String>,
    full: bool,
}

/// A pattern of collections.
#[derive(Clone, Debug)]
struct Pattern {
    exclude: bool,
    database: String,
    collection: String,
}

impl Declared {
    /// Every index that these settings declare.
    ///
    /// # Errors
    /// If a declaration is invalid, or the oracle does not support it.
    pub fn all(settings: &str) -> Result<Vec<Self>, OracleError> {
        let file: File = toml::from_str(settings).map_err(|error| OracleError::Declaration(error.to_string()))?;
        let database = file.mongodb.database.as_deref();
        file.index.into_iter().map(|table| table.declared(database).map_err(OracleError::Declaration)).collect()
    }

    /// The index of this name in these settings.
    ///
    /// # Errors
    /// As [`Declared::all`], or if there is no such index.
    pub fn of(settings: &str, name: &str) -> Result<Self, OracleError> {
        let found = Self::all(settings)?.into_iter().find(|declared| declared.name == name);
        found.ok_or_else(|| OracleError::Declaration(format!("index {name:?} is not declared")))
    }

    /// The name of the index.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it covers a collection.
    pub(super) fn covers(&self, database: &str, collection: &str) -> bool {
        let is_own = ["admin", "config", "local"].contains(&database) || collection.starts_with("system.");
        let matches = |exclude: bool| {
            self.source.iter().any(|pattern| {
                pattern.exclude == exclude
                    && is_like(database.as_bytes(), pattern.database.as_bytes())
                    && is_like(collection.as_bytes(), pattern.collection.as_bytes())
            })
        };
        !is_own && matches(false) && !matches(true)
    }

    /// The condition on documents, for MongoDB's `find`.
    pub(super) fn filter(&self) -> Document {
        self.filter.clone()
    }

    /// The text of a document; `None` if it has none, and such documents are not indexed.
    pub(super) fn text(&self, document: &Document) -> Option<String> {
        let text = match &self.template {
            Some(template) => template.render(document),
            None => of_fields(document, &self.fields, &self.excluded_text),
        };
        let is_left_out = self.skips_blank && text.trim().is_empty();
        (!is_left_out).then_some(text)
    }

    /// The text in front of every chunk of a document in the input of the embedder.
    pub(super) fn prefix(&self, document: &Document) -> String {
        self.prefix.as_ref().map(|prefix| prefix.render(document)).unwrap_or_default()
    }

    /// Maximum number of tokens of a chunk, with the prefix.
    pub(super) fn most_tokens(&self) -> Option<usize> {
        self.tokens
    }

    /// The fields of a document that its points carry.
    pub(super) fn payload(&self, document: &Document) -> Document {
        let Payload { include, exclude, rename, .. } = &self.payload;
        let mut fields = if include.is_empty() { document.clone() } else { paths::keep(document, include) };
        for path in exclude {
            paths::remove(&mut fields, path);
        }
        let renamed = rename.iter().filter_map(|(path, name)| Some((name, paths::get(&fields, path)?.clone())));
        let renamed: Vec<(&String, Bson)> = renamed.collect();
        if !renamed.is_empty() {
            rename.keys().for_each(|path| paths::remove(&mut fields, path));
        }
        for (name, value) in renamed {
            fields.insert(name, value);
        }
        if let Some(id) = document.get("_id") {
            fields.insert("_id", id.clone());
        }
        fields
    }

    /// Whether every point of a document carries all of these fields.
    pub(super) fn carries_all(&self) -> bool {
        self.payload.full
    }
}

impl Table {
    fn declared(self, database: Option<&str>) -> Result<Declared, String> {
        let patterns = match self.source {
            Source::One(pattern) => vec![pattern],
            Source::Several(patterns) => patterns,
        };
        let template = |text: Option<String>| text.map(|text| Template::parse(&text)).transpose();
        Ok(Declared {
            name: self.name,
            source: patterns.iter().map(|pattern| Pattern::parse(pattern, database)).collect::<Result<_, _>>()?,
            filter: query(self.filter)?,
            template: template(self.text.template)?,
            fields: self.text.fields,
            excluded_text: self.text.exclude.unwrap_or_else(|| self.payload.exclude.clone()),
            skips_blank: self.text.blank == "skip",
            prefix: template(self.chunk.prefix)?,
            tokens: self.chunk.tokens,
            payload: self.payload,
        })
    }
}

impl Pattern {
    fn parse(text: &str, default: Option<&str>) -> Result<Self, String> {
        let (exclude, pattern) = text.strip_prefix('!').map_or((false, text), |pattern| (true, pattern));
        let sides = pattern.split_once('.').or_else(|| Some((default?, pattern)));
        let (database, collection) = sides.ok_or_else(|| format!("pattern {text:?} names no database"))?;
        Ok(Self { exclude, database: database.to_owned(), collection: collection.to_owned() })
    }
}

/// A filter: a table, or extended JSON in a string.
fn query(filter: Option<Value>) -> Result<Document, String> {
    let filter = match filter {
        None => return Ok(doc! {}),
        Some(Value::String(text)) => serde_json::from_str(&text).map_err(|error| format!("invalid filter: {error}"))?,
        Some(filter) => filter,
    };
    match Bson::try_from(filter) {
        Ok(Bson::Document(filter)) => Ok(filter),
        Ok(other) => Err(format!("invalid filter: {other}")),
        Err(error) => Err(format!("invalid filter: {error}")),
    }
}

/// Whether a name matches a pattern, in which `*` matches any characters.
fn is_like(name: &[u8], pattern: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|at| is_like(&name[at..], rest)),
        Some((letter, rest)) => name.split_first().is_some_and(|(first, name)| first == letter && is_like(name, rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: &str = r#"
        mongodb.database = "shop"
        redis.url = "redis://127.0.0.1"
        [embedding.tiny]
        model = "hash:32"
        [[index]]
        name = "tickets"
        source = ["tickets", "crm.notes_*", "!crm.notes_tmp*"]
        filter = { status = { "$ne" = "draft" }, n = { "$in" = [1, 2] } }
        text.template = "{{ subject }}\n{{ content }}"
        chunk = { tokens = 20, overlap = 4, prefix = "{{ subject }}" }
        payload = { exclude = ["customer.ssn"], rename = { "customer.name" = "customer" }, indexes = { n = "integer" } }
        [[index]]
        name = "titles"
        source = "*.tickets"
        filter = '{"at": {"$gte": {"$date": "2024-01-01T00:00:00Z"}}}'
        text.blank = "skip"
        payload.include = ["subject", "customer.name"]
        payload.full = true
    "#;

    #[test]
    fn settings_declare_indexes() {
        let [tickets, titles] = Declared::all(SETTINGS).unwrap().try_into().unwrap();
        for (database, collection, expected) in [
            ("shop", "tickets", true),
            ("shop", "tickets2", false),
            ("crm", "notes_a.b", true),
            ("crm", "notes_tmp1", false),
            ("local", "tickets", false),
        ] {
            assert_eq!(tickets.covers(database, collection), expected, "{database}.{collection}");
        }
        assert!(titles.covers("crm", "tickets") && !titles.covers("admin", "tickets"));
        let filter = tickets.filter();
        assert_eq!(filter, doc! {"status": {"$ne": "draft"}, "n": {"$in": [1, 2]}});
        assert!(titles.filter().get_document("at").unwrap().get_datetime("$gte").is_ok());
        assert_eq!((tickets.most_tokens(), titles.carries_all()), (Some(20), true));
        assert_eq!(Declared::of(SETTINGS, "titles").unwrap().name(), "titles");
        assert!(Declared::of(SETTINGS, "notes").is_err());
    }

    #[test]
    fn documents_have_the_declared_text_and_payload() {
        let [tickets, titles] = Declared::all(SETTINGS).unwrap().try_into().unwrap();
        let document = doc! {"_id": 7, "subject": "Late", "customer": {"name": "Ada", "ssn": "1", "tier": 2}, "n": 1};
        assert_eq!((tickets.text(&document).as_deref(), &*tickets.prefix(&document)), (Some("Late"), "Late"));
        assert_eq!(tickets.payload(&document), doc! {"_id": 7, "subject": "Late", "customer": "Ada", "n": 1});
        assert_eq!(titles.payload(&document), doc! {"subject": "Late", "customer": {"name": "Ada"}, "_id": 7});
        assert_eq!(titles.text(&doc! {"_id": 8, "n": 1}), None);
        assert_eq!(tickets.text(&doc! {"_id": 8, "n": 1}).as_deref(), Some(""));
    }

    #[test]
    fn unsupported_declaration_is_refused() {
        let with = |setting: &str| format!("[[index]]\nname = \"a\"\nsource = \"s.a\"\n{setting}\n");
        assert!(Declared::all(&with("")).is_ok());
        for setting in ["text.template = \"{{ a | upper }}\"", "filter = \"[1]\"", "filter = \"{\"", "chunk = 1"] {
            assert!(matches!(Declared::all(&with(setting)), Err(OracleError::Declaration(_))), "{setting}");
        }
        assert!(Declared::all("[[index]]\nname = \"a\"\nsource = \"tickets\"\n").is_err());
    }
}
