//! Selectors: the collections that an index covers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::identity::Namespace;

/// Databases of the source's own, which no selector covers.
const SYSTEM_DATABASES: [&str; 3] = ["admin", "config", "local"];

/// Prefix of the source's own collections, which no selector covers.
const SYSTEM_COLLECTIONS: &str = "system.";

/// A name, or a pattern in which `*` matches any sequence of characters, also an empty one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Glob(String);

impl Glob {
    /// A name or a pattern. Consecutive `*` are one.
    pub fn new(pattern: &str) -> Self {
        let mut text = String::with_capacity(pattern.len());
        for letter in pattern.chars() {
            if letter != '*' || !text.ends_with('*') {
                text.push(letter);
            }
        }
        Self(text)
    }

    /// The name or pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name; `None` of a pattern.
    pub fn exact(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&self.0)
    }

    /// Whether it matches every name.
    pub fn is_any(&self) -> bool {
        self.0 == "*"
    }

    /// Whether it matches this name.
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A pattern of namespaces: `shop.tickets`, `shop.notes_*`, `*.tickets`, `!shop.tmp_*`. A `*` matches within its side of
/// the first dot. Written so in JSON.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamespacePattern {
    /// Whether it excludes what it matches. Written as a leading `!`.
    pub exclude: bool,
    /// The databases.
    pub database: Glob,
    /// The collections. A name of a collection may contain dots.
    pub collection: Glob,
}

impl NamespacePattern {
    /// Parses a pattern. One without a dot selects collections of the default database.
    ///
    /// # Errors
    /// A side is empty or has a character that names cannot have; the pattern selects only collections of the source's
    /// own; or it has no dot and there is no default database.
    pub fn parse(text: &str, default_database: Option<&str>) -> Result<Self, SelectorError> {
        let (exclude, pattern) = text.strip_prefix('!').map_or((false, text), |pattern| (true, pattern));
        let (database, collection) = match (pattern.split_once('.'), default_database) {
            (Some(sides), _) => sides,
            (None, Some(database)) => (database, pattern),
            (None, None) => return Err(SelectorError::NoDatabase(text.to_owned())),
        };
        let no_database = |letter: char| letter.is_control() || "/\\ \"$<>:|?".contains(letter);
        let no_collection = |letter: char| letter.is_control() || letter == '$';
        if database.is_empty()
            || collection.is_empty()
            || database.contains(no_database)
            || collection.contains(no_collection)
        {
            return Err(SelectorError::Malformed(text.to_owned()));
        }
        if SYSTEM_DATABASES.contains(&database) || collection.starts_with(SYSTEM_COLLECTIONS) {
            return Err(SelectorError::System(text.to_owned()));
        }
        Ok(Self { exclude, database: Glob::new(database), collection: Glob::new(collection) })
    }

    /// Whether it matches this namespace, be it to include or to exclude it.
    pub fn matches(&self, namespace: &Namespace) -> bool {
        self.database.matches(namespace.database()) && self.collection.matches(namespace.collection())
    }

    /// Whether this pattern matches all that `other` matches, and has the same effect.
    fn contains(&self, other: &Self) -> bool {
        let covers = |ours: &Glob, theirs: &Glob| ours.is_any() || ours == theirs;
        self.exclude == other.exclude
            && covers(&self.database, &other.database)
            && covers(&self.collection, &other.collection)
    }
}

impl fmt::Display for NamespacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.exclude { "!" } else { "" };
        write!(f, "{sign}{}.{}", self.database, self.collection)
    }
}

impl FromStr for NamespacePattern {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text, None)
    }
}

impl TryFrom<String> for NamespacePattern {
    type Error = SelectorError;

    /// Restores a pattern read from a store: checks only that it has both sides.
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let (exclude, pattern) = text.strip_prefix('!').map_or((false, text.as_str()), |pattern| (true, pattern));
        match pattern.split_once('.') {
            Some((database, collection)) => {
                Ok(Self { exclude, database: Glob::new(database), collection: Glob::new(collection) })
            }
            None => Err(SelectorError::NoDatabase(text)),
        }
    }
}

impl From<NamespacePattern> for String {
    fn from(pattern: NamespacePattern) -> Self {
        pattern.to_string()
    }
}

/// The collections that an index covers: those that an inclusion and no exclusion matches. Never `admin`, `config`,
/// `local`, and never `system.*`.
///
/// Patterns are sorted and deduplicated, so that equal selections compare as equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<NamespacePattern>")]
pub struct Selector(Vec<NamespacePattern>);

impl Selector {
    /// A selector of these patterns. Without an inclusion it covers nothing.
    pub fn new(mut patterns: Vec<NamespacePattern>) -> Self {
        patterns.sort_unstable();
        patterns.dedup();
        let redundant =
            |pattern: &NamespacePattern| patterns.iter().any(|other| other != pattern && other.contains(pattern));
        let kept = patterns.iter().filter(|pattern| !redundant(pattern)).cloned().collect();
        Self(kept)
    }

