use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::Map;

use super::*;
use crate::catalog::{
    Blank, ChunkDeclaration, CollectionSpec, Datatype, EmbeddingSpec, IndexName, OnDeadLetter, PayloadDeclaration,
    PayloadIndex, PayloadKind, Provider, Rounding, Rules, Selector, ShardingMethod, TextDeclaration, VectorLayout,
};
use crate::ports::SourceFilter;

fn declaration() -> Declaration {
    Declaration::new(
        IndexName::new("tickets").unwrap(),
        Selector::parse(&["shop.tickets"], None).unwrap(),
        EmbeddingSpec::new("default", Provider::own(), "minilm"),
    )
}

/// Declarations of few values, so that two of them often share parts.
fn declarations() -> impl Strategy<Value = Declaration> {
    let names = || vec("[ab]", 0..3);
    let text = (option::of("[ab]"), names(), names(), any::<bool>()).prop_map(|(template, fields, exclude, skips)| {
        let blank = if skips { Blank::Skip } else { Blank::Index };
        TextDeclaration { template, fields, exclude, blank }
    });
    let chunk = (option::of(8..10_usize), 0..2_usize, 1..3_usize, option::of("[ab]"))
        .prop_map(|(tokens, overlap, max, prefix)| ChunkDeclaration { tokens, overlap, max, prefix });
    let payload = (names(), names(), btree_map("[ab]", "[cd]", 0..2), any::<bool>())
        .prop_map(|(include, exclude, rename, full)| PayloadDeclaration { include, exclude, rename, full });
    let points = (vec("[ab]\\.[ab]", 1..3), option::of("[ab]"), text, chunk, payload);

    let embedding = ("[ab]", option::of("[ab]"), option::of(1..3_usize), any::<bool>(), option::of("[ab]"));
    let embedding = embedding.prop_map(|(name, url, dimensions, int8, prefix)| EmbeddingSpec {
        url,
        dimensions,
        rounding: if int8 { Rounding::Int8 } else { Rounding::Exact },
        passage_prefix: prefix,
        ..EmbeddingSpec::new(name, Provider::own(), "minilm")
    });
    let kind = prop_oneof![Just(PayloadKind::Keyword), Just(PayloadKind::Integer)];
    let indexes = btree_map("[ab]", kind.prop_map(PayloadIndex::new), 0..2);
    let collection = (option::of(1..3_u32), btree_map("[ab]", 0..2_i64, 0..2)).prop_map(|(shard_number, settings)| {
        let settings = settings.into_iter().map(|(name, value)| (name, value.into())).collect();
        CollectionSpec { shard_number, settings, ..CollectionSpec::default() }
    });
    let vectors = any::<bool>().prop_map(|half| VectorLayout {
        datatype: if half { Datatype::Float16 } else { Datatype::Float32 },
        ..VectorLayout::default()
    });
    let rules = (1..3_u64).prop_map(|hours| Rules { keep: Duration::from_secs(hours * 3_600), ..Rules::default() });

    (points, (embedding, indexes, collection, vectors, rules)).prop_map(|(points, storage)| {
        let (source, filter, text, chunk, payload) = points;
        let (embedding, payload_indexes, collection, vectors, rules) = storage;
        let source = Selector::parse(&source, None).unwrap();
        let filter = filter.map(SourceFilter);
        Declaration {
            source,
            filter,
            text,
            chunk,
            payload,
            payload_indexes,
            embedding,
            vectors,
            collection,
            rules,
            ..declaration()
        }
    })
}

/// A change of one part.
type PartChange = (Part, fn(&mut Declaration));

/// Changes to values that [`declarations`] never has.
const CHANGES: &[PartChange] = &[
    (Part::Source, |to| to.source = Selector::of_database("crm", &["notes"])),
    (Part::Filter, |to| to.filter = Some(SourceFilter("{}".into()))),
    (Part::Text, |to| to.text.template = Some("{{ subject }}".into())),
    (Part::Text, |to| to.text.fields.push("subject".into())),
    (Part::Text, |to| to.text.exclude.push("secret".into())),
    (Part::Text, |to| {
        to.text.blank = if to.text.blank == Blank::Skip { Blank::Index } else { Blank::Skip };
    }),
    (Part::Chunk, |to| to.chunk.tokens = Some(200)),
    (Part::Chunk, |to| to.chunk.overlap = 16),
    (Part::Chunk, |to| to.chunk.max = 7),
    (Part::Chunk, |to| to.chunk.prefix = Some("{{ subject }}".into())),
    (Part::Payload, |to| to.payload.include.push("status".into())),
    (Part::Payload, |to| to.payload.exclude.push("secret".into())),
    (Part::Payload, |to| {
        to.payload.rename.insert("customer.name".into(), "customer".into());
    }),
    (Part::Payload, |to| to.payload.full = !to.payload.full),
    (Part::PayloadIndexes, |to| {
        to.payload_indexes.insert("date".into(), PayloadIndex::new(PayloadKind::Datetime));
    }),
    (Part::Embedding, |to| to.embedding.provider = "openai".into()),
    (Part::Embedding, |to| to.embedding.model = "hash:64".into()),
    (Part::Embedding, |to| to.embedding.url = Some("http://gpu:8080".into())),
    (Part::Embedding, |to| to.embedding.dimensions = Some(64)),
    (Part::Embedding, |to| to.embedding.passage_prefix = Some("passage: ".into())),
    (Part::Layout, |to| to.vectors.datatype = Datatype::Uint8),
    (Part::Layout, |to| to.vectors.dense = "text".into()),
    (Part::Layout, |to| to.collection.shard_number = Some(6)),
    (Part::Layout, |to| to.collection.sharding_method = Some(ShardingMethod::Custom)),
    (Part::Collection, |to| {
        to.collection.settings.insert("hnsw".into(), json!({"m": 16}));
    }),
    (Part::Rules, |to| to.rules.on_dead_letter = OnDeadLetter::Remove),
    (Part::Rules, |to| to.rules.keep = Duration::from_secs(60)),
    (Part::Rules, |to| to.embedding.name = "other".into()),
    (Part::Rules, |to| to.embedding.query_prefix = Some("query: ".into())),
];

