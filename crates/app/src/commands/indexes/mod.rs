//! What `plan`, `apply` and `rollback` share: they show a plan, ask, submit it, and follow its progress.

mod shown;

use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tidewheel_core::catalog::Action;
use tidewheel_ops::indexes::{self as ops, IndexPlan, Plan, Planned, Progress, Refused, Submission, Watched};

use self::shown::Shown;
use crate::audit_log::Actor;
use crate::cli::Output;
use crate::compose::Indexes;
use crate::confirm::{agreed_unless_interrupted, may_ask};
use crate::exit::{Answer, Failure};
use crate::printer::{self, BAD, DIM, GOOD, STRONG, WARN, styled};
use crate::services::guard;
use crate::signals::{received, uninterrupted};

/// Maximum number of plans, each from another catalog.
const PLANS: u32 = 10;

/// A command that submits a plan.
pub(super) struct Request<'a> {
    /// Its name, for the audit log.
    pub(super) command: &'static str,
    pub(super) indexes: &'a Indexes<'a>,
    /// Whether the plan is confirmed in advance.
    pub(super) yes: bool,
    /// Whether processes of an earlier release may stop.
    pub(super) forced: bool,
    pub(super) output: Output,
}

/// The outcome of a submission.
pub(super) enum Submitted {
    /// The plan is submitted, or there was nothing to submit.
    Plan(Box<Planned>),
    /// The command ends.
    Ended(Answer),
}

impl Request<'_> {
    /// Plans, asks, and submits; again, if the catalog changes in between. Ends at a signal, with the answer of an
    /// interrupted command.
    pub(super) async fn submit(&self, plan: impl AsyncFn() -> Result<Planned, Failure>) -> Result<Submitted, Failure> {
        let first = async {
            // Keep declarations of another database out of this Redis.
            guard(self.indexes.settings(), self.indexes.redis(), None, None).check_redis().await?;
            plan().await
        };
        let Some(first) = uninterrupted(first).await else { return Ok(self.interrupted(Some(false))) };
        let mut planned = first?;
        let mut is_confirmed = false;
        for _ in 0..PLANS {
            if !is_confirmed && let Some(ended) = self.decide(&planned.plan).await {
                return Ok(ended);
            }
            if !planned.plan.todo {
                return Ok(Submitted::Plan(Box::new(planned)));
            }
            if !is_confirmed {
                let (actor, detail) = (Actor::cli(), detail(&planned.plan));
                let record = actor.records(self.indexes.redis(), self.command, detail);
                let Some(recorded) = uninterrupted(record).await else { return Ok(self.interrupted(Some(false))) };
                recorded?;
            }
            let submission = ops::submit(self.indexes.ports(), &planned, self.forced);
            let Some(submission) = uninterrupted(submission).await else { return Ok(self.interrupted(None)) };
            match submission? {
                Submission::Saved => return Ok(Submitted::Plan(Box::new(planned))),
                Submission::Changed => {
                    let Some(again) = uninterrupted(plan()).await else { return Ok(self.interrupted(Some(false))) };
                    let again = again?;
                    is_confirmed = again.is_same(&planned) && again.plan.refused.is_empty();
                    planned = again;
                }
            }
        }
        Err(Failure::new("failed to submit the plan: the catalog changes too often").with_hint("run the command again"))
    }

    /// Reports a signal before the progress. `submitted` is `None` if the submission was on its way.
    fn interrupted(&self, submitted: Option<bool>) -> Submitted {
        match (self.output, submitted) {
            (Output::Json, _) => printer::json_line(&json!({"result": "interrupted", "submitted": submitted})),
            (Output::Text, Some(_)) => printer::message("interrupted: nothing was changed"),
            (Output::Text, None) => {
                let text = "interrupted while the plan was submitted: run the command again to see the progress";
                printer::message(styled(WARN, text));
            }
        }
        Submitted::Ended(Answer::No)
    }

    /// Shows the plan and asks; how the command ends, if it ends here.
    async fn decide(&self, plan: &Plan) -> Option<Submitted> {
        let is_text = self.output == Output::Text;
        if is_text {
            show(plan);
        }
        if !plan.refused.is_empty() {
            if !is_text {
                printer::json(plan);
            }
            return Some(Submitted::Ended(Answer::Unknown));
        }
        if !plan.todo || self.yes {
            return None;
        }
        if !may_ask(self.output) {
            if is_text {
                printer::message("\nPlan only, nothing was changed. Add --yes to apply it.");
            } else {
                printer::json(plan);
            }
            return Some(Submitted::Ended(Answer::No));
        }
        let question = match plan.interrupts_searches() {
            true => "Searches fail for some milliseconds at the switch. Apply the plan? [y/N] ",
            false => "Apply the plan? [y/N] ",
        };
        match agreed_unless_interrupted(question).await {
            Some(true) => return None,
            Some(false) => printer::message("nothing was changed"),
            None => printer::message("\ninterrupted: nothing was changed"),
        }
        Some(Submitted::Ended(Answer::No))
    }

    /// Shows the progress until everything is done, or until the timeout.
    pub(super) async fn follow(&self, planned: &Planned, timeout: Option<Duration>) -> Result<Answer, Failure> {
        let watch = planned.watched();
        let shown = Shown::new(self.output, &watch.indexes);
        let report = |progress: &[Progress]| shown.report(progress);
        let late = async {
            match timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        let followed = tokio::select! {
            watched = ops::watch(self.indexes.ports(), &watch, &report) => match watched {
                Ok(Watched::Done) => Ok(Followed::Done),
                Ok(Watched::Failed { index, problem }) => Ok(Followed::Failed { index: index.to_string(), problem }),
                Ok(Watched::Lost) => Ok(Followed::Lost),
                Err(error) => Err(error),
            },
            () = received() => Ok(Followed::Interrupted),
            () = late => Ok(Followed::TimedOut),
        };
        shown.finish();
        let followed = followed?;
        if self.output == Output::Json {
            printer::json_line(&Ended { followed: &followed, revision: watch.revision });
        }
        Ok(followed.answer(self.output))
    }
}

