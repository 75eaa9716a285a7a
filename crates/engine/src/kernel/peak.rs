//! Peak throughput of a CPU: the kernels' inner product on operands that stay in the L1 cache.

use std::marker::PhantomData;

use super::matmul::multiply;
use super::{Element, Isa, LINE, Task};
use crate::buffer::Buffer;

/// Lines of the operands: 4 KB of rows and 8 KB of columns with the widest vectors.
const LINES: usize = 4;

/// Multiplies one block with one panel repeatedly.
#[derive(Debug)]
pub(in super::super) struct Peak<E> {
    operands: Buffer,
    pub repeats: usize,
    element: PhantomData<E>,
}

impl<E> Peak<E> {
    pub(in super::super) fn new<V: Isa>(repeats: usize) -> Self {
        Self { operands: Buffer::zeroed(LINES * LINE * (V::ROWS + V::PANEL)), repeats, element: PhantomData }
    }

    /// Returns the multiplications and additions per call.
    #[expect(clippy::cast_precision_loss, reason = "a measurement")]
    pub(in super::super) fn operations<V: Isa>(&self) -> f64
    where
        E: Element<V>,
    {
        (2 * self.repeats * LINES * LINE * E::GROUP * V::ROWS * V::PANEL) as f64
    }
}

impl<V: Isa, E: Element<V>> Task<V> for &Peak<E> {
    #[inline(always)]
    unsafe fn call(self) {
        let rows = self.operands.words().as_ptr();
        let columns = rows.add(LINES * LINE * V::ROWS);
        for _ in 0..self.repeats {
            // Prevents the compiler from merging identical iterations.
            let rows = std::hint::black_box(rows);
            match V::ROWS {
                12 => _ = std::hint::black_box(multiply::<V, E, 12>(LINES, rows, columns)),
                6 => _ = std::hint::black_box(multiply::<V, E, 6>(LINES, rows, columns)),
                _ => _ = std::hint::black_box(multiply::<V, E, 4>(LINES, rows, columns)),
            }
        }
    }
}
