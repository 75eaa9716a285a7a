//! The output of every command as plain text, in colour and as JSON: in sync, with drift, and in an outage.
//!
//! Snapshots have the exact output; [`forms`] asserts the invariants of all outputs.

mod live;
mod redact;
mod tmux;

use std::path::Path;
use std::process::{Command, Stdio};

use mongodb::bson::doc;
use serde_json::Value;
use tidewheel_stores::redis::keys::{EMBEDDED, EMBEDDED_GROUP, RAW, RAW_GROUP};

use super::embedder::{Behavior, world};
use super::world::{BINARY, World, backlog, free_port, ticket};
use tmux::Terminal;

/// Output and exit code of a command.
struct Ran {
    out: String,
    err: String,
    code: i32,
}

/// Runs a command with stdout and stderr in pipes and these colour variables.
fn run(world: &World, arguments: &[&str], colour: &[(&str, &str)]) -> Ran {
    let mut command = world.command(arguments);
    let settings = world.settings();
    finish(command.env_remove("NO_COLOR").envs(colour.iter().copied()), settings.parent().unwrap())
}

fn finish(command: &mut Command, directory: &Path) -> Ran {
    let output = command.current_dir(directory).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().replace(directory.to_str().unwrap(), "DIR");
    Ran { out: text(output.stdout), err: text(output.stderr), code: output.status.code().expect("an exit code") }
}

/// Formats output for a snapshot.
fn picture(ran: &Ran, change: impl Fn(&str) -> String) -> String {
    let mut picture = format!("exit code {}\n", ran.code);
    for (name, text) in [("stdout", &ran.out), ("stderr", &ran.err)] {
        if !text.is_empty() {
            picture += &format!("── {name}\n{}", change(text));
        }
    }
    picture
}

/// Snapshots all output forms of a read-only command.
fn assert_output(world: &World, name: &str, arguments: &[&str]) -> i32 {
    assert_forms(world, name, arguments, true)
}

/// Snapshots the output forms of a read-only command without JSON output.
fn assert_text_output(world: &World, name: &str, arguments: &[&str]) -> i32 {
    assert_forms(world, name, arguments, false)
}

fn assert_forms(world: &World, name: &str, arguments: &[&str], json: bool) -> i32 {
    let (story, code) = forms(world, name, arguments, json);
    insta::assert_snapshot!(name, story);
    code
}

/// Returns the output in all forms, and the exit code.
fn forms(world: &World, name: &str, arguments: &[&str], json: bool) -> (String, i32) {
    let as_json = [arguments, &["--output", "json"]].concat();
    let (plain, painted, never, form) = std::thread::scope(|scope| {
        let painted = scope.spawn(|| run(world, arguments, &[("CLICOLOR_FORCE", "1")]));
        let never = scope.spawn(|| run(world, arguments, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]));
        let form = scope.spawn(|| json.then(|| run(world, &as_json, &[("CLICOLOR_FORCE", "1")])));
        (run(world, arguments, &[]), painted.join().unwrap(), never.join().unwrap(), form.join().unwrap())
    });
    assert!(!plain.out.contains('\x1b') && !plain.err.contains('\x1b'), "{name}: colours in a pipe: {}", plain.out);
    assert!(!never.out.contains('\x1b') && !never.err.contains('\x1b'), "{name}: colours with NO_COLOR");
    let stripped = |painted: &str| redact::text(&redact::plain(painted));
    let (ours, theirs) = (picture(&plain, redact::text), picture(&painted, stripped));
    assert_eq!(ours, theirs, "{name}: different text in colour");
    let mut story = format!("$ tidewheel {}\n{ours}", arguments.join(" "));
    if painted.out.contains('\x1b') || painted.err.contains('\x1b') {
        story += &format!("━━ in colour\n{}", picture(&painted, redact::colours));
    }
    if let Some(form) = form {
        assert_eq!(form.code, plain.code, "{name}: different exit code with JSON");
        if form.code == 2 && form.out.is_empty() {
            assert!(form.err.contains("error"), "{name}: {}", form.err);
        } else {
            let value: Value =
                serde_json::from_str(&form.out).unwrap_or_else(|error| panic!("{name}: {error}: {}", form.out));
            story += &format!("━━ for programs\n{}\n", serde_json::to_string_pretty(&redact::json(&value)).unwrap());
        }
    }
    (story, plain.code)
}

