//! The standard variables of OpenTelemetry, a layer of settings below the settings file.
//!
//! They are shared by all programs of a host or a pod, so that an unsupported or invalid one is a warning, never an error.

use super::names;

/// A value that a variable gives to a setting.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) key: &'static str,
    pub(super) text: String,
    pub(super) variable: String,
}

/// A variable without effect.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ignored {
    pub(super) variable: &'static str,
    pub(super) because: String,
}

/// The variable whose value is the whole URL; that of the others is a base URL.
pub(super) const WHOLE_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

const ENDPOINTS: [&str; 2] = [WHOLE_ENDPOINT, "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const COMPRESSIONS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"];
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";

/// The protocol that tidewheel speaks.
const PROTOCOL: &str = "http/protobuf";

/// Unit of a variable's value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    None,
    Milliseconds,
}

/// Variables of each setting; the first that is set wins.
const VARIABLES: [(&str, &[&str], Unit); 11] = [
    ("traces.headers", &["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"], Unit::None),
    ("traces.timeout", &["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"], Unit::Milliseconds),
    ("traces.ca_file", &["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"], Unit::None),
    (
        "traces.cert_file",
        &["OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"],
        Unit::None,
    ),
    ("traces.key_file", &["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"], Unit::None),
    ("traces.service_name", &["OTEL_SERVICE_NAME"], Unit::None),
    ("traces.resource_attributes", &["OTEL_RESOURCE_ATTRIBUTES"], Unit::None),
    ("traces.queue", &["OTEL_BSP_MAX_QUEUE_SIZE"], Unit::None),
    ("traces.batch", &["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"], Unit::None),
    ("traces.interval", &["OTEL_BSP_SCHEDULE_DELAY"], Unit::Milliseconds),
    ("traces.export_timeout", &["OTEL_BSP_EXPORT_TIMEOUT"], Unit::Milliseconds),
];

/// Returns what the variables give, and which of them have no effect.
pub(super) fn read(environment: &[(String, String)]) -> (Vec<Given>, Vec<Ignored>) {
    let mut reader = Reader { environment, given: Vec::new(), ignored: Vec::new() };
    reader.endpoint();
    reader.sampler();
    for (key, variables, unit) in VARIABLES {
        if let Some((variable, text)) = reader.first(variables) {
            let text = if unit == Unit::Milliseconds { format!("{text}ms") } else { text.to_owned() };
            reader.give(key, text, variable);
        }
    }
    if let Some((variable, text)) = reader.first(&COMPRESSIONS)
        && text != "none"
    {
        reader.ignore(variable, "spans are sent uncompressed");
    }
    (reader.given, reader.ignored)
}

struct Reader<'a> {
    environment: &'a [(String, String)],
    given: Vec<Given>,
    ignored: Vec<Ignored>,
}

