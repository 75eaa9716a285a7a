//! The command line.

use std::path::PathBuf;

use crate::contestant::{OTHERS, OURS};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Measures tidewheel's embedding engine beside other engines, turn by turn in one run, on the same texts.

Usage: embed-bench MODEL_DIR [options]

  MODEL_DIR           a directory with a sentence-transformers model

Options:
  --texts FILE        a JSON list of strings [default: 50 short texts that come with the program]
  --count N           take N of the texts, evenly spread over the list [default: all]
  --rounds N          how often each engine has its turn; medians are printed [default: 5]
  --only NAME,…       only these engines
  --python PATH       a Python that has numpy and any of sentence-transformers, onnxruntime and onnx, openvino and
                      onnx; an engine that it lacks is left out, and that is said
  --http PATH         measure over HTTP as well: this tidewheel binary's embedder, in a process of its own
  --output FORMAT     'table' in Markdown, or 'json' [default: table]

Engines: f32, bf16, int8, auto (ours; auto takes f32 or bf16 by measuring at load); st-8, st-32 (sentence-transformers by
batch size); ort-f32, ort-int8 (onnxruntime); ov-f32, ov-bf16, ov-int8 (OpenVINO; the last needs nncf). onnxruntime and
OpenVINO have a session or stream for each core, texts sorted by length, and the batch size that suits them best.

Speed is given by the clock and by CPU time: on a machine that does other work, the second is the one to compare. The
measured peak is what the processor reaches in multiplications and additions alone, with all operands in its first cache.
The table goes to standard output, progress to standard error.

Example:
  cargo build --release -p tidewheel -p tidewheel-embed
  target/release/embed-bench ~/models/all-MiniLM-L6-v2 --texts texts.json --python venv/bin/python \\
      --http target/release/tidewheel
";

/// The form of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Table,
    Json,
}

/// What to measure.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) model: PathBuf,
    /// `None`: the texts that come with the program.
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
    /// Whether an engine of this name is to be measured.
    pub(crate) fn wants(&self, engine: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == engine)
    }
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Asked {
    Help,
    Run(Options),
}

/// Reads the arguments behind the program's name.
///
/// # Errors
/// What is wrong, and how it should be.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Asked, String> {
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
            value.filter(|value| !value.is_empty()).ok_or_else(|| format!("{name} needs a value"))
        };
        match name.as_str() {
            "-h" | "--help" => return Ok(Asked::Help),
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
                    other => return Err(format!("--output is 'table' or 'json', not {other:?}")),
                }
            }
            _ if name.starts_with('-') => return Err(format!("{name} is not known; --help lists what is")),
            _ if model.is_some() => return Err(format!("one model at a time; what is {name:?}?")),
            _ => model = Some(name.clone()),
        }
    }
    options.model = model.ok_or("which model? Usage: embed-bench MODEL_DIR [options]; --help says more")?.into();
    if let Some(other) = options.only.iter().find(|name| is_other(name)).filter(|_| options.python.is_none()) {
        return Err(format!("{other} runs in Python: say which one with --python"));
    }
    Ok(Asked::Run(options))
}

fn is_other(name: &str) -> bool {
    OTHERS.iter().any(|other| other.key == name)
}

fn number(name: &str, text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..) => Ok(number),
        _ => Err(format!("{name} needs a number of at least 1, not {text:?}")),
    }
}

fn engines(list: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
    match names.iter().find(|name| !is_other(name) && !OURS.iter().any(|ours| ours.name() == *name)) {
        Some(unknown) => Err(format!("--only: there is no engine {unknown:?}; --help lists them")),
        None => Ok(names),
    }
}

/// `count` of the texts, evenly spread.
pub(crate) fn spread(texts: Vec<String>, count: Option<usize>) -> Vec<String> {
    let total = texts.len();
    let count = count.unwrap_or(total).min(total);
    let mut texts: Vec<Option<String>> = texts.into_iter().map(Some).collect();
    (0..count).filter_map(|place| texts[place * total / count].take()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> Result<Asked, String> {
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
            assert_eq!(run(&arguments), Ok(Asked::Run(expected.clone())), "{line}");
        }
        assert!(expected.wants("f32") && !expected.wants("bf16"));
        assert_eq!(run(&["m", "--help"]), Ok(Asked::Help));
    }

    #[test]
    fn invalid_arguments_error_names_cause() {
        for (arguments, part) in [
            (&[][..], "which model?"),
            (&["m", "n"], "what is \"n\"?"),
            (&["m", "--fast"], "--fast is not known"),
            (&["m", "--rounds"], "--rounds needs a value"),
            (&["m", "--rounds", "0"], "at least 1, not \"0\""),
            (&["m", "--count", "many"], "not \"many\""),
            (&["m", "--only", "f32,torch"], "no engine \"torch\""),
            (&["m", "--only", "st-8"], "say which one with --python"),
            (&["m", "--output", "xml"], "'table' or 'json', not \"xml\""),
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
