//! Hides passwords and keys in addresses.

/// The same address with `***` in place of its password; the user's name stays, to tell accounts apart.
///
/// Works on the text, because a multi-host MongoDB URI is no URL, and because an address that nobody can parse must not
/// leak its password either. In an address of HTTP the values of the query are hidden as well, and user info without a password:
/// both are where services take keys. In those of MongoDB and Redis they stay: neither takes a secret there, and a replica set's
/// name helps.
pub(crate) fn address(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let http = ["http", "https"].iter().any(|name| scheme.eq_ignore_ascii_case(name));
    let (before, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
    // A raw `/` or `?` in a password is not legal but happens; the last `@` before a query is the end of the user info.
    let (user_info, hosts) = before.split_at(before.rfind('@').unwrap_or(0));
    let user_info = match user_info.split_once(':') {
        Some((user, password)) if !http || !password.is_empty() => format!("{user}:***"),
        _ if http && !user_info.is_empty() => "***".to_owned(),
        _ => user_info.to_owned(),
    };
    let query = if http { without_values(query) } else { query.to_owned() };
    format!("{scheme}://{user_info}{hosts}{query}")
}

/// A query, from its `?` on, with `***` in place of every value. What has no name is a value too.
fn without_values(query: &str) -> String {
    let Some(parameters) = query.strip_prefix('?').filter(|parameters| !parameters.is_empty()) else {
        return query.to_owned();
    };
    let hidden = parameters.split('&').map(|parameter| match parameter.split_once('=') {
        Some((name, _)) => format!("{name}=***"),
        None => "***".to_owned(),
    });
    format!("?{}", hidden.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden_and_nothing_else() {
        for (given, shown) in [
            (
                "mongodb://ann:s3cret@a:27017,b:27017/?replicaSet=rs0",
                "mongodb://ann:***@a:27017,b:27017/?replicaSet=rs0",
            ),
            ("redis://:s3cret@cache:6379/1", "redis://:***@cache:6379/1"),
            ("redis://:p@ss/w@cache:6379/1", "redis://:***@cache:6379/1"),
            ("mongodb://ann@a/", "mongodb://ann@a/"),
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://ann@cache:6379", "redis://ann@cache:6379"),
            ("http://127.0.0.1:4318/v1/traces", "http://127.0.0.1:4318/v1/traces"),
            ("https://ann:s3cret@far/otlp", "https://ann:***@far/otlp"),
            ("https://t0ken@far:4318/otlp", "https://***@far:4318/otlp"),
            ("https://t0ken:@far", "https://***@far"),
            ("HTTPS://far/?api-key=s3cret&team=a=b", "HTTPS://far/?api-key=***&team=***"),
            ("http://ann:s3cret@far?s3cret", "http://ann:***@far?***"),
            ("http://far/?", "http://far/?"),
            ("not an address", "not an address"),
        ] {
            assert_eq!(address(given), shown);
        }
    }
}
