//! Command-line options.

use std::path::PathBuf;

use crate::contestant::{OTHERS, OURS};

/// The output of `--help`.
pub(crate) const HELP: &str = "\
Benchmarks tidewheel's embedding engine against other engines on the same texts, interleaved in one run.

Usage: embed-bench MODEL_DIR [options]

  MODEL_DIR           directory of a sentence-transformers model

Options:
  --texts FILE        JSON array of strings [default: 50 built-in short texts]
  --count N           use N texts, evenly spread over the list [default: all]
  --rounds N          rounds per engine; medians are printed [default: 5]
  --only NAME,…       only these engines
  --python PATH       Python with numpy and any of sentence-transformers, onnxruntime and onnx, openvino and onnx;
                      missing engines are skipped and reported
  --http PATH         also measure over HTTP: this tidewheel binary's embedder in a separate process
  --output FORMAT     'table' in Markdown, or 'json' [default: table]

Engines: f32, bf16, int8, auto (tidewheel; auto selects f32 or bf16 by measuring at load); st-8, st-32
(sentence-transformers by batch size); ort-f32, ort-int8 (onnxruntime); ov-f32, ov-bf16, ov-int8 (OpenVINO; the last needs
nncf). onnxruntime and OpenVINO use a session or stream per core, texts sorted by length, and their best batch size.

Speed is reported by wall clock and by CPU time: on a busy machine, compare CPU time. The measured peak is the CPU's
throughput of multiplications and additions alone, with all operands in the L1 cache.
The table goes to standard output, progress to standard error.

Example:
  cargo build --release -p tidewheel -p tidewheel-bench
  target/release/embed-bench ~/models/all-MiniLM-L6-v2 --texts texts.json --python venv/bin/python \\
      --http target/release/tidewheel
";

/// The output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Table,
    Json,
}

/// The parsed options.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) model: PathBuf,
    /// `None`: the built-in texts.
    pub(crate) texts: Option<PathBuf>,
    pub(crate) count: Option<usize>,
    pub(crate) rounds: usize,
    /// Empty: all.
    pub(crate) only: Vec<String>,
    pub(crate) python: Option<PathBuf>,
    pub(crate) http: Option<PathBuf>,
    pub(crate) output: Output,
}

impl Options {
    /// Whether the engine is selected.
    pub(crate) fn wants(&self, engine: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == engine)
    }
}

/// The parsed command line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Invocation {
    Help,
    Run(Options),
}

/// Parses the arguments after the program name.
///
/// # Errors
/// The invalid argument and the expected form.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Invocation, String> {
    let mut arguments = arguments.into_iter();
    let mut model = None;
    let mut options = Options {
        model: PathBuf::new(),
        texts: None,
        count: None,
        rounds: 5,
        only: Vec::new(),
        python: None,
        http: None,
        output: Output::Table,
    };
    while let Some(argument) = arguments.next() {
        let (name, attached) = match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
            _ => (argument, None),
        };
        let mut value = || {
            let value = attached.clone().or_else(|| arguments.next());
            value.filter(|value| !value.is_empty()).ok_or_else(|| format!("missing value for {name}"))
        };
        match name.as_str() {
            "-h" | "--help" => return Ok(Invocation::Help),
            "--texts" => options.texts = Some(value()?.into()),
            "--count" => options.count = Some(number(&name, &value()?)?),
            "--rounds" => options.rounds = number(&name, &value()?)?,
            "--only" => options.only = engines(&value()?)?,
            "--python" => options.python = Some(value()?.into()),
            "--http" => options.http = Some(value()?.into()),
            "--output" => {
                options.output = match value()?.as_str() {
                    "table" => Output::Table,
                    "json" => Output::Json,
                    other => return Err(format!("invalid --output {other:?}: expected 'table' or 'json'")),
                }
            }
            _ if name.starts_with('-') => return Err(format!("unknown option {name}; see --help")),
            _ if model.is_some() => return Err(format!("unexpected argument {name:?}: expected one MODEL_DIR")),
            _ => model = Some(name.clone()),
        }
    }
    options.model = model.ok_or("missing MODEL_DIR; usage: embed-bench MODEL_DIR [options]; see --help")?.into();
    if let Some(other) = options.only.iter().find(|name| is_other(name)).filter(|_| options.python.is_none()) {
        return Err(format!("{other} requires Python: set --python"));
    }
    Ok(Invocation::Run(options))
}

