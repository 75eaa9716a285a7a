//! The forward pass over one tile.
//!
//! A tile is computed by one thread, or shared by a thread pool: the steps are the same, and each value is computed by the
//! same operations in the same order, so that the result does not depend on the number of threads.
//!
//! Invariants required by the `unsafe` code:
//! * `memory` is valid for [`Layout::places`], aligned to a line, and exclusive to this pass.
//! * Within a step, a unit writes only to its own rows, columns, heads or chunks, and reads only those and the output of
//!   earlier steps.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;

use super::shape::{Layout, Shape, grid, part};
use super::weights::PackedLinear;
use super::{LayerWeights, Network, PaddedNorm};
use crate::Text;
use crate::kernel::{
    Activate, Add, Attention, AttentionElement, Element, EmbedRows, Epilogue, Isa, LINE, MatMul, NormRows, NormTerms,
    Output, PackRows, Packed, RowTerms, Store,
};

/// A forward pass over texts in consecutive rows of a tile.
pub(super) struct Pass<'a, V: Isa, E, A> {
    network: &'a Network<V, E, A>,
    layout: &'a Layout,
    texts: &'a [Text<'a>],
    /// Tokens of all texts.
    rows: usize,
    memory: *mut f32,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: threads share a pass, and through it `memory`, only under the invariants of this module; everything else in it
// is read-only.
unsafe impl<V: Isa, E: Sync, A: Sync> Sync for Pass<'_, V, E, A> {}

/// Units of a product per thread: enough that a late or preempted thread takes fewer, and the wait for the last unit is
/// short.
const UNITS_PER_MEMBER: usize = 4;

/// A step of a layer, in execution order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Project,
    Attend,
    Gather,
    Output,
    NormalizeAttention,
    Up,
    Down,
    NormalizeOutput,
}

/// The steps of a layer.
const STEPS: [Step; 8] = [
    Step::Project,
    Step::Attend,
    Step::Gather,
    Step::Output,
    Step::NormalizeAttention,
    Step::Up,
    Step::Down,
    Step::NormalizeOutput,
];

