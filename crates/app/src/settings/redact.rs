//! Hides passwords in addresses.

/// The same address with `***` in place of its password; the user's name stays, to tell accounts apart.
///
/// Works on the text, because a multi-host MongoDB URI is no URL, and because an address that nobody can parse must not
/// leak its password either. Passwords in query parameters are not looked for: neither MongoDB nor Redis takes any.
pub(crate) fn address(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    // A raw `/` or `?` in a password is not legal but happens; the last `@` before a query is the end of the user info.
    let authority = rest.split('?').next().unwrap_or(rest);
    let Some(at) = authority.rfind('@') else { return text.to_owned() };
    let (user_info, hosts) = rest.split_at(at);
    match user_info.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***{hosts}"),
        None => text.to_owned(),
    }
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
            ("not an address", "not an address"),
        ] {
            assert_eq!(address(given), shown);
        }
    }
}
