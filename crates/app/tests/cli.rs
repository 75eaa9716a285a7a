//! The command line: help, settings, errors, exit codes. Requires no servers.

use std::process::{Command, Output};

use tempfile::TempDir;

/// Output and exit code of a command.
struct Ran {
    out: String,
    err: String,
    code: i32,
}

/// Runs the binary in an empty directory, without the environment variables that it reads.
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
        code: status.code().expect("an exit code"),
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
        &["plan"],
        &["apply"],
        &["rollback"],
        &["replay"],
        &["inspect"],
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
fn config_show_prints_every_setting_with_its_origin() {
    let directory = tempfile::tempdir().unwrap();
    let file =
        "[mongodb]\ndatabase = \"shop\"\nuri = \"mongodb://ann:hunter2@db:27017\"\n[qdrant]\napi_key = \"hunter2\"\n";
    std::fs::write(directory.path().join("tidewheel.toml"), file).unwrap();
    let arguments = ["config", "show", "--set", "embedder.model=hash:64", "--redis-url", "redis://:hunter2@cache:6379"];
    let ran = tidewheel_in(&directory, &arguments, &[("TIDEWHEEL__PROCESSOR__BATCH", "7")]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(!ran.out.contains("hunter2"));
    insta::assert_snapshot!(ran.out);
    // The output is a valid settings file.
    let shown = tempfile::tempdir().unwrap();
    std::fs::write(shown.path().join("tidewheel.toml"), ran.out).unwrap();
    let again = tidewheel_in(&shown, &["config", "check"], &[]);
    assert_eq!(again.code, 0, "{}", again.err);
}

#[test]
fn config_show_of_declared_indexes_is_a_valid_settings_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = r#"
[embedding.large]
model = "hash:64"
[[index]]
name = "tickets"
source = ["shop.tickets", "!shop.tmp_*"]
filter = { status = { "$ne" = "draft" }, at = { "$gte" = 2024-01-01 } }
text.template = """
{{ subject }}
{{ content }}"""
payload.rename = { "customer.name" = "customer" }
payload.indexes = { tenant = { type = "keyword", is_tenant = true } }
embedding = "large"
qdrant.hnsw_config = { m = 16 }
[[index]]
name = "notes"
source = "shop.notes"
"#;
    std::fs::write(directory.path().join("tidewheel.toml"), file).unwrap();
    let ran = tidewheel_in(&directory, &["config", "show"], &[("TIDEWHEEL__INDEX__NOTES__KEEP", "1h")]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for line in [
        "[embedding.large]",
        "qdrant.hnsw = { m = 16 }                         # tidewheel.toml:14",
        "keep = \"1h\"                                      # $TIDEWHEEL__INDEX__NOTES__KEEP",
        "chunk.overlap = 32                               # default",
    ] {
        assert!(ran.out.lines().any(|shown| shown == line), "{line}: {}", ran.out);
    }
    assert_eq!(ran.out.lines().filter(|line| *line == "[[index]]").count(), 2);
    let shown = tempfile::tempdir().unwrap();
    std::fs::write(shown.path().join("tidewheel.toml"), &ran.out).unwrap();
    let again = tidewheel_in(&shown, &["config", "check"], &[]);
    assert_eq!(again.code, 0, "{}", again.err);
    assert!(again.out.ends_with("  indexes: tickets, notes\n  embeddings: default, large\n"), "{}", again.out);
}

#[test]
fn config_check_reports_every_problem_with_hint_and_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("tidewheel.toml"), "[mongo]\nuri = \"x\"\n[processor]\nbatch = \"many\"\n")
        .unwrap();
    let ran = tidewheel_in(&directory, &["config", "check"], &[]);
    assert_eq!(ran.code, 1);
    insta::assert_snapshot!(ran.err);
    // A command that requires the settings fails to run.
    assert_eq!(tidewheel_in(&directory, &["run"], &[]).code, 2);
    assert_eq!(tidewheel(&["no-such-command"]).code, 2);
    assert_eq!(tidewheel(&["config", "path"]).code, 1);
}