/// How the progress ended.
#[derive(Debug, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
enum Followed {
    Done,
    Interrupted,
    TimedOut,
    Failed { index: String, problem: String },
    Lost,
}

/// The last line of JSON.
#[derive(Serialize)]
struct Ended<'a> {
    #[serde(flatten)]
    followed: &'a Followed,
    revision: u64,
}

impl Followed {
    /// Prints how it ended, and returns the answer of the command.
    fn answer(&self, output: Output) -> Answer {
        match self {
            Self::Done => {
                if output == Output::Text {
                    printer::data(format_args!("{} done", styled(GOOD, "✔")));
                }
                Answer::Fine
            }
            Self::Interrupted => {
                printer::message(styled(
                    WARN,
                    "interrupted: the services continue; run the command again to see the progress",
                ));
                Answer::No
            }
            Self::TimedOut => {
                printer::message(styled(
                    WARN,
                    "timed out: the services continue; run the command again to see the progress",
                ));
                Answer::No
            }
            Self::Failed { index, problem } => {
                let hint = format!(
                    "fix the cause, then run `tidewheel apply --index {index}`; with --accept-missing N it accepts N differing documents"
                );
                printer::problem(&format!("index \"{index}\" does not advance: {problem}"), Some(&hint));
                Answer::Unknown
            }
            Self::Lost => {
                let hint = "run the command again";
                printer::problem("Redis lost the submission, as after a failover", Some(hint));
                Answer::Unknown
            }
        }
    }
}

/// Prints a plan.
pub(super) fn show(plan: &Plan) {
    let names = plan.indexes.iter().map(|index| index.index.as_str().chars().count());
    let width = names.max().unwrap_or_default();
    let row = |name: &str, lines: &[String]| {
        for (number, line) in lines.iter().enumerate() {
            let name = if number == 0 { name } else { "" };
            printer::data(format_args!("{}  {line}", styled(STRONG, format_args!("{name:<width$}"))));
        }
    };
    for index in &plan.indexes {
        row(index.index.as_str(), &index.lines());
    }
    for progress in &plan.running {
        let line = styled(DIM, format_args!("in progress: {}", progress.line()));
        row(progress.index.as_str(), &[line]);
    }
    for refused in &plan.refused {
        show_refused(refused);
    }
    for warning in &plan.warnings {
        printer::message(format_args!("{}: {warning}", styled(WARN, "warning")));
    }
    printer::data(plan.summary());
}

fn show_refused(Refused { index, reason, hint }: &Refused) {
    let index = index.as_ref().map(|index| format!("{index}: ")).unwrap_or_default();
    printer::data(format_args!("{} {index}{reason}", styled(BAD, "✖")));
    if !hint.is_empty() {
        printer::data(styled(DIM, format_args!("  {hint}")));
    }
}

/// What a plan does, for the audit log.
fn detail(plan: &Plan) -> String {
    let of = |index: &IndexPlan| match index.generation {
        Some(number) => format!("{} {} {number}", index.index, index.action),
        None => format!("{} {}", index.index, index.action),
    };
    let changed = plan.indexes.iter().filter(|index| index.action != Action::None);
    let changes: Vec<String> = changed.map(of).collect();
    if changes.is_empty() { "declarations replace the short form".to_owned() } else { changes.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_line_of_json_has_the_result_and_the_revision() {
        let line = |followed: &Followed| serde_json::to_value(Ended { followed, revision: 7 }).unwrap();
        assert_eq!(line(&Followed::Done), json!({"result": "done", "revision": 7}));
        assert_eq!(line(&Followed::TimedOut), json!({"result": "timed_out", "revision": 7}));
        let failed = Followed::Failed { index: "tickets".to_owned(), problem: "3 documents differ".to_owned() };
        assert_eq!(
            line(&failed),
            json!({"result": "failed", "index": "tickets", "problem": "3 documents differ", "revision": 7})
        );
    }

    #[test]
    fn exit_code_depends_on_the_end() {
        for (followed, answer) in [
            (Followed::Done, Answer::Fine),
            (Followed::Interrupted, Answer::No),
            (Followed::TimedOut, Answer::No),
            (Followed::Lost, Answer::Unknown),
            (Followed::Failed { index: "a".to_owned(), problem: "b".to_owned() }, Answer::Unknown),
        ] {
            assert_eq!(followed.answer(Output::Json), answer, "{followed:?}");
        }
    }
}
