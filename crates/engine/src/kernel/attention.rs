//! Attention of one head within one text.

use std::marker::PhantomData;

use super::matmul::multiply;
use super::{AttentionElement, Isa, LINE, Task};

/// Sizes of attention's scratch memory, in 32-bit values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct AttentionScratch {
    /// Keys, padded to whole panels and lines.
    pub keys: usize,
    /// Width of a head, padded likewise.
    pub width: usize,
    pub key_panels: usize,
    pub value_panels: usize,
    pub panel_rows: usize,
    pub queries: usize,
    pub scores: usize,
    pub weights: usize,
}

impl AttentionScratch {
    /// Computes the sizes for texts of up to `tokens` tokens and heads of (padded) `width`.
    pub(in super::super) fn new<V: Isa, A: AttentionElement<V>>(tokens: usize, width: usize) -> Self {
        let keys = padded_keys::<V, A>(tokens);
        Self {
            keys,
            width,
            key_panels: keys * width / A::GROUP,
            value_panels: keys * width / A::GROUP,
            panel_rows: V::PANEL * width / A::GROUP,
            queries: V::ROWS * width / A::GROUP,
            scores: V::ROWS * keys,
            weights: V::ROWS * keys / A::GROUP,
        }
    }

    /// Returns the total size.
    pub(in super::super) fn places(&self) -> usize {
        self.key_panels + self.value_panels + self.panel_rows + self.queries + self.scores + self.weights
    }
}

/// Rounds a number of keys up to whole panels and whole lines.
fn padded_keys<V: Isa, A: AttentionElement<V>>(tokens: usize) -> usize {
    tokens.next_multiple_of(V::PANEL.max(LINE * A::GROUP))
}

/// Replaces the queries of one head and one text with the attention output.
///
/// The queries were multiplied by `log2(e) / √(head width)` (at load, in their weights), so that attention weights are
/// powers of two of the scores.
#[derive(Clone, Debug)]
pub(in super::super) struct Attention<A> {
    /// `tokens` rows of `width`, `query_stride` apart; overwritten with the result.
    pub queries: *mut f32,
    pub query_stride: usize,
    /// `tokens` consecutive rows of `width`.
    pub keys: *const f32,
    /// Likewise.
    pub values: *const f32,
    pub tokens: usize,
    /// The padded width of a head.
    pub width: usize,
    /// [`AttentionScratch::places`] values owned by this thread, aligned to a line.
    pub scratch: *mut u32,
    pub sizes: AttentionScratch,
    pub element: PhantomData<A>,
}

impl<V: Isa, A: AttentionElement<V>> Task<V> for Attention<A> {
    #[inline(always)]
    unsafe fn call(self) {
        let keys = padded_keys::<V, A>(self.tokens);
        let areas = self.areas();
        self.pack_keys::<V>(keys, areas);
        self.pack_values::<V>(keys, areas);
        for row in (0..self.tokens).step_by(V::ROWS) {
            let rows = (self.tokens - row).min(V::ROWS);
            match rows {
                9.. if V::ROWS >= 12 => self.rows::<V, 12>(row, rows, keys, areas),
                5..=8 if V::ROWS >= 8 => self.rows::<V, 8>(row, rows, keys, areas),
                5.. if V::ROWS == 6 => self.rows::<V, 6>(row, rows, keys, areas),
                _ => self.rows::<V, 4>(row, rows, keys, areas),
            }
        }
    }
}

/// The areas of the scratch memory.
#[derive(Clone, Copy)]
struct Areas {
    /// Keys as weights.
    key_panels: *mut u32,
    /// Values as weights.
    value_panels: *mut u32,
    /// Packed keys of one panel, before they are transposed.
    panel_rows: *mut u32,
    /// One block of packed queries.
    queries: *mut u32,
    /// One block of scores: a row of numbers for each query.
    scores: *mut f32,
    /// The same, packed.
    weights: *mut u32,
}

/// Finite, but far below every score: its power of two is exactly 0.
const MASKED: f32 = -1e30;

