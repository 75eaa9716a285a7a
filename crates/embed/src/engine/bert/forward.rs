//! The forward pass over one tile.
//!
//! One thread computes a tile alone, or a team shares it: the steps are the same, and each value is computed by the
//! same operations in the same order, so the answer does not depend on the team.
//!
//! Invariants that the `unsafe` here rests on:
//! * `memory` is valid for [`Layout::places`] and aligned to a line, and belongs to this pass alone.
//! * Between two barriers, a member writes only to rows, columns, heads or parts that are its own by [`part`], and
//!   reads only those and what was written before the last barrier.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;

use super::shape::{Layout, Shape, grid, part};
use super::weights::PackedLinear;
use super::{LayerWeights, Network, PaddedNorm};
use crate::engine::kernel::{
    Activate, Add, Attention, AttentionElement, Element, EmbedRows, Epilogue, Isa, LINE, MatMul, NormRows, NormTerms,
    Output, PackRows, Packed, RowTerms, Store,
};
use crate::engine::team::Barrier;

/// A forward pass over texts that lie one after the other in the rows of a tile.
pub(super) struct Pass<'a, V: Isa, E, A> {
    network: &'a Network<V, E, A>,
    layout: &'a Layout,
    texts: &'a [&'a [u32]],
    /// Tokens of all texts.
    rows: usize,
    memory: *mut f32,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: members share a pass, and through it `memory`, only under the invariants of this module; everything else in
// it is only read.
unsafe impl<V: Isa, E: Sync, A: Sync> Sync for Pass<'_, V, E, A> {}

/// A member's place in its team.
#[derive(Clone, Copy)]
struct Member<'a> {
    index: usize,
    barrier: Option<&'a Barrier>,
}

impl Member<'_> {
    fn meet(self) {
        if let Some(barrier) = self.barrier {
            barrier.wait();
        }
    }
}

