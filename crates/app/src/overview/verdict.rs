//! The answer in one line. Pure.

use serde::Serialize;

use super::problems::{Problem, Severity, documents, entries, estimate};
use super::{Overview, Told};

/// How the index stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Everything that was read is searchable.
    Right,
    /// Everything that was read is searchable, but an audit found that the index differs from MongoDB nevertheless.
    Differs,
    /// Work is moving, and some of it waits.
    Behind,
    /// Something stands still.
    Broken,
    /// Redis does not answer.
    Unknown,
    /// Nothing has been read yet.
    Empty,
}

/// The answer in one line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Verdict {
    /// How the index stands.
    pub(crate) state: State,
    /// In a sentence: how it stands, which stage, why, how long.
    pub(crate) summary: String,
    /// What to do; `None` if nothing.
    pub(crate) action: Option<String>,
    /// The stage in the way: 1 or 2.
    pub(crate) stage: Option<u8>,
    /// Seconds until everything is searchable; `None` if it cannot be told.
    pub(crate) eta_seconds: Option<f64>,
}

/// What these numbers and problems come to.
pub(super) fn verdict(overview: &Overview, problems: &[Problem]) -> Verdict {
    let worst = problems.first().filter(|problem| problem.severity == Severity::Critical);
    let [Told::Known(one), Told::Known(two)] = &overview.stages else {
        let (summary, action) = match worst {
            Some(problem) => (problem.message.clone(), Some(problem.action.clone())),
            None => ("Redis does not answer".to_owned(), None),
        };
        return Verdict {
            state: State::Unknown,
            summary: format!("Cannot tell whether the index is right: {summary}"),
            action,
            stage: None,
            eta_seconds: None,
        };
    };
    let backlog = one.backlog + two.backlog;
    let parked = overview.parked();
    let drift = overview.audit.as_ref().map_or(0, |audit| audit.unexplained(parked));
    // The one that is behind most is the one in the way.
    let (number, stage) = if one.backlog >= two.backlog { (1, one) } else { (2, two) };
    let in_the_way = (backlog > 0).then_some(number);
    let eta_seconds = overview.eta_seconds();
    if let Some(problem) = worst {
        let waiting = entries(backlog);
        let waits = match backlog {
            0 => String::new(),
            _ if problem.message.contains(&waiting) => " Nothing is lost.".to_owned(),
            _ => format!(" {waiting} wait; nothing is lost."),
        };
        return Verdict {
            state: State::Broken,
            summary: format!("The index does not follow: {}.{waits}", problem.message),
            action: Some(problem.action.clone()),
            stage: in_the_way,
            eta_seconds: None,
        };
    }
    let source = overview.source.known();
    if source.is_some_and(|source| source.read_until.is_none()) && backlog == 0 {
        return Verdict {
            state: State::Empty,
            summary: "Nothing has been read yet".to_owned(),
            action: Some("start `tidewheel run --database NAME`, or `tidewheel up --demo` to see it work".to_owned()),
            stage: None,
            eta_seconds: None,
        };
    }
    let eta = eta_seconds.map_or_else(
        || "; it does not get less".to_owned(),
        |seconds| format!("; caught up in about {}", estimate(seconds)),
    );
    let snapshot = source.and_then(|source| source.snapshot.as_ref()).filter(|snapshot| snapshot.state != "done");
    let summary = match (snapshot, in_the_way) {
        (Some(snapshot), _) => {
            let of = snapshot.of.map_or_else(String::new, |of| format!(" of about {of}"));
            let doing = if snapshot.state == "running" {
                "What was there before is being read"
            } else {
                "What is left over is being looked for"
            };
            format!(
                "{doing}: {}{of} documents{}",
                snapshot.rows,
                if snapshot.state == "running" && eta_seconds.is_some() { eta } else { String::new() }
            )
        }
        (None, None) => {
            let searchable = "everything that was read is searchable";
            let except = match parked {
                0 => String::new(),
                _ => format!(", except {} parked as dead letters", entries(parked)),
            };
            match (parked, drift) {
                (0, 0) => format!("The index is right: {searchable}"),
                (_, 0) => format!("Everything that was read is searchable{except}"),
                _ => format!("The index differs from MongoDB in {}, although {searchable}{except}", documents(drift)),
            }
        }
        (None, Some(number)) => {
            let doing = if number == 1 { "to be embedded" } else { "to be written" };
            let rate = stage.out_per_second.map_or_else(String::new, |rate| format!(" at {rate:.0} a second"));
            format!("The index is behind: {} wait in stage {number} {doing}{rate}{eta}", entries(stage.backlog))
        }
    };
    let state = match (in_the_way.is_some() || snapshot.is_some(), drift) {
        (true, _) => State::Behind,
        (false, 0) => State::Right,
        (false, _) => State::Differs,
    };
    let foremost = problems.iter().find(|problem| state == State::Differs && problem.code == "drift");
    Verdict {
        state,
        summary,
        action: foremost.or(problems.first()).map(|problem| problem.action.clone()),
        stage: in_the_way,
        eta_seconds,
    }
}

impl Overview {
    /// Changes parked as dead letters of both stages, as far as they are known.
    pub(super) fn parked(&self) -> u64 {
        self.stages.iter().filter_map(Told::known).map(|stage| stage.status.dead_letters).sum()
    }

    /// Seconds until everything is searchable at the rates of now.
    fn eta_seconds(&self) -> Option<f64> {
        let [Told::Known(one), Told::Known(two)] = &self.stages else { return None };
        let snapshot = self.source.known().and_then(|source| source.snapshot.as_ref());
        let unread = snapshot.filter(|snapshot| snapshot.state == "running");
        let unread = unread.map_or(0, |snapshot| snapshot.of.unwrap_or(snapshot.rows).saturating_sub(snapshot.rows));
        let backlog = one.backlog + two.backlog + unread;
        // What still has to be read is no new work.
        let coming = if unread > 0 { Some(0.0) } else { one.in_per_second };
        super::rates::eta(backlog, coming, two.out_per_second)
    }
}
