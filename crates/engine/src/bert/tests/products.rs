//! Matrix products in every operand form, with every epilogue, on any shape.

use std::marker::PhantomData;

use proptest::prelude::*;

use super::{Random, TABOO, UNTOUCHED, assert_close, cases, on_every, up_to};
use crate::bert::weights::{PackedLinear, places};
use crate::kernel::{
    Activate, Add, Bf16, Element, Epilogue, F32, Int8, Isa, LINE, MatMul, Output, PackRows, Packed, Portable, RowTerms,
    Store,
};
use crate::model::{Activation, Linear};

/// A product of `rows` rows, and how it is split.
#[derive(Clone, Debug)]
struct Case {
    rows: usize,
    source: Linear,
    activations: Vec<f32>,
    /// The initial output.
    residual: Vec<f32>,
    panel_group: usize,
    /// The product is computed in two parts, split at these fractions of its blocks and panels.
    cut: (usize, usize),
}

impl Case {
    fn new(rows: usize, inputs: usize, outputs: usize, seed: u64, panel_group: usize, cut: (usize, usize)) -> Self {
        let mut random = Random(seed);
        // Offset, as in activations.
        let activations = random.numbers(rows * inputs, 1.0).into_iter().map(|value| value + 0.3).collect();
        let source = Linear {
            weight: random.numbers(outputs * inputs, 1.0),
            bias: random.numbers(outputs, 2.0),
            outputs,
            inputs,
        };
        Self { rows, source, activations, residual: random.numbers(rows * outputs, 1.0), panel_group, cut }
    }

    /// Computes the definition.
    fn exact(&self) -> Vec<f32> {
        let Linear { weight, bias, inputs, .. } = &self.source;
        let rows = self.activations.chunks(*inputs);
        rows.flat_map(|row| {
            weight.chunks(*inputs).zip(bias).map(move |(weight, bias)| {
                let products = weight.iter().zip(row).map(|(w, x)| f64::from(*w) * f64::from(*x));
                (products.sum::<f64>() + f64::from(*bias)) as f32
            })
        })
        .collect()
    }

    /// Computes the product with a kernel; the output starts as the residual if the epilogue adds.
    fn compute<V: Isa, E: Element<V>>(&self, isa: V, epilogue: impl Epilogue<V>) -> Vec<f32> {
        let Linear { inputs, outputs, .. } = self.source;
        let unit = V::PANEL.max(LINE * E::GROUP);
        let (padded, width) = (inputs.next_multiple_of(unit), outputs.next_multiple_of(V::PANEL));
        let weights = PackedLinear::new::<V, E>(
            &[(&self.source, places(0, outputs, width), 1.0)],
            &places(0, inputs, padded),
            true,
        );

        let mut plain = vec![0.0; self.rows * padded];
        for (to, from) in plain.chunks_mut(padded).zip(self.activations.chunks(inputs)) {
            to[..inputs].copy_from_slice(from);
        }
        let capacity = self.rows.next_multiple_of(V::ROWS);
        // Rows beyond the last one must not matter.
        let mut words = vec![TABOO.to_bits(); capacity * weights.lines * LINE];
        let mut terms = vec![RowTerms { step: TABOO, low: TABOO }; capacity];
        let packed = Packed {
            words: words.as_mut_ptr(),
            terms: terms.as_mut_ptr(),
            lines: weights.lines,
            element: PhantomData::<E>,
        };
        // SAFETY: the operands have the sizes required by the layout.
        unsafe { isa.run(PackRows { from: plain.as_ptr(), from_stride: padded, rows: 0..self.rows, packed }) };

        // Two groups of columns if there are enough, and a gap that must stay unchanged.
        let group = if width / V::PANEL >= 2 { width / V::PANEL / 2 * V::PANEL } else { width };
        let row_stride = group + 3;
        let group_stride = self.rows * row_stride;
        let mut out = vec![UNTOUCHED; width.div_ceil(group) * group_stride];
        let place = |row: usize, column: usize| column / group * group_stride + row * row_stride + column % group;
        for row in 0..self.rows {
            for column in 0..width {
                let residual = if column < outputs { self.residual[row * outputs + column] } else { 0.0 };
                out[place(row, column)] = residual;
            }
        }
        let blocks = self.rows.div_ceil(V::ROWS);
        let (block, panel) = (self.cut.0 % (blocks + 1), self.cut.1 % (weights.panels + 1));
        for (blocks, panels) in
            [(0..block, 0..weights.panels), (block..blocks, 0..panel), (block..blocks, panel..weights.panels)]
        {
            let task = MatMul {
                rows: words.as_ptr(),
                row_terms: terms.as_ptr(),
                row_count: self.rows,
                columns: weights.words.words().as_ptr(),
                column_terms: weights.column_terms(),
                lines: weights.lines,
                blocks,
                panels,
                panel_group: self.panel_group,
                output: Output { to: out.as_mut_ptr(), row_stride, group, group_stride },
                epilogue,
                element: PhantomData::<E>,
            };
            // SAFETY: likewise.
            unsafe { isa.run(task) };
        }
        let mut gap = 0;
        for chunk in out.chunks(row_stride) {
            gap += chunk[group..].iter().filter(|value| **value == UNTOUCHED).count();
        }
        assert_eq!(gap, 3 * self.rows * width.div_ceil(group), "wrote between the rows");
        (0..self.rows).flat_map(|row| (0..outputs).map(move |column| place(row, column))).map(|at| out[at]).collect()
    }