#[test]
fn config_example_prints_valid_settings() {
    let directory = tempfile::tempdir().unwrap();
    let example = tidewheel(&["config", "example"]).out;
    std::fs::write(directory.path().join("tidewheel.toml"), &example).unwrap();
    assert_eq!(tidewheel_in(&directory, &["config", "check"], &[]).code, 0);
    assert_eq!(tidewheel_in(&directory, &["config", "path"], &[]).code, 0);
}

/// Unreachable servers: nothing listens on ports below 10, which belong to obsolete services.
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
fn check_reports_every_unreachable_server_with_hint() {
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
fn commands_exit_with_2_when_servers_are_unreachable() {
    let status = tidewheel(&[&["status", "--output", "json"], &NOWHERE[..]].concat());
    assert_eq!(status.code, 2);
    let status_json: serde_json::Value = serde_json::from_str(&status.out).unwrap();
    assert!(status_json["stages"][0]["error"].as_str().unwrap().contains("127.0.0.1:2"), "{status_json}");
    let search = tidewheel(&[&["search", "anything"], &NOWHERE[..]].concat());
    assert_eq!((search.code, search.out.as_str()), (2, ""));
    assert!(search.err.contains("error: ") && search.err.contains("hint: "), "{}", search.err);
    for command in
        [&["plan"][..], &["plan", "--output", "json"], &["apply", "--yes"], &["rollback", "tickets", "--yes"]]
    {
        let ran = tidewheel(&[command, &NOWHERE[..]].concat());
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{command:?}: {}", ran.err);
        assert!(ran.err.contains("127.0.0.1:2") && ran.err.contains("hint: "), "{command:?}: {}", ran.err);
    }
}

#[test]
fn commands_accept_declared_indexes() {
    let directory = tempfile::tempdir().unwrap();
    let file = "[[index]]\nname = \"tickets\"\nsource = \"shop.tickets\"\n[[index]]\nname = \"notes\"\nsource = \"crm.notes\"\n";
    std::fs::write(directory.path().join("tidewheel.toml"), file).unwrap();
    // Without the database, which the declarations name.
    let nowhere = &NOWHERE[..NOWHERE.len() - 2];
    for command in [&["plan"][..], &["apply", "--index", "notes"], &["search", "text", "--index", "tickets"], &["wait"]]
    {
        let ran = tidewheel_in(&directory, &[command, nowhere].concat(), &[]);
        assert_eq!(ran.code, 2, "{command:?}: {}", ran.err);
        assert!(ran.err.contains("127.0.0.1:"), "{command:?}: {}", ran.err);
    }
    let unknown = tidewheel_in(&directory, &[&["check", "--index", "users"][..], nowhere].concat(), &[]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("invalid --index \"users\": expected one of tickets, notes"), "{}", unknown.err);
}

#[test]
fn service_reports_missing_setting() {
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

/// Secrets with characters that break URL parsing, in every setting that may contain one; no command may print them.
#[test]
fn no_command_prints_secret_of_any_setting() {
    // Fixed cases. The redaction itself has property tests.
    let secrets = ["Xk9qPlain7", "Xk9q?Mark7", "Xk9q@At7", "Xk9q#Hash7", "Xk9q/Slash:Colon%41&x=Xk9q"];
    let templates: [(&str, &[&str]); 7] = [
        (
            "mongodb.uri",
            &[
                "mongodb://ann:{}@127.0.0.1:1/?serverSelectionTimeoutMS=100",
                "mongodb://{}@127.0.0.1:1/?serverSelectionTimeoutMS=100",
                "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100&authMechanism=MONGODB-AWS&authMechanismProperties=AWS_SESSION_TOKEN:{}",
                "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100&tls=true&tlsCertificateKeyFilePassword={}",
                "mongodb://127.0.0.1:{}/",
                "{}://127.0.0.1:1/",
            ],
        ),
        (
            "redis.url",
            &[
                "redis://:{}@127.0.0.1:2",
                "redis://{}:pw@127.0.0.1:2",
                "redis+unix:///nowhere.sock?pass={}",
                "redis://127.0.0.1:{}",
            ],
        ),
        (
            "qdrant.url",
            &[
                "http://127.0.0.1:4/?api-key={}",
                "http://u:{}@127.0.0.1:4",
                "http://127.0.0.1:{}",
                "http://127.0.0.1:4#{}",
            ],
        ),
        (
            "embedding.url",
            &["http://127.0.0.1:3/?key={}", "http://u:{}@127.0.0.1:3", "http://127.0.0.1:{}", "http://127.0.0.1:3#{}"],
        ),
        ("traces.endpoint", &["http://127.0.0.1:5/?key={}", "http://{}@127.0.0.1:5", "http://127.0.0.1:{}", "{}"]),
        ("monitor.webhook", &["https://127.0.0.1:6/services/{}", "{}"]),
        ("qdrant.api_key", &["{}"]),
    ];
    let longest = templates.iter().map(|(_, forms)| forms.len()).max().unwrap();
    let leaks = std::thread::scope(|scope| {
        let tasks: Vec<_> = secrets
            .iter()
            .map(|secret| {
                scope.spawn(move || (0..longest).flat_map(|form| leaks(secret, &templates, form)).collect::<Vec<_>>())
            })
            .collect();
        tasks.into_iter().flat_map(|task| task.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
}

/// Returns the outputs that contain the secret, given one form of each setting.
fn leaks(secret: &str, templates: &[(&str, &[&str])], form: usize) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let mut file = String::from("mongodb.database = \"shop\"\n");
    for (key, forms) in templates {
        let value = forms[form % forms.len()].replace("{}", secret);
        file += &format!("{key} = '{value}'\n");
    }
    std::fs::write(directory.path().join("tidewheel.toml"), &file).unwrap();
    let mut found = Vec::new();
    let mut look = |directory: &TempDir, arguments: &[&str]| {
        let ran = tidewheel_in(directory, arguments, &[]);
        let output = ran.out + &ran.err;
        // The common prefix of the secrets.
        if output.contains("Xk9q") {
            found.push(format!("{arguments:?} with\n{file}prints\n{output}"));
        }
    };
    for command in [&["config", "show"][..], &["config", "check"], &["status"]] {
        look(&directory, command);
    }
    // An invalid setting prevents the others from being used, so each is also tried alone.
    let nowhere = tempfile::tempdir().unwrap();
    let quick = "mongodb.uri = \"mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100\"\nmongodb.database = \"shop\"\n\
                 redis.url = \"redis://127.0.0.1:2\"\nembedding.url = \"http://127.0.0.1:3\"\nqdrant.url = \"http://127.0.0.1:4\"\n";
    std::fs::write(nowhere.path().join("tidewheel.toml"), quick).unwrap();
    for (key, forms) in templates.iter().filter(|(_, forms)| form < forms.len()) {
        let assignment = format!("{key}={}", forms[form].replace("{}", secret));
        look(&nowhere, &["check", "--set", &assignment]);
    }
    found
}

#[test]
fn malformed_assignment_error_does_not_print_its_value() {
    for assignment in ["qdrant.api_key:hunter2", "hunter2", "redis://:hunter2@cache?a=b", "qdrant.apikey=hunter2"] {
        let ran = tidewheel(&["config", "check", "--set", assignment]);
        assert_eq!(ran.code, 1, "{}", ran.err);
        assert!(!ran.err.contains("hunter2"), "{}", ran.err);
    }
}

#[test]
fn config_check_warns_of_secret_in_flag_and_misspelt_variable() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["config", "check", "--set", "qdrant.api_key=hunter2", "--redis-url", "redis://:hunter2@cache"];
    let ran = tidewheel_in(&directory, &arguments, &[("TIDEWHEEL_MONGODB__COLLECTION", "tickets")]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(!ran.err.contains("hunter2"));
    insta::assert_snapshot!(ran.err);
}

#[test]
fn check_before_run_tolerates_stopped_embedder() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let embedder = |model: &str| {
        let listen = format!("embedder.listen=127.0.0.1:{port}");
        let model = format!("embedder.model={model}");
        let arguments = ["check", "--output", "json", "--set", &listen, "--set", &model, "--database", "shop"];
        let others = [&NOWHERE[0..4], &NOWHERE[6..8]].concat();
        let findings: serde_json::Value =
            serde_json::from_str(&tidewheel(&[&arguments[..], &others[..]].concat()).out).unwrap();
        let findings = findings.as_array().unwrap().iter().filter(|finding| finding["part"] == "embedder");
        findings
            .map(|finding| {
                format!("{}: {}", finding["verdict"].as_str().unwrap(), finding["message"].as_str().unwrap())
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        embedder("hash:64"),
        [
            "right: hash:64 can be loaded: 64 dimensions".to_owned(),
            format!("doubtful: no embedder is running at http://127.0.0.1:{port}")
        ]
    );
    let unknown = embedder("nobody/has-this-model");
    assert!(unknown[0].starts_with("doubtful: nobody/has-this-model is not downloaded yet"), "{unknown:?}");
    let empty = tempfile::tempdir().unwrap();
    let broken = embedder(empty.path().to_str().unwrap());
    assert!(broken.len() == 1 && broken[0].starts_with("wrong: embedder:"), "{broken:?}");
    // Another process uses the port, so that the embedder could not start.
    let holder = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || holder.incoming().for_each(drop));
    let taken = embedder("hash:64");
    assert!(taken.len() == 1 && taken[0].starts_with("wrong: "), "{taken:?}");
}

/// Responds to every request with a redirect, over HTTP/1.
fn redirecting(location: &'static str) -> u16 {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { continue };
            let _ = connection.read(&mut [0; 4096]);
            let head = format!(
                "HTTP/1.1 301 Moved Permanently\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            let _ = connection.write_all(head.as_bytes());
        }
    });
    port
}

#[test]
fn redirect_is_reported_with_its_setting_and_not_followed() {
    let port = redirecting("https://elsewhere.example.com/encode?key=hunter2");
    let url = format!("http://127.0.0.1:{port}");
    let (embedding, endpoint) = (format!("embedding.url={url}"), format!("traces.endpoint={url}"));
    for provider in ["tidewheel", "tei"] {
        let provider = format!("embedding.provider={provider}");
        let arguments = ["check", "--set", &embedding, "--set", &provider, "--set", &endpoint, "--database", "shop"];
        let others = [&NOWHERE[0..4], &NOWHERE[6..8]].concat();
        let ran = tidewheel(&[&arguments[..], &others[..]].concat());
        let target = "redirects to https://elsewhere.example.com/encode?*** (301)";
        assert_eq!(ran.out.matches(target).count(), 2, "embedder and traces: {}", ran.out);
        assert!(
            ran.out.contains("set embedding.url to the redirect target") && ran.out.contains("set traces.endpoint"),
            "{}",
            ran.out
        );
        assert!(!ran.out.contains("hunter2"), "{}", ran.out);
    }
}

/// A proxy that records request lines and responds with 502.
fn recording_proxy() -> (u16, std::sync::Arc<std::sync::Mutex<Vec<String>>>) {
    use std::io::{BufRead as _, BufReader, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let recorded = requests.clone();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { continue };
            let mut line = String::new();
            let _ = BufReader::new(&connection).read_line(&mut line);
            recorded.lock().unwrap().push(line.trim().to_owned());
            let _ = connection.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    (port, requests)
}

#[test]
fn environment_proxy_receives_no_loopback_requests() {
    let (proxy, requests) = recording_proxy();
    let proxy = format!("http://127.0.0.1:{proxy}");
    let cache = tempfile::tempdir().unwrap();
    let ours = redirecting("/elsewhere");
    let hub = format!("http://127.0.0.1:{ours}");
    let run = |arguments: &[&str], no_proxy: &str| {
        let environment = [
            ("HTTP_PROXY", proxy.as_str()),
            ("http_proxy", proxy.as_str()),
            ("HTTPS_PROXY", proxy.as_str()),
            ("ALL_PROXY", proxy.as_str()),
            ("NO_PROXY", no_proxy),
            ("no_proxy", no_proxy),
            ("HF_ENDPOINT", hub.as_str()),
            ("TIDEWHEEL_CACHE", cache.path().to_str().unwrap()),
        ];
        let others = [&NOWHERE[0..4], &NOWHERE[6..10]].concat();
        let ran = tidewheel_in(&tempfile::tempdir().unwrap(), &[arguments, &others[..]].concat(), &environment);
        (ran.out + &ran.err, std::mem::take(&mut *requests.lock().unwrap()))
    };
    for host in ["127.0.0.1", "localhost", "127.1.2.3", "[::1]"] {
        let embedding = format!("embedding.url=http://{host}:{ours}");
        let endpoint = format!("traces.endpoint=http://{host}:{ours}");
        let webhook = format!("monitor.webhook=http://{host}:{ours}");
        let flags = ["--set", &embedding, "--set", &endpoint, "--set", &webhook];
        for command in [&["check"][..], &["status"], &["monitor", "--once"], &["search", "anything"]] {
            let (output, requests) = run(&[command, &flags].concat(), "");
            assert_eq!(requests, [""; 0], "{host}: {command:?}: {output}");
        }
    }
    // A model hub on loopback.
    let (output, requests) = run(&["embedder", "--model", "nobody/model", "--set", "embedder.listen=127.0.0.1:9"], "");
    assert!(output.contains("nobody/model") && requests.is_empty(), "{output} {requests:?}");

    // Remote hosts still go through the proxy, unless NO_PROXY lists them.
    let remote = ["check", "--set", "embedding.url=http://embedder.invalid:8080"];
    let (output, requests) = run(&remote, "");
    assert!(requests.iter().any(|line| line.starts_with("GET http://embedder.invalid:8080/")), "{output} {requests:?}");
    let (output, requests) = run(&remote, "embedder.invalid");
    assert!(requests.is_empty() && output.contains("embedder.invalid"), "{output} {requests:?}");
}

/// The help of a command without the settings, which are the same for every command.
fn help_without_settings(help: &str) -> String {
    let mut kept = String::new();
    let mut in_settings = false;
    for line in help.lines() {
        if !line.is_empty() && !line.starts_with(' ') {
            in_settings = line == "Settings:";
        }
        if !in_settings {
            kept.push_str(line.trim_end());
            kept.push('\n');
        }
    }
    kept.trim_end().to_owned()
}

/// Names in the section `Commands:` of a help text.
fn subcommands(help: &str) -> Vec<String> {
    let section = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = section.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().map(str::to_owned));
    names.filter(|name| !name.is_empty() && name != "help").collect()
}

/// Appends the sections of a command and of its subcommands.
fn reference_of(command: &[String], page: &mut String) {
    let arguments: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
    let help = tidewheel(&arguments).out;
    if command.is_empty() {
        page.push_str(&format!("\n## Global options\n\n```text\n{}\n```\n", help.trim_end()));
    } else {
        let level = "#".repeat(command.len() + 1);
        let name = command.join(" ");
        page.push_str(&format!("\n{level} tidewheel {name}\n\n```text\n{}\n```\n", help_without_settings(&help)));
    }
    for name in subcommands(&help) {
        reference_of(&[command, &[name]].concat(), page);
    }
}

#[test]
fn command_line_reference_is_current() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cli.md");
    // The part above the marker is written by hand.
    let current = std::fs::read_to_string(&path).unwrap();
    let marker =
        "<!-- Generated below. Regenerate: UPDATE=1 cargo test -p tidewheel --test cli command_line_reference -->\n";
    let (head, _) = current.split_once(marker).expect("docs/reference/cli.md has the marker");
    let mut page = format!("{head}{marker}");
    reference_of(&[], &mut page);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let current = std::fs::read_to_string(&path).unwrap();
    assert!(current == page, "docs/reference/cli.md is stale: run this test with UPDATE=1");
}
