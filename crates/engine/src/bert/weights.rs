//! Weights packed for the matrix products.

use crate::buffer::{Buffer, LINE};
use crate::kernel::{ColumnTerms, Element, Isa};
use crate::model::Linear;

/// A packed weight matrix; see the layout in [`MatMul`](crate::kernel::MatMul).
#[derive(Debug)]
pub(super) struct PackedLinear {
    pub words: Buffer,
    bias: Buffer,
    scale: Buffer,
    sum: Buffer,
    /// Lines of words per column.
    pub lines: usize,
    pub panels: usize,
}

/// The source row or column at each position of a padded dimension; `None` for padding.
pub(super) type Places = Vec<Option<usize>>;

/// Maps the first `length` positions to `start..`, followed by padding up to `padded`.
pub(super) fn places(start: usize, length: usize, padded: usize) -> Places {
    (0..padded).map(|place| (place < length).then_some(start + place)).collect()
}

impl PackedLinear {
    /// Packs the selected outputs and inputs of each source, multiplied by its factor. Without `with_bias` (all but the
    /// first part of a sum) the bias is zero.
    pub(super) fn new<V: Isa, E: Element<V>>(
        parts: &[(&Linear, Places, f32)],
        inputs: &Places,
        with_bias: bool,
    ) -> Self {
        let outputs: usize = parts.iter().map(|(_, outputs, _)| outputs.len()).sum();
        let words_per_column = inputs.len() / E::GROUP;
        debug_assert!(outputs.is_multiple_of(V::PANEL) && words_per_column.is_multiple_of(LINE));
        let mut packed = Self {
            words: Buffer::zeroed(outputs * words_per_column),
            bias: Buffer::zeroed(outputs),
            scale: Buffer::zeroed(outputs),
            sum: Buffer::zeroed(outputs),
            lines: words_per_column / LINE,
            panels: outputs / V::PANEL,
        };
        let mut values = vec![0.0; inputs.len()];
        let mut column = vec![0; words_per_column];
        let all =
            parts.iter().flat_map(|(source, outputs, factor)| outputs.iter().map(move |out| (source, out, factor)));
        for (place, (source, output, factor)) in all.enumerate() {
            let Some(output) = *output else { continue };
            let row = &source.weight[output * source.inputs..][..source.inputs];
            for (value, input) in values.iter_mut().zip(inputs) {
                *value = input.map_or(0.0, |input| row[input] * factor);
            }
            let terms = E::FORM.encode(&values, &mut column);
            packed.scale.floats_mut()[place] = terms.scale;
            packed.sum.floats_mut()[place] = terms.sum;
            if with_bias {
                packed.bias.floats_mut()[place] = source.bias[output] * factor;
            }
            let start = place / V::PANEL * words_per_column * V::PANEL + place % V::PANEL;
            let words = &mut packed.words.words_mut()[start..];
            for (to, word) in words.iter_mut().step_by(V::PANEL).zip(&column) {
                *to = *word;
            }
        }
        packed
    }

    pub(super) fn column_terms(&self) -> ColumnTerms {
        ColumnTerms {
            bias: self.bias.floats().as_ptr(),
            scale: self.scale.floats().as_ptr(),
            sum: self.sum.floats().as_ptr(),
        }
    }
}
