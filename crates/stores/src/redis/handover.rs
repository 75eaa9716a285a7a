//! The step from stage 1 to stage 2.
//!
//! Entries of stage 1 are acknowledged regardless of their current consumer: if another consumer has claimed one
//! meanwhile, its records are delivered twice, which their version makes harmless. If none of the entries is pending
//! any more, nothing is appended: an earlier call whose reply was lost or another consumer has done the work, or the
//! stream is gone and its entries will be appended again, possibly in another form.

use async_trait::async_trait;
use redis::Cmd;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{EntryId, Gap, Handover, PortResult};

use super::error::is_no_group;
use super::journal::{Size, add_entries, size};
use super::keys::{COUNTS, EMBEDDED, LOST, RAW, RAW_GROUP};
use super::wire::{Fields, Record};
use super::{RedisStore, script};

#[async_trait]
impl Handover for RedisStore {
    async fn hand_over_with_gaps(&self, records: &[Embedded], acknowledge: &[EntryId], gaps: &[Gap]) -> PortResult<()> {
        if records.is_empty() && acknowledge.is_empty() && gaps.is_empty() {
            return Ok(());
        }
        let entries: Vec<Fields<'_>> = records.iter().map(Record::encode).collect();
        let Size { arguments, bytes, largest } = size(&entries);
        let ids = acknowledge.len();
        let arguments = 4 + ids + 2 * gaps.len() + arguments;
        let bytes = 24 * ids + gaps_size(gaps) + bytes;
        let mut command = script::HAND_OVER.command(&[RAW, EMBEDDED, COUNTS, LOST], arguments, bytes);
        command.arg(RAW_GROUP).arg(largest).arg(ids);
        for id in acknowledge {
            command.arg(&id.0);
        }
        add_gaps(&mut command, gaps);
        add_entries(&mut command, &entries);
        match self.link().run(&script::HAND_OVER, &command).await {
            Ok(_) => Ok(()),
            // No entry is pending without a group.
            Err(error) if is_no_group(&error) => Ok(()),
            Err(error) => Err(self.failed("hand over to embedded_documents", &error)),
        }
    }
}

/// Approximate bytes that these gaps add to a command.
pub(super) fn gaps_size(gaps: &[Gap]) -> usize {
    gaps.iter().map(|gap| 96 + gap.reason.len()).sum()
}

/// Adds the count of gaps, then the target and the reason of each.
pub(super) fn add_gaps(command: &mut Cmd, gaps: &[Gap]) {
    command.arg(gaps.len());
    for Gap { target, reason } in gaps {
        command.arg(target.to_string()).arg(reason);
    }
}
