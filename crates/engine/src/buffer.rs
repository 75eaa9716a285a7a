//! Memory for the kernels: zeroed, aligned to cache lines, readable as numbers or as packed words.
#![allow(unsafe_code)]

/// Values of 32 bits in a cache line, which is also the widest vector register.
pub(crate) const LINE: usize = 16;

#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
struct Line([f32; LINE]);

/// A fixed number of 32-bit places, all of them initialised.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    lines: Vec<Line>,
}

impl Buffer {
    /// At least `places` zeros.
    pub(crate) fn zeroed(places: usize) -> Self {
        Self { lines: vec![Line([0.0; LINE]); places.div_ceil(LINE)] }
    }

    /// Number of places.
    pub(crate) fn len(&self) -> usize {
        self.lines.len() * LINE
    }

    /// As numbers.
    pub(crate) fn floats(&self) -> &[f32] {
        // SAFETY: `Line` is `repr(C)` with sixteen f32 and no padding (64 bytes), so the lines are contiguous f32.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len()) }
    }

    /// As numbers.
    pub(crate) fn floats_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `floats`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len()) }
    }

    /// As packed words.
    pub(crate) fn words(&self) -> &[u32] {
        // SAFETY: as in `floats`; u32 has the size and alignment of f32, and every bit pattern is a u32.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len()) }
    }

    /// As packed words.
    pub(crate) fn words_mut(&mut self) -> &mut [u32] {
        // SAFETY: as in `words`, and `self` is borrowed mutably; every bit pattern is an f32 too.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len()) }
    }
}

/// The intermediate results of one tile. Starts empty, grows to what the engine needs at its first tile, and stays.
/// Belongs to one thread at a time, and may be used with any engine.
#[derive(Debug, Default)]
pub struct Workspace {
    buffer: Buffer,
}

impl Workspace {
    /// At least `places` initialised places with whatever an earlier tile left in them.
    pub(crate) fn places(&mut self, places: usize) -> &mut [f32] {
        if self.buffer.len() < places {
            self.buffer = Buffer::zeroed(places);
        }
        self.buffer.floats_mut()
    }
}
