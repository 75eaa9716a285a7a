//! Runs every command of docs/runbook.md against a healthy pipeline.
//!
//! `tidewheel` is the binary. `redis-cli`, `curl` and `db.adminCommand(…)` are sent by client libraries: the same
//! requests, without those programs.

use std::time::Duration;

use mongodb::bson::{Document, doc};

use super::clients::http;
use super::world::{World, free_port, redis_command, repository, ticket};

/// A command line of the runbook.
#[derive(Debug, PartialEq)]
enum Line {
    /// The words of a shell command.
    Shell(Vec<String>),
    /// A command for MongoDB.
    Mongo(Document),
}

/// Returns every line of every code block.
fn lines(markdown: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut block = None;
    for line in markdown.lines() {
        match (block, line) {
            (None, _) if line.starts_with("```") => block = Some(line.trim_start_matches('`')),
            (Some(_), "```") => block = None,
            (Some("sh"), _) => lines.push(Line::Shell(words(line))),
            (Some("js"), _) => {
                let json = line.strip_prefix("db.adminCommand(").and_then(|rest| rest.strip_suffix(')'));
                let json = json.unwrap_or_else(|| panic!("not a db.adminCommand: {line:?}"));
                lines.push(Line::Mongo(serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))));
            }
            (Some(other), _) => panic!("unsupported code block {other:?}"),
            (None, _) => {}
        }
    }
    lines
}

/// Splits a line into words; text in single quotes is one word.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for (i, part) in line.split('\'').enumerate() {
        if i % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

#[tokio::test(flavor = "multi_thread")]
async fn every_runbook_command_succeeds() {
    let text = std::fs::read_to_string(repository("docs/runbook.md")).unwrap();
    let lines = lines(&text);
    assert!(lines.len() > 40, "{} commands found", lines.len());
    assert!(lines.contains(&Line::Shell(vec!["tidewheel".into(), "inspect".into(), "7".into()])));

    let mut world = World::new().await;
    world.start("embedder");
    // The settings below are not for the embedder: two services cannot listen on one port.
    world.wait(|world| world.log("embedder").contains("ready"), "the embedder has read its settings").await;
    let operations = format!("127.0.0.1:{}", free_port());
    world.write_settings(&format!("http.listen = \"{operations}\""));
    world.start("run");
    world.collection("tickets").insert_many((0..50).map(ticket)).await.unwrap();
    world.equal().await;
    let places = [
        ("127.0.0.1:6333", world.stack.qdrant_http_url().unwrap().trim_start_matches("http://").to_owned()),
        ("127.0.0.1:8080", world.embedder.clone()),
        ("127.0.0.1:9090", operations),
    ];
    for line in lines {
        match line {
            Line::Mongo(command) => {
                let admin = world.database.client().database("admin");
                admin.run_command(command.clone()).await.unwrap_or_else(|error| panic!("{command}: {error}"));
            }
            Line::Shell(words) => shell(&world, &words, &places).await,
        }
    }
    // The last command triggers a comparing snapshot, which the runbook documents as harmless.
    world.collection("tickets").update_many(doc! {}, doc! {"$set": {"owner": "grace@example.com"}}).await.unwrap();
    world.equal().await;
}

async fn shell(world: &World, words: &[String], places: &[(&str, String)]) {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["tidewheel", ref arguments @ ..] => {
            let output = world.command(arguments).output().expect("the binary starts");
            let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(matches!(output.status.code(), Some(0 | 1)), "{words:?}: {}\n{out}\n{err}", output.status);
            assert!(!out.is_empty() || !err.is_empty(), "{words:?} prints nothing");
        }
        ["redis-cli", ref command @ ..] => {
            // Panics if Redis returns an error.
            let _: redis::Value = redis_command(&world.stack.redis_url(), command).await;
        }
        ["curl", "-s", address] => {
            let (usual, here) = places.iter().find(|(usual, _)| address.starts_with(usual)).expect("a known server");
            let url = format!("http://{here}{}", &address[usual.len()..]);
            let answer = http().get(&url).timeout(Duration::from_secs(10)).send().await.unwrap();
            assert!(answer.status().is_success(), "{address}: {}", answer.status());
        }
        _ => panic!("unsupported command {words:?}"),
    }
}