impl<'a> Reader<'a> {
    /// Returns the first of these variables that is set. An empty value counts as unset.
    fn first(&self, variables: &[&'static str]) -> Option<(&'static str, &'a str)> {
        variables.iter().find_map(|variable| {
            let (_, text) = self.environment.iter().find(|(name, _)| name == variable)?;
            Some((*variable, text.trim())).filter(|(_, text)| !text.is_empty())
        })
    }

    /// Gives the endpoint, unless traces are disabled or would need another protocol.
    fn endpoint(&mut self) {
        let Some((variable, text)) = self.first(&ENDPOINTS) else { return };
        let disabled = self.first(&["OTEL_SDK_DISABLED"]).is_some_and(|(_, text)| text.eq_ignore_ascii_case("true"));
        let exporter = self.first(&["OTEL_TRACES_EXPORTER"]).map_or("otlp", |(_, text)| text);
        if disabled || !exporter.split(',').any(|name| name.trim() == "otlp") {
            return;
        }
        match self.first(&PROTOCOLS) {
            Some((protocol, text)) if text != PROTOCOL => {
                self.ignore(
                    protocol,
                    &format!("only {PROTOCOL} is supported; traces stay disabled unless traces.endpoint is set"),
                );
            }
            _ => self.give("traces.endpoint", text.to_owned(), variable),
        }
    }

    /// Gives the sampling ratio. A trace has no parent outside of tidewheel, so that samplers based on it are their roots.
    fn sampler(&mut self) {
        let Some((_, sampler)) = self.first(&[SAMPLER]) else { return };
        match sampler.strip_prefix("parentbased_").unwrap_or(sampler) {
            "always_on" => self.give("traces.share", "1".into(), SAMPLER),
            "always_off" => self.give("traces.share", "0".into(), SAMPLER),
            "traceidratio" => match self.first(&[SAMPLER_ARG]) {
                Some((variable, ratio)) => self.give("traces.share", ratio.to_owned(), variable),
                None => self.give("traces.share", "1".into(), SAMPLER),
            },
            _ => self.ignore(SAMPLER, "expected always_on, always_off, traceidratio or their parentbased_ form"),
        }
    }

    fn give(&mut self, key: &'static str, text: String, variable: &'static str) {
        let Some(kind) = names::find(key).map(|key| key.kind) else { return };
        if kind.read_text(&text).is_some() {
            self.given.push(Given { key, text, variable: variable.to_owned() });
        } else {
            self.ignore(variable, &format!("expected {}", expected(key, kind.expected())));
        }
    }

    fn ignore(&mut self, variable: &'static str, because: &str) {
        self.ignored.push(Ignored { variable, because: because.to_owned() });
    }
}

/// Describes the form of a variable's value: durations are numbers of milliseconds.
fn expected(key: &str, of_setting: String) -> String {
    let milliseconds = VARIABLES.iter().any(|(name, _, unit)| *name == key && *unit == Unit::Milliseconds);
    if milliseconds { "a positive number of milliseconds".into() } else { of_setting }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Setting, text and variable.
    type Applied = (&'static str, String, String);

    /// Variable and reason.
    type Skipped = (&'static str, String);

    fn given(environment: &[(&str, &str)]) -> (Vec<Applied>, Vec<Skipped>) {
        let environment: Vec<_> =
            environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let (given, ignored) = read(&environment);
        (
            given.into_iter().map(|given| (given.key, given.text, given.variable)).collect(),
            ignored.into_iter().map(|ignored| (ignored.variable, ignored.because)).collect(),
        )
    }

    fn texts(environment: &[(&str, &str)]) -> Vec<(&'static str, String)> {
        given(environment).0.into_iter().map(|(key, text, _)| (key, text)).collect()
    }

    #[test]
    fn variable_of_traces_wins_over_the_general_one() {
        let (given, ignored) = given(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://far:4318"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://far:4318/spans"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", ""),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "2048"),
        ]);
        let owned = |key, text: &str, variable: &str| (key, text.to_owned(), variable.to_owned());
        assert_eq!(given[0], owned("traces.endpoint", "http://far:4318/spans", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"));
        assert_eq!(given[1], owned("traces.timeout", "1500ms", "OTEL_EXPORTER_OTLP_TIMEOUT"));
        assert_eq!(given[2], owned("traces.queue", "2048", "OTEL_BSP_MAX_QUEUE_SIZE"));
        assert!(ignored.is_empty(), "{ignored:?}");
    }

    #[test]
    fn endpoint_is_not_taken_if_traces_are_disabled_or_need_another_protocol() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://far:4317");
        for other in [("OTEL_SDK_DISABLED", "True"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert_eq!(given(&[endpoint, other]), (Vec::new(), Vec::new()), "{other:?}");
        }
        for other in [("OTEL_SDK_DISABLED", "false"), ("OTEL_TRACES_EXPORTER", "console, otlp")] {
            assert_eq!(texts(&[endpoint, other]), [("traces.endpoint", "http://far:4317".to_owned())], "{other:?}");
        }
        let (given, ignored) = given(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
        assert_eq!((given.len(), ignored[0].0), (0, "OTEL_EXPORTER_OTLP_PROTOCOL"));
    }

    #[test]
    fn sampler_gives_the_ratio() {
        let ratio = |sampler, argument| texts(&[(SAMPLER, sampler), (SAMPLER_ARG, argument)]);
        for (sampler, argument, expected) in [
            ("always_on", "", "1"),
            ("parentbased_always_off", "0.5", "0"),
            ("parentbased_traceidratio", "0.25", "0.25"),
            ("traceidratio", "", "1"),
        ] {
            assert_eq!(ratio(sampler, argument), [("traces.share", expected.to_owned())], "{sampler}");
        }
        assert_eq!(given(&[(SAMPLER, "xray")]).1[0].0, SAMPLER);
        assert_eq!(given(&[(SAMPLER, "traceidratio"), (SAMPLER_ARG, "2")]).1[0].0, SAMPLER_ARG);
    }

    #[test]
    fn invalid_variable_has_no_effect() {
        let (given, ignored) = given(&[
            ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ]);
        assert!(given.is_empty());
        let reasons: Vec<_> = ignored.iter().map(|(variable, because)| (*variable, because.as_str())).collect();
        assert_eq!(
            reasons,
            [
                ("OTEL_BSP_MAX_QUEUE_SIZE", "expected an integer of at least 1"),
                ("OTEL_BSP_SCHEDULE_DELAY", "expected a positive number of milliseconds"),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "spans are sent uncompressed"),
            ]
        );
    }
}