fn is_other(name: &str) -> bool {
    OTHERS.iter().any(|other| other.key == name)
}

fn number(name: &str, text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..) => Ok(number),
        _ => Err(format!("invalid {name} {text:?}: expected a number of at least 1")),
    }
}

fn engines(list: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
    match names.iter().find(|name| !is_other(name) && !OURS.iter().any(|ours| ours.name() == *name)) {
        Some(unknown) => Err(format!("unknown engine {unknown:?} in --only; see --help")),
        None => Ok(names),
    }
}

/// Selects `count` of the texts, evenly spread.
pub(crate) fn spread(texts: Vec<String>, count: Option<usize>) -> Vec<String> {
    let total = texts.len();
    let count = count.unwrap_or(total).min(total);
    let mut texts: Vec<Option<String>> = texts.into_iter().map(Some).collect();
    (0..count).filter_map(|place| texts[place * total / count].take()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> Result<Invocation, String> {
        parse(arguments.iter().map(|argument| (*argument).to_owned()))
    }

    #[test]
    fn options_parse_in_spaced_and_joined_form() {
        let spaced = "m --texts t.json --count 7 --rounds 2 --only f32,st-8 --python p --http b --output json";
        let joined = "--texts=t.json --count=7 --rounds=2 --only=f32,st-8 --python=p --http=b --output=json m";
        let expected = Options {
            model: "m".into(),
            texts: Some("t.json".into()),
            count: Some(7),
            rounds: 2,
            only: vec!["f32".to_owned(), "st-8".to_owned()],
            python: Some("p".into()),
            http: Some("b".into()),
            output: Output::Json,
        };
        for line in [spaced, joined] {
            let arguments: Vec<&str> = line.split(' ').collect();
            assert_eq!(run(&arguments), Ok(Invocation::Run(expected.clone())), "{line}");
        }
        assert!(expected.wants("f32") && !expected.wants("bf16"));
        assert_eq!(run(&["m", "--help"]), Ok(Invocation::Help));
    }

    #[test]
    fn invalid_arguments_error_names_cause() {
        for (arguments, part) in [
            (&[][..], "missing MODEL_DIR"),
            (&["m", "n"], "unexpected argument \"n\""),
            (&["m", "--fast"], "unknown option --fast"),
            (&["m", "--rounds"], "missing value for --rounds"),
            (&["m", "--rounds", "0"], "invalid --rounds \"0\": expected a number of at least 1"),
            (&["m", "--count", "many"], "invalid --count \"many\""),
            (&["m", "--only", "f32,torch"], "unknown engine \"torch\""),
            (&["m", "--only", "st-8"], "st-8 requires Python"),
            (&["m", "--output", "xml"], "invalid --output \"xml\""),
        ] {
            let message = run(arguments).unwrap_err();
            assert!(message.contains(part), "{arguments:?}: {message}");
        }
    }

    #[test]
    fn spread_selects_texts_evenly() {
        let texts = || (0..10).map(|number| number.to_string()).collect::<Vec<_>>();
        assert_eq!(spread(texts(), None), texts());
        assert_eq!(spread(texts(), Some(20)), texts());
        assert_eq!(spread(texts(), Some(5)), ["0", "2", "4", "6", "8"]);
        assert_eq!(spread(texts(), Some(3)), ["0", "3", "6"]);
        assert!(spread(Vec::new(), Some(3)).is_empty());
    }
}