impl<A> Attention<A> {
    #[inline(always)]
    unsafe fn areas(&self) -> Areas {
        let key_panels = self.scratch;
        let value_panels = key_panels.add(self.sizes.key_panels);
        let panel_rows = value_panels.add(self.sizes.value_panels);
        let queries = panel_rows.add(self.sizes.panel_rows);
        let scores = queries.add(self.sizes.queries).cast::<f32>();
        let weights = scores.add(self.sizes.scores).cast::<u32>();
        Areas { key_panels, value_panels, panel_rows, queries, scores, weights }
    }

    /// Keys as weights: a column for each key, an input for each number of the head.
    #[inline(always)]
    unsafe fn pack_keys<V: Isa>(&self, keys: usize, areas: Areas)
    where
        A: AttentionElement<V>,
    {
        let words = self.width / A::GROUP;
        for first in (0..keys).step_by(V::PANEL) {
            for n in 0..V::PANEL {
                let row = areas.panel_rows.add(n * words);
                if first + n < self.tokens {
                    A::pack_row(self.keys.add((first + n) * self.width), words / LINE, row, LINE);
                } else {
                    std::ptr::write_bytes(row, 0, words);
                }
            }
            V::transpose(areas.panel_rows, words, words, areas.key_panels.add(first * words));
        }
    }

    /// Values as weights: a column for each number of the head, an input for each key.
    #[inline(always)]
    unsafe fn pack_values<V: Isa>(&self, keys: usize, areas: Areas)
    where
        A: AttentionElement<V>,
    {
        let words = keys / A::GROUP;
        for panel in 0..self.width / V::PANEL {
            for word in 0..words {
                let row = word * A::GROUP;
                A::pack_panel_row(
                    // Nothing is read beyond the last token.
                    self.values.wrapping_add(row * self.width + panel * V::PANEL),
                    self.width,
                    self.tokens.saturating_sub(row),
                    areas.value_panels.add((panel * words + word) * V::PANEL),
                );
            }
        }
    }

    #[inline(always)]
    unsafe fn rows<V: Isa, const M: usize>(&self, row: usize, rows: usize, keys: usize, areas: Areas)
    where
        A: AttentionElement<V>,
    {
        let Areas { key_panels, value_panels, queries, scores, weights, .. } = areas;
        let words = self.width / A::GROUP;
        for r in 0..rows {
            let from = self.queries.add((row + r) * self.query_stride);
            A::pack_row(from, words / LINE, queries.add(r * LINE), V::ROWS * LINE);
        }
        for first in (0..keys).step_by(V::PANEL) {
            let sums = multiply::<V, A, M>(words / LINE, queries, key_panels.add(first * words));
            for r in 0..M {
                for half in 0..2 {
                    V::store(scores.add(r * keys + first + half * V::LANES), A::plain(sums[r][half]));
                }
            }
        }
        let mut factors = [0.0; M];
        let lines = keys / (LINE * A::GROUP);
        for r in 0..rows {
            factors[r] = self.softmax::<V>(scores.add(r * keys), keys, weights.add(r * LINE)).recip();
        }
        for panel in 0..self.width / V::PANEL {
            let sums = multiply::<V, A, M>(lines, weights, value_panels.add(panel * keys / A::GROUP * V::PANEL));
            for r in 0..M {
                if r < rows {
                    let factor = V::splat(factors[r]);
                    let to = self.queries.add((row + r) * self.query_stride + panel * V::PANEL);
                    for half in 0..2 {
                        V::store(to.add(half * V::LANES), V::mul(A::plain(sums[r][half]), factor));
                    }
                }
            }
        }
    }

    /// Packs `2^(score - largest)` of one row of scores, and returns the sum of the powers.
    #[inline(always)]
    unsafe fn softmax<V: Isa>(&self, scores: *mut f32, keys: usize, to: *mut u32) -> f32
    where
        A: AttentionElement<V>,
    {
        for at in self.tokens..keys {
            *scores.add(at) = MASKED;
        }
        let mut largest = V::splat(MASKED);
        for at in (0..keys).step_by(V::LANES) {
            largest = V::max(largest, V::load(scores.add(at)));
        }
        let largest = V::splat(V::largest(largest));
        let mut total = V::splat(0.0);
        for line in 0..keys / (LINE * A::GROUP) {
            let powers = A::pack_powers(scores.add(line * LINE * A::GROUP), largest, to.add(line * V::ROWS * LINE));
            total = V::add(total, powers);
        }
        V::total(total)
    }
}
