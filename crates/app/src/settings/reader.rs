//! Typed access to the given values.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::HeaderName;
use tidewheel_core::secret::Secret;
use tidewheel_core::tls::ClientTls;
use tidewheel_core::trace::SamplingRatio;
use tidewheel_serving::{Network, TlsFiles};

use super::error::Problem;
use super::layers::Layers;
use super::origin::Origin;
use super::resolved::{Listen, Serving};
use super::value::{Value, quoted};
use super::{names, units};

/// Reads the values of keys, and reports invalid ones.
pub(super) struct Reader<'a> {
    pub(super) layers: &'a Layers,
    pub(super) problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        debug_assert!(names::find(name).is_some(), "{name} is not a key");
        self.layers.get(name).map(|sourced| &sourced.value)
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.origin(name).is_some_and(|origin| *origin != Origin::Default)
    }

    pub(super) fn origin(&self, name: &str) -> Option<&Origin> {
        self.layers.get(name).map(|sourced| &sourced.origin)
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.value(name) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    /// For keys with a default.
    pub(super) fn text_or_empty(&self, name: &str) -> String {
        self.text(name).unwrap_or_default()
    }

    pub(super) fn listen(&self, name: &str) -> Listen {
        match self.text(name).as_deref() {
            None => Listen::Default,
            Some("off") => Listen::Off,
            Some(address) => Listen::At(address.to_owned()),
        }
    }

    pub(super) fn names(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Some(Value::Names(names)) => names.clone(),
            _ => Vec::new(),
        }
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    pub(super) fn client_tls(&self, [ca, cert, key]: [&str; 3]) -> ClientTls {
        ClientTls { ca_file: self.path(ca), cert_file: self.path(cert), key_file: self.path(key) }
    }

    pub(super) fn serving(
        &mut self,
        [token, token_file, hosts]: [&str; 3],
        [cert, key, client_ca]: [&str; 3],
    ) -> Serving {
        let tls =
            TlsFiles { cert_file: self.path(cert), key_file: self.path(key), client_ca_file: self.path(client_ca) };
        Serving { token: self.secret(token, token_file), hosts: self.names(hosts), tls }
    }

    /// Reads an HTTP header name.
    pub(super) fn header(&mut self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        if HeaderName::from_bytes(text.as_bytes()).is_err() {
            self.invalid_part(name, &text, "the name of an HTTP header such as \"X-Forwarded-User\"");
        }
        Some(text)
    }

    pub(super) fn networks(&mut self, name: &str) -> Vec<Network> {
        let mut networks = Vec::new();
        for text in self.names(name) {
            match text.parse() {
                Ok(network) => networks.push(network),
                Err(()) => {
                    self.invalid_part(name, &text, "IP addresses and networks such as \"10.0.0.1\" or \"10.0.0.0/8\"");
                }
            }
        }
        networks
    }

    /// Reports an invalid part of a well-formed value.
    pub(super) fn invalid_part(&mut self, key: &str, given: &str, expected: &str) {
        self.report_invalid(key, quoted(given), expected);
    }

    /// Reports a well-formed but invalid value.
    pub(super) fn invalid(&mut self, key: &str, expected: &str) {
        let given = self.value(key).map(Value::shown).unwrap_or_default();
        self.report_invalid(key, given, expected);
    }

    fn report_invalid(&mut self, key: &str, given: String, expected: &str) {
        let origin = self.origin(key).cloned().unwrap_or(Origin::Default);
        let (key, expected) = (key.to_owned(), expected.to_owned());
        self.problems.push(Problem::Invalid { key, given, origin, expected });
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        match self.value(name) {
            Some(Value::Count(number) | Value::Size(number)) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn size(&self, name: &str) -> Option<usize> {
        self.number(name).map(|number| usize::try_from(number).unwrap_or(usize::MAX))
    }

    pub(super) fn rate(&self, name: &str) -> Option<u32> {
        self.number(name).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
    }

    pub(super) fn duration(&self, name: &str) -> Duration {
        match self.value(name) {
            Some(Value::Duration(duration)) => *duration,
            _ => Duration::ZERO,
        }
    }

    pub(super) fn ratio(&self, name: &str) -> SamplingRatio {
        match self.value(name) {
            Some(Value::Share(millionths)) => SamplingRatio::new(units::share(*millionths)),
            _ => SamplingRatio::ALL,
        }
    }

    pub(super) fn port(&mut self, name: &str) -> u16 {
        let number = self.number(name).unwrap_or_default();
        u16::try_from(number).unwrap_or_else(|_| {
            self.invalid(name, "a port from 0 to 65535");
            0
        })
    }

    pub(super) fn address(&self, name: &str) -> Option<Secret> {
        match self.value(name) {
            Some(Value::Address(secret) | Value::Secret(secret)) => Some(secret.clone()),
            _ => None,
        }
    }

    pub(super) fn address_or_file(&mut self, name: &str, file_name: &str) -> Secret {
        self.secret(name, file_name).unwrap_or_default()
    }

    /// Returns the value of a key, or the content of the file given by its file key.
    pub(super) fn secret(&mut self, name: &str, file_name: &str) -> Option<Secret> {
        let Some(path) = self.path(file_name) else { return self.address(name) };
        let origin = self.origin(file_name).cloned().unwrap_or(Origin::Default);
        if self.is_set(name) {
            let first = self.origin(name).cloned().unwrap_or(Origin::Default);
            let (key, file_key) = (name.to_owned(), file_name.to_owned());
            self.problems.push(Problem::Both { key, first, file_key, second: origin });
            return None;
        }
        let cause = match std::fs::read_to_string(&path) {
            // The file's content is parsed like the key's value.
            Ok(text) => match names::find(name).and_then(|key| key.kind.read_text(&text)) {
                Some(Value::Address(secret) | Value::Secret(secret)) if !secret.reveal().is_empty() => {
                    return Some(secret);
                }
                _ => {
                    let expected = names::find(name).map(|key| key.kind.expected()).unwrap_or_default();
                    std::io::Error::other(format!("the file does not contain {expected}"))
                }
            },
            Err(cause) => cause,
        };
        self.problems.push(Problem::SecretFile { key: file_name.to_owned(), path, origin, cause });
        None
    }
}
