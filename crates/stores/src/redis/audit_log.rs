//! The audit log: who changed what, from where. A bounded stream, readable with XRANGE.

use redis::Value;
use serde::Serialize;
use tidewheel_core::ports::PortResult;

use super::keys::AUDIT_LOG;
use super::{RedisStore, reply};

/// Approximate number of entries kept.
const KEPT: u64 = 10_000;

/// Maximum length of a field, in characters.
const LONGEST: usize = 2_000;

/// An operator's action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Action {
    /// The command, such as `dead-letters drop` or `replay source`.
    pub action: String,
    /// Its target and options.
    pub detail: String,
    /// The user.
    pub user: String,
    /// The origin, such as `console 192.0.2.7` or `cli db1`.
    pub origin: String,
}

/// An action in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recorded {
    /// The stream entry id.
    pub id: String,
    /// Time in milliseconds since the Unix epoch, by Redis' clock.
    pub at_ms: u64,
    /// The action.
    #[serde(flatten)]
    pub action: Action,
}

impl RedisStore {
    /// Appends an action to the audit log.
    pub async fn record(&self, action: &Action) -> PortResult<()> {
        let mut command = redis::cmd("XADD");
        command.arg(AUDIT_LOG).arg("MAXLEN").arg("~").arg(KEPT).arg("*");
        let Action { action, detail, user, origin } = action;
        for (name, value) in [("action", action), ("detail", detail), ("user", user), ("origin", origin)] {
            command.arg(name).arg(plain(value));
        }
        self.send("append to the audit log", &command).await.map(|_| ())
    }

    /// The newest `most` actions since a time (milliseconds since the Unix epoch), oldest first.
    pub async fn recorded(&self, since_ms: u64, most: u64) -> PortResult<Vec<Recorded>> {
        let doing = "read the audit log";
        let mut command = redis::cmd("XREVRANGE");
        command.arg(AUDIT_LOG).arg("+").arg(since_ms).arg("COUNT").arg(most);
        let answer = self.send(doing, &command).await?;
        let read = |value: Value| {
            let (id, fields) = reply::entry(value)?;
            let field = |name: &str| {
                let value =
                    fields.iter().find(|(field, _)| field == name.as_bytes()).map(|(_, value)| value.as_slice());
                String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
            };
            let action = Action {
                action: field("action"),
                detail: field("detail"),
                user: field("user"),
                origin: field("origin"),
            };
            let at_ms = id.0.split('-').next().and_then(|time| time.parse().ok()).unwrap_or_default();
            Ok(Recorded { id: id.0, at_ms, action })
        };
        let entries = reply::array(answer).and_then(|entries| entries.into_iter().rev().map(read).collect());
        entries.map_err(self.garbled(doing))
    }
}

/// Reduces a value to one line of bounded length, so that caller input cannot forge other entries.
fn plain(text: &str) -> String {
    let line = text.chars().map(|char| if char.is_control() { ' ' } else { char });
    line.take(LONGEST).collect()
}
