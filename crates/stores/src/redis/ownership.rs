//! The installation that owns this Redis, as a human-readable hash.

use async_trait::async_trait;
use redis::Value;
use tidewheel_core::error::PortError;
use tidewheel_core::installation::{Installation, SourceIdentity};
use tidewheel_core::ports::{PortResult, Registry};

use super::keys::{INDEXES, INSTALLATION};
use super::layout::{INITIAL_LAYOUT, LAYOUT, TARGET_LAYOUT, check_layout};
use super::{RedisStore, reply, script};

/// The hash's fields. All are always written; unknown values are empty. `format` is the layout of all helper keys: a
/// registration keeps the one that it finds, and the first applied catalog raises it.
const FIELDS: [&str; 8] = ["format", "id", "database", "replica_set", "hosts", "cluster", "created_at", "collection"];

#[async_trait]
impl Registry for RedisStore {
    async fn installation(&self) -> PortResult<Option<Installation>> {
        // HMGET rather than HGETALL: the user of an older installation may lack permission for the latter.
        let answer = self.send("read the installation", redis::cmd("HMGET").arg(INSTALLATION).arg(&FIELDS)).await?;
        self.read(answer)
    }

    async fn register(&self, installation: &Installation) -> PortResult<Installation> {
        let fields = fields(installation);
        let mut command = script::REGISTER.command(&[INSTALLATION, INDEXES], 3 + 2 * fields.len(), 512);
        command.arg(LAYOUT).arg(INITIAL_LAYOUT).arg(TARGET_LAYOUT);
        for (name, value) in fields {
            command.arg(name).arg(value);
        }
        let answer = self.run("register the installation", &script::REGISTER, &command).await?;
        // One is registered now.
        self.read(answer).map(|registered| registered.unwrap_or_else(|| installation.clone()))
    }

    async fn replace(&self, installation: &Installation) -> PortResult<()> {
        let fields = fields(installation);
        let mut command = script::REPLACE.command(&[INSTALLATION, INDEXES], 3 + 2 * fields.len(), 512);
        command.arg(LAYOUT).arg(INITIAL_LAYOUT).arg(TARGET_LAYOUT);
        for (name, value) in fields {
            command.arg(name).arg(value);
        }
        let doing = "register the installation";
        let answer = self.run(doing, &script::REPLACE, &command).await?;
        self.check(reply::optional_text(answer).map_err(self.garbled(doing))?)
    }
}

impl RedisStore {
    fn read(&self, answer: Value) -> PortResult<Option<Installation>> {
        let doing = "read the installation";
        let values = reply::array(answer)
            .and_then(|values| values.into_iter().map(reply::optional_text).collect::<Result<Vec<_>, _>>())
            .and_then(|values| values.try_into().map_err(|_| reply::Unexpected("a value for each field")))
            .map_err(self.garbled(doing))?;
        let values: [Option<String>; FIELDS.len()] = values;
        // The catalog may have raised the layout while the registration was missing.
        if values[1..].iter().all(Option::is_none) {
            return values[0].clone().map_or(Ok(()), |layout| self.check(Some(layout))).map(|()| None);
        }
        let [layout, id, database, replica_set, hosts, cluster, created_at, collection] =
            values.map(Option::unwrap_or_default);
        self.check(Some(layout))?;
        if id.is_empty() || database.is_empty() {
            let message =
                format!("{INSTALLATION} in Redis at {} is invalid: id or database is missing", self.address());
            return Err(PortError::fatal(message)
                .with_hint("run `tidewheel installation adopt` to register the installation of these settings"));
        }
        let hosts = hosts.split(',').filter(|host| !host.is_empty()).map(str::to_owned).collect();
        let source = SourceIdentity { database, replica_set, hosts, cluster };
        Ok(Some(Installation { id, source, created_at: created_at.parse().unwrap_or_default(), collection }))
    }

    /// Checks the layout of the keys, as stored. A missing or invalid one is that of a registration that is missing or
    /// invalid itself.
    fn check(&self, layout: Option<String>) -> PortResult<()> {
        let layout = layout.and_then(|layout| layout.parse().ok()).unwrap_or(LAYOUT);
        check_layout(layout, &format!("Redis at {}", self.address()))
    }
}

/// The names and values, except the layout.
fn fields(installation: &Installation) -> [(&'static str, String); FIELDS.len() - 1] {
    let source = &installation.source;
    let values = [
        installation.id.clone(),
        source.database.clone(),
        source.replica_set.clone(),
        source.hosts.join(","),
        source.cluster.clone(),
        installation.created_at.to_string(),
        installation.collection.clone(),
    ];
    let mut names = FIELDS.into_iter().skip(1);
    values.map(|value| (names.next().expect("each value has a name"), value))
}
