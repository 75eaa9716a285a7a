//! Backlog of both streams, dead letters and the catalog, read from Redis directly.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use redis::{FromRedisValue, RedisResult, Value};
use serde::Serialize;
use tidewheel_core::catalog::{Index, TargetId};
use tidewheel_stores::redis::keys::{INDEXES, STAGE_1, STAGE_2, StreamKeys};

/// Backlog of one stage.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Backlog {
    /// The stream.
    pub stream: &'static str,
    /// Undelivered entries; an upper bound if Redis' count is wrong, `None` if it is unknown.
    pub lag: Option<u64>,
    /// Delivered and unacknowledged entries.
    pub pending: u64,
    /// Whether the last entry was delivered and all are acknowledged.
    pub drained: bool,
    /// Number of dead letters.
    pub dead_letters: u64,
}

/// Reads the backlog of both stages.
pub(super) async fn look(url: &str) -> RedisResult<Vec<Backlog>> {
    let client = redis::Client::open(url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut stages = Vec::new();
    for stage in [STAGE_1, STAGE_2] {
        stages.push(backlog(&mut connection, stage).await?);
    }
    Ok(stages)
}

async fn backlog(connection: &mut redis::aio::MultiplexedConnection, stage: StreamKeys) -> RedisResult<Backlog> {
    let dead_letters = redis::cmd("XLEN").arg(stage.dead_letters).query_async(connection).await?;
    let unknown = Backlog { stream: stage.stream, dead_letters, ..Backlog::default() };
    if redis::cmd("EXISTS").arg(stage.stream).query_async::<u64>(connection).await? == 0 {
        return Ok(unknown);
    }
    let stream: HashMap<String, Value> =
        redis::cmd("XINFO").arg("STREAM").arg(stage.stream).query_async(connection).await?;
    let groups: Vec<HashMap<String, Value>> =
        redis::cmd("XINFO").arg("GROUPS").arg(stage.stream).query_async(connection).await?;
    let group = groups.iter().find(|group| field::<String>(group, "name").as_deref() == Some(stage.group));
    let Some(group) = group else { return Ok(unknown) };
    let pending: u64 = field(group, "pending").unwrap_or_default();
    // Redis reports no lag after some deletions, and far too much after a restart that follows a rewrite of its
    // append-only file: the group's later reads are not in the file. The last ids are always reliable.
    let delivered: Option<String> = field(group, "last-delivered-id");
    let all_delivered = delivered.is_some() && delivered == field(&stream, "last-generated-id");
    let length: u64 = field(&stream, "length").unwrap_or_default();
    let lag = if all_delivered { Some(0) } else { field(group, "lag").map(|lag: u64| lag.min(length)) };
    Ok(Backlog { lag, pending, drained: all_delivered && pending == 0, ..unknown })
}

fn field<T: FromRedisValue>(fields: &HashMap<String, Value>, name: &str) -> Option<T> {
    redis::from_redis_value::<Option<T>>(fields.get(name)?.clone()).ok().flatten()
}

/// A dead letter, reduced to the verdict's needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SoakLetter {
    /// Namespace and `_id`, in the oracle's format.
    pub(super) document: String,
    /// The declared indexes that it concerns.
    pub(super) indexes: BTreeSet<String>,
    /// Stream, entry and reason.
    pub(super) reason: String,
}

/// Reads every dead letter of both stages.
pub(super) async fn parked(url: &str) -> RedisResult<Vec<SoakLetter>> {
    /// Dead letters are small here: poison has no large fields.
    const PAGE: u64 = 200;
    let client = redis::Client::open(url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut parked = Vec::new();
    for stage in [STAGE_1, STAGE_2] {
        let mut after = "-".to_owned();
        loop {
            let page: redis::streams::StreamRangeReply = redis::cmd("XRANGE")
                .arg(stage.dead_letters)
                .arg(&[after.as_str(), "+", "COUNT"])
                .arg(PAGE)
                .query_async(&mut connection)
                .await?;
            let Some(last) = page.ids.last() else { break };
            after = format!("({}", last.id);
            for letter in page.ids {
                let text = |name: &str| field::<String>(&letter.map, name).unwrap_or_default();
                parked.push(SoakLetter {
                    document: format!("{} {}", text("namespace"), text("key")),
                    indexes: indexes_of(&text("targets"), text("index")),
                    reason: format!("{} {} {}: {}", text("stream"), text("entry"), text("id"), text("reason")),
                });
            }
        }
    }
    Ok(parked)
}

/// The indexes of a dead letter: those of the targets in stage 1, the one of stage 2, none in the short form.
fn indexes_of(targets: &str, index: String) -> BTreeSet<String> {
    let targets: Vec<TargetId> = serde_json::from_str(targets).unwrap_or_default();
    let named = targets.into_iter().map(|target| target.index.to_string());
    named.chain((!index.is_empty()).then_some(index)).collect()
}

/// The indexes of the applied catalog, by name.
pub(super) async fn indexes(url: &str) -> RedisResult<BTreeMap<String, Index>> {
    let client = redis::Client::open(url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let fields: HashMap<String, String> = redis::cmd("HGETALL").arg(INDEXES).query_async(&mut connection).await?;
    let fields = fields.into_iter().filter(|(name, _)| !name.starts_with('#'));
    // An index that cannot be read is missing, which the caller waits out.
    Ok(fields.filter_map(|(name, json)| Some((name, serde_json::from_str(&json).ok()?))).collect())
}

/// Summarizes both stages.
pub(super) fn show(stages: &[Backlog]) -> String {
    let stages: Vec<String> = stages
        .iter()
        .map(|stage| {
            let lag = stage.lag.map_or_else(|| "?".to_owned(), |lag| lag.to_string());
            format!("{lag} + {}", stage.pending)
        })
        .collect();
    format!("lag + pending {}", stages.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_letter_names_the_indexes_of_its_targets() {
        let of = |targets, index: &str| indexes_of(targets, index.to_owned()).into_iter().collect::<Vec<_>>();
        assert_eq!(of(r#"["open.g2","all.g1","open.g3"]"#, ""), ["all", "open"]);
        assert_eq!(of("", "things"), ["things"]);
        assert!(of("", "").is_empty());
    }
}
