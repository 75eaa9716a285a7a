//! What the contracts of the journal, the queues, the handover and the tombstones need from an implementation.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{
    Alarm, Archive, DeadLetters, Delivery, EntryId, Follower, Handover, Journal, Queue, StageStatus, Tombstones,
};
use tidewheel_core::streams::{STAGE_1, Stage};
use tidewheel_core::wire::RawFields;

use super::samples;

/// One Redis, or a fake of it, that nobody else uses.
#[async_trait]
pub trait StreamsHarness: Send + Sync {
    /// The producer's side of stage 1.
    fn journal(&self) -> Arc<dyn Journal>;
    /// Changes for one consumer of any stage.
    fn changes(&self, stage: Stage, consumer: &str) -> Arc<dyn Queue<Change>>;
    /// Stage 2 for one upserter.
    fn embedded(&self, consumer: &str) -> Arc<dyn Queue<Embedded>>;
    /// The step from stage 1 to stage 2.
    fn handover(&self) -> Arc<dyn Handover>;
    /// The memory of deletions.
    fn tombstones(&self) -> Arc<dyn Tombstones>;
    /// The memory of the collection.
    fn alarm(&self) -> Arc<dyn Alarm>;
    /// What stage 1 still holds.
    fn archive(&self) -> Arc<dyn Archive<Change>>;
    /// The group of a replay on stage 2.
    fn follower(&self) -> Arc<dyn Follower>;
    /// The dead letters of both stages.
    fn dead_letters(&self) -> Arc<dyn DeadLetters>;
    /// Stage 2 for a consumer of that group.
    fn replay(&self, consumer: &str) -> Arc<dyn Queue<Embedded>>;
    /// A stage as an operator sees it.
    async fn status(&self, stage: Stage) -> StageStatus;
    /// Adds an entry as it is.
    async fn add_raw(&self, stream: &'static str, fields: RawFields) -> EntryId;
    /// The entries of a stream as they are, oldest first.
    async fn raw(&self, stream: &'static str) -> Vec<RawFields>;
    /// Deletes one entry, as an operator's XDEL does.
    async fn delete_entry(&self, stream: &'static str, id: &EntryId);
    /// Deletes a stream with its groups.
    async fn delete_stream(&self, stream: &'static str);
    /// Deletes a stage's group.
    async fn destroy_group(&self, stage: Stage);
}

/// No wait: what is there now. Redis counts waits in milliseconds.
pub(super) const NOW: Duration = Duration::ZERO;

/// Longer than any test takes.
pub(super) const LONG: Duration = Duration::from_secs(600);

/// Appends these inserts to stage 1, whatever is there.
pub(super) async fn append(harness: &dyn StreamsHarness, numbers: impl IntoIterator<Item = u32>) {
    let journal = harness.journal();
    let changes = samples::changes(numbers);
    let last = changes.last().map_or(0, |change| change.version.time.increment);
    let saved = journal.load().await.unwrap();
    let appended = journal.append(saved.as_ref(), &changes, &samples::checkpoint(last)).await.unwrap();
    assert_eq!(appended, tidewheel_core::ports::Appended::Saved);
}

/// Stage 1 for this consumer.
pub(super) fn stage_1(harness: &dyn StreamsHarness, consumer: &str) -> Arc<dyn Queue<Change>> {
    harness.changes(STAGE_1, consumer)
}

/// The numbers of the inserts that were delivered.
pub(super) fn numbers(deliveries: &[Delivery<Change>]) -> Vec<u32> {
    deliveries.iter().map(|delivery| delivery.record.as_ref().unwrap().id.parse().unwrap()).collect()
}

/// The ids of what was delivered.
pub(super) fn ids<T>(deliveries: &[Delivery<T>]) -> Vec<EntryId> {
    deliveries.iter().map(|delivery| delivery.id.clone()).collect()
}

/// Declares a test for each contract: `contract_tests!(queue, harness().await, [name, …])`. The harness has to be a new
/// one each time.
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
                a_new_journal_has_no_checkpoint,
                entries_and_checkpoint_are_saved_together,
                parked_changes_are_saved_with_the_checkpoint,
                every_state_of_a_snapshot_comes_back,
                an_unexpected_checkpoint_saves_nothing,
                the_same_append_again_is_done_once,
                an_idle_source_moves_the_checkpoint,
                of_many_producers_each_step_is_taken_by_one,
                a_large_append_is_whole,
                the_place_of_the_audit_is_kept,
                a_lease_has_one_owner_until_it_ends,
                the_backlog_is_what_is_not_confirmed,
            ]
        );
        $crate::contract_tests!(
            positions,
            $harness,
            [
                an_empty_pipeline_has_passed_everything,
                positions_follow_both_stages,
                the_applied_checkpoint_is_saved_beside_the_other,
                a_deleted_stream_is_damage_until_the_producer_goes_on,
                entries_that_vanish_are_damage,
                a_collection_that_is_gone_is_damage,
                lost_entries_do_not_make_a_lost_collection_good,
                what_is_normal_is_no_damage,
            ]
        );
        $crate::contract_tests!(
            archive,
            $harness,
            [
                everything_that_is_held_is_read_again,
                what_is_appended_again_is_delivered,
                a_follower_sees_everything_behind_its_place,
            ]
        );
        $crate::contract_tests!(
            dead_letters,
            $harness,
            [
                letters_are_read_page_by_page,
                a_letter_that_is_tried_again_is_what_it_was,
                what_cannot_be_read_is_shown_and_moves_too,
                discarded_letters_are_gone,
                no_deletion_is_forgotten_while_a_letter_is_on_its_way_again,
                a_letter_older_than_a_forgotten_deletion_stays,
            ]
        );
        $crate::contract_tests!(
            queue,
            $harness,
            [
                each_entry_goes_to_one_consumer_in_order,
                a_reader_wakes_when_an_entry_comes,
                a_reader_without_entries_comes_back_empty,
                an_unreadable_entry_is_delivered_as_such,
                entries_stay_until_they_are_acknowledged,
                entries_that_are_kept_are_not_claimed,
                keeping_takes_nothing_back,
                entries_handed_back_are_claimed_at_once,
                handing_back_needs_ownership,
                claiming_walks_through_all_that_is_pending,
                entries_that_vanished_are_reported_as_lost,
                a_parked_entry_is_kept_with_its_reason,
                parking_again_parks_nothing,
                a_consumer_leaves_only_without_pending_entries,
                a_destroyed_group_starts_again_at_the_beginning,
                a_deleted_stream_goes_on_with_new_entries,
                status_counts_what_is_there,
                nothing_to_do_is_fine,
            ]
        );
        $crate::contract_tests!(
            trimming,
            $harness,
            [
                confirmed_entries_go_beyond_the_retention,
                young_entries_stay,
                pending_and_unread_entries_stay,
                the_slowest_group_decides,
                without_a_group_nothing_goes,
                memory_is_a_limit_too,
                a_random_schedule_never_removes_what_a_group_needs,
            ]
        );
        $crate::contract_tests!(
            handover,
            $harness,
            [
                records_move_in_one_step,
                a_deletion_needs_no_vectors,
                either_side_may_be_empty,
                a_large_batch_moves_whole,
                moving_again_loses_nothing,
            ]
        );
        $crate::contract_tests!(
            tombstones,
            $harness,
            [
                what_was_never_deleted_has_no_version,
                a_version_is_never_lowered,
                versions_are_compared_as_numbers,
                targets_are_not_confused,
                deletions_are_forgotten_by_the_time_they_were_remembered,
                deletions_are_forgotten_beside_dead_letters,
            ]
        );
    };
}
