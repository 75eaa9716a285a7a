//! Steps of bounded size from stage 1 to stage 2.

use std::ops::Range;

use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{DeadLetter, EntryId, Gap};

/// Approximate maximum of bytes per step: a Lua script blocks Redis while it runs, and its arguments are held in memory
/// twice.
const STEP_BYTES: usize = 4 << 20;

/// What is settled with the records of a unit.
#[derive(Clone, Debug, Default)]
pub(super) struct Settled {
    /// The entries of stage 1 that are acknowledged.
    pub(super) entries: Vec<EntryId>,
    /// The targets whose records are left out.
    pub(super) gaps: Vec<Gap>,
    /// Parks the entry of the unit afterwards, for the targets that failed.
    pub(super) letter: Option<DeadLetter>,
}

/// Units to hand over in one step.
#[derive(Debug, Default)]
pub(super) struct Handful {
    /// The records for stage 2, unit by unit.
    pub(super) records: Vec<Embedded>,
    /// What each unit settles, and where its records end.
    units: Vec<(Settled, usize)>,
}

impl Handful {
    /// Number of units.
    pub(super) fn len(&self) -> usize {
        self.units.len()
    }

    /// What a unit settles.
    pub(super) fn settled(&self, unit: usize) -> &Settled {
        &self.units[unit].0
    }

    /// The records of these units.
    pub(super) fn records_of(&self, units: Range<usize>) -> &[Embedded] {
        let end = |units: usize| if units == 0 { 0 } else { self.units[units - 1].1 };
        &self.records[end(units.start)..end(units.end)]
    }

    /// The entries that these units acknowledge.
    pub(super) fn entries_of(&self, units: Range<usize>) -> Vec<EntryId> {
        self.units[units].iter().flat_map(|(settled, _)| &settled.entries).cloned().collect()
    }

    /// The gaps that these units leave.
    pub(super) fn gaps_of(&self, units: Range<usize>) -> Vec<Gap> {
        self.units[units].iter().flat_map(|(settled, _)| &settled.gaps).cloned().collect()
    }
}

/// Divides units into steps. A unit stays whole.
#[derive(Default)]
pub(super) struct Steps {
    whole: Filling,
    /// Steps of units with letters. They acknowledge nothing, so that their records are appended in any case: a step that
    /// acknowledges does nothing if another consumer has finished its entries.
    partial: Filling,
    /// The letters of units without records.
    pub(super) letters: Vec<DeadLetter>,
    /// Entries without effect.
    pub(super) superfluous: Vec<EntryId>,
}

#[derive(Default)]
struct Filling {
    handfuls: Vec<Handful>,
    /// Size of the last one.
    bytes: usize,
}

impl Steps {
    /// Adds a unit, and empties `records`, which are its own.
    pub(super) fn add(&mut self, records: &mut Vec<Embedded>, mut settled: Settled) {
        if settled.letter.is_none() {
            self.whole.add(records, settled);
            return;
        }
        self.superfluous.append(&mut settled.entries);
        if records.is_empty() && settled.gaps.is_empty() {
            self.letters.extend(settled.letter);
        } else {
            self.partial.add(records, settled);
        }
    }

    /// Adds a record that settles nothing.
    pub(super) fn add_record(&mut self, record: Embedded) {
        self.partial.add(&mut vec![record], Settled::default());
    }

    /// Takes the steps.
    pub(super) fn take(&mut self) -> Vec<Handful> {
        let mut handfuls = std::mem::take(&mut self.whole).handfuls;
        handfuls.append(&mut std::mem::take(&mut self.partial).handfuls);
        handfuls
    }
}

impl Filling {
    fn add(&mut self, records: &mut Vec<Embedded>, settled: Settled) {
        let size: usize = records.iter().map(Embedded::bytes).sum();
        if self.handfuls.is_empty() || self.bytes + size > STEP_BYTES {
            self.handfuls.push(Handful::default());
            self.bytes = 0;
        }
        self.bytes += size;
        let handful = self.handfuls.last_mut().expect("a step was just pushed");
        handful.records.append(records);
        handful.units.push((settled, handful.records.len()));
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_testkit::contracts::samples::embedded;

    use super::*;

    fn record(bytes: usize) -> Embedded {
        let mut record = embedded(1);
        record.change.document = Some("x".repeat(bytes));
        record
    }

    fn settled(entry: &str) -> Settled {
        Settled { entries: vec![EntryId(entry.to_owned())], ..Settled::default() }
    }

    #[test]
    fn steps_are_bounded_and_keep_units_whole() {
        let mut steps = Steps::default();
        for number in 0..4 {
            let mut records = vec![record(STEP_BYTES / 4), record(STEP_BYTES / 4 - 1_000)];
            steps.add(&mut records, settled(&format!("{number}-0")));
            assert!(records.is_empty());
        }
        let handfuls = steps.take();
        let sizes: Vec<_> = handfuls.iter().map(|step| (step.records.len(), step.len())).collect();
        assert_eq!(sizes, [(4, 2), (4, 2)]);
        assert_eq!((handfuls[0].records_of(0..1).len(), handfuls[0].records_of(1..2).len()), (2, 2));
        assert_eq!(handfuls[1].entries_of(0..2), [EntryId("2-0".into()), EntryId("3-0".into())]);
        assert!(steps.take().is_empty());
        steps.add(&mut vec![record(STEP_BYTES * 2)], settled("1-0"));
        assert_eq!(steps.take().len(), 1);
    }

    #[test]
    fn units_with_letters_acknowledge_nothing() {
        let parked = || Settled { letter: Some(DeadLetter::new(EntryId("9-0".into()), "bad", 1)), ..settled("8-0") };
        let mut steps = Steps::default();
        steps.add(&mut vec![record(1)], settled("1-0"));
        steps.add(&mut vec![record(1)], parked());
        steps.add(&mut Vec::new(), parked());
        let handfuls = steps.take();
        assert_eq!(handfuls.iter().map(Handful::len).collect::<Vec<_>>(), [1, 1]);
        assert!(handfuls[1].entries_of(0..1).is_empty());
        assert!(handfuls[1].settled(0).letter.is_some());
        assert_eq!((steps.letters.len(), steps.superfluous.len()), (1, 2), "one has nothing to append");
    }
}
