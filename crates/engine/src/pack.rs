//! Packs texts into tiles.
//!
//! Guarantees: every text is in exactly one tile; a tile's tokens are at most the limit, unless it is a single longer
//! text; longer texts come first, so that the last tiles are the shortest to wait for.

/// Packs texts of these lengths (in tokens) into tiles of at most `max_tokens`, first fit by decreasing length: at
/// most about a quarter more tiles than the best possible packing, and in practice nearly full ones.
///
/// Each tile is a list of indices into `lengths`.
#[must_use]
pub fn pack(lengths: &[usize], max_tokens: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    // Equal lengths keep their order: the same batch always packs the same way.
    order.sort_by_key(|&index| std::cmp::Reverse(lengths[index]));
    let mut tiles: Vec<Vec<usize>> = Vec::new();
    // A max tree of the remaining room of each tile finds the first tile with room in logarithmic time.
    let mut rooms = Rooms::new(lengths.len());
    for index in order {
        let length = lengths[index];
        let tile = match rooms.first_with(length) {
            Some(tile) if tile < tiles.len() => tile,
            _ => {
                tiles.push(Vec::new());
                rooms.set(tiles.len() - 1, Some(max_tokens));
                tiles.len() - 1
            }
        };
        tiles[tile].push(index);
        // A text longer than a tile gets its own tile.
        rooms.set(tile, rooms.get(tile).and_then(|room| room.checked_sub(length)));
    }
    tiles
}

/// A max tree of the room left in each tile (`None`: not open), in the layout of a binary heap.
struct Rooms {
    leaves: usize,
    nodes: Vec<Option<usize>>,
}

impl Rooms {
    fn new(tiles: usize) -> Self {
        let leaves = tiles.next_power_of_two();
        Self { leaves, nodes: vec![None; 2 * leaves] }
    }

    fn get(&self, tile: usize) -> Option<usize> {
        self.nodes[self.leaves + tile]
    }

    fn set(&mut self, tile: usize, room: Option<usize>) {
        let mut node = self.leaves + tile;
        self.nodes[node] = room;
        while node > 1 {
            node /= 2;
            self.nodes[node] = self.nodes[2 * node].max(self.nodes[2 * node + 1]);
        }
    }

    /// Returns the first open tile with room for `length` tokens.
    fn first_with(&self, length: usize) -> Option<usize> {
        let fits = |node: usize| self.nodes[node].is_some_and(|room| room >= length);
        if !fits(1) {
            return None;
        }
        let mut node = 1;
        while node < self.leaves {
            node = if fits(2 * node) { 2 * node } else { 2 * node + 1 };
        }
        Some(node - self.leaves)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::pack;

    proptest! {
        #[test]
        fn every_text_is_in_one_tile_within_the_limit(
            lengths in prop::collection::vec(0usize..300, 0..200),
            max_tokens in 1usize..300,
        ) {
            let tiles = pack(&lengths, max_tokens);
            let mut seen: Vec<usize> = tiles.iter().flatten().copied().collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            for tile in &tiles {
                let tokens: usize = tile.iter().map(|&index| lengths[index]).sum();
                prop_assert!(tokens <= max_tokens || tile.len() == 1, "{tokens} tokens in {tile:?}");
            }
        }

        #[test]
        fn no_two_tiles_could_be_merged(
            lengths in prop::collection::vec(1usize..300, 0..100),
            max_tokens in 1usize..300,
        ) {
            let tiles = pack(&lengths, max_tokens);
            let tokens: Vec<usize> =
                tiles.iter().map(|tile| tile.iter().map(|&index| lengths[index]).sum()).collect();
            for (n, a) in tokens.iter().enumerate() {
                for b in &tokens[..n] {
                    prop_assert!(a + b > max_tokens, "{tokens:?}");
                }
            }
        }

        #[test]
        fn longest_texts_come_first(lengths in prop::collection::vec(0usize..300, 1..100)) {
            let tiles = pack(&lengths, 256);
            let longest: Vec<usize> = tiles.iter().map(|tile| lengths[tile[0]]).collect();
            prop_assert!(longest.is_sorted_by(|a, b| a >= b), "{longest:?}");
        }
    }

    #[test]
    fn pack_fills_tiles_completely() {
        assert_eq!(pack(&[100, 200, 56, 156], 256), [vec![1, 2], vec![3, 0]]);
        assert_eq!(pack(&[300, 0, 256], 256), [vec![0], vec![2, 1]]);
        assert!(pack(&[], 256).is_empty());
    }
}
