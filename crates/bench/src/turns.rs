//! Two sides in alternating rounds. The sides alternate in going first, and the relevant ratio is the median of the
//! ratios per round: other load on the machine changes from minute to minute and affects both sides of a round.

use crate::report::{self, Run, median};

/// The rounds of two sides.
#[derive(Debug)]
pub struct Turns {
    names: [&'static str; 2],
    runs: [Vec<Run>; 2],
}

impl Turns {
    pub fn new(names: [&'static str; 2]) -> Self {
        Self { names, runs: [Vec::new(), Vec::new()] }
    }

    /// Returns both sides in the order of a round.
    pub fn order(round: usize) -> [usize; 2] {
        if round.is_multiple_of(2) { [0, 1] } else { [1, 0] }
    }

    pub fn record(&mut self, side: usize, run: Run) {
        self.runs[side].push(run);
    }

    /// Prints the throughput of the last round.
    pub fn report_round(&self) {
        if let [Some(first), Some(second)] = self.runs.each_ref().map(|runs| runs.last()) {
            let ([a, b], round) = (self.names, self.runs[0].len());
            let (of_a, of_b) = (first.documents_per_second, second.documents_per_second);
            println!("round {round}: {of_a:.0} documents/s {a}, {of_b:.0} {b}");
        }
    }

    /// Prints each side's round with the median throughput, and the median of the ratios.
    pub fn report(self) {
        let ratio = |value: fn(&Run) -> f64| {
            let [first, second] = &self.runs;
            median(first.iter().zip(second).map(|(first, second)| value(first) / value(second)).collect())
        };
        let (throughput, services, all) =
            (ratio(|run| run.documents_per_second), ratio(Run::services_cpu), ratio(Run::all_cpu));
        let [first, second] = self.runs.map(report::middle);
        report::print(&[(self.names[0], first), (self.names[1], second)]);
        println!(
            "median of the ratios per round: throughput {throughput:.3}, CPU time of services {services:.3}, of services \
            and servers {all:.3}"
        );
    }
}
