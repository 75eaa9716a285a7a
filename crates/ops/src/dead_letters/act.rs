//! Plans an action on dead letters, and acts on them page by page.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tidewheel_core::ports::{DeadLetters, EntryId, PortResult, Registry, Source};
use tidewheel_core::stage::Stage;

use super::{Filter, LetterView, Listing, Outcome, Pages, RetryPorts, discard, retry};

/// The dead letters that match a filter at one moment.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The first ones, and the number of all.
    pub listing: Listing,
    /// Number of those that cannot be retried.
    pub unreadable: u64,
    /// Number of readable ones whose documents have to be read from the source for a retry.
    pub reread: u64,
    filter: Filter,
    /// The moment, in milliseconds since the Unix epoch.
    now: u64,
    /// The last one of each stage.
    ends: BTreeMap<Stage, EntryId>,
}

/// Plans an action on the matching dead letters, and keeps the first ones up to a limit. Changes nothing.
///
/// # Errors
/// If the dead letters cannot be read.
pub async fn plan(letters: &dyn DeadLetters, filter: &Filter, limit: usize) -> PortResult<Plan> {
    let mut pages = Pages::new(letters, filter);
    let mut plan = Plan {
        listing: Listing::default(),
        unreadable: 0,
        reread: 0,
        filter: filter.clone(),
        now: pages.now,
        ends: BTreeMap::new(),
    };
    loop {
        let page = pages.next().await?;
        if page.is_empty() {
            return Ok(plan);
        }
        for letter in page {
            plan.listing.matching += 1;
            plan.unreadable += u64::from(!letter.is_readable());
            plan.reread += u64::from(letter.reread && letter.is_readable());
            plan.ends.insert(letter.stage, EntryId(letter.id.clone()));
            if plan.listing.letters.len() < limit {
                plan.listing.letters.push(letter);
            }
        }
    }
}

impl Plan {
    /// The pages of exactly the planned dead letters, without those that are gone meanwhile.
    pub fn pages<'a>(&'a self, letters: &'a dyn DeadLetters) -> Pages<'a> {
        Pages { now: self.now, ends: Some(&self.ends), ..Pages::new(letters, &self.filter) }
    }
}

/// Connects to the source.
#[async_trait]
pub trait SourceProvider: Send + Sync {
    /// The source; every call returns the same one.
    async fn source(&self) -> PortResult<Arc<dyn Source>>;
}

/// An action on dead letters.
pub enum Action<'a> {
    /// Puts them back into their stage.
    Retry {
        /// The ports of the retry.
        ports: RetryPorts<'a>,
        /// The source, if documents have to be read again.
        source: &'a dyn SourceProvider,
    },
    /// Deletes them.
    Discard {
        /// The installation.
        registry: &'a dyn Registry,
    },
}

/// What an action has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acted {
    /// Number of dead letters that it found.
    pub found: u64,
    /// What became of them.
    pub outcome: Outcome,
}

impl Acted {
    /// The outcome of an action on this many dead letters: those that it did not find were handled by another process.
    #[must_use]
    pub fn outcome_of(self, expected: u64) -> Outcome {
        let Self { found, mut outcome } = self;
        outcome.gone += expected.saturating_sub(found);
        outcome
    }
}

/// Acts on the dead letters of these pages that are `chosen`, page by page, and reports the progress after each page.
///
/// # Errors
/// If this release cannot use the keys, before anything changes. If a server fails; what was done before stays so.
pub async fn act(
    action: &Action<'_>,
    mut pages: Pages<'_>,
    chosen: &(dyn Fn(&LetterView) -> bool + Send + Sync),
    progress: &(dyn Fn(Acted) + Send + Sync),
) -> PortResult<Acted> {
    let mut acted = Acted::default();
    loop {
        let mut page = pages.next().await?;
        if page.is_empty() {
            return Ok(acted);
        }
        page.retain(chosen);
        acted.found += page.len() as u64;
        acted.outcome += match action {
            Action::Retry { ports, source } => retry(ports, source.source(), &page).await?,
            Action::Discard { registry } => discard(*registry, pages.letters, &page).await?,
        };
        progress(acted);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tidewheel_testkit::fakes::ownership::FakeRegistry;
    use tidewheel_testkit::fakes::streams::FakeStreams;

    use super::*;
    use crate::dead_letters::AT_ONCE;

    /// A Redis with this many undecodable dead letters in stage 1.
    fn streams(count: usize) -> FakeStreams {
        let streams = FakeStreams::new();
        (0..count).for_each(|_| add(&streams));
        streams
    }

    fn add(streams: &FakeStreams) {
        streams.add_letter(Stage::Raw, vec![(b"reason".to_vec(), b"why".to_vec())]);
    }

    #[tokio::test]
    async fn exactly_the_planned_dead_letters_are_deleted_page_by_page() {
        let all = 2 * AT_ONCE as u64 + 7;
        let (streams, registry) = (streams(2 * AT_ONCE + 7), FakeRegistry::default());
        let letters = streams.dead_letters();
        let plan = plan(&letters, &Filter::default(), 20).await.unwrap();
        assert_eq!((plan.listing.matching, plan.listing.letters.len()), (all, 20));
        assert_eq!((plan.unreadable, plan.reread), (all, 0));
        // One arrives after the plan was confirmed.
        add(&streams);
        let seen = Mutex::new(Vec::new());
        let progress = |acted: Acted| seen.lock().unwrap().push(acted.found);
        let action = Action::Discard { registry: &registry };
        let acted = act(&action, plan.pages(&letters), &|_| true, &progress).await.unwrap();
        assert_eq!(acted.outcome_of(all), Outcome { done: all, ..Outcome::default() });
        let seen = seen.into_inner().unwrap();
        assert!(seen.len() == 3 && seen.is_sorted() && seen.last() == Some(&all), "{seen:?}");
        assert_eq!(letters.count(Stage::Raw).await.unwrap(), 1, "the later one stays");
    }

    #[tokio::test]
    async fn dead_letters_that_another_process_handled_are_gone() {
        let (streams, registry) = (streams(3), FakeRegistry::default());
        let letters = streams.dead_letters();
        let plan = plan(&letters, &Filter::default(), 20).await.unwrap();
        discard(&registry, &letters, &plan.listing.letters[..1]).await.unwrap();
        let action = Action::Discard { registry: &registry };
        let acted = act(&action, plan.pages(&letters), &|_| true, &|_| {}).await.unwrap();
        assert_eq!(acted.outcome_of(plan.listing.matching), Outcome { done: 2, gone: 1, ..Outcome::default() });
    }

    #[tokio::test]
    async fn only_chosen_dead_letters_are_deleted() {
        let (streams, registry) = (streams(3), FakeRegistry::default());
        let letters = streams.dead_letters();
        let filter = Filter::default();
        let second = plan(&letters, &filter, 20).await.unwrap().listing.letters.swap_remove(1).id;
        let action = Action::Discard { registry: &registry };
        let chosen = |letter: &LetterView| letter.id == second;
        let acted = act(&action, Pages::new(&letters, &filter), &chosen, &|_| {}).await.unwrap();
        assert_eq!((acted.found, acted.outcome.done), (1, 1));
        let left = plan(&letters, &filter, 20).await.unwrap().listing.letters;
        assert!(left.len() == 2 && left.iter().all(|letter| letter.id != second), "{left:?}");
    }
}
