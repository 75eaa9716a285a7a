use std::path::PathBuf;

use tidewheel_embed::client::Api;

use super::keys::KEYS;
use super::*;

mod declarations;
mod effects;
mod embeddings;
mod indexes;
mod traces;

fn given(file: Option<&str>, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> (Given, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    // Always pass a file, so that no default path is read.
    let path = folder.path().join("tidewheel.toml");
    std::fs::write(&path, file.unwrap_or_default()).unwrap();
    let given = Given {
        config: Some(path),
        environment: environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        assignments: flags.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        flags: Vec::new(),
    };
    (given, folder)
}

fn loaded(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Loaded {
    load(&given(Some(file), environment, flags).0).unwrap()
}

fn problems(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Vec<(String, String)> {
    let (given, folder) = given(Some(file), environment, flags);
    let SettingsError(problems) = load(&given).unwrap_err();
    let folder = format!("{}/", folder.path().display());
    problems.iter().map(|problem| (problem.to_string().replace(&folder, ""), problem.hint())).collect()
}

fn origin(loaded: &Loaded, name: &str) -> String {
    let origin = &loaded.layers.get(name).unwrap().origin;
    match origin {
        Origin::File { line, .. } => format!("line {line}"),
        other => other.to_string(),
    }
}

#[test]
fn later_layers_win_and_values_keep_their_origin() {
    let file = "[qdrant]\ncollection = \"a\"\n\n[processor]\nbatch = 7\nclaim_after = \"1m\"\n";
    let environment = [("TIDEWHEEL__PROCESSOR__BATCH", "8"), ("TIDEWHEEL__UPSERTER__BATCH", "9"), ("HOME", "/root")];
    let loaded = loaded(file, &environment, &[("upserter.batch", "10")]);
    assert_eq!(loaded.settings.qdrant.collection, "a");
    assert_eq!(origin(&loaded, "qdrant.collection"), "line 2");
    assert_eq!(loaded.settings.processor.batch, 8);
    assert_eq!(origin(&loaded, "processor.batch"), "$TIDEWHEEL__PROCESSOR__BATCH");
    assert_eq!(loaded.settings.upserter.batch, 10);
    assert_eq!(origin(&loaded, "upserter.batch"), "--set");
    assert_eq!(loaded.settings.processor.claim_after.as_secs(), 60);
    assert_eq!(origin(&loaded, "upserter.concurrency"), "default");
    assert!(loaded.is_set("upserter.batch") && !loaded.is_set("upserter.concurrency"));
}

#[test]
fn local_stack_overrides_all_layers() {
    let before = loaded("", &[], &[("redis.url", "redis://elsewhere:1")]);
    let after = before.with(&[("redis.url", "redis://127.0.0.1:2".into())]).unwrap();
    assert_eq!(after.settings.redis.url.reveal(), "redis://127.0.0.1:2");
    assert_eq!(origin(&after, "redis.url"), "local stack");
}

#[test]
fn nested_tables_and_lists_are_parsed() {
    let file = r#"
        mongodb.collection = ["tickets", "notes_*"]
        [documents]
        fields = "body"
        payload = { exclude = ["secret"] }
    "#;
    let loaded = loaded(file, &[("TIDEWHEEL__DOCUMENTS__PAYLOAD__INCLUDE", "a, b")], &[]);
    assert_eq!(loaded.settings.mongodb.collection, ["tickets", "notes_*"]);
    assert_eq!(loaded.settings.documents.fields, ["body"]);
    assert_eq!(loaded.settings.documents.exclude, ["secret"]);
    assert_eq!(loaded.settings.documents.include, ["a", "b"]);
}

#[test]
fn unknown_key_error_suggests_the_nearest() {
    let file = "[mongodb]\nurl = \"mongodb://a\"\n\n[nonsense]\na = 1\nb = 2\n";
    let found = problems(file, &[("TIDEWHEEL__QDRANT__APIKEY", "x")], &[("zzz", "1")]);
    assert_eq!(
        found,
        [
            ("unknown setting `mongodb.url` (tidewheel.toml:2)", "did you mean `mongodb.uri`?"),
            ("unknown setting `nonsense.a` (tidewheel.toml:4)", "run `tidewheel config example` to list every setting"),
            ("unknown setting `qdrant.apikey` ($TIDEWHEEL__QDRANT__APIKEY)", "did you mean `qdrant.api_key`?"),
            ("unknown setting `zzz` (--set)", "run `tidewheel config example` to list every setting"),
        ]
        .map(|(message, hint)| (message.to_owned(), hint.to_owned()))
    );
}

#[test]
fn invalid_value_error_names_key_origin_and_expected_form() {
    let file =
        "[processor]\nbatch = 0\nclaim_after = 15\n[embedder]\nprecision = \"f16\"\n[qdrant]\nurl = \"ann:pw@host\"\n";
    let found = problems(file, &[("TIDEWHEEL__EMBEDDER__MAX_BODY", "lots")], &[("local.redis_port", "70000")]);
    let messages: Vec<_> = found.iter().map(|(message, _)| message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "invalid processor.batch 0 (tidewheel.toml:2): expected an integer of at least 1",
            "invalid processor.claim_after 15 (tidewheel.toml:3): expected a positive duration such as \"250ms\", \"15s\" or \"2h\"",
            "invalid embedder.precision \"f16\" (tidewheel.toml:5): expected one of \"auto\", \"f32\", \"bf16\", \"int8\"",
            "invalid qdrant.url \"***\" (tidewheel.toml:7): expected a URL such as \"scheme://host:port\"",
            "invalid embedder.max_body \"lots\" ($TIDEWHEEL__EMBEDDER__MAX_BODY): expected a size such as \"8MiB\"",
            "invalid local.redis_port 70000 (--set): expected a port from 0 to 65535",
        ]
    );
}

#[test]
fn invalid_toml_error_has_the_line_number_but_not_its_text() {
    let found = problems("[qdrant]\napi_key = \"hunter2\n", &[], &[]);
    assert!(found[0].0.starts_with("invalid TOML in tidewheel.toml:2"), "{found:?}");
    assert!(!found[0].0.contains("hunter2"), "{found:?}");
    let missing = Given { config: Some(PathBuf::from("/nonexistent/tidewheel.toml")), ..Given::default() };
    let SettingsError(problems) = load(&missing).unwrap_err();
    assert!(problems[0].to_string().starts_with("failed to read settings from /nonexistent/tidewheel.toml"));
}

#[test]
fn secret_file_is_read_without_trailing_newline() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, "hunter2\n").unwrap();
    let path = path.to_str().unwrap();
    let loaded = loaded("", &[("TIDEWHEEL__QDRANT__API_KEY_FILE", path)], &[]);
    assert_eq!(loaded.settings.qdrant.api_key.as_ref().unwrap().reveal(), "hunter2");
    assert!(!format!("{:?}", loaded.settings).contains("hunter2"));

    let both = problems("[qdrant]\napi_key = \"x\"\n", &[("TIDEWHEEL__QDRANT__API_KEY_FILE", path)], &[]);
    assert!(both[0].0.contains("both qdrant.api_key"), "{both:?}");
    let missing = problems("[redis]\nurl_file = \"/nonexistent/url\"\n", &[], &[]);
    assert!(missing[0].0.starts_with("failed to read /nonexistent/url for redis.url_file"), "{missing:?}");
}

