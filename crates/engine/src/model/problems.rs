//! Collects a model's unsupported settings, so that one message names them all.

use serde_json::Value;

/// The problems found so far.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<String>);

impl Problems {
    /// Adds a setting with an unsupported value.
    pub(super) fn value(&mut self, file: &str, key: &str, value: &Value, supported: &str) {
        self.0.push(format!("{file} has {key} {} (supported: {supported})", shown(value)));
    }

    /// Adds any other problem.
    pub(super) fn other(&mut self, problem: String) {
        self.0.push(problem);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_vec(self) -> Vec<String> {
        self.0
    }
}

/// Formats a value as JSON, truncated if long.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 120;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Whether a value is `null`, `false`, or an empty string, array or object.
pub(super) fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(table) => table.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Problems, is_unset};

    #[test]
    fn problem_names_file_key_value_and_supported_values() {
        let mut problems = Problems::default();
        problems.value("config.json", "model_type", &json!("t5"), "bert");
        problems.value("config.json", "auto_map", &json!("x".repeat(500)), "none");
        let found = problems.into_vec();
        assert_eq!(found[0], "config.json has model_type \"t5\" (supported: bert)");
        assert!(found[1].len() < 200, "{}", found[1]);
    }

    #[test]
    fn empty_and_false_values_count_as_unset() {
        for unset in [json!(null), json!(false), json!(""), json!([]), json!({})] {
            assert!(is_unset(&unset), "{unset}");
        }
        for set in [json!(true), json!(0), json!("a"), json!([0]), json!({"a": null})] {
            assert!(!is_unset(&set), "{set}");
        }
    }
}
