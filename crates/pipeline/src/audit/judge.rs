//! Decides whether the index matches a document of the source, without I/O.

use serde::Serialize;
use serde_json::{Map, Value};
use tidewheel_core::catalog::Made;
use tidewheel_core::excerpt::excerpt;
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::payload::{RESERVED, Stamped, digest, plain_document};
use tidewheel_core::ports::{IndexedPoint, SourceRow};
use tidewheel_core::row::{Place, row};
use tidewheel_core::version::Version;

use crate::upserter::PayloadOptions;

/// The kind of a difference between index and source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The document is in the source, but not in the index.
    Missing,
    /// The index has another state of the document, or only a part of it.
    Stale,
    /// The document is in the index, but not in the source.
    Extra,
    /// The index has surplus points of the document.
    Surplus,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Missing, Self::Stale, Self::Extra, Self::Surplus];

    /// Its name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Stale => "stale",
            Self::Extra => "extra",
            Self::Surplus => "surplus",
        }
    }
}

/// A point written by tidewheel.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) point: IndexedPoint,
    pub(super) stamp: Stamped,
}

impl Seen {
    /// Reads a point; `None` if tidewheel did not write it.
    pub(super) fn read(point: IndexedPoint) -> Option<Self> {
        let stamp = Stamped::read(&point.payload)?;
        Some(Self { point, stamp })
    }

    pub(super) fn document(&self) -> DocumentId {
        DocumentId::new(&self.stamp.namespace, &self.stamp.key)
    }

    /// Whether its id is the one of the document's chunk of this number. The id of a copy is not.
    pub(super) fn is_in_place(&self) -> bool {
        self.document().point(self.stamp.chunk) == self.point.id
    }

    /// Whether the point's document id does not match its key: a deletion of its document would not find it.
    pub(super) fn is_contradictory(&self) -> bool {
        self.stamp.document != Some(self.document())
    }

    /// Whether the point belongs to no document: its id is not one of its document's points, or contradicts its key.
    pub(super) fn is_stray(&self) -> bool {
        !self.is_in_place() || self.is_contradictory()
    }

    fn place(&self) -> Place<Version> {
        let Stamped { chunk, chunks, version, .. } = self.stamp;
        Place { chunk: u64::from(chunk), chunks: u64::from(chunks), version }
    }
}

/// Returns how the points of a document differ from its row in the source, if they do. `points` are all its known
/// points, in any order; those that state what they were made by have to state `made`. With options, every field of the
/// payload is compared too.
pub(super) fn judge(
    row_of_source: Option<&SourceRow>,
    mut points: Vec<Seen>,
    made: Option<&Made>,
    payload: Option<&PayloadOptions>,
) -> Option<(Kind, String)> {
    let Some(source) = row_of_source else {
        let count = points.len();
        return (count > 0).then(|| (Kind::Extra, format!("{count} points of a document that should not be indexed")));
    };
    let misplaced = points.iter().filter(|seen| !seen.is_in_place()).count();
    points.retain(Seen::is_in_place);
    if points.is_empty() && misplaced == 0 {
        return Some((Kind::Missing, "no points found".to_owned()));
    }
    points.sort_by_key(|seen| seen.stamp.chunk);
    let row = row(&points, Seen::place);
    let Some(first) = points.first().filter(|first| first.stamp.chunk == 0) else {
        return Some((Kind::Missing, "chunk 0 is missing".to_owned()));
    };
    match &source.document {
        Ok(document) if first.stamp.digest == digest(document) => {}
        Ok(_) => return Some((Kind::Stale, "document digest differs".to_owned())),
        Err(why) => return Some((Kind::Stale, format!("failed to read the document: {why}"))),
    }
    if let Err(what) = row.whole {
        return Some((Kind::Stale, what));
    }
    if let Some(seen) = row.row.iter().find(|seen| seen.is_contradictory()) {
        return Some((
            Kind::Stale,
            format!("`_tidewheel.document` of chunk {} does not match its key", seen.stamp.chunk),
        ));
    }
    let is_outdated = |seen: &&Seen| made.is_some_and(|made| seen.stamp.made.is_some_and(|stated| stated != *made));
    if let Some(seen) = row.row.iter().find(is_outdated) {
        return Some((Kind::Stale, format!("chunk {} was made by another declaration", seen.stamp.chunk)));
    }
    if let Some(what) = payload.and_then(|options| differs(source, row.row, options)) {
        return Some((Kind::Stale, what));
    }
    let surplus = row.surplus.len() + misplaced;
    (surplus > 0).then(|| (Kind::Surplus, format!("{surplus} surplus points")))
}