#[test]
fn secrets_are_redacted() {
    let file = "[redis]\nurl = \"redis://:hunter2@cache:6379\"\n[qdrant]\napi_key = \"hunter2\"\n";
    let loaded = loaded(file, &[], &[]);
    let shown: Vec<_> = KEYS.iter().filter_map(|key| loaded.layers.get(key.name)).map(|v| v.value.shown()).collect();
    assert!(shown.iter().any(|value| value == "\"redis://***@cache:6379\""));
    assert!(!shown.concat().contains("hunter2"));
    assert!(!format!("{loaded:?}").contains("hunter2"));
}

#[test]
fn tidewheel_embedder_is_the_default_provider() {
    let provider = |flags: &[(&str, &str)]| loaded("", &[], flags).settings.embedding;
    let Provider::Tidewheel { url, token } =
        provider(&[("embedder.listen", "0.0.0.0:81"), ("embedder.token", "t")]).provider
    else {
        panic!("not the tidewheel embedder")
    };
    assert_eq!((url.as_str(), token.unwrap().reveal()), ("http://127.0.0.1:81", "t"));
    let elsewhere = provider(&[("embedding.url", "http://far:80"), ("embedder.token", "t")]);
    assert!(elsewhere.elsewhere);
    assert!(matches!(elsewhere.provider, Provider::Tidewheel { token: None, .. }));
    let openai = provider(&[("embedding.provider", "openai"), ("embedding.model", "m"), ("embedding.dimensions", "5")]);
    assert!(matches!(openai.provider, Provider::Remote { api: Api::OpenAi, dimensions: Some(5), .. }));
    let ollama = provider(&[("embedding.provider", "ollama"), ("embedding.model", "all-minilm")]);
    let Provider::Remote { api: Api::Ollama, url, .. } = ollama.provider else { panic!("not Ollama") };
    assert_eq!((url.as_str(), ollama.elsewhere), ("http://127.0.0.1:11434", true));
    let tei = provider(&[("embedding.provider", "tei"), ("embedding.url", "http://far:3000")]);
    assert!(matches!(tei.provider, Provider::Remote { api: Api::TextEmbeddingsInference, .. }));
    for (provider, missing) in [("openai", "model"), ("ollama", "model"), ("tei", "url")] {
        let found = problems("", &[], &[("embedding.provider", provider)]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].0.contains(&format!("embedding.{missing} is not set")), "{found:?}");
    }
}