/// Runs a command that changes state, once, and snapshots its output.
fn done(world: &World, name: &str, arguments: &[&str]) -> i32 {
    let ran = run(world, arguments, &[]);
    insta::assert_snapshot!(name, format!("$ tidewheel {}\n{}", arguments.join(" "), picture(&ran, redact::text)));
    ran.code
}

fn json(world: &World, arguments: &[&str]) -> Value {
    let ran = run(world, &[arguments, &["--output", "json"]].concat(), &[]);
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {} {}", ran.out, ran.err))
}

/// Waits until the initial snapshot and its comparison with the index are complete: they would append documents twice.
async fn settled(world: &mut World) {
    let done = |world: &World| json(world, &["status"])["source"]["snapshot"]["state"] == "done";
    world.wait(done, "the snapshot is complete").await;
}

async fn drained(world: &mut World) {
    let url = world.stack.redis_url();
    for (stream, group) in [(RAW, RAW_GROUP), (EMBEDDED, EMBEDDED_GROUP)] {
        world.until("the stage is drained", || async { backlog(&url, stream, group).await == 0 }).await;
    }
}

fn codes(world: &World) -> Vec<String> {
    let status = json(world, &["status"]);
    let problems = status["problems"].as_array().unwrap();
    problems.iter().map(|problem| problem["code"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_prints_text_colour_and_json() {
    let (mut world, fake) = world().await;
    let tickets = world.collection("tickets");
    settled(&mut world).await;
    // On a busy machine, the latency problem would depend on chance.
    world.write_settings("embedding.timeout = \"1s\"\nmonitor.latency = \"1h\"");
    let mut documents: Vec<_> = (0..7).map(ticket).collect();
    documents[4].insert("content", "This one is REFUSED.");
    tickets.insert_many(documents).await.unwrap();
    world.wait(|world| json(world, &["dead-letters", "list"])["matching"] == 1, "a dead letter").await;
    drained(&mut world).await;
    tickets.delete_one(doc! {"_id": 5}).await.unwrap();
    let deleted = |world: &World| json(world, &["inspect", "5"])["documents"][0]["verdict"]["state"] == "deleted";
    world.wait(deleted, "the deletion is applied").await;
    drained(&mut world).await;
    let reported = |world: &World| {
        let status = json(world, &["status"]);
        status["latency"].is_object() && status["services"].as_array().is_some_and(|all| all.len() == 4)
    };
    world.wait(reported, "all services report").await;

    settings(&world);
    read_only_commands(&world);
    in_a_terminal_of_80_columns(&world).await;
    fake.set(Behavior::Lenient);
    modifying_commands(&mut world).await;
    commands_during_qdrant_outage(&mut world).await;
}

/// Commands that require no server.
fn settings(world: &World) {
    // The full list is in a snapshot of the CLI tests.
    let (story, code) = forms(world, "config_show", &["config", "show"], true);
    let beginning = story.split_once("\n[embedding]").map(|(beginning, _)| beginning).expect("the table [embedding]");
    assert_eq!(code, 0);
    insta::assert_snapshot!("config_show", beginning);
    assert_eq!(assert_text_output(world, "config_check", &["config", "check"]), 0);
    assert_eq!(assert_text_output(world, "config_path", &["config", "path"]), 0);
    assert_eq!(assert_text_output(world, "config_wrong", &["config", "check", "--set", "redis.urk=x"]), 1);
    // Long, and covered by another test.
    assert!(run(world, &["config", "example"], &[]).out.contains("[mongodb]"));
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = run(world, &["completions", shell], &[("CLICOLOR_FORCE", "1")]);
        assert!(script.code == 0 && script.err.is_empty() && !script.out.contains('\x1b'), "{shell}");
        assert!(script.out.contains("dead-letters") && script.out.len() > 1_000, "{shell}: {}", script.out);
    }
    assert_eq!(assert_text_output(world, "flag_unknown", &["status", "--wacth"]), 2);
}

/// Commands that change nothing, in sync except for one parked document.
fn read_only_commands(world: &World) {
    assert_eq!(assert_output(world, "status", &["status"]), 0);
    assert_eq!(assert_output(world, "monitor", &["monitor", "--once"]), 1);
    assert_eq!(assert_output(world, "check", &["check"]), 0);

    assert_eq!(assert_output(world, "inspect_searchable", &["inspect", "1"]), 0);
    assert_eq!(assert_output(world, "inspect_parked", &["inspect", "4"]), 1);
    assert_eq!(assert_output(world, "inspect_deleted", &["inspect", "5"]), 0);
    assert_eq!(assert_output(world, "inspect_unknown", &["inspect", "99"]), 1);
    assert_eq!(assert_output(world, "inspect_wrong", &["inspect", "1", "--namespace", ""]), 2);
    assert_eq!(assert_output(world, "wait", &["wait"]), 0);
    assert_eq!(assert_output(world, "wait_wrong", &["wait", "--since", "soon"]), 2);

    assert_eq!(assert_output(world, "dead_letters_list", &["dead-letters", "list"]), 0);
    assert_eq!(assert_output(world, "dead_letters_list_none", &["dead-letters", "list", "--reason", "timeout"]), 0);
    assert_eq!(assert_output(world, "dead_letters_show", &["dead-letters", "show", "4"]), 0);
    assert_eq!(assert_output(world, "dead_letters_show_none", &["dead-letters", "show", "99"]), 1);
    assert_eq!(assert_output(world, "dead_letters_retry_plan", &["dead-letters", "retry", "--all"]), 0);
    assert_eq!(assert_output(world, "dead_letters_retry_none", &["dead-letters", "retry", "--id", "99"]), 1);
    assert_eq!(assert_output(world, "dead_letters_drop_plan", &["dead-letters", "drop", "--all"]), 0);
    assert_eq!(assert_text_output(world, "dead_letters_retry_which", &["dead-letters", "retry"]), 2);

    assert_eq!(assert_output(world, "verify_parked", &["verify"]), 1);
    assert_eq!(assert_output(world, "search", &["search", "the parcel number 2", "--limit", "2"]), 0);
    let nothing = r#"{"must": [{"key": "product", "match": {"value": "Dorado"}}]}"#;
    assert_eq!(assert_output(world, "search_nothing", &["search", "parcel", "--filter", nothing]), 1);
    assert_eq!(assert_output(world, "search_wrong", &["search", "parcel", "--filter", "product=Atlas"]), 2);

    assert_eq!(assert_output(world, "replay_embedded_plan", &["replay", "embedded"]), 0);
    assert_eq!(assert_output(world, "replay_raw_plan", &["replay", "raw", "--since", "2h"]), 0);
    assert_eq!(assert_output(world, "replay_into_plan", &["replay", "source", "--into", "documents_2"]), 0);
    assert_eq!(assert_output(world, "replay_wrong", &["replay", "raw", "--filter", "{}"]), 2);
}

/// In a terminal of the default width no line may be wrapped within a word, and with NO_COLOR there are no colours.
async fn in_a_terminal_of_80_columns(world: &World) {
    let commands = [
        "status",
        "monitor --once",
        "check",
        "inspect 1",
        "inspect 4",
        "wait",
        "dead-letters list",
        "dead-letters show 4",
        "dead-letters retry --all",
        "verify",
        "search 'the parcel number 2' --limit 2",
        "replay source --into documents_2",
    ];
    for command in commands {
        let terminal = Terminal::run(world, (80, 60), "NO_COLOR=1", command).await;
        let picture = terminal.until(|picture| picture.contains("\nicanon"), command).await;
        let (picture, _) = picture.split_once("\nended ").expect("the command has ended");
        assert!(!terminal.painted().contains("\x1b["), "{command} prints colours:\n{}", terminal.painted());
        let broken: Vec<String> = terminal
            .unbroken()
            .lines()
            .filter(|line| line.chars().count() > 80 && line.trim().contains(' '))
            .map(str::to_owned)
            .collect();
        assert!(broken.is_empty(), "{command} prints lines that the terminal wraps:\n{picture}");
        let name = command.split(['\'', ' ']).filter(|word| !word.is_empty()).take(3).collect::<Vec<_>>().join("_");
        let shown = picture.replace(world.settings().parent().unwrap().to_str().unwrap(), "DIR");
        insta::assert_snapshot!(format!("80_columns_{name}"), redact::text(&shown));
    }
}

/// The first output of a new user, without and with colours. The model needs no download.
#[tokio::test(flavor = "multi_thread")]
async fn up_prints_started_services_and_next_commands() {
    let dir = tempfile::tempdir().unwrap();
    let up = |colour: &[(&str, &str)]| {
        let ports: Vec<String> = (0..7).map(|_| free_port().to_string()).collect();
        let mut command = Command::new(BINARY);
        command.args(["up", "--demo", "--exit", "--model", "hash:64", "--data"]).arg(dir.path().join("data"));
        command.args(["--mongodb-port", &ports[0], "--redis-port", &ports[1], "--qdrant-http-port", &ports[2]]);
        command.args(["--qdrant-grpc-port", &ports[3], "--embedder-port", &ports[4], "--http-port", &ports[5]]);
        command.args(["--console-port", &ports[6]]).current_dir(dir.path()).stdin(Stdio::null());
        let ran = finish(command.env_remove("NO_COLOR").envs(colour.iter().copied()), dir.path());
        assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
        // The servers start and stop concurrently.
        let mut lines: Vec<&str> = ran.err.lines().collect();
        lines.sort_by_key(|line| redact::text(line));
        Ran { out: ran.out.replace(BINARY, "tidewheel"), err: lines.join("\n") + "\n", ..ran }
    };
    let plain = up(&[]);
    assert!(!plain.out.contains('\x1b') && !plain.err.contains('\x1b'), "colours in a pipe: {}", plain.out);
    let painted = picture(&up(&[("CLICOLOR_FORCE", "1")]), redact::colours);
    insta::assert_snapshot!("up", format!("{}━━ the second time, in colour\n{painted}", picture(&plain, redact::text)));
}

/// Commands that change state.
async fn modifying_commands(world: &mut World) {
    assert_eq!(done(world, "dead_letters_retry", &["dead-letters", "retry", "--all", "--yes"]), 0);
    world.equal().await;
    drained(world).await;
    assert_eq!(assert_output(world, "verify", &["verify"]), 0);
    let qdrant = world.stack.qdrant_http_url().unwrap();
    let url = format!("{qdrant}/collections/documents/points/delete?wait=true");
    let body = serde_json::json!({"filter": {"must": [{"key": "_id", "match": {"value": 3}}]}});
    let answer = super::clients::http().post(url).json(&body).send().await.unwrap();
    assert!(answer.status().is_success());
    assert_eq!(assert_output(world, "verify_drift", &["verify"]), 1);
    assert_eq!(assert_output(world, "inspect_missing", &["inspect", "3"]), 1);
    assert_eq!(done(world, "verify_repair", &["verify", "--repair"]), 0);
    assert_eq!(done(world, "replay_embedded", &["replay", "embedded", "--yes"]), 0);
    world.equal().await;
    drained(world).await;
}

/// Commands with Qdrant down and a backlog in stage 2.
async fn commands_during_qdrant_outage(world: &mut World) {
    let qdrant = world.stack.qdrant.clone().unwrap();
    qdrant.kill().await;
    let tickets = world.collection("tickets");
    tickets.update_many(doc! {"_id": {"$in": [0, 1, 2]}}, doc! {"$set": {"content": "It has arrived."}}).await.unwrap();
    let seen = |world: &World| {
        let status = json(world, &["status"]);
        let codes = codes(world);
        status["stages"][1]["pending"] == 3
            && status["stages"][0]["backlog"] == 0
            && codes.iter().any(|code| code == "service-not-ready")
            // At first the error may be the lost connection.
            && status["problems"].as_array().unwrap().iter().all(|problem| {
                problem["message"].as_str().is_some_and(|message| message.contains("Connection refused"))
            })
    };
    world.wait(seen, "the outage is reported").await;
    assert_eq!(assert_output(world, "outage_status", &["status"]), 2);
    assert_eq!(assert_output(world, "outage_monitor", &["monitor", "--once"]), 1);
    assert_eq!(assert_output(world, "outage_check", &["check"]), 1);
    assert_eq!(assert_output(world, "outage_inspect", &["inspect", "1"]), 2);
    assert_eq!(assert_output(world, "outage_wait", &["wait", "--timeout", "100ms"]), 1);
    assert_eq!(assert_output(world, "outage_search", &["search", "parcel"]), 2);
    assert_eq!(assert_output(world, "outage_verify", &["verify"]), 2);
    qdrant.start().await.unwrap();
    world.equal().await;
}
