//! Filters that keep older changes from undoing newer ones.
//!
//! Qdrant has no "write if newer", but upserts and deletes accept filters, which the server evaluates and applies
//! atomically. All ordering relies on that.

use qdrant_client::qdrant::condition::ConditionOneOf;
use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::{
    Condition, FieldCondition, Filter, HasIdCondition, Match, PointId, Range, RepeatedStrings,
};
use tidewheel_core::payload::{DOCUMENT, FINGERPRINT, NAMESPACE, VERSION_HIGH, VERSION_LOW, VERSION_REPLAY};
use tidewheel_core::ports::{Fence, FenceTarget};
use tidewheel_core::version::Version;

/// Conditions of which one holds for a point at this version or a newer one. A point without a version, written by
/// another client under one of our ids, is older than every version.
fn as_new_as(version: Version) -> Vec<Condition> {
    // Exact: both halves are below 2⁵³.
    let (high, low) = (version.high(), version.low());
    let newer_high = range(VERSION_HIGH, Range { gt: Some(high as f64), ..Range::default() });
    if version.replay == 0 {
        let as_new = range(VERSION_LOW, Range { gte: Some(low as f64), ..Range::default() });
        return vec![newer_high, all_of(vec![integer(VERSION_HIGH, high), as_new])];
    }
    let newer_low = range(VERSION_LOW, Range { gt: Some(low as f64), ..Range::default() });
    let replayed = range(VERSION_REPLAY, Range { gte: Some(f64::from(version.replay)), ..Range::default() });
    vec![
        newer_high,
        all_of(vec![integer(VERSION_HIGH, high), newer_low]),
        all_of(vec![integer(VERSION_HIGH, high), integer(VERSION_LOW, low), replayed]),
    ]
}

fn range(key: &str, range: Range) -> Condition {
    field(key, |field| field.range = Some(range))
}

fn integer(key: &str, value: u64) -> Condition {
    let value = MatchValue::Integer(value as i64);
    field(key, |field| field.r#match = Some(Match { match_value: Some(value) }))
}

/// Matches points that `what` selects and that are older than `version`.
fn older(what: Condition, version: Version) -> Filter {
    Filter { must: vec![what], must_not: as_new_as(version), ..Filter::default() }
}

/// Matches those of these points that are older than their group's version.
pub(super) fn replaceable(groups: impl IntoIterator<Item = (Version, Vec<PointId>)>) -> Filter {
    let clauses = groups.into_iter().map(|(version, ids)| {
        let has_id = ConditionOneOf::HasId(HasIdCondition { has_id: ids });
        older(Condition { condition_one_of: Some(has_id) }, version)
    });
    any_of(clauses.collect())
}

/// Matches this point if it is older than the version and has the same fingerprint.
pub(super) fn refreshable(point: PointId, version: Version, fingerprint: &str) -> Filter {
    let has_id = ConditionOneOf::HasId(HasIdCondition { has_id: vec![point] });
    let mut filter = older(Condition { condition_one_of: Some(has_id) }, version);
    filter.must.push(keyword(FINGERPRINT, vec![fingerprint.to_owned()]));
    filter
}

/// Matches those of these points that are behind the fence.
pub(super) fn among(points: Vec<PointId>, fence: &Fence) -> Filter {
    let has_id = ConditionOneOf::HasId(HasIdCondition { has_id: points });
    let mut filter = behind(std::slice::from_ref(fence));
    filter.must.push(Condition { condition_one_of: Some(has_id) });
    filter
}

/// Matches every point behind one of the fences. Documents fenced at the same version share a clause.
pub(super) fn behind(fences: &[Fence]) -> Filter {
    let mut documents: Vec<(Version, Vec<String>)> = Vec::new();
    let mut clauses = Vec::new();
    for fence in fences {
        match &fence.target {
            FenceTarget::Document(document) => {
                let name = document.to_string();
                match documents.iter_mut().find(|(version, _)| *version == fence.version) {
                    Some((_, names)) => names.push(name),
                    None => documents.push((fence.version, vec![name])),
                }
            }
            FenceTarget::Namespace(namespace) => {
                clauses.push(older(keyword(NAMESPACE, vec![namespace.to_string()]), fence.version));
            }
        }
    }
    clauses.extend(documents.into_iter().map(|(version, names)| older(keyword(DOCUMENT, names), version)));
    any_of(clauses)
}

/// A single clause is sent unwrapped: the server plans it better than a nested one.
fn any_of(mut clauses: Vec<Filter>) -> Filter {
    if clauses.len() == 1 {
        return clauses.remove(0);
    }
    let should = clauses.into_iter().map(nested).collect();
    Filter { should, ..Filter::default() }
}

fn all_of(must: Vec<Condition>) -> Condition {
    nested(Filter { must, ..Filter::default() })
}

fn nested(filter: Filter) -> Condition {
    Condition { condition_one_of: Some(ConditionOneOf::Filter(filter)) }
}

fn keyword(key: &str, mut values: Vec<String>) -> Condition {
    let value = if values.len() == 1 {
        MatchValue::Keyword(values.remove(0))
    } else {
        MatchValue::Keywords(RepeatedStrings { strings: values })
    };
    field(key, |field| field.r#match = Some(Match { match_value: Some(value) }))
}

fn field(key: &str, set: impl FnOnce(&mut FieldCondition)) -> Condition {
    let mut field = FieldCondition { key: key.to_owned(), ..FieldCondition::default() };
    set(&mut field);
    Condition { condition_one_of: Some(ConditionOneOf::Field(field)) }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::identity::{DocumentId, Namespace};
    use tidewheel_core::version::ClusterTime;

    use super::*;

    fn version(seconds: u32) -> Version {
        Version { epoch: 0, time: ClusterTime { seconds, increment: 1 }, ordinal: 1, replay: 0 }
    }

    fn fence(key: &str, seconds: u32) -> Fence {
        let document = DocumentId::new(&Namespace::new("shop", "tickets"), key);
        Fence { target: FenceTarget::Document(document), version: version(seconds) }
    }

    #[test]
    fn single_fence_clause_is_not_wrapped() {
        let filter = behind(&[fence("1", 1)]);
        assert_eq!((filter.must.len(), filter.must_not.len(), filter.should.len()), (1, 2, 0));
    }

    #[test]
    fn fences_at_one_version_share_a_clause() {
        let whole = Fence { target: FenceTarget::Namespace(Namespace::new("shop", "tickets")), version: version(9) };
        let filter = behind(&[fence("1", 1), fence("2", 1), fence("3", 2), whole]);
        assert_eq!((filter.must.len(), filter.must_not.len(), filter.should.len()), (0, 0, 3));
    }
}
