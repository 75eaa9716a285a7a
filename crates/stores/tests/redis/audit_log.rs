//! The audit log on a real server.

use tidewheel_stores::redis::Action;
use tidewheel_stores::redis::keys::AUDIT_LOG;

use super::server::TestRedis;

fn action(detail: &str) -> Action {
    Action {
        action: "dead-letters drop".into(),
        detail: detail.into(),
        user: "ada".into(),
        origin: "console 192.0.2.7".into(),
    }
}

#[tokio::test]
async fn audit_log_preserves_order_and_is_bounded() {
    let redis = TestRedis::start().await;
    assert_eq!(redis.store.recorded(0, 10).await.unwrap(), []);
    redis.store.record(&action("first")).await.unwrap();
    redis.store.record(&action("\u{1b}[2Jsecond\nline")).await.unwrap();
    let recorded = redis.store.recorded(0, 10).await.unwrap();
    let details: Vec<_> = recorded.iter().map(|recorded| recorded.action.detail.as_str()).collect();
    assert_eq!(details, ["first", " [2Jsecond line"], "no control character is kept");
    assert_eq!(recorded[0].action, action("first"));
    assert_eq!(redis.store.recorded(0, 1).await.unwrap().len(), 1);
    assert!(redis.store.recorded(recorded[1].at_ms + 1, 10).await.unwrap().is_empty());

    let long = action(&"x".repeat(100_000));
    let fill = "for i = 1, 11000 do redis.call('XADD', KEYS[1], '*', 'action', 'again') end";
    redis.command::<()>(&["EVAL", fill, "1", AUDIT_LOG]).await;
    redis.store.record(&long).await.unwrap();
    assert!(redis.store.recorded(0, 1).await.unwrap()[0].action.detail.len() <= 2_000);
    let kept: u64 = redis.command(&["XLEN", AUDIT_LOG]).await;
    assert!((10_000..10_500).contains(&kept), "{kept}");
}
