//! `embed-bench`: benchmarks tidewheel's engine at each precision against other engines on the same texts, interleaved in
//! one run, and over HTTP. See `embed-bench --help`.

mod contestant;
mod options;
mod process;
mod report;
mod served;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use contestant::{Contestant, OTHERS, OURS, ours};
use options::{Invocation, Options, Output};
use process::Child;
use report::{Report, Row};
use served::{MODES, Served, nearest};
use tidewheel_engine::model::Description;
use tidewheel_engine::tokens::Encoding;
use tidewheel_engine::{Engine, Precision, Text, describe, measure_peak};

/// Lengths of the texts for single-text latency, in tokens.
const SINGLE: [usize; 2] = [28, 209];

/// Single-text measurements per round.
const SINGLE_REPEATS: usize = 20;

/// Duration of the CPU peak measurement before each engine's turn.
const PEAK: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let result = options::parse(std::env::args().skip(1)).and_then(|invocation| match invocation {
        Invocation::Help => Ok(options::HELP.to_owned()),
        Invocation::Run(options) => run(&options),
    });
    let (code, mut out): (_, Box<dyn Write>) = match &result {
        Ok(_) => (ExitCode::SUCCESS, Box::new(std::io::stdout())),
        Err(_) => (ExitCode::from(2), Box::new(std::io::stderr())),
    };
    let text = result.unwrap_or_else(|message| format!("embed-bench: {message}\n"));
    // A closed output cannot be reported.
    let _ = out.write_all(text.as_bytes());
    code
}

