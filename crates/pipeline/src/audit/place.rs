//! The saved position of an audit, where the next process resumes: an audit of a billion documents takes days.

use serde::{Deserialize, Serialize};
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{AuditPosition, PortResult};
use uuid::Uuid;

use super::Found;

/// Number of pages after which the position is saved.
const SAVE_EVERY: u32 = 100;

/// The resume position, and the result up to there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Place {
    /// The last source row compared: collection and canonical key.
    source: Option<(String, String)>,
    /// Whether all rows have been compared.
    pub(super) source_is_done: bool,
    /// The last index point compared.
    pub(super) index: Option<Uuid>,
    documents: u64,
    points: u64,
    missing: u64,
    stale: u64,
    extra: u64,
    surplus: u64,
    unsettled: u64,
    foreign: u64,
    /// Whether earlier commits were in the index at every second check.
    is_settled: bool,
    #[serde(skip)]
    pages: u32,
}

impl Place {
    /// Loads the saved position; the start, if there is none.
    pub(super) async fn load(position: &dyn AuditPosition) -> PortResult<Self> {
        let saved = position.audit().await?;
        let beginning = Self { is_settled: true, ..Self::default() };
        Ok(saved.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(beginning))
    }

    /// The result so far.
    pub(super) fn found(&self) -> Found {
        let Self { documents, points, missing, stale, extra, surplus, unsettled, foreign, is_settled, .. } = *self;
        let settled = is_settled;
        Found { documents, points, missing, stale, extra, surplus, unsettled, foreign, settled, ..Found::default() }
    }

    /// The row of this collection after which to resume, or `None` if all of its rows have been compared.
    pub(super) fn row_after(&self, namespace: &Namespace) -> Option<Option<&str>> {
        match &self.source {
            _ if self.source_is_done => None,
            Some((last, _)) if namespace.as_str() < last.as_str() => None,
            Some((last, key)) if namespace.as_str() == last => Some(Some(key)),
            _ => Some(None),
        }
    }

    /// Moves past a row of the source.
    pub(super) fn pass_row(&mut self, namespace: &Namespace, key: &str) {
        self.source = Some((namespace.to_string(), key.to_owned()));
        self.pages += 1;
    }

    /// Moves past a point of the index.
    pub(super) fn pass_point(&mut self, id: Uuid) {
        self.index = Some(id);
        self.pages += 1;
    }

    /// Whether the position is due to be saved; true once.
    pub(super) fn is_to_be_saved(&mut self) -> bool {
        let save = self.pages >= SAVE_EVERY;
        if save {
            self.pages = 0;
        }
        save
    }

    /// Saves the position with the result up to there.
    pub(super) async fn save(mut self, found: &Found, position: &dyn AuditPosition) -> PortResult<()> {
        let Found { documents, points, missing, stale, extra, surplus, unsettled, foreign, settled, .. } = *found;
        (self.documents, self.points, self.unsettled, self.foreign) = (documents, points, unsettled, foreign);
        (self.missing, self.stale, self.extra, self.surplus) = (missing, stale, extra, surplus);
        self.is_settled = settled;
        let text = serde_json::to_string(&self).unwrap_or_default();
        position.save_audit(Some(&text)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_resumes_after_its_last_row() {
        let (notes, tickets, users) =
            (Namespace::new("shop", "notes"), Namespace::new("shop", "tickets"), Namespace::new("shop", "users"));
        let mut place = Place::default();
        assert_eq!(place.row_after(&notes), Some(None));
        place.pass_row(&tickets, "7");
        assert_eq!(place.row_after(&notes), None);
        assert_eq!(place.row_after(&tickets), Some(Some("7")));
        assert_eq!(place.row_after(&users), Some(None));
        place.source_is_done = true;
        assert_eq!(place.row_after(&users), None);
    }

    #[test]
    fn invalid_place_is_rejected_and_unknown_fields_are_ignored() {
        assert!(serde_json::from_str::<Place>("no json").is_err());
        let place: Place = serde_json::from_str(r#"{"points": 7, "later": 1}"#).unwrap();
        assert_eq!(place.found().points, 7);
    }
}
