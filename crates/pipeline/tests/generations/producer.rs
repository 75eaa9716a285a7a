//! The producer: it adopts catalogs, appends changes, fills generations by snapshots, and confirms what is applied.

use tidewheel_core::catalog::{Generation, Needs, Rows, is_futile, next_scope};

use crate::model::Model;
use crate::safeguard::Safeguard;
use crate::state::{Collection, Entry, Found, Gate, Mark, Next, Phase, Session, State, Work, at, time_of};

/// Maximum amount of work with which the producer appends: the high-water mark.
pub const HIGH_WATER: usize = 2;

impl Model {
    /// What the producer does next, except for the controller's steps.
    pub(crate) fn produce(&mut self, state: &State, next: &mut Next) {
        if state.is_damaged {
            next.progress("rewind", self.rewound(state));
        } else if let Some(found) = &state.session.found {
            next.progress("append what was read", self.append_found(state, found));
        } else if !self.is_undisturbed(state) {
            self.adopt(state, next);
            if !state.session.is_resting {
                self.follow(state, next);
                self.snapshot(state, next);
            }
        }
        let is_settled = state.work.is_empty() && !state.is_damaged;
        if is_settled && state.session.gate == Gate::Closed {
            let mut opened = state.clone();
            opened.session.gate = Gate::Open;
            next.progress("open the gate", opened);
        }
        if is_settled && state.applied != state.current {
            next.progress("pass the barrier", State { applied: state.current.clone(), ..state.clone() });
        }
        if state.session.is_resting && state.session.pending.is_none() && !self.is_undisturbed(state) {
            let mut rested = state.clone();
            rested.session.is_resting = false;
            rested.session.has_expired = true;
            next.progress("end the rest", rested);
        }
        let crashed = self.crashed(state);
        if crashed != *state {
            next.chance("crash", crashed);
        }
    }

    /// Whether nothing is appended because a plain collection is deleted, and the move that replaces it is not recorded.
    pub(crate) fn is_undisturbed(&self, state: &State) -> bool {
        let is_deleted = |(number, collection): (u32, &Collection)| {
            !collection.exists && self.is_being_replaced(state.catalog, number)
        };
        self.has(Safeguard::UndisturbedMove) && (1..).zip(&state.collections).any(is_deleted)
    }

    /// The state in which another session begins.
    pub(crate) fn crashed(&self, state: &State) -> State {
        let gate = self.gate(state, &state.current);
        State { session: Session::new(gate, state.current.catalog), ..state.clone() }
    }

    /// Whether the snapshot of a session that begins now may read.
    fn gate(&self, state: &State, mark: &Mark) -> Gate {
        let has_points = |number: u32| state.collections[at(number)].document.is_some();
        let compares = |(number, _): &(u32, u64)| {
            let generation = self.generation(state.catalog, *number);
            generation.is_some_and(|generation| has_points(*number) && needs(generation).rows != Rows::All)
        };
        match mark.phase {
            Phase::Done => Gate::Open,
            _ if !self.has(Safeguard::SettledComparison) => Gate::Open,
            Phase::Sweeping => Gate::Closed,
            Phase::Reading if mark.scope.iter().any(compares) => Gate::Closed,
            Phase::Reading => Gate::Blind,
        }
    }

    /// Continues from the applied checkpoint, because entries were lost.
    fn rewound(&self, state: &State) -> State {
        let rewinds_to = if self.has(Safeguard::CurrentRewind) { &state.current } else { &state.applied };
        let current = Mark { catalog: rewinds_to.catalog, ..state.applied.clone() };
        self.crashed(&State { is_damaged: false, current, ..state.clone() })
    }

    fn adopt(&self, state: &State, next: &mut Next) {
        let mut adopted = state.clone();
        if self.has(Safeguard::RoutesInCheckpoint) {
            adopted.session.routes = state.catalog;
        } else if state.session.routes != state.current.catalog {
            let mut loaded = state.clone();
            loaded.session.routes = state.current.catalog;
            next.progress("load the routes", loaded);
        }
        if state.current.catalog != state.catalog {
            adopted.current.catalog = state.catalog;
            next.progress("adopt", adopted);
        }
    }

    /// Appends the next change.
    fn follow(&mut self, state: &State, next: &mut Next) {
        if state.current.position == state.committed || state.work.len() > HIGH_WATER {
            return;
        }
        let mut appended = state.clone();
        appended.current.position += 1;
        let entry = self.entry(state.session.routes, appended.current.position, state.committed);
        appended.work.extend(entry.map(Work::Entry));
        next.progress("append a change", appended);
    }

