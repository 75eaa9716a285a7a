//! What is declared: three indexes over two databases, and the variants of each.

use std::fmt::Write as _;

use crate::soak::SoakOptions;
use crate::soak::documents::{COLLECTIONS, DATABASE, FOREIGN, MOVED, SECOND_DATABASE};

/// The names of the indexes.
pub(in crate::soak) const NAMES: [&str; 3] = ["all", "open", "things"];
/// The index of everything in the first database, also of what MongoDB's own library cannot decode.
pub(in crate::soak) const EVERYTHING: usize = 0;
/// The index with a filter.
pub(super) const FILTERED: usize = 1;

/// Names and dimensions of the models.
pub(super) const MODELS: [(&str, usize); 3] = [("default", SoakOptions::DIMENSION), ("small", 32), ("large", 96)];

/// Each has the fields that decide whether a document can be embedded.
pub(super) const TEXTS: [&str; 4] = [
    r#"text.template = "{{ subject }}\n{{ content }}"
chunk = { tokens = 24, overlap = 6 }"#,
    r#"text.template = "{{ subject }}: {{ content }}"
chunk = { tokens = 24, overlap = 6, prefix = "{{ subject }}" }"#,
    r#"text.template = "{{ content }}\n{{ subject }} {{ customer.name }}"
chunk = { tokens = 40, overlap = 0 }"#,
    r#"text.template = "{{ content }} {{ subject }}"
text.blank = "skip"
chunk = { tokens = 30, overlap = 10 }"#,
];

/// None of them leaves out what decides whether a document can be stored.
pub(super) const PAYLOADS: [&str; 4] = [
    "",
    r#"payload.exclude = ["customer.tiers"]
payload.indexes = { serial = "integer" }"#,
    r#"payload.exclude = ["blob", "date"]
payload.rename = { "customer.name" = "client" }"#,
    r#"payload.indexes = { serial = "integer", status = "keyword" }
qdrant.on_disk_payload = true"#,
];

pub(super) const FILTERS: [&str; 3] = [
    r#"filter = { status = { "$ne" = "draft" } }"#,
    r#"filter = { status = { "$in" = ["open", "urgent"] } }"#,
    r#"filter = { "$or" = [{ status = "open" }, { serial = { "$mod" = [3, 0] } }] }"#,
];

/// One declaration of an index, by the places of its parts in the lists above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) text: usize,
    pub(super) payload: usize,
    pub(super) filter: usize,
    pub(super) model: usize,
}

/// The declared indexes, in the order of [`NAMES`]. `None`: dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::soak) struct Declarations(pub(super) [Option<Variant>; NAMES.len()]);

impl Declarations {
    /// Those with which the services start.
    pub(in crate::soak) fn first() -> Self {
        Self([Some(Variant::default()); NAMES.len()])
    }

    /// The declared indexes by name, each with the dimension of its vectors.
    pub(in crate::soak) fn indexes(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let of = |(name, variant): (&'static str, Option<Variant>)| Some((name, MODELS[variant?.model].1));
        NAMES.into_iter().zip(self.0).filter_map(of)
    }

    /// The part of the settings that declares the models and the indexes. It has to be the last one.
    pub(in crate::soak) fn settings(&self) -> String {
        let mut settings = String::new();
        // `[embedding]` itself is the model "default".
        for (name, dimension) in MODELS.into_iter().skip(1) {
            let _ = writeln!(settings, "embedding.{name}.model = \"hash:{dimension}\"");
        }
        for (place, variant) in self.0.into_iter().enumerate() {
            if let Some(variant) = variant {
                settings.push_str(&index(place, variant));
            }
        }
        settings
    }
}

/// One `[[index]]`. A generation is kept for as short as possible, so that some are dropped within a run.
fn index(place: usize, variant: Variant) -> String {
    let Variant { text, payload, filter, model } = variant;
    let filter = if place == FILTERED { FILTERS[filter] } else { "" };
    format!(
        "\n[[index]]\nname = {:?}\nsource = {:?}\n{filter}\n{}\n{}\nembedding = {:?}\nkeep = \"1m\"\n",
        NAMES[place],
        source(place),
        TEXTS[text],
        PAYLOADS[payload],
        MODELS[model].0,
    )
}

/// Two collections feed two indexes each.
fn source(place: usize) -> Vec<String> {
    match place {
        EVERYTHING => vec![format!("{DATABASE}.*"), format!("!{DATABASE}.{FOREIGN}")],
        FILTERED => vec![format!("{DATABASE}.{}", COLLECTIONS[0]), format!("{SECOND_DATABASE}.{}", COLLECTIONS[MOVED])],
        _ => vec![format!("{SECOND_DATABASE}.*")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Declared;

    #[test]
    fn oracle_supports_every_variant() {
        let most = TEXTS.len().max(PAYLOADS.len());
        for at in 0..most {
            let variant = Variant {
                text: at % TEXTS.len(),
                payload: at % PAYLOADS.len(),
                filter: at % FILTERS.len(),
                model: at % MODELS.len(),
            };
            let settings = Declarations([Some(variant), Some(variant), None]).settings();
            let declared = Declared::all(&settings).unwrap_or_else(|error| panic!("{error}: {settings}"));
            assert_eq!(declared.iter().map(Declared::name).collect::<Vec<_>>(), ["all", "open"], "{settings}");
        }
    }

    #[test]
    fn indexes_have_the_dimension_of_their_model() {
        let mut declarations = Declarations::first();
        declarations.0[1] = None;
        declarations.0[2] = Some(Variant { model: 2, ..Variant::default() });
        assert_eq!(declarations.indexes().collect::<Vec<_>>(), [("all", 64), ("things", 96)]);
    }
}
