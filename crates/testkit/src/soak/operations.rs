//! Plans writes from the seed.

use bson::{Bson, Document, doc};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::documents::{
    COLLECTIONS, FOREIGN, Hostile, Length, SCRATCH, STATUSES, document, id, make_hostile, poison_id, single_ids, text,
    twin,
};

/// Number of frequently changed documents.
const HOT: i32 = 4;

/// Collection size above which deletions outnumber inserts, so that a long run is as fast to compare as a short one.
const MANY: usize = 800;

/// A single operation on MongoDB.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Insert {
        collection: &'static str,
        documents: Vec<Document>,
    },
    /// Sets fields; creates a missing document if `upsert`.
    Set {
        collection: &'static str,
        id: Bson,
        fields: Document,
        upsert: bool,
    },
    Replace {
        collection: &'static str,
        id: Bson,
        document: Document,
    },
    Delete {
        collection: &'static str,
        ids: Vec<Bson>,
    },
    Drop {
        collection: &'static str,
    },
    /// Inserts a document with an invalid UTF-8 `_id`.
    InsertUndecodable {
        serial: i64,
    },
    DeleteUndecodable {
        serial: i64,
    },
}

/// A write, the unit of counting.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Write {
    /// Its row in the report.
    pub(super) kind: &'static str,
    pub(super) steps: Vec<Step>,
    /// Whether the steps are one transaction.
    pub(super) transaction: bool,
}

/// Draws writes. A document that it assumes to exist may be missing, because an earlier write was not acknowledged;
/// such a write harmlessly changes nothing.
pub(super) struct Planner {
    rng: StdRng,
    serial: u64,
    next_number: i32,
    /// Per collection in [`COLLECTIONS`].
    there: [Vec<Bson>; COLLECTIONS.len()],
    gone: [Vec<Bson>; COLLECTIONS.len()],
    /// Serials of documents with an invalid UTF-8 `_id`.
    undecodable: Vec<i64>,
    /// Decides the statuses of documents; `None` if they have none. Separate, so that all other writes are the same.
    statuses: Option<StdRng>,
}

impl Planner {
    pub(super) fn new(seed: u64) -> Self {
        let gone = std::array::from_fn(|place| if place == SCRATCH { Vec::new() } else { single_ids() });
        // The first numbers belong to the hot documents.
        Self {
            rng: StdRng::seed_from_u64(seed),
            serial: 0,
            next_number: 100,
            there: Default::default(),
            gone,
            undecodable: Vec::new(),
            statuses: None,
        }
    }

    /// With a status in every document, and writes that change only that: the document enters or leaves a filter.
    pub(super) fn with_statuses(self, seed: u64) -> Self {
        Self { statuses: Some(StdRng::seed_from_u64(seed ^ 0x57a7)), ..self }
    }

    /// The next write.
    pub(super) fn next(&mut self) -> Write {
        if let Some(write) = self.change_status() {
            return write;
        }
        let place = self.rng.random_range(0..COLLECTIONS.len());
        let collection = COLLECTIONS[place];
        let full = self.there[place].len() > MANY;
        let one = |kind, step| Write { kind, steps: vec![step], transaction: false };
        match self.rng.random_range(0..100) {
            0..16 if !full => one("insert", self.insert(place, 1)),
            16..20 if !full => {
                let many = self.rng.random_range(5..40);
                one("insert many", self.insert(place, many))
            }
            0..34 => match self.some(place) {
                Some(id) => one("update", self.set(collection, id, Length::Any, false)),
                None => one("insert", self.insert(place, 1)),
            },
            34..46 => {
                let id = Bson::Int32(self.rng.random_range(0..HOT));
                one("update hot", self.set(COLLECTIONS[0], id, Length::Any, true))
            }
            46..52 => self.on_some(place, "grow", |this, id| this.set(collection, id, Length::Long, false)),
            52..58 => self.on_some(place, "shrink", |this, id| this.set(collection, id, Length::Short, false)),
            58..62 => self.on_some(place, "replace", |this, id| {
                let document = this.document(id.clone());
                Step::Replace { collection, id, document }
            }),
            62..64 if !full => self.hostile(place),
            64 => self.retype(place),
            62..76 => one("delete", self.delete(place, 1)),
            76..79 => {
                let many = if full { 200 } else { self.rng.random_range(2..30) };
                one("delete many", self.delete(place, many))
            }
            79..87 => self.reinsert(place),
            87..92 => self.transaction(place),
            92..96 => self.double_update(),
            96..98 => {
                let document = self.document(Bson::Int64(i64::from(self.next_number)));
                one("not indexed", Step::Insert { collection: FOREIGN, documents: vec![document] })
            }
            98 => self.drop_and_recreate(),
            _ => {
                let id = Bson::Int32(self.rng.random_range(0..HOT));
                one("delete hot", Step::Delete { collection: COLLECTIONS[0], ids: vec![id] })
            }
        }
    }

    /// Inserts the documents of the initial snapshot.
    pub(super) fn first(&mut self, place: usize, documents: usize) -> Write {
        Write { kind: "insert many", steps: vec![self.insert(place, documents)], transaction: false }
    }

