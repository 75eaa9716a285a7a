//! The report, as Markdown tables or JSON.

use std::fmt::Write;

use serde::Serialize;
use tidewheel_engine::Precision;
use tidewheel_engine::model::Description;

use crate::SINGLE;
use crate::contestant::Times;
use crate::served::{MODES, Mode};

/// The measurements of one engine.
#[derive(Clone)]
pub(crate) struct Row {
    /// Name on the command line.
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) precision: Precision,
    /// Minimum and mean cosine with the reference.
    pub(crate) cosine: (f64, f64),
    /// Time for all texts, by round.
    pub(crate) times: Vec<Times>,
    /// Peak operations per second of the machine, by round.
    pub(crate) peaks: Vec<f64>,
    /// Seconds of single texts, by length.
    pub(crate) singles: [Vec<f64>; SINGLE.len()],
}

/// The measurements of tidewheel's service.
pub(crate) struct Served {
    pub(crate) precision: Precision,
    pub(crate) cosine: (f64, f64),
    /// Time for all texts, by mode and round.
    pub(crate) times: [Vec<Times>; MODES.len()],
    pub(crate) singles: [Vec<f64>; SINGLE.len()],
    /// Seconds from start to ready.
    pub(crate) starts: Vec<f64>,
    /// Resident megabytes at ready, and peak under load.
    pub(crate) ready_memory: Vec<f64>,
    pub(crate) peak_memory: Vec<f64>,
}

impl Served {
    pub(crate) fn new(precision: Precision) -> Self {
        Self {
            precision,
            cosine: (0.0, 0.0),
            times: MODES.map(|_| Vec::new()),
            singles: SINGLE.map(|_| Vec::new()),
            starts: Vec::new(),
            ready_memory: Vec::new(),
            peak_memory: Vec::new(),
        }
    }
}

/// The complete report.
#[derive(Serialize)]
pub(crate) struct Report {
    cores: usize,
    texts: usize,
    tokens: usize,
    rounds: usize,
    engines: Vec<EngineFigures>,
    http: Vec<HttpFigures>,
}

#[derive(Serialize)]
struct EngineFigures {
    engine: String,
    name: String,
    tokens_per_second: f64,
    /// Extrapolated from CPU time to all cores fully used.
    tokens_per_second_by_cpu: f64,
    /// Peak operations per second of all cores in this precision.
    peak: f64,
    share_of_peak: f64,
    cosine_min: f64,
    cosine_mean: f64,
    single_milliseconds: Vec<Single>,
    /// Speedup over each engine.
    times_as_fast_as: Vec<Ratio>,
}

#[derive(Serialize)]
struct Single {
    tokens: usize,
    milliseconds: f64,
}

#[derive(Serialize)]
struct Ratio {
    engine: String,
    by_clock: f64,
    by_cpu: f64,
}

#[derive(Serialize)]
struct HttpFigures {
    precision: &'static str,
    cosine_min: f64,
    cosine_mean: f64,
    start_to_ready_milliseconds: f64,
    ready_memory_megabytes: f64,
    peak_memory_megabytes: f64,
    modes: Vec<ModeFigures>,
    single_milliseconds: Vec<Single>,
}

#[derive(Serialize)]
struct ModeFigures {
    texts_per_request: usize,
    binary: bool,
    requests_at_once: usize,
    tokens_per_second: f64,
    /// Throughput relative to the in-process engine: by wall clock, with the client on the same cores, and by the CPU time
    /// of the service alone.
    of_engine_by_clock: Option<f64>,
    of_engine_by_cpu: Option<f64>,
}

/// Returns the minimum and mean cosine of concatenated vectors.
pub(crate) fn cosines(a: &[f32], b: &[f32], dimension: usize) -> (f64, f64) {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let cosines: Vec<f64> =
        a.chunks(dimension).zip(b.chunks(dimension)).map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()).collect();
    let least = cosines.iter().copied().fold(f64::INFINITY, f64::min);
    (least, cosines.iter().sum::<f64>() / cosines.len() as f64)
}

