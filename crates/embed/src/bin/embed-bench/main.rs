//! `embed-bench`: our engine at each precision beside other engines, on the same texts, turn by turn in one run; and the
//! same over HTTP. `embed-bench --help` says how.

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
use options::{Asked, Options, Output};
use process::Child;
use report::{Report, Row};
use served::{MODES, Served, nearest};
use tidewheel_engine::model::Description;
use tidewheel_engine::tokens::Encoding;
use tidewheel_engine::{Engine, Precision, Text, describe, measure_peak};

/// Texts whose latency alone is measured, in tokens.
const SINGLE: [usize; 2] = [28, 209];

/// Single texts in a round.
const SINGLE_REPEATS: usize = 20;

/// How long the processor's peak is measured before an engine's turn.
const PEAK: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let result = options::parse(std::env::args().skip(1)).and_then(|asked| match asked {
        Asked::Help => Ok(options::HELP.to_owned()),
        Asked::Run(options) => run(&options),
    });
    let (code, mut out): (_, Box<dyn Write>) = match &result {
        Ok(_) => (ExitCode::SUCCESS, Box::new(std::io::stdout())),
        Err(_) => (ExitCode::from(2), Box::new(std::io::stderr())),
    };
    let text = result.unwrap_or_else(|message| format!("embed-bench: {message}\n"));
    // Nobody is left to be told of a closed output.
    let _ = out.write_all(text.as_bytes());
    code
}

/// Tells how far it is.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn run(options: &Options) -> Result<String, String> {
    let description = Description::read(&options.model).map_err(|error| error.to_string())?;
    let texts = options::spread(read_texts(options.texts.as_deref())?, options.count);
    // Its tokens are everyone's, and its answers the reference if sentence-transformers is not there.
    let reference = ours(&options.model, Precision::F32)?;
    let encodings: Vec<Encoding> = texts.iter().map(|text| reference.tokenize(text)).collect();
    let batch: Vec<&[u32]> = encodings.iter().map(|encoding| &encoding.ids[..]).collect();
    let lengths: Vec<usize> = batch.iter().map(|ids| ids.len()).collect();
    say(&format!("{} texts, {} tokens", batch.len(), lengths.iter().sum::<usize>()));
    let singles = SINGLE.map(|length| nearest(&encodings, length));
    let [Some(short), Some(long)] = singles else { return Err("there is no text to embed".to_owned()) };

    let mut contestants = contestants(options, &reference, &texts, &batch)?;
    let mut answers = Vec::new();
    for (name, _, contestant) in &mut contestants {
        say(&format!("warming up: {name}"));
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
            say(&format!("round {round} of {}: {name}", options.rounds));
            row.peaks.push(measure_peak(row.precision, 0, PEAK));
            row.times.push(contestant.time(&batch).map_err(|error| format!("{name}: {error}"))?);
            for (place, text) in [short, long].into_iter().enumerate() {
                row.singles[place].extend(contestant.single(batch[text], SINGLE_REPEATS)?);
            }
            // Beside its engine, so that both find the machine alike.
            if let (Some(binary), Contestant::Ours(_), true) = (&options.http, &*contestant, row.key != "auto") {
                say(&format!("round {round} of {}: {} over HTTP", options.rounds, row.key));
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

/// One turn of our service.
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
    // The first round's answers are compared; every round begins warm.
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

/// An engine with its name for people, and its name and precision for the report.
type Named = (String, (&'static str, Precision), Contestant);

/// The engines that were asked for and are there.
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
            say(&format!("auto takes {}; measured at load: {}", info.precision.name(), describe(&info.measured)));
        }
        if precision == Precision::Auto || info.precision == precision {
            let name = format!("tidewheel {} ({})", precision.name(), info.kernel);
            let taken = info.precision;
            contestants.push((name, (precision.name(), taken), Contestant::Ours(engine)));
        } else {
            say(&format!("left out: {}, for which this processor has no instructions", precision.name()));
        }
    }
    if let Some(python) = &options.python {
        for other in OTHERS.iter().filter(|other| options.wants(other.key)) {
            say(&format!("starting: {}", other.name));
            match Child::start(python, other.key, &options.model, texts, batch) {
                Ok(child) => {
                    let contestant = Contestant::Other(Box::new(child));
                    contestants.push((other.name.to_owned(), (other.key, other.precision), contestant));
                }
                Err(reason) => say(&format!("left out: {}: {reason}", other.name)),
            }
        }
    }
    match contestants.is_empty() {
        true => Err("none of the engines that were asked for can run here".to_owned()),
        false => Ok(contestants),
    }
}

fn read_texts(path: Option<&Path>) -> Result<Vec<String>, String> {
    let Some(path) = path else { return parse_texts(include_str!("../../../tests/data/reference_texts.json"), "") };
    let json = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    parse_texts(&json, &path.display().to_string())
}

fn parse_texts(json: &str, name: &str) -> Result<Vec<String>, String> {
    serde_json::from_str(json).map_err(|error| format!("{name} is no JSON list of strings: {error}"))
}
