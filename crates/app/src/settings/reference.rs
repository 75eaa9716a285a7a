//! The settings reference of the documentation. Generated from [`KEYS`], [`INDEX_KEYS`] and the example file, so that all stay
//! complete.

use std::fmt::Write as _;
use std::path::Path;

use super::EXAMPLE;
use super::keys::{INDEX_KEYS, KEYS, Key};

const HEAD: &str = "\
# Settings reference

<!-- Generated from tidewheel.example.toml and the list of keys. Regenerate: UPDATE=1 cargo test -p tidewheel settings::reference -->

Every setting with its type and default. [Configure](index.md) explains where values come from, and the notation of lists, durations
and sizes. The environment variable of a setting is `TIDEWHEEL__` and its name in capitals, with two underscores for each dot:
`TIDEWHEEL__MONGODB__URI`. `tidewheel config show` prints the values in effect; `tidewheel config example` prints this reference as
a settings file.
";

/// A table of the example file.
struct Table<'a> {
    /// Its header, without the outer brackets.
    name: &'a str,
    introduction: Vec<&'a str>,
    blocks: Vec<Block<'a>>,
}

/// Settings with a common description.
#[derive(Default)]
struct Block<'a> {
    description: Vec<&'a str>,
    /// Name within the table, and the value in the example.
    settings: Vec<(&'a str, &'a str)>,
}

/// `key = value` of a commented-out setting.
fn setting(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.strip_prefix('#')?.split_once(" = ")?;
    let valid = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "_.".contains(letter);
    (!name.is_empty() && name.chars().all(valid)).then_some((name, value))
}

fn tables(example: &str) -> Vec<Table<'_>> {
    let mut tables: Vec<Table<'_>> = Vec::new();
    let mut block = Block::default();
    // The empty line at the end completes the last block.
    for line in example.lines().chain([""]) {
        // The example declares no index.
        let header = line.strip_prefix("#[").filter(|rest| rest.starts_with('[')).or_else(|| line.strip_prefix('['));
        if let Some(name) = header.and_then(|rest| rest.strip_suffix(']')) {
            let introduction = std::mem::take(&mut block).description;
            tables.push(Table { name, introduction, blocks: Vec::new() });
        } else if line.is_empty() || line.starts_with("# ---") {
            let complete = std::mem::take(&mut block);
            if let Some(table) = tables.last_mut().filter(|_| !complete.settings.is_empty()) {
                table.blocks.push(complete);
            }
        } else if let Some(found) = setting(line) {
            block.settings.push(found);
        } else {
            block.description.push(line.trim_start_matches('#'));
        }
    }
    tables
}

/// Comment lines as Markdown. Lines with three leading spaces are code; the other lines are prose.
fn markdown(lines: &[&str]) -> String {
    let mut text = String::new();
    let mut code = false;
    for line in lines {
        if line.starts_with("   ") != code {
            text.push_str("```\n");
            code = !code;
        }
        if code {
            text.push_str(line);
        } else {
            // Outside of `code` spans nothing is markup.
            for (i, part) in line.trim().split('`').enumerate() {
                if i > 0 {
                    text.push('`');
                }
                if i % 2 == 0 {
                    text.push_str(&part.replace('*', "\\*").replace('_', "\\_").replace('<', "&lt;"));
                } else {
                    text.push_str(part);
                }
            }
        }
        text.push('\n');
    }
    if code {
        text.push_str("```\n");
    }
    text
}

impl Table<'_> {
    /// The name of a setting: relative to `[[index]]`, else with the table.
    fn full(&self, name: &str) -> String {
        if self.name == INDEX { name.to_owned() } else { format!("{}.{name}", self.name) }
    }

    fn key(&self, name: &str) -> &'static Key {
        let keys = if self.name == INDEX { INDEX_KEYS } else { KEYS };
        let full = self.full(name);
        let key = keys.iter().find(|key| key.name == full);
        key.unwrap_or_else(|| panic!("{full} is in the example, but is not a key"))
    }
}

/// The header of `[[index]]`.
const INDEX: &str = "[index]";

/// Keys of `[[index]]` without a default that must be set.
const REQUIRED: [&str; 2] = ["name", "source"];

fn page() -> String {
    let mut page = HEAD.to_owned();
    for table in tables(EXAMPLE) {
        let _ = write!(page, "\n## `[{}]`\n", table.name);
        if !table.introduction.is_empty() {
            let _ = write!(page, "\n{}", markdown(&table.introduction));
        }
        for block in &table.blocks {
            let names: Vec<String> = block.settings.iter().map(|(name, _)| format!("`{}`", table.full(name))).collect();
            let _ = write!(page, "\n### {}\n\n", names.join(", "));
            if !block.description.is_empty() {
                let _ = writeln!(page, "{}", markdown(&block.description));
            }
            page.push_str("| setting | value | default |\n|---|---|---|\n");
            for (name, value) in &block.settings {
                let key = table.key(name);
                let default = match key.default {
                    Some(_) => "",
                    None if table.name == INDEX && REQUIRED.contains(name) => "required, for example ",
                    None => "unset, for example ",
                };
                let _ = writeln!(page, "| `{}` | {} | {default}`{value}` |", table.full(name), key.kind.expected());
            }
        }
    }
    page
}

#[test]
fn settings_reference_lists_every_key_and_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configure/reference.md");
    let page = page();
    for key in KEYS.iter().chain(INDEX_KEYS) {
        assert!(page.contains(&format!("\n| `{}` | ", key.name)), "{} is missing", key.name);
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let current = std::fs::read_to_string(&path).unwrap();
    assert!(current == page, "docs/configure/reference.md is stale: run this test with UPDATE=1");
}
