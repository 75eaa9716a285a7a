use tidewheel_core::secret::Secret;

use super::super::keys::{KEYS, Key};
use super::super::value::Kind;
use super::super::{Provider, Settings};
use super::loaded;

/// Returns a non-default value for a key, and the settings it requires.
fn another_value(key: &Key, folder: &std::path::Path) -> (String, &'static [(&'static str, &'static str)]) {
    let ollama: &'static [(&'static str, &'static str)] = &[("embedding.provider", "ollama"), ("embedding.model", "n")];
    let beside: &'static [(&'static str, &'static str)] = match key.name {
        "embedding.provider" => &[("embedding.model", "n")],
        // Not `ollama`: it already sets the model.
        "embedding.model" => &[("embedding.provider", "tei"), ("embedding.url", "http://a")],
        "embedding.token" | "embedding.token_file" | "embedding.url" => &[],
        name if name.starts_with("embedding.") && name != "embedding.timeout" => ollama,
        name if name.starts_with("traces.") && name != "traces.endpoint" => &[("traces.endpoint", "http://a")],
        name if name.starts_with("monitor.webhook_") && name != "monitor.webhook_file" => {
            &[("monitor.webhook", "http://a")]
        }
        _ => &[],
    };
    let text = match key.name {
        "embedding.provider" => "ollama".to_owned(),
        // Not the default of `embedder.precision`.
        "embedding.precision" => "int8".to_owned(),
        "console.trusted_proxies" => "10.0.0.0/8".to_owned(),
        name if name.ends_with("_file") && name != "redis.ca_file" => {
            let path = folder.join("secret");
            std::fs::write(&path, "mongodb://other").unwrap();
            path.to_str().unwrap().to_owned()
        }
        _ => match key.kind {
            Kind::Text | Kind::Line | Kind::Database | Kind::Names | Kind::Paths | Kind::Hosts | Kind::Secret => {
                "other".to_owned()
            }
            Kind::Address => "http://other".to_owned(),
            Kind::Count(_) | Kind::Percent => "7".to_owned(),
            Kind::Duration | Kind::Period => "7s".to_owned(),
            Kind::Size => "7MiB".to_owned(),
            Kind::Share => "0.7".to_owned(),
            Kind::Listen | Kind::ListenOrOff => "127.0.0.1:7".to_owned(),
            Kind::Choice(words) => (*words.iter().find(|word| Some(**word) != key.default).unwrap()).to_owned(),
            Kind::LogLevel => "debug".to_owned(),
            Kind::Name | Kind::Flag | Kind::Query | Kind::Structured(_) => unreachable!("a key of [[index]]"),
        },
    };
    (text, beside)
}

/// The settings with URLs and secrets revealed.
fn in_full(settings: &Settings) -> String {
    let Settings { mongodb, redis, embedding, embedder, qdrant, console, monitor, traces, .. } = settings;
    let reveal = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.reveal().to_owned());
    let secrets = [
        Some(mongodb.uri.reveal().to_owned()),
        Some(redis.url.reveal().to_owned()),
        Some(qdrant.url.reveal().to_owned()),
        reveal(&embedder.serving.token),
        reveal(&qdrant.api_key),
        reveal(&console.serving.token),
        match &embedding.provider {
            Provider::Tidewheel { token, .. } => reveal(token),
            Provider::Remote { api_key, .. } => reveal(api_key),
        },
        monitor.webhook.as_ref().map(|webhook| webhook.url.reveal().to_owned()),
        monitor.webhook.as_ref().and_then(|webhook| reveal(&webhook.token)),
        traces.as_ref().map(|traces| traces.endpoint.reveal().to_owned()),
        traces.as_ref().and_then(|traces| reveal(&traces.headers)),
    ];
    format!("{settings:?} {secrets:?}")
}

#[test]
fn every_setting_changes_the_resolved_settings() {
    let folder = tempfile::tempdir().unwrap();
    for key in KEYS {
        let (text, beside) = another_value(key, folder.path());
        let without = in_full(&loaded("", &[], beside).settings);
        let with = in_full(&loaded("", &[], &[beside, &[(key.name, text.as_str())]].concat()).settings);
        assert_ne!(without, with, "{} = {text:?} changes nothing", key.name);
    }
}
