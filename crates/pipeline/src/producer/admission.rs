//! Decides which changes can be appended. The others are parked, so that they block nothing.

use tidewheel_core::change::Change;
use tidewheel_core::key;
use tidewheel_core::ports::{Parked, Readable};

use crate::parking::{OnDeadLetter, deletion_at};

/// Size limits of stage 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum size of a key in bytes.
    pub key: usize,
    /// Maximum size of a document in bytes, as extended JSON.
    pub document: usize,
}

impl Limits {
    /// The limits if Redis accepts this many bytes per field.
    pub fn of(most_bytes: Option<usize>) -> Self {
        let most = most_bytes.unwrap_or(usize::MAX);
        Self { key: key::MAX_BYTES.min(most), document: most }
    }
}

/// The rules for changes that may not be appendable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Size limits of stage 1.
    pub limits: Limits,
    /// Effect of a parked change on the indexed version of its document.
    pub on_dead_letter: OnDeadLetter,
}

impl Rules {
    /// No limits, and no effect of parked changes: for readers of the source that append nothing.
    pub const NONE: Self =
        Self { limits: Limits { key: key::MAX_BYTES, document: usize::MAX }, on_dead_letter: OnDeadLetter::Keep };

    /// Returns the deletion to append in place of a parked change, if any. It has the version of the change, which wins
    /// when it is retried. A document with a clipped key was never in the index.
    pub fn removal(self, parked: &Parked) -> Option<Change> {
        let change = &parked.change;
        let removes = self.on_dead_letter == OnDeadLetter::Remove && !key::is_clipped(&change.key);
        removes.then(|| deletion_at(change.version, change))
    }
}

/// Returns the change with its document, or the parked change with the reason.
pub fn admit(change: Change, document: Option<Readable>, limits: Limits) -> Result<Change, Box<Parked>> {
    let refused = |change: Change, reason: String| Err(Box::new(Parked { change, reason }));
    let bytes = change.key.len();
    if bytes > limits.key && !key::is_clipped(&change.key) {
        let key = key::clipped(&change.key);
        let change = Change { id: key.clone(), key, ..change };
        return refused(change, format!("the `_id` is too large: {bytes} bytes, at most {}", limits.key));
    }
    match document {
        None => Ok(change),
        Some(Err(reason)) => refused(change, reason),
        Some(Ok(document)) if document.len() > limits.document => {
            let (bytes, most) = (document.len(), limits.document);
            refused(
                change,
                format!(
                    "the document is too large for Redis: {bytes} bytes as JSON, at most {most} (proto-max-bulk-len)"
                ),
            )
        }
        Some(Ok(document)) => Ok(Change { document: Some(document), ..change }),
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::change::Operation;
    use tidewheel_core::identity::Namespace;
    use tidewheel_core::version::Version;

    use super::*;

    fn admitted(key: &str, document: Option<Readable>) -> Result<Change, Box<Parked>> {
        let change = Change {
            operation: if document.is_some() { Operation::Insert } else { Operation::Delete },
            namespace: Namespace::new("shop", "tickets"),
            key: key.to_owned(),
            id: key.to_owned(),
            version: Version::default(),
            committed_at: 0,
            document: None,
        };
        admit(change, document, Limits { key: 1_000, document: 2_000 })
    }

    #[test]
    fn change_within_the_limits_keeps_its_document() {
        let change = admitted("1", Some(Ok("{}".into()))).unwrap();
        assert_eq!(change.document.as_deref(), Some("{}"));
        assert_eq!(admitted("1", None).unwrap().document, None);
        assert!(admitted(&"k".repeat(1_000), Some(Ok("d".repeat(2_000)))).is_ok());
    }

    #[test]
    fn unreadable_or_too_large_change_is_parked_with_reason_and_without_document() {
        for (key, document, reason) in [
            ("1".to_owned(), Err("malformed".to_owned()), "malformed"),
            ("1".to_owned(), Ok("d".repeat(2_001)), "2001 bytes as JSON, at most 2000"),
            ("k".repeat(1_001), Ok("{}".to_owned()), "1001 bytes, at most 1000"),
        ] {
            let parked = admitted(&key, Some(document)).unwrap_err();
            assert!(parked.reason.contains(reason), "{}", parked.reason);
            assert_eq!(parked.change.document, None);
            assert_eq!(parked.change.key == key, key.len() <= 1_000);
        }
    }

    #[test]
    fn parked_change_removes_older_version_only_by_policy_and_with_a_whole_key() {
        let unreadable = admitted("1", Some(Err("malformed".into()))).unwrap_err();
        let large = admitted("1", Some(Ok("d".repeat(2_001)))).unwrap_err();
        let nameless = admitted(&"k".repeat(1_001), Some(Ok("{}".into()))).unwrap_err();
        let remove = Rules { on_dead_letter: OnDeadLetter::Remove, ..Rules::NONE };
        for parked in [&unreadable, &large] {
            assert_eq!(Rules::NONE.removal(parked), None);
            let removal = remove.removal(parked).unwrap();
            assert_eq!((removal.operation, removal.document), (Operation::Delete, None));
            assert_eq!((removal.key, removal.version), (parked.change.key.clone(), parked.change.version));
        }
        assert_eq!(remove.removal(&nameless), None);
    }

    #[test]
    fn redis_limit_applies_to_keys_too() {
        assert_eq!(Limits::of(None), Limits { key: key::MAX_BYTES, document: usize::MAX });
        assert_eq!(Limits::of(Some(5)), Limits { key: 5, document: 5 });
    }
}
