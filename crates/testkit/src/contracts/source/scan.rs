//! Scans and lookups.

use std::collections::HashSet;

use serde_json::{Value, json};
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{SourceFilter, StartAt};

use super::SourceHarness;
use super::steps::{all_rows, delete, ids, insert, key_of, parsed, with_timeout};

/// Mixed types, each row with its exact identity.
pub async fn scan_orders_ids_of_all_types(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    fill_with_all_ids(harness).await;
    let rows = all_rows(&source, &Namespace::new(harness.database(), "tickets"), None).await;
    let keys: Vec<_> = rows.iter().map(|row| row.key.clone()).collect();
    assert_eq!(keys, ids().iter().map(|(canonical, _)| key_of(canonical)).collect::<Vec<_>>());
    for (row, (_, relaxed)) in rows.iter().zip(ids()) {
        assert_eq!(serde_json::from_str::<Value>(&row.id).unwrap(), relaxed);
        assert_eq!(parsed(Some(&row.document)), Some(json!({"_id": relaxed, "n": 1.0})));
    }
}

async fn fill_with_all_ids(harness: &dyn SourceHarness) {
    let ids = ids();
    // In shuffled order: every seventh, and the number of ids is not a multiple of seven.
    for position in 0..ids.len() {
        let (canonical, _) = &ids[position * 7 % ids.len()];
        let document = json!({"_id": canonical, "n": {"$numberDouble": "1.0"}});
        harness.commit(vec![insert("tickets", document)]).await;
    }
}

/// Also after a row that was deleted since.
pub async fn scan_resumes_after_any_row(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let namespace = Namespace::new(harness.database(), "tickets");
    fill_with_all_ids(harness).await;
    let keys: Vec<_> = all_rows(&source, &namespace, None).await.into_iter().map(|row| row.key).collect();
    assert_eq!(keys.len(), ids().len());
    for (position, key) in keys.iter().enumerate() {
        let rest = all_rows(&source, &namespace, Some(key)).await;
        let rest: Vec<_> = rest.into_iter().map(|row| row.key).collect();
        assert_eq!(rest, keys[position + 1..], "after {key}");
    }
    let (gone, _) = &ids()[6];
    harness.commit(vec![delete("tickets", gone.clone())]).await;
    let rest = all_rows(&source, &namespace, Some(&gone.to_string())).await;
    assert!(rest.iter().map(|row| &row.key).eq(&keys[7..]), "after a deleted row");
}

/// All commits up to the requested time.
pub async fn scan_reads_earlier_commits(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let namespace = Namespace::new(harness.database(), "tickets");
    for number in 1..=20_usize {
        harness.commit(vec![insert("tickets", json!({"_id": number}))]).await;
        assert_eq!(all_rows(&source, &namespace, None).await.len(), number);
    }
}

/// Bounded pages, without duplicates or gaps.
pub async fn long_scan_is_paged(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let namespace = Namespace::new(harness.database(), "tickets");
    for thousand in 0..3 {
        let range = thousand * 1_000..(thousand + 1) * 1_000;
        harness.commit(range.map(|number| insert("tickets", json!({"_id": number}))).collect()).await;
    }
    let now = source.now().await.unwrap();
    let mut scan = source.scan(&namespace, None, now, None).await.unwrap();
    let (mut ids, mut pages) = (Vec::new(), 0);
    loop {
        let page = with_timeout(scan.next()).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 1_000, "{} rows in a page", page.len());
        pages += 1;
        ids.extend(page.into_iter().map(|row| row.id));
    }
    assert_eq!(ids, (0..3_000).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(pages >= 3);
    assert_eq!(source.estimate(&namespace).await.unwrap(), 3_000);
}

