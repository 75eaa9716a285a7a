//! Opens the feed of a session: where the checkpoint ends, or at a time from which everything is compared.

use std::time::Duration;

use tidewheel_core::error::PortError;
use tidewheel_core::payload::{STAMP, version_of};
use tidewheel_core::ports::{Appended, Checkpoint, Feed, FeedError, Repair, ResumeToken, StartAt};
use tidewheel_core::version::ClusterTime;
use tracing::{info, warn};

use super::POINTS;
use super::adopted::Adopted;
use super::context::{Ended, Newest, PAUSE, Session};
use super::narrowing::{Part, Place};
use super::plan::{self, Start};
use super::step::Step;
use super::writer::Saving;
use crate::targets::Target;

/// Pause after each page of the index while the newest version is read, for the requests of other clients.
const NEWEST_PAUSE: Duration = Duration::from_millis(10);

/// Prefix of the error of a lost history, which distinguishes a failed reopening from an outage.
const HISTORY: &str = "MongoDB no longer has the changes after the saved position";

/// An open feed.
pub(super) struct Opened {
    pub(super) feed: Box<dyn Feed>,
    /// The checkpoint at which its next event follows.
    pub(super) checkpoint: Checkpoint,
    /// The catalog for which it was opened. The checkpoint may have another revision.
    pub(super) adopted: Adopted,
}

