//! Declared indexes: `[[index]]`, its overrides and its errors.

use serde_json::json;
use tidewheel_core::catalog::Declaration;

use super::super::keys::INDEX_KEYS;
use super::super::names::Family;
use super::super::{EXAMPLE, Layers, Origin};
use super::{given, loaded, origin, problems, warnings};

/// An index with these settings beside the required ones.
fn index(settings: &str) -> String {
    format!("[[index]]\nname = \"tickets\"\nsource = \"shop.tickets\"\n{settings}\n")
}

fn declaration(settings: &str) -> Declaration {
    loaded(&index(settings), &[], &[]).settings.declarations().remove(0)
}

/// The only problem of an index with these settings.
fn problem(settings: &str) -> (String, String) {
    let mut found = problems(&index(settings), &[], &[]);
    assert_eq!(found.len(), 1, "{settings}: {found:?}");
    found.remove(0)
}

const WHOLE: &str = r#"
[[index]]
name = "tickets"
source = ["shop.tickets", "shop.notes_*"]
filter = { status = { "$ne" = "draft" } }
text.template = "{{ subject }}\n{{ content | striptags }}"
chunk = { tokens = 200, overlap = 32, prefix = "{{ subject }}" }
payload.include = ["subject", "status", "date", "tenant", "customer.name"]
payload.exclude = ["customer.ssn"]
payload.rename = { "customer.name" = "customer" }
payload.indexes = { status = "keyword", date = "datetime", tenant = { type = "keyword", is_tenant = true } }
embedding = "default"
[index.qdrant]
shard_number = 6
replication_factor = 2
on_disk_payload = true
vectors = { on_disk = true, datatype = "float16" }
quantization = { scalar = { type = "int8", always_ram = true } }
hnsw = { m = 16 }
"#;

#[test]
fn every_setting_of_an_index_is_part_of_its_declaration() {
    let loaded = loaded(WHOLE, &[], &[]);
    assert!(loaded.warnings.is_empty() && loaded.settings.is_declared());
    assert_eq!(origin(&loaded, "index.tickets.chunk.prefix"), "line 7");
    assert_eq!(origin(&loaded, "index.tickets.qdrant.hnsw"), "line 19");
    let declarations = serde_json::to_value(loaded.settings.declarations()).unwrap();
    let expected = json!([{
        "name": "tickets",
        "source": ["shop.notes_*", "shop.tickets"],
        "filter": r#"{"status":{"$ne":"draft"}}"#,
        "text": {
            "template": "{{ subject }}\n{{ content | striptags }}", "fields": [], "exclude": [], "blank": "index",
        },
        "chunk": {"tokens": 200, "overlap": 32, "max": 10_000, "prefix": "{{ subject }}"},
        "payload": {
            "include": ["subject", "status", "date", "tenant", "customer.name"],
            "exclude": ["customer.ssn"],
            "rename": {"customer.name": "customer"},
            "full": false,
        },
        "payload_indexes": {
            "date": {"type": "datetime"},
            "status": {"type": "keyword"},
            "tenant": {"type": "keyword", "is_tenant": true},
        },
        "embedding": {
            "name": "default", "provider": "tidewheel", "model": "sentence-transformers/all-MiniLM-L6-v2", "url": null,
            "dimensions": null, "rounding": "exact", "passage_prefix": null, "query_prefix": null,
        },
        "vectors": {"dense": "", "distance": "cosine", "datatype": "float16"},
        "collection": {
            "shard_number": 6,
            "sharding_method": null,
            "settings": {
                "replication_factor": 2,
                "on_disk_payload": true,
                "vectors": {"on_disk": true},
                "quantization": {"scalar": {"type": "int8", "always_ram": true}},
                "hnsw": {"m": 16},
            },
        },
        "rules": {"on_dead_letter": "keep", "keep_ms": 86_400_000},
    }]);
    assert_eq!(declarations, expected);
}

