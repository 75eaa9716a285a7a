//! The filters of templates beyond those of minijinja.
//!
//! minijinja charges a filter for the bytes that it reads and for those that it returns. The filters here charge for
//! what they need beyond that before they start, so that the fuel of a template bounds their time and their memory.

mod date;
mod html;
mod lines;
mod markdown;
mod truncate;

use std::borrow::Cow;

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{ArgType, Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

/// The bytes that one unit of fuel pays for.
const BYTES_PER_FUEL: u64 = 64;

/// The filters of tidewheel.
const OWN: [&str; 4] = ["date", "markdown", "striptags", "truncate"];

/// The filters of minijinja with the features that the workspace enables.
const BUILTIN: [&str; 47] = [
    "abs",
    "attr",
    "batch",
    "bool",
    "capitalize",
    "chain",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "trim",
    "unique",
    "upper",
    "zip",
];

/// Adds the filters of tidewheel.
pub(super) fn add(environment: &mut Environment<'_>) {
    environment.add_filter("date", filter_date);
    environment.add_filter("markdown", filter_markdown);
    environment.add_filter("striptags", filter_striptags);
    environment.add_filter("truncate", filter_truncate);
}

/// Checks what minijinja checks only when it renders: names of filters, and formats of dates that are literals.
///
/// # Errors
///
/// The first unknown filter or unsupported directive.
pub(super) fn check(environment: &Environment<'_>, template: &str) -> Result<(), String> {
    let tokens: Vec<Token<'_>> =
        tokenize(template, false, SyntaxConfig::default()).map_while(Result::ok).map(|(token, _)| token).collect();
    let mut state = environment.empty_state();
    let mut rest = &tokens[..];
    while let [_, after @ ..] = rest {
        let (name, arguments) = match rest {
            [Token::Pipe, Token::Ident(name), arguments @ ..] => (*name, arguments),
            [Token::BlockStart, Token::Ident("filter"), Token::Ident(name), arguments @ ..] => (*name, arguments),
            _ => {
                rest = after;
                continue;
            }
        };
        let (name, arguments) = dotted(name, arguments);
        if state.apply_filter(&name, &[]).is_err_and(|error| error.kind() == ErrorKind::UnknownFilter) {
            let mut known = [&OWN[..], &BUILTIN[..]].concat();
            known.sort_unstable();
            return Err(format!("unknown filter \"{name}\": expected one of {}", known.join(", ")));
        }
        if name == "date"
            && let Some(format) = literal_format(arguments)
        {
            date::Format::parse(format)?;
        }
        rest = arguments;
    }
    Ok(())
}

/// Completes the name of a filter, which may have segments, and returns the tokens that follow it.
fn dotted<'t, 's>(first: &'s str, mut rest: &'t [Token<'s>]) -> (Cow<'s, str>, &'t [Token<'s>]) {
    let mut name = Cow::Borrowed(first);
    while let [Token::Dot, Token::Ident(segment), after @ ..] = rest {
        let name = name.to_mut();
        name.push('.');
        name.push_str(segment);
        rest = after;
    }
    (name, rest)
}

/// Returns the format of a date that is its only argument and a literal.
fn literal_format<'t>(arguments: &'t [Token<'_>]) -> Option<&'t str> {
    match arguments {
        [Token::ParenOpen, format, Token::ParenClose, ..]
        | [Token::ParenOpen, Token::Ident("format"), Token::Assign, format, Token::ParenClose, ..] => match format {
            Token::Str(text) => Some(text),
            Token::String(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

fn filter_striptags(state: &mut State<'_, '_>, value: &Value) -> Result<String, Error> {
    let html = text("striptags", value)?;
    // A copy of the text between two tags, and the work of the tokenizer.
    charge(state, 2 * html.len() as u64)?;
    Ok(html::strip_tags(&html))
}

fn filter_markdown(state: &mut State<'_, '_>, value: &Value) -> Result<String, Error> {
    let markdown = text("markdown", value)?;
    charge(state, (2 * markdown.len() as u64).saturating_add(markdown::cost(&markdown)))?;
    Ok(markdown::plain_text(&markdown))
}

// minijinja passes keyword arguments by value.
#[allow(clippy::needless_pass_by_value)]
fn filter_truncate(
    value: &Value,
    length: Option<usize>,
    killwords: Option<bool>,
    end: Option<&str>,
    keywords: Kwargs,
) -> Result<String, Error> {
    let text = text("truncate", value)?;
    let length = argument(length, &keywords, "length")?.unwrap_or(255);
    let killwords = argument(killwords, &keywords, "killwords")?.unwrap_or(false);
    let end = argument(end, &keywords, "end")?.unwrap_or("…");
    let leeway = argument(None, &keywords, "leeway")?.unwrap_or(0);
    keywords.assert_all_used()?;
    let truncated =
        truncate::truncate(&text, length, killwords, end, leeway).map_err(|error| invalid("truncate", &error))?;
    Ok(truncated.into_owned())
}

// minijinja passes keyword arguments by value.
#[allow(clippy::needless_pass_by_value)]
fn filter_date(
    state: &mut State<'_, '_>,
    value: &Value,
    format: Option<&str>,
    keywords: Kwargs,
) -> Result<String, Error> {
    let text = text("date", value)?;
    let format = argument(format, &keywords, "format")?.unwrap_or("%Y-%m-%d");
    keywords.assert_all_used()?;
    if text.is_empty() {
        return Ok(String::new());
    }
    // A directive of 2 bytes takes 48 while the format is parsed, and becomes at most 16.
    charge(state, 32 * format.len() as u64)?;
    let format = date::Format::parse(format).map_err(|error| invalid("date", &error))?;
    let date = date::Date::parse(&text).ok_or_else(|| {
        let start: String = text.chars().take(40).collect();
        invalid("date", &format!("invalid date \"{start}\": expected RFC 3339, for example 2024-03-01T09:00:00Z"))
    })?;
    Ok(date.format(&format))
}

/// Returns an argument by position, else by name.
fn argument<'a, T>(given: Option<T>, keywords: &'a Kwargs, name: &'a str) -> Result<Option<T>, Error>
where
    Option<T>: ArgType<'a, Output = Option<T>>,
{
    if given.is_some() { Ok(given) } else { keywords.get(name) }
}

/// The text of a value; missing values have none.
fn text<'a>(filter: &str, value: &'a Value) -> Result<Cow<'a, str>, Error> {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => Ok(Cow::Borrowed("")),
        ValueKind::String | ValueKind::Number | ValueKind::Bool => {
            Ok(value.as_str().map_or_else(|| Cow::Owned(value.to_string()), Cow::Borrowed))
        }
        kind => Err(invalid(filter, &format!("invalid value: expected a text, found {kind}"))),
    }
}

fn invalid(filter: &str, message: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{filter}: {message}"))
}

/// Consumes the fuel for so many bytes, or for work that takes as long as copying them.
fn charge(state: &State<'_, '_>, bytes: u64) -> Result<(), Error> {
    state.consume_fuel(bytes.div_ceil(BYTES_PER_FUEL))
}

#[cfg(test)]
mod tests {
    use minijinja::context;

    use super::*;

    fn environment() -> Environment<'static> {
        let mut environment = Environment::new();
        add(&mut environment);
        environment
    }

    fn checked(template: &str) -> Result<(), String> {
        check(&environment(), template)
    }

    #[test]
    fn filters_that_an_error_lists_are_all_that_exist() {
        let debug = format!("{:?}", environment());
        let (_, filters) = debug.split_once("filters: [").unwrap();
        let (filters, _) = filters.split_once(']').unwrap();
        let existing: Vec<&str> = filters.split(", ").map(|name| name.trim_matches('"')).collect();
        let mut listed = [&OWN[..], &BUILTIN[..]].concat();
        listed.sort_unstable();
        assert_eq!(listed, existing);
    }

    #[test]
    fn known_filters_pass_wherever_a_template_uses_them() {
        for template in [
            "{{ a | upper|striptags | markdown }}{% if b | length > 1 %}{{ b | truncate(10) | join }}{% endif %}",
            "{% filter upper | trim %}x{% endfilter %}{% set t | lower %}X{% endset %}",
            "{{ '| nothing' }}{# a | nothing #}{% raw %}{{ a | nothing }}{% endraw %} | nothing {{ \"\\\" | nothing\" }}",
            "{{ at | date }}{{ at | date('%d.%m.%Y') }}{{ at | date(format=\"%H\") }}{{ at | date(f) }}{{ at | date('%Q' ~ f) }}",
        ] {
            assert_eq!(checked(template), Ok(()), "{template}");
        }
    }

    #[test]
    fn unknown_filter_is_named_and_known_ones_are_listed() {
        for template in [
            "{{ a | nothing }}",
            "{% if a %}{{ b | upper | nothing(1) }}{% endif %}",
            "{% filter nothing %}x{% endfilter %}",
            "{% set a | nothing %}x{% endset %}",
            "{%- for x in y|nothing -%}{% endfor %}",
        ] {
            let error = checked(template).unwrap_err();
            assert!(error.starts_with("unknown filter \"nothing\": expected one of abs, "), "{template}: {error}");
            for name in OWN {
                assert!(error.contains(name), "{error}");
            }
        }
        assert!(checked("{{ a | str.nothing }}").unwrap_err().contains("\"str.nothing\""));
    }

    #[test]
    fn unsupported_directive_in_a_literal_format_is_found_at_start() {
        for template in
            ["{{ at | date('%Q') }}", "{{ at | date(format='%Y-%Q') }}", "{% filter date(\"%Q\") %}{% endfilter %}"]
        {
            let error = checked(template).unwrap_err();
            assert!(error.contains("unsupported directive \"%Q\""), "{template}: {error}");
        }
    }

    #[test]
    fn arguments_are_positional_or_named() {
        let environment = environment();
        for (template, expected) in [
            ("{{ text | truncate(8) }}", "foo bar…"),
            ("{{ text | truncate(length=9, end='...') }}", "foo..."),
            ("{{ text | truncate(9, true, '...') }}", "foo ba..."),
            ("{{ text | truncate(9, killwords=true, end='...') }}", "foo ba..."),
            ("{{ text | truncate(11, leeway=5) }}", "foo bar baz qux"),
            ("{{ text | truncate }}", "foo bar baz qux"),
            ("{{ missing | truncate(3) }}{{ none | date }}{{ missing.at | date('%Q') }}", ""),
            ("{{ 12345 | truncate(3) }}", "12…"),
            ("{{ at | date }} {{ at | date('%H:%M') }} {{ at | date(format='%d %b') }}", "2024-03-01 09:05 01 Mar"),
            ("{{ html | striptags }}", "one & two\nthree"),
            ("{{ md | markdown }}", "Title\none two"),
            ("{{ items | map(attribute='html') | map('striptags') | join('; ') }}", "a; b"),
            ("{{ items | join(', ', attribute='html') | striptags }}", "a, b"),
        ] {
            let context = context! {
                text => "foo bar baz qux",
                at => "2024-03-01T09:05:00.5Z",
                html => "<p>one &amp; <b>two</b></p><p>three",
                md => "# Title\n\none [two](x)",
                items => vec![context! { html => "<b>a</b>" }, context! { html => "<b>b</b>" }],
            };
            let mut environment = environment.clone();
            environment.set_undefined_behavior(minijinja::UndefinedBehavior::Chainable);
            assert_eq!(environment.render_str(template, context).unwrap(), expected, "{template}");
        }
    }

    #[test]
    fn invalid_arguments_are_errors_that_name_the_filter() {
        let environment = environment();
        for (template, expected) in [
            ("{{ [1] | striptags }}", "striptags: invalid value: expected a text, found sequence"),
            ("{{ {} | markdown }}", "markdown: invalid value: expected a text, found map"),
            ("{{ 'text' | truncate(2, end='...') }}", "truncate: invalid length 2"),
            ("{{ 'text' | truncate(2, width=3) }}", "width"),
            ("{{ 'yesterday' | date }}", "date: invalid date \"yesterday\": expected RFC 3339"),
            ("{{ '2024-03-01' | date('%' ~ 'Q') }}", "date: unsupported directive \"%Q\""),
        ] {
            let error = environment.render_str(template, ()).unwrap_err().to_string();
            assert!(error.contains(expected), "{template}: {error}");
        }
    }
}
