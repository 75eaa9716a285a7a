use proptest::prelude::*;

use super::*;

fn selector(patterns: &[&str]) -> Selector {
    Selector::parse(patterns, Some("shop")).unwrap()
}

fn covers(patterns: &[&str], namespace: &str) -> bool {
    selector(patterns).covers(&Namespace::parse(namespace).unwrap())
}

#[test]
fn names_and_patterns_match_within_their_side_of_the_first_dot() {
    for (pattern, namespace, expected) in [
        ("shop.tickets", "shop.tickets", true),
        ("shop.tickets", "shop.tickets2", false),
        ("shop.tickets", "shop2.tickets", false),
        ("tickets", "shop.tickets", true),
        ("tickets", "crm.tickets", false),
        ("*", "shop.anything", true),
        ("*", "crm.anything", false),
        ("shop.notes_*", "shop.notes_", true),
        ("shop.notes_*", "shop.notes_eu.old", true),
        ("shop.notes_*", "shop.notesXeu", false),
        ("shop.*_eu", "shop.orders_eu_old", false),
        ("shop.a*b*c", "shop.a1b2b3c", true),
        ("shop.ab*ba", "shop.aba", false),
        ("*.tickets", "crm.tickets", true),
        ("*.tickets", "crm.eu.tickets", false),
        ("sh*.tickets", "shop.tickets", true),
        ("sh*.tickets", "sh.eu.tickets", false),
        ("*.*", "crm.eu.tickets", true),
        ("shop.eu.tickets", "shop.eu.tickets", true),
    ] {
        assert_eq!(covers(&[pattern], namespace), expected, "{pattern} {namespace}");
    }
}

#[test]
fn exclusions_win_in_any_order() {
    let patterns = ["shop.*", "!shop.tmp_*", "crm.notes", "!*.old"];
    for (namespace, expected) in [
        ("shop.tickets", true),
        ("shop.tmp_1", false),
        ("shop.old", false),
        ("crm.notes", true),
        ("crm.tmp_1", false),
        ("crm.old", false),
    ] {
        assert_eq!(covers(&patterns, namespace), expected, "{namespace}");
        let reversed: Vec<&str> = patterns.iter().rev().copied().collect();
        assert_eq!(covers(&reversed, namespace), expected, "{namespace}");
    }
}

#[test]
fn collections_of_the_source_itself_are_never_covered() {
    for namespace in ["admin.users", "config.shards", "local.oplog.rs", "shop.system.views", "shop.system."] {
        assert!(!covers(&["*.*"], namespace), "{namespace}");
    }
    assert!(covers(&["*.*"], "administration.users") && covers(&["*.*"], "shop.systems"));
    assert!(!Selector::of_database("shop", &["*"]).covers(&Namespace::new("shop", "system.profile")));
    assert!(!Selector::of_database("local", &["*"]).covers(&Namespace::new("local", "oplog.rs")));
}

#[test]
fn invalid_patterns_are_rejected_with_the_expected_form() {
    for (pattern, part) in [
        ("shop.", "database.collection"),
        (".tickets", "database.collection"),
        ("", "database.collection"),
        ("!", "database.collection"),
        ("sh op.tickets", "database.collection"),
        ("!!shop.$cmd", "database.collection"),
        ("shop.tic\nkets", "database.collection"),
        ("admin.users", "cannot be indexed"),
        ("!local.*", "cannot be indexed"),
        ("shop.system.*", "cannot be indexed"),
    ] {
        let error = Selector::parse(&["shop.tickets", pattern], Some("shop")).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(&format!("{pattern:?}")), "{pattern:?}: {error}");
    }
    let error = Selector::parse(&["tickets"], None).unwrap_err();
    assert_eq!(error, SelectorError::NoDatabase("tickets".into()));
    assert_eq!(Selector::parse(&["!shop.tmp_*"], None), Err(SelectorError::Empty));
    assert_eq!(Selector::parse::<&str>(&[], None), Err(SelectorError::Empty));
}

