//! The targets of one revision of the catalog, as a processor works for them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tidewheel_core::catalog::{Datatype, EmbedderIdentity, Fp, IndexName, OnDeadLetter, TargetId};
use tidewheel_core::change::Change;
use tidewheel_core::embedded::Target as Stamp;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Delivery, PortResult};

use super::metric::IndexMetrics;
use super::model::{Model, remark};
use super::options::SettingNames;
use super::plan::Job;
use super::planner::{Planner, Texts};
use super::recall::Recall;
use crate::targets::{Applied, Target};

/// Maximum number of other targets that are asked for the vectors of a document.
const SOURCES: usize = 3;

/// What the documents of a target are processed with, once its embedder has answered.
pub(super) struct Ready {
    /// The model of the target itself.
    pub(super) model: Arc<Model>,
    /// Shared by targets with equal texts and models.
    pub(super) planner: Arc<Planner>,
}

/// One target.
pub(super) struct Lane {
    pub(super) target: Arc<Target>,
    /// Fingerprint of how its texts and chunks are made.
    text: Fp,
    /// Whether its records may be skipped, so that it does not delay the others.
    pub(super) may_skip: bool,
    ready: OnceLock<Ready>,
    /// Its vectors.
    pub(super) recall: Recall,
    pub(super) metrics: IndexMetrics,
}

/// Why lanes are skipped, by number.
pub(super) type Skipped = BTreeMap<usize, String>;

/// All targets that changes are routed to, numbered.
pub(super) struct Lanes {
    applied: Arc<Applied>,
    all: Vec<Lane>,
    numbers: HashMap<TargetId, usize>,
    plain: Option<usize>,
}

/// What a change does in a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    /// Removes the document.
    Removal,
    /// Writes the document.
    Document,
}

impl Lane {
    fn new(target: &Arc<Target>, applied: &Applied) -> Self {
        Self {
            text: target.declaration().made().text,
            may_skip: applied.may_skip(target),
            ready: OnceLock::new(),
            recall: Recall::new(target.ports.known.clone()),
            metrics: IndexMetrics::new(&target.id.index),
            target: target.clone(),
        }
    }

    /// What its documents are processed with; `None` until [`Self::prepare`].
    pub(super) fn ready(&self) -> Option<&Ready> {
        self.ready.get()
    }

    /// Prepares it with its model.
    ///
    /// # Errors
    /// Fatal if a template of its declaration is invalid.
    pub(super) fn prepare(&self, model: Arc<Model>, planners: &Planners) -> PortResult<()> {
        remark(&self.target, &model.identity);
        let planner = planners.of(self, &model)?;
        // Another batch may have prepared it meanwhile.
        self.ready.get_or_init(|| Ready { model, planner });
        Ok(())
    }

    /// Effect of a parked change on the indexed version of its document.
    pub(super) fn on_dead_letter(&self) -> OnDeadLetter {
        self.target.on_dead_letter()
    }

    /// The settings that messages about its documents name.
    fn names(&self) -> &'static SettingNames {
        if self.target.is_local() { &SettingNames::SHORT_FORM } else { &SettingNames::DECLARED }
    }

    /// The identity of its vectors, as far as it is known.
    fn identity(&self) -> Option<&EmbedderIdentity> {
        let asked = self.ready().map(|ready| &ready.model.identity);
        asked.or(self.target.generation.embedder.as_ref())
    }

    /// Dimension of its vectors; `None` if it is unknown.
    pub(super) fn dimension(&self) -> Option<usize> {
        self.identity().map(|identity| identity.dimension)
    }

    /// How precisely its collection stores vectors. Greater is more precise.
    pub(super) fn precision(&self) -> u8 {
        match self.target.declaration().vectors.datatype {
            Datatype::Uint8 => 0,
            Datatype::Float16 => 1,
            Datatype::Float32 => 2,
        }
    }
}

impl Lanes {
    pub(super) fn new(applied: Arc<Applied>) -> Self {
        let all: Vec<Lane> = applied.routed().map(|target| Lane::new(target, &applied)).collect();
        let numbers: HashMap<TargetId, usize> =
            all.iter().enumerate().map(|(number, lane)| (lane.target.id.clone(), number)).collect();
        let plain = applied.target(None).and_then(|plain| numbers.get(&plain.id).copied());
        Self { applied, all, numbers, plain }
    }

    /// Whether these are the lanes of this catalog.
    pub(super) fn are_of(&self, applied: &Arc<Applied>) -> bool {
        Arc::ptr_eq(&self.applied, applied)
    }

    /// Whether the catalog is made from local settings: its one target receives every change.
    pub(super) fn is_short_form(&self) -> bool {
        self.applied.catalog().is_short_form()
    }

    /// The only index of the catalog; `None` if there are several.
    pub(super) fn only_index(&self) -> Option<&IndexName> {
        let mut names = self.applied.catalog().indexes.keys();
        names.next().filter(|_| names.next().is_none())
    }

    /// The lane of this number.
    pub(super) fn get(&self, number: usize) -> &Lane {
        &self.all[number]
    }

    /// The number of lanes.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The lane of local settings, if they are in effect.
    pub(super) fn local(&self) -> Option<&Lane> {
        self.plain.map(|number| self.get(number)).filter(|lane| lane.target.is_local())
    }

