//! Status reports of processes.

use tidewheel_stores::redis::keys::SERVICES;

use super::server::TestRedis;

#[tokio::test]
async fn process_report_is_kept_until_removed_or_expired() {
    let redis = TestRedis::start().await;
    redis.store.publish("a", "{\"x\": 1}").await.unwrap();
    redis.store.publish("b", "first").await.unwrap();
    redis.store.publish("b", "two words").await.unwrap();
    let mut published = redis.store.published().await.unwrap();
    published.sort_by(|a, b| a.process.cmp(&b.process));
    let reports: Vec<_> = published.iter().map(|report| (report.process.as_str(), report.text.as_str())).collect();
    assert_eq!(reports, [("a", "{\"x\": 1}"), ("b", "two words")]);
    assert!(published.iter().all(|report| report.age_ms < 60_000));

    // The report of a process that died long ago is neither returned nor kept.
    redis.command::<u64>(&["HSET", SERVICES, "dead", "1700000000000 hello"]).await;
    assert_eq!(redis.store.published().await.unwrap().len(), 2);
    redis.store.publish("a", "still here").await.unwrap();
    assert_eq!(redis.command::<u64>(&["HLEN", SERVICES]).await, 2);

    redis.store.withdraw("a").await.unwrap();
    redis.store.withdraw("b").await.unwrap();
    assert!(redis.store.published().await.unwrap().is_empty());
}