    fn on_some(&mut self, place: usize, kind: &'static str, step: impl FnOnce(&mut Self, Bson) -> Step) -> Write {
        let steps = match self.some(place) {
            Some(id) => vec![step(self, id)],
            None => vec![self.insert(place, 1)],
        };
        Write { kind, steps, transaction: false }
    }

    fn some(&mut self, place: usize) -> Option<Bson> {
        let length = self.there[place].len();
        (length > 0).then(|| self.there[place][self.rng.random_range(0..length)].clone())
    }

    fn document(&mut self, id: Bson) -> Document {
        self.serial += 1;
        self.next_number += 1;
        let mut document = document(&mut self.rng, id, self.serial);
        if let Some(rng) = &mut self.statuses {
            document.insert("status", *STATUSES.choose(rng).expect("there are some"));
        }
        document
    }

    /// One write in six changes the status of a document, often that of a hot one.
    fn change_status(&mut self) -> Option<Write> {
        let rng = self.statuses.as_mut()?;
        if !rng.random_bool(1.0 / 6.0) {
            return None;
        }
        let place = rng.random_range(0..COLLECTIONS.len());
        let there = &self.there[place];
        let (place, id) = match there.choose(rng) {
            Some(id) if rng.random_bool(0.7) => (place, id.clone()),
            _ => (0, Bson::Int32(rng.random_range(0..HOT))),
        };
        let status = *STATUSES.choose(rng).expect("there are some");
        let kind = if status == "draft" { "leave the filter" } else { "enter the filter" };
        let (collection, fields) = (COLLECTIONS[place], doc! { "status": status });
        let steps = vec![Step::Set { collection, id, fields, upsert: false }];
        Some(Write { kind, steps, transaction: false })
    }

    fn insert(&mut self, place: usize, count: usize) -> Step {
        let mut documents = Vec::with_capacity(count);
        for _ in 0..count {
            let id = id(&mut self.rng, self.next_number);
            self.there[place].push(id.clone());
            documents.push(self.document(id));
        }
        Step::Insert { collection: COLLECTIONS[place], documents }
    }

    fn set(&mut self, collection: &'static str, id: Bson, length: Length, upsert: bool) -> Step {
        self.serial += 1;
        let content = text(&mut self.rng, length, self.serial);
        let fields = doc! { "content": content, "serial": i64::try_from(self.serial).unwrap_or_default() };
        Step::Set { collection, id, fields, upsert }
    }

    fn delete(&mut self, place: usize, count: usize) -> Step {
        let mut ids = Vec::with_capacity(count);
        for _ in 0..count.min(self.there[place].len()) {
            let chosen = self.rng.random_range(0..self.there[place].len());
            let id = self.there[place].swap_remove(chosen);
            self.gone[place].push(id.clone());
            ids.push(id);
        }
        Step::Delete { collection: COLLECTIONS[place], ids }
    }

    /// Inserts a hostile document. Poison has separate `_id`s and is never changed, so that each of its dead letters
    /// has one explanation.
    fn hostile(&mut self, place: usize) -> Write {
        let hostile = Hostile::ALL[self.rng.random_range(0..Hostile::ALL.len())];
        if hostile == Hostile::Undecodable {
            return self.undecodable();
        }
        let id = match hostile {
            Hostile::Poison | Hostile::Unembeddable => Bson::String(poison_id(hostile, self.next_number)),
            Hostile::Strange => Bson::String(format!("\u{1b}[2J/{}/\u{0}\u{7f}\u{202e}", self.next_number)),
            _ => id(&mut self.rng, self.next_number),
        };
        // Dropping a collection would remove the poison that explains a dead letter.
        let place = if hostile.is_poison() { 0 } else { place };
        let mut document = self.document(id.clone());
        make_hostile(&mut document, hostile, &mut self.rng, self.serial);
        if !hostile.is_poison() {
            self.there[place].push(id);
        }
        let steps = vec![Step::Insert { collection: COLLECTIONS[place], documents: vec![document] }];
        Write { kind: hostile.kind(), steps, transaction: false }
    }

    /// Replaces a document by one whose `_id` is the same number in another type.
    fn retype(&mut self, place: usize) -> Write {
        self.on_some(place, "retype", |this, id| {
            let other = twin(&id).unwrap_or_else(|| id.clone());
            let document = this.document(other);
            Step::Replace { collection: COLLECTIONS[place], id, document }
        })
    }

    /// Reinserts a deleted `_id`, right after its deletion or long after, sometimes as another number type.
    fn reinsert(&mut self, place: usize) -> Write {
        let collection = COLLECTIONS[place];
        let mut steps = Vec::new();
        if self.gone[place].is_empty() || self.rng.random_bool(0.4) {
            steps.push(self.delete(place, 1));
        }
        let recent = self.rng.random_bool(0.5);
        let id = match self.gone[place].len() {
            0 => id(&mut self.rng, self.next_number),
            length if recent => self.gone[place].swap_remove(length - 1),
            length => {
                let chosen = self.rng.random_range(0..length);
                self.gone[place].swap_remove(chosen)
            }
        };
        let id = twin(&id).filter(|_| self.rng.random_bool(0.25)).unwrap_or(id);
        self.there[place].push(id.clone());
        let document = self.document(id);
        steps.push(Step::Insert { collection, documents: vec![document] });
        Write { kind: "re-insert", steps, transaction: false }
    }

