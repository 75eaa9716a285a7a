//! Matrix products of packed activations and packed weights, with a fused epilogue while the sums are in registers.
//!
//! Layouts. Activations: for each block of [`Isa::ROWS`] rows, for each line, [`LINE`] words of each row: one cache
//! line. Weights: for each panel of [`Isa::PANEL`] columns, for each word of the inputs, one word of each column.
//! The inner loop therefore reads both sequentially, and a block of activations stays in the L1 cache while it is
//! multiplied with all panels. Each value's products are always summed in the order of the inputs.

use std::marker::PhantomData;
use std::ops::Range;

use super::element::{ColumnTerms, RowTerms};
use super::{Element, Isa, LINE, Task};

/// An operation applied to a vector of finished values.
///
/// # Safety
/// As the operations of [`Isa`]; `to` is valid for a vector.
pub(in super::super) trait Epilogue<V: Isa>: Copy {
    unsafe fn apply(self, value: V::Floats, to: *mut f32);
}

/// Stores the values.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Store;

impl<V: Isa> Epilogue<V> for Store {
    #[inline(always)]
    unsafe fn apply(self, value: V::Floats, to: *mut f32) {
        V::store(to, value);
    }
}

/// Adds the values to the residual.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Add;

impl<V: Isa> Epilogue<V> for Add {
    #[inline(always)]
    unsafe fn apply(self, value: V::Floats, to: *mut f32) {
        V::store(to, V::add(value, V::load(to)));
    }
}

/// The destination of a panel's values.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Output {
    /// Address of row 0 and column 0.
    pub to: *mut f32,
    /// Distance between rows.
    pub row_stride: usize,
    /// Columns per contiguous group: a multiple of the panel.
    pub group: usize,
    /// Distance between the first columns of consecutive groups.
    pub group_stride: usize,
}

/// A product of some blocks of rows with some panels of columns.
#[derive(Clone, Debug)]
pub(in super::super) struct MatMul<E, P> {
    /// Packed activations.
    pub rows: *const u32,
    /// One for each row.
    pub row_terms: *const RowTerms,
    /// Number of rows; the last block may have fewer than [`Isa::ROWS`].
    pub row_count: usize,
    /// Packed weights.
    pub columns: *const u32,
    /// Terms, starting at column 0.
    pub column_terms: ColumnTerms,
    /// Lines of words per row.
    pub lines: usize,
    /// Range of row blocks.
    pub blocks: Range<usize>,
    /// Range of column panels.
    pub panels: Range<usize>,
    /// Panels multiplied with a block before the next block: as many as fit into the L2 cache.
    pub panel_group: usize,
    /// Destination of the values.
    pub output: Output,
    /// Operation applied to the values.
    pub epilogue: P,
    pub element: PhantomData<E>,
}

impl<V: Isa, E: Element<V>, P: Epilogue<V>> Task<V> for MatMul<E, P> {
    #[inline(always)]
    unsafe fn call(self) {
        let mut first = self.panels.start;
        while first < self.panels.end {
            let end = (first + self.panel_group).min(self.panels.end);
            for block in self.blocks.clone() {
                let row = block * V::ROWS;
                let rows = (self.row_count - row).min(V::ROWS);
                for panel in first..end {
                    self.tile::<V>(row, rows, panel);
                }
            }
            first = end;
        }
    }
}

impl<E, P> MatMul<E, P> {
    /// One block times one panel.
    #[inline(always)]
    unsafe fn tile<V: Isa>(&self, row: usize, rows: usize, panel: usize)
    where
        E: Element<V>,
        P: Epilogue<V>,
    {
        // The smallest block that holds the rows; branches for other instruction sets are compiled out.
        match rows {
            9.. if V::ROWS >= 12 => self.block::<V, 12>(row, rows, panel),
            5..=8 if V::ROWS >= 8 => self.block::<V, 8>(row, rows, panel),
            5.. if V::ROWS == 6 => self.block::<V, 6>(row, rows, panel),
            3.. => self.block::<V, 4>(row, rows, panel),
            _ => self.block::<V, 2>(row, rows, panel),
        }
    }

    #[inline(always)]
    unsafe fn block<V: Isa, const M: usize>(&self, row: usize, rows: usize, panel: usize)
    where
        E: Element<V>,
        P: Epilogue<V>,
    {
        let a = self.rows.add(row * self.lines * LINE);
        let b = self.columns.add(panel * self.lines * LINE * V::PANEL);
        let sums = multiply::<V, E, M>(self.lines, a, b);
        let column = panel * V::PANEL;
        let Output { to, row_stride, group, group_stride } = self.output;
        let to = to.add(row * row_stride + column / group * group_stride + column % group);
        for half in 0..2 {
            let at = column + half * V::LANES;
            let terms = ColumnTerms {
                bias: self.column_terms.bias.add(at),
                scale: self.column_terms.scale.wrapping_add(at),
                sum: self.column_terms.sum.wrapping_add(at),
            };
            for r in 0..M {
                if r < rows {
                    let value = E::finish(sums[r][half], terms, self.row_terms.wrapping_add(row + r));
                    self.epilogue.apply(value, to.add(r * row_stride + half * V::LANES));
                }
            }
        }
    }
}

/// The sums of `M` rows of a block times one panel.
#[inline(always)]
pub(super) unsafe fn multiply<V: Isa, E: Element<V>, const M: usize>(
    lines: usize,
    mut a: *const u32,
    mut b: *const u32,
) -> [[E::Sums; 2]; M] {
    let mut sums = [[E::zero(); 2]; M];
    for _ in 0..lines {
        for word in 0..LINE {
            let (b0, b1) = (V::load_words(b), V::load_words(b.add(V::LANES)));
            for r in 0..M {
                sums[r][0] = E::dot(sums[r][0], a.add(r * LINE + word), b0);
                sums[r][1] = E::dot(sums[r][1], a.add(r * LINE + word), b1);
            }
            b = b.add(V::PANEL);
        }
        a = a.add(V::ROWS * LINE);
    }
    sums
}
