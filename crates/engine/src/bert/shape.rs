//! The padded sizes of a model, and the memory layout of a tile's intermediate results. Pure arithmetic.

use crate::buffer::LINE;
use crate::kernel::{AttentionElement, AttentionScratch, Element, Isa};
use crate::model::Description;

/// Bytes of a weight matrix assumed to stay in the L2 cache: about half of the 1 MB that servers have had for years; the
/// rest is for activations.
const CACHED_WEIGHTS: usize = 600 << 10;

/// The sizes of a model as computed: every dimension is zero-padded to multiples of registers and cache lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub hidden: usize,
    pub padded_hidden: usize,
    pub heads: usize,
    pub head: usize,
    pub padded_head: usize,
    /// All padded heads, padded once more to whole lines.
    pub gathered: usize,
    /// Number of feed-forward chunks, sized to stay in the cache.
    pub chunks: usize,
    /// Width of a feed-forward chunk.
    pub chunk: usize,
}

impl Shape {
    /// Computes the padded sizes; `None` if a size is 0 or overflows.
    pub(super) fn new<V: Isa, E: Element<V>, A: AttentionElement<V>>(model: &Description) -> Option<Self> {
        let unit = V::PANEL.max(LINE * E::GROUP);
        let padded_hidden = model.hidden.checked_next_multiple_of(unit)?;
        let head = model.hidden.checked_div(model.heads)?;
        let padded_head = head.checked_next_multiple_of(V::PANEL.max(LINE * A::GROUP))?;
        let widest = CACHED_WEIGHTS.checked_div(padded_hidden.checked_mul(4)? / E::GROUP)?.max(unit);
        let chunks = model.intermediate.div_ceil(widest).max(1);
        let chunk = model.intermediate.div_ceil(chunks).checked_next_multiple_of(unit)?;
        let sizes_are_set = model.hidden > 0 && head > 0 && model.intermediate > 0;
        sizes_are_set.then_some(Self {
            hidden: model.hidden,
            padded_hidden,
            heads: model.heads,
            head,
            padded_head,
            gathered: model.heads.checked_mul(padded_head)?.checked_next_multiple_of(unit)?,
            chunks,
            chunk,
        })
    }

    /// Returns how many panels of a weight matrix with this many input lines stay in the cache together.
    pub(super) fn panel_group<V: Isa>(lines: usize) -> usize {
        (CACHED_WEIGHTS / (lines * LINE * V::PANEL * 4)).max(1)
    }
}

/// The layout of a workspace, in units of 32-bit values. All offsets are multiples of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Rows (tokens) that fit: a multiple of [`Isa::ROWS`].
    pub capacity: usize,
    /// Number of threads that share a pass.
    pub members: usize,
    /// The residual: `capacity` rows of `padded_hidden`.
    pub residual: usize,
    /// The packed operand of the next product, and its terms.
    pub operand: usize,
    pub operand_terms: usize,
    /// Queries, later replaced by the attention output: `capacity` rows of `gathered`.
    pub queries: usize,
    /// Keys and values: for each of them and each head, `capacity` rows of `padded_head`.
    pub heads: usize,
    /// Packed activations of the feed-forward layer: one chunk, or all of them if threads compute them concurrently; and
    /// their terms.
    pub inner: usize,
    pub inner_stride: usize,
    pub inner_terms: usize,
    /// For each thread: a block of the feed-forward layer, then the attention scratch.
    pub private: usize,
    pub private_stride: usize,
    /// Offset of the attention scratch within a thread's area.
    pub attention: usize,
    pub attention_sizes: AttentionScratch,
    /// Total size.
    pub places: usize,
}

/// Maximum workspace size in 32-bit values: 8 GiB. The largest models of this family need a hundredth of it.
const MOST_PLACES: usize = 2 << 30;

