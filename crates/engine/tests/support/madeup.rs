//! Models with synthetic weights, and their reference vectors computed in f64 from the definition.

use std::path::Path;

use serde_json::json;

/// The vocabulary after the special tokens.
pub const WORDS: [&str; 12] = ["the", "tide", "##s", "turn", "wheel", "s", "and", "a", "mill", "##er", "grind", "."];

/// A synthetic model.
#[derive(Clone)]
pub struct Madeup {
    pub hidden: usize,
    pub heads: usize,
    pub layers: usize,
    pub intermediate: usize,
    pub max_tokens: usize,
    pub activation: &'static str,
    pub pooling: &'static str,
    pub normalize: bool,
    /// `bert` or `xlm-roberta`.
    pub kind: &'static str,
    /// Prefix of the tensors' names.
    pub prefix: &'static str,
    pub dtype: Dtype,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Dtype {
    F32,
    F16,
    Bf16,
}

/// A tensor's name, shape and values.
pub type Tensor = (String, Vec<usize>, Vec<f64>);

impl Madeup {
    /// A model that loads in a millisecond.
    pub const SMALL: Self = Self {
        hidden: 12,
        heads: 2,
        layers: 2,
        intermediate: 20,
        max_tokens: 24,
        activation: "gelu",
        pooling: "mean_tokens",
        normalize: true,
        kind: "bert",
        prefix: "",
        dtype: Dtype::F32,
    };

    fn positions(&self) -> usize {
        self.max_tokens + self.first_position()
    }

    fn first_position(&self) -> usize {
        if self.kind == "bert" { 0 } else { 2 }
    }

    pub fn vocabulary(&self) -> usize {
        WORDS.len() + 4
    }

    /// Returns the tensors, deterministic for given sizes, rounded to the file's precision.
    pub fn tensors(&self) -> Vec<Tensor> {
        let Self { hidden, intermediate, .. } = *self;
        let mut shapes = vec![
            ("embeddings.word_embeddings.weight".to_owned(), vec![self.vocabulary(), hidden]),
            ("embeddings.position_embeddings.weight".to_owned(), vec![self.positions(), hidden]),
            ("embeddings.token_type_embeddings.weight".to_owned(), vec![2, hidden]),
            ("embeddings.LayerNorm.weight".to_owned(), vec![hidden]),
            ("embeddings.LayerNorm.bias".to_owned(), vec![hidden]),
        ];
        for layer in 0..self.layers {
            let mut linear = |name: &str, outputs: usize, inputs: usize| {
                shapes.push((format!("encoder.layer.{layer}.{name}.weight"), vec![outputs, inputs]));
                shapes.push((format!("encoder.layer.{layer}.{name}.bias"), vec![outputs]));
            };
            for name in ["query", "key", "value"] {
                linear(&format!("attention.self.{name}"), hidden, hidden);
            }
            linear("attention.output.dense", hidden, hidden);
            linear("intermediate.dense", intermediate, hidden);
            linear("output.dense", hidden, intermediate);
            for name in ["attention.output.LayerNorm", "output.LayerNorm"] {
                shapes.push((format!("encoder.layer.{layer}.{name}.weight"), vec![hidden]));
                shapes.push((format!("encoder.layer.{layer}.{name}.bias"), vec![hidden]));
            }
        }
        let mut state = 42u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0
        };
        shapes
            .into_iter()
            .map(|(name, shape)| {
                let centre = if name.contains("LayerNorm.weight") { 1.0 } else { 0.0 };
                // Keeps sums of products near one.
                let width =
                    if shape.len() == 2 && !name.starts_with("emb") { (shape[1] as f64).sqrt().recip() } else { 0.2 };
                let count = shape.iter().product();
                let values = (0..count).map(|_| self.rounded(centre + 1.7 * width * random())).collect();
                (name, shape, values)
            })
            .collect()
    }

    fn rounded(&self, value: f64) -> f64 {
        match self.dtype {
            Dtype::F32 => f64::from(value as f32),
            Dtype::Bf16 => f64::from(f32::from_bits((value as f32).to_bits() & 0xffff_0000)),
            // A multiple of 2^-10 below 2 is a half-precision number.
            Dtype::F16 => (value * 1024.0).round() / 1024.0,
        }
    }

