//! The catalog of indexes, as a human-readable hash: its revision, and each index as JSON.
//!
//! A change is one script, which runs only if the stored revision is the expected one. If the reply is lost, the same
//! script is sent once more: the id of the change tells whether it was saved.

use async_trait::async_trait;
use redis::{Cmd, Value};
use serde::de::DeserializeOwned;
use tidewheel_core::catalog::{Catalog, Declaration, Generation, Index, IndexName, TargetId};
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{Appended, CatalogStore, PortResult};
use uuid::Uuid;

use super::error::is_ambiguous;
use super::journal::outcome;
use super::keys::{COLLECTION, COLLECTIONS, INDEXES, INSTALLATION, LOST, TargetKeys};
use super::target::PAGE;
use super::{RedisStore, reply, script};

/// Field of the hash: the revision. The names of all fields that are no index begin with this character.
const REVISION: &str = "#revision";

/// Field of the hash: the declaration that the points of the short form conform to.
const PLAIN: &str = "#plain";

/// Whether a generation is that of the short form: its collection has the name of the index, and its other keys have
/// those of the releases before there were targets.
pub(super) fn is_plain(target: &TargetId, generation: &Generation) -> bool {
    generation.collection != target.collection()
}

#[async_trait]
impl CatalogStore for RedisStore {
    async fn load(&self) -> PortResult<(Catalog, u64)> {
        let doing = "load the catalog";
        let command = script::INDEXES.command(&[INDEXES], 0, 0);
        let answer = self.run(doing, &script::INDEXES, &command).await?;
        let (now, fields) = fields(answer).map_err(self.garbled(doing))?;
        let revision = fields.iter().find(|(name, _)| name == REVISION).map(|(_, revision)| revision.as_str());
        let mut catalog = Catalog { revision: self.parse_revision(revision)?, ..Catalog::default() };
        let is_applied = catalog.revision > 0;
        for (name, json) in fields.iter().filter(|(name, _)| is_applied && !name.starts_with('#')) {
            catalog.insert(IndexName::of_collection(name), self.parse(name, json)?);
        }
        Ok((catalog, now))
    }

    async fn revision(&self) -> PortResult<u64> {
        let revision = self.field("load the revision of the catalog", REVISION).await?;
        self.parse_revision(revision.as_deref())
    }

    async fn save(
        &self,
        change: Uuid,
        expected: u64,
        next: u64,
        indexes: &[(IndexName, Option<Index>)],
        layout: Option<u32>,
    ) -> PortResult<Appended> {
        let doing = "save the catalog";
        let command = save(change, expected, next, indexes, layout);
        let mut result = self.link().run(&script::CATALOG, &command).await;
        if result.as_ref().is_err_and(is_ambiguous) {
            result = self.link().run(&script::CATALOG, &command).await;
        }
        outcome(result.map_err(|error| self.failed(doing, &error))?).map_err(self.garbled(doing))
    }

    async fn plain(&self) -> PortResult<Option<Declaration>> {
        let json = self.field("load the declaration of the short form", PLAIN).await?;
        json.map(|json| self.parse(PLAIN, &json)).transpose()
    }

    async fn set_plain(&self, declaration: &Declaration) -> PortResult<()> {
        let json = json(declaration);
        let mut command = redis::cmd("HSET");
        command.arg(INDEXES).arg(PLAIN).arg(json);
        self.send("save the declaration of the short form", &command).await.map(|_| ())
    }

    async fn lost(&self) -> PortResult<Vec<(TargetId, String)>> {
        let doing = "read what targets have lost";
        let (mut cursor, mut values) = ("0".to_owned(), Vec::new());
        loop {
            let mut command = redis::cmd("HSCAN");
            command.arg(LOST).arg(&cursor).arg("COUNT").arg(1_000);
            let answer = self.send(doing, &command).await?;
            let page = |answer| -> Result<_, reply::Unexpected> {
                let [next, page] = reply::pair(answer)?;
                Ok((reply::text(next)?, reply::array(page)?))
            };
            let (next, page) = page(answer).map_err(self.garbled(doing))?;
            values.extend(page);
            cursor = next;
            if cursor == "0" {
                // A scan may return a field twice.
                let mut lost = reply::losses(values.into_iter()).map_err(self.garbled(doing))?;
                lost.dedup_by(|(target, _), (previous, _)| target == previous);
                return Ok(lost);
            }
        }
    }

