//! Redacts everything in a command's output that differs between two runs, and nothing else.
//!
//! Columns keep their width, so that snapshots show the alignment of tables.

use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::Value;

/// Patterns and their replacements.
static RULES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let rules = [
        (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
        (r"redis-cli -p \d+", "redis-cli -p PORT"),
        (r"\bon port \d+", "on port PORT"),
        // Entries of streams and dead letters.
        (r"\b1[5-9]\d{11}-\d+", "1700000000000-0"),
        // Versions and cluster times.
        (r"\b\d+\.1[5-9]\d{8}(\.\d+){2,3}", "0.1700000000.1.0"),
        (r"\b1[5-9]\d{8}\.\d+", "1700000000.1"),
        (r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "2026-01-01T00:00:00Z"),
        (r"\b\d\d:\d\d:\d\dZ", "00:00:00Z"),
        // Processes: host, pid, and a random part.
        (r"\b[\w.-]+?-\d+-[0-9a-f]{8}\b", "HOST-PID-RANDOM"),
        // Ids of installations.
        (r"(installation\s+)[0-9a-f]{32}\b", "${1}00000000000000000000000000000000"),
        // Until Qdrant has optimised the newest points.
        (r"\byellow\b", "green"),
        // The size of a batch varies.
        (r"failed to (read|write) \d+ points", "failed to $1 N points"),
        // On a busy machine an entry may be claimed, and so delivered again.
        (r"\bdelivered (once|\d+ times)", "delivered N times"),
        (r"[\d.,]+ (KiB|MiB|GiB)", "N MiB"),
        (r"[\d,]+ embedded, [\d,]+ saved", "N embedded, N saved"),
    ];
    rules.into_iter().map(|(rule, text)| (Regex::new(rule).expect("a valid pattern"), text)).collect()
});

/// Durations and rates.
static AMOUNTS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"( *)(\b\d[\d.,]*)( (?:ms|s|min|h|d|days)\b|/s\b| documents/s| tokens/s)").expect("a pattern")
});

/// Redacts text output.
pub(super) fn text(text: &str) -> String {
    let mut text = text.to_owned();
    for (rule, instead) in RULES.iter() {
        text = rule.replace_all(&text, *instead).into_owned();
    }
    // The latency is only shown if a change became searchable within the last minute.
    let lines = text.split('\n').filter(|line| !LATENCY.is_match(line));
    lines.map(line).collect::<Vec<_>>().join("\n")
}

fn line(line: &str) -> String {
    if line.starts_with('│') {
        // Box borders keep their columns.
        let cells = line.split('│').map(|cell| {
            let width = cell.chars().count();
            format!("{:width$}", AMOUNTS.replace_all(cell, |found: &Captures<'_>| amount(found, false)))
        });
        return cells.collect::<Vec<_>>().join("│");
    }
    // Right-aligned columns.
    let table = GAPS.find_iter(line.trim_start()).count() > 2;
    AMOUNTS.replace_all(line, |found: &Captures<'_>| amount(found, table)).into_owned()
}

static LATENCY: LazyLock<Regex> = LazyLock::new(|| Regex::new("^(‹1›)?latency(‹0›)?  ").expect("a pattern"));

static GAPS: LazyLock<Regex> = LazyLock::new(|| Regex::new("  +").expect("a pattern"));

fn amount(found: &Captures<'_>, table: bool) -> String {
    let unit = if found[3].contains("/s") { &found[3] } else { " s" };
    let (short, whole) = (format!("N{unit}"), found[0].chars().count());
    if table && found[1].len() > 1 { format!("{short:>whole$}") } else { format!("{}{short}", &found[1]) }
}

/// Suffixes of fields whose numbers differ.
const NUMBERS: [&str; 15] = [
    "deliveries",
    "_ms",
    "_at",
    "seconds",
    "per_second",
    "_bytes",
    "embedded",
    "saved",
    "tokens",
    "appended",
    "length",
    "read_until",
    "searchable_until",
    "changes",
    "points",
];

/// Redacts JSON output.
pub(super) fn json(value: &Value) -> Value {
    field("", value)
}

fn field(name: &str, value: &Value) -> Value {
    match value {
        Value::Object(_) | Value::Null if name == "latency" => "N".into(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), field(name, value))).collect(),
        Value::Array(values) => values.iter().map(|value| field(name, value)).collect(),
        // Derived from the document's version, which includes the time.
        Value::String(_) if name == "trace_id" => "TRACE".into(),
        Value::String(string) => text(string).into(),
        // Two digits: the last digits differ between CPUs.
        Value::Number(number) if name == "score" => {
            ((number.as_f64().unwrap_or_default() * 100.0).round() / 100.0).into()
        }
        Value::Number(_) | Value::Null if NUMBERS.iter().any(|end| name.ends_with(end)) => "N".into(),
        other => other.clone(),
    }
}

/// Redacts coloured output, with colours as text: `‹32›` starts green, `‹0›` resets.
pub(super) fn colours(painted: &str) -> String {
    text(&SGR.replace_all(painted, "‹$1›").replace("‹›", "‹0›"))
}

/// Removes colours.
pub(super) fn plain(text: &str) -> String {
    SGR.replace_all(text, "").into_owned()
}

static SGR: LazyLock<Regex> = LazyLock::new(|| Regex::new("\x1b\\[([0-9;]*)m").expect("a pattern"));

#[test]
fn redaction_keeps_constant_text_and_column_widths() {
    assert_eq!(text("seen        12.5 s ago"), "seen        N s ago");
    assert_eq!(text("raw     7-0     12.5 s   7     x"), "raw     7-0        N s   7     x");
    assert_eq!(text("│80/s in  12 min left │"), "│N/s in  N s left     │");
    assert_eq!(text("after 250 ms, 3 of 7 (1830 documents/s)"), "after N s, 3 of 7 (N documents/s)");
    assert_eq!(text("letter 1763842213007-12 at 0.1763842213.7.1"), "letter 1700000000000-0 at 0.1700000000.1.0");
    assert_eq!(text("by upserter-my-host-42-0123abcd: 5"), "by HOST-PID-RANDOM: 5");
    assert_eq!(plain("\x1b[32mall\x1b[0m \x1b[1;31mwell\x1b[m"), "all well");
    assert_eq!(colours("\x1b[2m10:11:12Z\x1b[0m"), "‹2›00:00:00Z‹0›");
}
