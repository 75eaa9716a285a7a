//! `[embedding.NAME]`.

use tidewheel_core::catalog::{EmbeddingSpec, Rounding};
use tidewheel_core::secret::Secret;

use super::super::{Provider, Settings};
use super::{loaded, origin, problems, warnings};

const FILE: &str = r#"
[embedder]
model = "mini"
precision = "int8"
passage_prefix = "passage: "

[embedding.large]
model = "large"
precision = "bf16"

[embedding.paid]
provider = "openai"
model = "text-embedding-3-small"
dimensions = 512
api_key = "hunter2"

[embedding.gpu]
provider = "tei"
url = "http://ann:hunter2@gpu-box:3000/"
"#;

fn spec(settings: &Settings, name: &str) -> EmbeddingSpec {
    settings.embedding_of(name).unwrap().spec()
}

#[test]
fn embeddings_have_their_own_provider_and_model() {
    let loaded = loaded(FILE, &[], &[]);
    let settings = &loaded.settings;
    assert_eq!(settings.embedding_names().collect::<Vec<_>>(), ["default", "gpu", "large", "paid"]);
    let prefixed = |name: &str, provider: &str, model: &str| EmbeddingSpec {
        passage_prefix: Some("passage: ".into()),
        ..EmbeddingSpec::new(name, provider, model)
    };
    let default = prefixed("default", "tidewheel", "mini");
    assert_eq!(spec(settings, "default"), EmbeddingSpec { rounding: Rounding::Int8, ..default });
    assert_eq!(spec(settings, "large"), prefixed("large", "tidewheel", "large"));
    let paid = prefixed("paid", "openai", "text-embedding-3-small");
    assert_eq!(spec(settings, "paid"), EmbeddingSpec { dimensions: Some(512), ..paid });
    let gpu = prefixed("gpu", "tei", "");
    assert_eq!(spec(settings, "gpu"), EmbeddingSpec { url: Some("http://gpu-box:3000/".into()), ..gpu });
    assert_eq!(origin(&loaded, "embedding.large.model"), "line 8");
    assert_eq!(origin(&loaded, "embedding.large.batch"), "default");
}

#[test]
fn embedding_without_url_is_served_by_the_embedder_of_the_installation() {
    let here = loaded("[embedding.large]\nmodel = \"l\"\n", &[], &[("embedder.listen", "0.0.0.0:81")]).settings;
    let large = &here.embeddings["large"];
    assert!(matches!(&large.provider, Provider::Tidewheel { url, .. } if url == "http://127.0.0.1:81"));
    assert!(!large.elsewhere && here.embeds_here());

    let file = "[embedding]\nurl = \"http://embedder:80\"\ntoken = \"t\"\nca_file = \"/ca.pem\"\n[embedding.large]\nmodel = \"l\"\n";
    let there = loaded(file, &[], &[]).settings;
    let large = &there.embeddings["large"];
    let Provider::Tidewheel { url, token } = &large.provider else { panic!("{large:?}") };
    assert_eq!((url.as_str(), token.as_ref().map(Secret::reveal)), ("http://embedder:80", Some("t")));
    assert!(large.elsewhere && large.tls.ca_file.is_some() && !there.embeds_here());
    assert_eq!((spec(&there, "default").model.as_str(), spec(&there, "large").model.as_str()), ("", "l"));
}

#[test]
fn address_of_a_tidewheel_embedder_is_no_part_of_what_is_declared() {
    let at = |url: &str| {
        let file = format!("[embedding]\nurl = \"{url}\"\n[embedding.gpu]\nurl = \"{url}/gpu\"\nmodel = \"l\"\n");
        let settings = loaded(&file, &[], &[]).settings;
        [spec(&settings, "default"), spec(&settings, "gpu")]
    };
    let in_cluster = at("http://embedder:8080");
    assert_eq!(in_cluster, at("http://127.0.0.1:18080"), "through a forwarded port");
    assert!(in_cluster.iter().all(|spec| spec.url.is_none()), "{in_cluster:?}");
}

