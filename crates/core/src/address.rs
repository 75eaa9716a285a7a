//! Redaction of addresses: everything that may be secret is replaced by `***`.
//!
//! Redaction works by allow-list. The scheme, the hosts, the ports, a plain path and a few options of the query are
//! shown; user info, every other option and fragments are not. An ambiguous address (a raw `?`, `/`, `#` or `@` in a
//! password) shows its scheme only.

use std::collections::BTreeSet;

/// Replacement for redacted parts.
const HIDDEN: &str = "***";

/// Schemes that may be shown. Any other text before `://` may be a part of a secret.
const SCHEMES: [&str; 11] = [
    "mongodb",
    "mongodb+srv",
    "redis",
    "rediss",
    "valkey",
    "valkeys",
    "redis+unix",
    "valkey+unix",
    "unix",
    "http",
    "https",
];

/// Options of MongoDB's connection string whose values are not secret, in lower case.
const MONGODB_OPTIONS: [&str; 37] = [
    "appname",
    "authmechanism",
    "authsource",
    "compressors",
    "connecttimeoutms",
    "directconnection",
    "heartbeatfrequencyms",
    "journal",
    "loadbalanced",
    "localthresholdms",
    "maxconnecting",
    "maxidletimems",
    "maxpoolsize",
    "maxstalenessseconds",
    "minpoolsize",
    "readconcernlevel",
    "readpreference",
    "readpreferencetags",
    "replicaset",
    "retryreads",
    "retrywrites",
    "servermonitoringmode",
    "serverselectiontimeoutms",
    "sockettimeoutms",
    "srvmaxhosts",
    "srvservicename",
    "ssl",
    "timeoutms",
    "tls",
    "tlsallowinvalidcertificates",
    "tlsallowinvalidhostnames",
    "tlsinsecure",
    "uuidrepresentation",
    "w",
    "waitqueuetimeoutms",
    "wtimeoutms",
    "zlibcompressionlevel",
];

/// Options of a Redis URL whose values are numbers and not secret.
const REDIS_OPTIONS: [&str; 1] = ["db"];

/// Options of an HTTP URL whose values are not secret.
const HTTP_OPTIONS: [&str; 1] = ["api-version"];

/// Replaces everything in the address that may be secret by `***`. The result is at most a few bytes longer than the
/// address.
pub fn shown(address: &str) -> String {
    let Some((scheme, rest)) = scheme(address) else { return HIDDEN.to_owned() };
    parts(scheme, rest).map_or_else(|| format!("{scheme}://{HIDDEN}"), |parts| parts.shown(scheme))
}

/// Returns only the scheme, the hosts and the ports, for addresses whose path is a secret too.
pub fn origin(address: &str) -> String {
    let Some((scheme, rest)) = scheme(address) else { return HIDDEN.to_owned() };
    let hosts = parts(scheme, rest).map_or(HIDDEN, |parts| parts.hosts);
    format!("{scheme}://{hosts}")
}

/// Whether the address can be parsed in more than one way: the host that a client sees may be a part of a secret.
pub fn is_ambiguous(address: &str) -> bool {
    scheme(address).is_some_and(|(scheme, rest)| parts(scheme, rest).is_none())
}

/// Whether [`shown`] redacts anything.
pub fn holds_secret(address: &str) -> bool {
    shown(address) != address
}

/// Removes from a message about the address, often a driver's, everything that [`shown`] redacts.
pub fn scrubbed(message: &str, address: &str) -> String {
    let mut secrets: Vec<String> = fragments(address).difference(&fragments(&shown(address))).cloned().collect();
    // Longest first: replacing a fragment first would leave the rest of a longer secret.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    let mut message = message.to_owned();
    for secret in secrets {
        message = message.replace(&secret, HIDDEN);
    }
    message
}

fn scheme(address: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = address.split_once("://")?;
    SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known)).then_some((scheme, rest))
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
    fn shown(&self, scheme: &str) -> String {
        let user_info = if self.user_info { "***@" } else { "" };
        let plain = |letter: char| letter.is_alphanumeric() || "/._~-".contains(letter);
        let path = if self.path.chars().all(plain) { self.path } else { "/***" };
        let query = self.query.map(|query| format!("?{}", options(scheme, query))).unwrap_or_default();
        let fragment = if self.fragment { "#***" } else { "" };
        format!("{scheme}://{user_info}{}{path}{query}{fragment}", self.hosts)
    }
}