/// Returns the number of multiplications and additions for texts of these lengths.
pub(crate) fn operations(model: &Description, lengths: &[usize]) -> f64 {
    let linear = 4 * model.hidden * model.hidden + 2 * model.hidden * model.intermediate;
    let tokens: usize = lengths.iter().sum();
    let pairs: usize = lengths.iter().map(|length| length * length).sum();
    2.0 * model.layers as f64 * (linear as f64 * tokens as f64 + 2.0 * model.hidden as f64 * pairs as f64)
}

/// Returns the median; 0 for no values.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// Returns the median speedup over all rounds; both measurements of a round are taken consecutively.
fn ratio(own: &[Times], other: &[Times], time: impl Fn(&Times) -> f64) -> f64 {
    median(own.iter().zip(other).map(|(own, other)| time(other) / time(own)))
}

fn singles(seconds: &[Vec<f64>; SINGLE.len()]) -> Vec<Single> {
    let single = |(tokens, seconds): (usize, &Vec<f64>)| Single {
        tokens,
        milliseconds: 1000.0 * median(seconds.iter().copied()),
    };
    SINGLE.into_iter().zip(seconds).map(single).collect()
}

impl Report {
    /// Builds the report from medians. `lengths` are the texts' tokens, `operations` the total operations for them.
    pub(crate) fn new(rows: &[Row], served: &[Served], lengths: &[usize], operations: f64, rounds: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let tokens: usize = lengths.iter().sum();
        let speed = |times: &[Times], time: fn(&Times) -> f64| tokens as f64 / median(times.iter().map(time));
        let engines = rows.iter().map(|row| EngineFigures {
            engine: row.key.clone(),
            name: row.name.clone(),
            tokens_per_second: speed(&row.times, |times| times.clock),
            tokens_per_second_by_cpu: speed(&row.times, |times| times.cpu) * cores as f64,
            peak: median(row.peaks.iter().copied()),
            share_of_peak: median(
                row.times.iter().zip(&row.peaks).map(|(times, peak)| operations / times.cpu * cores as f64 / peak),
            ),
            cosine_min: row.cosine.0,
            cosine_mean: row.cosine.1,
            single_milliseconds: singles(&row.singles),
            times_as_fast_as: rows
                .iter()
                .map(|other| Ratio {
                    engine: other.key.clone(),
                    by_clock: ratio(&row.times, &other.times, |times| times.clock),
                    by_cpu: ratio(&row.times, &other.times, |times| times.cpu),
                })
                .collect(),
        });
        let http = served.iter().map(|served| {
            let engine = rows.iter().find(|row| row.key == served.precision.name());
            let mode = |(mode, times): (Mode, &Vec<Times>)| ModeFigures {
                texts_per_request: mode.texts,
                binary: mode.binary,
                requests_at_once: mode.concurrency,
                tokens_per_second: speed(times, |times| times.clock),
                of_engine_by_clock: engine.map(|row| ratio(times, &row.times, |times| times.clock)),
                of_engine_by_cpu: engine.map(|row| ratio(times, &row.times, |times| times.cpu)),
            };
            HttpFigures {
                precision: served.precision.name(),
                cosine_min: served.cosine.0,
                cosine_mean: served.cosine.1,
                start_to_ready_milliseconds: 1000.0 * median(served.starts.iter().copied()),
                ready_memory_megabytes: median(served.ready_memory.iter().copied()),
                peak_memory_megabytes: served.peak_memory.iter().copied().fold(0.0, f64::max),
                modes: MODES.into_iter().zip(&served.times).map(mode).collect(),
                single_milliseconds: singles(&served.singles),
            }
        });
        Self { cores, texts: lengths.len(), tokens, rounds, engines: engines.collect(), http: http.collect() }
    }

    /// Formats the report as Markdown tables.
    pub(crate) fn tables(&self) -> String {
        let mut out = format!(
            "{} texts, {} tokens, {} cores, medians of {} rounds\n\n",
            self.texts, self.tokens, self.cores, self.rounds
        );
        self.engines(&mut out);
        self.auto(&mut out);
        self.ratios(&mut out);
        self.served(&mut out);
        out
    }

