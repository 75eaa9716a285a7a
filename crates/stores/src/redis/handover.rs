//! The step from stage 1 to stage 2.
//!
//! Entries of stage 1 are acknowledged whoever holds them: if a colleague has taken one over meanwhile, its records
//! come a second time, which their version makes harmless. The same holds for a call that is repeated because its
//! answer was lost.

use async_trait::async_trait;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{EntryId, Handover, PortResult};
use tidewheel_core::streams::{COUNTS, EMBEDDED, RAW, RAW_GROUP};
use tidewheel_core::wire::{Fields, Record};

use super::journal::{add_entries, size};
use super::{RedisStore, script};

#[async_trait]
impl Handover for RedisStore {
    async fn hand_over(&self, records: &[Embedded], acknowledge: &[EntryId]) -> PortResult<()> {
        if records.is_empty() && acknowledge.is_empty() {
            return Ok(());
        }
        let entries: Vec<Fields<'_>> = records.iter().map(Record::encode).collect();
        let (arguments, bytes) = size(&entries);
        let ids = acknowledge.len();
        let mut command = script::HAND_OVER.command(&[RAW, EMBEDDED, COUNTS], 2 + ids + arguments, 24 * ids + bytes);
        command.arg(RAW_GROUP).arg(ids);
        for id in acknowledge {
            command.arg(&id.0);
        }
        add_entries(&mut command, &entries);
        self.run("hand over to embedded_documents", &script::HAND_OVER, &command).await.map(|_| ())
    }
}
