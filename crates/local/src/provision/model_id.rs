//! Model ids on the hub.

/// `name` or `owner/name`, with an optional `@revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ModelId {
    /// Without the revision.
    pub(super) id: String,
    /// The requested commit, tag or branch.
    pub(super) revision: Option<String>,
}

impl ModelId {
    /// Parses an id. `None`: invalid form.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (id, revision) = match name.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (name, None),
        };
        let parts: Vec<&str> = id.split('/').collect();
        let good = parts.len() <= 2 && parts.iter().all(|part| is_part(part));
        let named = revision.is_none_or(|revision| revision.split('/').all(is_part));
        (good && named).then(|| Self { id: id.to_owned(), revision: revision.map(str::to_owned) })
    }

    /// Whether it is this model without an explicit revision.
    pub(super) fn is(&self, id: &str) -> bool {
        self.id == id && self.revision.is_none()
    }

    /// Returns the name of its cache entry.
    pub(super) fn entry(&self) -> String {
        let plain = |name: &str| name.replace('/', "--");
        match &self.revision {
            None => format!("model-{}", plain(&self.id)),
            Some(revision) => format!("model-{}@{}", plain(&self.id), plain(revision)),
        }
    }
}

fn is_part(part: &str) -> bool {
    part.starts_with(|c: char| c.is_ascii_alphanumeric())
        && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        && !part.contains("..")
}

/// Whether a revision is a full commit hash.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::{ModelId, is_commit};

    #[test]
    fn parse_accepts_ids_with_revisions_and_rejects_paths() {
        for (name, id, revision) in [
            ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2", None),
            ("BAAI/bge-small-en-v1.5", "BAAI/bge-small-en-v1.5", None),
            ("gpt2", "gpt2", None),
            ("acme/m@v1.0", "acme/m", Some("v1.0")),
            ("acme/m@refs/pr/1", "acme/m", Some("refs/pr/1")),
        ] {
            let found = ModelId::parse(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!((&found.id[..], found.revision.as_deref()), (id, revision));
        }
        for path in [
            "./model",
            "/srv/model",
            "../model",
            "a/b/c",
            "",
            "owner/",
            "~/model",
            "owner/..",
            "a b/c",
            "a/b@",
            "a/b@../c",
            "a/b@c@d",
            "a/b@/c",
            "@main",
        ] {
            assert_eq!(ModelId::parse(path), None, "{path}");
        }
    }

    #[test]
    fn each_revision_has_its_own_entry() {
        let entry = |name: &str| ModelId::parse(name).expect("an id").entry();
        assert_eq!(entry("acme/m"), "model-acme--m");
        assert_eq!(entry("acme/m@refs/pr/1"), "model-acme--m@refs--pr--1");
    }

    #[test]
    fn is_commit_accepts_only_full_hashes() {
        assert!(is_commit("1110a243fdf4706b3f48f1d95db1a4f5529b4d41"));
        assert!(!is_commit("main") && !is_commit("1110a24"));
    }
}