/// The end is returned repeatedly.
pub async fn scan_of_missing_collection_is_empty(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let namespace = Namespace::new(harness.database(), "tickets");
    let now = source.now().await.unwrap();
    for after in [None, Some(r#"{"$numberInt":"1"}"#)] {
        let mut scan = source.scan(&namespace, after, now, None).await.unwrap();
        for _ in 0..2 {
            assert_eq!(with_timeout(scan.next()).await.unwrap(), []);
        }
    }
    assert_eq!(source.estimate(&namespace).await.unwrap(), 0);
}

/// Writes during a scan are in the scan or in the feed opened at its start.
pub async fn scan_and_feed_together_have_no_gap(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let namespace = Namespace::new(harness.database(), "tickets");
    harness.commit((0..500).map(|number| insert("tickets", json!({"_id": number}))).collect()).await;
    let start = source.now().await.unwrap();
    let writing = async {
        for number in 500..550 {
            harness.commit(vec![insert("tickets", json!({"_id": number}))]).await;
        }
    };
    let reading = async {
        let mut scan = source.scan(&namespace, None, start, None).await.unwrap();
        let mut keys = HashSet::new();
        loop {
            let page = scan.next().await.unwrap();
            if page.is_empty() {
                return keys;
            }
            keys.extend(page.into_iter().map(|row| row.id));
        }
    };
    let ((), mut keys) = with_timeout(async { tokio::join!(writing, reading) }).await;
    let mut feed = source.open(StartAt::Time(start)).await.unwrap();
    let rest = async {
        while !keys.contains("549") || keys.len() < 550 {
            keys.extend(feed.next().await.unwrap().events.into_iter().map(|event| event.id));
        }
    };
    with_timeout(rest).await;
    assert_eq!(keys, (0..550).map(|number| number.to_string()).collect());
}

/// By key, regardless of the number type in the source; none in an unselected collection.
pub async fn existence_is_checked_by_exact_key(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let namespace = Namespace::new(harness.database(), "tickets");
    fill_with_all_ids(harness).await;
    let now = source.now().await.unwrap();
    let keys: Vec<String> = all_rows(&source, &namespace, None).await.into_iter().map(|row| row.key).collect();
    assert_eq!(source.existing(&namespace, &keys, now).await.unwrap(), vec![true; keys.len()]);
    let others = [r#"{"$numberInt":"123456789"}"#.to_owned(), keys[0].clone(), r#""missing""#.to_owned()];
    assert_eq!(source.existing(&namespace, &others, now).await.unwrap(), [false, true, false]);
    harness.commit(vec![insert("tickets", json!({"_id": {"$numberDouble": "77777.0"}}))]).await;
    let now = source.now().await.unwrap();
    // A key in an older form does not belong to any document.
    let alike = ["{\"$numberInt\":\"77777\"}".to_owned(), "{\"$numberDouble\":\"77777.0\"}".to_owned()];
    assert_eq!(source.existing(&namespace, &alike, now).await.unwrap(), [true, false]);
    assert!(source.existing(&namespace, &[], now).await.unwrap().is_empty());
    harness.commit(vec![insert("notes", json!({"_id": 1}))]).await;
    for other in ["notes", "nothing"] {
        let namespace = Namespace::new(harness.database(), other);
        assert_eq!(source.existing(&namespace, &[r#"{"$numberInt":"1"}"#.to_owned()], now).await.unwrap(), [false]);
    }
}

/// The same rows as in a scan, by key; none of an unselected collection.
pub async fn documents_are_fetched_by_exact_key(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let namespace = Namespace::new(harness.database(), "tickets");
    fill_with_all_ids(harness).await;
    let now = source.now().await.unwrap();
    let mut rows = all_rows(&source, &namespace, None).await;
    let mut keys: Vec<String> = rows.iter().map(|row| row.key.clone()).collect();
    keys.push(r#""missing""#.to_owned());
    let mut fetched = source.fetch(&namespace, &keys, now).await.unwrap();
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    fetched.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(fetched, rows);
    harness.commit(vec![insert("tickets", json!({"_id": {"$numberDouble": "77777.0"}}))]).await;
    let now = source.now().await.unwrap();
    let alike = ["{\"$numberInt\":\"77777\"}".to_owned(), "{\"$numberDouble\":\"77777.0\"}".to_owned()];
    let fetched = source.fetch(&namespace, &alike, now).await.unwrap();
    assert_eq!(fetched.iter().map(|row| &row.key).collect::<Vec<_>>(), [&alike[0]]);
    assert!(source.fetch(&namespace, &[], now).await.unwrap().is_empty());
    harness.commit(vec![insert("notes", json!({"_id": 1}))]).await;
    let notes = Namespace::new(harness.database(), "notes");
    assert!(source.fetch(&notes, &[r#"{"$numberInt":"1"}"#.to_owned()], now).await.unwrap().is_empty());
}

/// A filtered scan returns only matching rows, page by page, after any row.
pub async fn scan_applies_a_filter(harness: &dyn SourceHarness) {
    let source = harness.source(&["tickets"]).await;
    let namespace = Namespace::new(harness.database(), "tickets");
    let documents = (0..20).map(|number| insert("tickets", json!({"_id": number, "open": number % 3 == 0})));
    harness.commit(documents.collect()).await;
    let now = source.now().await.unwrap();
    let open = r#"{"open": true}"#;
    let range = r#"{"$and": [{"_id": {"$gte": {"$numberInt": "4"}, "$lte": {"$numberLong": "7"}}}]}"#;
    let share = |share: &str| format!(r#"{{"$expr": {{"$lt": [{{"$rand": {{}}}}, {{"$numberDouble": "{share}"}}]}}}}"#);
    let all: Vec<String> = (0..20).map(|number: i32| number.to_string()).collect();
    for (filter, after, expected) in [
        (open, None, vec!["0", "3", "6", "9", "12", "15", "18"]),
        (open, Some("9"), vec!["12", "15", "18"]),
        (range, None, vec!["4", "5", "6", "7"]),
        (range, Some("5"), vec!["6", "7"]),
        // A bound of another type matches nothing.
        (r#"{"_id": {"$gte": ""}}"#, None, Vec::new()),
        (&share("0"), None, Vec::new()),
        (&share("1"), None, all.iter().map(String::as_str).collect()),
    ] {
        let after = after.map(|id| format!(r#"{{"$numberInt":"{id}"}}"#));
        let filter = SourceFilter(filter.to_owned());
        let mut scan = source.scan(&namespace, after.as_deref(), now, Some(&filter)).await.unwrap();
        let mut ids = Vec::new();
        loop {
            let page = with_timeout(scan.next()).await.unwrap();
            if page.is_empty() {
                break;
            }
            ids.extend(page.into_iter().map(|row| row.id));
        }
        assert_eq!(ids, expected);
    }
    for wrong in ["{", "7"] {
        let wrong = SourceFilter(wrong.to_owned());
        let error = source.scan(&namespace, None, now, Some(&wrong)).await.err().expect("an invalid query");
        assert_eq!(error.class, tidewheel_core::error::ErrorClass::Fatal);
    }
}
