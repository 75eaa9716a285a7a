//! The command line as people and scripts see it: help, settings, errors, exit codes. No server is needed.

use std::process::{Command, Output};

use tempfile::TempDir;

/// What a command printed and how it ended.
struct Ran {
    out: String,
    err: String,
    code: i32,
}

/// Runs the binary in an empty directory, with nothing of this machine's environment that it would read.
fn tidewheel(arguments: &[&str]) -> Ran {
    tidewheel_in(&tempfile::tempdir().unwrap(), arguments, &[])
}

fn tidewheel_in(directory: &TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewheel"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDEWHEEL") {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(directory.path()).env("NO_COLOR", "1").env_remove("RUST_LOG");
    let Output { stdout, stderr, status } = command.envs(environment.iter().copied()).output().unwrap();
    Ran {
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
        code: status.code().expect("it was not killed"),
    }
}

#[test]
fn help_of_every_command() {
    let commands: &[&[&str]] = &[
        &[],
        &["up"],
        &["run"],
        &["producer"],
        &["embedder"],
        &["processor"],
        &["upserter"],
        &["search"],
        &["status"],
        &["console"],
        &["monitor"],
        &["check"],
        &["replay"],
        &["trace"],
        &["wait"],
        &["verify"],
        &["dead-letters"],
        &["dead-letters", "list"],
        &["dead-letters", "show"],
        &["dead-letters", "retry"],
        &["dead-letters", "drop"],
        &["installation"],
        &["installation", "show"],
        &["installation", "adopt"],
        &["audit-log"],
        &["config"],
        &["config", "show"],
        &["config", "check"],
        &["config", "path"],
        &["config", "example"],
        &["completions"],
    ];
    for command in commands {
        let ran = tidewheel(&[*command, &["--help"]].concat());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{command:?}");
        let name = if command.is_empty() { "tidewheel".to_owned() } else { command.join("_") };
        insta::assert_snapshot!(format!("help_{name}"), ran.out);
    }
}

#[test]
fn every_setting_is_shown_with_its_origin() {
    let directory = tempfile::tempdir().unwrap();
    let file =
        "[mongodb]\ndatabase = \"shop\"\nuri = \"mongodb://ann:hunter2@db:27017\"\n[qdrant]\napi_key = \"hunter2\"\n";
    std::fs::write(directory.path().join("tidewheel.toml"), file).unwrap();
    let arguments = ["config", "show", "--set", "embedder.model=hash:64", "--redis-url", "redis://:hunter2@cache:6379"];
    let ran = tidewheel_in(&directory, &arguments, &[("TIDEWHEEL__PROCESSOR__BATCH", "7")]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(!ran.out.contains("hunter2"));
    insta::assert_snapshot!(ran.out);
    // What is shown is TOML of the right shape, to be copied from.
    let shown = tempfile::tempdir().unwrap();
    std::fs::write(shown.path().join("tidewheel.toml"), ran.out).unwrap();
    let again = tidewheel_in(&shown, &["config", "check"], &[]);
    assert_eq!(again.code, 0, "{}", again.err);
}

#[test]
fn problems_are_all_told_with_a_hint_and_exit_codes_are_an_interface() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("tidewheel.toml"), "[mongo]\nuri = \"x\"\n[processor]\nbatch = \"many\"\n")
        .unwrap();
    let ran = tidewheel_in(&directory, &["config", "check"], &[]);
    assert_eq!(ran.code, 1);
    insta::assert_snapshot!(ran.err);
    // A command that needs the settings cannot do its work at all.
    assert_eq!(tidewheel_in(&directory, &["run"], &[]).code, 2);
    assert_eq!(tidewheel(&["no-such-command"]).code, 2);
    assert_eq!(tidewheel(&["config", "path"]).code, 1);
}

#[test]
fn the_example_is_a_settings_file() {
    let directory = tempfile::tempdir().unwrap();
    let example = tidewheel(&["config", "example"]).out;
    std::fs::write(directory.path().join("tidewheel.toml"), &example).unwrap();
    assert_eq!(tidewheel_in(&directory, &["config", "check"], &[]).code, 0);
    assert_eq!(tidewheel_in(&directory, &["config", "path"], &[]).code, 0);
}

/// Addresses where nothing listens: ports below 10 belong to services that nobody runs any more.
const NOWHERE: [&str; 10] = [
    "--mongodb-uri",
    "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200",
    "--redis-url",
    "redis://127.0.0.1:2",
    "--embedding-url",
    "http://127.0.0.1:3",
    "--qdrant-url",
    "http://127.0.0.1:4",
    "--database",
    "shop",
];

#[test]
fn check_says_what_is_wrong_with_every_server_and_what_to_do() {
    let ran = tidewheel(&[&["check"], &NOWHERE[..]].concat());
    assert_eq!(ran.code, 1, "{}", ran.err);
    let lines: Vec<&str> = ran.out.lines().collect();
    for (part, line) in ["mongodb", "redis", "embedder", "qdrant"].into_iter().zip(lines.chunks(2)) {
        assert!(line[0].starts_with(&format!("✖ {part}")), "{}", ran.out);
        assert!(line[1].starts_with("   ") && line[1].len() > 20, "no hint: {}", ran.out);
    }
    let json = tidewheel(&[&["check", "--output", "json"], &NOWHERE[..]].concat()).out;
    let findings: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(findings.as_array().unwrap().iter().all(|finding| finding["verdict"] == "wrong"));
}

#[test]
fn what_cannot_be_told_is_code_2() {
    let status = tidewheel(&[&["status", "--output", "json"], &NOWHERE[..]].concat());
    assert_eq!(status.code, 2);
    let told: serde_json::Value = serde_json::from_str(&status.out).unwrap();
    assert!(told["stages"][0]["error"].as_str().unwrap().contains("127.0.0.1:2"), "{told}");
    let search = tidewheel(&[&["search", "anything"], &NOWHERE[..]].concat());
    assert_eq!((search.code, search.out.as_str()), (2, ""));
    assert!(search.err.contains("error: ") && search.err.contains("hint: "), "{}", search.err);
}

#[test]
fn a_service_without_what_it_needs_says_so() {
    let ran = tidewheel(&["producer"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.contains("mongodb.database is not set") && ran.err.contains("TIDEWHEEL__MONGODB__DATABASE"),
        "{}",
        ran.err
    );
    let ran = tidewheel(&["embedder", "--model", "hash:none"]);
    assert_eq!(ran.code, 2, "{}", ran.err);
}
