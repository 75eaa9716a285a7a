//! The Redis server's configuration, as far as tidewheel's guarantees depend on it.

use async_trait::async_trait;
use redis::{ErrorKind, ServerErrorKind};
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{PortResult, QueueServer, QueueServerInspector};

use super::{RedisStore, reply};

/// Configuration and state of a Redis server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisFacts {
    /// `redis_version`, such as `7.0.15`.
    pub version: String,
    /// `master` or `slave`, as Redis itself calls them.
    pub role: String,
    /// Whether it is a node of Redis Cluster.
    pub cluster: bool,
    /// Whether it writes an append-only file.
    pub append_only: bool,
    /// `always`, `everysec` or `no`; `None` if `CONFIG` is not permitted.
    pub append_fsync: Option<String>,
    /// `maxmemory` in bytes; 0 means unlimited.
    pub max_memory: u64,
    /// Memory in use, in bytes.
    pub used_memory: u64,
    /// `maxmemory-policy`; every value but `noeviction` deletes data at the limit.
    pub max_memory_policy: String,
    /// Connected replicas.
    pub replicas: u64,
    /// Whether the `CONFIG` command is permitted.
    pub config_permitted: bool,
}

impl RedisFacts {
    /// Parses a reply of INFO: lines of `name:value`.
    fn parse(info: &str) -> Self {
        let get = |name: &str| {
            info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim()
        };
        Self {
            version: get("redis_version").to_owned(),
            role: get("role").to_owned(),
            cluster: get("cluster_enabled") == "1",
            append_only: get("aof_enabled") == "1",
            append_fsync: None,
            max_memory: get("maxmemory").parse().unwrap_or(0),
            used_memory: get("used_memory").parse().unwrap_or(0),
            max_memory_policy: get("maxmemory_policy").to_owned(),
            replicas: get("connected_slaves").parse().unwrap_or(0),
            config_permitted: false,
        }
    }

    /// Fails as fatal if this Redis evicts keys: it could silently delete a stream, or the checkpoint but not the
    /// stream.
    pub fn refuse_evicting_policy(&self, address: &str) -> PortResult<()> {
        // A server that does not report its policy is accepted; `tidewheel check` warns about it.
        if self.max_memory_policy.is_empty() || self.max_memory_policy == "noeviction" {
            return Ok(());
        }
        let policy = &self.max_memory_policy;
        Err(PortError::fatal(format!(
            "Redis at {address} has maxmemory-policy {policy}: it deletes data when memory is full"
        ))
        .with_hint("run redis-cli CONFIG SET maxmemory-policy noeviction, and set the same in redis.conf"))
    }
}

impl RedisStore {
    /// Reads the server's configuration.
    pub async fn inspect(&self) -> PortResult<RedisFacts> {
        let doing = "inspect the server";
        let info = reply::text(self.send(doing, &redis::cmd("INFO")).await?).map_err(self.garbled(doing))?;
        let mut facts = RedisFacts::parse(&info);
        match self.link().send(redis::cmd("CONFIG").arg("GET").arg("appendfsync")).await {
            Ok(answer) => {
                facts.config_permitted = true;
                let mut values = reply::array(answer).map_err(self.garbled(doing))?.into_iter();
                facts.append_fsync = values.nth(1).map(reply::text).transpose().map_err(self.garbled(doing))?;
            }
            // Managed servers forbid or remove the command.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Server(ServerErrorKind::NoPerm | ServerErrorKind::ResponseError)
                ) => {}
            Err(error) => return Err(self.failed(doing, &error)),
        }
        Ok(facts)
    }

    /// Fails as fatal if this Redis evicts keys. Called at the start of a service.
    pub async fn refuse_evicting_policy(&self) -> PortResult<()> {
        self.inspect().await?.refuse_evicting_policy(self.address())
    }
}

#[async_trait]
impl QueueServerInspector for RedisStore {
    async fn queue_server(&self) -> PortResult<QueueServer> {
        let facts = self.inspect().await?;
        Ok(QueueServer {
            address: self.address().to_owned(),
            version: facts.version,
            memory_bytes: facts.used_memory,
            memory_limit_bytes: (facts.max_memory > 0).then_some(facts.max_memory),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_parsed_by_exact_info_names() {
        let info = "# Memory\r\nused_memory:1048576\r\nused_memory_human:1.00M\r\nmaxmemory_human:0B\r\n\
                    maxmemory:2097152\r\nmaxmemory_policy:allkeys-lru\r\n# Server\r\nredis_version:7.0.15\r\n\
                    role:master\r\ncluster_enabled:0\r\naof_enabled:1\r\nconnected_slaves:2\r\n";
        let facts = RedisFacts::parse(info);
        assert_eq!(
            facts,
            RedisFacts {
                version: "7.0.15".into(),
                role: "master".into(),
                append_only: true,
                max_memory: 2_097_152,
                used_memory: 1_048_576,
                max_memory_policy: "allkeys-lru".into(),
                replicas: 2,
                ..RedisFacts::default()
            }
        );
        let refused = facts.refuse_evicting_policy("localhost:6379").unwrap_err();
        assert!(refused.hint.unwrap().contains("CONFIG SET maxmemory-policy noeviction"));
        for policy in ["noeviction", ""] {
            let facts = RedisFacts { max_memory_policy: policy.into(), ..facts.clone() };
            assert!(facts.refuse_evicting_policy("localhost:6379").is_ok());
        }
    }
}