    fn engines(&self, out: &mut String) {
        let [short, long] = SINGLE;
        let _ = writeln!(
            out,
            "| engine | tokens/s | tokens/CPU-s × {} | of peak | cosine min | cosine mean | {short} tokens | {long} tokens |\n\
             |---|---|---|---|---|---|---|---|",
            self.cores
        );
        for engine in &self.engines {
            let _ = write!(
                out,
                "| {} | {:.0} | {:.0} | {:.0}% of {:.0} G/s | {:.7} | {:.7} |",
                engine.name,
                engine.tokens_per_second,
                engine.tokens_per_second_by_cpu,
                engine.share_of_peak * 100.0,
                engine.peak / 1e9,
                engine.cosine_min,
                engine.cosine_mean,
            );
            for single in &engine.single_milliseconds {
                let _ = write!(out, " {:.2} ms |", single.milliseconds);
            }
            out.push('\n');
        }
    }

    /// Compares the automatic choice with the precisions it chose from.
    fn auto(&self, out: &mut String) {
        let Some(auto) = self.engines.iter().find(|engine| engine.engine == "auto") else { return };
        let others = auto.times_as_fast_as.iter().filter(|ratio| matches!(&ratio.engine[..], "f32" | "bf16"));
        if let Some(least) = others.min_by(|a, b| a.by_cpu.total_cmp(&b.by_cpu)) {
            let Ratio { by_clock, by_cpu, .. } = least;
            let _ = writeln!(
                out,
                "\nauto: {by_clock:.2}× the speed of the faster of f32 and bf16 (wall clock), {by_cpu:.2}× (CPU time)"
            );
        }
    }

    /// Formats the speedups of tidewheel's engines.
    fn ratios(&self, out: &mut String) {
        let (ours, others): (Vec<&EngineFigures>, Vec<_>) =
            self.engines.iter().partition(|engine| engine.name.starts_with("tidewheel"));
        if ours.is_empty() || others.is_empty() {
            return;
        }
        out.push_str("\n| speedup over (wall clock) |");
        for engine in &ours {
            let _ = write!(out, " {} |", engine.engine);
        }
        let _ = writeln!(out, "\n|---|{}", "---|".repeat(ours.len()));
        for other in &others {
            let _ = write!(out, "| {} |", other.name);
            for engine in &ours {
                let ratio = engine.times_as_fast_as.iter().find(|ratio| ratio.engine == other.engine);
                let _ = write!(out, " {:.2} |", ratio.map_or(f64::NAN, |ratio| ratio.by_clock));
            }
            out.push('\n');
        }
    }