    /// Returns a bound of a sum of products.
    #[expect(clippy::cast_precision_loss, reason = "small sizes")]
    fn size(&self) -> f32 {
        self.source.inputs as f32 * 1.3 + 2.0
    }
}

/// Checks that a kernel matches the portable one, and the definition within the error of its operand form.
fn check<V: Isa, E: Element<V> + Element<Portable>>(isa: V, case: &Case, exact: &[f32], error: f32) {
    let name = format!("{} {}", std::any::type_name::<V>(), std::any::type_name::<E>());
    let stored = case.compute::<V, E>(isa, Store);
    let portable = case.compute::<Portable, E>(Portable, Store);
    // Summation order and fused rounding differ.
    assert_close(&name, &stored, &portable, case.size() * 1e-6);
    assert_close(&name, &stored, exact, case.size() * error);
    let added = case.compute::<V, E>(isa, Add);
    let expected: Vec<f32> = stored.iter().zip(&case.residual).map(|(value, residual)| value + residual).collect();
    assert_eq!(added, expected, "{name}: not the residual plus the product");
    let relu = case.compute::<V, E>(isa, Activate(Activation::Relu));
    let expected: Vec<f32> = stored.iter().map(|value| value.max(0.0)).collect();
    assert_eq!(relu, expected, "{name}: not the activation of the product");
    for activation in [Activation::Gelu, Activation::GeluTanh] {
        let one = case.compute::<V, E>(isa, Activate(activation));
        let other = case.compute::<Portable, E>(Portable, Activate(activation));
        assert_close(&name, &one, &other, case.size() * 2e-6);
    }
}

fn check_all(case: &Case) {
    let exact = case.exact();
    on_every!(Isa, isa, check::<_, F32>(isa, case, &exact, 1e-6));
    // Eight-bit operands: the errors of both, which rarely have the same sign.
    on_every!(Bf16Isa, isa, check::<_, Bf16>(isa, case, &exact, 5e-3));
    on_every!(Int8Isa, isa, check::<_, Int8>(isa, case, &exact, 1e-2));
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn products_of_any_shape(
        rows in 1usize..up_to(40),
        inputs in 1usize..up_to(300),
        outputs in 1usize..up_to(150),
        seed: u64,
        panel_group in 1usize..6,
        cut: (u8, u8),
    ) {
        check_all(&Case::new(rows, inputs, outputs, seed, panel_group, (cut.0.into(), cut.1.into())));
    }
}

/// Every height of the last block, each of which is a separate kernel.
#[test]
fn blocks_of_any_height() {
    for rows in 1..=if cfg!(miri) { 5 } else { 25 } {
        check_all(&Case::new(rows, 70, 33, rows as u64, 2, (1, 1)));
    }
}

/// A row's result is bit-identical regardless of the content and number of other rows.
#[test]
fn rows_are_independent() {
    let case = Case::new(up_to(30), 90, 40, 5, 2, (0, 0));
    let inputs = case.source.inputs;
    for row in [0, 3, case.rows - 1] {
        let activations = case.activations[row * inputs..][..inputs].to_vec();
        let alone = Case { rows: 1, activations, ..case.clone() };
        fn check<V: Isa, E: Element<V>>(isa: V, case: &Case, alone: &Case, row: usize) {
            let outputs = case.source.outputs;
            let together = case.compute::<V, E>(isa, Store);
            assert_eq!(together[row * outputs..][..outputs], alone.compute::<V, E>(isa, Store));
        }
        on_every!(Isa, isa, check::<_, F32>(isa, &case, &alone, row));
        on_every!(Bf16Isa, isa, check::<_, Bf16>(isa, &case, &alone, row));
        on_every!(Int8Isa, isa, check::<_, Int8>(isa, &case, &alone, row));
    }
}
