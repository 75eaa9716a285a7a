//! Document identities and the ids of their points.

use std::fmt;

use uuid::Uuid;

/// The UUID namespace of all derived ids. Changing it would orphan every existing point.
const TIDEWHEEL: Uuid = Uuid::from_u128(0x3f1c_6a52_9d84_4e07_8b21_57c0_a4de_6613);

/// The namespace of a document, `database.collection`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(String);

impl Namespace {
    /// The namespace of `collection` in `database`. Neither may be empty; a database name contains no dot.
    pub fn new(database: &str, collection: &str) -> Self {
        Self(format!("{database}.{collection}"))
    }

    /// Parses `database.collection`; `None` without a dot or with an empty side.
    pub fn parse(text: &str) -> Option<Self> {
        let (database, collection) = text.split_once('.')?;
        (!database.is_empty() && !collection.is_empty()).then(|| Self(text.to_owned()))
    }

    /// The part before the first dot.
    pub fn database(&self) -> &str {
        self.0.split_once('.').map_or("", |(database, _)| database)
    }

    /// The part after the first dot; a collection name may contain dots.
    pub fn collection(&self) -> &str {
        self.0.split_once('.').map_or("", |(_, collection)| collection)
    }

    /// `database.collection`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The identity of a document across the pipeline: UUIDv5 of its namespace and its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentId(Uuid);

impl DocumentId {
    /// The identity of the document with this [key](crate::key).
    ///
    /// A key of an earlier form yields the identity that an earlier release derived.
    pub fn new(namespace: &Namespace, key: &str) -> Self {
        let mut name = Vec::with_capacity(namespace.as_str().len() + 1 + key.len());
        name.extend_from_slice(namespace.as_str().as_bytes());
        name.push(0);
        name.extend_from_slice(key.as_bytes());
        Self(Uuid::new_v5(&TIDEWHEEL, &name))
    }

    /// The id of the point that holds chunk `chunk` (from 0) of this document.
    pub fn point(self, chunk: u32) -> Uuid {
        Uuid::new_v5(&self.0, &chunk.to_be_bytes())
    }

    /// The identity as a UUID.
    pub fn uuid(self) -> Uuid {
        self.0
    }

    /// Restores an identity read from a store.
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_never_change_between_releases() {
        let id = DocumentId::new(&Namespace::new("shop", "tickets"), r#"{"$oid":"65f000000000000000000001"}"#);
        assert_eq!(id.to_string(), "0764ca76-b32e-56b6-a89f-522bf42e2798");
        assert_eq!(id.point(0).to_string(), "04838d83-2e79-5341-a420-fa50b08cfcb8");
    }

    #[test]
    fn namespace_and_key_boundaries_are_unambiguous() {
        let ids: HashSet<_> = [("a.b", "c"), ("a.bc", ""), ("a.b", "c\0"), ("a.b", "\0c")]
            .map(|(namespace, key)| DocumentId::new(&Namespace::parse(namespace).unwrap(), key))
            .into();
        assert_eq!(ids.len(), 4);
        let number = DocumentId::new(&Namespace::new("a", "b"), r#"{"$numberInt":"1"}"#);
        let long = DocumentId::new(&Namespace::new("a", "b"), r#"{"$numberLong":"1"}"#);
        assert_ne!(number, long);
    }

    #[test]
    fn collection_name_may_contain_dots() {
        let namespace = Namespace::parse("shop.eu.tickets").unwrap();
        assert_eq!((namespace.database(), namespace.collection()), ("shop", "eu.tickets"));
        assert_eq!(Namespace::parse("shop"), None);
        assert_eq!(Namespace::parse(".tickets"), None);
    }
}