/// Reverses the keys of every object.
fn reversed(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            Value::Object(fields.into_iter().rev().map(|(name, value)| (name, reversed(value))).collect::<Map<_, _>>())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(reversed).collect()),
        scalar => scalar,
    }
}

/// What each part is made of, with the sets among it sorted.
fn meaning(declaration: &Declaration, part: Part) -> String {
    let Declaration { name: _, source, filter, text, chunk, payload, .. } = declaration;
    let Declaration { payload_indexes, embedding, vectors, collection, rules, .. } = declaration;
    match part {
        Part::Source => format!("{source:?}"),
        Part::Filter => format!("{filter:?}"),
        Part::Text => format!("{:?}", (&text.template, &text.fields, set(&text.exclude), text.blank)),
        Part::Chunk => format!("{chunk:?}"),
        Part::Payload => {
            format!("{:?}", (set(&payload.include), set(&payload.exclude), &payload.rename, payload.full))
        }
        Part::PayloadIndexes => format!("{payload_indexes:?}"),
        Part::Embedding => {
            let EmbeddingSpec { provider, model, url, dimensions, rounding, passage_prefix, .. } = embedding;
            format!("{:?}", (provider, model, url, dimensions, rounding, passage_prefix))
        }
        Part::Layout => format!("{:?}", (vectors, collection.shard_number, collection.sharding_method)),
        Part::Collection => format!("{:?}", collection.settings),
        Part::Rules => format!("{:?}", (rules, &embedding.name, &embedding.query_prefix)),
    }
}

proptest! {
    #[test]
    fn parts_differ_exactly_where_declarations_do(a in declarations(), b in declarations()) {
        let difference = a.difference(&b);
        for part in Part::ALL {
            prop_assert_eq!(difference.has(part), meaning(&a, part) != meaning(&b, part), "{}", part);
        }
        prop_assert_eq!(difference.is_empty(), a.fingerprint() == b.fingerprint());
        prop_assert_eq!(difference.has(Part::Payload), a.made().payload != b.made().payload);
        let texts = difference.has(Part::Text) || difference.has(Part::Chunk);
        prop_assert_eq!(texts, a.made().text != b.made().text);
    }

    #[test]
    fn each_change_differs_in_its_part_alone(before in declarations()) {
        let parts = before.parts();
        for (number, (part, change)) in CHANGES.iter().enumerate() {
            let mut after = before.clone();
            change(&mut after);
            let difference = parts.difference(&after.parts());
            prop_assert_eq!(difference.parts().collect::<Vec<_>>(), [*part], "change {}", number);
            prop_assert_eq!(difference.action(), part.action());
        }
    }

    #[test]
    fn order_of_keys_and_sources_and_spelled_out_defaults_change_nothing(given in declarations()) {
        let json = json!(given);
        let mut read: Declaration = serde_json::from_value(reversed(json)).unwrap();
        prop_assert_eq!(&read, &given);
        let patterns = given.source.patterns().iter().rev().cloned();
        read.source = Selector::new(patterns.clone().chain(patterns).collect());
        read.text.exclude.reverse();
        read.payload.include.reverse();
        read.payload.exclude.extend(given.payload.exclude.clone());
        prop_assert_eq!(read.parts(), given.parts());
        let again: Parts = serde_json::from_value(json!(given.parts())).unwrap();
        prop_assert!(again.difference(&given.parts()).is_empty());
    }
}

#[test]
fn rename_of_the_index_differs_in_no_part() {
    let renamed = Declaration { name: IndexName::new("other").unwrap(), ..declaration() };
    assert!(renamed.difference(&declaration()).is_empty());
}

