//! Buffers for the kernels: zeroed, aligned to cache lines, accessible as floats or as packed words.
#![allow(unsafe_code)]

/// 32-bit values per cache line, which is also the width of the widest vector register.
pub(crate) const LINE: usize = 16;

#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
struct Line([f32; LINE]);

/// A fixed number of initialised 32-bit values.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    lines: Vec<Line>,
}

impl Buffer {
    /// Allocates at least `places` zeros.
    pub(crate) fn zeroed(places: usize) -> Self {
        Self { lines: vec![Line([0.0; LINE]); places.div_ceil(LINE)] }
    }

    /// Returns the number of 32-bit values.
    pub(crate) fn len(&self) -> usize {
        self.lines.len() * LINE
    }

    /// Returns the values as floats.
    pub(crate) fn floats(&self) -> &[f32] {
        // SAFETY: `Line` is `repr(C)` with sixteen f32 and no padding (64 bytes), so the lines are contiguous f32.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len()) }
    }

    /// Returns the values as floats.
    pub(crate) fn floats_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `floats`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len()) }
    }

    /// Returns the values as packed words.
    pub(crate) fn words(&self) -> &[u32] {
        // SAFETY: as in `floats`; u32 has the size and alignment of f32, and every bit pattern is a u32.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len()) }
    }

    /// Returns the values as packed words.
    pub(crate) fn words_mut(&mut self) -> &mut [u32] {
        // SAFETY: as in `words`, and `self` is borrowed mutably; every bit pattern is an f32 too.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len()) }
    }
}

/// Scratch memory for one tile. Starts empty, and grows to the engine's requirement at the first tile. Used by one thread
/// at a time, with any engine.
#[derive(Debug, Default)]
pub struct Workspace {
    buffer: Buffer,
}

impl Workspace {
    /// Returns at least `places` initialised values, which may hold data of an earlier tile.
    pub(crate) fn places(&mut self, places: usize) -> &mut [f32] {
        if self.buffer.len() < places {
            self.buffer = Buffer::zeroed(places);
        }
        self.buffer.floats_mut()
    }
}