#[test]
fn databases_are_one_if_all_inclusions_name_it() {
    let one = Databases::One("shop".to_owned());
    assert_eq!(selector(&["shop.tickets", "notes_*", "!*.old"]).databases(), one);
    assert_eq!(selector(&["shop.tickets", "crm.notes"]).databases(), Databases::Several);
    assert_eq!(selector(&["s*.tickets"]).databases(), Databases::Several);
}

#[test]
fn exact_namespace_is_that_of_one_name() {
    assert_eq!(selector(&["eu.tickets.old"]).exact(), Namespace::parse("eu.tickets.old"));
    assert_eq!(selector(&["tickets", "!shop.old"]).exact(), Namespace::parse("shop.tickets"));
    for several in [&["tickets", "notes"][..], &["ticket*"], &["*.tickets"]] {
        assert_eq!(selector(several).exact(), None);
    }
}

#[test]
fn identity_of_one_database_never_changes_between_releases() {
    let of = |collections: &[&str]| Selector::of_database("shop", collections).identity();
    assert_eq!(of(&[]), "shop.*");
    assert_eq!(of(&["a", "*"]), "shop.*");
    assert_eq!(of(&["tickets"]), r#"shop["tickets"]"#);
    assert_eq!(of(&["b", "a_*", "b"]), r#"shop["a_*", "b"]"#);
    assert_eq!(selector(&["shop.b", "shop.a_*"]).identity(), r#"shop["a_*", "b"]"#);
    assert_eq!(selector(&["shop.*", "!shop.tmp"]).identity(), r#"["shop.*", "!shop.tmp"]"#);
    assert_eq!(selector(&["shop.a", "crm.a"]).identity(), r#"["crm.a", "shop.a"]"#);
}

#[test]
fn redundant_patterns_are_dropped() {
    assert_eq!(selector(&["shop.*", "shop.tickets", "shop.**", "!shop.tmp", "!*.tmp"]), selector(&["*", "!*.tmp"]));
    assert_eq!(selector(&["*.*", "shop.tickets", "*.notes"]), selector(&["*.*"]));
    assert_ne!(selector(&["shop.*", "!shop.tmp"]), selector(&["shop.*"]));
}

/// Patterns over few letters, so that they overlap.
fn patterns() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec("!?[ab*]{1,2}\\.[ab*.]{0,2}[ab*]", 1..5)
}

fn namespaces() -> impl Strategy<Value = Namespace> {
    "[ab]{1,2}\\.[ab.]{0,2}[ab]".prop_map(|text| Namespace::parse(&text).unwrap())
}

proptest! {
    #[test]
    fn selector_covers_what_an_inclusion_and_no_exclusion_matches(given in patterns(), namespace in namespaces()) {
        let given: Vec<NamespacePattern> = given.iter().map(|text| text.parse().unwrap()).collect();
        let matches = |exclude| given.iter().any(|pattern| pattern.exclude == exclude && pattern.matches(&namespace));
        prop_assert_eq!(Selector::new(given.clone()).covers(&namespace), matches(false) && !matches(true));
    }

    #[test]
    fn identity_and_json_distinguish_selectors(a in patterns(), b in patterns()) {
        let of = |texts: &[String]| Selector::new(texts.iter().map(|text| text.parse().unwrap()).collect());
        let (a, b) = (of(&a), of(&b));
        prop_assert_eq!(a == b, a.identity() == b.identity());
        prop_assert_eq!(serde_json::from_value::<Selector>(serde_json::to_value(&a).unwrap()).unwrap(), a);
    }

    #[test]
    fn patterns_round_trip(texts in patterns()) {
        for text in texts {
            let pattern: NamespacePattern = text.parse().unwrap();
            prop_assert_eq!(pattern.to_string().parse(), Ok(pattern));
        }
    }
}