/// Prints progress to standard error.
fn progress(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn run(options: &Options) -> Result<String, String> {
    let description = Description::read(&options.model).map_err(|error| error.to_string())?;
    let texts = options::spread(read_texts(options.texts.as_deref())?, options.count);
    // Tokenizes for all engines, and is the reference if sentence-transformers is missing.
    let reference = ours(&options.model, Precision::F32)?;
    let encodings: Vec<Encoding> = texts.iter().map(|text| reference.tokenize(text)).collect();
    let batch: Vec<&[u32]> = encodings.iter().map(|encoding| &encoding.ids[..]).collect();
    let lengths: Vec<usize> = batch.iter().map(|ids| ids.len()).collect();
    progress(&format!("{} texts, {} tokens", batch.len(), lengths.iter().sum::<usize>()));
    let singles = SINGLE.map(|length| nearest(&encodings, length));
    let [Some(short), Some(long)] = singles else { return Err("no texts to embed".to_owned()) };

    let mut contestants = contestants(options, &reference, &texts, &batch)?;
    let mut answers = Vec::new();
    for (name, _, contestant) in &mut contestants {
        progress(&format!("warming up: {name}"));
        answers.push(contestant.embed(&batch).map_err(|error| format!("{name}: {error}"))?);
    }
    let judge = contestants.iter().position(|(name, ..)| name.starts_with("sentence-transformers"));
    let expected = judge.map_or_else(|| reference.embed(&Text::list(&batch), 0), |judge| answers[judge].clone());
    let dimension = reference.info().dimension;
    let mut rows: Vec<Row> = contestants
        .iter()
        .zip(&answers)
        .map(|((name, (key, precision), _), answer)| Row {
            key: (*key).to_owned(),
            name: name.clone(),
            precision: *precision,
            cosine: report::cosines(answer, &expected, dimension),
            times: Vec::new(),
            peaks: Vec::new(),
            singles: SINGLE.map(|_| Vec::new()),
        })
        .collect();
    let mut served: Vec<report::Served> = Vec::new();

    for round in 1..=options.rounds {
        for (row, (name, _, contestant)) in rows.iter_mut().zip(&mut contestants) {
            progress(&format!("round {round} of {}: {name}", options.rounds));
            row.peaks.push(measure_peak(row.precision, 0, PEAK));
            row.times.push(contestant.time(&batch).map_err(|error| format!("{name}: {error}"))?);
            for (place, text) in [short, long].into_iter().enumerate() {
                row.singles[place].extend(contestant.single(batch[text], SINGLE_REPEATS)?);
            }
            // Next to its engine's turn, so that both run under the same machine load.
            if let (Some(binary), Contestant::Ours(_), true) = (&options.http, &*contestant, row.key != "auto") {
                progress(&format!("round {round} of {}: {} over HTTP", options.rounds, row.key));
                let place = served.iter().position(|served| served.precision == row.precision).unwrap_or_else(|| {
                    served.push(report::Served::new(row.precision));
                    served.len() - 1
                });
                let service = Served::start(binary, &options.model, row.precision, dimension)?;
                over_http(&service, &mut served[place], &texts, [short, long], &expected, dimension)?;
            }
        }
    }
    let operations = report::operations(&description, &lengths);
    let report = Report::new(&rows, &served, &lengths, operations, options.rounds);
    Ok(match options.output {
        Output::Table => report.tables(),
        Output::Json => serde_json::to_string_pretty(&report).map_err(|error| error.to_string())? + "\n",
    })
}

/// Measures one turn of tidewheel's service.
fn over_http(
    service: &Served,
    figures: &mut report::Served,
    texts: &[String],
    singles: [usize; 2],
    expected: &[f32],
    dimension: usize,
) -> Result<(), String> {
    figures.starts.push(service.start);
    figures.ready_memory.push(service.resident().0);
    // Vectors are compared in the first round; every round starts warm.
    let warm_up = if figures.times[0].is_empty() { texts } else { &texts[..texts.len().min(64)] };
    for mode in [MODES[0], MODES[1]] {
        let answer = service.embed(warm_up, mode)?;
        if warm_up.len() == texts.len() {
            figures.cosine = report::cosines(&answer, expected, dimension);
        }
    }
    for (times, mode) in figures.times.iter_mut().zip(MODES) {
        times.push(service.time(texts, mode)?);
    }
    for (place, text) in singles.into_iter().enumerate() {
        figures.singles[place].extend(service.single(&texts[text], SINGLE_REPEATS)?);
    }
    figures.peak_memory.push(service.resident().1);
    Ok(())
}

/// An engine with its display name, and its key and precision for the report.
type Named = (String, (&'static str, Precision), Contestant);

/// Starts the selected engines that are available.
fn contestants(
    options: &Options,
    reference: &Arc<dyn Engine>,
    texts: &[String],
    batch: &[&[u32]],
) -> Result<Vec<Named>, String> {
    let mut contestants = Vec::new();
    for precision in OURS.into_iter().filter(|precision| options.wants(precision.name())) {
        let engine = if precision == Precision::F32 { Arc::clone(reference) } else { ours(&options.model, precision)? };
        let info = engine.info();
        if precision == Precision::Auto {
            progress(&format!(
                "auto selected {}; measured at load: {}",
                info.precision.name(),
                describe(&info.measured)
            ));
        }
        if precision == Precision::Auto || info.precision == precision {
            let name = format!("tidewheel {} ({})", precision.name(), info.kernel);
            let taken = info.precision;
            contestants.push((name, (precision.name(), taken), Contestant::Ours(engine)));
        } else {
            progress(&format!("skipped: {} (not supported by this CPU)", precision.name()));
        }
    }
    if let Some(python) = &options.python {
        for other in OTHERS.iter().filter(|other| options.wants(other.key)) {
            progress(&format!("starting: {}", other.name));
            match Child::start(python, other.key, &options.model, texts, batch) {
                Ok(child) => {
                    let contestant = Contestant::Other(Box::new(child));
                    contestants.push((other.name.to_owned(), (other.key, other.precision), contestant));
                }
                Err(reason) => progress(&format!("skipped: {}: {reason}", other.name)),
            }
        }
    }
    match contestants.is_empty() {
        true => Err("none of the selected engines is available".to_owned()),
        false => Ok(contestants),
    }
}

fn read_texts(path: Option<&Path>) -> Result<Vec<String>, String> {
    let Some(path) = path else {
        return parse_texts(include_str!("../../../../engine/tests/data/reference_texts.json"), "");
    };
    let json = std::fs::read_to_string(path).map_err(|error| format!("failed to read {}: {error}", path.display()))?;
    parse_texts(&json, &path.display().to_string())
}

fn parse_texts(json: &str, name: &str) -> Result<Vec<String>, String> {
    serde_json::from_str(json).map_err(|error| format!("invalid {name}: expected a JSON array of strings: {error}"))
}