    /// Begins, continues or ends a snapshot.
    fn snapshot(&self, state: &State, next: &mut Next) {
        let mut checkpoint = self.checkpoint(&state.current);
        if !self.has(Safeguard::AdoptionFirst) {
            checkpoint.catalog = u64::MAX;
        }
        let (catalog, lost) = (self.catalog(state.catalog), self.lost(state));
        if let Some(scope) = next_scope(catalog, &checkpoint, &lost, |_| None) {
            let mut begun = state.clone();
            let earliest = time_of(state.committed) + 1;
            begun.time = if self.has(Safeguard::LaterRows) { state.later() } else { state.time.max(earliest) };
            begun.current.begun = begun.time;
            begun.current.phase = Phase::Reading;
            begun.current.scope = scope.iter().map(|due| (due.target.generation, due.due)).collect();
            begun.session.gate = self.gate(&begun, &begun.current);
            next.progress("begin a snapshot", begun);
        } else if is_futile(catalog, &checkpoint, &lost) {
            let mut ended = state.clone();
            ended.current.phase = Phase::Done;
            ended.current.scope = Vec::new();
            ended.session.gate = Gate::Open;
            next.progress("abandon the snapshot", ended);
        } else if state.session.gate != Gate::Closed && state.work.len() <= HIGH_WATER {
            match state.current.phase {
                Phase::Reading => next.progress("read the row", self.read(state)),
                Phase::Sweeping => next.progress("sweep", self.sweep(state)),
                Phase::Done => {}
            }
        }
    }

    /// Reads the row, and compares it with each target.
    fn read(&self, state: &State) -> State {
        let (mut targets, mut value) = (Vec::new(), 0);
        for (number, _) in &state.current.scope {
            let Some(routed) = self.routed(state.session.routes, *number) else { continue };
            let Some(member) = self.member(&routed.declaration, state.committed) else { continue };
            let rows =
                self.generation(state.catalog, *number).map_or(Rows::Missing, |generation| needs(generation).rows);
            let appends_all = state.session.gate == Gate::Blind || rows == Rows::All;
            let stored = state.collections[at(*number)].document.filter(|_| !appends_all);
            let differs = stored.is_none_or(|stored| {
                let is_made = rows == Rows::Missing || stored.made.has_text_of(&routed.declaration);
                stored.version < state.current.begun && (stored.value != member || !is_made)
            });
            if differs {
                targets.push(*number);
                value = member;
            }
        }
        let mut read = state.clone();
        read.session.found = Some(Found::Row { value, targets });
        read
    }

    /// Finds the targets that have the document although it does not belong to them, at a time after that of the rows.
    fn sweep(&self, state: &State) -> State {
        let time = if state.time > state.current.begun { state.time } else { state.later() };
        let is_orphan = |number: u32| {
            let is_swept = self.generation(state.catalog, number).is_some_and(|generation| needs(generation).sweep);
            let routed = self.routed(state.session.routes, number);
            let belongs = |generation: &Generation| self.member(&generation.declaration, state.committed).is_some();
            is_swept
                && state.collections[at(number)].document.is_some()
                && routed.is_some_and(|generation| !belongs(generation))
        };
        let targets: Vec<u32> =
            state.current.scope.iter().map(|(number, _)| *number).filter(|number| is_orphan(*number)).collect();
        let mut swept = state.clone();
        if targets.is_empty() {
            swept.current.phase = Phase::Done;
        } else {
            swept.time = time;
            swept.session.found = Some(Found::Orphans { time, targets });
        }
        swept
    }

    fn append_found(&self, state: &State, found: &Found) -> State {
        let stamp = self.revision(state.session.routes);
        let entry = |version: u8, value: Option<u8>, targets: Vec<u32>| {
            Work::Entry(Entry { version, value, targets, leaves: Vec::new(), is_leave: false, stamp })
        };
        let mut appended = state.clone();
        appended.session.found = None;
        match found {
            Found::Row { value, targets } => {
                if !targets.is_empty() {
                    appended.work.push(entry(state.current.begun, Some(*value), targets.clone()));
                }
                let is_swept = |(number, _): &(u32, u64)| {
                    self.generation(state.catalog, *number).is_some_and(|generation| needs(generation).sweep)
                };
                let sweeps = state.current.scope.iter().any(is_swept);
                appended.current.phase = if sweeps { Phase::Sweeping } else { Phase::Done };
                appended.session.gate = if sweeps { Gate::Closed } else { Gate::Open };
            }
            Found::Orphans { time, targets } => {
                appended.work.extend(targets.iter().map(|number| entry(*time, None, vec![*number])));
                appended.current.phase = Phase::Done;
            }
        }
        appended
    }
}

/// What a snapshot does for a generation. One that was filled is compared.
fn needs(generation: &Generation) -> Needs {
    if generation.is_filled() { Needs { rows: Rows::Missing, sweep: true } } else { generation.needs }
}
