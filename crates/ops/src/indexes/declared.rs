//! Compares declarations with what was applied, without I/O.

use std::collections::BTreeMap;

use tidewheel_core::catalog::{Catalog, Declaration, Index, IndexName, State};

use crate::overview::Declared;

/// Compares each index. A new generation counts as applied from its submission on, and an index that was never applied as
/// different.
pub fn declared(catalog: &Catalog, declarations: &[Declaration]) -> BTreeMap<IndexName, Declared> {
    let mut found = BTreeMap::new();
    for (name, index) in &catalog.indexes {
        if let Some(applied) = intended(index) {
            let declaration = declarations.iter().find(|declaration| declaration.name == *name);
            let declared = match declaration.map(|declaration| declaration.difference(applied).is_empty()) {
                Some(true) => Declared::Applied,
                Some(false) => Declared::Differs,
                None => Declared::Absent,
            };
            found.insert(name.clone(), declared);
        }
    }
    for declaration in declarations {
        found.entry(declaration.name.clone()).or_insert(Declared::Differs);
    }
    found
}

/// The declaration to which an index is to conform; `None` for one that is being dropped.
pub(crate) fn intended(index: &Index) -> Option<&Declaration> {
    let is_coming = |state| matches!(state, State::Creating | State::Filling | State::Comparing | State::Ready);
    let coming = || index.generations.iter().rev().find(|(_, generation)| is_coming(generation.state));
    let switching = index.switching.map(|switch| switch.to);
    let number = switching.or_else(|| coming().map(|(number, _)| *number)).or(index.serving)?;
    index.generations.get(&number).map(|generation| &*generation.declaration)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidewheel_core::catalog::{Generation, Switch};

    use super::*;
    use crate::samples::{catalog, declaration, index, target};

    fn changed() -> Declaration {
        let mut changed = declaration("tickets");
        changed.payload.full = true;
        changed
    }

    #[test]
    fn each_index_is_compared() {
        let catalog = catalog(7, &[("notes", State::Serving), ("tickets", State::Serving)]);
        let found = declared(&catalog, &[changed(), declaration("users")]);
        let found: Vec<_> = found.iter().map(|(name, declared)| (name.as_str(), *declared)).collect();
        let expected = [("notes", Declared::Absent), ("tickets", Declared::Differs), ("users", Declared::Differs)];
        assert_eq!(found, expected);
        let equal = declared(&catalog, &[declaration("notes"), declaration("tickets")]);
        assert!(equal.values().all(|declared| *declared == Declared::Applied), "{equal:?}");
    }

    #[test]
    fn generation_counts_from_its_submission_on() {
        let mut catalog = catalog(7, &[("tickets", State::Serving)]);
        let tickets = catalog.indexes.get_mut(&index("tickets")).unwrap();
        tickets.generations.insert(2, Generation::new(&target("tickets.g2"), Arc::new(changed()), 8));
        assert_eq!(declared(&catalog, &[changed()])[&index("tickets")], Declared::Applied);
        let tickets = catalog.indexes.get_mut(&index("tickets")).unwrap();
        tickets.switching = Some(Switch { from: Some(2), to: 1, plain: false });
        assert_eq!(declared(&catalog, &[changed()])[&index("tickets")], Declared::Differs);
        let tickets = catalog.indexes.get_mut(&index("tickets")).unwrap();
        (tickets.serving, tickets.switching) = (None, None);
        tickets.generations.values_mut().for_each(|generation| generation.state = State::Retiring);
        assert!(declared(&catalog, &[]).is_empty(), "it is being dropped");
    }
}
