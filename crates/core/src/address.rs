//! Redaction of addresses: everything that may be secret is replaced by `***`.
//!
//! Redaction works by allow-list. The scheme, the hosts, the ports, a plain path and a few options of the query are
//! shown; user info, every other option and fragments are not. An ambiguous address (a raw `?`, `/`, `#` or `@` in a
//! password) shows its scheme only.

use std::collections::BTreeSet;

use percent_encoding::percent_decode_str;

/// Replacement for redacted parts.
const HIDDEN: &str = "***";

/// What may be shown of the addresses of one kind of server.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// The schemes, in lower case. Any other text before `://` may be a part of a secret. An address whose scheme ends
    /// in `unix` has the path of a socket instead of hosts.
    pub schemes: &'static [&'static str],
    /// The options of the query whose values are not secret, in lower case.
    pub options: &'static [&'static str],
    /// The form of these values; others are redacted.
    pub values: Values,
}

/// The form of the values of options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Digits.
    Numbers,
    /// Letters, digits and `._-,:$`.
    Words,
}

/// Addresses of HTTP and gRPC servers.
pub const HTTP: Allowed = Allowed { schemes: &["http", "https"], options: &["api-version"], values: Values::Words };

/// Replaces everything in the address that may be secret by `***`. The result is at most a few bytes longer than the
/// address.
pub fn shown(address: &str, allowed: &[Allowed]) -> String {
    let Some((kind, scheme, rest)) = known(address, allowed) else { return HIDDEN.to_owned() };
    parts(scheme, rest).map_or_else(|| format!("{scheme}://{HIDDEN}"), |parts| parts.shown(scheme, &kind))
}

/// Returns only the scheme, the hosts and the ports, for addresses whose path is a secret too.
pub fn origin(address: &str, allowed: &[Allowed]) -> String {
    let Some((_, scheme, rest)) = known(address, allowed) else { return HIDDEN.to_owned() };
    let hosts = parts(scheme, rest).map_or(HIDDEN, |parts| parts.hosts);
    format!("{scheme}://{hosts}")
}

/// Whether the address can be parsed in more than one way: the host that a client sees may be a part of a secret.
pub fn is_ambiguous(address: &str, allowed: &[Allowed]) -> bool {
    known(address, allowed).is_some_and(|(_, scheme, rest)| parts(scheme, rest).is_none())
}

/// Whether [`shown`] redacts anything.
pub fn holds_secret(address: &str, allowed: &[Allowed]) -> bool {
    shown(address, allowed) != address
}

/// Removes from a message about the address, often a driver's, everything that [`shown`] redacts.
pub fn scrubbed(message: &str, address: &str, allowed: &[Allowed]) -> String {
    let shown = shown(address, allowed);
    let mut secrets: Vec<String> = fragments(address).difference(&fragments(&shown)).cloned().collect();
    // Longest first: replacing a fragment first would leave the rest of a longer secret.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    let mut message = message.to_owned();
    for secret in secrets {
        message = message.replace(&secret, HIDDEN);
    }
    message
}

/// Splits an address into its kind, its scheme and the part after `://`; `None` if its scheme is not allowed.
fn known<'a>(address: &'a str, allowed: &[Allowed]) -> Option<(Allowed, &'a str, &'a str)> {
    let (scheme, rest) = address.split_once("://")?;
    let is_of = |kind: &&Allowed| kind.schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known));
    Some((*allowed.iter().find(is_of)?, scheme, rest))
}

/// The parsed address.
struct Parts<'a> {
    user_info: bool,
    hosts: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    fragment: bool,
}

/// Parses the part after `://`; `None` if it is ambiguous.
fn parts<'a>(scheme: &str, rest: &'a str) -> Option<Parts<'a>> {
    let (authority, after) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // An `@` here may end a password that contains the `/`, `?` or `#` before it.
    if after.contains('@') || rest.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
        return None;
    }
    let (user_info, hosts) = match authority.rsplit_once('@') {
        Some((_, hosts)) => (true, hosts),
        None => (false, authority),
    };
    let socket = scheme.to_ascii_lowercase().ends_with("unix");
    let valid = if socket { hosts.is_empty() } else { hosts.split(',').all(is_host) };
    if !valid {
        return None;
    }
    let (after, fragment) = match after.split_once('#') {
        Some((before, _)) => (before, true),
        None => (after, false),
    };
    let (path, query) = match after.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (after, None),
    };
    Some(Parts { user_info, hosts, path, query, fragment })
}