impl<'a, V: Isa, E: Element<V>, A: AttentionElement<V>> Pass<'a, V, E, A> {
    /// # Panics
    /// The memory is too small for the layout, the layout for the texts, or the network for their ids and lengths.
    pub(super) fn new(
        network: &'a Network<V, E, A>,
        layout: &'a Layout,
        texts: &'a [Text<'a>],
        memory: &'a mut [f32],
    ) -> Self {
        let rows = texts.iter().map(|text| text.ids.len()).sum();
        assert!(memory.len() >= layout.places && rows <= layout.capacity, "{rows} tokens in {layout:?}");
        assert!(memory.as_ptr().addr().is_multiple_of(4 * LINE), "memory that is not aligned to a line");
        for Text { ids, .. } in texts {
            assert!(ids.len() <= network.max_tokens, "a text of {} tokens", ids.len());
            assert!(ids.iter().all(|&id| (id as usize) < network.vocabulary), "an id beyond the vocabulary");
        }
        Self { network, layout, texts, rows, memory: memory.as_mut_ptr(), borrow: PhantomData }
    }

    /// Computes the pass on the calling thread. The feed-forward layer is computed chunk by chunk, so that its
    /// intermediate values stay cached.
    pub(super) fn alone(&mut self) {
        debug_assert_eq!(self.layout.members, 1);
        let (blocks, rows, heads) = (0..self.blocks(), 0..self.rows, self.network.shape.heads);
        // SAFETY: `self` is borrowed exclusively: this thread computes all units of all steps sequentially.
        unsafe {
            self.embed(rows.clone());
            for layer in &self.network.layers {
                for (weights, output) in self.projections(layer) {
                    let operand = self.operand(weights.lines);
                    self.product(weights, operand, output, Store, blocks.clone(), 0..weights.panels);
                }
                (0..heads).for_each(|head| self.attend(head, 0));
                self.gather(rows.clone());
                let (weights, operand) = (&layer.output, self.operand(layer.output.lines));
                self.product(weights, operand, self.to_residual(), Add, blocks.clone(), 0..weights.panels);
                self.normalize(rows.clone(), &layer.attention_norm);
                for chunk in 0..self.network.shape.chunks {
                    self.up(layer, chunk, blocks.clone(), 0);
                    let weights = &layer.down[chunk];
                    let operand = self.inner(chunk);
                    self.product(weights, operand, self.to_residual(), Add, blocks.clone(), 0..weights.panels);
                }
                self.normalize(rows.clone(), &layer.output_norm);
            }
        }
    }

    /// Returns the number of units of each step for a thread pool; see [`Pass::unit`].
    pub(super) fn units(&self) -> Vec<usize> {
        let Shape { heads, chunks, .. } = self.network.shape;
        let blocks = self.blocks();
        let layer = |layer: &LayerWeights| {
            STEPS.map(|step| match step {
                Step::Project => self.shares(&layer.query) + self.shares(&layer.key_value),
                Step::Attend => heads,
                Step::Gather | Step::NormalizeAttention | Step::NormalizeOutput => blocks,
                Step::Output => self.shares(&layer.output),
                Step::Up => chunks * blocks,
                Step::Down => self.shares(&layer.down[0]),
            })
        };
        std::iter::once(blocks).chain(self.network.layers.iter().flat_map(layer)).collect()
    }

    /// Computes one unit of a step.
    ///
    /// # Safety
    /// Each unit is computed once, and all units of a step before any of the next. `member` is below the layout's
    /// `members`, and no two threads use the same value concurrently.
    pub(super) unsafe fn unit(&self, step: usize, unit: usize, member: usize) {
        // SAFETY: within a step each unit has its own rows, columns, head or chunk.
        unsafe {
            let Some(step) = step.checked_sub(1) else { return self.embed(self.rows_of(unit)) };
            let layer = &self.network.layers[step / STEPS.len()];
            match STEPS[step % STEPS.len()] {
                Step::Project => {
                    let queries = self.shares(&layer.query);
                    let (unit, which) = if unit < queries { (unit, 0) } else { (unit - queries, 1) };
                    let (weights, output) = self.projections(layer)[which];
                    self.share(weights, self.operand(weights.lines), output, Store, unit);
                }
                Step::Attend => self.attend(unit, member),
                Step::Gather => self.gather(self.rows_of(unit)),
                Step::Output => {
                    let operand = self.operand(layer.output.lines);
                    self.share(&layer.output, operand, self.to_residual(), Add, unit);
                }
                Step::NormalizeAttention => self.normalize(self.rows_of(unit), &layer.attention_norm),
                Step::Up => {
                    let (chunk, block) = (unit / self.blocks(), unit % self.blocks());
                    self.up(layer, chunk, block..block + 1, member);
                }
                Step::Down => {
                    for (chunk, weights) in layer.down.iter().enumerate() {
                        self.share(weights, self.inner(chunk), self.to_residual(), Add, unit);
                    }
                }
                Step::NormalizeOutput => self.normalize(self.rows_of(unit), &layer.output_norm),
            }
        }
    }

    /// Returns the token vectors of all texts after the pass: [`Shape::padded_hidden`] values per row.
    pub(super) fn residual(&mut self) -> &[f32] {
        let length = self.rows * self.network.shape.padded_hidden;
        // SAFETY: within `memory`, and no other thread runs while `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts(self.at(self.layout.residual), length) }
    }

    fn at(&self, place: usize) -> *mut f32 {
        self.memory.wrapping_add(place)
    }

    fn blocks(&self) -> usize {
        self.rows.div_ceil(V::ROWS)
    }

    /// Returns the rows of a block.
    fn rows_of(&self, block: usize) -> Range<usize> {
        block * V::ROWS..((block + 1) * V::ROWS).min(self.rows)
    }

    /// Embeds the tokens of some rows.
    unsafe fn embed(&self, own: Range<usize>) {
        let mut row = 0;
        let padding = self.network.padding;
        for Text { ids, .. } in self.texts {
            let wanted = own.start.max(row)..own.end.min(row + ids.len());
            if !wanted.is_empty() {
                let before = &ids[..wanted.start - row];
                let task = EmbedRows {
                    ids: &ids[wanted.start - row..wanted.end - row],
                    // A padding id takes the first position, before all others.
                    place: match padding {
                        None => before.len(),
                        Some(padding) => 1 + before.iter().filter(|id| **id != padding).count(),
                    },
                    padding,
                    row: wanted.start,
                    words: &self.network.words,
                    places: &self.network.places,
                    values: self.at(self.layout.residual),
                    norm: self.norm_terms(&self.network.embedding_norm),
                    packed: self.operand(self.hidden_lines()),
                };
                // SAFETY: the rows are the unit's; ids and places were checked in `new`.
                unsafe { self.network.isa.run(task) };
            }
            row += ids.len();
        }
    }

    /// Returns the query, key and value projections. Queries are written to rows of all heads, where attention replaces
    /// them with its result; keys and values to rows of one head, because attention reads them per head.
    fn projections<'w>(&self, layer: &'w LayerWeights) -> [(&'w PackedLinear, Output); 2] {
        let Shape { padded_head, gathered, .. } = self.network.shape;
        let queries = Output { to: self.queries(), row_stride: gathered, group: gathered, group_stride: 0 };
        let keys_and_values = Output {
            to: self.at(self.layout.heads),
            row_stride: padded_head,
            group: padded_head,
            group_stride: self.layout.capacity * padded_head,
        };
        [(&layer.query, queries), (&layer.key_value, keys_and_values)]
    }

    /// Computes attention of one head within each text.
    unsafe fn attend(&self, head: usize, member: usize) {
        let Shape { heads, padded_head, gathered, .. } = self.network.shape;
        let stride = self.layout.capacity * padded_head;
        let scratch = self.private(member).wrapping_add(self.layout.attention).cast();
        let mut row = 0;
        for Text { ids, .. } in self.texts {
            let at = |kind: usize| self.at(self.layout.heads + (kind * heads + head) * stride + row * padded_head);
            let task = Attention {
                queries: self.queries().wrapping_add(row * gathered + head * padded_head),
                query_stride: gathered,
                keys: at(0),
                values: at(1),
                tokens: ids.len(),
                width: padded_head,
                scratch,
                sizes: self.layout.attention_sizes,
                element: PhantomData::<A>,
            };
            // SAFETY: the unit owns the head, its thread the scratch memory.
            unsafe { self.network.isa.run(task) };
            row += ids.len();
        }
    }

    /// Packs the attention output of some rows.
    unsafe fn gather(&self, rows: Range<usize>) {
        let Shape { gathered, .. } = self.network.shape;
        let task = PackRows {
            from: self.queries().wrapping_add(rows.start * gathered),
            from_stride: gathered,
            rows,
            packed: self.operand(gathered / (LINE * E::GROUP)),
        };
        // SAFETY: the rows are the unit's.
        unsafe { self.network.isa.run(task) };
    }

    unsafe fn normalize(&self, rows: Range<usize>, norm: &PaddedNorm) {
        let task = NormRows {
            values: self.at(self.layout.residual),
            rows,
            norm: self.norm_terms(norm),
            packed: self.operand(self.hidden_lines()),
        };
        // SAFETY: the rows are the unit's.
        unsafe { self.network.isa.run(task) };
    }

    /// Computes the first half of one feed-forward chunk for some blocks of rows: product, activation, packing.
    unsafe fn up(&self, layer: &LayerWeights, chunk: usize, blocks: Range<usize>, member: usize) {
        let width = self.network.shape.chunk;
        let scratch = self.private(member);
        let weights = &layer.up[chunk];
        for block in blocks {
            let first = block * V::ROWS;
            let output = Output {
                // The address of row 0 if the scratch held all rows.
                to: scratch.wrapping_sub(first * width),
                row_stride: width,
                group: width,
                group_stride: 0,
            };
            let operand = self.operand(weights.lines);
            let epilogue = Activate(self.network.activation);
            // SAFETY: this thread owns the scratch, the unit owns the rows of the inner operand in this chunk.
            unsafe {
                self.product(weights, operand, output, epilogue, block..block + 1, 0..weights.panels);
                self.network.isa.run(PackRows {
                    from: scratch,
                    from_stride: width,
                    rows: first..self.rows.min(first + V::ROWS),
                    packed: self.inner(chunk),
                });
            }
        }
    }

    /// Returns the number of units of a product with all rows.
    fn shares(&self, weights: &PackedLinear) -> usize {
        let (columns, rows) = self.grid(weights);
        columns * rows
    }

    fn grid(&self, weights: &PackedLinear) -> (usize, usize) {
        grid(self.layout.members * UNITS_PER_MEMBER, self.blocks(), weights.panels)
    }

    /// Computes one unit of a product.
    unsafe fn share<P: Epilogue<V>>(
        &self,
        weights: &PackedLinear,
        operand: Packed<E>,
        output: Output,
        epilogue: P,
        unit: usize,
    ) {
        let (columns, rows) = self.grid(weights);
        let blocks = part(self.blocks(), unit / columns, rows);
        let panels = part(weights.panels, unit % columns, columns);
        // SAFETY: blocks and panels are the unit's.
        unsafe { self.product(weights, operand, output, epilogue, blocks, panels) };
    }

    unsafe fn product<P: Epilogue<V>>(
        &self,
        weights: &PackedLinear,
        operand: Packed<E>,
        output: Output,
        epilogue: P,
        blocks: Range<usize>,
        panels: Range<usize>,
    ) {
        debug_assert_eq!(weights.lines, operand.lines);
        let task = MatMul {
            rows: operand.words,
            row_terms: operand.terms,
            row_count: self.rows,
            columns: weights.words.words().as_ptr(),
            column_terms: weights.column_terms(),
            lines: weights.lines,
            blocks,
            panels,
            panel_group: Shape::panel_group::<V>(weights.lines),
            output,
            epilogue,
            element: PhantomData::<E>,
        };
        // SAFETY: passed on.
        unsafe { self.network.isa.run(task) };
    }

    fn hidden_lines(&self) -> usize {
        self.network.shape.padded_hidden / (LINE * E::GROUP)
    }

    /// Returns the operand of the next product.
    fn operand(&self, lines: usize) -> Packed<E> {
        Packed {
            words: self.at(self.layout.operand).cast(),
            terms: self.at(self.layout.operand_terms).cast::<RowTerms>(),
            lines,
            element: PhantomData,
        }
    }

    /// Returns the packed activations of a feed-forward chunk.
    fn inner(&self, chunk: usize) -> Packed<E> {
        // A single thread keeps one chunk at a time.
        let slot = if self.layout.members == 1 { 0 } else { chunk };
        Packed {
            words: self.at(self.layout.inner + slot * self.layout.inner_stride).cast(),
            terms: self.at(self.layout.inner_terms + slot * 2 * self.layout.capacity).cast::<RowTerms>(),
            lines: self.network.shape.chunk / (LINE * E::GROUP),
            element: PhantomData,
        }
    }

    fn queries(&self) -> *mut f32 {
        self.at(self.layout.queries)
    }

    fn to_residual(&self) -> Output {
        let width = self.network.shape.padded_hidden;
        Output { to: self.at(self.layout.residual), row_stride: width, group: width, group_stride: 0 }
    }

    fn private(&self, member: usize) -> *mut f32 {
        self.at(self.layout.private + member * self.layout.private_stride)
    }

    fn norm_terms(&self, norm: &PaddedNorm) -> NormTerms {
        NormTerms {
            scale: norm.scale.floats().as_ptr(),
            shift: norm.shift.floats().as_ptr(),
            width: self.network.shape.hidden,
            padded: self.network.shape.padded_hidden,
            epsilon: self.network.norm_epsilon,
        }
    }
}
