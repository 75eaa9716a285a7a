//! The OpenAPI documents in `docs/reference/openapi`.

use std::collections::BTreeSet;
use std::path::Path;

/// Returns the operations of a document by method and path: `GET /health`. Below `paths`, a path is a line indented by two spaces, and a
/// method a line indented by four.
///
/// # Panics
/// If the document is missing, or a line with one of these indentations has more than a key.
#[must_use]
pub fn operations(name: &str) -> BTreeSet<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/openapi").join(name);
    let document = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let paths = document.lines().skip_while(|line| *line != "paths:").skip(1).take_while(|line| line.starts_with(' '));
    let key = |line: &str| {
        let key = line.trim().strip_suffix(':').unwrap_or_else(|| panic!("{name}: {line}: expected a key"));
        key.to_owned()
    };
    let (mut path, mut found) = (String::new(), BTreeSet::new());
    for line in paths {
        match line.len() - line.trim_start().len() {
            2 => path = key(line),
            4 => assert!(found.insert(format!("{} {path}", key(line).to_uppercase())), "{name}: {line}: repeated"),
            _ => {}
        }
    }
    found
}