/// `host`, `host:port`, `[::1]:port`, or a socket's percent-encoded path.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let named = match name.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || ".-_%".contains(letter)),
    };
    named && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

impl Parts<'_> {
    fn shown(&self, scheme: &str, kind: &Allowed) -> String {
        let user_info = if self.user_info { "***@" } else { "" };
        let plain = |letter: char| letter.is_alphanumeric() || "/._~-".contains(letter);
        let path = if self.path.chars().all(plain) { self.path } else { "/***" };
        let query = self.query.map(|query| format!("?{}", options(kind, query))).unwrap_or_default();
        let fragment = if self.fragment { "#***" } else { "" };
        format!("{scheme}://{user_info}{}{path}{query}{fragment}", self.hosts)
    }
}

/// The query options that may be shown, and one `***` for all others.
fn options(kind: &Allowed, query: &str) -> String {
    let is_plain = |letter: char| match kind.values {
        Values::Numbers => letter.is_ascii_digit(),
        Values::Words => letter.is_alphanumeric() || "._-,:$".contains(letter),
    };
    let may_be_shown = |option: &&str| {
        let Some((name, value)) = option.split_once('=') else { return option.is_empty() };
        kind.options.iter().any(|known| name.eq_ignore_ascii_case(known)) && value.chars().all(is_plain)
    };
    let mut shown: Vec<&str> = query.split('&').filter(may_be_shown).collect();
    if shown.len() < query.split('&').count() {
        shown.push(HIDDEN);
    }
    shown.join("&")
}

