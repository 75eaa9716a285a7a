//! The largest value that Redis accepts. A larger one makes it close the connection, including everything else sent
//! along.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use redis::{RedisError, RedisResult};
use tracing::warn;

use super::error::is_ambiguous;
use super::link::Link;
use super::reply;

/// The lowest limit that Redis allows to set.
const LEAST: usize = 1 << 20;

/// Maximum overhead of a command beside its largest value.
const REST: usize = 64 * 1024;

/// The known limit.
#[derive(Debug)]
pub(super) struct Sizes {
    /// The largest accepted size observed; for servers that hide their settings and for proxies in between.
    learned: AtomicUsize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { learned: AtomicUsize::new(usize::MAX) }
    }
}

impl Sizes {
    /// Maximum bytes of a value; `None` if unknown.
    pub(super) async fn most_bytes(&self, link: &Link) -> RedisResult<Option<usize>> {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg("proto-max-bulk-len").arg("client-query-buffer-limit");
        let configured = match link.send(&command).await {
            Ok(answer) => {
                let texts = reply::array(answer)
                    .and_then(|values| values.into_iter().map(reply::text).collect::<Result<Vec<_>, _>>())
                    .unwrap_or_default();
                limit(&texts)
            }
            // The server replied: the user lacks permission.
            Err(error) if error.code().is_some() => None,
            Err(error) => return Err(error),
        };
        let learned = self.learned.load(Ordering::Relaxed);
        Ok(configured.into_iter().chain((learned < usize::MAX).then_some(learned)).min())
    }

    /// Determines whether a command failed because of its largest value, and learns the limit.
    pub(super) async fn failed(&self, link: &Link, error: &RedisError, largest: usize) {
        if largest < LEAST || !(names_the_size(error) || is_ambiguous(error)) {
            return;
        }
        if !names_the_size(error) {
            // It may have been the network: send a value of the same size alone, then a PING.
            let value = vec![b'x'; largest];
            let refused = match link.send(redis::cmd("ECHO").arg(value)).await {
                Err(error) => names_the_size(&error) || is_ambiguous(&error),
                Ok(_) => false,
            };
            // The first reply may still concern the old connection.
            let mut responds = false;
            for _ in 0..2 {
                responds = responds || link.send(&redis::cmd("PING")).await.is_ok();
            }
            if !(refused && responds) {
                return;
            }
        }
        warn!(bytes = largest, "Redis rejects values of this size; documents this large or larger will be parked");
        self.learned.fetch_min(largest - 1, Ordering::Relaxed);
    }
}

fn names_the_size(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.contains("invalid bulk length"))
}

/// The limit in a reply of `CONFIG GET`: alternating names and values.
fn limit(texts: &[String]) -> Option<usize> {
    let settings: HashMap<&str, usize> = texts
        .chunks_exact(2)
        .filter_map(|pair| Some((pair[0].as_str(), pair[1].parse().ok()?)))
        .filter(|(_, bytes)| *bytes > 0)
        .collect();
    let value = settings.get("proto-max-bulk-len").copied();
    let command = settings.get("client-query-buffer-limit").map(|bytes| bytes.saturating_sub(REST));
    value.into_iter().chain(command).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_of_two_limits_applies() {
        let limit = |texts: &[&str]| limit(&texts.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(
            limit(&["proto-max-bulk-len", "536870912", "client-query-buffer-limit", "1073741824"]),
            Some(536_870_912)
        );
        assert_eq!(limit(&["client-query-buffer-limit", "1048576", "proto-max-bulk-len", "536870912"]), Some(983_040));
        assert_eq!(limit(&["proto-max-bulk-len", "1048576"]), Some(1_048_576));
        assert_eq!(limit(&["proto-max-bulk-len", "none"]), None);
        assert_eq!(limit(&[]), None);
    }
}
