//! `tidewheel search`: semantic search over the index.

use serde_json::Value;
use tidewheel_core::catalog::IndexName;
use tidewheel_core::filter::Filter;
use tidewheel_core::paths;
use tidewheel_ops::search::{self, Found};
use tidewheel_telemetry::escape;

use crate::cli::{Output, SearchArgs};
use crate::compose;
use crate::exit::{Answer, Failure};
use crate::printer::{self, DIM, GOOD, STRONG, styled};
use crate::settings::Settings;
use crate::wrap;

/// Lines of a chunk to print.
const SNIPPET_LINES: usize = 3;

/// Searches and prints.
pub(crate) async fn run(args: &SearchArgs, settings: &Settings) -> Result<Answer, Failure> {
    let filter = args.filter.as_deref().map(parse_filter).transpose()?;
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let found =
        search::find(&compose::search(settings)?, args.index.as_ref(), &args.text, limit, filter.as_ref()).await?;
    match args.output.output {
        Output::Json => printer::json(&found),
        Output::Text if found.is_empty() => printer::message("no documents found"),
        Output::Text => show(&found, titles(settings, args.index.as_ref())),
    }
    Ok(if found.is_empty() { Answer::No } else { Answer::Fine })
}

/// The text fields of the searched index, as these settings declare it: the first one is the title of a document.
fn titles<'a>(settings: &'a Settings, index: Option<&IndexName>) -> &'a [String] {
    let declared = settings.indexes.iter().find(|one| index.is_none_or(|name| *name == one.name));
    let fields = declared.map(|declaration| declaration.text.fields.as_slice()).filter(|fields| !fields.is_empty());
    // With a template, the usual fields.
    fields.unwrap_or(&settings.documents.fields)
}

/// Prints search results as text.
pub(crate) fn show(found: &[Found], fields: &[String]) {
    let width = printer::width();
    for (rank, found) in found.iter().enumerate() {
        let id = found.document.get("_id").map(plain).unwrap_or_default();
        let id = escape::line(&id);
        let (title, rest) = title(found, fields);
        printer::data(format_args!(
            "{:>2}  {}  {}  {}",
            rank + 1,
            styled(GOOD, format_args!("{:.3}", found.score)),
            styled(STRONG, &title),
            styled(DIM, &id)
        ));
        for line in wrap::lines(&rest, width.saturating_sub(INDENT.len()), SNIPPET_LINES) {
            printer::data(format_args!("{INDENT}{line}"));
        }
    }
}

/// Indent below the title: the width of rank and score.
const INDENT: &str = "           ";

/// Returns the first non-empty text field, and the chunk without it.
fn title(found: &Found, fields: &[String]) -> (String, String) {
    let named = fields.iter().flat_map(|field| paths::values(&found.document, field));
    let any = found.document.iter().filter(|(name, _)| *name != "_id").map(|(_, value)| value);
    let title = named.chain(any).filter_map(Value::as_str).find(|text| !text.trim().is_empty()).unwrap_or("(no text)");
    let rest = found.text.strip_prefix(title).unwrap_or(&found.text);
    (wrap::lines(title, 80, 1).concat(), rest.trim().to_owned())
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn parse_filter(text: &str) -> Result<Filter, Failure> {
    let json: Value = serde_json::from_str(text).map_err(|error| {
        Failure::new(format!("invalid --filter: expected JSON: {error}"))
            .with_hint(r#"for example: --filter '{"must": [{"key": "product", "match": {"value": "Atlas"}}]}'"#)
    })?;
    Filter::parse(&json).map_err(Failure::from)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::settings::{Given, load};

    fn found(document: Value, text: &str) -> Found {
        let Value::Object(document) = document else { unreachable!("it is an object") };
        Found {
            score: 1.0,
            point: String::new(),
            namespace: Value::Null,
            key: Value::Null,
            chunk: Value::Null,
            text: text.to_owned(),
            document,
        }
    }

    #[test]
    fn title_is_the_first_text_field_and_is_not_repeated() {
        let found = found(json!({"_id": 1, "subject": "A subject"}), "A subject\nand its content");
        assert_eq!(title(&found, &["subject".into()]), ("A subject".into(), "and its content".into()));
    }

    #[test]
    fn titles_are_in_the_text_fields_of_the_searched_index() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tidewheel.toml");
        let of = |lines: &str, index: Option<&str>| {
            std::fs::write(&file, lines).unwrap();
            let settings = load(&Given { config: Some(file.clone()), ..Given::default() }).unwrap().settings;
            let index = index.map(|name| IndexName::new(name).unwrap());
            titles(&settings, index.as_ref()).join(" ")
        };
        let declared = "[[index]]\nname = \"a\"\nsource = \"s.a\"\ntext.fields = [\"name\"]\n\
                        [[index]]\nname = \"b\"\nsource = \"s.b\"\ntext.template = \"{{ x }}\"\n";
        for (lines, index, expected) in [
            ("", None, "subject content"),
            ("documents.fields = [\"title\"]\n", None, "title"),
            (declared, Some("a"), "name"),
            (declared, Some("b"), "subject content"),
        ] {
            assert_eq!(of(lines, index), expected, "{lines} {index:?}");
        }
    }

    #[test]
    fn document_without_text_gets_a_placeholder_title() {
        assert_eq!(title(&found(json!({}), ""), &[]).0, "(no text)");
    }
}