impl<'a, V: Isa, E: Element<V>, A: AttentionElement<V>> Pass<'a, V, E, A> {
    /// # Panics
    /// The memory is too small for the layout, the layout for the texts, or the network for their ids and lengths.
    pub(super) fn new(
        network: &'a Network<V, E, A>,
        layout: &'a Layout,
        texts: &'a [&'a [u32]],
        memory: &'a mut [f32],
    ) -> Self {
        let rows = texts.iter().map(|ids| ids.len()).sum();
        assert!(memory.len() >= layout.places && rows <= layout.capacity, "{rows} tokens in {layout:?}");
        assert!(memory.as_ptr().addr().is_multiple_of(4 * LINE), "memory that is not aligned to a line");
        for ids in texts {
            assert!(ids.len() <= network.max_tokens, "a text of {} tokens", ids.len());
            assert!(ids.iter().all(|&id| (id as usize) < network.vocabulary), "an id beyond the vocabulary");
        }
        Self { network, layout, texts, rows, memory: memory.as_mut_ptr(), borrow: PhantomData }
    }

    /// The pass on this thread alone.
    pub(super) fn alone(&mut self) {
        debug_assert_eq!(self.layout.members, 1);
        // SAFETY: the borrow of `self` is exclusive, so that this thread is the only member.
        unsafe { self.member(Member { index: 0, barrier: None }) };
    }

    /// One member's share of the pass.
    ///
    /// # Safety
    /// Each index below the layout's members runs once, all at the same time, with one barrier between them.
    pub(super) unsafe fn shared(&self, index: usize, barrier: &Barrier) {
        // SAFETY: as promised by the caller.
        unsafe { self.member(Member { index, barrier: Some(barrier) }) };
    }

    /// The vectors of the tokens of all texts, once the pass is done: [`Shape::padded_hidden`] numbers a row.
    pub(super) fn residual(&mut self) -> &[f32] {
        let length = self.rows * self.network.shape.padded_hidden;
        // SAFETY: within `memory`, and no member runs while `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts(self.at(self.layout.residual), length) }
    }

    fn at(&self, place: usize) -> *mut f32 {
        self.memory.wrapping_add(place)
    }

    fn blocks(&self) -> usize {
        self.rows.div_ceil(V::ROWS)
    }

    /// The rows of this member when rows are shared out.
    fn own_rows(&self, member: Member<'_>) -> Range<usize> {
        let blocks = part(self.blocks(), member.index, self.layout.members);
        blocks.start * V::ROWS..(blocks.end * V::ROWS).min(self.rows)
    }

    /// # Safety
    /// The module's invariants.
    unsafe fn member(&self, member: Member<'_>) {
        // SAFETY: between two meetings each step writes to its member's own share only; see the module's head.
        unsafe {
            self.embed(member);
            member.meet();
            for layer in &self.network.layers {
                self.project(member, layer);
                member.meet();
                self.attend(member);
                member.meet();
                self.gather(member);
                member.meet();
                self.multiply(member, &layer.output, self.operand(layer.output.lines), self.to_residual(), Add);
                member.meet();
                self.normalize(member, &layer.attention_norm);
                member.meet();
                self.feed_forward(member, layer);
                member.meet();
                self.normalize(member, &layer.output_norm);
                member.meet();
            }
        }
    }

    /// Embeds the tokens of this member's rows.
    unsafe fn embed(&self, member: Member<'_>) {
        let own = self.own_rows(member);
        let mut row = 0;
        for ids in self.texts {
            let wanted = own.start.max(row)..own.end.min(row + ids.len());
            if !wanted.is_empty() {
                let task = EmbedRows {
                    ids: &ids[wanted.start - row..wanted.end - row],
                    place: wanted.start - row,
                    row: wanted.start,
                    words: &self.network.words,
                    places: &self.network.places,
                    values: self.at(self.layout.residual),
                    norm: self.norm_terms(&self.network.embedding_norm),
                    packed: self.operand(self.hidden_lines()),
                };
                // SAFETY: the rows are this member's; ids and places were checked in `new`.
                unsafe { self.network.isa.run(task) };
            }
            row += ids.len();
        }
    }

    /// Queries, keys and values. Queries go to rows that hold all heads, where attention replaces them by its result;
    /// keys and values to rows of one head, because attention reads them head by head.
    unsafe fn project(&self, member: Member<'_>, layer: &LayerWeights) {
        let Shape { padded_head, gathered, .. } = self.network.shape;
        let operand = self.operand(layer.query.lines);
        let queries = Output { to: self.queries(), row_stride: gathered, group: gathered, group_stride: 0 };
        let keys_and_values = Output {
            to: self.at(self.layout.heads),
            row_stride: padded_head,
            group: padded_head,
            group_stride: self.layout.capacity * padded_head,
        };
        // SAFETY: passed on.
        unsafe {
            self.multiply(member, &layer.query, operand, queries, Store);
            self.multiply(member, &layer.key_value, operand, keys_and_values, Store);
        }
    }

    /// Attention of this member's heads, within each text.
    unsafe fn attend(&self, member: Member<'_>) {
        let Shape { heads, padded_head, gathered, .. } = self.network.shape;
        let stride = self.layout.capacity * padded_head;
        let scratch = self.private(member).wrapping_add(self.layout.attention).cast();
        for head in part(heads, member.index, self.layout.members) {
            let mut row = 0;
            for ids in self.texts {
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
                // SAFETY: the head is this member's, and so is the scratch.
                unsafe { self.network.isa.run(task) };
                row += ids.len();
            }
        }
    }

    /// Packs what attention has left in this member's rows.
    unsafe fn gather(&self, member: Member<'_>) {
        let Shape { gathered, .. } = self.network.shape;
        let rows = self.own_rows(member);
        let task = PackRows {
            from: self.queries().wrapping_add(rows.start * gathered),
            from_stride: gathered,
            rows,
            packed: self.operand(gathered / (LINE * E::GROUP)),
        };
        // SAFETY: the rows are this member's.
        unsafe { self.network.isa.run(task) };
    }

    unsafe fn normalize(&self, member: Member<'_>, norm: &PaddedNorm) {
        let task = NormRows {
            values: self.at(self.layout.residual),
            rows: self.own_rows(member),
            norm: self.norm_terms(norm),
            packed: self.operand(self.hidden_lines()),
        };
        // SAFETY: the rows are this member's.
        unsafe { self.network.isa.run(task) };
    }

    /// Both halves of the feed-forward layer. Alone, one part after the other, so that what lies between the halves
    /// stays in the cache; in a team, all parts of the first half and then all of the second.
    unsafe fn feed_forward(&self, member: Member<'_>, layer: &LayerWeights) {
        let chunks = self.network.shape.chunks;
        if self.layout.members == 1 {
            for chunk in 0..chunks {
                // SAFETY: passed on.
                unsafe {
                    self.up(member, layer, chunk, 0..self.blocks());
                    self.down(member, layer, chunk);
                }
            }
            return;
        }
        let units = part(chunks * self.blocks(), member.index, self.layout.members);
        for unit in units {
            let (chunk, block) = (unit / self.blocks(), unit % self.blocks());
            // SAFETY: the unit is this member's.
            unsafe { self.up(member, layer, chunk, block..block + 1) };
        }
        member.meet();
        for chunk in 0..chunks {
            // SAFETY: passed on.
            unsafe { self.down(member, layer, chunk) };
        }
    }

    /// The first half for one part and some blocks of rows: product, activation, packing.
    unsafe fn up(&self, member: Member<'_>, layer: &LayerWeights, chunk: usize, blocks: Range<usize>) {
        let width = self.network.shape.chunk;
        let scratch = self.private(member);
        let weights = &layer.up[chunk];
        for block in blocks {
            let first = block * V::ROWS;
            let output = Output {
                // Row 0 would be here if the scratch held all rows.
                to: scratch.wrapping_sub(first * width),
                row_stride: width,
                group: width,
                group_stride: 0,
            };
            let operand = self.operand(weights.lines);
            let epilogue = Activate(self.network.activation);
            // SAFETY: the scratch is this member's; the rows of the inner operand in this part are, too.
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

    /// The second half for one part, added to the residual.
    unsafe fn down(&self, member: Member<'_>, layer: &LayerWeights, chunk: usize) {
        // SAFETY: passed on.
        unsafe { self.multiply(member, &layer.down[chunk], self.inner(chunk), self.to_residual(), Add) };
    }

    /// A member's share of a product over all rows and columns.
    unsafe fn multiply<P: Epilogue<V>>(
        &self,
        member: Member<'_>,
        weights: &PackedLinear,
        operand: Packed<E>,
        output: Output,
        epilogue: P,
    ) {
        let (columns, rows) = grid(self.layout.members, self.blocks(), weights.panels);
        if member.index < columns * rows {
            let blocks = part(self.blocks(), member.index / columns, rows);
            let panels = part(weights.panels, member.index % columns, columns);
            // SAFETY: blocks and panels are this member's.
            unsafe { self.product(weights, operand, output, epilogue, blocks, panels) };
        }
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

    /// The operand of the next product.
    fn operand(&self, lines: usize) -> Packed<E> {
        Packed {
            words: self.at(self.layout.operand).cast(),
            terms: self.at(self.layout.operand_terms).cast::<RowTerms>(),
            lines,
            element: PhantomData,
        }
    }

    /// A part of the feed-forward layer.
    fn inner(&self, chunk: usize) -> Packed<E> {
        // Alone, one part at a time is kept.
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

    fn private(&self, member: Member<'_>) -> *mut f32 {
        self.at(self.layout.private + member.index * self.layout.private_stride)
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