    fn bytes(&self, value: f64) -> Vec<u8> {
        match self.dtype {
            Dtype::F32 => (value as f32).to_le_bytes().to_vec(),
            Dtype::Bf16 => (value as f32).to_le_bytes()[2..].to_vec(),
            Dtype::F16 => {
                let (sign, mut size) = (u16::from(value < 0.0) << 15, value.abs());
                if size == 0.0 {
                    return sign.to_le_bytes().to_vec();
                }
                let mut exponent = 15u16;
                while size < 1.0 {
                    size *= 2.0;
                    exponent -= 1;
                }
                while size >= 2.0 {
                    size /= 2.0;
                    exponent += 1;
                }
                (sign | exponent << 10 | ((size - 1.0) * 1024.0) as u16).to_le_bytes().to_vec()
            }
        }
    }

    /// Writes the model as a sentence-transformers directory.
    pub fn write(&self, to: &Path) {
        let write = |name: &str, value: &serde_json::Value| {
            std::fs::write(to.join(name), serde_json::to_vec(value).unwrap()).unwrap();
        };
        write(
            "config.json",
            &json!({
                "model_type": self.kind, "hidden_size": self.hidden, "num_attention_heads": self.heads,
                "num_hidden_layers": self.layers, "intermediate_size": self.intermediate,
                "hidden_act": self.activation, "layer_norm_eps": 1e-5, "vocab_size": self.vocabulary(),
                "max_position_embeddings": self.positions(), "pad_token_id": 1, "type_vocab_size": 2,
            }),
        );
        let kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")];
        let modules: Vec<_> = kinds
            .iter()
            .filter(|(_, kind)| *kind != "Normalize" || self.normalize)
            .enumerate()
            .map(|(idx, (path, kind))| {
                json!({"idx": idx, "name": idx.to_string(), "path": path, "type": format!("sentence_transformers.models.{kind}")})
            })
            .collect();
        write("modules.json", &json!(modules));
        std::fs::create_dir_all(to.join("1_Pooling")).unwrap();
        let flags = ["cls_token", "mean_tokens", "max_tokens"];
        let mut pooling = json!({"word_embedding_dimension": self.hidden});
        for flag in flags {
            pooling[format!("pooling_mode_{flag}")] = json!(flag == self.pooling);
        }
        write("1_Pooling/config.json", &pooling);
        let vocabulary: serde_json::Map<_, _> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
            .iter()
            .chain(&WORDS)
            .enumerate()
            .map(|(id, word)| ((*word).to_owned(), json!(id)))
            .collect();
        let special = |word: &str, id: usize| json!({"id": word, "ids": [id], "tokens": [word]});
        let item = |kind: &str, id: &str| json!({kind: {"id": id, "type_id": 0}});
        write(
            "tokenizer.json",
            &json!({
                "version": "1.0",
                "truncation": {"max_length": 5, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
                "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                            "pad_type_id": 0, "pad_token": "[PAD]"},
                "added_tokens": [],
                "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                               "strip_accents": null, "lowercase": true},
                "pre_tokenizer": {"type": "BertPreTokenizer"},
                "post_processor": {"type": "TemplateProcessing",
                    "single": [item("SpecialToken", "[CLS]"), item("Sequence", "A"), item("SpecialToken", "[SEP]")],
                    "pair": [item("Sequence", "A"), item("Sequence", "B")],
                    "special_tokens": {"[CLS]": special("[CLS]", 2), "[SEP]": special("[SEP]", 3)}},
                "decoder": null,
                "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                          "max_input_chars_per_word": 100, "vocab": vocabulary},
            }),
        );
        let mut header = serde_json::Map::new();
        let mut data = Vec::new();
        let dtype = match self.dtype {
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::Bf16 => "BF16",
        };
        for (name, shape, values) in self.tensors() {
            let begin = data.len();
            data.extend(values.iter().flat_map(|value| self.bytes(*value)));
            let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]});
            header.insert(format!("{}{name}", self.prefix), entry);
        }
        let header = serde_json::to_vec(&header).unwrap();
        let file = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
        std::fs::write(to.join("model.safetensors"), file).unwrap();
    }

    /// Returns the reference vector, computed from the definition.
    pub fn expected(&self, ids: &[u32]) -> Vec<f64> {
        self.expected_without(0, ids)
    }

    /// Like [`Madeup::expected`], with the first tokens excluded from pooling.
    pub fn expected_without(&self, unpooled: usize, ids: &[u32]) -> Vec<f64> {
        let tensors = self.tensors();
        let tensor = |name: &str| &tensors.iter().find(|(own, ..)| own == name).unwrap().2[..];
        let hidden = self.hidden;
        let norm = |rows: &mut [Vec<f64>], name: &str| {
            let (scale, shift) = (tensor(&format!("{name}.weight")), tensor(&format!("{name}.bias")));
            for row in rows {
                let mean = row.iter().sum::<f64>() / hidden as f64;
                let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / hidden as f64;
                for (n, value) in row.iter_mut().enumerate() {
                    *value = (*value - mean) / (variance + f64::from(1e-5f32)).sqrt() * scale[n] + shift[n];
                }
            }
        };
        let linear = |rows: &[Vec<f64>], name: &str| -> Vec<Vec<f64>> {
            let (weight, bias) = (tensor(&format!("{name}.weight")), tensor(&format!("{name}.bias")));
            rows.iter()
                .map(|row| {
                    let outputs = weight.chunks(row.len()).zip(bias);
                    outputs.map(|(w, b)| w.iter().zip(row).map(|(w, x)| w * x).sum::<f64>() + b).collect()
                })
                .collect()
        };
        let add = |rows: &mut [Vec<f64>], other: &[Vec<f64>]| {
            for (row, other) in rows.iter_mut().zip(other) {
                row.iter_mut().zip(other).for_each(|(a, b)| *a += b);
            }
        };
        let words = tensor("embeddings.word_embeddings.weight");
        let places = tensor("embeddings.position_embeddings.weight");
        let kinds = tensor("embeddings.token_type_embeddings.weight");
        // In the RoBERTa family the padding has its own position and does not advance the others.
        let mut next = self.first_position();
        let mut x: Vec<Vec<f64>> = ids
            .iter()
            .map(|&id| {
                let place = if self.kind != "bert" && id == 1 { 1 } else { next };
                next += usize::from(place == next);
                let at = place * hidden;
                (0..hidden).map(|n| words[id as usize * hidden + n] + places[at + n] + kinds[n]).collect()
            })
            .collect();
        norm(&mut x, "embeddings.LayerNorm");
        let width = hidden / self.heads;
        for layer in 0..self.layers {
            let name = |part: &str| format!("encoder.layer.{layer}.{part}");
            let [q, k, v] = ["query", "key", "value"].map(|part| linear(&x, &name(&format!("attention.self.{part}"))));
            let mut gathered = vec![vec![0.0; hidden]; ids.len()];
            for head in 0..self.heads {
                let own = head * width..(head + 1) * width;
                for (row, q) in q.iter().enumerate() {
                    let dot = |k: &[f64]| own.clone().map(|n| q[n] * k[n]).sum::<f64>() / (width as f64).sqrt();
                    let weights: Vec<f64> = k.iter().map(|k| dot(k).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for n in own.clone() {
                        gathered[row][n] = weights.iter().zip(&v).map(|(weight, v)| weight * v[n]).sum::<f64>() / total;
                    }
                }
            }
            add(&mut x, &linear(&gathered, &name("attention.output.dense")));
            norm(&mut x, &name("attention.output.LayerNorm"));
            let mut inner = linear(&x, &name("intermediate.dense"));
            inner.iter_mut().flatten().for_each(|value| *value = self.activate(*value));
            add(&mut x, &linear(&inner, &name("output.dense")));
            norm(&mut x, &name("output.LayerNorm"));
        }
        x.drain(..unpooled);
        let column = |n: usize| x.iter().map(move |row| row[n]);
        let mut out: Vec<f64> = (0..hidden)
            .map(|n| match self.pooling {
                "cls_token" => x[0][n],
                "max_tokens" => column(n).fold(f64::NEG_INFINITY, f64::max),
                _ => column(n).sum::<f64>() / x.len() as f64,
            })
            .collect();
        if self.normalize {
            let length = out.iter().map(|value| value * value).sum::<f64>().sqrt();
            out.iter_mut().for_each(|value| *value /= length);
        }
        out
    }

    fn activate(&self, x: f64) -> f64 {
        match self.activation {
            "relu" => x.max(0.0),
            "gelu_new" => x / 2.0 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
            _ => x * normal(x),
        }
    }
}

/// Returns the normal cumulative distribution function: the density times the series of x^(2n+1) / (2n+1)!!.
fn normal(x: f64) -> f64 {
    if x < -6.0 {
        return 0.0;
    }
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > 1e-18 {
        n += 2.0;
        term *= x * x / n;
        sum += term;
    }
    0.5 + sum * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}