    /// Several documents of several collections at one cluster time.
    fn transaction(&mut self, place: usize) -> Write {
        let other = (place + 1) % COLLECTIONS.len();
        let mut steps = vec![self.insert(place, 2), self.insert(other, 1)];
        if let Some(id) = self.some(place) {
            steps.push(self.set(COLLECTIONS[place], id, Length::Any, false));
        }
        steps.push(self.delete(other, 1));
        Write { kind: "transaction", steps, transaction: true }
    }

    /// Changes a document twice within one transaction: both changes have the same cluster time.
    fn double_update(&mut self) -> Write {
        let (collection, id) = (COLLECTIONS[0], Bson::Int32(self.rng.random_range(0..HOT)));
        let (first, second) = match self.rng.random_range(0..3) {
            0 => (Length::Long, Length::Short),
            1 => (Length::Short, Length::Long),
            _ => (Length::Any, Length::Any),
        };
        let mut steps = vec![self.set(collection, id.clone(), first, true)];
        // Sometimes with a deletion in between, sometimes with one at the end.
        match self.rng.random_range(0..5) {
            0 => {
                steps.push(Step::Delete { collection, ids: vec![id.clone()] });
                steps.push(self.set(collection, id, second, true));
            }
            1 => {
                steps.push(self.set(collection, id.clone(), second, true));
                steps.push(Step::Delete { collection, ids: vec![id] });
            }
            _ => steps.push(self.set(collection, id, second, true)),
        }
        Write { kind: "double update", steps, transaction: true }
    }

    /// Inserts a document with an invalid UTF-8 `_id`, or deletes one.
    fn undecodable(&mut self) -> Write {
        let (kind, step) = match self.undecodable.pop() {
            Some(serial) if self.rng.random_bool(0.3) => ("delete undecodable", Step::DeleteUndecodable { serial }),
            popped => {
                self.serial += 1;
                let serial = i64::try_from(self.serial).unwrap_or_default();
                self.undecodable.extend(popped.into_iter().chain([serial]));
                (Hostile::Undecodable.kind(), Step::InsertUndecodable { serial })
            }
        };
        Write { kind, steps: vec![step], transaction: false }
    }

    fn drop_and_recreate(&mut self) -> Write {
        let mut dropped = std::mem::take(&mut self.there[SCRATCH]);
        let mut steps = vec![Step::Drop { collection: COLLECTIONS[SCRATCH] }];
        // Some dropped documents are reinserted immediately.
        let back = dropped.len().min(3);
        let again: Vec<Bson> = dropped.drain(..back).collect();
        let documents = again.iter().map(|id| self.document(id.clone())).collect::<Vec<_>>();
        if !documents.is_empty() {
            steps.push(Step::Insert { collection: COLLECTIONS[SCRATCH], documents });
        }
        self.there[SCRATCH] = again;
        self.gone[SCRATCH].append(&mut dropped);
        steps.push(self.insert(SCRATCH, 2));
        Write { kind: "drop and recreate", steps, transaction: false }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn seed_determines_writes_and_every_kind_occurs() {
        let plan = |seed| {
            let mut planner = Planner::new(seed);
            (0..20_000).map(|_| planner.next()).collect::<Vec<_>>()
        };
        let (first, second) = (plan(5), plan(5));
        // Compared as text, because NaN does not equal itself.
        assert!(format!("{first:?}") == format!("{second:?}"));
        let kinds: HashSet<_> = first.iter().map(|write| write.kind).collect();
        assert_eq!(kinds.len(), 23, "{kinds:?}");
    }

    #[test]
    fn statuses_change_no_other_write() {
        let plan = |planner: Planner| {
            let mut planner = planner;
            (0..2_000).map(|_| planner.next()).collect::<Vec<_>>()
        };
        let (plain, mut with) = (plan(Planner::new(5)), plan(Planner::new(5).with_statuses(5)));
        let moves = ["enter the filter", "leave the filter"];
        assert!(moves.iter().all(|kind| with.iter().filter(|write| write.kind == *kind).count() > 20));
        with.retain(|write| !moves.contains(&write.kind));
        for step in with.iter_mut().flat_map(|write| &mut write.steps) {
            match step {
                Step::Insert { documents, .. } => documents.iter_mut().for_each(|document| {
                    assert!(document.remove("status").is_some());
                }),
                Step::Replace { document, .. } => assert!(document.remove("status").is_some()),
                _ => {}
            }
        }
        assert!(format!("{with:?}") == format!("{:?}", &plain[..with.len()]));
    }

    #[test]
    fn collection_sizes_stay_bounded() {
        let mut planner = Planner::new(1);
        for _ in 0..60_000 {
            planner.next();
        }
        assert!(planner.there.iter().all(|there| there.len() < 2 * MANY));
    }
}
