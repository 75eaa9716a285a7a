//! What a collection records about the index that it holds, and what its points have to carry because of that.

use std::collections::HashMap;

use serde_json::Value;
use tidewheel_core::catalog::TargetRecord;
use tidewheel_core::embedded::input;
use tidewheel_core::fingerprint::Fingerprints;

/// The metadata entry with the record.
const ENTRY: &str = "tidewheel_index";

/// The record of a collection.
pub(super) struct Record {
    /// What points state that their text and payload were made by.
    made: Value,
    /// Whether points of the short form, which do not state it, may be among them.
    may_lack_made: bool,
    /// Computes the fingerprints of the model that the record names.
    fingerprints: Option<Fingerprints>,
}

impl Record {
    /// Reads the record in a collection's metadata; `None` if there is none.
    pub(super) fn read(metadata: HashMap<String, qdrant_client::qdrant::Value>) -> Result<Option<Self>, String> {
        let entry = metadata.into_iter().find(|(name, _)| name == ENTRY).map(|(_, value)| value.into_json());
        let Some(entry) = entry.filter(|entry| !entry.is_null()) else { return Ok(None) };
        let record: TargetRecord = serde_json::from_value(entry).map_err(|error| format!("invalid record: {error}"))?;
        Ok(Some(Self {
            made: serde_json::to_value(record.declaration.made()).map_err(|error| error.to_string())?,
            may_lack_made: record.plain,
            fingerprints: record.embedder.map(|embedder| embedder.fingerprints()),
        }))
    }

    /// Checks `_tidewheel` of a chunk with this text, behind this prefix.
    pub(super) fn check(&self, reserved: &Value, prefix: &str, text: &str) -> Result<(), String> {
        match reserved.get("made") {
            None if self.may_lack_made => {}
            Some(made) if *made == self.made => {}
            made => return Err(format!("made by {made:?}, expected {}", self.made)),
        }
        let Some(fingerprints) = self.fingerprints.as_ref().filter(|_| !text.trim().is_empty()) else {
            return Ok(());
        };
        let (found, expected) = (reserved.get("fingerprint"), fingerprints.of(&input(prefix, text)));
        let is_equal = found.and_then(Value::as_str) == Some(expected.as_str());
        if is_equal { Ok(()) } else { Err(format!("fingerprint {found:?}, expected {expected}")) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidewheel_core::catalog::{Declaration, EmbeddingSpec, IndexName, Selector};

    use super::*;

    fn record(plain: bool) -> (Value, Record) {
        let source = Selector::parse(&["shop.tickets"], None).unwrap();
        let declaration = Declaration::new(
            IndexName::new("tickets").unwrap(),
            source,
            EmbeddingSpec::new("default", "tidewheel", "hash:4"),
        );
        let made = json!(declaration.made());
        let entry = json!({
            "index": "tickets", "generation": 1, "plain": plain, "state": "serving", "declaration": declaration,
            "embedder": {"model": "hash:4", "revision": "", "dimension": 4},
        });
        let metadata = HashMap::from([(ENTRY.to_owned(), qdrant_client::qdrant::Value::from(entry))]);
        (made, Record::read(metadata).unwrap().unwrap())
    }

    #[test]
    fn points_state_what_the_record_does() {
        let (made, declared) = record(false);
        let fingerprint = Fingerprints::new("hash:4", "", 4).of("Late\nlost");
        let of = |record: &Record, reserved: Value| record.check(&reserved, "Late", "lost");
        assert_eq!(of(&declared, json!({"made": made, "fingerprint": fingerprint})), Ok(()));
        assert!(of(&declared, json!({"made": made, "fingerprint": "0"})).unwrap_err().contains("fingerprint"));
        assert!(of(&declared, json!({"fingerprint": fingerprint})).unwrap_err().contains("made"));
        let (_, plain) = record(true);
        assert_eq!(of(&plain, json!({"fingerprint": fingerprint})), Ok(()));
        assert!(of(&plain, json!({"made": {}, "fingerprint": fingerprint})).is_err());
        assert!(Record::read(HashMap::new()).unwrap().is_none());
    }
}