#[test]
fn example_of_an_index_lists_every_key_with_its_default_or_as_unset() {
    let (_, example) = EXAMPLE.split_once("#[[index]]").unwrap();
    let lines = example.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(|letter: char| letter.is_ascii_lowercase()) => setting,
        _ => line,
    });
    let text = format!("[[index]]{}", lines.collect::<Vec<_>>().join("\n"));
    let loaded = loaded(&text, &[], &[]);
    let (defaults, _) = Layers::gather(&given(Some(&index("")), &[], &[]).0);
    for key in INDEX_KEYS {
        let name = Family::Index.full("tickets", key.name);
        let shown = loaded.layers.get(&name).unwrap_or_else(|| panic!("the example lacks {}", key.name));
        let Origin::File { line, .. } = &shown.origin else { panic!("the example lacks {}", key.name) };
        if let Some(default) = defaults.get(&name).filter(|_| key.default.is_some()) {
            assert_eq!(shown.value, default.value, "the example's {} is not the default", key.name);
            continue;
        }
        let lines: Vec<_> = text.lines().collect();
        let comment = lines[..line - 1].rsplit(|line| line.is_empty()).next().unwrap().join(" ").to_lowercase();
        let states_it = ["unset by default", "required."].iter().any(|words| comment.replace("# ", "").contains(words));
        assert!(states_it, "the example does not say that {} is unset", key.name);
    }
}

#[test]
fn several_indexes_keep_the_order_of_the_file() {
    let file = "mongodb.database = \"shop\"\n\
                [[index]]\nname = \"b\"\nsource = [\"tickets\", \"crm.*\", \"!crm.tmp_*\"]\n\
                [[index]]\nname = \"a\"\nsource = \"*.notes\"\nkeep = \"1m\"\non_dead_letter = \"remove\"\n";
    let declarations = loaded(file, &[], &[]).settings.declarations();
    let names: Vec<&str> = declarations.iter().map(|index| index.name.as_str()).collect();
    assert_eq!(names, ["b", "a"]);
    let sources: Vec<_> = declarations.iter().map(|index| serde_json::to_value(&index.source).unwrap()).collect();
    assert_eq!(sources, [json!(["crm.*", "shop.tickets", "!crm.tmp_*"]), json!(["*.notes"])]);
    assert_eq!(declarations[1].rules.keep.as_secs(), 60);
}