/// The query options that may be shown, and one `***` for all others.
fn options(scheme: &str, query: &str) -> String {
    let scheme = scheme.to_ascii_lowercase();
    let (known, numbers): (&[&str], bool) = match scheme.as_str() {
        "http" | "https" => (&HTTP_OPTIONS, false),
        "mongodb" | "mongodb+srv" => (&MONGODB_OPTIONS, false),
        _ => (&REDIS_OPTIONS, true),
    };
    let is_plain = |letter: char| match numbers {
        true => letter.is_ascii_digit(),
        false => letter.is_alphanumeric() || "._-,:$".contains(letter),
    };
    let may_be_shown = |option: &&str| {
        let Some((name, value)) = option.split_once('=') else { return option.is_empty() };
        known.contains(&name.to_ascii_lowercase().as_str()) && value.chars().all(is_plain)
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
    let decoded = decoded(address);
    let mut fragments = BTreeSet::new();
    for text in [address, decoded.as_str()] {
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

/// The percent-decoded text; invalid UTF-8 is replaced.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |offset: usize| bytes.get(at + offset).and_then(|byte| (*byte as char).to_digit(16));
        match (bytes[at], digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn address_shows_hosts_path_and_harmless_options_only() {
        for (given, expected) in [
            (
                "mongodb://ann:s3cret@a:27017,b:27017/shop?replicaSet=rs0&authSource=$external",
                "mongodb://***@a:27017,b:27017/shop?replicaSet=rs0&authSource=$external",
            ),
            (
                "mongodb+srv://a.example.net/?authMechanismProperties=AWS_SESSION_TOKEN:s3cret&tls=true",
                "mongodb+srv://a.example.net/?tls=true&***",
            ),
            ("mongodb://a/?tlsCertificateKeyFilePassword=s3cret", "mongodb://a/?***"),
            ("mongodb://%2Ftmp%2Fmongodb-27017.sock", "mongodb://%2Ftmp%2Fmongodb-27017.sock"),
            ("redis://:s3cret@cache:6379/1", "redis://***@cache:6379/1"),
            ("redis://:s@3cret@cache:6379/1", "redis://***@cache:6379/1"),
            ("redis+unix:///run/redis.sock?db=2&pass=s3cret", "redis+unix:///run/redis.sock?db=2&***"),
            ("redis+unix:///run/redis.sock?db=s3cret", "redis+unix:///run/redis.sock?***"),
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("rediss://[::1]:6379/0", "rediss://[::1]:6379/0"),
            ("http://127.0.0.1:4318/v1/traces", "http://127.0.0.1:4318/v1/traces"),
            ("https://far/v1?api-version=2024-06-01&key=s3cret", "https://far/v1?api-version=2024-06-01&***"),
            ("https://s3cret@far:4318/otlp#s3cret", "https://***@far:4318/otlp#***"),
            ("HTTPS://far?s3cret", "HTTPS://far?***"),
            ("http://far/?", "http://far/?"),
            ("http://far/a=s3cret;b/", "http://far/***"),
        ] {
            assert_eq!(shown(given), expected, "{given}");
            assert_eq!(holds_secret(given), given != expected, "{given}");
        }
    }

    #[test]
    fn ambiguous_address_shows_its_scheme_only() {
        for (given, expected) in [
            ("redis://:p@ss/w@cache:6379/1", "redis://***"),
            ("mongodb://ann:s3?cret@a/", "mongodb://***"),
            ("mongodb://ann:s3#cret@a/", "mongodb://***"),
            ("http://far/?key=s3@cret", "http://***"),
            ("http://far:s3cret/", "http://***"),
            ("http://:s3cret", "http://***"),
            ("http://far s3cret", "http://***"),
            ("http:///s3cret", "http://***"),
            ("s3cret://far", "***"),
            ("ann:s3cret@far", "***"),
            ("s3cret", "***"),
            ("", "***"),
        ] {
            assert_eq!(shown(given), expected, "{given}");
            assert_eq!(is_ambiguous(given), expected.len() > 3, "{given}");
        }
        assert!(!is_ambiguous("redis://:s%2Fcret@cache:6379/1"));
    }

    #[test]
    fn origin_leaves_out_the_path() {
        assert_eq!(origin("https://hooks.example.com/services/T0/s3cret?a=b"), "https://hooks.example.com");
        assert_eq!(origin("https://ann:s3cret@far:8443"), "https://far:8443");
        assert_eq!(origin("https://ann:s3?cret@far"), "https://***");
    }

    #[test]
    fn scrubbed_message_keeps_everything_but_the_secret() {
        let address = "mongodb://ann:hunt%40er2@host:27017/?replicaSet=rs0";
        assert_eq!(scrubbed("host:27017 is unreachable", address), "host:27017 is unreachable");
        assert_eq!(scrubbed("\"ann:hunt%40er2\" is refused by host", address), "\"***\" is refused by host");
        assert_eq!(scrubbed("password hunt@er2", address), "password ***");
        assert_eq!(scrubbed("port 'hunter2' of ANN", "redis://:hunter2@h:x"), "port '***' of ANN");
    }

    const PLACES: [&str; 12] = [
        "mongodb://ann:{}@a:1,b:2/db?replicaSet=rs0",
        "mongodb://{}:pass@a/?authMechanism=MONGODB-AWS",
        "mongodb://a/?authMechanismProperties=AWS_SESSION_TOKEN:{}",
        "mongodb://a/?tlsCertificateKeyFilePassword={}&replicaSet=rs0",
        "redis://:{}@cache:6379/0",
        "redis+unix:///run/redis.sock?pass={}&db=1",
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
            let text = format!("{} {}", shown(&address), origin(&address));
            prop_assert!(!text.contains(&start), "{} shows {}", address, text);
            let message = scrubbed(&format!("cannot read {address:?}: {secret:?} is wrong"), &address);
            prop_assert!(!message.contains(&start), "{} leaks in {}", address, message);
        }
    }
}
