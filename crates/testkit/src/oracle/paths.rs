//! Dotted paths into BSON documents, for [`Declared`](super::Declared). They lead through documents only, not through
//! arrays.

use bson::{Bson, Document};

/// The value at a path.
pub(super) fn get<'a>(document: &'a Document, path: &str) -> Option<&'a Bson> {
    match path.split_once('.') {
        None => document.get(path),
        Some((name, rest)) => get(document.get(name)?.as_document()?, rest),
    }
}

/// The document reduced to these paths, with the documents around them.
pub(super) fn keep(document: &Document, paths: &[String]) -> Document {
    let mut kept = Document::new();
    for (name, value) in document {
        if paths.contains(name) {
            kept.insert(name, value.clone());
            continue;
        }
        let rest = |path: &String| Some(path.strip_prefix(name.as_str())?.strip_prefix('.')?.to_owned());
        let rests: Vec<String> = paths.iter().filter_map(rest).collect();
        if let Bson::Document(inner) = value
            && !rests.is_empty()
        {
            kept.insert(name, keep(inner, &rests));
        }
    }
    kept
}

/// Removes the value at a path, and keeps the document around it.
pub(super) fn remove(document: &mut Document, path: &str) {
    match path.split_once('.') {
        None => {
            document.remove(path);
        }
        Some((name, rest)) => {
            if let Some(Bson::Document(inner)) = document.get_mut(name) {
                remove(inner, rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn paths_lead_through_documents() {
        let mut document = doc! {"a": {"b": 1, "c": {"d": 2}}, "ab": 3};
        assert_eq!(get(&document, "a.c.d"), Some(&Bson::Int32(2)));
        assert_eq!(get(&document, "ab.c"), None);
        let kept = keep(&document, &["a.c".to_owned(), "a.x".to_owned(), "ab.c".to_owned()]);
        assert_eq!(kept, doc! {"a": {"c": {"d": 2}}});
        remove(&mut document, "a.c.d");
        remove(&mut document, "ab.c");
        assert_eq!(document, doc! {"a": {"b": 1, "c": {}}, "ab": 3});
    }
}
