//! Names of settings: `table.key`; `index.NAME.key` in `[[index]]`, `embedding.NAME.key` in `[embedding.NAME]`.
//!
//! Two tables have second spellings: `[embedding.default]` is `[embedding]`, and keys of `[index.qdrant]` may end in `_config`, as
//! in Qdrant's own API. Values are stored under one of them.

use std::borrow::Cow;

use super::keys::{INDEX_KEYS, KEYS, Key};

/// A table of which several can be declared, each with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// `[[index]]`
    Index,
    /// `[embedding.NAME]`
    Embedding,
}

impl Family {
    /// The first part of the names of its settings.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Embedding => "embedding",
        }
    }

    /// The keys of each of its tables, with the names relative to it.
    pub(super) fn keys(self) -> impl Iterator<Item = (&'static str, &'static Key)> {
        let (keys, prefix) = match self {
            Self::Index => (INDEX_KEYS, ""),
            Self::Embedding => (KEYS, "embedding."),
        };
        keys.iter().filter_map(move |key| Some((key.name.strip_prefix(prefix)?, key)))
    }

    /// The full name of a key.
    pub(super) fn full(self, table: &str, key: &str) -> String {
        format!("{}.{table}.{key}", self.name())
    }
}

/// Name of `[embedding]` among the embeddings.
pub(crate) const DEFAULT_EMBEDDING: &str = "default";

/// Splits the full name of a setting in a declared table into the family, the table and the relative name.
pub(crate) fn split(name: &str) -> Option<(Family, &str, &str)> {
    let (family, rest) = name.split_once('.')?;
    let family = [Family::Index, Family::Embedding].into_iter().find(|known| known.name() == family)?;
    let (table, key) = rest.split_once('.')?;
    Some((family, table, key))
}

/// Returns the name under which the value is stored.
pub(super) fn canonical(name: &str) -> Cow<'_, str> {
    match split(name) {
        Some((Family::Embedding, DEFAULT_EMBEDDING, key)) => format!("embedding.{key}").into(),
        Some((Family::Index, _, key)) if key.starts_with("qdrant.") => {
            name.strip_suffix("_config").unwrap_or(name).into()
        }
        _ => name.into(),
    }
}

/// Returns the key of this full name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    let name = canonical(name);
    let fixed = KEYS.iter().find(|key| key.name == name);
    fixed.or_else(|| {
        let (family, _, relative) = split(&name)?;
        family.keys().find(|(key, _)| *key == relative).map(|(_, key)| key)
    })
}

/// Whether any key is below this name.
pub(super) fn is_table(name: &str) -> bool {
    let inside = |key: &str, table: &str| key.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'));
    KEYS.iter().any(|key| inside(key.name, name))
        || split(name).is_some_and(|(family, _, table)| family.keys().any(|(key, _)| inside(key, table)))
}

/// Returns the setting most similar to this unknown one; `None` if none is similar.
pub(super) fn nearest(name: &str) -> Option<String> {
    if let Some((family, table, relative)) = split(name) {
        return nearest_of(relative, family.keys().map(|(key, _)| key)).map(|key| family.full(table, key));
    }
    let tables = std::iter::once(Family::Index.name());
    nearest_of(name, KEYS.iter().map(|key| key.name).chain(tables)).map(str::to_owned)
}

/// Returns the most similar of these names; `None` if none is similar.
pub(super) fn nearest_of<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    // Up to half of the name may differ: `mongo.url` still matches `mongodb.uri`.
    names
        .map(|known| (strsim::normalized_damerau_levenshtein(name, known), known))
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// Prefix of environment variables for settings.
pub(super) const PREFIX: &str = "TIDEWHEEL__";

/// Returns the environment variable of a setting.
pub(crate) fn variable(name: &str) -> String {
    // Names of indexes may have hyphens, names of variables may not.
    format!("{PREFIX}{}", name.to_ascii_uppercase().replace('.', "__").replace('-', "_"))
}

/// Returns the variable most similar to this unknown one; `None` if none is similar.
pub(super) fn nearest_variable(given: &str, likeness: f64) -> Option<String> {
    let given = given.to_ascii_uppercase();
    KEYS.iter()
        .map(|key| variable(key.name))
        .map(|variable| (strsim::normalized_damerau_levenshtein(&given, &variable), variable))
        .filter(|(found, _)| *found >= likeness)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, variable)| variable)
}

/// Names the setting as the example file does.
pub(super) fn documented(name: &str) -> String {
    match split(name) {
        Some((Family::Index, _, key)) => format!("`{key}` of [[index]]"),
        Some((Family::Embedding, _, key)) => format!("embedding.{key}"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_the_intended_key() {
        for (given, meant) in [
            ("mongo.uri", "mongodb.uri"),
            ("mongodb.collections", "mongodb.collection"),
            ("qdrant.apikey", "qdrant.api_key"),
            ("processor.claimafter", "processor.claim_after"),
            ("document.fields", "documents.fields"),
            ("embeder.model", "embedder.model"),
            ("indexes", "index"),
            ("index.tickets.sources", "index.tickets.source"),
            ("index.tickets.text.templat", "index.tickets.text.template"),
            ("index.tickets.qdrant.hsnw", "index.tickets.qdrant.hnsw"),
            ("embedding.large.modle", "embedding.large.model"),
        ] {
            assert_eq!(nearest(given).as_deref(), Some(meant));
        }
        for unlike in ["zzz.yyy", "index.tickets.zzz"] {
            assert_eq!(nearest(unlike), None);
        }
    }

    #[test]
    fn settings_of_declared_tables_have_their_keys() {
        for (name, key) in [
            ("mongodb.uri", Some("mongodb.uri")),
            ("embedding.api_key", Some("embedding.api_key")),
            ("embedding.large.api_key", Some("embedding.api_key")),
            ("embedding.default.api_key", Some("embedding.api_key")),
            ("index.tickets.text.fields", Some("text.fields")),
            ("index.tickets.qdrant.hnsw", Some("qdrant.hnsw")),
            ("index.tickets.qdrant.hnsw_config", Some("qdrant.hnsw")),
            ("index.tickets.chunk_config", None),
            ("index.text.fields", None),
            ("index.tickets", None),
            ("embedding.large", None),
            ("mongodb.large.uri", None),
        ] {
            assert_eq!(find(name).map(|key| key.name), key, "{name}");
        }
        assert_eq!(canonical("embedding.default.url"), "embedding.url");
        assert_eq!(canonical("index.tickets.qdrant.hnsw_config"), "index.tickets.qdrant.hnsw");
        assert_eq!(canonical("index.tickets.keep"), "index.tickets.keep");
    }

    #[test]
    fn tables_contain_keys() {
        for table in ["mongodb", "documents.payload", "embedding", "index.tickets.text", "index.tickets.qdrant"] {
            assert!(is_table(table), "{table}");
        }
        for other in
            ["mongo", "mongodb.uri", "index.tickets.text.fields", "index.tickets.mongodb", "embedding.large.tls"]
        {
            assert!(!is_table(other), "{other}");
        }
    }

    #[test]
    fn variables_have_two_underscores_for_each_dot() {
        assert_eq!(variable("mongodb.uri"), "TIDEWHEEL__MONGODB__URI");
        assert_eq!(variable("index.my-tickets.chunk.max"), "TIDEWHEEL__INDEX__MY_TICKETS__CHUNK__MAX");
    }
}