    fn served(&self, out: &mut String) {
        if self.http.is_empty() {
            return;
        }
        out.push_str(
            "\n| HTTP | texts/request | format | concurrency | tokens/s | vs engine (wall clock) | vs engine (service CPU) |\n\
             |---|---|---|---|---|---|---|\n",
        );
        let percent = |share: Option<f64>| share.map_or("–".to_owned(), |share| format!("{:.1}%", share * 100.0));
        for served in &self.http {
            for mode in &served.modes {
                let _ = writeln!(
                    out,
                    "| {} | {} | {} | {} | {:.0} | {} | {} |",
                    served.precision,
                    mode.texts_per_request,
                    if mode.binary { "binary" } else { "JSON" },
                    mode.requests_at_once,
                    mode.tokens_per_second,
                    percent(mode.of_engine_by_clock),
                    percent(mode.of_engine_by_cpu),
                );
            }
        }
        let [short, long] = SINGLE;
        let _ = writeln!(
            out,
            "\n| HTTP | startup | memory at ready | peak memory | cosine min | cosine mean | {short} tokens | {long} tokens |\n\
             |---|---|---|---|---|---|---|---|"
        );
        for served in &self.http {
            let _ = write!(
                out,
                "| {} | {:.0} ms | {:.0} MB | {:.0} MB | {:.7} | {:.7} |",
                served.precision,
                served.start_to_ready_milliseconds,
                served.ready_memory_megabytes,
                served.peak_memory_megabytes,
                served.cosine_min,
                served.cosine_mean,
            );
            for single in &served.single_milliseconds {
                let _ = write!(out, " {:.2} ms |", single.milliseconds);
            }
            out.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, name: &str, clocks: &[f64]) -> Row {
        Row {
            key: key.to_owned(),
            name: name.to_owned(),
            precision: Precision::F32,
            cosine: (0.5, 1.0),
            times: clocks.iter().map(|clock| Times { clock: *clock, cpu: 2.0 * clock }).collect(),
            peaks: clocks.iter().map(|_| 1e12).collect(),
            singles: [vec![0.001, 0.003, 0.002], vec![0.01]],
        }
    }

    #[test]
    fn median_ignores_single_outlier() {
        assert!((median([1.0, 900.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median([1.0, 3.0]) - 2.0).abs() < 1e-9);
        assert!(median([]).abs() < 1e-9);
    }

    #[test]
    fn ratio_compares_engines_within_rounds() {
        // The machine was slower in the second round for both.
        let (own, other) = (row("f32", "a", &[1.0, 10.0, 1.0]).times, row("st-8", "b", &[2.0, 20.0, 3.0]).times);
        assert!((ratio(&own, &other, |times| times.clock) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn cosines_are_independent_of_vector_length() {
        let (least, mean) = cosines(&[1.0, 0.0, 0.0, 2.0], &[3.0, 0.0, 4.0, 4.0], 2);
        assert!((least - 0.5f64.sqrt()).abs() < 1e-9);
        assert!((mean - f64::midpoint(1.0, 0.5f64.sqrt())).abs() < 1e-9);
    }

    #[test]
    fn operations_count_matrices_and_attention() {
        use tidewheel_engine::model::{Activation, Pooling, Prompts, TokenizerSettings};
        let mini_lm = Description {
            directory: "/".into(),
            hidden: 384,
            heads: 12,
            layers: 6,
            intermediate: 1536,
            activation: Activation::Gelu,
            norm_epsilon: 1e-12,
            vocabulary: 30_522,
            positions: 512,
            padding: None,
            max_tokens: 256,
            folder: String::new(),
            tokenizer: TokenizerSettings::default(),
            pooling: Pooling::Mean,
            include_prompt: true,
            normalize: true,
            prompts: Prompts::default(),
        };
        let [ten, hundred] = [10.0f64, 100.0].map(|length| length * (21_233_664.0 + 9_216.0 * length));
        assert!((operations(&mini_lm, &[10, 100]) - ten - hundred).abs() < 1.0);
    }

    #[test]
    fn report_contains_all_measurements() {
        let rows = [row("f32", "tidewheel f32", &[1.0, 1.0]), row("st-8", "sentence-transformers", &[2.0, 4.0])];
        let mut served = Served::new(Precision::F32);
        for times in &mut served.times {
            times.extend([Times { clock: 1.25, cpu: 2.0 }, Times { clock: 1.25, cpu: 2.0 }]);
        }
        served.starts.push(0.25);
        served.peak_memory.extend([100.0, 120.0]);
        let rows =
            [rows, [row("auto", "tidewheel auto", &[0.5, 0.5]), row("bf16", "tidewheel bf16", &[0.25, 1.0])]].concat();
        let report = Report::new(&rows, &[served], &[10, 30], 1e12, 2);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["texts"], &json["tokens"], &json["rounds"]), (&2.into(), &40.into(), &2.into()));
        let ours = &json["engines"][0];
        assert_eq!((&ours["tokens_per_second"], &ours["cosine_min"]), (&40.0.into(), &0.5.into()));
        assert_eq!(ours["single_milliseconds"][0], serde_json::json!({"tokens": 28, "milliseconds": 2.0}));
        assert_eq!(ours["times_as_fast_as"][1]["by_clock"], 3.0);
        let http = &json["http"][0];
        assert_eq!(http["modes"][0]["of_engine_by_clock"], 0.8);
        assert_eq!(
            (&http["start_to_ready_milliseconds"], &http["peak_memory_megabytes"]),
            (&250.0.into(), &120.0.into())
        );

        let tables = report.tables();
        for part in [
            "| tidewheel f32 | 40 |",
            "| sentence-transformers | 3.00 |",
            "| f32 | 256 | binary | 4 | 32 | 80.0% |",
            "auto: 1.25× the speed of the faster",
        ] {
            assert!(tables.contains(part), "{part}\n{tables}");
        }
    }
}