#[test]
fn default_models_of_two_embedders_are_not_taken_for_one() {
    let of = |name: &str, model: &str, url: Option<&str>| {
        let embedding = EmbeddingSpec::new(name, Provider::own(), model);
        Declaration { embedding: EmbeddingSpec { url: url.map(str::to_owned), ..embedding }, ..declaration() }
    };
    let differs = |a: &Declaration, b: &Declaration| a.difference(b).has(Part::Embedding);
    assert!(differs(&of("a", "", None), &of("b", "", None)));
    assert!(!differs(&of("a", "minilm", None), &of("b", "minilm", None)));
    assert!(!differs(&of("a", "", Some("http://gpu")), &of("b", "", Some("http://gpu"))), "the address is recorded");
    let nameless = of("a", "", None).difference(&of("a", "", None));
    assert!(nameless.is_empty() && nameless.with_other_model().needs_generation());
}

#[test]
fn each_part_requires_its_action() {
    let text = Some(Needs { rows: Rows::Text, sweep: false });
    let payload = Some(Needs { rows: Rows::Payload, sweep: false });
    let members = Some(Needs { rows: Rows::Missing, sweep: true });
    for (part, action, needs) in [
        (Part::Source, Action::Adjust, members),
        (Part::Filter, Action::Adjust, members),
        (Part::Text, Action::Text, text),
        (Part::Chunk, Action::Text, text),
        (Part::Payload, Action::Payload, payload),
        (Part::PayloadIndexes, Action::Settings, None),
        (Part::Embedding, Action::Generation, members),
        (Part::Layout, Action::Generation, members),
        (Part::Collection, Action::Settings, None),
        (Part::Rules, Action::Settings, None),
    ] {
        let difference = Difference(BTreeSet::from([part]));
        assert_eq!((difference.action(), difference.needs()), (action, needs), "{part}");
        assert_eq!(difference.needs_generation(), action == Action::Generation, "{part}");
    }
    assert_eq!((Difference::default().action(), Difference::default().needs()), (Action::None, None));
}

#[test]
fn several_differences_combine() {
    let of = |parts: &[Part]| Difference(parts.iter().copied().collect());
    let both = of(&[Part::Filter, Part::Payload]);
    assert_eq!(both.action(), Action::Payload);
    assert_eq!(both.needs(), Some(Needs { rows: Rows::Payload, sweep: true }));
    assert_eq!(of(&[Part::Rules, Part::Chunk, Part::Payload]).action(), Action::Text);
    assert!(of(&[Part::Text, Part::Layout]).needs_generation());
    assert_eq!(of(&[Part::Embedding, Part::Text]).with_equal_identity(), of(&[Part::Text, Part::Rules]));
    assert_eq!(of(&[Part::Layout]).with_equal_identity(), of(&[Part::Layout]));
}

#[test]
fn fingerprints_never_change_between_releases() {
    let declaration = declaration();
    let parts = json!({
        "source": "3a4282ee5eefb05a",
        "filter": "fccb2bccb835d2b7",
        "text": "3238330a4cf03720",
        "chunk": "918c97e86d804bca",
        "payload": "54d2eb1eb2c9ea03",
        "payload_indexes": "c85f02a0a244cbc6",
        "embedding": "950854bde0164057",
        "layout": "012fd5fb003d5e81",
        "collection": "6ca6fba34c82b8db",
        "rules": "03236277fba51caf",
    });
    assert_eq!(serde_json::to_value(declaration.parts()).unwrap(), parts);
    assert_eq!(declaration.fingerprint().to_string(), "1127845e9d3a79ef");
    let made = json!({"text": "36f0e7cda6df3021", "payload": "54d2eb1eb2c9ea03"});
    assert_eq!(serde_json::to_value(declaration.made()).unwrap(), made);
}

#[test]
fn parts_of_a_later_release_are_left_out() {
    let mut newer = json!(declaration().parts());
    newer["sparse"] = json!("0123456789abcdef");
    assert_eq!(serde_json::from_value::<Parts>(newer.clone()).unwrap(), declaration().parts());
    newer.as_object_mut().unwrap().shift_remove("chunk");
    let older: Parts = serde_json::from_value(newer).unwrap();
    assert_eq!(older.difference(&declaration().parts()), Difference(BTreeSet::from([Part::Chunk])));
}

#[test]
fn names_are_those_of_json() {
    for part in Part::ALL {
        assert_eq!(serde_json::to_value(part).unwrap(), part.name());
    }
    for action in [Action::None, Action::Settings, Action::Adjust, Action::Payload, Action::Text, Action::Switch] {
        assert_eq!(serde_json::to_value(action).unwrap(), action.name());
    }
    for action in [Action::Discard, Action::Generation, Action::Create, Action::Drop] {
        assert_eq!(serde_json::to_value(action).unwrap(), action.name());
    }
}

#[test]
fn malformed_fingerprints_are_rejected() {
    for text in ["", "0123456789abcde", "0123456789ABCDEF", "+123456789abcdef", "0123456789abcdef0"] {
        assert!(text.parse::<Fp>().is_err(), "{text:?} was accepted");
    }
    let fingerprint: Fp = "00000000000000ff".parse().unwrap();
    assert_eq!((fingerprint, fingerprint.to_string().as_str()), (Fp(255), "00000000000000ff"));
}
