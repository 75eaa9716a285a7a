//! Tests, files and pages that the documentation names exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files below a directory with this extension.
fn files(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|has| has == extension) {
            found.push(path);
        }
    }
}

/// Spans of code in a text: every second part between backticks.
fn spans(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn guarantees_page_names_existing_tests_and_files() {
    let mut sources = Vec::new();
    files(&root().join("crates"), "rs", &mut sources);
    let functions: BTreeSet<String> = sources
        .iter()
        .flat_map(|path| read(path).lines().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|line| Some(line.split_once("fn ")?.1.split('(').next()?.to_owned()))
        .collect();
    let page = read(&root().join("docs/guarantees.md"));
    let is_test = |name: &str| {
        let letters = |sign: char| sign.is_ascii_lowercase() || sign.is_ascii_digit() || sign == '_';
        name.chars().all(letters) && name.matches('_').count() >= 3
    };
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ")).collect();
    let named: Vec<&str> = rows.iter().flat_map(|row| spans(row)).filter(|name| is_test(name)).collect();
    assert!(named.len() > 100, "{} tests are named", named.len());
    let missing: Vec<&&str> = named.iter().filter(|name| !functions.contains(**name)).collect();
    assert!(missing.is_empty(), "docs/guarantees.md names missing tests: {missing:#?}");

    let in_rows = rows.iter().flat_map(|row| row.split(|sign: char| sign.is_whitespace() || "();,`".contains(sign)));
    let missing: Vec<&str> = in_rows
        .filter(|word| word.ends_with(".rs") && word.contains('/'))
        .filter(|path| !root().join("crates").join(path).exists() && !root().join(path).exists())
        .collect();
    assert!(missing.is_empty(), "docs/guarantees.md names missing files: {missing:#?}");
}

#[test]
fn architecture_names_existing_files() {
    let crates = root().join("crates");
    let page = read(&root().join("ARCHITECTURE.md"));
    let mut missing = Vec::new();
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        // A file name alone is beside the previous path of its row.
        let mut beside = PathBuf::new();
        for path in spans(row) {
            let is_path = path.ends_with('/') || path.ends_with(".rs") || path.ends_with(".lua");
            if !is_path || path.contains(' ') {
                continue;
            }
            let places =
                [crates.join(path), crates.join(&beside).join(path), crates.join("stores/src/redis").join(path)];
            if !places.iter().any(|place| place.exists()) {
                missing.push(path);
            }
            if path.contains('/') {
                let directory = if path.ends_with('/') { Some(Path::new(path)) } else { Path::new(path).parent() };
                let lua = path.starts_with("lua/");
                beside =
                    if lua { PathBuf::from("stores/src/redis/lua") } else { directory.unwrap_or(Path::new("")).into() };
            }
        }
    }
    assert!(missing.is_empty(), "ARCHITECTURE.md names missing files: {missing:#?}");
}

#[test]
fn links_between_pages_lead_to_existing_files() {
    let mut pages = Vec::new();
    files(&root().join("docs"), "md", &mut pages);
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "STYLE.md"] {
        pages.push(root().join(name));
    }
    let mut missing = Vec::new();
    for page in &pages {
        let text = read(page);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || target.contains("://") || target.contains(' ') {
                continue;
            }
            if !page.parent().is_some_and(|directory| directory.join(path).exists()) {
                missing.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(pages.len() > 30 && missing.is_empty(), "{missing:#?}");
}