    /// The lane of a record's target.
    pub(super) fn of(&self, stamp: Option<&Stamp>) -> Option<&Lane> {
        let number = match stamp {
            Some(stamp) => self.numbers.get(&stamp.id).copied(),
            None => self.plain,
        };
        number.map(|number| self.get(number))
    }

    /// The target of records for this lane; `None` before a catalog is applied.
    pub(super) fn stamp(&self, number: usize) -> Option<Stamp> {
        let target = &self.get(number).target;
        let made = target.made?.text;
        Some(Stamp { catalog: self.applied.revision(), id: target.id.clone(), made })
    }

    /// Calls `effect` for each lane that a change concerns. A change without targets concerns the plain target. Targets
    /// that the catalog does not route are left out.
    pub(super) fn effects(&self, change: &Change, mut effect: impl FnMut(usize, Effect)) {
        let whole = if change.document.is_some() { Effect::Document } else { Effect::Removal };
        match change.route.stamp().filter(|_| !self.is_short_form()) {
            None => {
                if let Some(plain) = self.plain {
                    effect(plain, whole);
                }
            }
            Some(stamp) => {
                for number in stamp.targets.iter().filter_map(|id| self.numbers.get(id)) {
                    effect(*number, whole);
                }
                for number in stamp.leaves.iter().filter_map(|id| self.numbers.get(id)) {
                    effect(*number, Effect::Removal);
                }
            }
        }
    }

    /// Whether a target of these entries is left out, because the catalog does not route it.
    pub(super) fn leave_out(&self, deliveries: &[Delivery<Change>]) -> bool {
        let mut changes = deliveries.iter().filter_map(|delivery| delivery.record.as_ref().ok());
        changes.any(|change| match change.route.stamp().filter(|_| !self.is_short_form()) {
            None => self.plain.is_none(),
            Some(stamp) => stamp.targets.iter().chain(&stamp.leaves).any(|id| !self.numbers.contains_key(id)),
        })
    }

    /// The lanes that receive a document of these entries and are not prepared.
    pub(super) fn unprepared(&self, deliveries: &[Delivery<Change>]) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        if self.all.iter().all(|lane| lane.ready().is_some()) {
            return found;
        }
        for change in deliveries.iter().filter_map(|delivery| delivery.record.as_ref().ok()) {
            self.effects(change, |number, effect| {
                if effect == Effect::Document && self.get(number).ready().is_none() {
                    found.insert(number);
                }
            });
        }
        found
    }

    /// Approximate number of bytes to process; `usize::MAX` if a template may compute for long.
    pub(super) fn cost(&self, deliveries: &[Delivery<Change>]) -> usize {
        if self.all.iter().filter_map(Lane::ready).any(|ready| ready.planner.computes()) {
            return usize::MAX;
        }
        let documents = deliveries.iter().filter_map(|delivery| delivery.record.as_ref().ok()?.document.as_ref());
        documents.map(String::len).sum()
    }

    /// The other lanes whose collections may have the vectors of a document of this namespace: other generations of an
    /// index, and indexes with the same text. The model must be the same, and stored at least as precisely.
    pub(super) fn sources(&self, job: &Job, namespace: &Namespace) -> Vec<usize> {
        let own = || job.to.iter().map(move |number| self.get(*number));
        let precision = own().map(Lane::precision).max();
        let mut found: Vec<(Reverse<bool>, usize)> = Vec::new();
        for (number, lane) in self.all.iter().enumerate().filter(|(number, _)| !job.to.contains(number)) {
            let is_same_index = own().any(|own| own.target.id.index == lane.target.id.index);
            if (is_same_index || own().any(|own| own.text == lane.text))
                && lane.recall.is_possible()
                && lane.identity() == Some(&job.planner.model.identity)
                && Some(lane.precision()) >= precision
                && lane.target.declaration().source.covers(namespace)
            {
                found.push((Reverse(is_same_index), number));
            }
        }
        found.sort_unstable();
        found.into_iter().take(SOURCES).map(|(_, number)| number).collect()
    }
}

/// The planners of this process, by text and model. They keep what they have learned across revisions.
#[derive(Default)]
pub(super) struct Planners(Mutex<HashMap<(Fp, EmbedderIdentity), Arc<Planner>>>);

impl Planners {
    fn of(&self, lane: &Lane, model: &Arc<Model>) -> PortResult<Arc<Planner>> {
        let mut planners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (lane.text, model.identity.clone());
        if let Some(planner) = planners.get(&key) {
            return Ok(planner.clone());
        }
        let declaration = lane.target.declaration();
        let texts = Texts::new(declaration, lane.names())?;
        let planner = Arc::new(Planner::new(texts, &declaration.chunk, model.clone()));
        planners.insert(key, planner.clone());
        Ok(planner)
    }

    /// Forgets planners that nothing uses, and that these lanes will not use.
    pub(super) fn retain(&self, lanes: &Lanes) {
        let mut planners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_named = |text: &Fp| lanes.all.iter().any(|lane| lane.text == *text);
        planners.retain(|(text, _), planner| is_named(text) || Arc::strong_count(planner) > 1);
    }
}