#[test]
fn empty_value_unsets_a_key_without_default() {
    let loaded = loaded("[mongodb]\ndatabase = \"a\"\n", &[("TIDEWHEEL__MONGODB__DATABASE", "")], &[]);
    assert_eq!(loaded.settings.mongodb.database, None);
}

/// The example with every setting uncommented.
fn uncommented_example() -> String {
    let setting = |line: &str| {
        let name: String =
            line.chars().take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_').collect();
        !name.is_empty() && line[name.len()..].starts_with(" = ")
    };
    // The example of an index takes the place of other settings.
    let (single, _) = EXAMPLE.split_once("#[[index]]").unwrap();
    single
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| setting(rest)).unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn example_sets_nothing() {
    let loaded = loaded(EXAMPLE, &[], &[]);
    assert!(KEYS.iter().all(|key| !loaded.is_set(key.name)));
}

#[test]
fn example_lists_every_key_with_its_default_or_as_unset() {
    let text = uncommented_example();
    let (layers, problems) = Layers::gather(&given(Some(&text), &[], &[]).0);
    assert!(problems.is_empty(), "{problems:?}");
    let (defaults, _) = Layers::gather(&given(None, &[], &[]).0);
    for key in KEYS {
        let shown = layers.get(key.name).unwrap_or_else(|| panic!("the example lacks {}", key.name));
        let Origin::File { line, .. } = &shown.origin else { panic!("the example lacks {}", key.name) };
        if let Some(default) = defaults.get(key.name) {
            assert_eq!(shown.value, default.value, "the example's {} is not the default", key.name);
        } else {
            let lines: Vec<_> = text.lines().collect();
            let comment = lines[..line - 1].rsplit(|line| line.is_empty()).next().unwrap().join(" ");
            let comment = comment.replace("# ", "").to_lowercase();
            assert!(comment.contains("unset by default"), "the example does not say that {} is unset", key.name);
        }
    }
}

#[test]
fn list_notations_are_equivalent() {
    let collections = |file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]| {
        loaded(file, environment, flags).settings.mongodb.collection
    };
    const VARIABLE: &str = "TIDEWHEEL__MONGODB__COLLECTION";
    let expected = ["tickets", "notes_*"];
    assert_eq!(collections("mongodb.collection = [\"tickets\", \"notes_*\"]", &[], &[]), expected);
    assert_eq!(collections("mongodb.collection = \"tickets, notes_*\"", &[], &[]), expected);
    assert_eq!(collections("", &[(VARIABLE, "tickets,notes_*\n")], &[]), expected);
    assert_eq!(collections("", &[(VARIABLE, "[\"tickets\", \"notes_*\"]")], &[]), expected);
    assert_eq!(collections("", &[], &[("mongodb.collection", "[\"tickets\",\"notes_*\"]")]), expected);
    assert_eq!(collections("", &[(VARIABLE, "[\"a,b\"]")], &[]), ["a,b"]);
}