#[test]
fn environment_and_flags_override_settings_of_a_declared_index() {
    let file = format!("{}[[index]]\nname = \"my-notes\"\nsource = \"shop.notes\"\n", index("keep = \"1h\""));
    let environment = [
        ("TIDEWHEEL__INDEX__TICKETS__KEEP", "2h"),
        ("TIDEWHEEL__INDEX__TICKETS__QDRANT__HNSW_CONFIG", "{\"m\": 8}"),
        ("TIDEWHEEL__INDEX__MY_NOTES__TEXT__FIELDS", "body,title"),
    ];
    let flags = [("index.my-notes.chunk.max", "7"), ("index.tickets.filter", r#"{"a": {"$gt": 1}}"#)];
    let loaded = loaded(&file, &environment, &flags);
    let [tickets, notes] = loaded.settings.declarations().try_into().unwrap();
    assert_eq!(tickets.rules.keep.as_secs(), 7_200);
    assert_eq!(origin(&loaded, "index.tickets.keep"), "$TIDEWHEEL__INDEX__TICKETS__KEEP");
    assert_eq!(tickets.collection.settings["hnsw"], json!({"m": 8}));
    assert_eq!(tickets.filter.unwrap().0, r#"{"a":{"$gt":{"$numberInt":"1"}}}"#);
    assert_eq!((notes.text.fields, notes.chunk.max), (vec!["body".to_owned(), "title".to_owned()], 7));
    assert_eq!(origin(&loaded, "index.my-notes.chunk.max"), "--set");
}

#[test]
fn only_the_file_declares_and_names_an_index() {
    let found = problems(
        &index(""),
        &[("TIDEWHEEL__INDEX__NOTES__SOURCE", "shop.notes")],
        &[("index.ticket.keep", "1h"), ("index.tickets.name", "other"), ("index.keep", "1h")],
    );
    assert_eq!(
        found[..3],
        [
            (
                "unknown index `notes` ($TIDEWHEEL__INDEX__NOTES__SOURCE)",
                "declare it as [[index]] in tidewheel.toml, which alone can declare one",
            ),
            ("unknown index `ticket` (--set)", "did you mean index `tickets`?"),
            ("the name of index `tickets` cannot be overridden (--set)", "change `name` in tidewheel.toml"),
        ]
        .map(|(message, hint)| (message.to_owned(), hint.to_owned()))
    );
    assert_eq!(found[3].0, "unknown setting `index.keep` (--set)");
    assert_eq!(found.len(), 4, "{found:?}");
}

#[test]
fn variable_of_two_indexes_is_ambiguous() {
    let file = "[[index]]\nname = \"a-b\"\nsource = \"s.a\"\n[[index]]\nname = \"A_b\"\nsource = \"s.b\"\n";
    let found = problems(file, &[("TIDEWHEEL__INDEX__A_B__KEEP", "1h")], &[]);
    assert!(found[0].0.starts_with("$TIDEWHEEL__INDEX__A_B__KEEP overrides a setting of several"), "{found:?}");
    let exact = loaded(file, &[], &[("index.A_b.keep", "1h")]);
    assert_eq!(exact.settings.declarations()[1].rules.keep.as_secs(), 3_600);
}

#[test]
fn short_form_beside_an_index_is_an_error_that_names_the_key() {
    let file = format!("documents.blank = \"skip\"\nqdrant.collection = \"documents\"\n{}", index(""));
    let found =
        problems(&file, &[("TIDEWHEEL__DOCUMENTS__PAYLOAD__EXCLUDE", "a")], &[("mongodb.collection", "tickets")]);
    assert_eq!(
        found,
        [
            (
                "mongodb.collection (--set) has no effect with [[index]]",
                "remove mongodb.collection, and set `source` in [[index]]"
            ),
            (
                "documents.blank (tidewheel.toml:1) has no effect with [[index]]",
                "remove documents.blank, and set `text.blank` in [[index]]"
            ),
            (
                "documents.payload.exclude ($TIDEWHEEL__DOCUMENTS__PAYLOAD__EXCLUDE) has no effect with [[index]]",
                "remove documents.payload.exclude, and set `payload.exclude` in [[index]]",
            ),
            (
                "qdrant.collection (tidewheel.toml:2) has no effect with [[index]]",
                "remove qdrant.collection, and set `name` in [[index]]"
            ),
        ]
        .map(|(message, hint)| (message.to_owned(), hint.to_owned()))
    );
}

#[test]
fn unknown_setting_of_an_index_suggests_the_nearest() {
    for (settings, name, nearest) in [
        ("sources = \"a.b\"", "sources", "source"),
        ("text.templat = \"a\"", "text.templat", "text.template"),
        ("payloads.include = []", "payloads.include", "payload.include"),
        ("qdrant.hsnw = { m = 1 }", "qdrant.hsnw.m", "qdrant.hnsw"),
        ("qdrant.hnsw = { mm = 1 }", "qdrant.hnsw.mm", "qdrant.hnsw.m"),
        ("qdrant.quantization = { scaler = {} }", "qdrant.quantization.scaler", "qdrant.quantization.scalar"),
        (
            "payload.indexes = { tenant = { type = \"keyword\", tenant = true } }",
            "payload.indexes.tenant.tenant",
            "payload.indexes.tenant.is_tenant",
        ),
    ] {
        let (message, hint) = problem(settings);
        assert_eq!(message, format!("unknown setting `index.tickets.{name}` (tidewheel.toml:4)"));
        assert_eq!(hint, format!("did you mean `index.tickets.{nearest}`?"), "{settings}");
    }
    let found = problems("[[indexes]]\nname = \"a\"\n", &[], &[]);
    assert_eq!(found[0], ("unknown setting `indexes` (tidewheel.toml:1)".into(), "did you mean `index`?".into()));
}

#[test]
fn invalid_setting_of_an_index_is_rejected_by_name() {
    for (settings, expected) in [
        ("keep = \"30s\"", "invalid index.tickets.keep \"30s\" (tidewheel.toml:4): expected a duration of at least 1m"),
        ("keep = 5", "invalid index.tickets.keep 5 (tidewheel.toml:4): expected a duration such as"),
        (
            "embedding = \"large\"",
            "invalid index.tickets.embedding \"large\" (tidewheel.toml:4): expected the name of an embedding: default",
        ),
        ("text.blank = \"drop\"", "invalid index.tickets.text.blank \"drop\" (tidewheel.toml:4): expected one of"),
        (
            "payload.full = \"yes\"",
            "invalid index.tickets.payload.full \"yes\" (tidewheel.toml:4): expected true or false",
        ),
        (
            "payload.exclude = [\"_id\"]",
            "invalid index.tickets.payload.exclude [\"_id\"] (tidewheel.toml:4): expected fields other",
        ),
        ("payload.rename = { a = \"_id\" }", "invalid index.tickets.payload.rename \"_id\""),
        ("payload.rename = { a = \"b.c\" }", "invalid index.tickets.payload.rename \"b.c\""),
        (
            "payload.rename = { \"_tidewheel.text\" = \"b\" }",
            "invalid index.tickets.payload.rename \"_tidewheel.text\"",
        ),
        (
            "payload.rename = { a = \"c\", b = \"c\" }",
            "invalid index.tickets.payload.rename \"a\" (tidewheel.toml:4): expected another name than that of \"b\"",
        ),
        (
            "payload.rename = [\"a\"]",
            "invalid index.tickets.payload.rename (array) (tidewheel.toml:4): expected a table",
        ),
        (
            "payload.indexes = { \"_tidewheel.key\" = \"keyword\" }",
            "invalid index.tickets.payload.indexes \"_tidewheel.key\"",
        ),
        (
            "payload.indexes = { a = \"date\" }",
            "invalid index.tickets.payload.indexes.a \"date\" (tidewheel.toml:4): expected one of keyword",
        ),
        (
            "qdrant.hnsw = { m = \"many\" }",
            "invalid index.tickets.qdrant.hnsw.m \"many\" (tidewheel.toml:4): expected an integer",
        ),
        (
            "qdrant.vectors = { size = 384 }",
            "invalid index.tickets.qdrant.vectors.size 384 (tidewheel.toml:4): expected no value",
        ),
        (
            "qdrant.shard_number = 0",
            "invalid index.tickets.qdrant.shard_number 0 (tidewheel.toml:4): expected an integer of at least 1",
        ),
        ("filter = \"status\"", "invalid index.tickets.filter \"status\" (tidewheel.toml:4): expected a MongoDB query"),
        (
            "filter = { at = 09:00:00 }",
            "invalid index.tickets.filter (table) (tidewheel.toml:4): expected a MongoDB query",
        ),
        (
            "filter = { \"$where\" = \"true\" }",
            "invalid index.tickets.filter (tidewheel.toml:4): unsupported query operator $where",
        ),
        (
            "filter = { a = { \"$regex\" = \"(?=b)\" } }",
            "invalid index.tickets.filter (tidewheel.toml:4): invalid regular expression",
        ),
        ("text.template = \"{{ a\"", "invalid index.tickets.text.template (tidewheel.toml:4): syntax error"),
        (
            "chunk.prefix = \"{{ a | nothing }}\"",
            "invalid index.tickets.chunk.prefix (tidewheel.toml:4): unknown filter \"nothing\"",
        ),
        (
            "qdrant.hnsw = { m = 1 }\nqdrant.hnsw_config = { m = 2 }",
            "index.tickets.qdrant.hnsw is set twice (tidewheel.toml:4 and tidewheel.toml:5)",
        ),
    ] {
        let (message, _) = problem(settings);
        assert!(message.starts_with(expected), "{settings}: {message}");
        assert!(!message.contains("documents."), "{message}");
    }
}

#[test]
fn invalid_declaration_is_rejected() {
    for (file, expected) in [
        ("[index]\nname = \"a\"\n", "invalid index (table) (tidewheel.toml:1): expected tables [[index]]"),
        ("index = [\"a\"]\n", "invalid index (string) (tidewheel.toml:1): expected tables [[index]]"),
        ("[[index]]\nsource = \"a.b\"\n", "[[index]] has no name (tidewheel.toml:1)"),
        (
            "[[index]]\nname = \"a.g1\"\nsource = \"a.b\"\n",
            "invalid index.NAME.name \"a.g1\" (tidewheel.toml:2): expected 1 to 64",
        ),
        (
            "[[index]]\nname = 1\nsource = \"a.b\"\n",
            "invalid index.NAME.name (integer) (tidewheel.toml:2): expected 1 to 64",
        ),
        ("[[index]]\nname = \"a\"\n", "index.a.source is not set, but required by [[index]] (tidewheel.toml:2)"),
        (
            "[[index]]\nname = \"a\"\nsource = \"b\"\n",
            "invalid index.a.source \"b\" (tidewheel.toml:3): expected database.collection, or",
        ),
        (
            "[[index]]\nname = \"a\"\nsource = \".b\"\n",
            "invalid index.a.source \".b\" (tidewheel.toml:3): expected database.collection, such",
        ),
        (
            "[[index]]\nname = \"a\"\nsource = \"admin.b\"\n",
            "invalid index.a.source \"admin.b\" (tidewheel.toml:3): expected a collection",
        ),
        (
            "[[index]]\nname = \"a\"\nsource = [\"!b.c\"]\n",
            "invalid index.a.source [\"!b.c\"] (tidewheel.toml:3): expected at least one",
        ),
        (
            "[[index]]\nname = \"a\"\nsource = [1]\n",
            "invalid index.a.source (array) (tidewheel.toml:3): expected a name",
        ),
        (
            "[[index]]\nname = \"a\"\nsource = \"b.c\"\n[[index]]\nname = \"a\"\nsource = \"b.d\"\n",
            "index `a` is declared twice (tidewheel.toml:2 and tidewheel.toml:5)",
        ),
    ] {
        let found = problems(file, &[], &[]);
        assert_eq!(found.len(), 1, "{file}: {found:?}");
        assert!(found[0].0.starts_with(expected), "{file}: {found:?}");
    }
}

#[test]
fn filter_is_a_table_or_json_text() {
    let canonical = r#"{"status":{"$in":["open","new"]},"at":{"$gte":{"$date":{"$numberLong":"1704067200000"}}}}"#;
    for filter in [
        r#"{ status = { "$in" = ["open", "new"] }, at = { "$gte" = 2024-01-01 } }"#,
        r#"{ status = { "$in" = ["open", "new"] }, at = { "$gte" = 2024-01-01T01:00:00+01:00 } }"#,
        r#"{ status = { "$in" = ["open", "new"] }, at = { "$gte" = { "$date" = "2024-01-01T00:00:00Z" } } }"#,
        r#"'{"status": {"$in": ["open", "new"]}, "at": {"$gte": {"$date": "2024-01-01T00:00:00Z"}}}'"#,
    ] {
        assert_eq!(declaration(&format!("filter = {filter}")).filter.unwrap().0, canonical, "{filter}");
    }
    assert_eq!(declaration("filter = {}").filter, None);
    assert_eq!(declaration("filter = \"\"").filter, None);
}

#[test]
fn text_excludes_what_the_payload_excludes_unless_set() {
    let text = |settings| declaration(settings).text;
    let excluded = text("payload.exclude = [\"secret\"]");
    assert_eq!(excluded.fields, ["subject", "content"]);
    assert_eq!(excluded.exclude, ["secret"]);
    assert_eq!(text("payload.exclude = [\"secret\"]\ntext.exclude = [\"other\"]").exclude, ["other"]);
    assert_eq!(text("payload.exclude = [\"secret\"]\ntext.exclude = []").exclude, [""; 0]);
    let file = index("text = { template = \"{{ a }}\", fields = [\"b\"], exclude = [\"c\"] }");
    let found = warnings(&file, &[], &[]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found.iter().all(|warning| warning.contains("has no effect: index.tickets.text.template is set")),
        "{found:?}"
    );
}
