//! The request queue, which schedules texts into tiles. Pure logic.
//!
//! Guarantees:
//! - every pushed text is in exactly one tile, unless its request was abandoned;
//! - a tile holds at most the given number of tokens, unless it is a single longer text;
//! - no starvation: a request is overtaken only by smaller ones, and only by those that arrive before as many tokens
//!   as it has itself were taken;
//! - a request that fits into one tile never shares a tile with one that does not;
//! - a tile has texts of one model only. The order does not depend on the model.
//!
//! The order is shortest request first with ageing: a request's rank is the number of tokens taken before it arrived
//! plus its own. A search of 20 tokens precedes a backfill of 50,000, and the backfill precedes every search that
//! arrives after 50,000 more tokens were taken.

use std::collections::BTreeMap;
use std::ops::Bound;

/// Maximum requests examined per tile. Enough to fill it from requests of one short text each.
const SCAN: usize = 64;

/// What all requests of a tile have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// The number of the model.
    pub(super) model: usize,
    /// The most tokens that a tile of this model gains from; at least 1.
    pub(super) tile: usize,
}

/// One text of a tile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece<T> {
    /// Its request.
    pub(super) ticket: T,
    /// Its index in the request.
    pub(super) index: usize,
}

/// The result of [`Queue::take`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tile<T> {
    /// The texts to compute together; empty if the queue is empty.
    pub(super) pieces: Vec<Piece<T>>,
    /// Their tokens.
    pub(super) tokens: usize,
    /// Its capacity in tokens; 0 if it is empty.
    pub(super) room: usize,
    /// Abandoned requests dropped from the queue.
    pub(super) abandoned: usize,
}

type Rank = (u64, u64);

struct Entry<T> {
    ticket: T,
    kind: Kind,
    /// Tokens of the whole request.
    size: usize,
    /// Texts not yet taken: tokens and index, shortest first.
    texts: Vec<(u32, u32)>,
    /// Their tokens.
    left: usize,
}

/// The queued requests.
pub(super) struct Queue<T> {
    entries: BTreeMap<Rank, Entry<T>>,
    taken: u64,
    serial: u64,
    tokens: usize,
}

impl<T: Clone> Queue<T> {
    pub(super) fn new() -> Self {
        Self { entries: BTreeMap::new(), taken: 0, serial: 0, tokens: 0 }
    }

    /// Returns the number of queued tokens.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Returns the number of requests with at least one queued text.
    pub(super) fn requests(&self) -> usize {
        self.entries.len()
    }

    /// Adds a request with texts of these lengths. A text without tokens counts as one token, so that it has a cost.
    pub(super) fn push(&mut self, ticket: T, kind: Kind, lengths: &[usize]) {
        let count = |length: &usize| u32::try_from((*length).max(1)).unwrap_or(u32::MAX);
        let mut texts: Vec<(u32, u32)> = lengths.iter().map(count).zip(0..).collect();
        if texts.is_empty() {
            return;
        }
        texts.sort_unstable_by_key(|&(length, index)| (length, std::cmp::Reverse(index)));
        let size: usize = texts.iter().map(|&(length, _)| length as usize).sum();
        self.tokens += size;
        self.serial += 1;
        let rank = (self.taken + size as u64, self.serial);
        self.entries.insert(rank, Entry { ticket, kind, size, texts, left: size });
    }

    /// Takes the next tile. `room` returns its capacity for the tile size of a model, at least 1. All requests of a tile
    /// are of one model, and either all fit into a tile of that size, or none does.
    pub(super) fn take(&mut self, room: impl Fn(usize) -> usize, abandoned: impl Fn(&T) -> bool) -> Tile<T> {
        let mut tile = Tile { pieces: Vec::new(), tokens: 0, room: 0, abandoned: 0 };
        let mut first = None;
        let mut after = Bound::Unbounded;
        for _ in 0..SCAN {
            if first.is_some() && tile.tokens >= tile.room {
                break;
            }
            let Some((&rank, entry)) = self.entries.range_mut((after, Bound::Unbounded)).next() else { break };
            after = Bound::Excluded(rank);
            if abandoned(&entry.ticket) {
                self.tokens -= entry.left;
                tile.abandoned += 1;
                self.entries.remove(&rank);
                continue;
            }
            let of = (entry.kind, entry.size <= entry.kind.tile);
            if first.is_none() {
                tile.room = room(entry.kind.tile);
            }
            if *first.get_or_insert(of) != of {
                continue;
            }
            entry.fill(&mut tile);
            if entry.texts.is_empty() {
                self.entries.remove(&rank);
            }
        }
        self.tokens -= tile.tokens;
        self.taken += tile.tokens as u64;
        tile
    }

    /// Removes and returns all requests.
    pub(super) fn clear(&mut self) -> Vec<T> {
        self.tokens = 0;
        std::mem::take(&mut self.entries).into_values().map(|entry| entry.ticket).collect()
    }
}

