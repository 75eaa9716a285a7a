//! The ACL rules in docs/redis.md cover the commands of the scripts.

use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn documented_acl_user_may_call_every_script_command() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("../../docs/redis.md")).unwrap();
    let users: Vec<&str> = page.lines().filter(|line| line.starts_with("user tidewheel on ")).collect();
    assert!(!users.is_empty(), "the page shows no user");
    let mut called = BTreeSet::new();
    for script in std::fs::read_dir(root.join("src/redis/lua")).unwrap() {
        let text = std::fs::read_to_string(script.unwrap().path()).unwrap();
        let calls = text.split("redis.call('").skip(1).map(|rest| rest.split('\'').next().unwrap().to_lowercase());
        called.extend(calls);
    }
    assert!(called.len() > 15, "{called:?}");
    for user in users {
        let rights: BTreeSet<&str> = user.split(' ').filter_map(|word| word.strip_prefix('+')).collect();
        // A rule may cover one subcommand: `xinfo|stream`.
        let may = |command: &String| rights.iter().any(|right| right.split('|').next() == Some(command.as_str()));
        let missing: Vec<&String> = called.iter().filter(|command| !may(command)).collect();
        assert!(missing.is_empty(), "the user in docs/redis.md may not call {missing:?}");
    }
}
