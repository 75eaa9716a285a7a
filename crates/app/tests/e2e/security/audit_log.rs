//! The audit log.

use serde_json::{Value, json};
use tidewheel_stores::redis::keys::{AUDIT_LOG, RAW_DEAD_LETTERS};

use super::super::clients::http;
use super::super::world::{World, audit_log, free_port};
use super::TIMEOUT;

const TOKEN: &str = "a long token for tests";

fn log(world: &World) -> Vec<Value> {
    audit_log(world.command(&super::super::world::AUDIT_LOG))
}

#[tokio::test(flavor = "multi_thread")]
async fn console_and_cli_actions_are_recorded_with_user_and_origin() {
    let (mut world, port) = (World::new().await, free_port());
    world.write_settings(&format!(
        "console.listen = \"127.0.0.1:{port}\"\nconsole.token = {TOKEN:?}\nconsole.user_header = \"X-Forwarded-User\"\n\
         console.trusted_proxies = [\"127.0.0.1\"]\nconsole.hosts = [\"wheel.example.com\"]"
    ));
    world.start("console");
    let url = format!("http://127.0.0.1:{port}");
    world.until("the console listens", || async { http().get(&url).send().await.is_ok() }).await;
    let mut ids: Vec<String> = Vec::new();
    for reason in ["first", "second", "third", "fourth"] {
        ids.push(world.redis(&["XADD", RAW_DEAD_LETTERS, "*", "reason", reason]).await);
    }
    assert_eq!(log(&world), Vec::<Value>::new());

    let act = async |action: &str, id: &str, headers: &[(&str, &str)]| {
        let body = json!({"letters": [{"stage": "raw", "id": id}]}).to_string();
        let mut request =
            http().post(format!("{url}/api/dead-letters/{action}")).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = tokio::time::timeout(TIMEOUT, request.body(body).send()).await.unwrap().unwrap();
        answer.status().as_u16()
    };
    assert_eq!(act("drop", &ids[0], &[]).await, 401, "without token or user");
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(act("drop", &ids[0], &[("authorization", &bearer)]).await, 200);
    let ada = ("x-forwarded-user", "ada@example.com");
    let proxied = [ada, ("x-forwarded-for", "192.0.2.7"), ("origin", "https://wheel.example.com")];
    assert_eq!(act("drop", &ids[1], &proxied).await, 200, "a user authenticated by the proxy");
    assert_eq!(act("retry", &ids[3], &proxied).await, 200);
    assert_eq!(act("drop", &ids[2], &[ada, ("origin", "http://evil.example.com")]).await, 403);

    let plan = world.command(&["dead-letters", "drop", "--id", &ids[2]]).output().unwrap();
    assert!(plan.status.success(), "a plan changes nothing");
    let acted =
        world.command(&["dead-letters", "drop", "--id", &ids[2], "--yes"]).env("USER", "grace").output().unwrap();
    assert!(acted.status.success(), "{acted:?}");

    let recorded = log(&world);
    let rows: Vec<_> = recorded
        .iter()
        .map(|entry| ["action", "user", "origin", "detail"].map(|name| entry[name].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(rows.len(), 4, "{rows:?}");
    for (row, (action, user, origin, id)) in rows.iter().zip([
        ("dead-letters drop", "token", "console 127.0.0.1", &ids[0]),
        ("dead-letters drop", "ada@example.com", "console 192.0.2.7", &ids[1]),
        ("dead-letters retry", "ada@example.com", "console 192.0.2.7", &ids[3]),
        ("dead-letters drop", "grace (uid ", "cli ", &ids[2]),
    ]) {
        assert_eq!(row[0], action);
        assert!(row[1].starts_with(user) && row[2].starts_with(origin) && row[3].contains(id.as_str()), "{row:?}");
    }
    let entries: u64 = world.redis(&["XLEN", AUDIT_LOG]).await;
    assert_eq!(entries, 4);
    let text = world.command(&["audit-log"]).output().unwrap();
    assert!(String::from_utf8_lossy(&text.stdout).contains("ada@example.com"), "{text:?}");
    assert!(!world.log("console").contains(TOKEN));
}
