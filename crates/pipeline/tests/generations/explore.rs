//! Walks through every state of a history, the nearest ones first.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::rc::Rc;

use crate::model::Model;
use crate::safeguard::Safeguard;
use crate::scenario::{Scenario, Write};
use crate::state::State;

/// The result of walking through every state.
pub struct Explored {
    /// Number of states seen.
    pub states: usize,
    /// The shortest way to a violation, if there is one.
    pub counterexample: Option<String>,
}

/// A state, and how it was reached first.
struct Node {
    state: Rc<State>,
    from: usize,
    step: &'static str,
}

/// Explores a history, without one of the safeguards.
pub fn explore(scenario: &Scenario, history: &[Write], removed: Option<Safeguard>) -> Explored {
    let (mut model, start) = Model::new(scenario, history, removed);
    let start = Rc::new(start);
    let mut seen = HashSet::from([Rc::clone(&start)]);
    let mut nodes = vec![Node { state: start, from: 0, step: "start" }];
    let mut at = 0;
    while at < nodes.len() {
        let state = Rc::clone(&nodes[at].state);
        let next = match model.next(&state) {
            Ok(next) => next,
            Err(violation) => {
                let counterexample = Some(describe(&model, &nodes, at, &violation));
                return Explored { states: nodes.len(), counterexample };
            }
        };
        for (step, state) in next.states {
            let state = Rc::new(state);
            if seen.insert(Rc::clone(&state)) {
                nodes.push(Node { state, from: at, step });
            }
        }
        at += 1;
    }
    Explored { states: nodes.len(), counterexample: None }
}

/// The steps to a state, and the state with its catalog.
fn describe(model: &Model, nodes: &[Node], last: usize, violation: &str) -> String {
    let mut steps = Vec::new();
    let mut at = last;
    while at > 0 {
        steps.push(nodes[at].step);
        at = nodes[at].from;
    }
    let mut text = format!("{violation}, after {:?}:\n", model.history);
    for step in steps.iter().rev() {
        let _ = writeln!(text, "  {step}");
    }
    let state = &*nodes[last].state;
    let _ = write!(text, "{state:#?}\n{:#?}", model.catalog(state.catalog));
    text
}