/// Returns the first field of a payload that differs from the document.
fn differs(source: &SourceRow, row: &[Seen], options: &PayloadOptions) -> Option<String> {
    let document = source.document.as_ref().ok().and_then(|document| plain_document(document).ok());
    // An invalid document can be neither written nor compared; it has a dead letter.
    let expected = options.select(document?);
    // Points of releases without excerpts carry all fields, which is valid too.
    let excerpt = excerpt(&expected).map(|excerpt| excerpt.fields);
    row.iter().find_map(|Seen { point, stamp }| {
        let name = first_difference(&expected, &point.payload)?;
        let excerpt = excerpt.as_ref().filter(|_| stamp.chunk > 0);
        if excerpt.is_some_and(|excerpt| first_difference(excerpt, &point.payload).is_none()) {
            return None;
        }
        Some(format!("field {name} of chunk {} differs from the document", stamp.chunk))
    })
}

fn first_difference<'a>(expected: &'a Map<String, Value>, found: &'a Map<String, Value>) -> Option<&'a String> {
    let differs = |name: &&String| *name != RESERVED && found.get(*name) != expected.get(*name);
    expected.keys().chain(found.keys()).find(differs)
}

/// A document to audit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Target {
    pub(super) namespace: Namespace,
    pub(super) key: String,
}

