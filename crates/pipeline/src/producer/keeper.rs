//! Maintains the applied checkpoint, and detects and repairs damage.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tidewheel_core::catalog::{Lost, TargetId};
use tidewheel_core::ports::{Appended, Checkpoint, Damage, Repair};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::barrier::Barrier;
use super::context::{Ended, Session};
use super::plan::{self, Recovery};
use super::writer::Writer;
use crate::targets::Target;

/// How long a loss counts as recent: more may follow.
const RECENT: Duration = Duration::from_secs(60);

/// Maintains the applied checkpoint, and detects damage.
pub(super) struct Keeper<'a> {
    session: &'a Session<'a>,
    pub(super) barrier: Barrier,
    /// The newest checkpoint known to be in the index with everything that it covers.
    applied: Option<Checkpoint>,
    losses: Losses,
}

/// The result of a look at the positions.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Looked {
    /// Whether everything appended is in the index.
    pub(super) is_settled: bool,
    /// The revision of the applied catalog; 0 without one.
    pub(super) catalog: u64,
    /// The targets that lost something.
    pub(super) lost: Vec<Lost>,
    /// The time by the clock of the streams, in milliseconds since the Unix epoch.
    pub(super) at: u64,
}

impl<'a> Keeper<'a> {
    pub(super) fn new(session: &'a Session<'a>) -> Self {
        Self { session, barrier: Barrier::default(), applied: None, losses: Losses::default() }
    }

    /// The newest checkpoint known to be in the index with everything that it covers.
    pub(super) fn applied(&self) -> Option<&Checkpoint> {
        self.applied.as_ref()
    }

    /// The time up to which all entries of the streams have been acknowledged; `None` if unknown.
    pub(super) fn settled(&self) -> Option<u64> {
        (self.applied.is_some() && self.barrier.passed() > 0).then(|| self.barrier.settled())
    }

    /// The targets that no snapshot concerns, neither in what was appended nor in what is in the index.
    pub(super) fn undisturbed(&self, writer: &Writer<'_>) -> Vec<Arc<Target>> {
        let is_being_filled = |target: &Target| {
            let applied = self.applied.as_ref();
            plan::is_being_filled(&writer.checkpoint, target)
                || applied.is_some_and(|applied| plan::is_being_filled(applied, target))
        };
        writer.adopted.applied.routed().filter(|target| !is_being_filled(target)).cloned().collect()
    }

    /// Reads the positions.
    pub(super) async fn look(&mut self, writer: &mut Writer<'_>) -> Result<Looked, Ended> {
        let journal = &self.session.ports.journal;
        let positions = journal.positions().await?;
        let mut applied = self.barrier.advance(&writer.checkpoint, &positions);
        if applied.is_some() {
            // The next barrier begins with the same positions, and passes at once if nothing is in flight.
            applied = self.barrier.advance(&writer.checkpoint, &positions).or(applied);
        }
        if let Some(damage) = positions.damage {
            let Err(ended) = self.session.repair(writer, damage).await;
            return Err(ended);
        }
        let (catalog, at, lost) = (positions.catalog, positions.at, self.losses.update(positions.lost));
        let looked = |is_settled: bool| Looked { is_settled, catalog, lost, at };
        let Some(applied) = applied else { return Ok(looked(self.applied.as_ref() == Some(&writer.checkpoint))) };
        if self.applied.as_ref() != Some(&applied) {
            if journal.confirm(&writer.checkpoint, &applied).await? == Appended::Conflict {
                return Err(Ended::Conflict);
            }
            debug!(at = applied.last.0.seconds, "checkpoint applied");
        }
        let is_settled = applied == writer.checkpoint;
        self.applied = Some(applied);
        Ok(looked(is_settled))
    }
}

/// The targets that lost something, with the text of each loss and when it was first read.
#[derive(Debug, Default)]
struct Losses(BTreeMap<TargetId, (String, Instant)>);

impl Losses {
    /// Takes over what is recorded now. A newer loss of a target has another text.
    fn update(&mut self, recorded: Vec<(TargetId, String)>) -> Vec<Lost> {
        let mut known = std::mem::take(&mut self.0);
        for (target, text) in recorded {
            let since = match known.remove(&target) {
                Some((known, since)) if known == text => since,
                _ => {
                    warn!(index = %target, "a target has to be filled again: {text}");
                    Instant::now()
                }
            };
            self.0.insert(target, (text, since));
        }
        let lost = |(target, (_, since)): (&TargetId, &(String, Instant))| Lost {
            target: target.clone(),
            recent: since.elapsed() < RECENT,
        };
        self.0.iter().map(lost).collect()
    }
}

impl Session<'_> {
    /// Continues from a checkpoint that repairs the damage. Always ends the session.
    async fn repair(&self, writer: &mut Writer<'_>, damage: Damage) -> Result<Infallible, Ended> {
        let applied = self.ports.journal.applied().await?;
        match plan::recover(&writer.checkpoint, applied, &damage) {
            Recovery::Rewind(applied) => {
                warn!(from = applied.last.0.seconds, "appending lost changes again: {damage}");
                writer.restart(applied, Repair::Entries).await?;
            }
            Recovery::Compare(from) if self.options.snapshot => {
                warn!("comparing all documents with the index: {damage}");
                let adopted = self.make_everything_due(writer.adopted.clone()).await?;
                let time = self.row_time(&adopted, Some(writer.checkpoint.last.0)).await?;
                let (catalog, scope) = (adopted.revision(), plan::everything(adopted.applied.catalog()));
                let next = Checkpoint { catalog, scope, ..plan::read_again(from, time) };
                writer.restart(next, Repair::Everything).await?;
            }
            Recovery::Compare(from) => {
                warn!("damage not repaired, because producer.snapshot is \"never\": {damage}");
                writer.restart(from, Repair::Everything).await?;
            }
        }
        Err(Ended::Restarted)
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::catalog::IndexName;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn loss_is_recent_until_a_minute_has_passed_without_a_newer_one() {
        let (tickets, notes) =
            (IndexName::of_collection("tickets").target(1), IndexName::of_collection("notes").target(2));
        let mut losses = Losses::default();
        let mut recent = |recorded: &[(&TargetId, &str)]| {
            let recorded = recorded.iter().map(|(target, text)| ((*target).clone(), (*text).to_owned())).collect();
            losses.update(recorded).into_iter().map(|lost| (lost.target.to_string(), lost.recent)).collect::<Vec<_>>()
        };
        let named = |target: &TargetId, is_recent| (target.to_string(), is_recent);
        assert_eq!(recent(&[(&tickets, "at 1")]), [named(&tickets, true)]);
        tokio::time::sleep(RECENT / 2).await;
        assert_eq!(recent(&[(&notes, "at 2"), (&tickets, "at 1")]), [named(&notes, true), named(&tickets, true)]);
        tokio::time::sleep(RECENT / 2).await;
        assert_eq!(recent(&[(&notes, "at 2"), (&tickets, "at 1")]), [named(&notes, true), named(&tickets, false)]);
        assert_eq!(recent(&[(&tickets, "at 3")]), [named(&tickets, true)]);
        assert_eq!(recent(&[]), []);
        assert_eq!(recent(&[(&tickets, "at 3")]), [named(&tickets, true)]);
    }
}