    /// Parses patterns, of which those without a dot select collections of the default database.
    ///
    /// # Errors
    /// A pattern is invalid, or none is an inclusion.
    pub fn parse<P: AsRef<str>>(patterns: &[P], default_database: Option<&str>) -> Result<Self, SelectorError> {
        let patterns: Vec<NamespacePattern> = patterns
            .iter()
            .map(|pattern| NamespacePattern::parse(pattern.as_ref(), default_database))
            .collect::<Result<_, _>>()?;
        if patterns.iter().all(|pattern| pattern.exclude) {
            return Err(SelectorError::Empty);
        }
        Ok(Self::new(patterns))
    }

    /// The selector of the short form: names and patterns of collections in one database, without a check. No names
    /// select every collection.
    pub fn of_database<P: AsRef<str>>(database: &str, collections: &[P]) -> Self {
        let pattern = |collection: &str| NamespacePattern {
            exclude: false,
            database: Glob::new(database),
            collection: Glob::new(collection),
        };
        let patterns: Vec<_> = collections.iter().map(|collection| pattern(collection.as_ref())).collect();
        Self::new(if patterns.is_empty() { vec![pattern("*")] } else { patterns })
    }

    /// The patterns, sorted, without redundant ones.
    pub fn patterns(&self) -> &[NamespacePattern] {
        &self.0
    }

    /// The patterns that include.
    pub fn inclusions(&self) -> impl Iterator<Item = &NamespacePattern> {
        self.0.iter().filter(|pattern| !pattern.exclude)
    }

    /// The patterns that exclude.
    pub fn exclusions(&self) -> impl Iterator<Item = &NamespacePattern> {
        self.0.iter().filter(|pattern| pattern.exclude)
    }

    /// Whether it covers this namespace.
    pub fn covers(&self, namespace: &Namespace) -> bool {
        !is_system(namespace)
            && self.inclusions().any(|pattern| pattern.matches(namespace))
            && !self.exclusions().any(|pattern| pattern.matches(namespace))
    }

    /// The databases that it may cover.
    pub fn databases(&self) -> Databases {
        let mut names = self.inclusions().map(|pattern| pattern.database.exact());
        match names.next() {
            Some(Some(first)) if names.all(|name| name == Some(first)) => Databases::One(first.to_owned()),
            _ => Databases::Several,
        }
    }

    /// The only namespace that it may cover; `None` if there may be several.
    pub fn exact(&self) -> Option<Namespace> {
        let mut inclusions = self.inclusions();
        match (inclusions.next(), inclusions.next()) {
            (Some(only), None) => Some(Namespace::new(only.database.exact()?, only.collection.exact()?)),
            _ => None,
        }
    }

    /// A stable identity: equal for equal selectors, different for different ones. Checkpoints store it.
    pub fn identity(&self) -> String {
        // The texts of releases that knew collections of one database only.
        if let Databases::One(database) = self.databases()
            && self.exclusions().next().is_none()
        {
            return match self.0.as_slice() {
                [only] if only.collection.is_any() => format!("{database}.*"),
                patterns => {
                    let collections: Vec<&str> = patterns.iter().map(|pattern| pattern.collection.as_str()).collect();
                    format!("{database}{collections:?}")
                }
            };
        }
        let patterns: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        format!("{patterns:?}")
    }
}

impl From<Vec<NamespacePattern>> for Selector {
    fn from(patterns: Vec<NamespacePattern>) -> Self {
        Self::new(patterns)
    }
}

/// Whether the namespace is the source's own.
fn is_system(namespace: &Namespace) -> bool {
    SYSTEM_DATABASES.contains(&namespace.database()) || namespace.collection().starts_with(SYSTEM_COLLECTIONS)
}

/// The databases that a selector may cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Databases {
    /// This one.
    One(String),
    /// More than one, or those that match a pattern.
    Several,
}

/// An invalid pattern. Its text states the expected form.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelectorError {
    /// A side is empty, or has a character that names cannot have.
    #[error(
        "invalid source {0:?}: expected database.collection, such as \"shop.tickets\", \"shop.notes_*\" or \"!shop.tmp_*\""
    )]
    Malformed(String),
    /// It has no database.
    #[error(
        "invalid source {0:?}: expected database.collection, such as \"shop.tickets\"; a name without a database needs a default database"
    )]
    NoDatabase(String),
    /// It selects only collections of the source's own.
    #[error("invalid source {0:?}: admin, config, local and system.* cannot be indexed")]
    System(String),
    /// No pattern includes anything.
    #[error("invalid source: expected at least one pattern without \"!\", such as \"shop.tickets\"")]
    Empty,
}

#[cfg(test)]
mod tests;
