//! Reasons to refuse a submission.

use std::collections::BTreeSet;

use super::{ApplyOptions, Refusal};
use crate::catalog::declaration::Declaration;
use crate::catalog::generation::{Catalog, Generation};
use crate::catalog::name::{IndexName, TargetId};
use crate::catalog::parts::{Difference, Part};

/// What is wrong with these declarations as a whole.
pub(super) fn refusals(catalog: &Catalog, declared: &[Declaration], options: &ApplyOptions) -> Vec<Refusal> {
    let mut refused = Vec::new();
    let mut names = BTreeSet::new();
    for declaration in declared {
        if !names.insert(&declaration.name) {
            refused.push(declared_twice(&declaration.name));
        }
    }
    let known = |name: &IndexName| names.contains(name) || catalog.indexes.contains_key(name);
    for name in names.iter().copied() {
        let owner = name.as_str().parse::<TargetId>().ok().map(|target| target.index).filter(|owner| known(owner));
        if let Some(owner) = owner {
            refused.push(name_of_collection(name, &owner));
        } else if !catalog.indexes.contains_key(name) && options.collections.contains(name.as_str()) {
            refused.push(collection_exists(name));
        } else if !catalog.indexes.contains_key(name)
            && let Some(collection) = options.aliases.get(name.as_str()).filter(|named| !is_of(name, named))
        {
            refused.push(alias_exists(name, collection));
        }
    }
    refused.extend(options.only.iter().filter(|&name| !known(name)).map(unknown_index));
    refused
}

/// Whether a collection has the name of a generation of the index.
fn is_of(name: &IndexName, collection: &str) -> bool {
    collection.parse::<TargetId>().is_ok_and(|target| target.index == *name)
}

/// Both generations need the embedding of one name, and it cannot serve both models.
pub(super) fn replaced_embedding(
    wanted: &Declaration,
    serving: u32,
    generation: &Generation,
    difference: &Difference,
) -> Option<Refusal> {
    let before = &generation.declaration.embedding;
    let name = &before.name;
    let decides = before.url.is_some() || before.is_nameless();
    let is_replaced = difference.has(Part::Embedding) && decides && *name == wanted.embedding.name;
    is_replaced.then(|| Refusal {
        index: Some(wanted.name.clone()),
        reason: format!("embedding {name:?} is replaced while generation {serving} needs it"),
        hint: format!(
            "declare the new model under another name, and keep {name:?} until generation {serving} is deleted"
        ),
    })
}

pub(super) fn unknown_index(name: &IndexName) -> Refusal {
    Refusal {
        index: Some(name.clone()),
        reason: format!("unknown index \"{name}\""),
        hint: "name a declared index".to_owned(),
    }
}

pub(super) fn is_switching(name: &IndexName, to: u32) -> Refusal {
    Refusal {
        index: Some(name.clone()),
        reason: format!("index \"{name}\" is switching to generation {to}"),
        hint: "run the command again after the switch".to_owned(),
    }
}

pub(super) fn is_being_deleted(name: &IndexName) -> Refusal {
    Refusal {
        index: Some(name.clone()),
        reason: format!("index \"{name}\" was dropped, and its collection is being deleted"),
        hint: "run the command again after that".to_owned(),
    }
}

pub(super) fn is_being_filled(name: &IndexName, number: u32) -> Refusal {
    Refusal {
        index: Some(name.clone()),
        reason: format!("generation {number} of index \"{name}\" is being filled"),
        hint: "run the command again after that".to_owned(),
    }
}

pub(super) fn has_no_kept_generation(name: &IndexName) -> Refusal {
    Refusal {
        index: Some(name.clone()),
        reason: format!("index \"{name}\" has no kept generation"),
        hint: "declare what the index was before".to_owned(),
    }
}

pub(super) fn differs_in_more(name: &IndexName, number: u32, differing: u64, accepted: u64) -> Refusal {
    Refusal {
        index: Some(name.clone()),
        reason: format!(
            "generation {number} differs from the source in {differing} documents, not in {accepted} or fewer"
        ),
        hint: format!("retry its dead letters, or accept {differing} missing documents"),
    }
}

fn declared_twice(name: &IndexName) -> Refusal {
    Refusal {
        index: Some(name.clone()),
        reason: format!("index \"{name}\" is declared twice"),
        hint: "rename or remove one of the declarations".to_owned(),
    }
}

fn name_of_collection(name: &IndexName, owner: &IndexName) -> Refusal {
    Refusal {
        index: Some(name.clone()),
        reason: format!("invalid index name \"{name}\": collections of index \"{owner}\" have such names"),
        hint: "choose another name".to_owned(),
    }
}

fn collection_exists(name: &IndexName) -> Refusal {
    Refusal {
        index: Some(name.clone()),
        reason: format!("collection \"{name}\" exists, so that the index cannot have an alias of this name"),
        hint: "choose another name, or delete the collection".to_owned(),
    }
}

fn alias_exists(name: &IndexName, collection: &str) -> Refusal {
    Refusal {
        index: Some(name.clone()),
        reason: format!("\"{name}\" is an alias of collection \"{collection}\", which the index does not own"),
        hint: "choose another name, or delete the alias".to_owned(),
    }
}
