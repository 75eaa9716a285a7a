//! Filters: verdicts on events, rows and lookups, and the paths that an update touched.

use serde_json::json;
use tidewheel_core::change::Operation;
use tidewheel_core::error::ErrorClass;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{FeedError, Judged, StartAt, Touched, Verdicts};

use super::steps::{Follower, covering, delete, filter, insert, replace, rest, set, set_field};
use super::{SourceHarness, SourceWrite};

const OPEN: &str = r#"{"status": "open"}"#;
const MANY: &str = r#"{"n": {"$gte": {"$numberLong": "2"}}}"#;

fn verdicts(of: [bool; 2]) -> Verdicts {
    of.into_iter().collect()
}

/// In the order of the filters. None without a document.
pub async fn events_carry_a_verdict_for_each_filter(harness: &dyn SourceHarness) {
    let tickets = [format!("{}.tickets", harness.database())];
    let source = covering(&harness.source(&[]).await, &[&tickets], &[OPEN, MANY]);
    let mut follower = Follower::now(&source).await;
    let writes = [
        (insert("tickets", json!({"_id": 1, "status": "open", "n": 1})), Operation::Insert, Some([true, false])),
        (set("tickets", json!(1), 2), Operation::Update, Some([true, true])),
        (set_field("tickets", json!(1), "status", json!(["shut", "open"])), Operation::Update, Some([true, true])),
        (set_field("tickets", json!(1), "status", json!("OPEN")), Operation::Update, Some([false, true])),
        (replace("tickets", json!({"_id": 1, "status": "open"})), Operation::Replace, Some([true, false])),
        (delete("tickets", json!(1)), Operation::Delete, None),
        (SourceWrite::Drop { collection: "tickets".into() }, Operation::Drop, None),
    ];
    for (write, operation, wanted) in writes {
        let text = format!("{write:?}");
        harness.commit(vec![write]).await;
        let event = follower.take(1).await.remove(0);
        assert_eq!(event.operation, operation);
        assert_eq!(event.verdicts, wanted.map(verdicts).unwrap_or_default(), "{text}");
    }
}

/// An insert touches nothing that was there, a replacement everything. Without filters nothing is known of an update.
pub async fn updates_name_the_paths_that_they_touched(harness: &dyn SourceHarness) {
    let tickets = [format!("{}.tickets", harness.database())];
    let source = harness.source(&[]).await;
    let (filtered, plain) = (covering(&source, &[&tickets], &[OPEN]), covering(&source, &[&tickets], &[]));
    let mut followers = [Follower::now(&filtered).await, Follower::now(&plain).await];
    let paths = |path: &str| Touched::Paths(vec![path.to_owned()]);
    let unset = SourceWrite::Unset { collection: "tickets".into(), id: json!(1), field: "status".into() };
    let document = json!({"_id": 1, "status": "open", "customer": {"name": "Ada", "city": "Ulm"}});
    let writes = [
        (insert("tickets", document), Touched::Nothing, Touched::Nothing),
        (set("tickets", json!(1), 1), paths("n"), Touched::All),
        (set_field("tickets", json!(1), "customer.name", json!("Eve")), paths("customer.name"), Touched::All),
        (unset, paths("status"), Touched::All),
        (replace("tickets", json!({"_id": 1, "status": "open"})), Touched::All, Touched::All),
    ];
    for (write, with_filter, without) in writes {
        let text = format!("{write:?}");
        harness.commit(vec![write]).await;
        for (follower, wanted) in followers.iter_mut().zip([with_filter, without]) {
            assert_eq!(follower.take(1).await[0].touched, wanted, "{text}");
        }
    }
}

