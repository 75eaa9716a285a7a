//! The declaration of the short form.

use serde_json::json;
use tidewheel_core::catalog::{Declaration, Selector};

use super::loaded;

fn declaration(file: &str) -> Declaration {
    let mut declarations = loaded(file, &[], &[]).settings.declarations();
    assert_eq!(declarations.len(), 1);
    declarations.remove(0)
}

#[test]
fn short_form_declares_one_index_with_the_collections_name() {
    let declaration = declaration("mongodb.database = \"shop\"\n");
    let expected = json!({
        "name": "documents",
        "source": ["shop.*"],
        "text": {"template": null, "fields": ["subject", "content"], "exclude": [], "blank": "index"},
        "chunk": {"tokens": null, "overlap": 32, "max": 10_000, "prefix": null},
        "payload": {"include": [], "exclude": [], "rename": {}, "full": false},
        "payload_indexes": {},
        "embedding": {
            "name": "default", "provider": "tidewheel", "model": "sentence-transformers/all-MiniLM-L6-v2", "url": null,
            "dimensions": null, "rounding": "exact", "passage_prefix": null, "query_prefix": null,
        },
        "vectors": {"dense": "", "distance": "cosine", "datatype": "float32"},
        "collection": {"shard_number": null, "sharding_method": null, "settings": {}},
        "rules": {"on_dead_letter": "keep", "keep_ms": 86_400_000},
    });
    assert_eq!(serde_json::to_value(declaration).unwrap(), expected);
}

#[test]
fn every_setting_of_the_short_form_is_part_of_its_declaration() {
    let declaration = declaration(
        r#"
        mongodb = { database = "shop", collection = ["tickets", "notes_*"] }
        qdrant.collection = "my tickets.v2"
        [documents]
        fields = ["a"]
        chunk_tokens = 100
        chunk_overlap = 8
        max_chunks = 9
        blank = "skip"
        on_dead_letter = "remove"
        payload = { include = ["b"], exclude = ["c"] }
        "#,
    );
    assert_eq!(declaration.name.as_str(), "my tickets.v2");
    assert_eq!(declaration.source.identity(), r#"shop["notes_*", "tickets"]"#);
    let json = serde_json::to_value(&declaration).unwrap();
    assert_eq!(json["text"], json!({"template": null, "fields": ["a"], "exclude": ["c"], "blank": "skip"}));
    assert_eq!(json["chunk"], json!({"tokens": 100, "overlap": 8, "max": 9, "prefix": null}));
    assert_eq!(json["payload"], json!({"include": ["b"], "exclude": ["c"], "rename": {}, "full": false}));
    assert_eq!(json["rules"]["on_dead_letter"], "remove");
}

#[test]
fn equal_declaration_in_either_form_has_equal_parts() {
    let short = declaration(
        r#"
        mongodb = { database = "shop", collection = "tickets" }
        qdrant.collection = "tickets"
        documents = { template = "{{ a }}", chunk_tokens = 100, payload.exclude = ["c"] }
        "#,
    );
    let declared = declaration(
        r#"
        [[index]]
        name = "tickets"
        source = "shop.tickets"
        text.template = "{{ a }}"
        chunk.tokens = 100
        payload.exclude = ["c"]
        "#,
    );
    assert_eq!(declared, short);
    assert_eq!(declared.parts(), short.parts());
}

#[test]
fn short_form_without_a_database_covers_nothing() {
    assert_eq!(declaration("").source, Selector::default());
}
