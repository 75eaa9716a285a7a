//! Options of the URI: those that may be shown, and unsupported ones.

use tidewheel_core::address::{Allowed, Values};

/// MongoDB's connection strings.
pub const ADDRESSES: Allowed =
    Allowed { schemes: &["mongodb", "mongodb+srv"], options: &OPTIONS, values: Values::Words };

/// Options whose values are not secret, in lower case.
const OPTIONS: [&str; 37] = [
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

/// Options that MongoDB drivers define, but this one rejects or ignores. They tune the connection; results do not
/// depend on them.
const IGNORED: [&str; 3] = ["timeoutMS", "compressors", "zlibCompressionLevel"];

/// Returns the URI without those options, and their names.
pub(super) fn without_ignored(uri: &str) -> (String, Vec<&'static str>) {
    let Some((address, query)) = uri.split_once('?') else { return (uri.to_owned(), Vec::new()) };
    // A `?` in a password has to be escaped: an unescaped one is left to the driver, which reports the error.
    if !address.contains("://") || query.contains('@') {
        return (uri.to_owned(), Vec::new());
    }
    let mut found = Vec::new();
    let kept = query.split('&').filter(|option| {
        let name = option.split('=').next().unwrap_or_default();
        let known = IGNORED.into_iter().find(|ignored| ignored.eq_ignore_ascii_case(name));
        found.extend(known);
        known.is_none()
    });
    let kept = kept.collect::<Vec<_>>().join("&");
    found.dedup();
    (if kept.is_empty() { address.to_owned() } else { format!("{address}?{kept}") }, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsupported_options_are_removed_and_reported() {
        let table: [(&str, &str, &[&str]); 6] = [
            ("mongodb://a/", "mongodb://a/", &[]),
            ("mongodb://a/?replicaSet=rs0", "mongodb://a/?replicaSet=rs0", &[]),
            ("mongodb://a/?timeoutMS=5000", "mongodb://a/", &["timeoutMS"]),
            (
                "mongodb://u:p@a,b/db?compressors=zstd,snappy&replicaSet=rs0&TimeoutMs=1",
                "mongodb://u:p@a,b/db?replicaSet=rs0",
                &["compressors", "timeoutMS"],
            ),
            ("mongodb://a/?zlibCompressionLevel=9&tls=true", "mongodb://a/?tls=true", &["zlibCompressionLevel"]),
            ("mongodb://u:p?timeoutMS=1@a/", "mongodb://u:p?timeoutMS=1@a/", &[]),
        ];
        for (uri, kept, named) in table {
            assert_eq!(without_ignored(uri), (kept.to_owned(), named.to_vec()), "{uri}");
        }
    }
}
