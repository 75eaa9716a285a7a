//! `embed-bench`: our engine at each precision beside sentence-transformers and onnxruntime, on the same texts, turn by
//! turn in one run.
//!
//! ```text
//! embed-bench MODEL_DIR [--texts FILE] [--python PYTHON] [--rounds N] [--only NAME,…]
//! ```
//!
//! `FILE` is a JSON list of strings. `PYTHON` is an interpreter that has `numpy` and any of `sentence-transformers`,
//! `onnxruntime` with `onnx`, and `openvino`; what it lacks is left out, and said so. Speed is given by the clock and
//! by CPU time; on a machine that does other work, the second is the one to compare.

mod process;
mod report;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use process::{Child, cpu_seconds};
use report::Row;
use tidewheel_embed::engine::{Engine, ModelSource, ModelSpec, Precision, load, measure_peak};
use tidewheel_embed::model::Description;

/// Texts whose latency alone is measured, in tokens.
const SINGLE: [usize; 2] = [28, 209];

/// Single texts in a round.
const SINGLE_REPEATS: usize = 20;

struct Options {
    model: PathBuf,
    texts: Vec<String>,
    python: Option<PathBuf>,
    rounds: usize,
    only: Vec<String>,
}

fn options() -> Result<Options, String> {
    let mut arguments = std::env::args().skip(1);
    let mut model = None;
    let mut options = Options {
        model: PathBuf::new(),
        texts: parse_texts(include_str!("../../../tests/data/reference_texts.json"))?,
        python: None,
        rounds: 5,
        only: Vec::new(),
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--texts" => {
                let path = value()?;
                let text = std::fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
                options.texts = parse_texts(&text)?;
            }
            "--python" => options.python = Some(value()?.into()),
            "--rounds" => options.rounds = value()?.parse().map_err(|error| format!("--rounds: {error}"))?,
            "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
            _ if model.is_none() && !argument.starts_with('-') => model = Some(argument),
            _ => return Err(format!("{argument} is not known")),
        }
    }
    options.model = model.ok_or("usage: embed-bench MODEL_DIR [--texts FILE] [--python PYTHON] [--rounds N]")?.into();
    Ok(options)
}

fn parse_texts(json: &str) -> Result<Vec<String>, String> {
    serde_json::from_str(json).map_err(|error| format!("the texts are no JSON list of strings: {error}"))
}

/// One engine under measurement.
enum Contestant {
    Ours(Arc<dyn Engine>),
    Other(Box<Child>),
}

impl Contestant {
    fn embed(&mut self, batch: &[&[u32]]) -> Result<Vec<f32>, String> {
        match self {
            Self::Ours(engine) => Ok(engine.embed(batch, 0)),
            Self::Other(child) => child.embed(),
        }
    }

    /// Seconds for all texts: by the clock, and of CPU.
    fn time(&mut self, batch: &[&[u32]]) -> Result<(f64, f64), String> {
        match self {
            Self::Ours(engine) => {
                let (cpu, start) = (cpu_seconds(std::process::id()), Instant::now());
                let _ = engine.embed(batch, 0);
                Ok((start.elapsed().as_secs_f64(), cpu_seconds(std::process::id()) - cpu))
            }
            Self::Other(child) => child.time(),
        }
    }

    /// Seconds for each repeat of one text.
    fn single(&mut self, ids: &[u32]) -> Result<Vec<f64>, String> {
        match self {
            Self::Ours(engine) => {
                let mut out = vec![0.0; engine.info().dimension];
                Ok((0..SINGLE_REPEATS)
                    .map(|_| {
                        let start = Instant::now();
                        engine.embed_one(ids, &mut out);
                        start.elapsed().as_secs_f64()
                    })
                    .collect())
            }
            Self::Other(child) => child.single(ids, SINGLE_REPEATS),
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let talk = |text: &str| {
        let _ = writeln!(std::io::stderr(), "{text}");
    };
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let ours = |precision| {
        let mut spec = ModelSpec::new(ModelSource::Directory(options.model.clone()));
        spec.precision = precision;
        load(&spec).map_err(|error| error.to_string())
    };
    // Its tokens are everyone's, and its answers the reference if sentence-transformers is not there.
    let reference = ours(Precision::F32)?;
    let encodings: Vec<_> = options.texts.iter().map(|text| reference.tokenize(text)).collect();
    let batch: Vec<&[u32]> = encodings.iter().map(|encoding| &encoding.ids[..]).collect();
    let tokens: usize = batch.iter().map(|ids| ids.len()).sum();
    talk(&format!("{} texts, {tokens} tokens", batch.len()));

    let mut contestants = Vec::new();
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        if !wanted(precision.name()) {
            continue;
        }
        let engine = if precision == Precision::F32 { Arc::clone(&reference) } else { ours(precision)? };
        if engine.info().precision == precision {
            let name = format!("tidewheel {} ({})", precision.name(), engine.info().kernel);
            contestants.push((name, precision, Contestant::Ours(engine)));
        } else {
            talk(&format!("left out: {}, for which this processor has no instructions", precision.name()));
        }
    }
    if let Some(python) = &options.python {
        let others = [
            ("st-8", "sentence-transformers f32, batch 8", Precision::F32),
            ("st-32", "sentence-transformers f32, batch 32", Precision::F32),
            ("ort-f32", "onnxruntime f32, sorted, batch 8", Precision::F32),
            ("ort-int8", "onnxruntime int8, sorted, batch 8", Precision::Int8),
            ("ov-f32", "openvino f32, sorted, batch 8", Precision::F32),
            ("ov-bf16", "openvino bf16, sorted, batch 8", Precision::Bf16),
        ];
        for (engine, name, precision) in others.into_iter().filter(|(engine, ..)| wanted(engine)) {
            match Child::start(python, engine, &options.model, &options.texts, &batch) {
                Ok(child) => contestants.push((name.to_owned(), precision, Contestant::Other(Box::new(child)))),
                Err(reason) => talk(&format!("left out: {name}: {reason}")),
            }
        }
    }

    let mut answers = Vec::new();
    for (name, _, contestant) in &mut contestants {
        talk(&format!("warming up: {name}"));
        answers.push(contestant.embed(&batch)?);
    }
    let judge = contestants.iter().position(|(name, ..)| name.starts_with("sentence-transformers"));
    let expected = judge.map_or_else(|| reference.embed(&batch, 0), |judge| answers[judge].clone());

    let mut rows: Vec<Row> = contestants
        .iter()
        .zip(&answers)
        .map(|((name, precision, _), answer)| {
            Row::new(name, *precision, report::cosines(answer, &expected, reference.info().dimension))
        })
        .collect();
    for round in 0..options.rounds {
        talk(&format!("round {} of {}", round + 1, options.rounds));
        for (row, (_, precision, contestant)) in rows.iter_mut().zip(&mut contestants) {
            row.peaks.push(measure_peak(*precision, 0, Duration::from_millis(200)));
            row.times.push(contestant.time(&batch)?);
            for (place, length) in SINGLE.iter().enumerate() {
                let ids = batch.iter().min_by_key(|ids| ids.len().abs_diff(*length)).ok_or("no texts")?;
                row.singles[place].extend(contestant.single(ids)?);
            }
        }
    }
    let model = Description::read(&options.model).map_err(|error| error.to_string())?;
    let lengths: Vec<usize> = batch.iter().map(|ids| ids.len()).collect();
    let table = report::table(&rows, tokens, report::operations(&model, &lengths));
    let _ = write!(std::io::stdout(), "{table}");
    Ok(())
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "embed-bench: {message}");
            ExitCode::from(2)
        }
    }
}
