//! Patterns on texts, with the results of PCRE.

use super::*;

fn occurs(source: &str, options: &str, text: &str) -> bool {
    Pattern::new(source, options).unwrap_or_else(|error| panic!("{source}: {error}")).regex.is_match(text)
}

#[test]
fn classes_and_boundaries_are_ascii() {
    for (source, options, text, wanted) in [
        (r"^\w$", "", "ß", false),
        (r"^\w$", "i", "\u{17F}", false),
        (r"^\W$", "i", "\u{212A}", true),
        (r"^\d$", "", "٣", false),
        (r"^\s$", "", "\u{A0}", false),
        (r"^\s$", "", "\u{B}", true),
        (r"\ba", "", "ßa", true),
        (r"^[\w.]+$", "", "a.b_1", true),
        (r"^[^\d]$", "", "٣", true),
        (r"^[\S]$", "", "\u{A0}", true),
        ("^k$", "i", "\u{212A}", true),
    ] {
        assert_eq!(occurs(source, options, text), wanted, "{source} {options} {text:?}");
    }
}

#[test]
fn anchors_follow_pcre() {
    for (source, options, text, wanted) in [
        ("a$", "", "a\n", true),
        ("a$", "", "a\n\n", false),
        ("a$", "", "a\nb", false),
        ("a$", "m", "a\nb", true),
        ("^(?:a|b$)", "", "b\n", true),
        (r"a\z", "", "a\n", false),
        ("^b", "", "a\nb", false),
        ("^b", "m", "a\nb", true),
        ("a.b", "", "a\nb", false),
        ("a.b", "s", "a\nb", true),
        ("a.b", "", "a\rb", true),
    ] {
        assert_eq!(occurs(source, options, text), wanted, "{source} {options} {text:?}");
    }
}

#[test]
fn characters_special_to_regex_only_are_literal() {
    for (source, options, text, wanted) in [
        (r"^\<a\>$", "", "<a>", true),
        ("^[a&&b]$", "", "&", true),
        ("^[[a]$", "", "[", true),
        ("^[]a]$", "", "]", true),
        ("^[^]a]$", "", "b", true),
        ("^[a-]$", "", "-", true),
        ("^[a~~b]$", "", "~", true),
        ("^}]$", "", "}]", true),
        ("a b # comment\n c", "x", "abc", true),
        (r"a\ b", "x", "a b", true),
        ("[ ]", "x", " ", true),
        ("(?i)A(?<name>b)", "", "ab", true),
        (r"^\x41\x{1F600}$", "", "A\u{1F600}", true),
    ] {
        assert_eq!(occurs(source, options, text), wanted, "{source} {options} {text:?}");
    }
}

#[test]
fn unsupported_constructs_are_rejected_by_name() {
    for (source, options, name) in [
        ("a", "u", "'u'"),
        ("(?=a)", "", "(?=a"),
        ("(?<!a)b", "", "(?<!"),
        ("(?>a)", "", "(?>a"),
        ("a(?i)b", "", "(?i)"),
        ("(?<n>a)(?<n>b)", "", "duplicate"),
        ("(*UTF8)a", "", "(*"),
        (r"(a)\1", "", r"\1"),
        (r"\p{L}", "", r"\p"),
        (r"a\Z", "", r"\Z"),
        (r"\Bx", "", r"\B"),
        (r"\Qa\E", "", r"\Q"),
        ("a*+", "", "*+"),
        ("a**", "", "*"),
        ("a{,2}", "", "{"),
        ("[[:alpha:]]", "", "[:"),
        (r"[\w.]", "i", r"\w"),
        ("[a-c-e]", "", "-"),
        ("a#b", "x", "comment"),
        ("a$b", "", "$"),
        ("(a$)b", "", "$"),
        ("(a$)*", "", "$"),
        ("^$", "m", "^"),
        ("^a*", "m", "^"),
        ("^(a)", "m", "^"),
        ("(a", "", "unclosed"),
        ("a)", "", "unopened"),
        ("[b-a]", "", "range"),
        (r"a\", "", "backslash"),
    ] {
        let error = Pattern::new(source, options).map(|_| source).expect_err(source);
        assert!(error.contains(name), "{source}: {error}");
    }
}
