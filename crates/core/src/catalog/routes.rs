//! Routing: which targets a change of the source concerns.
//!
//! A target whose index has no filter receives every change of its collections. With a filter, the verdict on the
//! document decides. A document that does not match leaves the target only if the event may have changed that: if it
//! touched a path of the filter, or what it touched is unknown. Otherwise the last event that touched the filter's paths
//! has decided already. So a document outside a filter costs neither an entry nor a tombstone per update, and after the
//! last event that touched those paths a target holds the document if and only if it matches.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::declaration::OnDeadLetter;
use super::generation::Catalog;
use super::name::{Due, TargetId};
use super::selector::Selector;
use crate::change::{Operation, Route, Stamp};
use crate::identity::Namespace;
use crate::json;
use crate::ports::{Coverage, SourceEvent, SourceFilter, SourceRow, Touched, Verdicts};

/// Maximum number of namespaces whose targets are remembered.
const REMEMBERED: usize = 10_000;

/// The routes of a catalog, and the coverage of the source that they need.
#[derive(Debug)]
pub struct Routes {
    revision: u64,
    targets: Vec<RoutedTarget>,
    coverage: Arc<Coverage>,
    by_namespace: Mutex<HashMap<Namespace, Arc<Covering>>>,
}

/// A target that live changes are routed to.
#[derive(Debug)]
struct RoutedTarget {
    id: TargetId,
    selector: Selector,
    filter: Option<Condition>,
    on_dead_letter: OnDeadLetter,
}

/// The filter of a target.
#[derive(Debug)]
struct Condition {
    /// Its number in the coverage and the verdicts.
    number: usize,
    /// The paths that it reads; `None` if they are unknown.
    paths: Option<Vec<String>>,
}

/// The targets that cover a namespace.
#[derive(Debug)]
struct Covering {
    /// Their places in [`Routes::targets`].
    places: Vec<usize>,
    /// The route to all of them.
    all: Arc<Stamp>,
}

/// What a change means for a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// The target receives the change.
    Receives,
    /// The document is removed from the target.
    Leaves,
    /// Nothing.
    None,
}

/// The targets of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// The targets.
    pub stamp: Arc<Stamp>,
    /// Whether the change stays as it is. If not, no target receives the document: the change becomes a deletion without
    /// it, from [`Stamp::targets`].
    pub keeps_document: bool,
}

impl Routed {
    /// The route as entries carry it: without a stamp before the first catalog is applied.
    pub fn into_route(self) -> Route {
        if self.stamp.catalog == 0 { Route::Plain } else { Route::Stamped(self.stamp) }
    }
}

/// The routes of a catalog.
pub fn routes(catalog: &Catalog) -> Routes {
    let declarations = || catalog.routed().map(|(id, generation)| (id, &generation.declaration));
    let selectors: BTreeSet<&Selector> = declarations().map(|(_, declaration)| &declaration.source).collect();
    let filters: BTreeSet<&SourceFilter> =
        declarations().filter_map(|(_, declaration)| declaration.filter.as_ref()).collect();
    let numbers: BTreeMap<&SourceFilter, usize> = filters.iter().copied().zip(0..).collect();
    let targets = declarations()
        .map(|(id, declaration)| RoutedTarget {
            id,
            selector: declaration.source.clone(),
            filter: declaration
                .filter
                .as_ref()
                .map(|filter| Condition { number: numbers[filter], paths: paths(filter) }),
            on_dead_letter: declaration.rules.on_dead_letter,
        })
        .collect();
    let coverage = Coverage {
        selectors: selectors.into_iter().cloned().collect(),
        filters: filters.into_iter().cloned().collect(),
    };
    Routes {
        revision: catalog.revision,
        targets,
        coverage: Arc::new(coverage),
        by_namespace: Mutex::new(HashMap::new()),
    }
}

impl Routes {
    /// The revision of the catalog.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// What a feed has to cover and to judge. [`Self::event`] is valid only for events of such a feed.
    pub fn coverage(&self) -> &Arc<Coverage> {
        &self.coverage
    }

    /// The effect of a parked change on the indexed version of its document in this target.
    pub fn on_dead_letter(&self, target: &TargetId) -> OnDeadLetter {
        let found = self.targets.iter().find(|routed| routed.id == *target);
        found.map_or_else(OnDeadLetter::default, |routed| routed.on_dead_letter)
    }

    /// The targets of an event; `None` if it concerns none, so that nothing has to be appended.
    pub fn event(&self, event: &SourceEvent) -> Option<Routed> {
        self.decide(&event.namespace, |target| target.effect(event.operation, &event.verdicts, &event.touched))
    }

    /// Every target: those of a change whose collection is unknown, and which can only be parked.
    pub fn everywhere(&self) -> Routed {
        let targets = self.targets.iter().map(|target| target.id.clone()).collect();
        let stamp = Arc::new(Stamp { catalog: self.revision, targets, leaves: Vec::new() });
        Routed { stamp, keeps_document: true }
    }