    async fn found(&self, target: &TargetId, text: &str) -> PortResult<()> {
        let mut command = script::FOUND.command(&[LOST], 2, 96 + text.len());
        command.arg(target.to_string()).arg(text);
        self.run("forget a loss", &script::FOUND, &command).await.map(|_| ())
    }

    async fn forget(&self, target: &TargetId) -> PortResult<bool> {
        let doing = "delete the state of a target";
        let name = target.index.as_str();
        let index = self.field(doing, name).await?.map(|json| self.parse::<Index>(name, &json)).transpose()?;
        let generation = index.as_ref().and_then(|index| index.generations.get(&target.generation));
        let plain = generation.is_some_and(|generation| is_plain(target, generation));
        let TargetKeys { tombstones, log, state, audit } = TargetKeys::of(target, plain);
        let mut keys = vec![&*tombstones, &*log, &*state, &*audit, COLLECTIONS, LOST];
        if plain {
            keys.push(COLLECTION);
        }
        let mut command = script::DROP.command(&keys, 2, 96);
        command.arg(target.to_string()).arg(PAGE);
        let answer = self.run(doing, &script::DROP, &command).await?;
        reply::count(&answer).map(|more| more > 0).map_err(self.garbled(doing))
    }
}

impl RedisStore {
    /// One field of the hash.
    async fn field(&self, doing: &str, name: &str) -> PortResult<Option<String>> {
        let answer = self.send(doing, redis::cmd("HGET").arg(INDEXES).arg(name)).await?;
        reply::optional_text(answer).map_err(self.garbled(doing))
    }

    /// The revision; 0 before the first catalog is applied.
    fn parse_revision(&self, text: Option<&str>) -> PortResult<u64> {
        text.map_or(Ok(0), str::parse::<u64>).map_err(|error| self.invalid(REVISION, &error))
    }

    fn parse<T: DeserializeOwned>(&self, field: &str, json: &str) -> PortResult<T> {
        serde_json::from_str(json).map_err(|error| self.invalid(field, &error))
    }

    fn invalid(&self, field: &str, error: &dyn std::fmt::Display) -> PortError {
        PortError::fatal(format!("field {field} of {INDEXES} in Redis at {} is invalid: {error}", self.address()))
            .with_hint(format!("use the release that has written it, or restore the field with HSET {INDEXES} {field}"))
    }
}

/// The time in milliseconds, and the fields of the hash.
fn fields(answer: Value) -> Result<(u64, Vec<(String, String)>), reply::Unexpected> {
    let mut texts = reply::array(answer)?.into_iter().map(reply::text);
    let now = texts.next().ok_or(reply::Unexpected("a time in milliseconds"))??;
    let now = now.parse().map_err(|_| reply::Unexpected("a time in milliseconds"))?;
    let mut fields = Vec::new();
    while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
        fields.push((name?, value?));
    }
    Ok((now, fields))
}

fn save(change: Uuid, expected: u64, next: u64, indexes: &[(IndexName, Option<Index>)], layout: Option<u32>) -> Cmd {
    let removed: Vec<&str> =
        indexes.iter().filter(|(_, index)| index.is_none()).map(|(name, _)| name.as_str()).collect();
    let kept: Vec<(&str, String)> =
        indexes.iter().filter_map(|(name, index)| Some((name.as_str(), json(index.as_ref()?)))).collect();
    let bytes = 128 + 64 * indexes.len() + kept.iter().map(|(_, json)| json.len()).sum::<usize>();
    let mut command = script::CATALOG.command(&[INDEXES, INSTALLATION], 5 + removed.len() + 2 * kept.len(), bytes);
    command.arg(expected).arg(next).arg(layout.map(|layout| layout.to_string()).unwrap_or_default());
    command.arg(removed.len());
    for name in removed {
        command.arg(name);
    }
    for (name, json) in kept {
        command.arg(name).arg(json);
    }
    command.arg(change.to_string());
    command
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("a declaration is JSON")
}
