//! Unsupported options of the URI.

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