impl Session<'_> {
    /// Opens the feed at the checkpoint, or starts over.
    pub(super) async fn open(&self) -> Result<Opened, Ended> {
        let saved = self.ports.journal.load().await?;
        let targets = &self.ports.targets;
        targets.reload().await?;
        let required = saved.as_ref().map_or(0, |saved| saved.catalog);
        let adopted = Adopted::new(targets.at_least(required).await?, &self.ports.source);
        let most = self.narrowings().most(Part::Feed);
        match (plan::start(saved.as_ref(), &adopted.selection, adopted.revision()), saved) {
            (Start::Resume(at), Some(saved)) => match adopted.open(at, most).await {
                Ok(feed) => Ok(Opened { feed, checkpoint: saved, adopted }),
                Err(FeedError::HistoryLost(why)) => self.begin_again(adopted, Some(saved), None, &why).await,
                Err(FeedError::Port(error)) => Err(error.into()),
            },
            (Start::Reopen(at), Some(saved)) => {
                info!(revision = adopted.revision(), "opening the feed again for the applied catalog");
                match self.reopen(&adopted, &saved, at).await {
                    Err(Ended::Failed(error)) if is_of_history(&error) => {
                        self.begin_again(adopted, Some(saved), None, &error.message).await
                    }
                    Ok((feed, checkpoint)) => Ok(Opened { feed, checkpoint, adopted }),
                    Err(ended) => Err(ended),
                }
            }
            (Start::Reselect(at), saved) => {
                let of_source = adopted.source.scope();
                let former = saved.as_ref().is_some_and(|saved| saved.selection == of_source);
                let is_by_form = former || adopted.revision() > 0;
                let why = if is_by_form {
                    "the form of keys has changed"
                } else {
                    "the selection of collections has changed"
                };
                // With a catalog, rows have to win over what was rendered at the time of the last event.
                let at = (adopted.revision() == 0).then_some(at);
                self.begin_again(adopted, saved, at, why).await
            }
            (_, saved) => self.begin(adopted, saved, None).await,
        }
    }

    /// Opens the feed at a time up to which everything was appended, and saves its position together with the adopted
    /// catalog and its first events. The events of that time come again, and get greater ordinals than before: with the
    /// same ones, other events could have the versions that they had.
    async fn reopen(
        &self,
        adopted: &Adopted,
        saved: &Checkpoint,
        at: StartAt,
    ) -> Result<(Box<dyn Feed>, Checkpoint), Ended> {
        let most = self.narrowings().most(Part::Feed);
        let mut feed = adopted.open(at, most).await.map_err(lost)?;
        let first = feed.next().await.map_err(lost)?;
        let (selection, catalog) = (adopted.selection.clone(), adopted.revision());
        let reopened = Checkpoint { selection, catalog, ..saved.clone() };
        let (step, _) = self.step(adopted, &reopened, first).await?;
        let place = Place::Feed(saved.token.clone(), saved.last);
        let step = self.save_first(Some(saved), place, None, step).await?;
        Ok((feed, step.next))
    }

    async fn begin_again(
        &self,
        adopted: Adopted,
        saved: Option<Checkpoint>,
        at: Option<StartAt>,
        why: &str,
    ) -> Result<Opened, Ended> {
        warn!("comparing all documents with the index: {why}");
        match self.begin(adopted.clone(), saved.clone(), at).await {
            Err(Ended::Failed(error)) if is_of_history(&error) => self.begin(adopted, saved, None).await,
            outcome => outcome,
        }
    }

    /// Opens the feed at a time, saves that as the checkpoint, and starts a snapshot of everything that existed at that
    /// time. The feed is opened first: it covers changes made while the snapshot reads.
    async fn begin(&self, adopted: Adopted, saved: Option<Checkpoint>, at: Option<StartAt>) -> Result<Opened, Ended> {
        let adopted = if self.options.snapshot { self.make_everything_due(adopted).await? } else { adopted };
        let time = match at {
            Some(StartAt::Time(time)) => time,
            _ => self.row_time(&adopted, saved.as_ref().map(|saved| saved.last.0)).await?,
        };
        let most = self.narrowings().most(Part::Feed);
        let mut feed = adopted.open(StartAt::Time(time), most).await.map_err(lost)?;
        // The first batch carries the token of the feed's start; its events must not be lost, so they are appended
        // together with that checkpoint.
        let first = feed.next().await.map_err(lost)?;
        let known = self.newest(&adopted, saved.as_ref()).await?;
        let (catalog, selection) = (adopted.revision(), adopted.selection.clone());
        let reads = self.options.snapshot && adopted.applied.routed().next().is_some();
        let scope = if reads { plan::everything(adopted.applied.catalog()) } else { Vec::new() };
        let begun = plan::begun(known, selection, first.token.clone(), time, reads);
        let begun = Checkpoint { catalog, scope, ..begun };
        let (step, _) = self.step(&adopted, &begun, first).await?;
        let token = saved.as_ref().map_or(ResumeToken(String::new()), |saved| saved.token.clone());
        let place = Place::Feed(token, (time, 0));
        let step = self.save_first(saved.as_ref(), place, Some(Repair::Everything), step).await?;
        *self.newest.lock().await = Newest::default();
        Ok(Opened { feed, checkpoint: step.next, adopted })
    }

    /// Saves the first step of a feed.
    async fn save_first(
        &self,
        saved: Option<&Checkpoint>,
        place: Place,
        repair: Option<Repair>,
        step: Step,
    ) -> Result<Step, Ended> {
        let saving = Saving { session: self, saved, place, repair };
        let (appended, step) = saving.save(step).await?;
        match appended {
            Appended::Saved => {
                self.appended(&step);
                Ok(step)
            }
            Appended::Conflict => Err(Ended::Conflict),
        }
    }

    /// The time of the rows of a snapshot of everything, and of a feed opened for it; `last` is that of the newest known
    /// change. With a catalog, rows also have to win over changes of that time, which an earlier declaration may have
    /// rendered: an idle MongoDB advances its time every ten seconds.
    pub(super) async fn row_time(&self, adopted: &Adopted, last: Option<ClusterTime>) -> Result<ClusterTime, Ended> {
        loop {
            let now = self.ports.source.now().await?;
            if adopted.revision() == 0 || Some(now) != last {
                return Ok(now);
            }
            self.renew().await?;
            self.pause(PAUSE).await?;
        }
    }

    /// Epoch and time of the newest known change. Without a checkpoint, they are read from the collections of all
    /// targets: with a lower epoch, the index would reject every change as outdated.
    async fn newest(&self, adopted: &Adopted, saved: Option<&Checkpoint>) -> Result<Option<(u32, ClusterTime)>, Ended> {
        if let Some(saved) = saved {
            return Ok(Some((saved.epoch, saved.last.0)));
        }
        let mut search = self.newest.lock().await;
        for target in adopted.applied.routed() {
            self.search(target, &mut search).await?;
        }
        Ok(search.newest)
    }

    /// Reads the collection of a target from where the search has ended.
    async fn search(&self, target: &Target, search: &mut Newest) -> Result<(), Ended> {
        loop {
            let after = search.after.get(&target.id).copied();
            let page = match target.ports.index.page(after, POINTS, STAMP).await {
                Ok(page) => page,
                Err(error) => {
                    warn!("failed to read the newest version from the index, treating it as empty: {error}");
                    return Ok(());
                }
            };
            let Some(last) = page.last() else { return Ok(()) };
            search.after.insert(target.id.clone(), last.id);
            let versions = page.iter().filter_map(|point| version_of(&point.payload));
            search.newest = search.newest.max(versions.map(|version| (version.epoch, version.time)).max());
            self.renew().await?;
            self.pause(NEWEST_PAUSE).await?;
        }
    }
}

/// A feed that lost its history fails like an outage: the next session finds the token unusable and starts over.
pub(super) fn lost(error: FeedError) -> Ended {
    Ended::Failed(match error {
        FeedError::HistoryLost(why) => PortError::transient(format!("{HISTORY}: {why}")),
        FeedError::Port(error) => error,
    })
}

fn is_of_history(error: &PortError) -> bool {
    error.message.contains(HISTORY)
}