impl<T: Clone> Entry<T> {
    /// Moves texts into the tile, the longest that fits first, so that short ones fill the rest.
    fn fill(&mut self, tile: &mut Tile<T>) {
        loop {
            let free = tile.room.saturating_sub(tile.tokens);
            let mut fitting = self.texts.partition_point(|&(length, _)| length as usize <= free);
            if fitting == 0 && tile.pieces.is_empty() {
                // A text longer than a tile is computed alone.
                fitting = usize::from(!self.texts.is_empty());
            }
            let Some(at) = fitting.checked_sub(1) else { return };
            let (length, index) = self.texts.remove(at);
            self.left -= length as usize;
            tile.tokens += length as usize;
            tile.pieces.push(Piece { ticket: self.ticket.clone(), index: index as usize });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const ONE: Kind = Kind { model: 0, tile: 256 };
    const OTHER: Kind = Kind { model: 1, tile: 128 };

    fn take(queue: &mut Queue<usize>) -> Vec<(usize, usize)> {
        queue.take(|tile| tile, |_| false).pieces.into_iter().map(|piece| (piece.ticket, piece.index)).collect()
    }

    #[test]
    fn search_precedes_backfill_in_its_own_tile() {
        let mut queue = Queue::new();
        queue.push(0, ONE, &[200; 100]);
        assert_eq!(take(&mut queue), [(0, 0)]);
        queue.push(1, ONE, &[20]);
        assert_eq!(take(&mut queue), [(1, 0)]);
        assert_eq!(take(&mut queue), [(0, 1)]);
    }

    #[test]
    fn small_requests_share_a_tile() {
        let mut queue = Queue::new();
        for request in 0..10 {
            queue.push(request, ONE, &[50]);
        }
        assert_eq!(take(&mut queue), [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)]);
    }

    #[test]
    fn tile_has_texts_of_one_model_in_the_order_of_all() {
        let mut queue = Queue::new();
        for request in 0..6 {
            queue.push(request, if request % 2 == 0 { ONE } else { OTHER }, &[30]);
        }
        assert_eq!(take(&mut queue), [(0, 0), (2, 0), (4, 0)]);
        assert_eq!(take(&mut queue), [(1, 0), (3, 0), (5, 0)]);
    }

    #[test]
    fn search_precedes_backfill_of_another_model() {
        let mut queue = Queue::new();
        queue.push(0, ONE, &[200; 100]);
        queue.push(1, OTHER, &[20]);
        assert_eq!(take(&mut queue), [(1, 0)]);
        queue.push(2, ONE, &[20]);
        assert_eq!(take(&mut queue), [(2, 0)]);
        assert_eq!(take(&mut queue), [(0, 0)]);
    }

    #[test]
    fn capacity_follows_the_model_of_the_tile() {
        let mut queue = Queue::new();
        queue.push(0, OTHER, &[50; 4]);
        let tile = queue.take(|tile| tile, |_| false);
        assert_eq!((tile.room, tile.tokens, tile.pieces.len()), (128, 100, 2));
        assert_eq!(queue.take(|tile| tile / 2, |_| false).tokens, 50);
        assert_eq!(Queue::<usize>::new().take(|tile| tile, |_| false).room, 0);
    }

    #[test]
    fn continuous_searches_do_not_starve_backfill() {
        let mut queue = Queue::new();
        queue.push(0, ONE, &[200; 10]);
        let mut searches = 0;
        while queue.entries.values().any(|entry| entry.ticket == 0) {
            searches += 1;
            queue.push(searches, ONE, &[100]);
            queue.push(searches, ONE, &[100]);
            take(&mut queue);
        }
        // 2,000 tokens are overtaken by about 2,000 at most and then computed consecutively.
        assert!(searches <= 10 + 10 + 1, "{searches}");
    }

    #[test]
    fn abandoned_request_is_dropped_and_no_longer_counted() {
        let mut queue = Queue::new();
        queue.push(0, ONE, &[10, 10]);
        queue.push(1, ONE, &[30]);
        let tile = queue.take(|tile| tile, |ticket| *ticket == 0);
        assert_eq!((tile.pieces.len(), tile.tokens, tile.abandoned), (1, 30, 1));
        assert_eq!((queue.tokens(), queue.requests()), (0, 0));
    }

    proptest! {
        #[test]
        fn every_text_is_taken_once_in_tiles_within_the_limit(
            requests in prop::collection::vec((any::<bool>(), prop::collection::vec(0usize..400, 0..40)), 0..30),
            room in 1usize..300,
        ) {
            let mut queue = Queue::new();
            for (ticket, (other, lengths)) in requests.iter().enumerate() {
                queue.push(ticket, if *other { OTHER } else { ONE }, lengths);
            }
            let mut seen = BTreeSet::new();
            loop {
                let before = queue.tokens();
                let tile = queue.take(|_| room, |_| false);
                if tile.pieces.is_empty() {
                    break;
                }
                prop_assert!(tile.tokens <= room || tile.pieces.len() == 1);
                let models: BTreeSet<bool> = tile.pieces.iter().map(|piece| requests[piece.ticket].0).collect();
                prop_assert_eq!(models.len(), 1, "one model");
                prop_assert_eq!(before - tile.tokens, queue.tokens());
                for piece in tile.pieces {
                    prop_assert!(seen.insert((piece.ticket, piece.index)), "taken twice");
                }
            }
            prop_assert_eq!(seen.len(), requests.iter().map(|(_, lengths)| lengths.len()).sum::<usize>());
            prop_assert_eq!((queue.tokens(), queue.requests()), (0, 0));
        }
    }
}
