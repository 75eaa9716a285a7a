//! The pipeline of a change stream.
//!
//! Without filters and exclusions, the one of a single database is that of earlier releases, byte for byte.

use std::collections::BTreeMap;

use bson::{Bson, Document, Regex, doc};
use tidewheel_core::catalog::{Glob, NamespacePattern, Selector};

use super::reduced::Level;
use super::selection::{Selection, Stream};
use super::touched;

/// Unused event fields. Omitting them also keeps an update of a document of nearly 16 MB below the reply limit: the
/// event would hold the new fields twice.
const UNREAD: [&str; 4] = ["updateDescription", "lsid", "txnNumber", "collectionUUID"];

/// The stages that follow `$changeStream`. The paths that an update changed are requested of whole events only, and if
/// there is a filter that they could decide.
pub(super) fn stages(selection: &Selection, level: Level) -> Vec<Document> {
    let mut stages: Vec<Document> = condition(selection).into_iter().collect();
    if level == Level::Whole && !selection.filters().is_empty() {
        stages.push(touched::stage());
    }
    stages.push(doc! { "$unset": UNREAD.to_vec() });
    stages.extend(level.stages());
    stages
}

/// The stage that keeps the selected events; `None` if the change stream has no others.
fn condition(selection: &Selection) -> Option<Document> {
    let (mut kept, mut renamed) = (Vec::new(), Vec::new());
    for selector in selection.selectors() {
        let of = |key: &str| selected(selector, selection.stream(), key);
        let events = of("ns");
        if events.is_empty() {
            return None;
        }
        kept.push(events);
        let mut rename = doc! { "operationType": "rename" };
        rename.extend(of("to"));
        renamed.push(rename);
    }
    kept.append(&mut renamed);
    // It has no collection, and ends the stream.
    kept.push(doc! { "operationType": "invalidate" });
    Some(doc! { "$match": { "$or": kept } })
}

/// The condition that the selector covers the namespace in the field `key`. Empty if every namespace is.
fn selected(selector: &Selector, stream: &Stream, key: &str) -> Document {
    let mut included = any_of(selector.inclusions(), stream, key);
    let excluded = any_of(selector.exclusions(), stream, key);
    let mut condition = match included.len() {
        1 => included.remove(0),
        _ => doc! { "$or": included },
    };
    if !excluded.is_empty() {
        condition.insert("$nor", excluded);
    }
    condition
}

/// One condition for each pattern of databases.
fn any_of<'a>(patterns: impl Iterator<Item = &'a NamespacePattern>, stream: &Stream, key: &str) -> Vec<Document> {
    let mut collections: BTreeMap<&Glob, Vec<&Glob>> = BTreeMap::new();
    for NamespacePattern { database, collection, .. } in patterns {
        // An exclusion may be about other databases.
        if let Stream::Database(name) = stream
            && !database.matches(name)
        {
            continue;
        }
        collections.entry(database).or_default().push(collection);
    }
    let condition = |(database, collections): (&Glob, Vec<&Glob>)| {
        let mut condition = Document::new();
        if *stream == Stream::Deployment && !database.is_any() {
            condition.insert(format!("{key}.db"), one_of(&[database]));
        }
        if !collections.iter().any(|collection| collection.is_any()) {
            condition.insert(format!("{key}.coll"), one_of(&collections));
        }
        condition
    };
    collections.into_iter().map(condition).collect()
}

fn one_of(globs: &[&Glob]) -> Document {
    doc! { "$in": globs.iter().map(|glob| pattern(glob.as_str())).collect::<Vec<Bson>>() }
}

/// Converts a name to a string, a pattern to a regular expression, which `$in` supports too.
fn pattern(pattern: &str) -> Bson {
    if !pattern.contains('*') {
        return Bson::String(pattern.to_owned());
    }
    let escaped: String = pattern
        .chars()
        .map(|character| match character {
            '*' => ".*".to_owned(),
            word if word.is_alphanumeric() || word == '_' => word.to_string(),
            other => format!("\\{other}"),
        })
        .collect();
    // `\z` instead of `$`, which also matches before a line break; `s` makes the dot match one.
    let pattern = format!("^{escaped}\\z").try_into().expect("a collection's name holds no zero");
    let options = "s".to_owned().try_into().expect("it holds no zero");
    Bson::RegularExpression(Regex { pattern, options })
}

#[cfg(test)]
mod tests {
    use tidewheel_core::ports::{Coverage, SourceFilter};

    use super::*;

    fn selection(selectors: &[&[&str]], filters: &[&str]) -> Selection {
        let selectors = selectors.iter().map(|&patterns| Selector::parse(patterns, None).unwrap()).collect();
        let filters = filters.iter().map(|filter| SourceFilter((*filter).to_owned())).collect();
        Selection::new(&Coverage { selectors, filters }).unwrap()
    }