impl Target {
    pub(super) fn document(&self) -> DocumentId {
        DocumentId::new(&self.namespace, &self.key)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidewheel_core::fingerprint::Fingerprints;
    use tidewheel_core::payload::Stamp;
    use tidewheel_core::version::ClusterTime;

    use super::*;

    const DOCUMENT: &str = r#"{"_id":1,"subject":"Hello","number":1.5}"#;

    fn namespace() -> Namespace {
        Namespace::new("shop", "tickets")
    }

    fn source() -> SourceRow {
        SourceRow::new(r#"{"$numberInt":"1"}"#, "1", Ok(DOCUMENT.into()))
    }

    fn seen(chunk: u32, chunks: u32, seconds: u32, document: &str) -> Seen {
        let (key, namespace) = (source().key, namespace());
        let id = DocumentId::new(&namespace, &key);
        let digest = digest(document);
        let fingerprints = Fingerprints::new("hash:3", "1", 3);
        let stamp = Stamp {
            digest: &digest,
            fingerprints: &fingerprints,
            key: &key,
            namespace: namespace.as_str(),
            document: id,
            version: Version::of_snapshot(0, ClusterTime { seconds, increment: 1 }),
            model: "hash:3",
            chunks,
        };
        let mut payload = plain_document(document).unwrap();
        payload.insert(RESERVED.into(), stamp.value(chunk, "text"));
        Seen::read(IndexedPoint { id: id.point(chunk), payload }).unwrap()
    }

    fn kind(points: Vec<Seen>) -> Option<Kind> {
        judge(Some(&source()), points, None, Some(&PayloadOptions::default())).map(|(kind, _)| kind)
    }

    #[test]
    fn matching_document_has_no_difference() {
        assert_eq!(kind(vec![seen(0, 1, 5, DOCUMENT)]), None);
        assert_eq!(kind(vec![seen(1, 2, 5, DOCUMENT), seen(0, 2, 5, DOCUMENT)]), None);
        assert_eq!(judge(None, Vec::new(), None, None), None);
    }

    #[test]
    fn each_kind_of_difference_is_reported() {
        assert_eq!(kind(Vec::new()), Some(Kind::Missing));
        assert_eq!(kind(vec![seen(1, 2, 5, DOCUMENT)]), Some(Kind::Missing));
        assert_eq!(kind(vec![seen(0, 1, 5, r#"{"_id":1}"#)]), Some(Kind::Stale));
        assert_eq!(kind(vec![seen(0, 2, 5, DOCUMENT)]), Some(Kind::Stale));
        assert_eq!(kind(vec![seen(0, 2, 5, DOCUMENT), seen(1, 2, 4, DOCUMENT)]), Some(Kind::Stale));
        assert_eq!(kind(vec![seen(0, 1, 5, DOCUMENT), seen(3, 4, 4, DOCUMENT)]), Some(Kind::Surplus));
        let mut contradictory = seen(0, 1, 5, DOCUMENT);
        contradictory.stamp.document = Some(DocumentId::new(&namespace(), "2"));
        assert_eq!(kind(vec![contradictory.clone()]), Some(Kind::Stale));
        contradictory.stamp.document = None;
        assert_eq!(kind(vec![contradictory]), Some(Kind::Stale));
        let mut copy = seen(0, 1, 5, DOCUMENT);
        copy.point.id = uuid::Uuid::from_u128(7);
        assert_eq!(kind(vec![seen(0, 1, 5, DOCUMENT), copy.clone()]), Some(Kind::Surplus));
        assert_eq!(judge(None, vec![copy], None, None).unwrap().0, Kind::Extra);
    }

    #[test]
    fn point_made_by_another_declaration_is_stale() {
        let made = |text: &str| Made { text: text.parse().unwrap(), payload: "00000000000000aa".parse().unwrap() };
        let (wanted, other) = (made("00000000000000bb"), made("00000000000000cc"));
        let kind = |stated: Option<Made>| {
            let mut points = vec![seen(0, 2, 5, DOCUMENT), seen(1, 2, 5, DOCUMENT)];
            (points[0].stamp.made, points[1].stamp.made) = (Some(wanted), stated);
            judge(Some(&source()), points, Some(&wanted), None).map(|(kind, _)| kind)
        };
        assert_eq!(kind(Some(wanted)), None);
        assert_eq!(kind(Some(other)), Some(Kind::Stale));
        assert_eq!(kind(None), None, "made before a catalog was applied");
    }

    #[test]
    fn later_points_may_carry_the_excerpt_or_the_whole_document_only() {
        let content = "x".repeat(10_000);
        let document = json!({"_id": 1, "content": content, "state": "open"}).to_string();
        let source = SourceRow { document: Ok(document.clone()), ..source() };
        let whole = || vec![seen(0, 2, 5, &document), seen(1, 2, 5, &document)];
        let kind = |points| judge(Some(&source), points, None, Some(&PayloadOptions::default())).map(|(kind, _)| kind);
        assert_eq!(kind(whole()), None);
        let mut excerpt = whole();
        excerpt[1].point.payload.shift_remove("content");
        assert_eq!(kind(excerpt.clone()), None);
        excerpt[1].point.payload.shift_remove("state");
        assert_eq!(kind(excerpt), Some(Kind::Stale));
        let mut first = whole();
        first[0].point.payload.shift_remove("content");
        assert_eq!(kind(first), Some(Kind::Stale));
        let mut other = whole();
        other[1].point.payload.insert("content".into(), json!("y"));
        assert_eq!(kind(other), Some(Kind::Stale));
    }

    #[test]
    fn fields_are_compared_only_with_payload_options() {
        let mut changed = seen(0, 1, 5, DOCUMENT);
        changed.point.payload.insert("subject".into(), json!("Bye"));
        let mut more = seen(0, 1, 5, DOCUMENT);
        more.point.payload.insert("more".into(), json!(1));
        for damaged in [changed, more] {
            assert_eq!(judge(Some(&source()), vec![damaged.clone()], None, None), None);
            assert_eq!(kind(vec![damaged]), Some(Kind::Stale));
        }
        let options = PayloadOptions { include: vec!["subject".into()], ..PayloadOptions::default() };
        let mut part = seen(0, 1, 5, DOCUMENT);
        part.point.payload.shift_remove("number");
        assert_eq!(judge(Some(&source()), vec![part], None, Some(&options)), None);
    }
}