impl Layout {
    /// Computes the layout; `None` if it exceeds [`MOST_PLACES`].
    pub(super) fn new<V: Isa, E: Element<V>, A: AttentionElement<V>>(
        shape: &Shape,
        tokens: usize,
        longest: usize,
        members: usize,
    ) -> Option<Self> {
        // Each factor is far below 2^32 (see `Shape::new` and the description's limits), and so is each product here.
        let product = |factors: &[usize]| {
            factors.iter().try_fold(1, |all: usize, &factor| all.checked_mul(factor)).filter(|all| *all <= MOST_PLACES)
        };
        let capacity = tokens.checked_next_multiple_of(V::ROWS)?;
        let mut places = 0;
        let mut area = |size: usize| {
            let start = places;
            places += size.next_multiple_of(LINE);
            (places <= MOST_PLACES).then_some(start)
        };
        let chunks = if members > 1 { shape.chunks } else { 1 };
        let inner_stride = product(&[capacity, shape.chunk])? / E::GROUP;
        // The largest parts of attention's scratch: keys of one head, and scores of one block.
        let keys = longest.checked_next_multiple_of(V::PANEL.max(LINE * A::GROUP))?;
        product(&[keys, shape.padded_head.max(V::ROWS)])?;
        let attention_sizes = AttentionScratch::new::<V, A>(longest, shape.padded_head);
        let block = product(&[V::ROWS, shape.chunk])?.next_multiple_of(LINE);
        let private_stride = (block + attention_sizes.places()).next_multiple_of(LINE);
        Some(Self {
            capacity,
            members,
            residual: area(product(&[capacity, shape.padded_hidden])?)?,
            operand: area(product(&[capacity, shape.padded_hidden.max(shape.gathered)])? / E::GROUP)?,
            operand_terms: area(product(&[capacity, 2])?)?,
            queries: area(product(&[capacity, shape.gathered])?)?,
            heads: area(product(&[2, shape.heads, capacity, shape.padded_head])?)?,
            inner: area(product(&[chunks, inner_stride])?)?,
            inner_stride,
            inner_terms: area(product(&[chunks, capacity, 2])?)?,
            private: area(product(&[members, private_stride])?)?,
            private_stride,
            attention: block,
            attention_sizes,
            places,
        })
    }
}

/// Splits a product of `blocks` by `panels` tiles among `members`: returns the number of parts of the panels and of the
/// blocks. The total is at most `members`, and the largest part is as small as possible; among equals, panels are split
/// rather than blocks, so that fewer weights are read.
pub(super) fn grid(members: usize, blocks: usize, panels: usize) -> (usize, usize) {
    (1..=members)
        .rev()
        .map(|columns| (columns, members / columns))
        .min_by_key(|&(columns, rows)| panels.div_ceil(columns) * blocks.div_ceil(rows))
        .unwrap_or((1, 1))
}

/// Returns part `index` of `0..length`, split into `parts` parts whose lengths differ by at most one.
pub(super) fn part(length: usize, index: usize, parts: usize) -> std::ops::Range<usize> {
    length * index / parts..length * (index + 1) / parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{grid, part};

    proptest! {
        #[test]
        fn grid_assigns_every_block_to_one_member(members in 1usize..40, blocks in 1usize..30, panels in 1usize..60) {
            let (columns, rows) = grid(members, blocks, panels);
            prop_assert!(columns * rows <= members && columns > 0 && rows > 0);
            let mut owners = vec![0; blocks * panels];
            for member in 0..columns * rows {
                for block in part(blocks, member / columns, rows) {
                    for panel in part(panels, member % columns, columns) {
                        owners[block * panels + panel] += 1;
                    }
                }
            }
            prop_assert!(owners.iter().all(|&owners| owners == 1));
        }
    }

    #[test]
    fn grid_balances_work() {
        assert_eq!(grid(1, 22, 36), (1, 1));
        assert_eq!(grid(2, 22, 12), (2, 1));
        assert_eq!(grid(8, 6, 12), (4, 2));
        assert_eq!(grid(16, 18, 12), (4, 4));
    }
}
