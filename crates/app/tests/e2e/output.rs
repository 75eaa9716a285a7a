//! Hostile documents and settings: terminal control characters, and excluded fields.

use mongodb::bson::{Bson, doc};
use serde_json::{Value, json};

use super::clients::points;
use super::world::{SERVICES, World};

/// Escape sequences and control characters: clipboard, clear screen, conceal, colours, title, overwrite, bidi.
const HOSTILE: [(&str, &str); 7] = [
    ("clipboard", "\x1b]52;c;ZXZpbA==\x07"),
    ("clear", "\x1b[2J\x1b[H"),
    ("conceal", "\x1b[8m\x1b[31m"),
    ("csi", "\u{9b}2J\u{9b}31m"),
    ("osc", "\u{9d}0;title\u{9c}"),
    ("overwrite", "line\rline\u{8}\u{7f}\x0b\x0c"),
    ("bidi", "\u{202e}txt.exe\u{2066}\u{2069}\u{feff}"),
];

/// Returns the control characters in a text, except in tidewheel's own styles.
fn unsafe_characters(text: &str) -> Vec<char> {
    let own = regex::Regex::new("\x1b\\[(0|1|2|31|32|33)m").unwrap();
    let acts = |letter: &char| {
        letter.is_control() && !matches!(letter, '\n' | '\t')
            || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    own.replace_all(text, "").chars().filter(acts).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn control_characters_of_documents_are_escaped_in_output() {
    let mut world = World::new().await;
    world.write_settings(
        "documents.template = \"{{ subject }}: {{ content }}{% if pages %}{{ pages | length }}{% endif %}\"\n",
    );
    let tickets = world.collection("tickets");
    let document = |kind: &str, text: &str, pages: Bson| {
        doc! {"_id": format!("{kind} {text}"), "subject": format!("{text}{kind}"), "content": text, text: text, "pages": pages}
    };
    for (kind, text) in HOSTILE {
        tickets.insert_one(document(kind, text, Bson::Null)).await.unwrap();
        // The template fails on a number.
        tickets.insert_one(document(&format!("parked {kind}"), text, Bson::Int32(5))).await.unwrap();
    }
    // Started now, so that only the snapshot reads the documents: otherwise some would be parked twice.
    for service in SERVICES {
        world.start(service);
    }
    let parked = |world: &World| {
        json_of(world, &["dead-letters", "list"])["matching"].as_u64().unwrap_or_default() >= HOSTILE.len() as u64
    };
    world.wait(parked, "the dead letters").await;
    let qdrant = world.stack.qdrant_http_url().unwrap();
    world.until("the other documents are indexed", || super::clients::count(&qdrant, HOSTILE.len() as u64)).await;

    let mut commands: Vec<Vec<String>> =
        ["status", "verify", "dead-letters list", "monitor --once", "search line --limit 20"]
            .iter()
            .map(|line| line.split(' ').map(str::to_owned).collect())
            .collect();
    for (kind, text) in HOSTILE {
        commands.push(vec!["inspect".into(), format!("{kind} {text}")]);
        commands.push(vec!["inspect".into(), format!("nobody {text}")]);
        commands.push(vec!["dead-letters".into(), "show".into(), format!("parked {kind} {text}")]);
    }
    for command in &commands {
        let arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        for form in [&[][..], &["--output", "json"]] {
            let output = world
                .command(&[&arguments[..], form].concat())
                .env_remove("NO_COLOR")
                .env("CLICOLOR_FORCE", "1")
                .output()
                .unwrap();
            let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
            assert_eq!(
                unsafe_characters(&(out.clone() + &err)),
                Vec::<char>::new(),
                "{arguments:?} {form:?}: {out:?} {err:?}"
            );
        }
    }
    // JSON output escapes losslessly.
    let (_, text) = HOSTILE[3];
    let found = json_of(&world, &["inspect", &format!("csi {text}")]);
    assert_eq!(found["documents"][0]["verdict"]["state"], "searchable", "{found}");
    assert!(found["documents"][0]["key"].as_str().unwrap().contains(text), "{found}");
    for service in SERVICES {
        assert_eq!(unsafe_characters(&world.log(service)), Vec::<char>::new(), "{service}: {}", world.log(service));
    }
}

fn json_of(world: &World, arguments: &[&str]) -> Value {
    let output = world.command(&[arguments, &["--output", "json"]].concat()).output().unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread")]
async fn dotted_paths_select_embedded_and_excluded_fields_in_arrays() {
    let mut world = World::new().await;
    world.write_settings(
        r#"
        documents.fields = ["subject", "comments.text", "items.0.name"]
        documents.payload.exclude = ["customer.ssn", "orders.card.number", "comments.author", "keys.1"]
        "#,
    );
    for service in SERVICES {
        world.start(service);
    }
    let secret = "078-05-1120";
    let document = doc! {
        "_id": 1,
        "subject": "Late",
        "customer": {"name": "Ada", "ssn": secret},
        "orders": [{"total": 1, "card": {"number": secret, "name": "A"}}, {"total": 2, "card": [{"number": secret}]}],
        "comments": [{"text": "first", "author": secret}, {"text": "second", "author": secret}, {"author": secret}],
        "items": [{"name": "parcel"}, {"name": "letter"}],
        "keys": ["a", secret],
    };
    let tickets = world.collection("tickets");
    tickets.insert_one(document.clone()).await.unwrap();
    // Without any of the fields, all texts are embedded except excluded ones.
    let mut rest = document;
    rest.insert("_id", 2);
    for field in ["subject", "comments", "items"] {
        rest.insert(field, Bson::Null);
    }
    tickets.insert_one(rest).await.unwrap();
    let qdrant = world.stack.qdrant_http_url().unwrap();
    world.until("two points", || super::clients::count(&qdrant, 2)).await;
    let points = points(&qdrant).await;
    assert!(!json!(points).to_string().contains(secret), "{points:?}");
    let payload = |id: i32| &points.iter().find(|point| point["payload"]["_id"] == id).unwrap()["payload"];
    assert_eq!(payload(1)["_tidewheel"]["text"], "Late\nfirst\nsecond\nparcel");
    assert_eq!(payload(1)["customer"], json!({"name": "Ada"}));
    assert_eq!(payload(1)["orders"], json!([{"total": 1, "card": {"name": "A"}}, {"total": 2, "card": [{}]}]));
    assert_eq!(payload(1)["comments"], json!([{"text": "first"}, {"text": "second"}, {}]));
    assert_eq!(payload(1)["keys"], json!(["a", null]));
    let text = payload(2)["_tidewheel"]["text"].as_str().unwrap();
    assert!(text.contains("Ada") && text.contains('a'), "{text}");
    let verified = world.command(&["verify"]).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn selection_without_match_is_reported() {
    let mut world = World::new().await;
    world.write_settings("mongodb.collection = [\"ticket\", \"note_*\"]\n");
    for name in ["tickets", "orders"] {
        world.collection(name).insert_one(super::world::ticket(1)).await.unwrap();
    }
    for service in SERVICES {
        world.start(service);
    }
    let message = "mongodb.collection selects none of the 2 existing collections: orders, tickets";
    let reported = |world: &World| {
        let status = json_of(world, &["status"]);
        let problems = status["problems"].as_array().unwrap();
        problems.iter().any(|problem| problem["code"] == "nothing-selected" && problem["message"] == message)
    };
    world.wait(reported, "status reports the problem").await;
    let check = world.command(&["check"]).output().unwrap();
    assert_eq!(check.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&check.stdout).contains(message));
    let verify = world.command(&["verify"]).output().unwrap();
    assert_eq!(verify.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&verify.stderr).contains(message));
}
