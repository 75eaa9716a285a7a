//! The audit log: who changed what, from where. Each action is recorded in Redis before it runs, so that no action runs without
//! a record, and is logged with the target `audit`.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;

use tidewheel_core::catalog::IndexName;
use tidewheel_core::ports::PortResult;
use tidewheel_stores::redis::{Action, RedisStore};
use tracing::info;

/// The end of the detail of an action on one index; empty for all indexes.
pub(crate) fn of_index(index: Option<&IndexName>) -> String {
    index.map(|index| format!(", index {index}")).unwrap_or_default()
}

/// Who performs an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Actor {
    user: String,
    origin: String,
}

impl Actor {
    /// The user of this process, at the command line of this machine.
    pub(crate) fn cli() -> Self {
        let name = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
        let id = std::fs::metadata("/proc/self").map(|metadata| metadata.uid().to_string());
        let user = match (name.filter(|name| !name.is_empty()), id) {
            (Some(name), Ok(id)) => format!("{name} (uid {id})"),
            (Some(name), Err(_)) => name,
            (None, Ok(id)) => format!("uid {id}"),
            (None, Err(_)) => "unknown".to_owned(),
        };
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self { user, origin: format!("cli {}", host.trim()).trim_end().to_owned() }
    }

    /// A caller of the web console: the user that a proxy has authenticated, or the holder of the token.
    pub(crate) fn console(user: Option<&str>, address: Option<IpAddr>) -> Self {
        let user = user.unwrap_or("token").to_owned();
        let origin = address.map_or_else(|| "console".to_owned(), |address| format!("console {address}"));
        Self { user, origin }
    }

    /// Records an action that is about to run.
    pub(crate) async fn records(&self, redis: &RedisStore, action: &str, detail: String) -> PortResult<()> {
        let Self { user, origin } = self.clone();
        let action = Action { action: action.to_owned(), detail, user, origin };
        redis.record(&action).await?;
        info!(target: "audit", user = action.user, origin = action.origin, detail = action.detail, "{}", action.action);
        Ok(())
    }
}
