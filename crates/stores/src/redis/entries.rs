//! Lookup of documents' entries in a stream, for operators.

use async_trait::async_trait;
use redis::Value;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{EntryFinder, EntryState, FoundEntries, FoundEntry, PortResult};
use tidewheel_core::stage::Stage;

use super::keys::StreamKeys;
use super::{RedisStore, reply, script, wire};

/// Entries scanned per script call: a few milliseconds of Redis' time with vectors and documents of ordinary size.
const AT_ONCE: u64 = 500;

#[async_trait]
impl EntryFinder for RedisStore {
    async fn entries_of(&self, stage: Stage, documents: &[(Namespace, String)], most: u64) -> PortResult<FoundEntries> {
        let StreamKeys { stream, group, .. } = stage.into();
        self.look_through(stream, group, documents, most).await
    }

    async fn letters_of(&self, stage: Stage, documents: &[(Namespace, String)], most: u64) -> PortResult<FoundEntries> {
        let StreamKeys { dead_letters, .. } = stage.into();
        self.look_through(dead_letters, "", documents, most).await
    }
}

impl RedisStore {
    async fn look_through(
        &self,
        stream: &str,
        group: &str,
        documents: &[(Namespace, String)],
        most: u64,
    ) -> PortResult<FoundEntries> {
        let doing = format!("scan {stream}");
        let mut found = FoundEntries::default();
        let mut from = "+".to_owned();
        while found.looked_at < most {
            let count = AT_ONCE.min(most - found.looked_at);
            let mut command = script::ENTRIES.command(&[stream], 3 + 2 * documents.len(), 96 * documents.len());
            command.arg(group).arg(&from).arg(count);
            for (namespace, key) in documents {
                command.arg(namespace.as_str()).arg(key);
            }
            let answer = self.run(&doing, &script::ENTRIES, &command).await?;
            let (looked_at, last, ended, entries) = page(answer).map_err(self.garbled(&doing))?;
            found.looked_at += looked_at;
            found.entries.extend(entries);
            if ended {
                found.complete = true;
                return Ok(found);
            }
            from = format!("({last}");
        }
        Ok(found)
    }
}

fn page(answer: Value) -> Result<(u64, String, bool, Vec<FoundEntry>), reply::Unexpected> {
    let [looked_at, last, ended, entries]: [Value; 4] =
        reply::array(answer)?.try_into().map_err(|_| reply::Unexpected("four values"))?;
    let entries = reply::array(entries)?.into_iter().map(entry).collect::<Result<_, _>>()?;
    Ok((reply::count(&looked_at)?, reply::text(last)?, reply::count(&ended)? > 0, entries))
}

fn entry(value: Value) -> Result<FoundEntry, reply::Unexpected> {
    let three = || reply::Unexpected("three values for an entry");
    let [id, state, fields]: [Value; 3] = reply::array(value)?.try_into().map_err(|_| three())?;
    let [name, consumer, idle, deliveries]: [Value; 4] = reply::array(state)?.try_into().map_err(|_| three())?;
    let state = match reply::text(name)?.as_str() {
        "pending" => EntryState::Pending {
            consumer: reply::text(consumer)?,
            idle_ms: reply::count(&idle)?,
            deliveries: reply::count(&deliveries)?,
        },
        "confirmed" => EntryState::Confirmed,
        _ => EntryState::Waiting,
    };
    Ok(wire::found(reply::entry_id(id)?, state, reply::raw_fields(fields)?))
}
