//! A thread pool computes a whole pass with results bit-identical to a single thread. Under Miri this shows that threads
//! neither write to each other's memory nor read it before it is complete.

use std::marker::PhantomData;
use std::path::PathBuf;

use super::{Random, on_every};
use crate::Text;
use crate::bert::forward::Pass;
use crate::bert::shape::{Layout, Shape};
use crate::bert::{Network, share};
use crate::buffer::{Buffer, LINE};
use crate::kernel::{AttentionElement, Element, F32, Isa};
#[cfg(not(miri))]
use crate::kernel::{Bf16, Int8};
use crate::model::{Activation, Description, Layer, Linear, Norm, Pooling, Prompts, TokenizerSettings};
use crate::thread_pool::ThreadPool;

const WORDS: usize = 7;

/// Sizes that are not multiples of a register, and several row blocks, heads, and feed-forward chunks.
fn description() -> Description {
    let small = cfg!(miri);
    Description {
        directory: PathBuf::new(),
        hidden: if small { 14 } else { 84 },
        heads: if small { 2 } else { 4 },
        layers: if small { 1 } else { 2 },
        intermediate: if small { 19 } else { 150 },
        activation: Activation::Relu,
        norm_epsilon: 1e-5,
        vocabulary: WORDS,
        positions: if small { 5 } else { 40 },
        padding: None,
        max_tokens: if small { 5 } else { 40 },
        folder: String::new(),
        tokenizer: TokenizerSettings::default(),
        pooling: Pooling::Mean,
        include_prompt: true,
        normalize: true,
        prompts: Prompts::default(),
    }
}

fn network<V: Isa, E: Element<V>, A: AttentionElement<V>>(isa: V, model: &Description) -> Network<V, E, A> {
    let mut random = Random(4);
    let mut shape = Shape::new::<V, E, A>(model).expect("small");
    // A model this small would have a single chunk.
    shape.chunks = 2;
    shape.chunk = model.intermediate.div_ceil(2).next_multiple_of(V::PANEL.max(LINE * E::GROUP));
    let (hidden, intermediate) = (model.hidden, model.intermediate);
    let norm = |random: &mut Random| Norm { scale: random.numbers(hidden, 2.0), shift: random.numbers(hidden, 1.0) };
    let mut layer = || {
        let mut linear = |outputs: usize, inputs: usize| Linear {
            weight: random.numbers(outputs * inputs, 0.4),
            bias: random.numbers(outputs, 0.1),
            outputs,
            inputs,
        };
        let layer = Layer {
            query: linear(hidden, hidden),
            key: linear(hidden, hidden),
            value: linear(hidden, hidden),
            output: linear(hidden, hidden),
            up: linear(intermediate, hidden),
            down: linear(hidden, intermediate),
            attention_norm: norm(&mut random),
            output_norm: norm(&mut random),
        };
        Network::<V, E, A>::layer(&shape, intermediate, &layer)
    };
    let layers = (0..model.layers).map(|_| layer()).collect();
    Network {
        isa,
        shape,
        activation: model.activation,
        norm_epsilon: model.norm_epsilon,
        max_tokens: model.max_tokens,
        vocabulary: model.vocabulary,
        padding: None,
        words: random.numbers(WORDS * hidden, 1.0),
        places: random.numbers(model.max_tokens * hidden, 1.0),
        embedding_norm: Network::<V, E, A>::norm(&shape, &norm(&mut random)),
        layers,
        forms: PhantomData,
    }
}

fn check<V: Isa, E: Element<V>, A: AttentionElement<V>>(isa: V) {
    let name = format!("{} {}", std::any::type_name::<V>(), std::any::type_name::<E>());
    let model = description();
    let network = network::<V, E, A>(isa, &model);
    let longest = model.max_tokens;
    let ids: Vec<u32> = (0..longest).map(|n| (n * n % WORDS) as u32).collect();
    let texts = Text::list(&[&ids[..], &ids[..longest - 2]]);
    let layout = |members: usize| Layout::new::<V, E, A>(&network.shape, 2 * longest, longest, members).expect("small");
    // Leftovers of an earlier pass must not matter.
    let memory = |layout: &Layout| {
        let mut memory = Buffer::zeroed(layout.places);
        memory.floats_mut().fill(f32::NAN);
        memory
    };
    let lone = layout(1);
    let mut lone_memory = memory(&lone);
    let mut pass = Pass::new(&network, &lone, &texts, lone_memory.floats_mut());
    pass.alone();
    let expected = pass.residual();
    assert!(expected.iter().all(|value| value.is_finite()), "{name}: {expected:?}");
    for size in if cfg!(miri) { 2..3 } else { 2..6 } {
        let mut pool = ThreadPool::new(size);
        let shared = layout(pool.size());
        for _ in 0..if cfg!(miri) { 1 } else { 5 } {
            let mut memory = memory(&shared);
            let mut pass = Pass::new(&network, &shared, &texts, memory.floats_mut());
            share(&pass, &mut pool);
            assert_eq!(pass.residual(), expected, "{name}: {size} threads");
        }
    }
}

#[test]
fn thread_pool_result_is_bit_identical_to_single_thread() {
    on_every!(Isa, isa, check::<_, F32, F32>(isa));
    // The operand forms differ only in their kernels, which other tests cover under Miri.
    #[cfg(not(miri))]
    other_forms();
}

#[cfg(not(miri))]
fn other_forms() {
    on_every!(Bf16Isa, isa, check::<_, Bf16, Bf16>(isa));
    on_every!(Int8Isa, isa, check::<_, Int8, F32>(isa));
}
