//! The API key: one shared secret, in `api-key` or as a bearer token, compared in constant time.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use tonic::Status;
use tonic::metadata::MetadataMap;

/// Qdrant's error messages.
pub(crate) const MISSING: &str = "Must provide an API key or an Authorization bearer token";
pub(crate) const WRONG: &str = "Invalid API key or JWT";

/// The key that every request must carry. Never printed.
#[derive(Clone)]
pub(crate) struct ApiKey(String);

impl ApiKey {
    /// Wraps a key. An empty key counts as none.
    pub(crate) fn new(key: Option<String>) -> Option<Self> {
        key.filter(|key| !key.is_empty()).map(Self)
    }

    pub(crate) fn check_headers(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        self.check(text("api-key"), text(AUTHORIZATION.as_str()))
    }

    pub(crate) fn check_metadata(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let text = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok());
        self.check(text("api-key"), text("authorization")).map_err(Status::unauthenticated)
    }

    fn check(&self, key: Option<&str>, authorization: Option<&str>) -> Result<(), &'static str> {
        let bearer = authorization.and_then(|value| value.strip_prefix("Bearer "));
        match key.or(bearer) {
            None => Err(MISSING),
            Some(given) if same(given.as_bytes(), self.0.as_bytes()) => Ok(()),
            Some(_) => Err(WRONG),
        }
    }
}

/// Compares in constant time, wherever the first difference is.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |differs, (l, r)| differs | (l ^ r)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_accepts_key_in_either_header_and_rejects_others() {
        let key = ApiKey::new(Some("secret".to_owned())).unwrap();
        assert_eq!(key.check(Some("secret"), None), Ok(()));
        assert_eq!(key.check(None, Some("Bearer secret")), Ok(()));
        assert_eq!(key.check(None, None), Err(MISSING));
        assert_eq!(key.check(None, Some("Basic secret")), Err(MISSING));
        assert_eq!(key.check(Some("secre"), None), Err(WRONG));
        assert_eq!(key.check(Some("secreT"), Some("Bearer secret")), Err(WRONG));
        assert!(ApiKey::new(Some(String::new())).is_none());
    }
}