#[test]
fn invalid_selection_is_rejected() {
    const DATABASE: &str = "mongodb.database = \"shop\"\n";
    for (collection, part) in [
        ("[]", "at least one name"),
        ("\"\"", "at least one name"),
        ("\" , \"", "at least one name"),
        ("[\"tickets\", \"\"]", "a list of names"),
        ("\"shop.tickets\"", "names without the database: \"tickets\""),
        ("[\"notes\", \"shop.tickets\"]", "names without the database: \"tickets\""),
        ("[\"tickets\\nnotes\"]", "a list of names"),
    ] {
        let found = problems(&format!("{DATABASE}mongodb.collection = {collection}\n"), &[], &[]);
        assert_eq!(found.len(), 1, "{collection}: {found:?}");
        assert!(found[0].0.starts_with("invalid mongodb.collection") && found[0].0.contains(part), "{found:?}");
    }
    for database in ["shop.tickets", "shop/tickets", "a b", "shop,stock", "mongodb://h/shop"] {
        let found = problems(&format!("mongodb.database = \"{database}\"\n"), &[], &[]);
        assert!(found[0].0.starts_with("invalid mongodb.database") && found[0].0.contains("mongodb.collection"));
    }
    // A dotted collection name is valid.
    let dotted = loaded("mongodb.database = \"shop\"\nmongodb.collection = \"fs.files\"\n", &[], &[]);
    assert_eq!(dotted.settings.mongodb.collection, ["fs.files"]);
}

#[test]
fn invalid_field_path_is_rejected() {
    for (key, path) in [
        ("documents.fields", "items[0].name"),
        ("documents.payload.include", "$.customer"),
        ("documents.payload.exclude", "customer/ssn"),
        ("documents.payload.exclude", "customer.*"),
        ("documents.payload.exclude", "_id"),
        ("documents.payload.exclude", "_id.secret"),
        ("documents.payload.exclude", "_tidewheel.text"),
    ] {
        let found = problems("", &[], &[(key, path)]);
        assert!(found[0].0.starts_with(&format!("invalid {key}")), "{path}: {found:?}");
    }
}

#[test]
fn trailing_line_break_is_trimmed() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).to_str().unwrap().to_owned()
    };
    let (uri, key) = (file("uri", "mongodb://ann:hunter2@a/\r\n"), file("key", "hunter2\n"));
    let loaded = loaded(
        "",
        &[
            ("TIDEWHEEL__MONGODB__DATABASE", "shop\n"),
            ("TIDEWHEEL__MONGODB__URI_FILE", &format!("{uri}\n")),
            ("TIDEWHEEL__QDRANT__COLLECTION", "documents\r\n"),
            ("TIDEWHEEL__QDRANT__API_KEY_FILE", &key),
            ("TIDEWHEEL__EMBEDDER__TOKEN", "hunter3\n"),
            ("TIDEWHEEL__EMBEDDER__QUERY_PREFIX", "query: \n"),
        ],
        &[],
    );
    let Settings { mongodb, qdrant, embedder, .. } = &loaded.settings;
    assert_eq!(mongodb.database.as_deref(), Some("shop"));
    assert_eq!(mongodb.uri.reveal(), "mongodb://ann:hunter2@a/");
    assert_eq!((qdrant.collection.as_str(), qdrant.api_key.as_ref().unwrap().reveal()), ("documents", "hunter2"));
    assert_eq!(embedder.serving.token.as_ref().unwrap().reveal(), "hunter3");
    assert_eq!(embedder.query_prefix.as_deref(), Some("query: "));
    for (key, text) in
        [("qdrant.api_key_file", "one\ntwo\n"), ("qdrant.api_key_file", "\n"), ("redis.url_file", "hunter2")]
    {
        let found = problems("", &[], &[(key, &file("wrong", text))]);
        assert!(found[0].0.contains("does not contain") && !found[0].0.contains("hunter2"), "{key}: {found:?}");
    }
}

