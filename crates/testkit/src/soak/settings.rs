//! Settings files of a soak.

use std::path::{Path, PathBuf};

use super::documents::{COLLECTIONS, DATABASE, UNDECODABLE};
use super::indexes::Declarations;
use super::{SoakError, SoakOptions};

/// At `info` the services' logs are short; at `debug` they show every action on an entry.
const LOG_LEVEL: &str = "debug";

/// Addresses, each a host and a port.
pub(super) struct Addresses {
    pub(super) mongodb: String,
    pub(super) redis: String,
    pub(super) qdrant: String,
    /// Where the services reach the embedder.
    pub(super) embedder: String,
    /// Where the embedder listens.
    pub(super) listen: String,
}

/// A settings file.
pub(super) struct Settings {
    file: PathBuf,
    /// Everything but the declared indexes.
    text: String,
}

impl Settings {
    /// The settings with these addresses, not written yet: those of the short form, or all but the declared indexes.
    pub(super) fn new(file: PathBuf, addresses: &Addresses, is_short_form: bool) -> Self {
        let mut text = common(addresses);
        if is_short_form {
            text.push_str(&short_form());
        }
        Self { file, text }
    }

    /// The path of the file.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Writes the file. Readers find either the earlier or the new one.
    pub(super) fn write(&self, declarations: Option<&Declarations>) -> Result<(), SoakError> {
        let failed = || SoakError::io(format!("write {}", self.file.display()));
        let new = self.file.with_extension("new");
        let indexes = declarations.map(Declarations::settings).unwrap_or_default();
        std::fs::write(&new, format!("{}{indexes}", self.text)).map_err(failed())?;
        std::fs::rename(&new, &self.file).map_err(failed())
    }
}

/// Short intervals everywhere, so that claims, timeouts and trimming occur many times within a run.
fn common(addresses: &Addresses) -> String {
    let Addresses { mongodb, redis, qdrant, embedder, listen } = addresses;
    let model = SoakOptions::MODEL;
    format!(
        r#"
        mongodb.uri = "mongodb://{mongodb}/?directConnection=true"
        redis.url = "redis://{redis}/"
        qdrant.url = "http://{qdrant}"
        qdrant.timeout = "5s"
        embedding.url = "http://{embedder}"
        embedding.timeout = "4s"
        embedder.listen = "{listen}"
        embedder.model = "{model}"
        processor.batch = 32
        processor.claim_after = "2s"
        upserter.batch = 48
        upserter.claim_after = "3s"
        streams.retention_age = "5s"
        streams.retention_entries = 200
        log.format = "text"
        log.level = "{LOG_LEVEL}"
        "#
    )
}

/// One index of one database.
fn short_form() -> String {
    let collections = COLLECTIONS.iter().chain([&UNDECODABLE]).collect::<Vec<_>>();
    format!(
        r#"
        mongodb.database = "{DATABASE}"
        mongodb.collection = {collections:?}
        documents.template = "{{{{ subject }}}}\n{{{{ content }}}}"
        documents.chunk_tokens = 24
        documents.chunk_overlap = 6
        "#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Declared;

    #[test]
    fn settings_are_the_short_form_or_declare_indexes() {
        let folder = tempfile::tempdir().unwrap();
        let [mongodb, redis, qdrant, embedder, listen] = ["a:1", "b:2", "c:3", "d:4", "e:5"].map(str::to_owned);
        let addresses = Addresses { mongodb, redis, qdrant, embedder, listen };
        let written = |is_short_form: bool, declarations: Option<&Declarations>| {
            let settings = Settings::new(folder.path().join("tidewheel.toml"), &addresses, is_short_form);
            settings.write(declarations).unwrap();
            let text = std::fs::read_to_string(settings.file()).unwrap();
            (Declared::all(&text).unwrap().len(), text.contains("mongodb.collection"))
        };
        assert_eq!(written(true, None), (0, true));
        assert_eq!(written(false, Some(&Declarations::first())), (3, false));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