/// Of a scan. A pushed condition restricts it.
pub async fn rows_carry_a_verdict_for_each_filter(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await.source;
    let namespace = Namespace::new(harness.database(), "tickets");
    let status = |id: i32| if id % 2 == 0 { "open" } else { "shut" };
    let documents = (0..6).map(|id| insert("tickets", json!({"_id": id, "status": status(id), "n": id})));
    harness.commit(documents.collect()).await;
    let now = source.now().await.unwrap();
    let filters = vec![filter(OPEN), filter(MANY)];
    let wanted = |id: i32| (id.to_string(), verdicts([id % 2 == 0, id >= 2]));
    for (pushed, ids) in [(None, vec![0, 1, 2, 3, 4, 5]), (Some(OPEN), vec![0, 2, 4]), (Some(MANY), vec![2, 3, 4, 5])] {
        let judged = Judged { filters: filters.clone(), pushed: pushed.map(filter) };
        let rows = rest(source.scan(&namespace, None, now, &judged).await.unwrap()).await;
        let rows: Vec<_> = rows.into_iter().map(|row| (row.id, row.verdicts)).collect();
        assert_eq!(rows, ids.into_iter().map(wanted).collect::<Vec<_>>(), "{pushed:?}");
    }
    let judged = Judged { filters: vec![filter(OPEN)], pushed: Some(filter(OPEN)) };
    let rows = rest(source.scan(&namespace, Some(r#"{"$numberInt":"2"}"#), now, &judged).await.unwrap()).await;
    assert_eq!(rows.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["4"]);
    let plain = rest(source.scan(&namespace, None, now, &Judged::default()).await.unwrap()).await;
    assert!(plain.iter().all(|row| row.verdicts.is_empty()), "nothing was judged");
}

/// At most as many as requested, all of the collection.
pub async fn sampled_documents_carry_verdicts(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await.source;
    let namespace = Namespace::new(harness.database(), "tickets");
    let filters = [filter(OPEN), filter(MANY)];
    assert_eq!(source.sample(&namespace, 5, &filters).await.unwrap(), [], "a missing collection");
    let status = |id: usize| if id.is_multiple_of(2) { "open" } else { "shut" };
    let documents = (0..20).map(|id| insert("tickets", json!({"_id": id, "status": status(id), "n": id})));
    harness.commit(documents.collect()).await;
    for (most, count) in [(0, 0), (5, 5), (100, 20)] {
        let rows = source.sample(&namespace, most, &filters).await.unwrap();
        assert_eq!(rows.len(), count);
        for row in rows {
            let id: usize = row.id.parse().unwrap();
            assert!(id < 20 && row.document.is_ok(), "{row:?}");
            assert_eq!(row.verdicts, verdicts([id.is_multiple_of(2), id >= 2]), "{id}");
        }
    }
    assert!(source.sample(&namespace, 5, &[filter(r#"{"$where": "true"}"#)]).await.is_err());
}

/// A document that does not match counts as missing.
pub async fn existing_documents_match_the_filter(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await.source;
    let namespace = Namespace::new(harness.database(), "tickets");
    for (id, status) in [(1, json!("open")), (2, json!("shut")), (3, json!({"is": {"now": "open"}}))] {
        harness.commit(vec![insert("tickets", json!({"_id": id, "text": "a", "status": status}))]).await;
    }
    let now = source.now().await.unwrap();
    let keys = [1, 2, 3, 4].map(|id| format!(r#"{{"$numberInt":"{id}"}}"#));
    for (condition, wanted) in [
        (None, [true, true, true, false]),
        (Some(OPEN), [true, false, false, false]),
        (Some(r#"{"status.is.now": "open"}"#), [false, false, true, false]),
        (Some(r#"{"status": {"$ne": "open"}}"#), [false, true, true, false]),
        (Some(r#"{"absent": null, "text": "a"}"#), [true, true, true, false]),
        (Some(r#"{"_id": {"$lt": 2}}"#), [true, false, false, false]),
        (Some("{}"), [true, true, true, false]),
    ] {
        let existing = source.existing(&namespace, &keys, now, condition.map(filter).as_ref()).await.unwrap();
        assert_eq!(existing, wanted, "{condition:?}");
    }
}

/// Whether they match or not; a pushed condition counts only without filters.
pub async fn fetched_documents_carry_verdicts(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await.source;
    let namespace = Namespace::new(harness.database(), "tickets");
    for (id, status) in [(1, "open"), (2, "shut")] {
        harness.commit(vec![insert("tickets", json!({"_id": id, "status": status, "n": 2}))]).await;
    }
    let now = source.now().await.unwrap();
    let keys = [1, 2].map(|id| format!(r#"{{"$numberInt":"{id}"}}"#));
    for pushed in [None, Some(OPEN)] {
        let judged = Judged { filters: vec![filter(OPEN), filter(MANY)], pushed: pushed.map(filter) };
        let mut rows = source.fetch(&namespace, &keys, now, &judged).await.unwrap();
        rows.sort_by(|a, b| a.id.cmp(&b.id));
        let rows: Vec<_> = rows.into_iter().map(|row| (row.id, row.verdicts)).collect();
        assert_eq!(rows, [("1".to_owned(), verdicts([true, true])), ("2".to_owned(), verdicts([false, true]))]);
    }
    let rows = source.fetch(&namespace, &keys, now, &Judged::only(Some(filter(OPEN)))).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["1"]);
}

/// By every call that takes one, before anything is read.
pub async fn unsupported_filters_are_refused_by_name(harness: &dyn SourceHarness) {
    let tickets = [format!("{}.tickets", harness.database())];
    let all = harness.source(&[]).await;
    let namespace = Namespace::new(harness.database(), "tickets");
    let now = all.now().await.unwrap();
    let valid = covering(&all, &[&tickets], &[OPEN, MANY]);
    valid.source.check(&valid.coverage).await.unwrap();
    for (text, named) in [(r#"{"$where": "true"}"#, "$where"), (r#"{"a": {"$regex": "(?=b)"}}"#, "(?=b)"), ("7", "7")] {
        let invalid = covering(&all, &[&tickets], &[OPEN, text]);
        let judged = Judged { filters: vec![filter(text)], pushed: None };
        let key = [r#"{"$numberInt":"1"}"#.to_owned()];
        let Err(FeedError::Port(opening)) = invalid.open(StartAt::Time(now)).await else {
            panic!("a feed with {text}")
        };
        let errors = [
            opening,
            all.source.check(&invalid.coverage).await.unwrap_err(),
            all.source.scan(&namespace, None, now, &judged).await.err().expect("an unsupported filter"),
            all.source.existing(&namespace, &key, now, Some(&filter(text))).await.unwrap_err(),
            all.source.fetch(&namespace, &key, now, &judged).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.class, ErrorClass::Fatal, "{error}");
            assert!(error.message.contains(named), "{error}");
        }
    }
}