    /// The targets of a row that a snapshot of this scope has read; `None` if there is none. An empty scope is every
    /// target. `differs` states whether the snapshot has to append the row for a target that the document belongs to.
    ///
    /// Documents that do not belong to a target are removed by the sweep, not here.
    pub fn row(
        &self,
        namespace: &Namespace,
        row: &SourceRow,
        scope: &[Due],
        differs: impl Fn(&TargetId) -> bool,
    ) -> Option<Routed> {
        self.decide(namespace, |target| {
            let in_scope = scope.is_empty() || scope.iter().any(|due| due.target == target.id);
            let receives = in_scope && target.verdict(&row.verdicts) != Some(false) && differs(&target.id);
            if receives { Effect::Receives } else { Effect::None }
        })
    }

    /// The targets of the current state of a document that is read on behalf of these targets: those that it belongs to,
    /// and the others, from which it is removed. `None` is the state of a document that does not exist. Returns `None` if
    /// changes are routed to none of the targets.
    ///
    /// Without [`Routed::keeps_document`], the change is a deletion.
    pub fn current(
        &self,
        namespace: &Namespace,
        row: Option<&SourceRow>,
        among: impl Fn(&TargetId) -> bool,
    ) -> Option<Routed> {
        let belongs = |target: &RoutedTarget, row: &SourceRow| {
            target.selector.covers(namespace) && target.verdict(&row.verdicts) != Some(false)
        };
        let wanted = self.targets.iter().filter(|target| among(&target.id));
        let (holding, others): (Vec<_>, Vec<_>) =
            wanted.partition(|target| row.is_some_and(|row| belongs(target, row)));
        let ids = |targets: Vec<&RoutedTarget>| targets.into_iter().map(|target| target.id.clone()).collect();
        let keeps_document = !holding.is_empty();
        let (targets, leaves): (Vec<_>, Vec<_>) = match keeps_document {
            true => (ids(holding), ids(others)),
            false => (ids(others), Vec::new()),
        };
        let stamp = Arc::new(Stamp { catalog: self.revision, targets, leaves });
        (!stamp.targets.is_empty()).then_some(Routed { stamp, keeps_document })
    }

    fn decide(&self, namespace: &Namespace, effect: impl Fn(&RoutedTarget) -> Effect) -> Option<Routed> {
        let covering = self.covering(namespace);
        let (mut targets, mut leaves) = (Vec::new(), Vec::new());
        for place in &covering.places {
            let target = &self.targets[*place];
            match effect(target) {
                Effect::Receives => targets.push(target.id.clone()),
                Effect::Leaves => leaves.push(target.id.clone()),
                Effect::None => {}
            }
        }
        let keeps_document = !targets.is_empty();
        if !keeps_document {
            // A deletion, which names what it removes from.
            targets = std::mem::take(&mut leaves);
        }
        if targets.is_empty() {
            return None;
        }
        let is_all = leaves.is_empty() && targets.len() == covering.places.len();
        let stamp = if is_all {
            Arc::clone(&covering.all)
        } else {
            Arc::new(Stamp { catalog: self.revision, targets, leaves })
        };
        Some(Routed { stamp, keeps_document })
    }

    fn covering(&self, namespace: &Namespace) -> Arc<Covering> {
        let mut remembered = self.by_namespace.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(covering) = remembered.get(namespace) {
            return Arc::clone(covering);
        }
        let covers = |place: &usize| self.targets[*place].selector.covers(namespace);
        let places: Vec<usize> = (0..self.targets.len()).filter(covers).collect();
        let targets = places.iter().map(|place| self.targets[*place].id.clone()).collect();
        let all = Arc::new(Stamp { catalog: self.revision, targets, leaves: Vec::new() });
        let covering = Arc::new(Covering { places, all });
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(namespace.clone(), Arc::clone(&covering));
        covering
    }
}

impl RoutedTarget {
    fn effect(&self, operation: Operation, verdicts: &Verdicts, touched: &Touched) -> Effect {
        if !operation.has_document() {
            // Membership is unknown without a document.
            return Effect::Receives;
        }
        match (self.verdict(verdicts), &self.filter) {
            (Some(false), Some(condition)) if condition.may_change(touched) => Effect::Leaves,
            (Some(false), _) => Effect::None,
            // Without a verdict the document cannot be read: it is parked for every target.
            (Some(true) | None, _) => Effect::Receives,
        }
    }

    /// Whether the document belongs to the target; `None` if it was not judged.
    fn verdict(&self, verdicts: &Verdicts) -> Option<bool> {
        self.filter.as_ref().map_or(Some(true), |condition| verdicts.get(condition.number))
    }
}

impl Condition {
    /// Whether an event that touched these paths may have changed the verdict.
    fn may_change(&self, touched: &Touched) -> bool {
        self.paths.as_ref().is_none_or(|paths| touched.concerns(paths))
    }
}

/// The paths that a filter reads; `None` if they are unknown.
fn paths(filter: &SourceFilter) -> Option<Vec<String>> {
    let mut found = BTreeSet::new();
    collect_paths(&json::parse(&filter.0).ok()?, &mut found)?;
    Some(found.into_iter().collect())
}

/// Collects the paths of a query in MongoDB's form: names of fields, and operators that combine queries. Operators below
/// a path read nothing outside it.
fn collect_paths(query: &Value, found: &mut BTreeSet<String>) -> Option<()> {
    for (name, condition) in query.as_object()? {
        if !name.starts_with('$') {
            found.insert(name.clone());
        } else if matches!(name.as_str(), "$and" | "$or" | "$nor") {
            for query in condition.as_array()? {
                collect_paths(query, found)?;
            }
        } else {
            return None;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests;