    fn bytes(stages: &[Document]) -> Vec<Vec<u8>> {
        stages.iter().map(|stage| stage.to_vec().unwrap()).collect()
    }

    fn unset() -> Document {
        doc! { "$unset": ["updateDescription", "lsid", "txnNumber", "collectionUUID"] }
    }

    fn regex(text: &str) -> Bson {
        pattern(text)
    }

    #[test]
    fn pipeline_of_short_form_is_unchanged() {
        let short = |names: &[&str]| Selection::new(&Coverage::of(Selector::of_database("shop", names))).unwrap();
        let names = vec![regex("notes_*"), "tickets".into()];
        let wanted = [
            doc! { "$match": { "$or": [
                { "ns.coll": { "$in": names.clone() } },
                { "operationType": "rename", "to.coll": { "$in": names } },
                { "operationType": "invalidate" },
            ] } },
            unset(),
        ];
        let selected = short(&["tickets", "notes_*", "tickets"]);
        assert_eq!(bytes(&stages(&selected, Level::Whole)), bytes(&wanted));
        for level in [Level::Reduced, Level::Filtered] {
            let wanted = [&wanted[..], &level.stages()].concat();
            assert_eq!(bytes(&stages(&selected, level)), bytes(&wanted));
        }
        assert_eq!(bytes(&stages(&short(&[]), Level::Whole)), bytes(&[unset()]));
        let two = selection(&[&["shop.tickets"], &["shop.notes_*", "shop.tickets"]], &[]);
        assert_eq!(bytes(&stages(&two, Level::Whole)), bytes(&wanted), "two indexes of the same collections");
    }

    #[test]
    fn exclusions_narrow_their_own_selector() {
        let selected = selection(&[&["shop.*", "!shop.tmp_*", "!crm.a"], &["shop.tmp_kept"]], &[]);
        let excluded = vec![regex("tmp_*")];
        let wanted = doc! { "$match": { "$or": [
            { "$nor": [{ "ns.coll": { "$in": excluded.clone() } }] },
            { "ns.coll": { "$in": ["tmp_kept"] } },
            { "operationType": "rename", "$nor": [{ "to.coll": { "$in": excluded } }] },
            { "operationType": "rename", "to.coll": { "$in": ["tmp_kept"] } },
            { "operationType": "invalidate" },
        ] } };
        let stages = stages(&selected, Level::Whole);
        // The order of the selectors does not matter.
        let alternatives = |stage: &Document| {
            let all = stage.get_document("$match").unwrap().get_array("$or").unwrap();
            let mut all: Vec<String> = all.iter().map(ToString::to_string).collect();
            all.sort_unstable();
            all
        };
        assert_eq!(alternatives(&stages[0]), alternatives(&wanted));
        assert_eq!(stages[1..], [unset()]);
    }

    #[test]
    fn several_databases_are_matched_with_their_collections() {
        let selected = selection(&[&["shop.tickets", "shop.notes_*", "eu_*.tickets", "crm.*", "!*.notes_tmp"]], &[]);
        let of = |key: &str| {
            let (db, coll) = (format!("{key}.db"), format!("{key}.coll"));
            doc! {
                "$or": [
                    { &db: { "$in": ["crm"] } },
                    { &db: { "$in": [regex("eu_*")] }, &coll: { "$in": ["tickets"] } },
                    { &db: { "$in": ["shop"] }, &coll: { "$in": [regex("notes_*"), "tickets"] } },
                ],
                "$nor": [{ &coll: { "$in": ["notes_tmp"] } }],
            }
        };
        let mut renamed = doc! { "operationType": "rename" };
        renamed.extend(of("to"));
        let wanted = doc! { "$match": { "$or": [of("ns"), renamed, { "operationType": "invalidate" }] } };
        assert_eq!(stages(&selected, Level::Whole), [wanted, unset()]);
        assert_eq!(stages(&selection(&[&["*.*"]], &[]), Level::Whole), [unset()], "every event");
    }

    #[test]
    fn touched_paths_are_requested_only_for_filters() {
        let filtered = selection(&[&["shop.tickets"]], &[r#"{"status": "open"}"#]);
        let stages_of = |level| stages(&filtered, level);
        let plain = stages(&selection(&[&["shop.tickets"]], &[]), Level::Whole);
        let whole = stages_of(Level::Whole);
        assert_eq!(whole, [plain[0].clone(), touched::stage(), unset()]);
        // What does not fit into a reply gets no larger.
        assert!(!stages_of(Level::Reduced).contains(&touched::stage()));
    }

    #[test]
    fn pattern_becomes_an_anchored_regex() {
        let Bson::RegularExpression(regex) = pattern("eu.orders_*") else { panic!("not an expression") };
        assert_eq!(regex.pattern.as_str(), "^eu\\.orders_.*\\z");
        assert_eq!(pattern("orders"), Bson::String("orders".into()));
    }
}
