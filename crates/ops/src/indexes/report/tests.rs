use serde_json::json;

use super::*;
use crate::indexes::progress::Step;

fn cost() -> Cost {
    Cost {
        documents: 1_204_311,
        texts: 1_311_020,
        tokens: 214_000_000,
        points: 1_311_020,
        sampled: 500,
        seconds: Some(5_350),
        rate: RateSource::Measured,
        documents_per_second: None,
        tokens_per_second: Some(40_000.0),
        removed: 0,
        vector_bytes: Some(335_621_120),
    }
}

fn none(index: &str) -> IndexPlan {
    IndexPlan {
        index: IndexName::new(index).unwrap(),
        action: Action::None,
        parts: Vec::new(),
        generation: None,
        details: Vec::new(),
        cost: None,
        searches: None,
        rollback: None,
        collections: Vec::new(),
        points: None,
        exists: false,
        keep: None,
    }
}

fn generation() -> IndexPlan {
    IndexPlan {
        action: Action::Generation,
        parts: vec![Part::Embedding],
        generation: Some(3),
        details: vec!["model all-MiniLM-L6-v2 → hash:64, 384 → 64 dimensions".to_owned()],
        cost: Some(cost()),
        searches: Some(Searches { interrupted_ms: Some(0) }),
        rollback: Some("24h after the switch".to_owned()),
        keep: Some(Duration::from_secs(86_400)),
        ..none("tickets")
    }
}

fn dropped() -> IndexPlan {
    let collections = vec!["old.g1".to_owned()];
    IndexPlan { action: Action::Drop, collections, points: Some(8_120), ..none("old") }
}

#[test]
fn json_never_changes_between_releases() {
    let plan = Plan {
        revision: 1_764_489_600_123,
        todo: true,
        indexes: vec![generation(), none("articles"), dropped()],
        running: vec![Progress {
            documents: Some(12_000),
            of: Some(1_204_311),
            seconds_left: Some(5_100),
            ..Progress::new(&IndexName::new("tickets").unwrap(), Some(3), Step::Filling)
        }],
        refused: vec![Refused {
            index: Some(IndexName::new("notes").unwrap()),
            reason: "unsupported operator \"$where\" in filter".to_owned(),
            hint: "remove it".to_owned(),
        }],
        warnings: Vec::new(),
    };
    let json = json!({"revision": 1_764_489_600_123_u64, "todo": true, "indexes": [
        {
            "index": "tickets", "action": "generation", "parts": ["embedding"], "generation": 3,
            "details": ["model all-MiniLM-L6-v2 → hash:64, 384 → 64 dimensions"],
            "cost": {
                "documents": 1_204_311, "texts": 1_311_020, "tokens": 214_000_000, "points": 1_311_020,
                "sampled": 500, "seconds": 5_350, "rate": "measured", "removed": 0, "vector_bytes": 335_621_120,
            },
            "searches": {"interrupted_ms": 0}, "rollback": "24h after the switch",
        },
        {"index": "articles", "action": "none"},
        {"index": "old", "action": "drop", "collections": ["old.g1"], "points": 8_120},
    ], "running": [{
        "index": "tickets", "generation": 3, "step": "filling", "documents": 12_000, "of": 1_204_311,
        "seconds_left": 5_100,
    }], "refused": [
        {"index": "notes", "reason": "unsupported operator \"$where\" in filter", "hint": "remove it"},
    ], "warnings": []});
    assert_eq!(serde_json::to_value(&plan).unwrap(), json);
}

#[test]
fn text_names_action_cost_and_consequences() {
    assert_eq!(
        generation().lines(),
        [
            "new generation 3: model all-MiniLM-L6-v2 → hash:64, 384 → 64 dimensions",
            "embed 1,311,020 texts of 1,204,311 documents, 214M tokens · ETA 89 min at 40k tokens/s (measured)",
            "Qdrant holds both generations meanwhile, about 320 MiB of vectors more · searches: no interruption · \
             rollback: 24 h after the switch",
        ]
    );
    assert_eq!(none("articles").lines(), ["no change"]);
    assert_eq!(dropped().lines(), ["drop: collection old.g1 with 8,120 points"]);
    let kept = IndexPlan { collections: Vec::new(), points: None, details: vec!["it stays".to_owned()], ..dropped() };
    assert_eq!(kept.lines(), ["drop: no collection: it stays"]);
    let unknown = Cost { texts: 1, seconds: None, removed: 1, ..cost() };
    let adjust = IndexPlan { action: Action::Adjust, cost: Some(unknown), ..none("tickets") };
    assert_eq!(
        adjust.lines(),
        ["adjust", "embed 1 text of 1,204,311 documents, 214M tokens · ETA unknown", "remove about 1 document",]
    );
    let payload = Cost { texts: 0, ..cost() };
    let line =
        |cost: Cost| IndexPlan { action: Action::Payload, cost: Some(cost), ..none("tickets") }.lines().remove(1);
    assert_eq!(line(payload.clone()), "write 1,204,311 documents, embed nothing");
    let measured = Cost { seconds: Some(240), documents_per_second: Some(5_018), ..payload };
    assert_eq!(
        line(measured),
        "write 1,204,311 documents, embed nothing · ETA 4 min at most, at 5.0k docs/s (measured)"
    );
}

#[test]
fn switch_of_a_plain_collection_names_the_moment() {
    let searches = Some(Searches { interrupted_ms: None });
    let plain = IndexPlan { searches, keep: None, cost: None, ..generation() };
    let text = plain.lines().pop().unwrap();
    assert!(text.ends_with("searches fail for some milliseconds at the switch · rollback: not possible"), "{text}");
    let plan = |indexes| Plan {
        revision: 0,
        todo: true,
        indexes,
        running: Vec::new(),
        refused: Vec::new(),
        warnings: Vec::new(),
    };
    assert!(plan(vec![plain]).interrupts_searches() && !plan(vec![generation()]).interrupts_searches());
}

#[test]
fn summary_counts_changes() {
    let plan = |indexes: Vec<IndexPlan>| Plan {
        revision: 0,
        todo: !indexes.is_empty(),
        indexes,
        running: Vec::new(),
        refused: Vec::new(),
        warnings: Vec::new(),
    };
    assert_eq!(plan(vec![generation(), none("a")]).summary(), "1 change. Run `tidewheel apply` to make it.");
    assert_eq!(plan(vec![generation(), dropped()]).summary(), "2 changes. Run `tidewheel apply` to make them.");
    assert_eq!(plan(Vec::new()).summary(), "Nothing to do.");
    assert_eq!(plan(vec![none("a")]).summary(), "Run `tidewheel apply` to apply the declarations.");
    let refused = Refused { index: None, reason: String::new(), hint: String::new() };
    let refused = Plan { refused: vec![refused], ..plan(vec![generation()]) };
    assert_eq!(refused.summary(), "Refused: nothing can be applied.");
}

#[test]
fn durations_are_exact() {
    for (seconds, text) in [(86_400, "24 h"), (5_400, "1 h 30 min"), (60, "1 min"), (61, "1 min 1 s"), (0, "0 s")] {
        assert_eq!(whole(Duration::from_secs(seconds), " "), text);
    }
    assert_eq!(whole(Duration::from_secs(86_400), ""), "24h");
}