#[test]
fn embedder_runs_here_if_an_index_needs_it() {
    let file = "[embedding]\nprovider = \"ollama\"\nmodel = \"m\"\n[embedding.own]\n\
                [[index]]\nname = \"a\"\nsource = \"s.a\"\n";
    assert!(!loaded(file, &[], &[]).settings.embeds_here());
    assert!(loaded(file, &[], &[("index.a.embedding", "own")]).settings.embeds_here());
}

#[test]
fn default_embedding_has_two_spellings() {
    let file = "[embedding.default]\nmodel = \"a\"\n";
    assert_eq!(loaded(file, &[], &[]).settings.embedding.model, "a");
    assert_eq!(loaded(file, &[], &[("embedding.default.model", "b")]).settings.embedding.model, "b");
    let environment = [("TIDEWHEEL__EMBEDDING__DEFAULT__MODEL", "c")];
    assert_eq!(loaded(file, &environment, &[]).settings.embedding.model, "c");
    let found = problems("[embedding]\nmodel = \"a\"\n[embedding.default]\nmodel = \"a\"\n", &[], &[]);
    assert_eq!(found[0].0, "embedding.model is set twice (tidewheel.toml:2 and tidewheel.toml:4)");
}

#[test]
fn environment_and_flags_override_settings_of_a_declared_embedding() {
    let environment = [("TIDEWHEEL__EMBEDDING__PAID__API_KEY", "other"), ("TIDEWHEEL__EMBEDDING__BATCH", "7")];
    let loaded = loaded(FILE, &environment, &[("embedding.paid.batch", "9")]);
    let Provider::Remote { api_key, batch, .. } = &loaded.settings.embeddings["paid"].provider else { panic!() };
    assert_eq!((api_key.as_ref().map(Secret::reveal), *batch), (Some("other"), 9));
    assert_eq!(origin(&loaded, "embedding.batch"), "$TIDEWHEEL__EMBEDDING__BATCH");
    let found = warnings(FILE, &[], &[("embedding.paid.api_key", "hunter2")]);
    assert!(found[0].contains("embedding.paid.api_key holds a secret"), "{found:?}");
    assert!(found[0].contains("TIDEWHEEL__EMBEDDING__PAID__API_KEY or embedding.paid.api_key_file"), "{found:?}");
}

#[test]
fn invalid_embedding_is_rejected_by_name() {
    for (file, expected) in [
        (
            "[embedding.url]\nmodel = \"a\"\n",
            "invalid embedding.url (table) (tidewheel.toml:1): expected a value, or an embedding",
        ),
        ("[embedding.\"a b\"]\nmodel = \"a\"\n", "invalid embedding.NAME \"a b\" (tidewheel.toml:1): expected 1 to 64"),
        ("[embedding.a]\nmodle = \"a\"\n", "unknown setting `embedding.a.modle` (tidewheel.toml:2)"),
        ("[embedding.a]\nbatch = 0\n", "invalid embedding.a.batch 0 (tidewheel.toml:2)"),
        (
            "[embedding.a]\nprovider = \"openai\"\n",
            "embedding.a.model is not set, but required by embedding.a.provider = \"openai\"",
        ),
        (
            "[embedding.a]\nprovider = \"tei\"\n",
            "embedding.a.url is not set, but required by embedding.a.provider = \"tei\"",
        ),
    ] {
        let found = problems(file, &[], &[]);
        assert_eq!(found.len(), 1, "{file}: {found:?}");
        assert!(found[0].0.starts_with(expected), "{file}: {found:?}");
    }
    let found = problems("", &[], &[("embedding.larg.model", "a")]);
    assert_eq!(found[0].0, "unknown embedding `larg` (--set)");
}

#[test]
fn setting_without_effect_on_a_provider_is_reported() {
    for (file, part) in [
        ("[embedding.a]\napi_key = \"k\"\n", "embedding.a.api_key"),
        ("[embedding.a]\nprovider = \"ollama\"\nmodel = \"m\"\ntoken = \"t\"\n", "embedding.a.token"),
        ("[embedding.a]\nprovider = \"ollama\"\nmodel = \"m\"\nprecision = \"int8\"\n", "embedding.a.precision"),
    ] {
        let found = warnings(file, &[], &[]);
        assert_eq!(found.len(), 1, "{file}: {found:?}");
        assert!(found[0].starts_with(part) && found[0].contains("embedding.a.provider is"), "{found:?}");
    }
}