fn warnings(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Vec<String> {
    let loaded = loaded(file, environment, flags);
    loaded.warnings.iter().map(|warning| format!("{warning} → {}", warning.hint())).collect()
}

#[test]
fn misspelt_variable_is_reported() {
    for (variable, meant) in [
        ("TIDEWHEEL_MONGODB__COLLECTION", "TIDEWHEEL__MONGODB__COLLECTION"),
        ("TIDEWHEEL_MONGODB_COLLECTION", "TIDEWHEEL__MONGODB__COLLECTION"),
        ("tidewheel__qdrant__url", "TIDEWHEEL__QDRANT__URL"),
        ("TIDEWHELL__QDRANT__URL", "TIDEWHEEL__QDRANT__URL"),
        ("TIDEWHEEL_QDRANT_API_KEY", "TIDEWHEEL__QDRANT__API_KEY"),
    ] {
        let found = warnings("", &[(variable, "x")], &[]);
        assert_eq!(found.len(), 1, "{variable}: {found:?}");
        assert!(found[0].contains(variable) && found[0].ends_with(&format!("did you mean {meant}?")), "{found:?}");
    }
    let unlike = warnings("", &[("TIDEWHEEL_VERBOSITY_ZZZ", "x")], &[]);
    assert!(unlike[0].ends_with("settings are named TIDEWHEEL__TABLE__KEY"), "{unlike:?}");
    let others = [
        ("TIDEWHEEL_CONFIG", ""),
        ("TIDEWHEEL_CACHE", "/tmp"),
        ("TIDEWHEEL_CONSOLE_SERVICE_HOST", "10.0.0.1"),
        ("TIDEWHEEL_CONSOLE_SERVICE_PORT_HTTP", "9091"),
        ("TIDEWHEEL_CONSOLE_PORT", "tcp://10.0.0.1:9091"),
        ("TIDEWHEEL_CONSOLE_PORT_9091_TCP_ADDR", "10.0.0.1"),
        ("WHEEL_OF_TIME", "x"),
        ("PATH", "/bin"),
    ];
    assert_eq!(warnings("", &others, &[]), [""; 0]);
}

#[test]
fn secret_in_a_flag_is_reported_and_redacted() {
    let found = warnings(
        "qdrant.api_key = \"hunter2\"\n",
        &[("TIDEWHEEL__EMBEDDER__TOKEN", "hunter2")],
        &[
            ("redis.url", "redis://:hunter2@cache"),
            ("monitor.webhook", "https://hooks.example.com/hunter2"),
            ("embedding.url", "http://127.0.0.1:8080"),
        ],
    );
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].contains("redis.url") && found[0].contains("TIDEWHEEL__REDIS__URL or redis.url_file"),
        "{found:?}"
    );
    assert!(found[1].contains("monitor.webhook") && !found.concat().contains("hunter2"), "{found:?}");
}

#[test]
fn setting_without_effect_is_reported() {
    for (file, part) in [
        ("embedding.api_key = \"k\"", "embedding.api_key"),
        ("embedding.dimensions = 5", "embedding.dimensions"),
        ("embedding = { provider = \"ollama\", model = \"m\", token = \"t\" }", "embedding.token"),
        ("documents = { template = \"{{ a }}\", fields = [\"b\"] }", "documents.fields"),
        ("traces.share = 0.5", "traces.share"),
        ("traces.headers = \"a=b\"", "traces.headers"),
        ("traces.ca_file = \"/ca.pem\"", "traces.ca_file"),
        ("monitor.webhook_token = \"t\"", "monitor.webhook_token"),
    ] {
        let found = warnings(file, &[], &[]);
        assert_eq!(found.len(), 1, "{file}: {found:?}");
        assert!(found[0].starts_with(part) && found[0].contains("has no effect"), "{found:?}");
    }
    let file = "embedding = { provider = \"openai\", model = \"m\", api_key = \"k\" }\n[traces]\nendpoint = \"http://a\"\nshare = 0.5\n";
    assert_eq!(warnings(file, &[], &[]), [""; 0]);
}
