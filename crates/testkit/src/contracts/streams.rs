//! Access of the stream contracts to an implementation.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{
    Backlog, CollectionRegistry, DeadLetters, Delivery, EntryFinder, EntryId, Follower, Handover, Journal,
    QueueServerInspector, ReportReader, StageInspector, StageQueue, StageStatus, StreamLog, Tombstones,
};
use tidewheel_core::stage::Stage;
use tidewheel_stores::redis::keys::{STAGE_1, StreamKeys};
use tidewheel_stores::redis::wire::RawFields;

use super::samples;

/// A dedicated Redis, or a fake of it.
#[async_trait]
pub trait StreamsHarness: Send + Sync {
    /// The producer's side of stage 1.
    fn journal(&self) -> Arc<dyn Journal>;
    /// Changes of any stage for one consumer.
    fn changes(&self, stage: StreamKeys, consumer: &str) -> Arc<dyn StageQueue<Change>>;
    /// Stage 2 for one upserter.
    fn embedded(&self, consumer: &str) -> Arc<dyn StageQueue<Embedded>>;
    /// The step from stage 1 to stage 2.
    fn handover(&self) -> Arc<dyn Handover>;
    /// The tombstones.
    fn tombstones(&self) -> Arc<dyn Tombstones>;
    /// The record of the collection in use.
    fn collection_registry(&self) -> Arc<dyn CollectionRegistry>;
    /// The retained entries of stage 1.
    fn stream_log(&self) -> Arc<dyn StreamLog<Change>>;
    /// The backlog of a stage.
    fn backlog(&self, stage: Stage) -> Arc<dyn Backlog>;
    /// The group of a replay on stage 2.
    fn follower(&self) -> Arc<dyn Follower>;
    /// The dead letters of both stages.
    fn dead_letters(&self) -> Arc<dyn DeadLetters>;
    /// Stage 2 for a consumer of that group.
    fn replay(&self, consumer: &str) -> Arc<dyn StageQueue<Embedded>>;
    /// The stages for operators.
    fn stages(&self) -> Arc<dyn StageInspector>;
    /// Lookup of documents' entries.
    fn finder(&self) -> Arc<dyn EntryFinder>;
    /// The server for operators.
    fn queue_server(&self) -> Arc<dyn QueueServerInspector>;
    /// The reports of processes.
    fn reports(&self) -> Arc<dyn ReportReader>;
    /// Publishes the report of a process; an empty text withdraws it.
    async fn publish(&self, process: &str, text: &str);
    /// A stage's status for operators.
    async fn status(&self, stage: Stage) -> StageStatus {
        self.stages().status(stage).await.unwrap()
    }
    /// Adds a raw entry.
    async fn add_raw(&self, stream: &'static str, fields: RawFields) -> EntryId;
    /// The raw entries of a stream, oldest first.
    async fn raw(&self, stream: &'static str) -> Vec<RawFields>;
    /// Deletes one entry, as an operator's XDEL does.
    async fn delete_entry(&self, stream: &'static str, id: &EntryId);
    /// Deletes a stream with its groups.
    async fn delete_stream(&self, stream: &'static str);
    /// Deletes a stage's group.
    async fn destroy_group(&self, stage: StreamKeys);
}

/// No wait. Redis counts waits in milliseconds.
pub(super) const NOW: Duration = Duration::ZERO;

/// Longer than any test takes.
pub(super) const LONG: Duration = Duration::from_secs(600);

/// Appends these inserts to stage 1, after the existing entries.
pub(super) async fn append(harness: &dyn StreamsHarness, numbers: impl IntoIterator<Item = u32>) {
    let journal = harness.journal();
    let changes = samples::changes(numbers);
    let last = changes.last().map_or(0, |change| change.version.time.increment);
    let saved = journal.load().await.unwrap();
    let appended = journal.append(saved.as_ref(), &changes, &samples::checkpoint(last)).await.unwrap();
    assert_eq!(appended, tidewheel_core::ports::Appended::Saved);
}

/// Stage 1 for this consumer.
pub(super) fn stage_1(harness: &dyn StreamsHarness, consumer: &str) -> Arc<dyn StageQueue<Change>> {
    harness.changes(STAGE_1, consumer)
}

/// The numbers of the delivered inserts.
pub(super) fn numbers(deliveries: &[Delivery<Change>]) -> Vec<u32> {
    deliveries.iter().map(|delivery| delivery.record.as_ref().unwrap().id.parse().unwrap()).collect()
}

/// The ids of the deliveries.
pub(super) fn ids<T>(deliveries: &[Delivery<T>]) -> Vec<EntryId> {
    deliveries.iter().map(|delivery| delivery.id.clone()).collect()
}

/// Declares a test for each contract: `contract_tests!(queue, harness().await, [name, …])`. The harness has to be new
/// each time.
#[macro_export]
macro_rules! contract_tests {
    ($contract:ident, $harness:expr, [$($name:ident),* $(,)?]) => {
        mod $contract {
            use super::*;
            $(
                #[tokio::test]
                async fn $name() {
                    let harness = $harness;
                    $crate::contracts::$contract::$name(&harness).await;
                }
            )*
        }
    };
}

/// Every contract of the streams, as tests on a harness: `streams_contract_tests!(harness().await)`.
#[macro_export]
macro_rules! streams_contract_tests {
    ($harness:expr) => {
        $crate::contract_tests!(
            journal,
            $harness,
            [
                new_journal_has_no_checkpoint,
                entries_and_checkpoint_are_saved_together,
                parked_changes_are_saved_with_the_checkpoint,
                snapshot_state_round_trips,
                append_with_unexpected_checkpoint_is_a_conflict,
                repeated_append_is_applied_once,
                checkpoint_advances_without_entries,
                concurrent_producers_append_each_change_once,
                large_append_is_complete,
                audit_position_is_stored,
                lease_has_one_owner_until_it_expires,
                backlog_counts_unacknowledged_entries,
            ]
        );
        $crate::contract_tests!(
            positions,
            $harness,
            [
                empty_pipeline_has_no_backlog,
                positions_track_both_stages,
                applied_checkpoint_is_stored_separately,
                deleted_stream_is_damage_until_repaired,
                deleted_entries_are_damage,
                missing_or_replaced_collection_is_damage,
                entry_repair_does_not_clear_a_lost_collection,
                normal_operation_is_not_damage,
            ]
        );
        $crate::contract_tests!(
            stream_log,
            $harness,
            [
                archive_reads_every_retained_entry,
                replayed_entries_are_delivered,
                follower_reads_every_entry_after_its_start,
            ]
        );
        $crate::contract_tests!(
            dead_letters,
            $harness,
            [
                dead_letters_are_paged,
                retried_dead_letter_keeps_its_record,
                undecodable_dead_letter_is_listed_and_retried,
                discarded_dead_letters_are_deleted,
                tombstones_are_kept_while_a_retry_is_in_flight,
                dead_letter_older_than_a_collected_tombstone_is_not_retried,
            ]
        );
        $crate::contract_tests!(
            inspector,
            $harness,
            [
                entries_of_a_document_are_found_with_their_state,
                found_entries_omit_vectors_and_dead_letters_are_found,
                leader_is_the_holder_of_the_lease,
                memory_of_the_server_grows_with_its_entries,
                reports_of_processes_are_decoded_until_withdrawn,
            ]
        );
        $crate::contract_tests!(
            queue,
            $harness,
            [
                each_entry_is_delivered_to_one_consumer_in_order,
                blocked_reader_wakes_on_a_new_entry,
                read_without_entries_times_out_empty,
                undecodable_entry_is_delivered_as_error,
                entries_carry_their_format,
                entry_without_format_is_delivered,
                entry_of_a_newer_format_is_delivered_as_error_and_stays_pending,
                unacknowledged_entries_can_be_claimed,
                kept_entries_are_not_claimed,
                keep_does_not_reclaim_entries,
                handed_back_entries_are_claimable_immediately,
                hand_back_requires_ownership,
                repeated_claims_cover_all_pending_entries,
                deleted_pending_entries_are_reported_as_lost,
                parked_entry_is_stored_with_its_reason,
                parking_is_idempotent,
                consumer_leaves_only_without_pending_entries,
                destroyed_group_restarts_at_the_beginning,
                deleted_stream_continues_with_new_entries,
                status_reports_stage_counts,
                calls_without_entries_do_nothing,
            ]
        );
        $crate::contract_tests!(
            trimming,
            $harness,
            [
                acknowledged_entries_beyond_retention_are_trimmed,
                entries_within_retention_age_are_kept,
                pending_and_unread_entries_are_kept,
                slowest_group_limits_trimming,
                nothing_is_trimmed_without_a_group,
                retention_limits_memory,
                random_schedule_never_trims_unacknowledged_entries,
            ]
        );
        $crate::contract_tests!(
            handover,
            $harness,
            [
                hand_over_moves_records_atomically,
                deletion_is_handed_over_without_vectors,
                hand_over_accepts_empty_records_or_ids,
                large_batch_is_handed_over_completely,
                repeated_hand_over_loses_nothing,
            ]
        );
        $crate::contract_tests!(
            tombstones,
            $harness,
            [
                undeleted_targets_have_no_version,
                tombstone_version_is_never_lowered,
                versions_are_compared_numerically,
                targets_have_separate_tombstones,
                tombstones_are_collected_by_recording_time,
                tombstones_are_collected_despite_dead_letters,
            ]
        );
    };
}