/// All pieces of the address, raw and decoded, that a message may repeat: the text between delimiters, and runs of
/// letters and digits, which survive any escaping. Pieces of less than three bytes occur in every text.
fn fragments(address: &str) -> BTreeSet<String> {
    let decoded = percent_decode_str(address).decode_utf8_lossy();
    let mut fragments = BTreeSet::new();
    for text in [address, &*decoded] {
        let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
        let user_info = rest.rsplit_once('@').map(|(user_info, _)| user_info);
        let password = user_info.and_then(|user_info| user_info.split_once(':')).map(|(_, password)| password);
        fragments.extend([Some(rest), user_info, password].into_iter().flatten().map(str::to_owned));
        fragments.extend(text.split([':', '/', '@', '?', '&', '=', '#', ',']).map(str::to_owned));
        fragments.extend(text.split(|letter: char| !letter.is_alphanumeric()).map(str::to_owned));
    }
    let lower: Vec<String> = fragments.iter().map(|fragment| fragment.to_lowercase()).collect();
    fragments.extend(lower);
    fragments.retain(|fragment| fragment.len() >= 3 && fragment != HIDDEN);
    fragments
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A server whose addresses have users, several hosts and options.
    const DATABASE: Allowed =
        Allowed { schemes: &["db", "db+srv"], options: &["mode", "source"], values: Values::Words };

    /// A server that listens on a port or on a socket, and whose options are numbers.
    const CACHE: Allowed = Allowed { schemes: &["cache", "cache+unix"], options: &["db"], values: Values::Numbers };

    const ALLOWED: &[Allowed] = &[DATABASE, CACHE, HTTP];

    #[test]
    fn address_shows_hosts_path_and_harmless_options_only() {
        for (given, expected) in [
            (
                "db://ann:s3cret@a:27017,b:27017/shop?mode=rs0&source=$external",
                "db://***@a:27017,b:27017/shop?mode=rs0&source=$external",
            ),
            ("db+srv://a.example.net/?token=KEY:s3cret&mode=true", "db+srv://a.example.net/?mode=true&***"),
            ("db://a/?password=s3cret", "db://a/?***"),
            ("db://a/?MODE=s&mode=a%20b", "db://a/?MODE=s&***"),
            ("db://%2Ftmp%2Fdb-27017.sock", "db://%2Ftmp%2Fdb-27017.sock"),
            ("cache://:s3cret@far:6379/1", "cache://***@far:6379/1"),
            ("cache://:s@3cret@far:6379/1", "cache://***@far:6379/1"),
            ("cache+unix:///run/cache.sock?db=2&pass=s3cret", "cache+unix:///run/cache.sock?db=2&***"),
            ("cache+unix:///run/cache.sock?db=s3cret", "cache+unix:///run/cache.sock?***"),
            ("cache://127.0.0.1:6379", "cache://127.0.0.1:6379"),
            ("cache://[::1]:6379/0", "cache://[::1]:6379/0"),
            ("http://127.0.0.1:4318/v1/traces", "http://127.0.0.1:4318/v1/traces"),
            ("https://far/v1?api-version=2024-06-01&key=s3cret", "https://far/v1?api-version=2024-06-01&***"),
            ("https://s3cret@far:4318/otlp#s3cret", "https://***@far:4318/otlp#***"),
            ("HTTPS://far?s3cret", "HTTPS://far?***"),
            ("http://far/?", "http://far/?"),
            ("http://far/a=s3cret;b/", "http://far/***"),
        ] {
            assert_eq!(shown(given, ALLOWED), expected, "{given}");
            assert_eq!(holds_secret(given, ALLOWED), given != expected, "{given}");
        }
    }

    #[test]
    fn ambiguous_address_shows_its_scheme_only() {
        for (given, expected) in [
            ("cache://:p@ss/w@far:6379/1", "cache://***"),
            ("db://ann:s3?cret@a/", "db://***"),
            ("db://ann:s3#cret@a/", "db://***"),
            ("http://far/?key=s3@cret", "http://***"),
            ("http://far:s3cret/", "http://***"),
            ("http://:s3cret", "http://***"),
            ("http://far s3cret", "http://***"),
            ("http:///s3cret", "http://***"),
            ("cache+unix://s3cret/run/cache.sock", "cache+unix://***"),
            ("s3cret://far", "***"),
            ("ann:s3cret@far", "***"),
            ("s3cret", "***"),
            ("", "***"),
        ] {
            assert_eq!(shown(given, ALLOWED), expected, "{given}");
            assert_eq!(is_ambiguous(given, ALLOWED), expected.len() > 3, "{given}");
        }
        assert!(!is_ambiguous("cache://:s%2Fcret@far:6379/1", ALLOWED));
    }

    #[test]
    fn address_of_another_kind_is_hidden() {
        assert_eq!(shown("db://a:27017", &[HTTP]), HIDDEN);
        assert_eq!(origin("db://a:27017", &[HTTP]), HIDDEN);
        assert_eq!(scrubbed("a far db", "db://a:27017/far", &[HTTP]), "a *** db");
    }

    #[test]
    fn origin_leaves_out_the_path() {
        assert_eq!(origin("https://hooks.example.com/services/T0/s3cret?a=b", &[HTTP]), "https://hooks.example.com");
        assert_eq!(origin("https://ann:s3cret@far:8443", &[HTTP]), "https://far:8443");
        assert_eq!(origin("https://ann:s3?cret@far", &[HTTP]), "https://***");
    }

    #[test]
    fn scrubbed_message_keeps_everything_but_the_secret() {
        let address = "db://ann:hunt%40er2@host:27017/?mode=rs0";
        let scrub = |message| scrubbed(message, address, ALLOWED);
        assert_eq!(scrub("host:27017 is unreachable"), "host:27017 is unreachable");
        assert_eq!(scrub("\"ann:hunt%40er2\" is refused by host"), "\"***\" is refused by host");
        assert_eq!(scrub("password hunt@er2"), "password ***");
        let address = "cache://:hunter2@h:x";
        assert_eq!(scrubbed("port 'hunter2' of ANN", address, ALLOWED), "port '***' of ANN");
    }

    const PLACES: [&str; 12] = [
        "db://ann:{}@a:1,b:2/db?mode=rs0",
        "db://{}:pass@a/?mode=key",
        "db://a/?properties=TOKEN:{}",
        "db://a/?password={}&mode=rs0",
        "cache://:{}@far:6379/0",
        "cache+unix:///run/cache.sock?pass={}&db=1",
        "https://{}@far/otlp",
        "https://far/otlp?api-key={}",
        "https://far/otlp?{}",
        "https://far/otlp#{}",
        "{}://far",
        "{}",
    ];

    proptest! {
        #[test]
        fn secret_is_never_shown_in_any_position(
            place in prop::sample::select(&PLACES[..]),
            start in "[A-Za-z0-9]{6,12}",
            middle in "[@?#/:%&=,;$!+ ._-]{0,3}",
            end in "[A-Za-z0-9]{0,8}",
        ) {
            let secret = format!("{start}{middle}{end}");
            let address = place.replace("{}", &secret);
            let text = format!("{} {}", shown(&address, ALLOWED), origin(&address, ALLOWED));
            prop_assert!(!text.contains(&start), "{} shows {}", address, text);
            let message = format!("cannot read {address:?}: {secret:?} is wrong");
            let message = scrubbed(&message, &address, ALLOWED);
            prop_assert!(!message.contains(&start), "{} leaks in {}", address, message);
        }
    }
}
