//! The step from stage 1 to stage 2.
//!
//! Entries of stage 1 are acknowledged regardless of their current consumer: if another consumer has claimed one
//! meanwhile, its records are delivered twice, which their version makes harmless. If none of the entries is pending
//! any more, nothing is appended: an earlier call whose reply was lost or another consumer has done the work, or the
//! stream is gone and its entries will be appended again, possibly in another form.

use async_trait::async_trait;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{EntryId, Handover, PortResult};

use super::error::is_no_group;
use super::journal::{Size, add_entries, size};
use super::keys::{COUNTS, EMBEDDED, RAW, RAW_GROUP};
use super::wire::{Fields, Record};
use super::{RedisStore, script};

#[async_trait]
impl Handover for RedisStore {
    async fn hand_over(&self, records: &[Embedded], acknowledge: &[EntryId]) -> PortResult<()> {
        if records.is_empty() && acknowledge.is_empty() {
            return Ok(());
        }
        let entries: Vec<Fields<'_>> = records.iter().map(Record::encode).collect();
        let Size { arguments, bytes, largest } = size(&entries);
        let ids = acknowledge.len();
        let mut command = script::HAND_OVER.command(&[RAW, EMBEDDED, COUNTS], 3 + ids + arguments, 24 * ids + bytes);
        command.arg(RAW_GROUP).arg(largest).arg(ids);
        for id in acknowledge {
            command.arg(&id.0);
        }
        add_entries(&mut command, &entries);
        match self.link().run(&script::HAND_OVER, &command).await {
            Ok(_) => Ok(()),
            // No entry is pending without a group.
            Err(error) if is_no_group(&error) => Ok(()),
            Err(error) => Err(self.failed("hand over to embedded_documents", &error)),
        }
    }
}
